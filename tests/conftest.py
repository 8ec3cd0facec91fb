"""What several tests share: the reference's formulas, published files, and a tiny data set."""

import contextlib
import json
import shutil
import signal
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.register_assert_rewrite("tests.support")  # so that a failure there shows its values
torch.set_num_threads(1)  # tests run side by side, one a core
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so a shell starts what it puts behind `&`
    signal.signal(signal.SIGINT, signal.default_int_handler)

SMALL = 20_000  # bytes of a tar, so that the tiny data set takes several
DATA = Path(__file__).parent / "data"
REAL = Path(__file__).parents[2] / "shared" / "real"
CASES = REAL.parent / "cases"
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
    """A state dict with the names and shapes of a published model, and values of our own."""
    generator = torch.Generator().manual_seed(7)
    state = {}
    for name, shape in STATE_DICTS[listing].items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(12345)
        elif name.endswith("running_var"):
            state[name] = 0.5 + torch.rand(shape, generator=generator)
        else:
            state[name] = 0.05 * torch.randn(shape, generator=generator)
    return state


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


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only; tests that spoil a data set make their own."""
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def packed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in tar files, several because they are small. Read only."""
    from dataset import shard

    target = tmp_path_factory.mktemp("packed") / "data"
    shard.pack(data, target, SMALL)
    return target


@pytest.fixture
def own_packed(packed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(packed, tmp_path / "own")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, where log/ and checkpoint/ will appear."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
