"""The samples of a batch one by one, each in a thread of its own, as a processor likes them."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch
from torch import Tensor

PICTURES = ("fgr", "pha", "bgr")


def areas(batch: dict, name: str) -> list[int]:
    """The pixels of each picture in one of PICTURES' blocks."""
    return batch[f"{name}_size"].prod(1).tolist()


def one_by_one(batch: dict) -> Iterator[dict]:
    """The samples of a batch, each as a batch of its own, of the same memory."""
    names = [name for name, value in batch.items() if isinstance(value, Tensor)]
    count = len(batch["numbers"])
    rows = {
        name: batch[name].split(areas(batch, name) if name in PICTURES else 1) for name in names
    }
    for number in range(count):
        yield {"size": batch["size"], **{name: rows[name][number] for name in names}}


def in_threads(work: Callable, *arguments: Iterable) -> None:
    """Calls work once for each of the arguments, in as many threads as torch computes with, each of
    which computes with one: all cores are busy without waiting for each other at every operation.
    Raises what the first failed call raises."""
    count, inference = torch.get_num_threads(), torch.is_inference_mode_enabled()

    def call(*of: object) -> None:
        with torch.inference_mode(inference):  # which a thread does not inherit
            work(*of)

    for _ in map(work, *arguments) if count == 1 else pool(count).map(call, *arguments):
        pass


@lru_cache
def pool(count: int) -> ThreadPoolExecutor:
    # torch's number of threads is that of the thread which sets it.
    return ThreadPoolExecutor(count, "one-by-one", initializer=torch.set_num_threads, initargs=(1,))
