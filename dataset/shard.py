"""A data set of many small files, packed into few large tar files. pack_data.py is its script.

`python -m dataset.shard` is what the script was called before: it says so, and does the same.
"""

import contextlib
import errno
import io
import os
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from common.choices import SPLITS
from common.cli import command, size_said
from common.text import tell

if TYPE_CHECKING:
    from dataset.pictures import Backgrounds, Foregrounds
    from dataset.tar import Member

UNFINISHED = ".unfinished"  # in TARGET, until all is written

# What stays together, a pair or a single picture: names in the tar, and where the pictures are.
Group = Sequence[tuple[str, "Path | Member | Encoded"]]


@dataclass(frozen=True)
class Encoded:
    """The bytes of a picture in memory, to be packed as a file or a tar's member is."""

    content: bytes

    @property
    def size(self) -> int:
        return len(self.content)

    def open(self) -> BinaryIO:
        return io.BytesIO(self.content)


def pack(source: Path, target: Path, shard_bytes: int) -> None:
    """Packs the data set in `source` into tars of at most `shard_bytes` in `target`. Where that
    fails or is stopped, `target` is as it was before. Raises DataError and OSError."""
    from tqdm import tqdm

    from common.errors import DataError
    from dataset.folders import data_folders, open_split

    _check_places(source, target)
    tell(f"looking through {source} ...")
    folders = data_folders("", source, tell)
    splits = {split: open_split(folders, split, check_headers=False) for split in SPLITS}
    parts = [part for opened in splits.values() for part in opened]
    total = sum(_bytes_of(group) for part in parts for group in _groups(part))

    unfinished = target / UNFINISHED
    made = [path for path in (target, *target.parents) if not path.exists()]
    mine, moved = False, []
    try:
        target.mkdir(parents=True, exist_ok=True)
        unfinished.mkdir()  # which fails where another run packs into the same place
        mine = True
        free = shutil.disk_usage(unfinished).free
        if free < total:
            raise DataError(
                f"{target} has room for {size_said(free)}, but the pictures in {source} take "
                f"{size_said(total)}: name another TARGET, or make room"
            )
        with tqdm(
            total=total, unit="B", unit_scale=True, desc="packing", leave=False, disable=None
        ) as bar:
            for split, (foregrounds, backgrounds) in splits.items():
                write_tars(unfinished / split, _groups(foregrounds), shard_bytes, bar.update)
                folder = unfinished / "backgrounds" / split
                write_tars(folder, _groups(backgrounds), shard_bytes, bar.update)
        packed = data_folders("", unfinished, tell)
        for split in SPLITS:
            _compare(splits[split], open_split(packed, split, check_headers=False), target)
        sizes = [path.stat().st_size for path in unfinished.rglob("*.tar")]
        for name in (*SPLITS, "backgrounds"):
            moved.append(name)
            (unfinished / name).rename(target / name)
        unfinished.rmdir()
    except BaseException as error:
        for name in moved:
            if not (unfinished / name).exists():
                shutil.rmtree(target / name, ignore_errors=True)
        if mine:
            shutil.rmtree(unfinished, ignore_errors=True)
        for path in made:
            with contextlib.suppress(OSError):  # there is something else in it by now
                path.rmdir()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DataError(
                f"no room for {size_said(total)} in {target} ({error.strerror}): nothing of it "
                "is left there; name another TARGET, or make room"
            ) from None
        raise
    counts = [len(part) for part in parts]
    tell(
        f"packed into {target}: {counts[0]} foregrounds and {counts[1]} backgrounds to train on, "
        f"{counts[2]} and {counts[3]} to validate on, in {len(sizes)} tar files of "
        f"{size_said(sum(sizes))} in all; looked through again: names, counts and sizes are "
        f"those in {source}"
    )
    tell(f"to train on them: {command('train_base.py', '--dataset-dir', str(target))}")


def _check_places(source: Path, target: Path) -> None:
    from common.apart import overlap
    from common.errors import DataError

    if not source.is_dir():
        raise DataError(
            f"there is no folder {source}: SOURCE is a data set as --dataset-dir reads it"
        )
    if target.exists() and not target.is_dir():
        raise DataError(f"TARGET {target} is a file: name a folder that is empty or new")
    held = sorted(os.listdir(target)) if target.is_dir() else []
    if held:
        what = " (left by a run that was killed: delete all)" if UNFINISHED in held else ""
        raise DataError(
            f"TARGET {target} is not empty, {held[0]} is in it{what}: nothing is written over; "
            "name a folder that is empty or new"
        )
    if overlap([target], [source]):
        raise DataError(
            f"TARGET {target} lies in SOURCE {source}, which is only read: name another place"
        )


