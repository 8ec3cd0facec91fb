"""What predict.py has around its two loops: which files to write, reading ahead, writing behind.

Every file gets its name when it is complete, as with checkpoints.
"""

import argparse
import contextlib
import io
import itertools
import os
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageColor
from torch import Tensor
from tqdm import tqdm

from common.errors import OptionError
from common.files import beside, check_apart, rename_aside, write_bytes
from common.text import printable
from prediction.frames import Frame, cover, read_rgb

PIXELS_AT_ONCE = 1 << 24  # of pictures in a batch: eight of 1920x1080, one of 24 megapixels
LINE_EVERY_S = 10  # of progress, where the output is no terminal
PNG_EFFORT = 3  # of 9; at 6, the usual, a photograph takes three times as long to be 4 % smaller


def outputs_to_write(
    options: argparse.Namespace, names: list[str], ending: str
) -> dict[str, dict[str, Path]]:
    """Returns, for each name, the paths by type that are to be written. Raises OptionError where
    some are there and neither option says what to do, or where one is an input or lies among
    inputs."""
    paths = {
        name: {each: options.output / each / f"{name}{ending}" for each in options.types}
        for name in names
    }
    there = {path for of in paths.values() for path in of.values() if path.exists()}
    if there and not (options.overwrite or options.skip_existing):
        raise OptionError(
            f"{len(there)} output(s) are there already, such as {min(there)}; type --skip-existing "
            "to make the others, --overwrite to replace them, or another --output"
        )
    if options.skip_existing:
        paths = {n: {t: p for t, p in of.items() if p not in there} for n, of in paths.items()}
    read = [options.src, options.bgr, options.model_checkpoint]
    if "com" in options.types and Path(options.com_bgr).is_file():
        read.append(Path(options.com_bgr))
    check_apart((path for of in paths.values() for path in of.values()), read)
    return paths


def com_background(options: argparse.Namespace) -> Callable[[tuple[int, int]], Tensor | None]:
    """What is behind com for a picture of (height, width). Raises OptionError, DataError."""
    text = options.com_bgr
    if text == "transparent":
        return lambda _size: None
    with contextlib.suppress(ValueError):
        red, green, blue = ImageColor.getrgb(text)  # type: ignore[misc]  # with an alpha, ValueError: too many
        colour = torch.tensor([red, green, blue], dtype=torch.uint8).view(1, 3, 1, 1)
        return lambda _size: colour
    if not Path(text).is_file():
        raise OptionError(
            f"--com-bgr {text} is neither a colour, such as green or #00b140, nor a file, nor the "
            "word transparent"
        )
    pixels = read_rgb(Path(text))
    made: dict[tuple[int, int], Tensor] = {}

    def covering(size: tuple[int, int]) -> Tensor:
        if size not in made:
            made.clear()  # sizes come one after the other
            made[size] = tensor_of([cover(pixels, size)])
        return made[size]

    return covering


def batches(frames: list[Frame], most: int) -> Iterator[list[Frame]]:
    """Splits frames into batches: as many frames of one size as go together. Frames of one size
    follow each other."""
    for size, alike in itertools.groupby(sorted(frames, key=lambda f: f.size), lambda f: f.size):
        count = frames_at_once(size, most)
        group = list(alike)
        yield from (group[first : first + count] for first in range(0, len(group), count))


def write_pictures(paths: dict[str, Path], arrays: dict[str, np.ndarray]) -> None:
    """Each of a frame's outputs as PNG, whole or not at all. Raises OSError."""
    for name, path in paths.items():
        content = io.BytesIO()
        Image.fromarray(arrays[name]).save(content, "PNG", compress_level=PNG_EFFORT)
        write_bytes(path, content.getbuffer())


