"""Locks that go with their program, though the processes that it forked live on for seconds.

A run holds the folder of its checkpoints, so that no second one of its name starts. A temporary
folder is held, too: so the next start knows which a killed one has left.
"""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

try:
    import fcntl
except ImportError:  # Windows has no locks that die with their process
    fcntl = None  # type: ignore[assignment]

OWNER_FILE = ".owner"

held: list[TextIO] = []  # files that this process has locked


def _leave_locks() -> None:
    while held:
        held.pop().close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_locks)


class HeldError(Exception):
    """Another program holds the folder."""


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Holds `folder`, which is made where there is none. At the end the folders that it made go,
    too, if nothing came into them. Raises HeldError where another program holds it; the lock dies
    with its process."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        if fcntl:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not os.path.samestat(os.stat(lock.name), os.fstat(lock.fileno())):
                    raise OSError("the other run has just removed it")
            except OSError as error:
                if error.errno in (None, errno.EWOULDBLOCK, errno.EACCES, errno.ENOENT):
                    raise HeldError(folder) from None
                print(
                    f"warning: {folder} cannot be locked ({error.strerror}): nothing keeps a "
                    "second run of this name out"
                )
        held.append(lock)
        try:
            yield
        finally:
            held.remove(lock)
            if made and [path.name for path in folder.iterdir()] == [".lock"]:
                with contextlib.suppress(OSError):  # another run may be about to use it
                    (folder / ".lock").unlink()
                    for path in made:
                        path.rmdir()


@contextlib.contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder in `parent`, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as name:
        folder = Path(name)
        with (folder / f"{OWNER_FILE}.new").open("w") as lock:
            if fcntl:
                with contextlib.suppress(OSError):  # a file system without locks
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    (folder / f"{OWNER_FILE}.new").rename(
                        folder / OWNER_FILE
                    )  # not before it is locked
            held.append(lock)
            try:
                yield folder
            finally:
                held.remove(lock)


def remove_abandoned(parent: Path, prefix: str) -> list[Path]:
    """Removes, and returns, the temporary folders in `parent` whose program is gone."""
    removed = []
    for owner in parent.glob(f"{prefix}*/{OWNER_FILE}") if fcntl else ():
        with contextlib.suppress(OSError), owner.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(owner.parent)
            removed.append(owner.parent)
    return removed
