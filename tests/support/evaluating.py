"""What the tests of evaluate.py share: its command line, mattes, and what it says."""

import json
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

import evaluate
from tests.support import DATA, scripts

FIXTURES = DATA / "metrics"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text())
NAMES = ("sad", "mad", "mse", "grad", "conn")
error_of = partial(scripts.error_of, evaluate.main)


def run(*arguments: object, status: int = 0) -> None:
    assert scripts.status_of(evaluate.main, "--device", "cpu", *arguments) == status


def mattes(folder: Path, *names: str) -> list[object]:
    """The published pairs, in folders as another program would leave them; the options to read
    them."""
    for name in names or EXPECTED:
        for kind in ("pred", "true", "trimap"):
            path = folder / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((FIXTURES / f"{name}_{kind}.png").read_bytes())
    return ["--pred-dir", folder / "pred", "--true-dir", folder / "true"]


def matte(path: Path, value: float | np.ndarray, size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.ones(size) * value * 255).round().astype(np.uint8)).save(path)
    return path


def of_checkpoint(checkpoint: Path, data: Path) -> list[object]:
    options = ["--model-checkpoint", checkpoint, "--dataset-dir", data, "--size", 64]
    return [*options, "--num-workers", 0, "--batch-size", 3]
