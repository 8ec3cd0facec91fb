"""Pictures in tar files ("shards"), read where they lie, by the offsets that an index remembers.

A TarFolder stands in for a folder: the rest of the program lists it and opens `folder / name`
without knowing. It never unpacks anything, and never reads a tar from its beginning to its end.
"""

import io
import os
import zlib
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import DataError
from dataset.kinds import PICTURE_ENDINGS
from dataset.names import Names
from dataset.tar_index import (
    BLOCK_BYTES,
    MAX_NAME_BYTES,
    Index,
    fits_header,
    index_path,
    is_header_of,
    read_index,
    scan,
    stale,
    tars_in,
    write_index,
)

MAX_OPEN_TARS = 64  # tars that a process holds open
BUFFER_BYTES = 1 << 16  # bytes read at once


@dataclass(frozen=True)
class Member:
    """A picture in a tar: what a path is to a picture in a folder."""

    tar: str
    tar_bytes: int
    name: str
    offset: int
    size: int
    header: int

    def __str__(self) -> str:
        return f"{self.tar}: {self.name}"

    def open(self) -> io.BufferedReader:
        """A file of this member's bytes alone. Raises DataError where the tar is not there or no
        longer the one that was indexed."""
        try:
            descriptor = _descriptor(self.tar, self.tar_bytes)
            header = os.pread(descriptor.number, BLOCK_BYTES, self.offset - BLOCK_BYTES)
            before = b"" if fits_header(self.name) else descriptor.before(self.offset - BLOCK_BYTES)
        except OSError as error:
            raise DataError(f"{self.tar} cannot be read ({error.strerror}); restore it") from None
        if zlib.crc32(header) != self.header:
            raise DataError(stale(self.tar, f"{self.name} is not where the index says"))
        if not is_header_of(self.name, self.size, header, before):
            raise DataError(stale(self.tar, f"where {self.name} should be is another member"))
        return io.BufferedReader(_Part(descriptor, self), BUFFER_BYTES)


class TarFolder:
    """All pictures under one folder's name in the tars of a folder; `tar_folder / name` is the
    Member of that name. `names`, sorted, are relative to it, as those of a folder of files.

    It holds no file open and can be sent to other processes; its million names and places take
    some hundred MB, in blocks that processes share.
    """

    def __init__(self, folder: Path, kind: str, indices: list[tuple[Path, Index]]) -> None:
        """kind: the folder's name in the tars, or "" for all that they hold."""
        prefix = f"{kind}/" if kind else ""
        names: list[str] = []
        places = []
        for number, (_, index) in enumerate(indices):
            listed = list(enumerate(index.names))
            chosen = [place for place, name in listed if name.startswith(prefix)]
            names += [listed[place][1] for place in chosen]
            tars = np.full(len(chosen), number)
            places.append((tars, index.offsets[chosen], index.sizes[chosen], index.headers[chosen]))
        order = sorted(range(len(names)), key=names.__getitem__)
        names = [names[i].removeprefix(prefix) for i in order]
        tars, offsets, sizes, headers = (
            np.concatenate(parts)[order] for parts in zip(*places, strict=True)
        )
        self._folder, self._prefix = folder, prefix
        self._tars = [(os.fspath(path), index.tar_bytes) for path, index in indices]
        self._tar = tars.astype(np.int32)
        self._offsets, self._sizes, self._headers = offsets, sizes, headers
        self.names = Names(names)
        self._refuse_doubles(names)

    def _refuse_doubles(self, names: list[str]) -> None:
        double = [i for i in range(1, len(names)) if names[i] == names[i - 1]]
        if double:
            one, other = (self._tars[self._tar[i]][0] for i in (double[0] - 1, double[0]))
            raise DataError(
                f"{len(double)} name(s) twice, the first is {self._prefix}{names[double[0]]} "
                f"in {one} and {other}: pack them anew without one of the two"
            )

    def __str__(self) -> str:
        return f"{self._folder}/*.tar" + (f" under {self._prefix}" if self._prefix else "")

    def __truediv__(self, name: str) -> Member:
        """Raises KeyError where there is none of this name."""
        place = bisect_left(self.names, name)
        if place == len(self.names) or self.names[place] != name:
            raise KeyError(name)
        tar, tar_bytes = self._tars[self._tar[place]]
        return Member(
            tar,
            tar_bytes,
            self._prefix + name,
            int(self._offsets[place]),
            int(self._sizes[place]),
            int(self._headers[place]),
        )


def open_tars(folder: Path, kinds: tuple[str, ...], say: Callable[[str], None]) -> dict:
    """A TarFolder for each of `kinds` that the tars in `folder` have pictures of.

    kinds: names of folders in the tars; or just "", all that is in them. A tar without an index is
    looked through once and its index written beside it; or, where that cannot be, looked through
    at every start, which is said. Raises DataError where a tar is cut off, damaged or compressed,
    does not fit its index, there is no picture of these kinds, or the system cannot read tars so.
    """
    if not hasattr(os, "preadv"):
        raise DataError(
            f"{folder} is packed in tar files, which are not read on this system (Windows has no "
            "pread): unpack them into folders of pictures"
        )
    paths = tars_in(folder)
    # Path.exists would raise for an index whose name is too long.
    bare = [path for path in paths if not os.path.exists(index_path(path))]
    if bare:
        say(f"{folder}: {len(bare)} of {len(paths)} tar files have no index: looking through them")
    unwritten = None
    indices = []
    for path in paths:
        if path in bare:
            index = scan(path, say)
            unwritten = write_index(path, index) or unwritten
        else:
            index = read_index(path)
        indices.append((path, index))
    if unwritten:
        say(f"{folder}: the index cannot be kept ({unwritten}): every start looks through the tars")
    found = {kind: TarFolder(folder, kind, indices) for kind in kinds}
    found = {kind: pictures for kind, pictures in found.items() if len(pictures.names)}
    if not found:
        wanted = f" under {', '.join(f'{kind}/' for kind in kinds)}" if any(kinds) else ""
        names = (name for _, index in indices for name in index.names)
        has = "".join(f"; there is {name}" for name in islice(names, 1))
        raise DataError(
            f"no picture ({', '.join(PICTURE_ENDINGS)}){wanted} in {folder}/*.tar{has}: pack them "
            "anew with python pack_data.py"
        )
    return found


class _Descriptor:
    """An open tar, closed with its last user; reading by offset shares no position."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def before(self, offset: int) -> bytes:
        """What lies in front of a member's header, as far as its name may."""
        start = max(0, offset - MAX_NAME_BYTES)
        return os.pread(self.number, offset - start, start)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


@lru_cache(maxsize=MAX_OPEN_TARS)
def _descriptor(path: str, tar_bytes: int) -> _Descriptor:
    """Of this process; those opened before it was forked serve it as well."""
    descriptor = _Descriptor(path)
    if (size := os.fstat(descriptor.number).st_size) != tar_bytes:
        raise DataError(stale(path, f"{size} bytes instead of {tar_bytes}"))
    return descriptor


class _Part(io.RawIOBase):
    """A member's bytes as a file."""

    def __init__(self, descriptor: _Descriptor, member: Member) -> None:
        self._descriptor, self._member, self._at = descriptor, member, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._member.size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._member.size - self._at)
        if wanted <= 0:
            return 0
        view = memoryview(buffer)[:wanted]
        count = os.preadv(self._descriptor.number, [view], self._member.offset + self._at)
        if not count:
            raise OSError(f"{self._member.tar} was cut off while it was read")
        self._at += count
        return count
