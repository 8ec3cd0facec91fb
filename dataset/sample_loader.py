"""Batches of samples, read by a DataLoader's processes: started, watched and ended.

workers.py says how many there may be, and what they do where they are waited for.
"""

import contextlib
import signal
import threading
from collections.abc import Generator, Iterable, Iterator
from copy import copy
from functools import partial
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, Dataset

from common.errors import DataError
from common.processes import (
    STOP_SIGNALS,
    deferred_signals,
    ignore_signals,
    killed_on_exit,
    step_back,
)
from dataset.bad_images import BadImages
from dataset.sample import collate
from dataset.workers import say_crowded, starting, watched, workers_that_fit


class SampleLoader(DataLoader):
    """A DataLoader of a MattingDataset, or of what gives the like. on_gpu: whether the program
    computes there. sampling: which samples meet, as a DataLoader is told it."""

    def __init__(self, dataset: Dataset, num_workers: int, on_gpu: bool, **sampling: Any) -> None:
        super().__init__(
            dataset,
            num_workers=num_workers,
            collate_fn=collate,
            pin_memory=on_gpu,
            worker_init_fn=partial(begin_worker, on_gpu=on_gpu),
            **sampling,
        )

    def check_worker_number_rationality(self) -> None:
        """Torch warns here of more workers than processors; `batches` says it in a line."""


def batches(loader: Iterable, bad_images: BadImages | None = None) -> Generator[dict, None, None]:
    """The loader's batches, read by as many of its workers as the machine has room for, and there
    are batches. Raises the DataError of a sample that failed in a worker, and a DataError where a
    worker has died or could not be started. bad_images: told of faults."""
    iterator = None
    say = bad_images.say if bad_images else print
    if asked := getattr(loader, "num_workers", 0):
        loader = copy(loader)
        asked = min(asked, len(loader))  # type: ignore[arg-type]
        loader.num_workers = fit = workers_that_fit(asked, say)  # type: ignore[attr-defined]
        say_crowded(fit, say)
    with killed_on_exit() as mine:
        try:
            with starting(), deferred_signals(*STOP_SIGNALS):
                iterator = iter(loader)
            workers = mine()
            if workers and threading.current_thread() is threading.main_thread():
                # torch's handler would raise in mid-step; it notices here, too, while it waits.
                with contextlib.suppress(AttributeError):  # Windows
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            ids = [worker.pid for worker in workers if worker.pid]
            with watched(ids, say) as waiting:
                while True:
                    try:
                        with waiting():
                            batch = next(iterator)
                    except StopIteration:
                        return
                    except (RuntimeError, OSError, EOFError) as error:
                        for worker in workers:  # as it dies, so its pipes break
                            worker.join(timeout=0.1)
                        ends = {worker.exitcode for worker in workers if worker.exitcode}
                        if not ends and "DataLoader worker (pid" not in str(error):
                            raise
                        raise DataError(_death(ends, str(error))) from None
                    if isinstance(batch, DataError):
                        raise batch
                    if bad_images is not None:
                        bad_images.report(batch["faults"])
                    yield batch
        finally:
            del iterator  # which ends its workers, unless an error's traceback still holds it


def grouped(batches: Iterable[dict], count: int) -> Iterator[list[dict]]:
    """Each `count` batches that follow each other, as a list."""
    iterator = iter(batches)
    while group := list(islice(iterator, count)):
        yield group


def _death(ends: set[int], error: str) -> str:
    killed = sorted(signal.Signals(-code).name for code in ends if code < 0)
    how = f"was killed by {', '.join(killed)}" if killed else f"ended ({error.splitlines()[0]})"
    return (
        f"a process that reads pictures {how}: most often the system does that when memory, or "
        "what a container may take of it, runs out; give more, or type fewer --num-workers or a "
        "smaller --batch-size or --crop-size"
    )


def begin_worker(_number: int, on_gpu: bool = False) -> None:
    """What a DataLoader of these samples calls in each of its workers first. on_gpu: whether the
    program computes there: a GPU waits where the program has no core to launch its work from."""
    ignore_signals(*STOP_SIGNALS)
    if on_gpu:
        step_back()
