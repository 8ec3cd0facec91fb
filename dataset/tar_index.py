"""What is in a tar file of pictures, and where: found out once, then kept in an index beside it.

An index never outlives its tar unnoticed: the tar's size and headers tell whether it still fits.
Nothing is ever unpacked, so links, devices and odd paths in a tar lead nowhere.
"""

import contextlib
import hashlib
import io
import json
import os
import shlex
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import DataError
from common.files import beside
from common.text import tell
from dataset.kinds import PICTURE_ENDINGS, kind_of, said_of_passed
from dataset.names import Names

INDEX_FORMAT = "matting tar index 1"  # of INDEX_ENDING files; another number for another layout
INDEX_ENDING = ".index"  # what its name adds to the tar's
BLOCK_BYTES = 512  # bytes; a tar is made of these, a member's header being the one before its bytes
MAX_NAME_BYTES = 16 * BLOCK_BYTES  # in front of a header: more than any file system's name takes
HEADERS_CHECKED = 8  # of a tar at the start; every other one when its picture is read

COMPRESSED = {  # how a file begins, the ending it has, and what unpacks it in place
    b"\x1f\x8b": (".gz", "gzip -d"),
    b"BZh": (".bz2", "bzip2 -d"),
    b"\xfd7zXZ\x00": (".xz", "xz -d"),
    b"\x28\xb5\x2f\xfd": (".zst", "zstd -d --rm"),
}
COMPRESSED_ENDINGS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclass(frozen=True)
class Index:
    """Where a tar's pictures lie. Of each: its name, where its bytes begin, how many they are, and
    the CRC-32 of the header before them, by which another tar in this one's place is noticed."""

    tar_bytes: int
    names: Names
    offsets: np.ndarray  # int64
    sizes: np.ndarray  # int64
    headers: np.ndarray  # uint32


def tars_in(folder: Path) -> list[Path]:
    """The tars that lie directly in `folder`, sorted; none where it holds something else, or is
    not there. Raises DataError where they are compressed, one is missing beside its index, or they
    lie beside pictures or folders."""
    tars, indices, compressed, other = set(), set(), [], ""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name.lower()
                if name.startswith("."):
                    continue
                if name.endswith(PICTURE_ENDINGS):  # first, since there may be a million
                    other = entry.name
                elif name.endswith(".tar") and entry.is_file():
                    tars.add(entry.name)
                elif name.endswith(".tar" + INDEX_ENDING):
                    indices.add(entry.name.removesuffix(INDEX_ENDING))
                elif name.endswith(COMPRESSED_ENDINGS):
                    compressed.append(entry.name)
                elif entry.is_dir():
                    other = entry.name
    except OSError:  # whoever reads the folder next will say so
        return []
    if tars and other:
        raise DataError(
            f"{folder} holds both tar files ({min(tars)}) and pictures or folders ({other}), and "
            "it is not clear which to train on: move one kind away"
        )
    if compressed and not other:
        raise DataError(_unpack(folder / min(compressed)))
    if lost := indices - tars:
        raise DataError(
            f"{folder / min(lost)} is missing, but its index is there ({len(lost)} of these): "
            "bring it back, or delete the index too"
        )
    return [folder / name for name in sorted(tars)]


