"""What is wrong with a data set: looks at every picture, and stops at none.

It never changes a file. What it finds is a list of faults; what they mean is in faults.py.
"""

import hashlib
import multiprocessing
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from checking.faults import Fault, Group
from common.choices import SPLITS
from common.errors import DataError
from common.processes import (
    STOP_SIGNALS,
    deferred_signals,
    end_with_parent,
    ended_on_exit,
    ignore_signals,
)
from dataset.alphas import NO_FIGURES, AlphaError, judge_alpha, premultiplied
from dataset.first_look import turned_apart
from dataset.folders import opened, opened_backgrounds
from dataset.listing import VIDEO_ADVICE, both_names, clips_advice, find_pictures, stem_of
from dataset.pictures import (
    Backgrounds,
    Foregrounds,
    Names,
    check_mode,
    decode,
    open_picture,
    unlike,
    upright_size,
)
from dataset.tar import Member
from dataset.workers import starting

PICTURES_PER_CHUNK = 32  # pictures a worker takes at once
HEADER_THREADS = 8  # a worker, for headers
CHUNKS_PER_WORKER = 4  # chunks a worker, so that memory does not grow with the data set
COLOUR_SHRINK = 8  # pictures of colours are decoded so much smaller; all bytes are read even so
MAX_EDGE_PAIRS = 400  # pairs of a split, evenly spread, whose colours are looked at in full
HASHED_AT_ONCE = 1 << 20  # bytes


class Checked(NamedTuple):
    """What was found of one picture, or pair. digests: of its files, 0 where there is none."""

    index: int  # type: ignore[assignment]  # hides tuple.index
    size: tuple[int, int]  # height, width, upright; 0, 0 where it could not be read
    bytes: int
    digests: tuple[int, int]
    faults: list[Fault]


@dataclass(frozen=True)
class CheckOptions:
    """crop: the largest side of a crop, in pixels. headers: whether headers alone are read."""

    crop: int
    headers: bool = False


# ------------------------------------------------------------------------------------------------
# Listing


def list_groups(folders: dict, say: Callable[[str], None]) -> tuple[list[Group], list[Fault], dict]:
    """The groups of an entry as dataset.folders.data_folders gives it; what is wrong with folders
    and names; and how many pictures are in each folder, by its name. Raises DataError where no
    folder can be used at all."""
    groups: list[Group] = []
    faults: list[Fault] = []
    counts: dict[str, int] = {}
    for split in SPLITS:
        for found in (
            _list_foregrounds(folders, split, say),
            _list_backgrounds(folders, split, say),
        ):
            pictures, some, lengths = found
            faults += some
            counts |= lengths
            if pictures is not None:
                groups.append(Group(split, pictures))
    if not counts:
        raise DataError(faults[0].what)
    return groups, faults, counts


def _list_foregrounds(
    folders: dict, split: str, say: Callable[[str], None]
) -> tuple[Foregrounds | None, list[Fault], dict[str, int]]:
    try:
        entry = opened(folders, split, say)
    except DataError as error:
        return None, [Fault("folder", split, str(error))], {}
    kinds = ("rgba",) if "rgba" in entry else ("fgr", "pha")
    advice = VIDEO_ADVICE if "rgba" in entry else clips_advice(entry["fgr"], entry["pha"])
    stems: dict[str, dict[str, str]] = {}
    faults: list[Fault] = []
    counts: dict[str, int] = {}
    for kind in kinds:
        try:
            names = find_pictures(entry[kind], say, advice)
        except DataError as error:
            faults.append(Fault("folder", split, str(error)))
            continue
        counts[f"{split} {kind}"] = len(names)
        if kind == "rgba":
            return Foregrounds(entry[kind], Names(names), None, Names([])), faults, counts
        stems[kind] = {}
        for name in names:
            first = stems[kind].setdefault(stem_of(name), name)
            if first != name:
                faults.append(Fault("duplicate_name", split, both_names(entry[kind], first, name)))
    if len(stems) < len(kinds):  # then every picture of the other would be an orphan
        return None, faults, counts
    fgr, pha = stems["fgr"], stems["pha"]
    for kind, mine, other in (("fgr", fgr, pha), ("pha", pha, fgr)):
        lonely = (entry[kind] / name for stem, name in mine.items() if stem not in other)
        faults += [Fault("orphan", split, str(path)) for path in lonely]
    both = [stem for stem in fgr if stem in pha]
    if not both:
        what = f"no picture in {entry['fgr']} has the name of one in {entry['pha']}"
        return None, [*faults, Fault("folder", split, what)], counts
    counts[f"{split} pairs"] = len(both)
    fgr_names, pha_names = Names(fgr[stem] for stem in both), Names(pha[stem] for stem in both)
    return Foregrounds(entry["fgr"], fgr_names, entry["pha"], pha_names), faults, counts


