"""The augmentation: what is drawn for a sample, and what is then done to whole batches.

Drawing (Python floats, in the workers) and applying (tensors, on the device) stand side by side,
step by step. Nothing here is random but for the generators it is given.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

# ------------------------------------------------------------------------------------------------
# What is drawn for one sample. The ranges are those of the published recipe
# (PeterL1n/BackgroundMattingV2, train_base.py), where several were drawn once for a whole batch.

LOOK = {
    "blur": 0.0,  # radius of a box in pixels
    "sharpen": 0.0,  # 0 or 1
    "brightness": 1.0,
    "contrast": 1.0,
    "saturation": 1.0,
    "hue": 0.0,  # of a full turn
}
# What leaves a sample as it is: the values of an unaugmented one.
NEUTRAL = {
    **{f"fgr_{name}": value for name, value in LOOK.items()},
    **{f"bgr_{name}": value for name, value in LOOK.items()},
    **{f"input_{name}": value for name, value in LOOK.items()},
    "shadow_strength": 0.0,
    "shadow_blur": 0.0,  # side of a box in pixels
    "src_noise": 0.0,  # standard deviation, colours being 0..1
    "bgr_noise": 0.0,
    "misaligned": 0.0,  # 0 or 1: the background input is warped by a matrix of its own
}
NUMBERS = tuple(NEUTRAL)  # the order of the columns in a batch


def draw_numbers(rng: random.Random) -> dict[str, float]:
    """Everything but the geometry, for one sample; the keys are those of NEUTRAL."""
    shadow = rng.random() < 0.3
    return NEUTRAL | {
        **draw_look(rng, "fgr"),
        **draw_look(rng, "bgr"),
        "shadow_strength": rng.uniform(0, 0.3) * shadow,
        "shadow_blur": rng.uniform(20, 40),
        "src_noise": rng.uniform(0, 0.03) * (rng.random() < 0.4),
        "bgr_noise": rng.uniform(0, 0.03) * (rng.random() < 0.4),
        # A captured background never matches exactly: exposure, white balance, a touched tripod.
        **(draw_jitter(rng, "input", 0.18, 0.1) if rng.random() < 0.8 else {}),
        "misaligned": float(rng.random() < 0.3),
    }


def draw_look(rng: random.Random, prefix: str) -> dict[str, float]:
    return {
        f"{prefix}_blur": rng.uniform(0, 5) * (rng.random() < 0.1),
        f"{prefix}_sharpen": float(rng.random() < 0.1),
        **draw_jitter(rng, prefix, 0.15, 0.05),
    }


def draw_jitter(rng: random.Random, prefix: str, strength: float, hue: float) -> dict[str, float]:
    return {
        f"{prefix}_brightness": rng.uniform(1 - strength, 1 + strength),
        f"{prefix}_contrast": rng.uniform(1 - strength, 1 + strength),
        f"{prefix}_saturation": rng.uniform(1 - strength, 1 + strength),
        f"{prefix}_hue": rng.uniform(-hue, hue),
    }


def draw_fgr_affine(rng: random.Random) -> dict[str, float]:
    """For fgr and pha together: a figure may be as small as 0.4 of the crop."""
    return draw_affine(rng, rotate=5, translate=0.1, scale=(0.4, 1), shear=5, flip=0.5)


def draw_bgr_affine(rng: random.Random) -> dict[str, float]:
    """For the background: it always fills the crop, but for what reflection adds at its borders."""
    return draw_affine(rng, rotate=5, translate=0.1, scale=(1, 2), shear=5, flip=0.5)


def draw_shadow_affine(rng: random.Random) -> dict[str, float]:
    return draw_affine(rng, rotate=5, translate=0.2, scale=(0.5, 1.5), shear=5)


def draw_misalignment_affine(rng: random.Random) -> dict[str, float]:
    return draw_affine(rng, rotate=1, translate=0.01)


def draw_affine(
    rng: random.Random,
    rotate: float = 0,
    translate: float = 0,
    scale: tuple[float, float] = (1, 1),
    shear: float = 0,
    flip: float = 0,
) -> dict[str, float]:
    """rotate, shear: up to so many degrees either way; translate: up to this part of the output's
    sides; flip: probability of a horizontal one. Returns the arguments of `affine`."""
    return {
        "rotate": rng.uniform(-rotate, rotate),
        "translate_x": rng.uniform(-translate, translate),
        "translate_y": rng.uniform(-translate, translate),
        "scale": rng.uniform(*scale),
        "shear": rng.uniform(-shear, shear),
        "flip": rng.random() < flip,
    }


# ------------------------------------------------------------------------------------------------
# Geometry: all affine steps of a picture are one matrix, and its pixels are sampled once.


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


def source_points(matrix: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Where each pixel of an output of `size` comes from: x and y, each (B, H, W), in pixels.
    matrix: (B, 2, 3), as `affine` and `fit` make them."""
    height, width = size
    x = torch.arange(width, device=matrix.device) + 0.5
    y = (torch.arange(height, device=matrix.device) + 0.5)[:, None]
    rows = matrix[:, :, :, None, None]
    return tuple(rows[:, i, 0] * x + rows[:, i, 1] * y + rows[:, i, 2] for i in (0, 1))


