"""The processes that read pictures for a DataLoader: how many can be started here, and what is said
where they cannot, or where they are waited for too long."""

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from common.errors import DataError
from common.processes import usable_processors
from common.text import plural
from dataset.kinds import PICTURE_ENDINGS

SHARED_MEMORY = Path("/dev/shm")  # where Linux keeps semaphores, a page each
# What torch's DataLoader takes for itself and for each worker: semaphores, and files that this
# process has open (pipes, and two batches that are there already), some being left for others.
SEMAPHORES, OF_EACH = 8, 3
FILES, FILES_OF_EACH = 32, 6

_said: set[str] = set()  # what is said once a program


def workers_that_fit(asked: int, say: Callable[[str], object]) -> int:
    """How many of `asked` workers can be started here; where that is fewer, it is said once why."""
    fit = asked
    for room, why in (_room_for_semaphores(), _room_for_files()) if asked else ():
        if room is not None and room < fit:
            fit = max(0, room)
            if why not in _said:
                _said.add(why)
                who = f"{fit} of {asked} workers read" if fit else "the program itself reads"
                say(f"warning: {who} the pictures, since {why}")
    return fit


def say_crowded(count: int, say: Callable[[str], object]) -> None:
    """Says once that so many workers are more than processors, where they are."""
    processors = usable_processors()
    if count > processors and "crowded" not in _said:
        _said.add("crowded")
        say(f"note: {plural(count, 'worker')} share {plural(processors, 'processor')}")


def _room_for_semaphores() -> tuple[int | None, str]:
    try:
        system = os.statvfs(SHARED_MEMORY)
    except (OSError, AttributeError):  # no such folder, or system
        return None, ""
    if not system.f_blocks:  # without a limit
        return None, ""
    pages = system.f_bavail * system.f_frsize // max(system.f_frsize, 4096)
    return (pages - SEMAPHORES) // OF_EACH, (
        f"{SHARED_MEMORY} is full; remove what is left there, or give a container more (docker run "
        "--shm-size 1g)"
    )


def _room_for_files() -> tuple[int | None, str]:
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        open_now = len(os.listdir("/dev/fd"))
    except (ImportError, OSError):
        return None, ""
    if limit == resource.RLIM_INFINITY:
        return None, ""
    return (limit - open_now - FILES) // FILES_OF_EACH, (
        f"no more than {limit} files may be open at once; type ulimit -n 1024 before the command"
    )


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Goes around the start of processes that read pictures. Raises DataError where the system
    refuses what they need."""
    try:
        yield
    except OSError as error:
        raise DataError(f"processes that read pictures cannot start: {cannot(error)}") from None


def cannot(error: OSError) -> str:
    """What the system has refused to a process that reads pictures, and what to type."""
    reason = error.strerror or str(error)
    if error.errno == errno.ENOSPC:
        return (
            f"{reason}: {SHARED_MEMORY}, or the folder for temporary files, is full; make room, "
            "give a container more (docker run --shm-size 1g), or type --num-workers 0"
        )
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{reason}: type ulimit -n 1024 before the command, or fewer --num-workers"
    if error.errno == errno.EFBIG:
        return f"{reason}: type ulimit -f unlimited before the command, or --num-workers 0"
    return f"{reason}: type fewer --num-workers, or --num-workers 0"


# ---- What they do -------------------------------------------------------------------------------

PROCESS_STATES = {
    "R": "computes",
    "S": "sleeps",
    "D": "waits for a disk or a network",
    "T": "is stopped",
    "t": "is stopped by a debugger",
    "Z": "has ended",
}


@contextlib.contextmanager
def watched(
    workers: Sequence[int], say: Callable[[str], object], after: float = 60
) -> Iterator[Callable[[], contextlib.AbstractContextManager]]:
    """Gives what to enter while a batch is waited for: where that takes more than `after` seconds,
    `say` is told so, and what the workers, given by their process ids, do; then again after each
    ten times as long."""
    since: list[float] = []  # one, while a batch is waited for
    ended = threading.Event()

    @contextlib.contextmanager
    def waiting() -> Iterator[None]:
        since.append(time.monotonic())
        try:
            yield
        finally:
            since.clear()

    def watch() -> None:
        seen, due = 0.0, after
        while not ended.wait(after / 10):
            now = time.monotonic()
            begun = next(iter(since), now)
            if begun != seen:
                seen, due = begun, after
            if now - begun >= due:
                due *= 10
                say(
                    f"a batch of pictures has been waited for since {now - begun:.0f} s; "
                    f"{'; '.join(map(doing, workers)) or doing(os.getpid())}. The run goes on when "
                    "it comes; a second Ctrl-C ends it"
                )

    thread = threading.Thread(target=watch, name="watch", daemon=True)
    thread.start()
    try:
        yield waiting
    finally:
        ended.set()
        thread.join()


def doing(process: int) -> str:
    """What a process that reads pictures does, as far as the system says it."""
    place, what = Path("/proc") / str(process), "cannot be looked at here"
    with contextlib.suppress(OSError, IndexError):
        letter = (place / "stat").read_text().rpartition(")")[2].split()[0]
        what = PROCESS_STATES.get(letter, f"is in state {letter}")
        names = set()
        for each in (place / "fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                names.add(os.readlink(each))
        if read := [name for name in sorted(names) if name.lower().endswith(PICTURE_ENDINGS)]:
            what += f", with {' and '.join(read)} open"
    who = "the program" if process == os.getpid() else f"process {process}, which reads pictures,"
    return f"{who} {what}"