def _list_backgrounds(
    folders: dict, split: str, say: Callable[[str], None]
) -> tuple[Backgrounds | None, list[Fault], dict[str, int]]:
    try:
        where = opened_backgrounds(folders, split, say)
        names = Names(find_pictures(where, say))
    except DataError as error:
        return None, [Fault("folder", split, str(error))], {}
    return Backgrounds(where, names), [], {f"{split} backgrounds": len(names)}


# ------------------------------------------------------------------------------------------------
# Looking


def check_all(
    groups: list[Group], options: CheckOptions, workers: int, tick: Callable[[int], object]
) -> list[Fault]:
    """Looks at every picture, fills the groups' arrays, and returns what is wrong, in order. tick
    is told how many more were done. workers: processes; 0: none but this one. Raises DataError
    where a worker was killed."""
    chunks = [
        (number, start, min(start + PICTURES_PER_CHUNK, len(group.pictures)))
        for number, group in enumerate(groups)
        for start in range(0, len(group.pictures), PICTURES_PER_CHUNK)
    ]
    faults = []
    workers = min(workers, len(chunks))
    pictures = [group.pictures for group in groups]
    splits = [group.split for group in groups]
    with closing(_in_order(chunks, pictures, splits, options, workers)) as looked:
        for number, some in looked:
            group = groups[number]
            for seen in some:
                group.sizes[seen.index], group.bytes[seen.index] = seen.size, seen.bytes
                group.digests[:, seen.index] = seen.digests
                faults += seen.faults
            tick(len(some))
    return faults


def _in_order(
    chunks: list[tuple[int, int, int]],
    pictures: list,
    splits: list[str],
    options: CheckOptions,
    workers: int,
) -> Generator[tuple[int, list[Checked]], None, None]:
    if workers <= 1:
        _begin(pictures, splits, options)
        for chunk in chunks:
            yield chunk[0], _check_chunk(*chunk)
        return
    # Fresh processes: a forked child of one with threads may hang.
    context = multiprocessing.get_context("spawn")
    begin = (pictures, splits, options)
    with starting():
        pool = ProcessPoolExecutor(workers, context, _begin_worker, begin)
    waiting: deque[tuple[int, Future[list[Checked]]]] = deque()
    rest = iter(chunks)
    with ended_on_exit(pool):
        try:
            while True:
                with starting(), deferred_signals(*STOP_SIGNALS):  # the first start the processes
                    for chunk in islice(rest, CHUNKS_PER_WORKER * workers - len(waiting)):
                        waiting.append((chunk[0], pool.submit(_check_chunk, *chunk)))
                if not waiting:
                    break
                number, future = waiting.popleft()
                yield number, future.result()
            pool.shutdown()
        except BrokenProcessPool:
            raise DataError(
                "a process that reads pictures was killed, as happens where memory is short; type "
                "a smaller --num-workers"
            ) from None


_here: tuple[list, list[str], CheckOptions]  # of this process: what a worker is started with


def _begin(pictures: list, splits: list[str], options: CheckOptions) -> None:
    global _here
    _here = pictures, splits, options


def _begin_worker(pictures: list, splits: list[str], options: CheckOptions) -> None:
    ignore_signals(*STOP_SIGNALS)
    end_with_parent()
    _begin(pictures, splits, options)


def _check_chunk(number: int, start: int, stop: int) -> list[Checked]:
    pictures, splits, options = _here
    of, split = pictures[number], splits[number]
    check = check_pair if isinstance(of, Foregrounds) else check_background
    if options.headers:  # many at once, since disks may be far away
        with ThreadPoolExecutor(HEADER_THREADS) as threads:
            return list(
                threads.map(lambda index: check(of, index, split, options), range(start, stop))
            )
    return [check(of, index, split, options) for index in range(start, stop)]


