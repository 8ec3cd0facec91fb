"""What the tests of predict.py share: weights that give something, scenes, and command lines."""

from functools import partial
from pathlib import Path

import torch
from PIL import Image

import predict
from model import MattingBase
from tests.support import scripts
from tests.support.drawn import backdrop, figure

error_of = partial(scripts.error_of, predict.main)


def save_weights(path: Path) -> Path:
    """Of a network whose outputs are neither 0 nor 1 everywhere."""
    torch.manual_seed(0)
    model = MattingBase("mobilenetv2")
    with torch.no_grad():
        model.decoder.conv4.bias[:5] = torch.tensor([0.5, 0.05, -0.05, 0.1, 0.3])
    torch.save(model.state_dict(), path)
    return path


def scene(number: int, size: tuple[int, int] = (60, 44)) -> tuple[Image.Image, Image.Image]:
    """src and bgr of (width, height)."""
    fgr, pha = figure(*size, number)
    bgr = backdrop(*size, number)
    return Image.composite(fgr, bgr, pha), bgr


def words(weights: Path, folder: Path, *more: object) -> list[str]:
    argv = ["--model-checkpoint", weights, "--src", folder / "src", "--bgr", folder / "bgr"]
    argv += ["--output", folder / "out", "--device", "cpu", "--size", 48, *more]
    return [str(word) for word in argv]


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
