"""How a worker hands a batch to its program: as one file that has no name and lies in memory.

torch's own way puts each tensor into a file of /dev/shm, of which a container has 64 MB unless it
is given more; where that is full, a worker loses its batch and the program waits for ever. A file
of memfd_create lies in no file system, and one file a batch needs few descriptors.
"""

import io
import mmap
import os
import pickle
import tempfile
from multiprocessing import reduction
from typing import Any, BinaryIO

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from common.errors import DataError
from dataset.workers import cannot

ALIGNED = 64  # bytes: at a multiple of these a tensor begins


def handed_over(batch: dict) -> Any:
    """In a worker of torch's DataLoader: `batch` in a Parcel, which arrives as the batch, or a
    DataError where that cannot be made. In the program itself, and where the system has no such
    files: `batch`."""
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
        skeleton = io.BytesIO()
        packer = _Packer(skeleton)
        packer.dump(content)
        with _unnamed_file() as file:
            for tensor, offset in packer.tensors:
                file.seek(offset)
                file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
            file.truncate(packer.size)
            # Here, not when it is pickled: torch does that in a thread whose errors nobody sees.
            self.file = reduction.DupFd(file.fileno())
        self.skeleton, self.size = skeleton.getvalue(), packer.size

    def __reduce__(self) -> tuple:
        return _unpacked, (self.skeleton, self.size, self.file)


class _Packer(pickle.Pickler):
    """Pickles all but tensors, for which it notes where in the file they belong."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.tensors: list[tuple[Tensor, int]] = []
        self.size = ALIGNED  # a file of no bytes cannot be mapped

    def persistent_id(self, value: Any) -> tuple | None:
        if not isinstance(value, Tensor):
            return None
        offset = self.size
        self.tensors.append((value, offset))
        self.size += -(-value.nbytes // ALIGNED) * ALIGNED
        return value.dtype, tuple(value.shape), offset


class _Unpacker(pickle.Unpickler):
    def __init__(self, skeleton: bytes, memory: mmap.mmap) -> None:
        super().__init__(io.BytesIO(skeleton))
        self.memory = memory

    def persistent_load(self, place: tuple) -> Tensor:
        dtype, shape, offset = place
        count = torch.Size(shape).numel()
        if not count:
            return torch.empty(shape, dtype=dtype)
        return torch.frombuffer(self.memory, dtype=dtype, count=count, offset=offset).view(shape)


def _unpacked(skeleton: bytes, size: int, file: Any) -> Any:
    descriptor = file.detach()
    try:
        memory = mmap.mmap(descriptor, size)  # which lives as long as a tensor in it
    finally:
        os.close(descriptor)
    return _Unpacker(skeleton, memory).load()


def _unnamed_file() -> BinaryIO:
    """In memory; where the system refuses that, in the folder for temporary files."""
    try:
        return open(os.memfd_create("batch"), "w+b")
    except OSError:
        return tempfile.TemporaryFile()
