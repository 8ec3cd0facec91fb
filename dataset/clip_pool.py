"""Runs jobs in processes and tells on the way how far they are. It knows nothing of clips."""

import multiprocessing
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from common.errors import DataError
from common.processes import (
    STOP_SIGNALS,
    deferred_signals,
    end_with_parent,
    ended_on_exit,
    ignore_signals,
)

SECONDS_BETWEEN = 0.3  # looks at how far the processes are

_counter: Any = None  # of this process, one of the pool: what all of them have done


def results(
    work: Callable[..., Any],
    jobs: Sequence[tuple],
    workers: int,
    told: Callable[[int], object],
) -> Generator[Any, None, None]:
    """What `work(*job, told)` returns for each job, as they come. told: called here with what the
    jobs tell. workers: processes, which take few jobs in advance; up to 1: none but this one."""
    if workers <= 1:
        for job in jobs:
            yield work(*job, told)
        return
    # A forked child of a process with threads may hang, and FFmpeg has some: start fresh ones.
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    seen = 0
    pool = ProcessPoolExecutor(workers, context, _begin, (counter,))
    with ended_on_exit(pool):
        try:
            with deferred_signals(*STOP_SIGNALS):
                left = {pool.submit(_run, work, job) for job in jobs}
            while left:
                done, left = wait(left, SECONDS_BETWEEN, FIRST_COMPLETED)
                now = counter.value
                told(now - seen)
                seen = now
                for each in done:
                    yield each.result()
            pool.shutdown()
        except BrokenProcessPool:
            raise DataError(
                "a process that reads clips was killed, perhaps for want of memory: type the same "
                "command with --num-workers 1"
            ) from None


def _begin(counter: Any) -> None:
    global _counter
    ignore_signals(*STOP_SIGNALS)
    end_with_parent()
    _counter = counter


def _run(work: Callable[..., Any], job: tuple) -> Any:
    return work(*job, _tell)


def _tell(count: int) -> None:
    with _counter.get_lock():
        _counter.value += count