def _groups(part: "Foregrounds | Backgrounds") -> Iterator[Group]:
    """What goes into the tars, in order."""
    from dataset.pictures import Backgrounds

    for index in range(len(part)):
        if isinstance(part, Backgrounds):
            yield [(part.names[index], part.path(index))]
            continue
        fgr, pha = part.paths(index)
        if pha is None:
            yield [(f"rgba/{part.fgr_names[index]}", fgr)]
        else:
            names = f"fgr/{part.fgr_names[index]}", f"pha/{part.pha_names[index]}"
            yield list(zip(names, (fgr, pha), strict=True))


def _size_of(path: "Path | Member | Encoded") -> int:
    return path.stat().st_size if isinstance(path, Path) else path.size


def _bytes_of(group: Group) -> int:
    """In a tar: the pictures, filled up to blocks of 512, with a header each; three, and the name,
    where that is not plain and short."""
    count = 0
    for name, path in group:
        plain = len(name) <= tarfile.LENGTH_NAME and name.isascii()
        count += 1 + -(-_size_of(path) // 512) + (0 if plain else 3 + len(name) // 128)
    return count * 512


def write_tars(
    folder: Path, groups: Iterable[Group], shard_bytes: int, told: Callable[[int], object]
) -> None:
    """Writes numbered tars, and their indices, into a new folder; it holds one group at a time. The
    same pictures give the same bytes: no times, no owners. told: called with bytes that are
    written."""
    from dataset.tar_index import scan, write_index

    folder.mkdir(parents=True)
    for number, held in groupby(_numbered(groups, shard_bytes), itemgetter(0)):
        path = folder / f"{number:05}.tar"
        with path.open("xb") as file:
            with tarfile.open(  # type: ignore[call-overload]  # of its copybufsize
                fileobj=file,
                mode="w:",
                format=tarfile.PAX_FORMAT,
                encoding="utf-8",
                errors="surrogateescape",
                copybufsize=1 << 20,
            ) as archive:
                for _, group in held:
                    for name, picture in group:
                        _add(archive, name, picture)
                    told(_bytes_of(group))
            file.flush()
            os.fsync(file.fileno())
        hindrance = write_index(path, scan(path))
        if hindrance:
            raise OSError(f"the index of {path} cannot be written ({hindrance})")


def _numbered(groups: Iterable[Group], shard_bytes: int) -> Iterator[tuple[int, Group]]:
    """Each group and the number of its tar, of at most so many bytes unless a single group is
    larger."""
    number, size, end = -1, 0, tarfile.RECORDSIZE  # what a tar is filled up to, in the end
    for group in groups:
        more = _bytes_of(group)
        if number < 0 or size + more > shard_bytes:
            number, size = number + 1, end
        size += more
        yield number, group


def _add(archive: tarfile.TarFile, name: str, picture: "Path | Member | Encoded") -> None:
    from common.errors import DataError

    info = tarfile.TarInfo(name)  # of time 0, nobody's
    info.size = _size_of(picture)
    try:
        file = picture.open("rb") if isinstance(picture, Path) else picture.open()
    except OSError as error:
        raise DataError(f"{picture} cannot be read ({error.strerror}); restore it") from None
    with file:
        try:
            archive.addfile(info, file)
        except OSError as error:
            if error.errno:
                raise
            raise DataError(f"{picture} changed while it was packed; start again") from None
        if file.read(1):
            raise DataError(f"{picture} changed while it was packed; start again")
    archive.members.clear()  # type: ignore[attr-defined]  # it would keep all of them


def _compare(
    source: "tuple[Foregrounds, Backgrounds]",
    packed: "tuple[Foregrounds, Backgrounds]",
    place: Path,
) -> None:
    """Raises DataError where names, counts or sizes differ."""
    from common.errors import DataError
    from dataset.folders import describe

    read: list[Foregrounds | Backgrounds] = [*source]
    kept: list[Foregrounds | Backgrounds] = [*packed]
    same = describe(*source) == describe(*packed) and all(
        _size_of(picture) == _size_of(member)
        for part, other in zip(read, kept, strict=True)
        for group, written in zip(_groups(part), _groups(other), strict=True)
        for (_, picture), (_, member) in zip(group, written, strict=True)
    )
    if not same:
        raise DataError(
            f"what was written to {place} is not what was read: did the pictures change meanwhile? "
            "start again"
        )


if __name__ == "__main__":
    import runpy

    line = command("pack_data.py", *sys.argv[1:])
    print(f"note: dataset.shard is called pack_data.py now; next time type: {line}")
    runpy.run_module("pack_data", run_name="__main__", alter_sys=True)