def frames_at_once(size: tuple[int, int], most: int) -> int:
    return max(1, min(most, PIXELS_AT_ONCE // (size[0] * size[1])))


def tensor_of(pixels: Sequence[np.ndarray]) -> Tensor:
    """Pictures (H, W, 3) of one size as a batch (B, 3, H, W); of one, which may be large, without
    a copy."""
    stacked = np.stack(pixels) if len(pixels) > 1 else pixels[0][None]
    return torch.from_numpy(stacked).permute(0, 3, 1, 2)


def arrays_of(found: dict[str, Tensor]) -> Iterator[dict[str, np.ndarray]]:
    """Returns the outputs of each picture of a batch by name, as (H, W, channels), or as (H, W) of
    one channel."""
    count = len(next(iter(found.values())))
    for index in range(count):
        yield {
            name: value[index].permute(1, 2, 0).squeeze(2).contiguous().numpy()
            for name, value in found.items()
        }


def one_ahead(batches: Iterable, begin: Callable[[Any], Any]) -> Iterator[tuple[Any, Any]]:
    """Each batch and what `begin` made of it, while that of the next is on its way."""
    before = None
    for batch in batches:
        begun = batch, begin(batch)
        if before:
            yield before
        before = begun
    if before:
        yield before


def with_backgrounds(
    video: Iterable[tuple[np.ndarray, int]],
    bgrs: Iterator[np.ndarray],
    bgr_path: Path,
    say: Callable[[str], None],
) -> Iterator[tuple[np.ndarray, int, np.ndarray]]:
    """A video's frames, their times, and a background for each: the last one for those behind the
    end of `bgrs`, which is said."""
    bgr, ended = None, False
    for number, (src, at) in enumerate(video):
        following = None if ended else next(bgrs, None)
        if following is not None:
            bgr = following
        elif not ended:
            ended = True
            say(f"{bgr_path} ends after {number} frames; its last one is held")
        assert bgr is not None  # a video has a first frame
        yield src, at, bgr


def wait_for_all(writing: list[Future], progress: "Progress") -> None:
    """Waits until what is being written is. Raises what went wrong."""
    while writing:
        writing.pop(0).result()
        progress.step()


@contextlib.contextmanager
def threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Some threads; leaving waits for what they are at, and drops what they have not begun."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def whole_file(path: Path, part: Callable[[], str] = str) -> Iterator[Path]:
    """A temporary name beside `path`, which becomes it when nothing has gone wrong. part: asked in
    the end for what is put before the ending of a file that is not all of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = beside(path, f".partial-{os.getpid()}")
    try:
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        if part():
            path = part_of(path, part())
            rename_aside(path)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def part_of(path: Path, part: str) -> Path:
    """The name of a file that holds a part of what `path` would."""
    return path.with_name(f"{path.stem}.{part}{path.suffix}")


class Progress:
    """Says how far it is: a bar on a terminal, else a line now and then."""

    def __init__(self, total: int | None, unit: str = "image") -> None:
        self.total, self.done, self.unit = total, 0, unit
        self._said_once: set[Hashable] = set()
        terminal = sys.stderr.isatty()
        self.bar = tqdm(total=total, unit=unit, disable=not terminal, leave=False)
        self._tell = tqdm.write if terminal else print
        self._began = self._said = time.perf_counter()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_error: object) -> None:
        self.bar.close()

    def say(self, line: str) -> None:
        self._tell(printable(line))

    def say_once(self, line: str, key: Hashable) -> None:
        """Says it unless another was said with this key."""
        if key not in self._said_once:
            self._said_once.add(key)
            self.say(line)

    def step(self) -> None:
        self.done += 1
        self.bar.update()
        if self.bar.disable and time.perf_counter() - self._said > LINE_EVERY_S:
            self._said = time.perf_counter()
            total = self.total or "an unknown number of"
            self.say(f"{self.done} of {total} {self.unit}s, {self._speed()}")

    def end(self, more: str = "") -> None:
        self.bar.close()
        seconds = time.perf_counter() - self._began
        self.say(f"{self.done} {self.unit}(s) in {seconds:.1f} s, {self._speed()}{more}")

    def _speed(self) -> str:
        return f"{self.done / (time.perf_counter() - self._began):.2f} {self.unit}s/s"
