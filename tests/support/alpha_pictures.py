"""What the tests of alphas share: drawn ones, saving them, and what check_data.py finds."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

import check_data


def disc(radius: float = 60, soft: float = 4, size: tuple[int, int] = (180, 240)) -> np.ndarray:
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    distance = np.hypot(x - size[1] / 2, y - size[0] / 2)
    return (np.clip((radius - distance) / soft + 0.5, 0, 1) * 255).round().astype(np.uint8)


def hard(pha: np.ndarray, value: int = 1) -> np.ndarray:
    return ((pha > 127) * value).astype(np.uint8)


def saved(path: Path, pixels: object, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(path, **options)
    return path


def checked(data: Path) -> list[dict]:
    words = ["--dataset-dir", data, "--num-workers", 0, "--crop-size", 32, 64, "--contact-rows", 0]
    check_data.main([str(word) for word in [*words, "--json", "faults.json", "--overwrite"]])
    return json.loads(Path("faults.json").read_text())["faults"]
