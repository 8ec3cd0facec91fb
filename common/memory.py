"""Whether memory ran out, and how much of it was in use."""

import sys

import torch

from common.errors import UserError

OUT_OF_MEMORY_PHRASES = (
    "out of memory",
    "can't allocate memory",
    "Cannot allocate memory",
    "ALLOC_FAILED",
    "ALLOCATION_FAILED",
    "could not create a primitive",  # oneDNN's, where an operation finds no room
)
# What cuDNN and cuBLAS say where they find no room to work in; and where something else is wrong.
GPU_LIBRARY_PHRASES = ("unable to find an engine", "cuDNN", "CUDNN_STATUS", "CUBLAS_STATUS")
FULL_GPU_SHARE = 0.9  # of its memory: above it, GPU_LIBRARY_PHRASES are put down to memory


class MemoryShortError(UserError, RuntimeError):
    """Memory ran out; the message says how much was used, for what, and what to change."""


def ran_out(error: BaseException) -> bool:
    """Whether `error` is that memory ran out: the machine's, or the current GPU's."""
    said = str(error)
    return (
        isinstance(error, (MemoryError, torch.OutOfMemoryError))
        or any(sign in said for sign in OUT_OF_MEMORY_PHRASES)
        or (any(sign in said for sign in GPU_LIBRARY_PHRASES) and _nearly_full())
    )


def _nearly_full() -> bool:
    """Whether the current GPU was full but for little when torch had most of its memory in use."""
    if not torch.cuda.is_initialized():
        return False
    try:
        free, total = torch.cuda.mem_get_info()
    except RuntimeError:  # it is the device that has failed
        return False
    room = free + torch.cuda.memory_reserved() - torch.cuda.max_memory_allocated()
    return room < (1 - FULL_GPU_SHARE) * total


def peak_resident() -> float:
    """The most memory that this process has held, in bytes."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
