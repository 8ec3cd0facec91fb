"""The augmentation: what is drawn for a sample, and what is then done to whole batches.

Drawing (Python floats, where pictures are decoded) and applying (tensors, on the device) stand side
by side; how pixels change is in appearance.py and geometry.py. Nothing here is random but for the
generators it is given.
"""

import random
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataset.appearance import add_noise, box_blur, cast_shadow, colour_jitter, sharpen
from dataset.geometry import coverage, source_points, warp
from dataset.rows import Rows, each_step, only_where
from dataset.threads import map_in_threads, pixel_counts, split_batch

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


def draw_fgr_affine(rng: random.Random, scale: tuple[float, float]) -> dict[str, Any]:
    """Draws how the figure, fgr and pha alike, is warped. scale: the range of its sizes, as parts
    of the crop's."""
    return draw_affine(rng, rotate=5, translate=0.1, scale=scale, shear=5, flip=0.5)


def draw_bgr_affine(rng: random.Random) -> dict[str, Any]:
    """Draws how the background is warped. It always fills the crop, but for what reflection adds at
    its borders."""
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
# The whole


AS_IT_IS = np.array(list(NEUTRAL.values()), dtype=np.float32)


def columns_of(prefix: str) -> dict[str, list[int]]:
    """Returns, for the steps of focus and jitter, the columns of the numbers that say whether there
    is something to do."""
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
    extended = np.concatenate([np.arange(len(numbers)), moved])
    rows = {}
    for steps, changed in ((OF_SAMPLES, differs), (OF_BACKGROUNDS, differs[extended])):
        for name, columns in steps.items():
            rows[name] = np.flatnonzero(changed[:, columns].any(1))
    rows |= {"moved": moved, "backgrounds": extended}
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
        return tuple(each.contiguous(memory_format=layout) for each in augment_batch(batch, device))
    count, size = len(batch["numbers"]), batch["size"]
    whole = tuple(
        torch.empty(count, channels, *size, memory_format=layout) for channels in (3, 3, 1, 3)
    )

    def augment_one(row: int, sample: dict) -> None:
        made = list(augment_batch(sample, device))
        for outputs in whole:
            outputs[row] = made.pop(0)[0]  # whose memory is then free

    map_in_threads(augment_one, list(enumerate(split_batch(batch))))
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


def augment_batch(batch: dict, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Does what augment does, each step for all samples at once."""
    if "chosen" not in batch:
        batch = {**batch, **choose(batch["numbers"])}
    on = on_device(batch, device)
    rows = each_step(batch["chosen_counts"], batch["chosen"], on["chosen"])
    numbers = by_name(on["numbers"])
    true_fgr, true_pha = figures(batch, on, numbers, rows)
    behind, bgr = backgrounds(batch, on, rows)

    # The photograph.
    shadow = on["shadow_matrix"], numbers["shadow_strength"], numbers["shadow_blur"]
    behind = only_where(rows["shadow_strength"], cast_shadow, behind, true_pha, *shadow)
    src = torch.lerp(behind, true_fgr, true_pha)
    del behind  # at 2048x2048 a picture takes 50 MB

    # The sensor: noise of the photograph, and of the background.
    seeds = batch["noise_seeds"]
    src = only_where(rows["src_noise"], add_noise, src, numbers["src_noise"], seeds[:, 0])
    bgr = only_where(rows["bgr_noise"], add_noise, bgr, numbers["bgr_noise"], seeds[:, 1])
    bgr = jitter(bgr, numbers, rows, "input")
    return src, bgr, true_pha, true_fgr


def figures(
    batch: dict, on: dict[str, Tensor], numbers: Columns, rows: dict[str, Rows]
) -> tuple[Tensor, Tensor]:
    """true_fgr and true_pha. Alpha ends at the picture's border; colours go on."""
    size = tuple(batch["size"])
    points = source_points(on["fgr_size"], on["fgr_matrix"], size)
    true_fgr = warp(decoded(batch, on, "fgr"), points).div_(255)
    if any(not torch.equal(batch[f"fgr_{of}"], batch[f"pha_{of}"]) for of in ("size", "matrix")):
        points = source_points(on["pha_size"], on["pha_matrix"], size)
    true_pha = warp(decoded(batch, on, "pha"), points).div_(255)
    del points
    true_pha *= coverage(on["pha_size"], on["pha_matrix"], size)
    true_fgr, true_pha = (focus(each, numbers, rows, "fgr") for each in (true_fgr, true_pha))
    return jitter(true_fgr, numbers, rows, "fgr"), true_pha


def backgrounds(batch: dict, on: dict[str, Tensor], rows: dict[str, Rows]) -> tuple[Tensor, Tensor]:
    """Each background as it is behind the figure, and as it is the network's input: where the
    camera moved, that is warped once more from the source, under a matrix of its own."""
    moved, extended, count = rows["moved"].device, rows["backgrounds"], len(on["numbers"])
    numbers = by_name(on["numbers"][extended.device])
    sources = decoded(batch, on, "bgr")
    matrix = torch.cat([on["bgr_matrix"], on["input_matrix"][moved]])
    points = source_points(on["bgr_size"][extended.device], matrix, tuple(batch["size"]))
    sources = [sources[row] for row in extended.host.tolist()]
    pictures = warp(sources, points, reflect=True).div_(255)
    del points
    pictures = focus(pictures, numbers, rows, "bgr")
    pictures = jitter(pictures, numbers, rows, "bgr")
    behind = pictures[:count]
    return behind, behind.index_copy(0, moved, pictures[count:]) if len(moved) else behind


def by_name(numbers: Tensor) -> Columns:
    return dict(zip(NUMBERS, numbers.unbind(1), strict=True))


def decoded(batch: dict, on: dict[str, Tensor], name: str) -> list[Tensor]:
    """The batch's pictures of one of PICTURE_NAMES: (C, h, w) uint8 each."""
    blocks = on[name].split(pixel_counts(batch, name))
    sizes = batch[f"{name}_size"].tolist()
    return [
        pixels.view(*size, -1).permute(2, 0, 1) for pixels, size in zip(blocks, sizes, strict=True)
    ]
