"""How a worker hands a batch to its program: as one file that has no name and lies in memory.

torch's own way puts each tensor into a file of /dev/shm, of which a container has 64 MB unless it
is given more; where that is full, a worker loses its batch and the program waits for ever. A file
of memfd_create lies in no file system, and one file a batch needs few descriptors.
"""

import mmap
import os
import tempfile
from collections.abc import Callable
from multiprocessing import reduction
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from common.errors import DataError
from dataset.workers import cannot

TENSOR_ALIGNMENT = 64  # bytes: at a multiple of these a tensor begins


def handed_over(batch: dict) -> Any:
    """Returns what a loader is to hand over. In a worker of torch's DataLoader that is `batch` in a
    Parcel, which arrives as the batch, or a DataError where that cannot be made. In the program
    itself, and where the system has no such files, it is `batch`."""
    if get_worker_info() is None or not hasattr(os, "memfd_create"):
        return batch
    try:
        return Parcel(batch)
    except OSError as error:
        return DataError(f"a batch cannot be handed over: {cannot(error)}")


class Parcel:
    """A nest of dicts and lists, with its tensors in a file of memory. Unpickled, in another
    process, it is the nest itself, whose tensors lie in that memory. Raises OSError."""

    def __init__(self, content: Any) -> None:
        self.size = TENSOR_ALIGNMENT  # a file of no bytes cannot be mapped
        with _unnamed_file() as file:

            def put(tensor: Tensor) -> _Place:
                place = _Place(tensor.dtype, tuple(tensor.shape), self.size)
                file.seek(place.offset)
                file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
                self.size += -(-tensor.nbytes // TENSOR_ALIGNMENT) * TENSOR_ALIGNMENT
                return place

            self.skeleton = _replaced(content, Tensor, put)
            file.truncate(self.size)
            # Here, not when it is pickled: torch does that in a thread whose errors nobody sees.
            self.file = reduction.DupFd(file.fileno())

    def __reduce__(self) -> tuple:
        return _unpacked, (self.skeleton, self.size, self.file)


class _Place(NamedTuple):
    """Where in the file a tensor lies, in place of the tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int


def _replaced(value: Any, kind: type, by: Callable[[Any], object]) -> Any:
    """The same nest of dicts and lists, with each object of `kind` replaced."""
    if isinstance(value, kind):
        return by(value)
    if isinstance(value, dict):
        return {name: _replaced(each, kind, by) for name, each in value.items()}
    if isinstance(value, list):
        return [_replaced(each, kind, by) for each in value]
    return value


def _unpacked(skeleton: Any, size: int, file: Any) -> Any:
    descriptor = file.detach()
    try:
        memory = mmap.mmap(descriptor, size)  # which lives as long as a tensor in it
    finally:
        os.close(descriptor)

    def get(place: _Place) -> Tensor:
        count = torch.Size(place.shape).numel()
        if not count:
            return torch.empty(place.shape, dtype=place.dtype)
        flat = torch.frombuffer(memory, dtype=place.dtype, count=count, offset=place.offset)
        return flat.view(place.shape)

    return _replaced(skeleton, _Place, get)


def _unnamed_file() -> BinaryIO:
    """In memory; where the system refuses that, in the folder for temporary files."""
    try:
        return open(os.memfd_create("batch"), "w+b")
    except OSError:
        return tempfile.TemporaryFile()
