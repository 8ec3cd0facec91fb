"""Splits a batch into its samples, and works on each in a thread of its own: best for a processor.

Without workers, samples are read and decoded so; without a GPU they are augmented so, too.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

PICTURE_NAMES = ("fgr", "pha", "bgr")


def pixel_counts(batch: dict, name: str) -> list[int]:
    """The pixels of each picture in one of PICTURE_NAMES' blocks."""
    return batch[f"{name}_size"].prod(1).tolist()


def split_batch(batch: dict) -> Iterator[dict]:
    """The samples of a batch, each as a batch of one that shares its memory. Leaves out "chosen",
    which names samples by their rows in the whole batch."""
    names = [name for name, value in batch.items() if isinstance(value, Tensor)]
    names = [name for name in names if name != "chosen"]
    count = len(batch["numbers"])
    rows = {
        name: batch[name].split(pixel_counts(batch, name) if name in PICTURE_NAMES else 1)
        for name in names
    }
    for number in range(count):
        yield {"size": batch["size"], **{name: rows[name][number] for name in names}}


def map_in_threads(work: Callable, items: Sequence[tuple]) -> list:
    """What work(*item) returns for each item. There are as many threads as torch computes with here
    (in a loader's worker: one). Each computes with one core, or with more where there are fewer
    items, so that cores need not wait for each other at every operation. Raises what the first
    failed call raises."""
    cores, inference = torch.get_num_threads(), torch.is_inference_mode_enabled()
    threads = max(1, min(cores, len(items)))

    def call(item: tuple) -> Any:
        with torch.inference_mode(inference):  # which a thread does not inherit
            return work(*item)

    if threads == 1:
        return list(map(call, items))
    return list(pool(threads, cores // threads).map(call, items))


@lru_cache
def pool(threads: int, each: int) -> ThreadPoolExecutor:
    # set_num_threads sets the number for the thread that calls it, and for threads that first
    # compute later. So each thread of the pool sets its own, and the caller's stays.
    def start() -> None:
        torch.set_num_threads(each)
        torch.get_num_threads()  # settles it, whatever others set before this thread computes

    return ThreadPoolExecutor(threads, "samples", initializer=start)


if hasattr(os, "register_at_fork"):  # a fork has the pools, but not their threads
    os.register_at_fork(after_in_child=pool.cache_clear)