def check_pair(foregrounds: Foregrounds, index: int, split: str, options: CheckOptions) -> Checked:
    """A foreground and its alpha, or an RGBA picture. Raises nothing for what is in the files."""
    faults: list[Fault] = []
    fgr_path, pha_path = foregrounds.paths(index)

    def fault(kind: str, what: str) -> None:
        faults.append(Fault(kind, split, what, index))

    step = -(-len(foregrounds) // MAX_EDGE_PAIRS)
    if pha_path is None:
        size, pixels, digest = _read(fgr_path, "RGBA", options, fault)
        fgr = None if pixels is None or index % step else pixels[..., :3]
        pha, digests = None if pixels is None else pixels[..., 3], (digest, 0)
        alpha_name, total = str(fgr_path), _bytes(fgr_path)
    else:
        size, fgr, fgr_digest = _read(fgr_path, "RGB", options, fault, index % step == 0)
        pha_size, pha, pha_digest = _read(pha_path, "L", options, fault)
        if size and pha_size and size != pha_size:
            fault("unlike_sizes", unlike(fgr_path, size[::-1], pha_path, pha_size[::-1]))
        elif size and pha_size and turned_apart(fgr_path, pha_path):
            fault("turned_alpha", f"{fgr_path} and {pha_path}")
        alpha_name, total = str(pha_path), _bytes(fgr_path) + _bytes(pha_path)
        digests = fgr_digest, pha_digest
    if pha is not None:
        for kind, figures in judge_alpha(pha):
            fault(kind, f"{alpha_name} ({figures})")
            if kind in NO_FIGURES[0]:  # such are alike for another reason
                digests = digests[0], 0
        if fgr is not None and fgr.shape[:2] == pha.shape and (found := premultiplied(fgr, pha)):
            fault("premultiplied", f"{fgr_path} ({found})")
    if size and min(size) < options.crop:
        fault("small", f"{fgr_path} ({size[1]}x{size[0]})")
    return Checked(index, size or (0, 0), total, digests, faults)


def check_background(
    backgrounds: Backgrounds, index: int, split: str, options: CheckOptions
) -> Checked:
    """Checks a background, as check_pair does a pair."""
    faults: list[Fault] = []
    path = backgrounds.path(index)

    def fault(kind: str, what: str) -> None:
        faults.append(Fault(kind, split, what))

    size, _, digest = _read(path, "RGB", options, fault)
    if size and min(size) < options.crop:
        fault("small", f"{path} ({size[1]}x{size[0]})")
    return Checked(index, size or (0, 0), _bytes(path), (digest, 0), faults)


def _read(
    path: Path | Member,
    mode: str,
    options: CheckOptions,
    fault: Callable[[str, str], None],
    full: bool = False,
) -> tuple[tuple[int, int] | None, np.ndarray | None, int]:
    """(height, width), upright; the pixels, uint8: (h, w, 4) of RGBA; of an alpha (h, w); of
    colours, small unless `full`; and the file's digest. None, None, 0 for what could not be read,
    or was not to be."""
    size = None
    try:
        with open_picture(path) as picture:
            check_mode(picture, mode)
            size = upright_size(picture)
            if options.headers:
                return size, None, 0
            shrink = COLOUR_SHRINK if mode == "RGB" and not full else 1
            small = -(-size[0] // shrink), -(-size[1] // shrink)
            matrix = np.array([[shrink, 0, 0], [0, shrink, 0]], dtype=np.float64)
            pixels, _ = decode(picture, mode, small, matrix)
        return size, pixels[..., 0] if pixels.shape[2] == 1 else pixels, _digest(path)
    except AlphaError as error:
        fault(error.kind, f"{path} ({error.figures})")
    except DataError as error:
        fault("unreadable", str(error))
    except (
        Exception
    ) as error:  # of any type: a decoder that fails on one file must not end the rest
        fault("unreadable", f"{path} cannot be decoded ({type(error).__name__}: {error})")
    return size, None, 0


def _bytes(path: Path | Member) -> int:
    if isinstance(path, Member):
        return path.size
    with suppress(OSError):
        return path.stat().st_size
    return 0


def _digest(path: Path | Member) -> int:
    """64 bits of a hash of the file's bytes, never 0. Among a million files two unlike ones have
    the same with a chance of 1 in 10 million."""
    hashed = hashlib.blake2b(digest_size=8)
    with path.open("rb") if isinstance(path, Path) else path.open() as file:
        while part := file.read(HASHED_AT_ONCE):
            hashed.update(part)
    return int.from_bytes(hashed.digest(), "little") or 1
