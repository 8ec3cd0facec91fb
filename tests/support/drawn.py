"""Drawn pictures, and a tiny data set of them."""

from pathlib import Path

import numpy as np
from PIL import Image

SMALL = 20_000  # bytes of a tar, so that the tiny data set takes several


def figure(width: int, height: int, number: int) -> tuple[Image.Image, Image.Image]:
    """A soft ellipse on its own colours, unlike for each number."""
    y, x = np.mgrid[0:height, 0:width]
    middle = (width * (0.4 + 0.02 * number), height * 0.5)
    distance = np.hypot((x - middle[0]) / (0.3 * width), (y - middle[1]) / (0.4 * height))
    pha = np.clip((1.1 - distance) * 5, 0, 1)
    fgr = np.stack([x / width, y / height, np.full_like(pha, 0.1 * number)], axis=-1)
    return (
        Image.fromarray((fgr * 255).round().clip(0, 255).astype(np.uint8)),
        Image.fromarray((pha * 255).round().astype(np.uint8)),
    )


def backdrop(width: int, height: int, number: int) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    waves = [0.5 + 0.5 * np.sin(x / (5 + number + c) + y / (9 + c) + c) for c in range(3)]
    return Image.fromarray((np.stack(waves, axis=-1) * 255).astype(np.uint8))


def make_data(folder: Path, train: int = 6, valid: int = 2) -> Path:
    """A data set in the layout of --dataset-dir: jpg beside png, nested folders, two sizes."""
    for split, count in (("train", train), ("valid", valid)):
        for number in range(count):
            size = (96, 72) if number % 2 else (72, 96)
            fgr, pha = figure(*size, number)
            name = f"clip{number % 2}/{number:04}"
            for kind, picture, ending in (("fgr", fgr, "jpg"), ("pha", pha, "png")):
                path = folder / split / kind / f"{name}.{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                picture.save(path)
            path = folder / "backgrounds" / split / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            backdrop(120, 90, number).save(path)
    return folder
