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

    def whole(self, half: list[Tensor], full: list[Tensor]) -> Tensor:
        """Refines everything, without cutting patches. half: tensors of 42 channels together at
        half the size, (B, ?, H/2, W/2); full: of 6 channels together, (B, ?, H, W). None has a
        margin. Returns (B, 4, H, W)."""
        # In channels_last, as patches are: the same sums, in the same order.
        layout = torch.channels_last
        return self(
            F.pad(torch.cat(half, dim=1), [self.half_margin] * 4).contiguous(memory_format=layout),
            F.pad(torch.cat(full, dim=1), [self.margin] * 4).contiguous(memory_format=layout),
        )

    def patches(self, half: list[Tensor], full: list[Tensor], chosen: Tensor) -> Tensor:
        """Refines the chosen patches alone. half, full: as for `whole`. chosen: (N, 3) int64, the
        picture, row and column of each patch; N may be 0. Returns (N, 4, PATCH, PATCH)."""
        return self(
            cut_patches(half, chosen, self.patch // 2, self.half_margin),
            cut_patches(full, chosen, self.patch, self.margin),
        )


def cut_patches(pictures: list[Tensor], chosen: Tensor, side: int, margin: int) -> Tensor:
    """The chosen squares of `side` pixels with `margin` pixels about each; zeros stand for what is
    outside. pictures: of one size, (B, ?, H, W), of C channels together. chosen: as
    Refiner.patches has it, in a grid of squares of `side`. Returns
    (N, C, side + 2 * margin, side + 2 * margin), in channels_last.

    Pixels are gathered by their places, which is right for every batch, dtype and device: no
    coordinate is ever a floating-point number. Channels meet only as patches: whole pictures are
    neither joined nor padded nor turned over, which took longer than the convolutions.
    """
    height, width = pictures[0].shape[2], pictures[0].shape[3]
    picture, row, column = chosen.unbind(1)
    reach = torch.arange(-margin, side + margin, device=chosen.device)
    y, x = row[:, None] * side + reach, column[:, None] * side + reach
    outside = ((y < 0) | (y >= height))[:, :, None] | ((x < 0) | (x >= width))[:, None, :]
    top = picture[:, None] * height + y.clamp(0, height - 1)
    pixels = top[:, :, None] * width + x.clamp(0, width - 1)[:, None, :]
    rows = [of.permute(0, 2, 3, 1).flatten(0, 2) for of in pictures]
    patches = torch.cat([of[pixels] for of in rows], dim=3)
    return patches.masked_fill_(outside[:, :, :, None], 0).permute(0, 3, 1, 2)


def replace_patches(pictures: Tensor, chosen: Tensor, patches: Tensor) -> None:
    """Replaces the chosen squares of `pictures`, (B, C, H, W), contiguous, by `patches`,
    (N, C, side, side), which are taken in the pictures' dtype. chosen: as cut_patches has them."""
    batch, channels, height, width = pictures.shape
    side = patches.shape[3]
    squares = pictures.view(batch, channels, height // side, side, width // side, side)
    picture, row, column = chosen.unbind(1)
    places: list[Tensor | None] = [picture, row, column]
    squares.permute(0, 2, 4, 1, 3, 5).index_put_(places, patches.to(pictures.dtype))
