"""What the benchmarks share: which machine, how long, medians, tables, and pictures to read."""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from common.cli import Parser
from common.processes import usable_processors

PICTURE = (1080, 1920)  # height, width


def arguments(description: str, default_json: str) -> Parser:
    """A parser with what all of them take."""
    parser = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument(
        "--json",
        type=Path,
        default=Path(default_json),
        metavar="FILE",
        help=f"where the figures go (default: {default_json})",
    )
    add_data_and_quick(parser)
    return parser


def add_data_and_quick(parser: argparse.ArgumentParser) -> None:
    """The options --data and --quick, the same in all benchmarks."""
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("data/benchmark"),
        metavar="DIR",
        help="where the pictures are drawn (default: data/benchmark)",
    )
    parser.add_argument("--quick", action="store_true", help="whether it runs, not what is true")


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on."""
    about = {
        "date": date.today().isoformat(),
        "processor": _processor(),
        "cores": usable_processors(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pillow": Image.__version__,
    }
    if device.type == "cuda":
        about["device"] = torch.cuda.get_device_name(device)
        about["memory_gb"] = torch.cuda.get_device_properties(device).total_memory / 1e9
    return about


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def timed(work: Callable[[], Any], clock: Callable[[], float] = time.process_time) -> float:
    """Seconds that `work` takes by `clock`: of this process's processor, unless told otherwise."""
    began = clock()
    work()
    return clock() - began


def in_turns(
    works: dict[str, Callable[[], Any]],
    rounds: int,
    clock: Callable[[], float] = time.process_time,
    warm_up: int = 1,
) -> dict[str, list[float]]:
    """Seconds of each of `works` in each of `rounds`. They take turns, so that a machine which
    drifts drifts for all of them."""
    for _ in range(warm_up):
        for work in works.values():
            work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            seconds[name].append(timed(work, clock))
    return seconds


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def said(values: list[float], scale: float = 1, digits: int = 1) -> str:
    """Median (least .. most), for a table."""
    return said_of(spread([value * scale for value in values]), digits)


def said_of(of: dict[str, float], digits: int) -> str:
    """The same of a spread."""
    return f"{of['median']:.{digits}f} ({of['least']:.{digits}f} .. {of['most']:.{digits}f})"


def table(head: list[str], rows: list[list[Any]]) -> str:
    """In Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def write(path: Path, content: dict[str, Any]) -> None:
    """Writes the figures as JSON; those of --quick replace none that were measured."""
    if content.get("quick") and path.exists() and not json.loads(path.read_text()).get("quick"):
        print(f"{path} has measured figures, which --quick leaves; --json FILE writes these")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"wrote {path}")


# ------------------------------------------------------------------------------------------------
# Pictures of natural detail: their spectrum falls with frequency as that of photographs does.


def photograph(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """An RGB picture of (height, width) whose amplitudes fall with the frequency, on top of
    which there are edges."""
    height, width = size
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    falling = 1 / np.maximum(frequency, 1 / width) ** 1.5
    planes = []
    for _ in range(3):
        spectrum = falling * np.exp(2j * np.pi * rng.random(falling.shape))
        plane = np.fft.irfft2(spectrum, s=size)
        planes.append(plane / plane.std())
    grey, red, blue = planes
    grey = grey + 1.5 * np.sign(
        np.fft.irfft2(np.fft.rfft2(grey) / (1 + (60 * frequency) ** 2), size)
    )
    colours = np.stack([grey + 0.4 * red, grey, grey + 0.4 * blue], axis=-1)
    return Image.fromarray((128 + 38 * colours).clip(0, 255).astype(np.uint8))


def matte(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """A grey picture of a figure-like blob with a soft and frayed rim."""
    height, width = size
    y, x = np.mgrid[0:height, 0:width]
    angle = np.arctan2(y - height * 0.55, x - width * 0.5)
    frayed = sum(rng.normal() / k * np.sin(k * angle + rng.uniform(0, 6)) for k in range(2, 26))
    distance = np.hypot((x - width * 0.5) / (width * 0.22), (y - height * 0.55) / (height * 0.45))
    return Image.fromarray(
        (((1 + 0.08 * frayed - distance) * 12 + 0.5).clip(0, 1) * 255).astype(np.uint8)
    )


def draw_data(folder: Path, count: int, valid: int = 4, size: tuple[int, int] = PICTURE) -> Path:
    """A data set as --dataset-dir reads it, JPEGs of quality 90 throughout, unless it is there."""
    done = folder / f"drawn-{count}-{size[1]}x{size[0]}"
    if done.exists():
        return folder
    print(f"drawing {count + valid} samples of {size[1]}x{size[0]} into {folder} ...", flush=True)

    def draw_sample(split: str, index: int) -> None:
        rng = np.random.default_rng([split == "valid", index])
        for kind, draw in (("fgr", photograph), ("pha", matte), ("bgr", photograph)):
            where = f"backgrounds/{split}" if kind == "bgr" else f"{split}/{kind}"
            path = folder / where / f"{index:05}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw(rng, size).save(path, quality=90)

    splits = ["train"] * count + ["valid"] * valid
    with ThreadPoolExecutor(usable_processors()) as threads:  # numpy's transforms are side by side
        list(threads.map(draw_sample, splits, [*range(count), *range(valid)]))
    done.touch()
    return folder
