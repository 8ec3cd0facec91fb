"""Which samples meet at which step: a pure function of the seed and the step's number.

Nothing of the order is remembered, so a run continues at any step, and workers and processes
change nothing. It never reads a picture.
"""

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Sampler

# Crop sides are MIN plus a multiple of this many pixels. A new shape costs a GPU a search for the
# kernels of each convolution, so there are to be few: 5 sides of 256 .. 512 make 25.
CROP_GRID = 64
SMALL_GRID = 32  # where the other would leave one or two sides


class SampleKey(NamedTuple):
    """All that a sample is computed from, beside the seed and the files."""

    epoch: int
    index: int  # type: ignore[assignment]  # of the foreground
    draw: int  # which of the epoch's draws of this foreground: 0, or 1 where it fills a last batch
    size: tuple[int, int]  # height, width of the crop


def seed_of(*parts: int | str) -> int:
    """A seed of 63 bits for these parts; near parts give unrelated seeds."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Steps in which each of `count` foregrounds is seen once; the last batch is filled up."""
    return -(-count // batch_size)


def batch_of_step(
    step: int, *, count: int, batch_size: int, seed: int, crop_size: tuple[int, int]
) -> list[SampleKey]:
    """The samples of the batch that becomes update number `step`, counted from 0.

    count: foregrounds. crop_size: smallest and largest side in pixels. Every epoch shuffles anew;
    the last batch of an epoch is filled up from a second shuffle, so that every batch is full.
    """
    epoch, position = divmod(step, steps_per_epoch(count, batch_size))
    size = crop_of_step(step, seed, crop_size)
    keys = []
    for number in range(position * batch_size, (position + 1) * batch_size):
        draw, place = divmod(number, count)
        keys.append(SampleKey(epoch, int(_shuffle(seed, epoch, draw, count)[place]), draw, size))
    return keys


def crop_grid(crop_size: Sequence[int]) -> int:
    """How many pixels the sides of crops from MIN to MAX are apart."""
    low, high = crop_size
    return CROP_GRID if high - low >= 2 * CROP_GRID else SMALL_GRID


def crop_of_step(step: int, seed: int, crop_size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a step's crop, each drawn from MIN, MIN + crop_grid, ... up to MAX."""
    (low, high), grid = crop_size, crop_grid(crop_size)
    rng = np.random.default_rng(seed_of(seed, "crop", step))
    height, width = low + grid * rng.integers(0, (high - low) // grid + 1, size=2)
    return int(height), int(width)


@lru_cache(maxsize=4)
def _shuffle(seed: int, epoch: int, draw: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed_of(seed, "order", epoch, draw)).permutation(count)


def places_of(part: int, parts: int, batch_size: int) -> range:
    """Returns where in the global batch the samples of part number `part` are, of `parts` equal
    ones. Process r of P that splits its share into N takes parts r*N .. r*N + N - 1 of P*N."""
    share = batch_size // parts
    return range(part * share, (part + 1) * share)


class BatchSampler(Sampler[list[SampleKey]]):
    """One process's parts of the batches from `first_step` up to, not including, `last_step`, for a
    DataLoader: parts of step 0, parts of step 1, ... as one stretch over all epochs, so that
    workers do not stop where an epoch ends.

    parts: which of `of_parts` equal parts of every global batch are this process's. order: the
    arguments of batch_of_step.
    """

    def __init__(
        self,
        first_step: int,
        last_step: int,
        parts: range = range(1),
        of_parts: int = 1,
        **order: Any,
    ) -> None:
        self.steps = range(first_step, last_step)
        self.parts, self.of_parts = parts, of_parts
        self.order = order

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for step in self.steps:
            keys = batch_of_step(step, **self.order)
            for part in self.parts:
                yield [keys[place] for place in places_of(part, self.of_parts, len(keys))]

    def __len__(self) -> int:
        return len(self.steps) * len(self.parts)
