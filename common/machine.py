"""What a script computes on: device, precision, layout in memory, and what torch is told.

It decides nothing that changes what is computed, but for the precision.
"""

import contextlib
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from common.errors import OptionError

# How the network lies in memory, and how Adam is computed, by type of device. `python -m
# benchmarks.step` compares them: on a CPU channels_last was the fastest with AVX-512, and slower
# than contiguous without; on a GPU it is the layout of tensor cores.
HAS_AVX512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
LAYOUTS = {
    "cpu": torch.channels_last if HAS_AVX512 else torch.contiguous_format,
    "cuda": torch.channels_last,
}
ADAM_ARGUMENTS: dict[str, dict[str, Any]] = {"cpu": {"fused": True}, "cuda": {"fused": True}}


def autocast(device: torch.device, precision: str) -> Callable[[], torch.autocast]:
    """What to enter around a forward pass, anew each time."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return partial(torch.autocast, device.type, dtype=dtype, enabled=precision != "fp32")


def choose_device(name: str) -> torch.device:
    """The torch.device that --device asks for, with its index if it is a GPU. Raises OptionError
    where it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("neither cpu nor cuda")
        device = torch.empty(0, device=device).device  # which has its index, where "cuda" has none
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        count = torch.cuda.device_count()
        gpus = {0: "", 1: "cuda:0 or "}.get(count, f"cuda:0 to cuda:{count - 1}, or ")
        raise OptionError(
            f"--device {name} cannot be used here ({reason}); try {gpus}cpu"
        ) from None
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def choose_precision(precision: str | None, device: torch.device) -> str:
    if precision is None:
        return "fp16" if device.type == "cuda" else "fp32"
    if precision == "fp16" and device.type != "cuda":
        raise OptionError(f"--precision fp16 needs CUDA, not {device}; type bf16 or fp32")
    return precision


def make_deterministic() -> None:
    """Only algorithms that give the same bits each time; some are slower. Before the first use of
    CUDA. What has none raises an error."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # All that is read here is written before; to fill it first is a third of a GPU's operations.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False  # which would choose by the clock


def keep_memory() -> None:
    """Has glibc keep freed memory instead of giving it back: a step takes and frees gigabytes, and
    the system would clear each page anew. Other C libraries are left alone. Has torch ask for large
    pages, which it looks up with its first allocation: this comes before any."""
    import ctypes

    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    trim_threshold, mmap_max = -1, -4  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_MAX
    with contextlib.suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        if hasattr(libc, "gnu_get_libc_version"):
            libc.mallopt(mmap_max, 0)
            libc.mallopt(trim_threshold, 2**31 - 1)
