"""Drawn clips, a foreground's and its alpha's."""

from fractions import Fraction
from pathlib import Path

import numpy as np

HEIGHT, WIDTH = 48, 64


def write_clip(path: Path, grey: bool, count: int = 5, rate: int = 25, **more: object) -> Path:
    """A disc that wanders: frame k has it at column 10 + 8 k."""
    from dataset.video import VideoWriter

    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = more.pop("size", (HEIGHT, WIDTH))  # type: ignore[misc]
    with VideoWriter(path, (height, width), Fraction(rate), Fraction(1, rate), **more) as writer:
        for number in range(count):
            rows, columns = np.mgrid[:height, :width]
            disc = (rows - height / 2) ** 2 + (columns - 10 - 8 * number) ** 2 < 100
            pixels = np.where(disc, 255, 0).astype(np.uint8)
            if not grey:
                pixels = np.stack([pixels, 255 - pixels, np.full_like(pixels, 40)], axis=2)
            writer.write(pixels, number)
    return path


def write_pair(source: Path, name: str, **more: object) -> None:
    write_clip(source / f"fgr/{name}.mp4", False, **more)
    write_clip(source / f"pha/{name}.mov", True, **more)
