"""Starts and ends the processes that read or draw pictures. Imports nothing heavy.

A terminal and a cluster send a signal to a program and to all of its processes. The program alone
heeds it, and then ends the others itself."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path

# A terminal that is closed sends SIGHUP; a cluster SIGTERM or, before that, SIGUSR1.
STOP_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
    if hasattr(signal, name)
)


def heeded_signals() -> tuple[int, ...]:
    """Those of STOP_SIGNALS that are to stop this program: SIGHUP only where it is not ignored from
    the start, as under nohup."""
    hangup = getattr(signal, "SIGHUP", None)
    return tuple(
        number
        for number in STOP_SIGNALS
        if number != hangup or signal.getsignal(number) is not signal.SIG_IGN
    )


CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # what a container may take, in Linux's cgroups, version 2


def usable_processors() -> int:
    """How many processors this process may use: of the machine's, and of a container's share."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        share, period = CPU_MAX.read_text().split()
        if share != "max":
            count = min(count, max(1, -(-int(share) // int(period))))
    return count


@contextlib.contextmanager
def deferred_signals(*numbers: int) -> Iterator[None]:
    """Goes around what must not be left half done, such as the start of processes. A process that
    starts within it never gets these signals, not even before its first line of ours. This program
    gets them at the end of it."""
    came: list[int] = []
    # A blocked signal is the children's, too, but goes to another thread of this program, if there
    # is one: so it is put off here as well.
    mine = threading.current_thread() is threading.main_thread()  # no other one may set a handler
    masks, handlers, before = hasattr(signal, "pthread_sigmask"), {}, None
    try:
        for number in numbers if mine else ():
            handlers[number] = signal.signal(number, lambda number, _frame: came.append(number))
        if masks:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        yield
    finally:
        try:  # in each of these calls, the handler of another signal may raise
            if before is not None:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler or signal.SIG_DFL)
            for number in came:
                signal.raise_signal(number)


@contextlib.contextmanager
def killed_on_exit() -> Iterator[Callable[[], list[BaseProcess]]]:
    """Kills, at its end, the processes that were started within it and are still there, whatever
    they do: a pool would wait for them, and after a second Ctrl-C for ever. Gives a function that
    lists them."""
    others = set(multiprocessing.active_children())

    def mine() -> list[BaseProcess]:
        return [each for each in multiprocessing.active_children() if each not in others]

    try:
        yield mine
    finally:
        with deferred_signals(signal.SIGINT):
            left = mine()
            for process in left:
                process.kill()  # workers of torch ignore multiprocessing's SIGTERM
            for process in left:
                process.join()


@contextlib.contextmanager
def ended_on_exit(pool: ProcessPoolExecutor) -> Iterator[None]:
    """Ends `pool`, none of whose processes may have started before: kills those that are still
    there, and waits for the pool's own thread. Python 3.11 races with that thread where a program
    ends before it, and says so on stderr."""
    try:
        with killed_on_exit():
            yield
    finally:
        pool.shutdown(cancel_futures=True)


def ignore_signals(*numbers: int) -> None:
    """This process, one that was started by another, ignores these signals from now on."""
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


WORKER_NICENESS = 5  # added to niceness: on a core that both want, a third of what the program gets


def step_back() -> None:
    """Has this process come behind its program, where there are too few cores for both."""
    with contextlib.suppress(AttributeError, OSError):  # Windows has no such thing
        os.nice(WORKER_NICENESS)


def end_with_parent() -> None:
    """A process of a pool calls this: it then ends where its program is killed, which it would
    outlive."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()
