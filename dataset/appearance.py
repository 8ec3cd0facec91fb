"""What pictures look like: blur, sharpening, colours, a shadow, noise. Pure functions of whole
batches, each sample with numbers of its own; what is drawn for them is augmentation.py's.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from dataset.geometry import PIXELS_AT_ONCE, concatenate, source_points, warp

BLUR_AT_MOST = 5  # radius in pixels
BLUR_BLOCK = 64  # outputs of one product


def box_blur(pictures: Tensor, radius: Tensor) -> Tensor:
    """The mean over a square of side 2 * radius + 1, fractions allowed (as Pillow's BoxBlur),
    borders replicated. pictures: (B, C, H, W); radius: (B,), in pixels, at most BLUR_AT_MOST.

    Rows, then columns, in blocks, each a matrix product of a block with its surroundings: that
    costs the same for every radius, a sixth of a product of whole rows, and is repeatable.
    """
    (batch, channels, height, width), reach = pictures.shape, BLUR_AT_MOST
    if height * width > PIXELS_AT_ONCE and batch * channels > 1:
        parts = zip(pictures.flatten(0, 1), radius.repeat_interleave(channels), strict=True)
        blurred = torch.empty(batch * channels, height, width, device=pictures.device)
        for result, (picture, its) in zip(blurred, parts, strict=True):
            result.copy_(box_blur(picture[None, None], its[None])[0, 0])
        return blurred.view_as(pictures)
    weights = box_weights(radius)
    right, below = -width % BLUR_BLOCK + reach, -height % BLUR_BLOCK + reach
    padded = F.pad(pictures, (reach, right, reach, below), mode="replicate")
    window = BLUR_BLOCK + 2 * reach
    rows = padded.unfold(3, window, BLUR_BLOCK)  # (B, C, H + .., blocks, window)
    rows = rows.flatten(1, 3) @ weights.transpose(1, 2)
    rows = rows.view(batch, channels, padded.shape[2], -1)
    columns = rows.unfold(2, window, BLUR_BLOCK).transpose(3, 4)  # (B, C, blocks, window, W + ..)
    columns = weights[:, None, None] @ columns
    return columns.flatten(2, 3)[:, :, :height, :width]


def box_weights(radius: Tensor) -> Tensor:
    """(B, BLUR_BLOCK, window): how much of the box about each output, in rows, is of each input,
    in columns, of which the first is BLUR_AT_MOST pixels ahead of the first output."""
    window = BLUR_BLOCK + 2 * BLUR_AT_MOST
    start = torch.arange(window, device=radius.device, dtype=radius.dtype)
    middle = start[:BLUR_BLOCK, None] + (BLUR_AT_MOST + 0.5)
    side = radius[:, None, None] + 0.5
    overlap = torch.minimum(start + 1, middle + side) - torch.maximum(start, middle - side)
    return overlap.clamp(min=0) / (2 * side)


def sharpen(pictures: Tensor) -> Tensor:
    """Pillow's SHARPEN filter: each pixel 32/16, its eight neighbours -2/16 each.
    pictures: (B, C, H, W) in 0..1."""
    mean = box_blur(pictures, torch.ones(len(pictures), device=pictures.device))  # of all nine
    return (pictures * (34 / 16)).sub_(mean.mul_(18 / 16)).clamp_(0, 1)


LUMA = (0.299, 0.587, 0.114)
YIQ = (LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
FROM_YIQ = tuple(map(tuple, np.linalg.inv(YIQ).tolist()))


@lru_cache
def constant(values: tuple, device: torch.device) -> Tensor:
    """A tensor made once for each device, since making one there waits for it."""
    return torch.tensor(values, dtype=torch.float32, device=device)


def colour_jitter(
    pictures: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor
) -> Tensor:
    """pictures: (B, 3, H, W) in 0..1; the others (B,): factors, and hue in turns.

    Brightness multiplies, contrast blends with the picture's mean grey, saturation with each
    pixel's grey (as torchvision's ColorJitter, in that order), hue turns colours about the grey
    axis at constant luma (YIQ). All are linear: one 3x3 matrix and an offset, clamped at the end.
    """
    device = pictures.device
    luma, to_yiq, from_yiq = (constant(values, device) for values in (LUMA, YIQ, FROM_YIQ))
    mean_grey = pictures.mean((2, 3)) @ luma
    to_grey = luma.expand(3, 3)
    saturate = saturation[:, None, None] * (torch.eye(3, device=device) - to_grey) + to_grey

    angle = hue * (-2 * math.pi)  # from red towards yellow, as in HSV, is clockwise in YIQ
    cos, sin = angle.cos(), angle.sin()
    one, zero = torch.ones_like(hue), torch.zeros_like(hue)
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], dim=1).view(-1, 3, 3)

    matrix = (brightness * contrast)[:, None, None] * (from_yiq @ turn @ to_yiq @ saturate)
    offset = ((1 - contrast) * brightness * mean_grey)[:, None, None]
    # One product, and not a convolution, whose bits vary with the number of threads on a CPU, and
    # whose factors a GPU would round to TF32.
    turned = torch.baddbmm(offset, matrix, pictures.flatten(2))
    return turned.view_as(pictures).clamp_(0, 1)


SHADOW_SCALE = 4  # a shadow is blurred over 20 pixels and more: it is drawn that much smaller


def cast_shadow(bgr: Tensor, pha: Tensor, matrix: Tensor, strength: Tensor, blur: Tensor) -> Tensor:
    """Darkens a background by the figure's shadow: its alpha, warped, blurred and subtracted.

    bgr: (B, 3, H, W); pha: (B, 1, H, W); matrix: (B, 2, 3) from the shadow's to alpha's pixels;
    strength: (B,), 0 is none and 1 black; blur: (B,), the side of the box in pixels, 20 to 40.
    """
    (height, width), scale = pha.shape[2:], SHADOW_SCALE
    pha = F.avg_pool2d(pha, scale, ceil_mode=True)
    small = (pha.shape[2], pha.shape[3])
    sizes = torch.stack([torch.full_like(strength, scale * side) for side in small], dim=1)
    points = source_points(sizes, matrix * constant((scale, scale, 1), pha.device), small)
    shadow = box_blur(warp(pha, points), (blur / scale - 1) / 2) * strength[:, None, None, None]
    shadow = F.interpolate(shadow, scale_factor=scale, mode="bilinear", align_corners=False)
    return (bgr - shadow[..., :height, :width]).clamp_(0, 1)


def add_noise(pictures: Tensor, sigma: Tensor, seeds: Tensor) -> Tensor:
    """Gaussian noise of standard deviation sigma, (B,), each picture's drawn from a generator
    of its own seed: int64, (B,), on the host. pictures: (B, 3, H, W) in 0..1."""
    device, shape = pictures.device, (1, *pictures.shape[1:])
    fields = [
        torch.randn(shape, device=device, generator=torch.Generator(device).manual_seed(seed))
        for seed in seeds.tolist()
    ]
    noise = concatenate(fields)
    return noise.mul_(sigma[:, None, None, None]).add_(pictures).clamp_(0, 1)
