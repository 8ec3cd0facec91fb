"""Geometry: all affine steps of a picture are one matrix, and its pixels are sampled once.

Coordinates are (x, y) in pixels, the first pixel's centre being at 0.5. Nothing here is random.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

# Beyond it, pictures are worked on channel by channel: what a step makes of a whole one in between
# takes several times as much memory as the picture, and no less time.
PIXELS_AT_ONCE = 1 << 20


def affine(
    size: tuple[int, int],
    rotate: float = 0,
    translate_x: float = 0,
    translate_y: float = 0,
    scale: float = 1,
    shear: float = 0,
    flip: bool = False,
) -> np.ndarray:
    """The (3, 3) matrix that finds, for every pixel of an output of `size` (height, width), where
    it came from in a frame of the same size; transformed about the centre. Coordinates are
    (x, y) in pixels, the first pixel's centre being at 0.5. Angles in degrees."""
    height, width = size
    angle, slant = math.radians(rotate), math.tan(math.radians(shear))
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    rotated = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, slant], [0, 1]])
    forward = np.eye(3)
    forward[:2, :2] = rotated @ np.diag([-1 if flip else 1, 1])
    to_centre = _translation(-width / 2, -height / 2)
    from_centre = _translation(width * (0.5 + translate_x), height * (0.5 + translate_y))
    return np.linalg.inv(from_centre @ forward @ to_centre)


def fit(size: tuple[int, int], picture_size: tuple[int, int]) -> np.ndarray:
    """The (3, 3) matrix from an output of `size` (height, width) to a picture of `picture_size`
    (height, width) that is centred and just fills it."""
    (height, width), (picture_height, picture_width) = size, picture_size
    scale = min(picture_height / height, picture_width / width)
    return (
        _translation(picture_width / 2, picture_height / 2)
        @ np.diag([scale, scale, 1])
        @ _translation(-width / 2, -height / 2)
    )


def _translation(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=np.float64)


def positions(factors: Tensor, size: tuple[int, int]) -> Tensor:
    """a * x + b * y + c at the centre (x, y) of each pixel of an output of `size`, for (a, b, c) in
    factors: (B, K, 3). Returns (B, H, W, K)."""
    x, y = (torch.arange(side, device=factors.device)[:, None] + 0.5 for side in size[::-1])
    a, b, c = factors[:, None].unbind(3)  # (B, 1, K) each
    return (b * y)[:, :, None] + (a * x + c)[:, None]


def from_centre(sizes: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix to pixels counted from a picture's centre, (B, 2, 3), and half its width and
    height, (B, 2, 1). sizes: (B, 2), height and width; matrix: (B, 2, 3), of `affine` or `fit`."""
    half = sizes.flip(1)[:, :, None] / 2
    return torch.cat([matrix[:, :, :2], matrix[:, :, 2:] - half], dim=2), half


def source_points(sizes: Tensor, matrix: Tensor, size: tuple[int, int]) -> Tensor:
    """Where each pixel of an output of `size` comes from: (B, H, W, 2), x and y, as F.grid_sample
    counts them, -1 to 1 over the picture. sizes, matrix: of the pictures, as in from_centre."""
    centred, half = from_centre(sizes, matrix)
    return positions(centred / half, size)


def warp(pictures: Sequence[Tensor] | Tensor, points: Tensor, reflect: bool = False) -> Tensor:
    """Each picture sampled bilinearly, once.

    pictures: (C, h, w) each, of any sizes, float, or uint8, which stays 0..255; points: (B, H, W,
    2), of source_points. Outside of a picture its border continues, or with `reflect` its mirror
    image. Returns (B, C, H, W) float32.
    """
    outside = "reflection" if reflect else "border"

    def sampled(picture: Tensor, where: Tensor) -> Tensor:
        picture, where = picture[None].float(), where[None]
        return F.grid_sample(picture, where, padding_mode=outside, align_corners=False)

    if max(math.prod(each.shape[-2:]) for each in (points[..., 0], *pictures)) <= PIXELS_AT_ONCE:
        return concatenate([sampled(*each) for each in zip(pictures, points, strict=True)])
    warped = torch.empty(len(points), len(pictures[0]), *points.shape[1:3], device=points.device)
    for result, picture, where in zip(warped, pictures, points, strict=True):
        for channel in range(len(picture)):
            result[channel] = sampled(picture[channel, None], where)[0, 0]
    return warped


def concatenate(tensors: list[Tensor]) -> Tensor:
    """All in one, along their first dimension; one alone is not copied."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def coverage(sizes: Tensor, matrix: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 1, H, W): 1 inside of a warped picture, 0 outside, its rim one output pixel wide.
    sizes, matrix: as in from_centre."""
    area = matrix[:, 0, 0] * matrix[:, 1, 1] - matrix[:, 0, 1] * matrix[:, 1, 0]
    step = area.abs().sqrt()[:, None, None]  # source pixels for each of the output's
    centred, half = (value / step for value in from_centre(sizes, matrix))
    beyond = (
        positions(centred[:, axis, None], size).abs_().sub_(half[:, axis, None, None])
        for axis in (0, 1)
    )
    return (0.5 - torch.maximum(*beyond)).clamp_(0, 1).permute(0, 3, 1, 2)
