"""The reference's formulas, and files as others publish them."""

import functools
import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch

from tests.support import DATA

STATE_DICTS = json.loads((DATA / "state_dicts.json").read_text())
SOURCE_OF = {"resnet50": "resnet50", "resnet101": "resnet101", "mobilenetv2": "mobilenet"}


def noise(name: str, count: int) -> np.ndarray:
    i = np.arange(1, count + 1, dtype=np.float64)
    value = np.sin(12.9898 * i + zlib.crc32(name.encode()) % 9973) * 43758.5453
    return 2 * (value - np.floor(value)) - 1


def reference_entry(name: str, shape: list[int]) -> torch.Tensor:
    """The weights with which the reference outputs were computed."""
    u = noise(name, int(np.prod(shape))).reshape(shape)
    if name.endswith("num_batches_tracked"):
        return torch.tensor(100)
    if name.endswith("running_var"):
        value = 1 + 0.5 * u
    elif len(shape) == 4:
        value = u * np.sqrt(6 / np.prod(shape[1:]))
    elif name.endswith("bn3.weight") and "layer" in name:
        value = 0.2 + 0.1 * u
    elif name.endswith(("running_mean", "bias")):
        value = 0.1 * u
    else:
        value = 1 + 0.1 * u
    return torch.from_numpy(value).float()


def reference_image(channels: int, height: int, width: int, phase: float) -> torch.Tensor:
    k, y, x = np.meshgrid(np.arange(channels), np.arange(height), np.arange(width), indexing="ij")
    wave = np.sin(phase + 0.11 * (k + 1) * x / 3 + 0.07 * (k + 2) * y / 2 + k)
    return torch.from_numpy(0.5 + 0.5 * wave)[None].float()


def published_state(listing: str) -> dict[str, torch.Tensor]:
    """A state dict with the names and shapes of a published model, and values of our own, in which
    no two entries are alike."""
    drawn = _drawn()
    state = {}
    for number, (name, shape) in enumerate(STATE_DICTS[listing].items()):
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(12345)
            continue
        count, start = math.prod(shape), 1009 * number % len(drawn)
        values = drawn.repeat((start + count) // len(drawn) + 1)[start : start + count]
        state[name] = values.reshape(shape).clone()
        if name.endswith("running_var"):
            state[name] = 0.5 + 5 * state[name].abs()
    return state


@functools.cache
def _drawn() -> torch.Tensor:
    """Of these every entry takes some, from a place of its own: to draw each takes longer."""
    return 0.05 * torch.randn(2**20, generator=torch.Generator().manual_seed(7))


def published_file(path: Path, listing: str) -> Path:
    """A checkpoint as VainF/DeepLabV3Plus-Pytorch writes it, numpy scalar included."""
    torch.save(
        {
            "cur_itrs": 30000,
            "model_state": published_state(listing),
            "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.01, "params": [0]}]},
            "scheduler_state": {"max_iters": 30000, "last_epoch": 30000},
            "best_score": np.float64(0.7685),
        },
        path,
    )
    return path
