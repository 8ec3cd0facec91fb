"""Finds out whether a program would write over, or among, what it reads: by files, not by names."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path


def overlap(outputs: Iterable[Path], inputs: Iterable[Path], deep: bool = True) -> str | None:
    """What to tell the user where an output is a file that is read, under whatever name, or lies
    in a folder that is read, where it would be an input the next time; or two outputs are one
    file. None where all is well.

    outputs: files or folders to be written. inputs: files, and folders read with all below them.
    deep: whether folders are looked through, for links out of them, and for the files themselves
    where an output is there already.
    """
    outputs, inputs = list(outputs), [path for path in inputs if path.exists()]
    there = [path for path in outputs if path.is_file()]
    folders: dict[str, Path] = {}
    files = {_identity(path): path for path in inputs if not path.is_dir()}
    for folder in (path for path in inputs if path.is_dir()):
        folders.setdefault(os.path.realpath(folder), folder)
        for below, names in _walk(folder) if deep else ():
            folders.setdefault(os.path.realpath(below), folder)
            if there:
                paths = [below / name for name in names]
                files |= {_identity(path): path for path in paths if path.exists()}
    taken: dict[str, Path] = {}
    resolve = lru_cache(os.path.realpath)  # outputs are many, their folders few

    @lru_cache
    def read_above(place: str) -> Path | None:
        return next((folders[at] for at in _upwards(place) if at in folders), None)

    for output in outputs:
        place, name = os.path.split(output)
        real = named = os.path.join(resolve(place), name)
        above = read_above(resolve(place)) or folders.get(named)
        if os.path.lexists(output):
            if output.is_file() and (read := files.get(_identity(output))):
                same = "" if read == output else f", under the name {read}"
                return (
                    f"{output} would be written over, and is read{same}; type another name for it"
                )
            if output.is_symlink():
                real = os.path.realpath(output)
                above = above or read_above(real)
        if above:
            return (
                f"{output} lies in {above}, which is read: it would be taken for an input, or "
                "replace one; type another place for it"
            )
        if (other := taken.setdefault(real, output)) is not output:
            return f"two outputs would be the same file: {other}, {output}"
    return None


def _identity(path: Path) -> tuple[int, int]:
    """The same for all names of a file."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _upwards(place: str) -> Iterator[str]:
    yield place
    while (above := os.path.dirname(place)) != place:
        place = above
        yield place


def _walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Each folder from `folder` down, links followed, once, and the names of its files."""
    seen, left = set(), [folder]
    while left:
        here = left.pop()
        if (real := os.path.realpath(here)) in seen:
            continue
        seen.add(real)
        names = []
        with contextlib.suppress(OSError), os.scandir(here) as entries:
            for entry in entries:
                if entry.is_dir():
                    left.append(here / entry.name)
                else:
                    names.append(entry.name)
        yield here, names
