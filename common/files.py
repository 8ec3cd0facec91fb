"""Output files: looked at before the work, and written as a whole or not at all."""

import errno
import hashlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

from common.apart import overlap
from common.cli import size_said
from common.errors import OptionError
from common.text import tell

MAX_NAME_BYTES = 255  # bytes, of nearly every file system
DISK_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_output(path: Path, overwrite: bool) -> None:
    """Raises OptionError where an output could not be written, or something would be lost."""
    if path.is_dir():
        raise OptionError(f"{path} is a folder; type the name of a file")
    if path.exists() and path.stat().st_size and not overwrite:
        raise OptionError(f"{path} exists; type another name, or --overwrite to replace it")
    check_writable(path.parent)


def check_apart(outputs: Iterable[Path], inputs: Iterable[Path], deep: bool = True) -> None:
    """Raises OptionError where an output would replace what is read, or lie among it, as
    common.apart.overlap says it."""
    if said := overlap(outputs, inputs, deep):
        raise OptionError(said)


def check_writable(folder: Path) -> None:
    """Raises OptionError where `folder` could not be made or written into."""
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise OptionError(f"{folder} cannot be made: {existing} is a file; move it away")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise OptionError(
            f"{folder} cannot be written: {error.strerror} in {existing.resolve()}"
        ) from None


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Writes the file as a whole, in a folder that is made if need be. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(content), len(content))


def write_atomically(
    path: Path,
    write: Callable[[Any], object],
    size: int | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> None:
    """Has `write` fill a temporary file in the same folder, flushes it to disk and renames it, so
    that `path` is at every instant either what it was or what it becomes. size: how many
    bytes it will take, if known, for the message. cancelled: asked on the way whether to stop.
    Raises OSError."""
    temporary = beside(path, f".partial-{os.getpid()}")
    try:
        with temporary.open("w+b", buffering=0) as raw:
            file = _Output(raw, cancelled)
            try:
                write(file)
            except Exception:
                if file.error:  # the cause, which torch.save does not tell
                    raise file.error from None
                raise
            os.fsync(raw.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in DISK_FULL_ERRORS:
            free = shutil.disk_usage(path.parent).free
            needs = f"it needs {size_said(size)}, and " if size else ""
            raise OSError(
                f"{path} could not be written ({error.strerror}): {needs}"
                f"{size_said(free)} are free in {path.parent}; what was saved before it is "
                "intact; make room, or have a quota or a limit on file sizes raised"
            ) from None
        raise OSError(f"{path} could not be written ({error.strerror or error})") from None
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name, too, survives a loss of power
        finally:
            os.close(folder)


def beside(path: Path, ending: str) -> Path:
    """A file in the same folder with that ending after its name. Where this would be too long a
    name, it begins as the file's does and goes on with a hash of it."""
    name = os.fsencode(path.name)
    room = MAX_NAME_BYTES - len(os.fsencode(ending))
    if len(name) > room:
        digest = hashlib.sha256(name).hexdigest()[:16]
        name = name[: room - len(digest)].decode("utf-8", "ignore").encode() + digest.encode()
    return path.with_name(os.fsdecode(name) + ending)


def next_free(numbered: Callable[[str], Path], also: Iterable[str] = ()) -> Path:
    """The first of numbered(""), numbered("-2"), numbered("-3"), ... that is not there, nor a file
    of its name with one of the endings `also`."""
    numbers = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    for path in map(numbered, numbers):
        if not any(each.exists() for each in (path, *map(path.with_suffix, also))):
            return path
    raise AssertionError("numbers have no end")


def rename_aside(path: Path) -> None:
    """Adds .set-aside to a file's name, if there is the file; over nothing that is there."""
    target = next_free(lambda number: path.with_name(f"{path.name}.set-aside{number}"))
    if path.exists():
        path.rename(target)
        tell(f"renamed to {target}")


class _Output:
    """An open file that keeps the error that a write ended with, writes all or fails, and stops
    when it is cancelled."""

    def __init__(self, raw: BinaryIO, cancelled: Callable[[], bool]) -> None:
        self.raw, self.cancelled = raw, cancelled
        self.error: OSError | None = None
        self.read, self.seek, self.tell, self.flush = raw.read, raw.seek, raw.tell, raw.flush

    def write(self, data: bytes) -> int:
        view = memoryview(data).cast("B")
        try:
            done = 0
            while done < len(view):
                if self.cancelled():
                    raise InterruptedError("cancelled")
                done += self.raw.write(view[done : done + (1 << 24)])
        except OSError as error:
            self.error = error
            raise
        return done
