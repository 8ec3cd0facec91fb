"""Brings what the network saw small back to the picture's size: bilinear, or led by the picture.

The guided way is the fast guided filter (He, Sun, Tang: "Guided Image Filtering", ECCV 2010; He,
Sun: "Fast Guided Filter", 2015): in every small window alpha is taken to be a linear function of
the picture's colours; the factors are found at the small size, and applied at the large one.
`python -m benchmarks.upsampling` measures both. Nothing here is learnt.
"""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

WINDOW_RADIUS = 1  # of the windows, in pixels of the small size
MIN_VARIANCE = 1e-4  # of colours' variance: below it a window counts as of one colour


def guided_factors(
    guide: Tensor, pha: Tensor, radius: int = WINDOW_RADIUS, epsilon: float = MIN_VARIANCE
) -> Tensor:
    """The linear functions from colours to alpha, one for every pixel of the small size.

    guide: (B, 3, h, w), float32, 0..1. pha: (B, 1, h, w), float32, 0..1, of the same pictures.
    Returns (B, 4, h, w): a factor for each colour, and what is added.
    """
    mean_guide, mean_pha = _box(guide, radius), _box(pha, radius)
    covariance = _box(guide * pha, radius) - mean_guide * mean_pha
    red, green, blue = guide.unbind(1)
    products = [red * red, red * green, red * blue, green * green, green * blue, blue * blue]
    r, g, b = mean_guide.unbind(1)
    means = torch.stack([r * r, r * g, r * b, g * g, g * b, b * b], dim=1)
    rr, rg, rb, gg, gb, bb = (_box(torch.stack(products, dim=1), radius) - means).unbind(1)
    rr, gg, bb = rr + epsilon, gg + epsilon, bb + epsilon

    # The symmetric 3x3 matrix, inverted by its cofactors: a solver takes many times as long.
    c_rr, c_rg, c_rb = gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg
    c_gg, c_gb, c_bb = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
    determinant = rr * c_rr + rg * c_rg + rb * c_rb
    x, y, z = covariance.unbind(1)
    factors = torch.stack(
        [
            c_rr * x + c_rg * y + c_rb * z,
            c_rg * x + c_gg * y + c_gb * z,
            c_rb * x + c_gb * y + c_bb * z,
        ],
        dim=1,
    ) / determinant.unsqueeze(1)
    added = mean_pha - (factors * mean_guide).sum(1, keepdim=True)
    return _box(torch.cat([factors, added], dim=1), radius)


def guided_alpha(factors: Tensor, guide: Tensor) -> Tensor:
    """Alpha of the rows that `guide` (B, 3, n, W) holds, from their factors (B, 4, n, W), as
    enlarge_rows gives them. Returns (B, 1, n, W), 0..1."""
    return ((factors[:, :3] * guide).sum(1, keepdim=True) + factors[:, 3:]).clamp(0, 1)


def enlarge_rows(x: Tensor, size: tuple[int, int], first: int, last: int) -> Tensor:
    """Rows first .. last - 1 of `x` (B, C, h, w) brought bilinearly to size (H, W), as
    F.interpolate(x, size, mode="bilinear") has them; only they take memory. Returns
    (B, C, last - first, W)."""
    height, width = size
    rows = torch.arange(first, last, device=x.device, dtype=torch.float32)
    rows = ((rows + 0.5) * (x.shape[2] / height) - 0.5).clamp(0, x.shape[2] - 1)
    above = rows.long()
    below = (above + 1).clamp(max=x.shape[2] - 1)
    share = (rows - above).view(-1, 1)
    x = torch.lerp(x[:, :, above], x[:, :, below], share.expand(-1, x.shape[3]))
    return F.interpolate(x, (last - first, width), mode="bilinear", align_corners=False)


def _box(x: Tensor, radius: int) -> Tensor:
    """The mean over a square window, at the borders over what there is of it."""
    return F.avg_pool2d(x, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)
