"""What is said when memory runs out."""

import argparse
import sys

import torch

SIGNS = ("out of memory", "can't allocate memory", "Cannot allocate memory", "ALLOC_FAILED")


class MemoryShortError(RuntimeError):
    """Memory ran out; the message says how much was used, for what, and what to change."""


def memory_short(
    error: BaseException, size: tuple[int, int], options: argparse.Namespace, device: torch.device
) -> MemoryShortError | None:
    """What to raise instead of `error`, which came up with a crop of this size (height, width);
    None where it is about something else."""
    if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and not any(
        sign in str(error) for sign in SIGNS
    ):
        return None
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        peak = torch.cuda.max_memory_allocated(device)
        used = f"the peak was {peak / 1e9:.2f} GB of {total / 1e9:.2f} GB"
        other = ", or --precision fp16 or bf16" if options.precision == "fp32" else ""
    else:
        used, other = f"the peak was {_resident() / 1e9:.2f} GB", ", or fewer --num-workers"
    return MemoryShortError(
        f"{device} is out of memory: {used}, at a crop of {size[0]}x{size[1]} with --batch-size "
        f"{options.batch_size}. Type a smaller --batch-size, or a smaller MAX for --crop-size "
        f"(now {options.crop_size[1]}){other}; the checkpoints are as they were"
    )


def _resident() -> float:
    """The most memory that this process has held, in bytes."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
