"""The augmentation: what is drawn for a sample, and what is then done to whole batches.

Drawing (Python floats, where pictures are decoded) and applying (tensors, on the device) stand side
by side, step by step. Nothing here is random but for the generators it is given.
"""

import math
import random
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from dataset.geometry import coverage, source_points, together, warp
from dataset.rows import Rows, each_step, only_where
from dataset.threads import PICTURE_NAMES, areas, in_threads, one_by_one

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
JITTER = ("brightness", "contrast", "saturation", "hue")


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


def draw_fgr_affine(rng: random.Random) -> dict[str, Any]:
    """For fgr and pha together: a figure may be as small as 0.4 of the crop."""
    return draw_affine(rng, rotate=5, translate=0.1, scale=(0.4, 1), shear=5, flip=0.5)


def draw_bgr_affine(rng: random.Random) -> dict[str, Any]:
    """For the background: it always fills the crop, but for what reflection adds at its borders."""
    return draw_affine(rng, rotate=5, translate=0.1, scale=(1, 2), shear=5, flip=0.5)


def draw_shadow_affine(rng: random.Random) -> dict[str, Any]:
    return draw_affine(rng, rotate=5, translate=0.2, scale=(0.5, 1.5), shear=5)


def draw_misalignment_affine(rng: random.Random) -> dict[str, Any]:
    return draw_affine(rng, rotate=1, translate=0.01)


def draw_affine(
    rng: random.Random,
    rotate: float = 0,
    translate: float = 0,
    scale: tuple[float, float] = (1, 1),
    shear: float = 0,
    flip: float = 0,
) -> dict[str, Any]:
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
# Appearance


BLUR_AT_MOST = 5  # radius in pixels
BLUR_BLOCK = 64  # outputs of one product


def box_blur(pictures: Tensor, radius: Tensor) -> Tensor:
    """The mean over a square of side 2 * radius + 1, fractions allowed (as Pillow's BoxBlur),
    borders replicated. pictures: (B, C, H, W); radius: (B,), in pixels, at most BLUR_AT_MOST.

    Rows, then columns, in blocks, each a matrix product of a block with its surroundings: that
    costs the same for every radius, a sixth of a product of whole rows, and is repeatable.
    """
    (batch, channels, height, width), reach = pictures.shape, BLUR_AT_MOST
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
    return (pictures * (34 / 16) - mean * (18 / 16)).clamp_(0, 1)


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
    noise = together(fields)
    return noise.mul_(sigma[:, None, None, None]).add_(pictures).clamp_(0, 1)


# ------------------------------------------------------------------------------------------------
# The whole


AS_IT_IS = np.array(list(NEUTRAL.values()), dtype=np.float32)


def columns_of(prefix: str) -> dict[str, list[int]]:
    """Of the steps of focus and jitter, the columns of the numbers that say if there is something
    to do."""
    steps = {"blur": ["blur"], "sharpen": ["sharpen"], "jitter": JITTER}
    return {
        f"{prefix}_{step}": [NUMBERS.index(f"{prefix}_{name}") for name in names]
        for step, names in steps.items()
    }


OF_SAMPLES = {name: [NUMBERS.index(name)] for name in ("shadow_strength", "src_noise", "bgr_noise")}
OF_SAMPLES |= columns_of("fgr") | columns_of("input")
OF_BACKGROUNDS = columns_of("bgr")


def choose(numbers: Tensor) -> dict[str, Any]:
    """Which samples each rare step is for; most are for one in ten. numbers: (B, len(NUMBERS)).

    Returns "chosen", the rows of all steps behind each other, int64, to be sent to a device as one,
    and "chosen_counts", how many are of each. There are more backgrounds than samples: behind them
    follow the misaligned ones, once more.
    """
    differs = numbers.numpy() != AS_IT_IS
    moved = np.flatnonzero(differs[:, NUMBERS.index("misaligned")])
    twice = np.concatenate([np.arange(len(numbers)), moved])
    rows = {}
    for steps, of in ((OF_SAMPLES, differs), (OF_BACKGROUNDS, differs[twice])):
        for name, columns in steps.items():
            rows[name] = np.flatnonzero(of[:, columns].any(1))
    rows |= {"moved": moved, "backgrounds": twice}
    return {
        "chosen": torch.from_numpy(np.concatenate(list(rows.values()))),
        "chosen_counts": {name: len(each) for name, each in rows.items()},
    }


Columns = dict[str, Tensor]  # the drawn numbers of some samples by name: (B,) each


def focus(pictures: Tensor, numbers: Columns, rows: dict[str, Rows], prefix: str) -> Tensor:
    blur, sharp = f"{prefix}_blur", f"{prefix}_sharpen"
    pictures = only_where(rows[blur], box_blur, pictures, numbers[blur])
    return only_where(rows[sharp], sharpen, pictures)


def jitter(pictures: Tensor, numbers: Columns, rows: dict[str, Rows], prefix: str) -> Tensor:
    values = [numbers[f"{prefix}_{name}"] for name in JITTER]
    return only_where(rows[f"{prefix}_jitter"], colour_jitter, pictures, *values)


