"""Applies a step to some samples of a batch alone. The host knows which they are, so that nothing
waits for the device."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Rows(NamedTuple):
    """Numbers of samples in a batch: (K,) int64, the same on the host and on the device."""

    host: Tensor
    device: Tensor


def each_step(counts: dict[str, int], host: Tensor, device: Tensor) -> dict[str, Rows]:
    """The rows of each step, by name, of all behind each other on the host and on the device."""
    parts = (each.split(list(counts.values())) for each in (host, device))
    return dict(zip(counts, map(Rows, *parts), strict=True))


def only_where(rows: Rows, step: Callable, pictures: Tensor, *arguments: Tensor) -> Tensor:
    """step(pictures, *arguments) for these samples; the others stay as they are, and cost
    nothing."""
    if len(rows.host) == len(pictures):
        return step(pictures, *arguments)
    if not len(rows.host):
        return pictures
    # An argument stays on its own device: seeds are the host's.
    picked = [
        value[rows.host if value.device.type == "cpu" else rows.device] for value in arguments
    ]
    return pictures.index_copy(0, rows.device, step(pictures[rows.device], *picked))
