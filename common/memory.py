"""What is said when memory runs out."""

import argparse
import sys

import torch

from common.cli import size_said
from common.errors import UserError
from common.loading import memory_limit

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


def memory_short(
    error: BaseException, options: argparse.Namespace, crop: tuple[int, int] | None
) -> MemoryShortError | None:
    """What to raise instead of `error`; None where it is about something else. crop: (height,
    width) of the batch at hand, if there is one."""
    if not ran_out(error):
        return None
    on_device = isinstance(error, torch.OutOfMemoryError) or any(
        name in str(error) for name in ("CUDA", *GPU_LIBRARY_PHRASES)
    )
    if on_device and options.device.startswith("cuda"):
        total = torch.cuda.get_device_properties(options.device).total_memory
        peak = torch.cuda.max_memory_allocated(options.device)
        what = f"{options.device} is out of memory: the peak was {size_said(peak)}"
        what += f" of {size_said(total)}"
        if not any(sign in str(error) for sign in OUT_OF_MEMORY_PHRASES):
            what += f" ({str(error).splitlines()[0]})"
        other = ", or --precision fp16 or bf16" if options.precision == "fp32" else ""
    else:
        what = f"this machine is out of memory: this process's peak was {size_said(_resident())}"
        what += memory_limit()
        other = ", or fewer --num-workers" if options.num_workers else ""
    where = f" at a crop of {crop[0]}x{crop[1]}" if crop else " before the first batch"
    return MemoryShortError(
        f"{what},{where} with --batch-size {options.batch_size}. "
        f"Type a smaller --batch-size,{_more_parts(options)} or a smaller MAX for --crop-size (now "
        f"{options.crop_size[1]}){other}; the checkpoints are as they were"
    )


def _more_parts(options: argparse.Namespace) -> str:
    """The next --accumulate that the batch can be shared out by, if there is one."""
    share = options.batch_size // options.processes
    together = options.processes if options.sync_batchnorm else 1
    for parts in range(options.accumulate + 1, share + 1):
        if share % parts == 0 and share // parts * together > 1:  # batch norm needs two samples
            return f" --accumulate {parts} (the same batch in more parts),"
    return ""


def _resident() -> float:
    """The most memory that this process has held, in bytes."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