def augment(
    batch: dict, device: torch.device, layout: torch.memory_format = torch.contiguous_format
) -> tuple[Tensor, ...]:
    """Turns a batch of decoded pictures (dataset.sample.collate) into what the network is given.

    Returns src, bgr, true_pha, true_fgr on `device`: float32, 0..1, (B, 3, H, W), alpha
    (B, 1, H, W), which lie in memory by `layout`: best as the network's weights do, since what is
    joined of two layouts is slow. On the CPU a sample is computed by itself, in a thread of its
    own, which its caches like and which makes it the same to the last bit in every batch; a GPU
    takes all at once.
    """
    if device.type != "cpu":
        return tuple(
            each.contiguous(memory_format=layout) for each in augment_together(batch, device)
        )
    count, size = len(batch["numbers"]), batch["size"]
    whole = tuple(
        torch.empty(count, channels, *size, memory_format=layout) for channels in (3, 3, 1, 3)
    )

    def augment_one(row: int, sample: dict) -> None:
        for outputs, output in zip(whole, augment_together(sample, device), strict=True):
            outputs[row] = output[0]

    in_threads(augment_one, list(enumerate(one_by_one(batch))))
    return whole


def on_device(batch: dict, device: torch.device) -> dict[str, Tensor]:
    """The batch's tensors on `device`. To a GPU they go on a stream of their own: as the host is
    ahead of it, they are copied while it computes the step before."""
    tensors = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
    tensors.pop("noise_seeds")  # they start generators, on the host
    if device.type != "cuda":
        return {name: value.to(device) for name, value in tensors.items()}
    now, beside = torch.cuda.current_stream(device), copying(device)
    with torch.cuda.stream(beside):
        on = {name: value.to(device, non_blocking=True) for name, value in tensors.items()}
    now.wait_stream(beside)  # the device waits, not the host
    for value in on.values():
        value.record_stream(now)  # whose memory is not given away before `now` is done with it
    return on


@lru_cache
def copying(device: torch.device) -> "torch.cuda.Stream":
    return torch.cuda.Stream(device)


def augment_together(batch: dict, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As augment, with each step for all samples at once."""
    size = tuple(batch["size"])
    if "chosen" not in batch:
        batch = {**batch, **choose(batch["numbers"])}
    on = on_device(batch, device)
    rows = each_step(batch["chosen_counts"], batch["chosen"], on["chosen"])
    moved, twice = rows["moved"].device, rows["backgrounds"]
    numbers, of_backgrounds = (
        dict(zip(NUMBERS, values.unbind(1), strict=True))
        for values in (on["numbers"], on["numbers"][twice.device])
    )
    fgr, pha, bgr_pictures = (
        [
            pixels.view(*shape, -1).permute(2, 0, 1)
            for pixels, shape in zip(
                on[name].split(areas(batch, name)), batch[f"{name}_size"].tolist(), strict=True
            )
        ]
        for name in PICTURE_NAMES
    )

    # The figure. Alpha ends at the picture's border; colours go on.
    points = source_points(on["fgr_size"], on["fgr_matrix"], size)
    true_fgr = warp(fgr, points).div_(255)
    if any(not torch.equal(batch[f"fgr_{of}"], batch[f"pha_{of}"]) for of in ("size", "matrix")):
        points = source_points(on["pha_size"], on["pha_matrix"], size)
    true_pha = warp(pha, points).div_(255)
    true_pha *= coverage(on["pha_size"], on["pha_matrix"], size)
    true_fgr, true_pha = (focus(each, numbers, rows, "fgr") for each in (true_fgr, true_pha))
    true_fgr = jitter(true_fgr, numbers, rows, "fgr")

    # The background as it is behind the figure; and, where the camera moved, once more from the
    # source, under the matrix with which it is the network's input.
    count = len(true_pha)
    bgr_pictures = [bgr_pictures[row] for row in twice.host.tolist()]
    matrix = torch.cat([on["bgr_matrix"], on["input_matrix"][moved]])
    points = source_points(on["bgr_size"][twice.device], matrix, size)
    pictures = warp(bgr_pictures, points, reflect=True).div_(255)
    pictures = focus(pictures, of_backgrounds, rows, "bgr")
    pictures = jitter(pictures, of_backgrounds, rows, "bgr")
    behind = pictures[:count]
    bgr = behind.index_copy(0, moved, pictures[count:]) if len(moved) else behind

    # The photograph.
    shadow = on["shadow_matrix"], numbers["shadow_strength"], numbers["shadow_blur"]
    behind = only_where(rows["shadow_strength"], cast_shadow, behind, true_pha, *shadow)
    src = torch.lerp(behind, true_fgr, true_pha)

    # The sensor, twice.
    seeds = batch["noise_seeds"]
    src = only_where(rows["src_noise"], add_noise, src, numbers["src_noise"], seeds[:, 0])
    bgr = only_where(rows["bgr_noise"], add_noise, bgr, numbers["bgr_noise"], seeds[:, 1])
    bgr = jitter(bgr, numbers, rows, "input")
    return src, bgr, true_pha, true_fgr
