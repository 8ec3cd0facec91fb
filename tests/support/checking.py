"""What the tests of check_data.py share: its command line, and how files are spoilt."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

import check_data
from tests.support import scripts

PHA = "train/pha/clip0/0000.png"
FGR = "train/fgr/clip0/0000.jpg"
error_of = partial(scripts.error_of, check_data.main)


def run(folder: Path, *arguments: object, status: int = 0) -> dict:
    """What it wrote as JSON; --crop-size 32 64 is such that nothing is small."""
    out = Path("faults.json")
    common = ["--dataset-dir", folder, "--num-workers", 0, "--json", out, "--overwrite"]
    words = [*common, "--crop-size", 32, 64, "--contact-rows", 0, *arguments]
    assert check_data.main([str(word) for word in words]) == status
    return json.loads(out.read_text())


def pristine(folder: Path) -> None:
    """The splits of make_data are alike on purpose of other tests; here they are not to be."""
    for path in sorted((folder / "valid").rglob("*.*g")):
        Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)
    for path in sorted((folder / "backgrounds/valid").glob("*")):
        Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)


def alpha(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    Image.fromarray(change(np.asarray(Image.open(path)))).save(path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def hard(pha: np.ndarray) -> np.ndarray:
    return ((pha > 127) * 255).astype(np.uint8)


def coloured(pha: np.ndarray) -> np.ndarray:
    return np.stack([pha, pha, np.roll(pha, 9, axis=1)], axis=-1)
