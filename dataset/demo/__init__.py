"""The built-in demo data set: people and backgrounds drawn by the program itself.

It lets a new user watch the network learn within minutes with nothing to download; it never
deletes or overwrites a file that it did not make itself.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from common.processes import (
    STOP_SIGNALS,
    deferred_signals,
    end_with_parent,
    ended_on_exit,
    ignore_signals,
    usable_processors,
)
from dataset.demo.objects import OBJECT_KINDS, draw_object
from dataset.demo.people import draw_figure
from dataset.demo.scenes import draw_background

__all__ = ["COUNTS", "LARGE", "OBJECT_KINDS", "VERSION"]
__all__ += ["draw_background", "draw_figure", "draw_object", "make_demo"]

VERSION = 1  # raise it when the drawings change: an older folder is then refused, not mixed
COUNTS = {"train": 200, "valid": 20, "backgrounds_train": 100, "backgrounds_valid": 20}
# The set for the second stage, which learns from finer detail: arguments of make_demo.
LARGE: dict[str, Any] = {
    "scale": 2,
    "counts": {"train": 24, "valid": 4, "backgrounds_train": 8, "backgrounds_valid": 2},
}
SIZES = ((640, 360), (720, 480), (480, 640), (600, 600))
SECONDS_EACH = 0.2  # rough time to draw one picture of scale 1 on one processor
JPEG: dict[str, Any] = {"quality": 92, "subsampling": 0}


def make_demo(
    folder: Path | str,
    seed: int = 0,
    say: Callable[[str], None] = print,
    workers: int | None = None,
    counts: dict[str, int] | None = None,
    scale: int = 1,
) -> None:
    """Draw the demo data set into `folder` unless a complete one of this version is there.

    Makes train|valid/fgr/NAME.jpg (RGB), train|valid/pha/NAME.png (L) with the same names,
    backgrounds/train|valid/NAME.jpg, and demo.json. `counts` has the keys of COUNTS; a key
    left out draws as many as COUNTS says. `workers` is the number of processes, by default
    one per usable processor; the files are the same with any number. Sides are `scale` times
    those of SIZES, and detail is drawn as finely. A finished set is taken as it is, whatever
    its seed, counts and scale.

    Raises ValueError where `folder` is there but is not such a set, for an unknown key in
    `counts` and for a negative seed; OSError where nothing can be written. An interrupted or
    failed drawing leaves nothing behind.
    """
    folder = Path(folder)
    counts = COUNTS | (counts or {})
    if counts.keys() != COUNTS.keys():
        raise ValueError(f"counts may have the keys {', '.join(COUNTS)}, not {', '.join(counts)}")
    if is_complete(folder):
        return
    if folder.exists() or folder.is_symlink():
        raise ValueError(
            f"{folder} is there already and is no complete demo data set of this version: "
            "move or delete it, then start again"
        )
    workers = max(1, workers or usable_processors())
    about = max(1, round(sum(counts.values()) * SECONDS_EACH * scale**2 / workers))
    say(f"Drawing the demo data set into {folder} (about {about} s) ...")
    start = time.monotonic()
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
    try:
        draw_all(partial, seed, counts, workers, scale)
        record = {"version": VERSION, "seed": seed, "counts": counts}
        record |= {"scale": scale} if scale != 1 else {}
        (partial / "demo.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
        partial.chmod(0o755)  # mkdtemp makes a private folder
        move_into_place(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    say(f"Drew the demo data set in {time.monotonic() - start:.0f} s")


def is_complete(folder: Path) -> bool:
    """Whether `folder` holds a demo data set of this version with every file it should have."""
    try:
        record = json.loads((folder / "demo.json").read_text(encoding="utf-8"))
        expected = list(jobs(record["counts"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    if record.get("version") != VERSION:
        return False
    return all(file.is_file() for job in expected for file in files_of(folder, *job))


def jobs(counts: dict[str, int]):
    """Every picture to draw as (part, number), part being a key of COUNTS."""
    return ((part, number) for part in COUNTS for number in range(counts[part]))


def files_of(folder: Path, part: str, number: int) -> tuple[Path, ...]:
    """The files of one picture: fgr and pha, or a background alone."""
    if part.startswith("backgrounds_"):
        return (folder / "backgrounds" / part.split("_")[1] / f"scene-{number:04d}.jpg",)
    name = f"figure-{number:04d}"
    return folder / part / "fgr" / f"{name}.jpg", folder / part / "pha" / f"{name}.png"


def draw_all(folder: Path, seed: int, counts: dict[str, int], workers: int, scale: int) -> None:
    """Draw every picture, in this process or shared among several."""
    todo = list(jobs(counts))
    for place in {file.parent for job in todo for file in files_of(folder, *job)}:
        place.mkdir(parents=True, exist_ok=True)
    workers = min(workers, len(todo))
    if workers <= 1:
        for job in todo:
            draw_one(folder, seed, scale, *job)
        return
    # a forked child of a process with threads (torch has some) may hang: start fresh ones
    context = multiprocessing.get_context("spawn")
    try:
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=begin_drawing)
    except OSError:  # a full /dev/shm has no room for its semaphores
        return draw_all(folder, seed, counts, 1, scale)
    with ended_on_exit(pool):
        try:
            with deferred_signals(*STOP_SIGNALS):
                drawn = [pool.submit(draw_one, folder, seed, scale, *job) for job in todo]
            for done in drawn:
                done.result()
            pool.shutdown()
        except BrokenProcessPool:
            # a script without a main guard, or one read from stdin, cannot start workers
            for job in todo:
                draw_one(folder, seed, scale, *job)


def begin_drawing() -> None:
    """What each process of the pool does first."""
    ignore_signals(*STOP_SIGNALS)
    end_with_parent()


def draw_one(folder: Path, seed: int, scale: int, part: str, number: int) -> None:
    """Draw and save one picture: a function of (seed, scale, part, number) alone."""
    rng = np.random.default_rng([seed, list(COUNTS).index(part), number])
    width, height = (scale * side for side in SIZES[rng.integers(len(SIZES))])
    files = files_of(folder, part, number)
    if len(files) == 1:
        draw_background(rng, width, height).save(files[0], **JPEG)
        return
    fgr, pha = draw_figure(rng, width, height)
    fgr.save(files[0], **JPEG)
    pha.save(files[1], compress_level=4)


def move_into_place(partial: Path, folder: Path) -> None:
    """Rename the finished folder; where another process was first, its set is used."""
    try:
        partial.rename(folder)
    except OSError:
        if not is_complete(folder):
            raise
