"""The refiner: predicts alpha and foreground anew, at the full size, where the coarse ones err.

It knows patches and convolutions. Which patches are chosen is matting_refine.py's business.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from model.batch_norm import BatchNorm2d

PATCH = 4  # side of a patch in pixels of the full picture; it is PATCH / 2 at half the size
CHANNELS = (42, 24, 16, 12, 4)  # 32 of hid, 1 of pha, 3 of fgr, 6 of src and bgr; .. pha, fgr


class PatchNorm(BatchNorm2d):
    """Batch norm of patches, of which a picture has any number. In training, where all pictures
    together have none, the running statistics stay."""


class Refiner(nn.Module):
    """Two convolutions at half the size, two at the full size (Lin et al., CVPR 2021, section 3.1,
    https://arxiv.org/abs/2012.07810). None of them pads: a patch is cut with the margin that they
    use up, in which zeros stand for what lies outside of the picture.

    kernel_size: 3, with which an output pixel sees 13x13 input pixels; or 1. Others raise
    ValueError.
    """

    def __init__(self, kernel_size: int = 3) -> None:
        super().__init__()
        if kernel_size not in (1, 3):
            raise ValueError(f"no kernel size {kernel_size}; choose 1 or 3")
        self.patch = PATCH
        # What the convolutions use up at each side: of the half size, and of the full size.
        self.half_margin, self.margin = (3, 2) if kernel_size == 3 else (0, 0)
        self.conv1 = nn.Conv2d(CHANNELS[0], CHANNELS[1], kernel_size, bias=False)
        self.bn1 = PatchNorm(CHANNELS[1])
        self.conv2 = nn.Conv2d(CHANNELS[1], CHANNELS[2], kernel_size, bias=False)
        self.bn2 = PatchNorm(CHANNELS[2])
        self.conv3 = nn.Conv2d(CHANNELS[2] + 6, CHANNELS[3], kernel_size, bias=False)
        self.bn3 = PatchNorm(CHANNELS[3])
        self.conv4 = nn.Conv2d(CHANNELS[3], CHANNELS[4], kernel_size, bias=True)
        self.relu = nn.ReLU()

    def forward(self, half: Tensor, full: Tensor) -> Tensor:
        """half: 42 channels at half the size, (B, 42, h/2 + 2 * half_margin, w/2 + ..). full: src
        and bgr, (B, 6, h + 2 * margin, w + ..). Both have their margins; B may count patches.
        Returns (B, 4, h, w): alpha, and the foreground as a residual, both unclamped."""
        x = self.relu(self.bn1(self.conv1(half)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = F.interpolate(x, full.shape[2:], mode="nearest")
        x = torch.cat([x, full], dim=1)
        x = self.relu(self.bn3(self.conv3(x)))
        return self.conv4(x)

    def whole(self, half: Tensor, full: Tensor) -> Tensor:
        """Refines everything, without cutting patches. half: (B, 42, H/2, W/2); full:
        (B, 6, H, W); neither has a margin. Returns (B, 4, H, W)."""
        # In channels_last, as patches are: the same sums, in the same order.
        half = F.pad(half, [self.half_margin] * 4).contiguous(memory_format=torch.channels_last)
        full = F.pad(full, [self.margin] * 4).contiguous(memory_format=torch.channels_last)
        return self(half, full)

    def patches(self, half: Tensor, full: Tensor, chosen: Tensor) -> Tensor:
        """Refines the chosen patches alone. half, full: as for `whole`. chosen: (N, 3) int64, the
        picture, row and column of each patch; N may be 0. Returns (N, 4, PATCH, PATCH)."""
        return self(
            cut_patches(half, chosen, self.patch // 2, self.half_margin),
            cut_patches(full, chosen, self.patch, self.margin),
        )


def cut_patches(pictures: Tensor, chosen: Tensor, side: int, margin: int) -> Tensor:
    """The chosen squares of `side` pixels with `margin` pixels about each; zeros stand for what is
    outside. pictures: (B, C, H, W). chosen: as Refiner.patches has it, in a grid of squares of
    `side`. Returns (N, C, side + 2 * margin, side + 2 * margin), in channels_last.

    Rows of channels are gathered by their numbers, which is right for every batch, dtype and
    device: no coordinate is ever a floating-point number.
    """
    pictures = F.pad(pictures, [margin] * 4)
    channels, height, width = pictures.shape[1], pictures.shape[2], pictures.shape[3]
    picture, row, column = chosen.unbind(1)
    first = (picture * height + row * side) * width + column * side
    reach = torch.arange(side + 2 * margin, device=chosen.device)
    pixels = first[:, None, None] + reach[:, None] * width + reach
    values = pictures.permute(0, 2, 3, 1).reshape(-1, channels)[pixels]
    return values.permute(0, 3, 1, 2)


def replace_patches(pictures: Tensor, chosen: Tensor, patches: Tensor) -> Tensor:
    """A copy of `pictures`, (B, C, H, W), with the chosen squares, as cut_patches has them,
    replaced by `patches`, (N, C, side, side), which are taken in the pictures' dtype."""
    batch, channels, height, width = pictures.shape
    side = patches.shape[3]
    rows, columns = height // side, width // side
    squares = pictures.view(batch, channels, rows, side, columns, side).permute(0, 2, 4, 1, 3, 5)
    picture, row, column = chosen.unbind(1)
    places: list[Tensor | None] = [picture, row, column]
    squares = squares.index_put(places, patches.to(pictures.dtype))
    return squares.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, height, width)