def scan(path: Path, say: Callable[[str], None] = tell) -> Index:
    """Looks through a tar, header by header. Only regular files that are pictures by their names
    count; files and folders whose names begin with a dot do not, as in a folder. Says what else
    of pictures' names is left out: links, devices, names that lead outside. Raises DataError."""
    size = path.stat().st_size
    names, places, left_out = [], [], []
    passed: Counter[str] = Counter()
    try:
        with path.open("rb") as file:
            start = file.read(BLOCK_BYTES)
            if any(start.startswith(magic) for magic in COMPRESSED):
                raise DataError(_unpack(path))
            file.seek(0)
            with tarfile.open(
                fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape"
            ) as archive:
                before = -1
                while (info := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
                    if info.size < 0 or info.offset <= before:
                        raise tarfile.ReadError("a member that leads back")
                    before = info.offset
                    parts = _parts(info.name)
                    if info.isdir():
                        continue
                    if not info.name.lower().endswith(PICTURE_ENDINGS):
                        if parts and not any(part.startswith(".") for part in parts):
                            passed[kind_of(parts[-1])] += 1
                        continue
                    if not info.isfile() or info.issparse() or info.name[0] == "/" or ".." in parts:
                        left_out.append(info.name)
                        continue
                    if any(part.startswith(".") for part in parts):
                        continue
                    header = os.pread(file.fileno(), BLOCK_BYTES, info.offset_data - BLOCK_BYTES)
                    names.append("/".join(parts))
                    places.append((info.offset_data, info.size, zlib.crc32(header)))
                _check_end(path, file, archive.offset, size)
    except DataError:
        raise
    except (tarfile.TarError, ValueError, RecursionError, OverflowError) as error:
        raise DataError(
            f"{path} is cut off or damaged ({error}, {size} bytes): copy or write it again"
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from None
    if passed:
        say(
            f"{path}: not read: {said_of_passed(passed)}; pictures are {', '.join(PICTURE_ENDINGS)}"
        )
    if left_out:
        say(
            f"{path}: left out {len(left_out)} member(s) that are no plain files or whose names "
            f"lead outside, the first is {left_out[0]}"
        )
    columns = np.array(places, dtype=np.int64).reshape(-1, 3)
    return Index(size, Names(names), columns[:, 0], columns[:, 1], columns[:, 2].astype(np.uint32))


def _check_end(path: Path, file: io.BufferedReader, offset: int, size: int) -> None:
    """tarfile takes a header that it cannot read for the end, and does not miss the end's mark, a
    block of zeros."""
    file.seek(offset)
    mark = file.read(BLOCK_BYTES)
    if len(mark) < BLOCK_BYTES:
        raise DataError(
            f"{path} is cut off: it ends at byte {size} without a tar's end mark; copy or write it "
            "again"
        )
    if any(mark):
        raise DataError(f"{path} is damaged at byte {offset}: copy or write it again")
    while more := file.read(1 << 20):
        if any(more):
            raise DataError(
                f"{path} goes on behind its end mark at byte {offset}: tars that were joined "
                "together must be separate files"
            )


def write_index(path: Path, index: Index) -> str | None:
    """Writes the index beside its tar. Returns what hindered it, if anything did."""
    content = {
        "format": INDEX_FORMAT,
        "tar_bytes": index.tar_bytes,
        "names": list(index.names),
        "offsets": index.offsets.tolist(),
        "sizes": index.sizes.tolist(),
        "headers": index.headers.tolist(),
        "seal": _seal(index),
    }
    target = index_path(path)
    temporary = beside(target.with_name(f".{target.name}"), f".{os.getpid()}")
    try:
        temporary.write_text(json.dumps(content), encoding="ascii")
        os.replace(temporary, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        return error.strerror or str(error)
    return None


def read_index(path: Path) -> Index:
    """The index beside a tar. Raises DataError where it is damaged or the tar is another one: by
    its size and some of its headers; when a picture is read its own header is looked at."""
    source = index_path(path)
    try:
        content = json.loads(source.read_bytes())
        if not isinstance(content, dict) or content.get("format") != INDEX_FORMAT:
            raise ValueError(f"it is no {INDEX_FORMAT!r}")
        columns = [np.array(content[name], np.int64) for name in ("offsets", "sizes", "headers")]
        names, tar_bytes = content["names"], int(content["tar_bytes"])
        offsets, sizes, headers = columns
        if not offsets.shape == sizes.shape == headers.shape == (len(names),):
            raise ValueError("its columns are of unlike lengths")
        if not all(isinstance(name, str) for name in names):
            raise ValueError("a name is no text")
        if len(names) and (
            offsets.min() < BLOCK_BYTES or sizes.min() < 0 or (offsets + sizes).max() > tar_bytes
        ):
            raise ValueError("it leads outside of the tar")
    except OSError as error:
        raise DataError(f"{source} cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{source} is damaged ({error}): delete it, and the next start makes it anew"
        ) from None
    size = path.stat().st_size
    if size < tar_bytes:
        raise DataError(
            f"{path} is cut off: it has {size} of the {tar_bytes} bytes that its index says; copy "
            f"or write it again (or, if it is intact, delete {source}, which is then of another)"
        )
    if size > tar_bytes:
        raise DataError(stale(path, f"{size} bytes instead of {tar_bytes}"))
    with path.open("rb") as file:
        for place in np.linspace(0, len(names) - 1, min(len(names), HEADERS_CHECKED), dtype=int):
            found = zlib.crc32(
                os.pread(file.fileno(), BLOCK_BYTES, int(offsets[place]) - BLOCK_BYTES)
            )
            if found != headers[place]:
                raise DataError(stale(path, f"{names[place]} is not where the index says"))
    index = Index(tar_bytes, Names(names), offsets, sizes, headers.astype(np.uint32))
    if content.get("seal", _seal(index)) != _seal(index):  # those of before have none
        raise DataError(
            f"{source} was changed after it was made: delete it, and the next start makes it anew"
        )
    return index


def _seal(index: Index) -> str:
    """Of all that an index says."""
    columns = (np.array([index.tar_bytes]), index.offsets, index.sizes, index.headers)
    content = b"".join(column.astype(np.int64).tobytes() for column in columns)
    return hashlib.sha256(index.names.digest() + content).hexdigest()


def is_header_of(name: str, size: int, header: bytes, before: bytes) -> bool:
    """Whether a member's header says so: its name, relative and without "." and empty parts, and
    its size. before: what lies in front of it, where a name stands that is too long for the
    header, or not plain."""
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    if info.size != size:
        return False
    if "/".join(_parts(info.name)) == name:
        return True
    said = before.replace(b"/./", b"/").replace(b"//", b"/")
    return not fits_header(name) and name.encode("utf-8", "surrogateescape") in said


def fits_header(name: str) -> bool:
    """Whether a member's header has its name in full, whatever program wrote it."""
    return name.isascii() and len(name) < tarfile.LENGTH_NAME


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in ("", ".")]


def index_path(path: Path) -> Path:
    return path.with_name(path.name + INDEX_ENDING)


def stale(path: Path | str, found: str) -> str:
    """What to say of a tar that is not the one which was indexed."""
    return (
        f"{path} is not the tar that its index was made of ({found}): delete "
        f"{path}{INDEX_ENDING}, and the next start makes it anew; or bring the right tar back"
    )


def _unpack(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(BLOCK_BYTES)
    how = "no known program's file, in spite of its name"
    for magic, (ending, command) in COMPRESSED.items():
        if start.startswith(magic):
            typed = shlex.quote(os.fspath(path))
            how = f"{command} {typed}"
            if path.suffix == ".tar":  # these programs want to see an ending of their own
                named = shlex.quote(os.fspath(path) + ending)
                how = f"mv {typed} {named} && {command} {named}"
    return (
        f"{path} is compressed, and pictures cannot be read from its middle: unpack it, which "
        f"takes little more room, since pictures are compressed already: {how}"
    )
