"""What is said when memory runs out."""

import argparse
import sys

import torch

SIGNS = ("out of memory", "can't allocate memory", "Cannot allocate memory", "ALLOC_FAILED")


class MemoryShortError(RuntimeError):
    """Memory ran out; the message says how much was used, for what, and what to change."""


def memory_short(error: BaseException, options: argparse.Namespace) -> MemoryShortError | None:
    """What to raise instead of `error`; None where it is about something else. error.crop: (height,
    width) of the batch at hand, if there was one."""
    on_device = isinstance(error, torch.OutOfMemoryError) or "CUDA" in str(error)
    if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and not any(
        sign in str(error) for sign in SIGNS
    ):
        return None
    if on_device and options.device.startswith("cuda"):
        total = torch.cuda.get_device_properties(options.device).total_memory
        peak = torch.cuda.max_memory_allocated(options.device)
        what = f"{options.device} is out of memory: the peak was {peak / 1e9:.2f} GB"
        what += f" of {total / 1e9:.2f} GB"
        other = ", or --precision fp16 or bf16" if options.precision == "fp32" else ""
    else:
        what = f"this machine is out of memory: this process's peak was {_resident() / 1e9:.2f} GB"
        other = ", or fewer --num-workers" if options.num_workers else ""
    crop = getattr(error, "crop", None)
    where = f" at a crop of {crop[0]}x{crop[1]}" if crop else " before the first batch"
    return MemoryShortError(
        f"{what},{where} with --batch-size {options.batch_size}. "
        f"Type a smaller --batch-size, or a smaller MAX for --crop-size (now "
        f"{options.crop_size[1]}){other}; the checkpoints are as they were"
    )


def _resident() -> float:
    """The most memory that this process has held, in bytes."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
