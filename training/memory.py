"""What is said where memory runs out in training: how much was in use, for what, what to type."""

import torch

from common.cli import size_said
from common.loading import memory_limit
from common.memory import (
    GPU_LIBRARY_PHRASES,
    OUT_OF_MEMORY_PHRASES,
    MemoryShortError,
    peak_resident,
    ran_out,
)
from training.options import RefineOptions, TrainingOptions
from training.resolve import Settings


def memory_short(
    error: BaseException,
    options: TrainingOptions,
    settings: Settings | None,
    crop: tuple[int, int] | None,
) -> MemoryShortError | None:
    """What to raise instead of `error`; None where it is about something else. settings: None
    before they are known. crop: (height, width) of the batch at hand, if there is one."""
    if not ran_out(error):
        return None
    on_device = isinstance(error, torch.OutOfMemoryError) or any(
        name in str(error) for name in ("CUDA", *GPU_LIBRARY_PHRASES)
    )
    ways = [f"a smaller --batch-size{_more_parts(options, settings)}"]
    ways.append(f"a smaller MAX for --crop-size (now {options.crop_size[1]})")
    if isinstance(options, RefineOptions):
        ways.append(_fewer_patches(options))
    if on_device and settings and settings.device.type == "cuda":
        total = torch.cuda.get_device_properties(settings.device).total_memory
        peak = torch.cuda.max_memory_allocated(settings.device)
        what = f"{settings.device} is out of memory: the peak was {size_said(peak)}"
        what += f" of {size_said(total)}"
        if not any(sign in str(error) for sign in OUT_OF_MEMORY_PHRASES):
            what += f" ({str(error).splitlines()[0]})"
        if settings.precision == "fp32":
            ways.append("--precision fp16 or bf16")
    else:
        what = "this machine is out of memory: this process's peak was "
        what += f"{size_said(peak_resident())}{memory_limit()}"
        if settings and settings.num_workers:
            ways.append("fewer --num-workers")
    where = f" at a crop of {crop[0]}x{crop[1]}" if crop else " before the first batch"
    return MemoryShortError(
        f"{what},{where} with --batch-size {options.batch_size}. "
        f"Type {', or '.join(ways)}; the checkpoints are as they were"
    )


def _more_parts(options: TrainingOptions, settings: Settings | None) -> str:
    """The next --accumulate that the batch can be shared out by, if there is one."""
    processes = settings.processes if settings else 1
    share = options.batch_size // processes
    together = processes if settings and settings.sync_batchnorm else 1
    for parts in range(options.accumulate + 1, share + 1):
        if share % parts == 0 and share // parts * together > 1:  # batch norm needs two samples
            return f", --accumulate {parts} (the same batch in more parts)"
    return ""


def _fewer_patches(options: RefineOptions) -> str:
    if options.model_refine_mode != "sampling":
        return f"--model-refine-mode sampling (now {options.model_refine_mode})"
    return f"fewer --model-refine-sample-pixels (now {options.model_refine_sample_pixels})"