def warp(
    pictures: Tensor, sizes: Tensor, matrix: Tensor, size: tuple[int, int], reflect: bool = False
) -> Tensor:
    """Each picture under its own matrix, sampled bilinearly once.

    pictures: (B, C, h, w) float, each in the upper left corner; sizes: (B, 2), the height and
    width that each really has; matrix: (B, 2, 3); size: (H, W) of the output.
    Outside of a picture its border continues, or with `reflect` its mirror image.
    Returns (B, C, H, W).
    """
    grid = torch.empty(len(matrix), *size, 2, device=matrix.device)
    points = source_points(matrix, size)
    for axis, (point, length) in enumerate(zip(points, sizes.flip(1).unbind(1), strict=True)):
        length = length.to(point.dtype)[:, None, None]
        if reflect:
            point = length - (torch.remainder(point, 2 * length) - length).abs_()
        inside = torch.clamp(point, torch.full_like(length, 0.5), length - 0.5)
        # grid_sample counts from -1 to 1.
        torch.add(inside.mul_(2 / pictures.shape[3 - axis]), -1, out=grid[..., axis])
    return F.grid_sample(pictures, grid, align_corners=False)


def coverage(sizes: Tensor, matrix: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 1, H, W): 1 inside of a warped picture, 0 outside, its rim one output pixel wide."""
    x, y = source_points(matrix, size)
    height, width = sizes.to(x.dtype)[:, :, None, None].unbind(1)
    inside = torch.minimum(torch.minimum(x, width - x), torch.minimum(y, height - y))
    area = matrix[:, 0, 0] * matrix[:, 1, 1] - matrix[:, 0, 1] * matrix[:, 1, 0]
    step = area.abs().sqrt()[:, None, None]  # source pixels for each of the output's
    return (inside / step + 0.5).clamp(0, 1)[:, None]


# ------------------------------------------------------------------------------------------------
# Appearance


def box_blur(pictures: Tensor, radius: Tensor) -> Tensor:
    """The mean over a square of side 2 * radius + 1, fractions allowed (as Pillow's BoxBlur).
    pictures: (B, C, H, W); radius: (B,), in pixels, on the pictures' device."""
    height, width = pictures.shape[2:]
    return box_weights(radius, height) @ pictures @ box_weights(radius, width).transpose(2, 3)


def box_weights(radius: Tensor, length: int) -> Tensor:
    """(B, 1, length, length): how much of each output's box, in rows, is of each input pixel, in
    columns. The first and last pixel go on for ever outside. As a matrix product this costs the
    same for every radius, and is exact and repeatable on every device."""
    start = torch.arange(length, device=radius.device, dtype=radius.dtype)
    middle, reach = start[:, None] + 0.5, radius[:, None, None, None] + 0.5
    end = start + 1
    start[0], end[-1] = -math.inf, math.inf
    overlap = torch.minimum(end, middle + reach) - torch.maximum(start, middle - reach)
    return overlap.clamp(min=0) / (2 * reach)


def sharpen(pictures: Tensor) -> Tensor:
    """Pillow's SHARPEN filter: each pixel 32/16, its eight neighbours -2/16 each.
    pictures: (B, C, H, W) in 0..1."""
    padded = F.pad(pictures, (1, 1, 1, 1), mode="replicate")
    rows = padded[:, :, :-2] + padded[:, :, 1:-1] + padded[:, :, 2:]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    return (pictures * (34 / 16) - total * (2 / 16)).clamp_(0, 1)


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
    turned = torch.baddbmm(offset.expand(-1, 3, 1), matrix, pictures.flatten(2))
    return turned.clamp_(0, 1).view_as(pictures)


def cast_shadow(bgr: Tensor, pha: Tensor, matrix: Tensor, strength: Tensor, blur: Tensor) -> Tensor:
    """Darkens a background by the figure's shadow: its alpha, warped, blurred and subtracted.

    bgr: (B, 3, H, W); pha: (B, 1, H, W); matrix: (B, 2, 3) from the shadow's to alpha's pixels;
    strength: (B,), 0 is none and 1 black; blur: (B,), the side of the box in pixels.
    """
    size = pha.shape[2:]
    sizes = torch.stack([torch.full_like(strength, side) for side in size], dim=1)
    shadow = box_blur(warp(pha, sizes, matrix, size), (blur - 1) / 2)
    return (bgr - strength[:, None, None, None] * shadow).clamp(0, 1)


def add_noise(pictures: Tensor, sigma: Tensor, seeds: Tensor) -> Tensor:
    """Gaussian noise of standard deviation sigma, (B,), each picture's drawn from a generator
    of its own seed: int64, (B,), on the host. pictures: (B, 3, H, W) in 0..1."""
    device, shape = pictures.device, pictures.shape[1:]
    fields = [
        torch.randn(shape, device=device, generator=torch.Generator(device).manual_seed(seed))
        for seed in seeds.tolist()
    ]
    return (pictures + sigma[:, None, None, None] * torch.stack(fields)).clamp(0, 1)


# ------------------------------------------------------------------------------------------------
# The whole


@dataclass(frozen=True)
class Numbers:
    """The drawn numbers of some samples, on the host and on the device: (B, len(NUMBERS)) each.
    The host's decide which samples a rare step is for, so that nothing waits for the device."""

    host: Tensor
    device: Tensor

    def __getitem__(self, name: str) -> Tensor:
        return self.device[:, NUMBERS.index(name)]

    def differs(self, *names: str) -> Tensor:
        """(B,) bool on the host: the samples in which one of these is not neutral."""
        columns = [self.host[:, NUMBERS.index(name)] != NEUTRAL[name] for name in names]
        return torch.stack(columns).any(0)


def only_where(gate: Tensor, step: Callable, pictures: Tensor, *arguments: Tensor) -> Tensor:
    """step(pictures, *arguments) for the samples whose gate, (B,) on the host, is set; the others
    stay as they are, and cost nothing. Most steps are for one sample in ten."""
    if gate.all():
        return step(pictures, *arguments)
    if not gate.any():
        return pictures
    chosen = [gate.nonzero().squeeze(1)]
    rows = chosen[0].to(pictures.device, non_blocking=True)
    # An argument stays on its own device: seeds are the host's.
    picked = [value[chosen[0] if value.device.type == "cpu" else rows] for value in arguments]
    return pictures.index_copy(0, rows, step(pictures[rows], *picked))


def focus(pictures: Tensor, numbers: Numbers, prefix: str) -> Tensor:
    blur, sharp = f"{prefix}_blur", f"{prefix}_sharpen"

    pictures = only_where(numbers.differs(blur), box_blur, pictures, numbers[blur])
    return only_where(numbers.differs(sharp), sharpen, pictures)


def jitter(pictures: Tensor, numbers: Numbers, prefix: str) -> Tensor:
    names = [f"{prefix}_{name}" for name in ("brightness", "contrast", "saturation", "hue")]
    return only_where(
        numbers.differs(*names), colour_jitter, pictures, *(numbers[name] for name in names)
    )


def augment(batch: dict, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Turns a batch of decoded pictures (dataset.matting.collate) into what the network is given.

    Returns src, bgr, true_pha, true_fgr on `device`: float32, 0..1, (B, 3, H, W), alpha
    (B, 1, H, W). The same batch gives the same values, on the CPU to the last bit.
    """
    size = tuple(batch["size"])
    on = {
        name: value.to(device, non_blocking=True)
        for name, value in batch.items()
        if isinstance(value, Tensor)
    }
    numbers = Numbers(batch["numbers"], on["numbers"])

    def warped(pictures: Tensor, *arguments: object, **named: object) -> Tensor:
        return warp(pictures.permute(0, 3, 1, 2).float(), *arguments, **named).div_(255)

    # The figure. Alpha ends at the picture's border; colours go on.
    true_fgr = warped(on["fgr"], on["fgr_size"], on["fgr_matrix"], size)
    true_pha = warped(on["pha"], on["pha_size"], on["pha_matrix"], size)
    true_pha = true_pha * coverage(on["pha_size"], on["pha_matrix"], size)
    true_fgr, true_pha = (focus(each, numbers, "fgr") for each in (true_fgr, true_pha))
    true_fgr = jitter(true_fgr, numbers, "fgr")

    # The background as it is behind the figure; and, where the camera moved, once more from the
    # source, under the matrix with which it is the network's input.
    count = len(true_pha)
    moved = numbers.differs("misaligned").nonzero().squeeze(1)
    rows = torch.cat([torch.arange(count), moved])
    host = numbers.host[rows]
    moved, rows = (index.to(device, non_blocking=True) for index in (moved, rows))
    twice = Numbers(host, numbers.device[rows])
    matrix = torch.cat([on["bgr_matrix"], on["input_matrix"][moved]])
    pictures = warped(on["bgr"][rows], on["bgr_size"][rows], matrix, size, reflect=True)
    pictures = jitter(focus(pictures, twice, "bgr"), twice, "bgr")
    behind = pictures[:count]
    bgr = behind.index_copy(0, moved, pictures[count:])

    # The photograph.
    behind = only_where(
        numbers.differs("shadow_strength"),
        cast_shadow,
        behind,
        true_pha,
        on["shadow_matrix"],
        numbers["shadow_strength"],
        numbers["shadow_blur"],
    )
    src = true_fgr * true_pha + behind * (1 - true_pha)

    # The sensor, twice.
    seeds = batch["noise_seeds"]
    noisy = numbers.differs("src_noise")
    src = only_where(noisy, add_noise, src, numbers["src_noise"], seeds[:, 0])
    noisy = numbers.differs("bgr_noise")
    bgr = only_where(noisy, add_noise, bgr, numbers["bgr_noise"], seeds[:, 1])
    bgr = jitter(bgr, numbers, "input")
    return src, bgr, true_pha, true_fgr
