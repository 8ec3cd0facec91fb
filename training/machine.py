"""What a run computes on: device, precision, the share of each process, and what torch is told.

It decides nothing that changes what is computed, but for the precision.
"""

import argparse
import contextlib
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from common.cli import size_said
from common.errors import OptionError
from training.batch_norm import LEAST
from training.options import default_workers
from training.team import Team

# How the network lies in memory, and how Adam is computed, by type of device. `python -m
# benchmarks.step` compares them: on a CPU channels_last was the fastest with AVX-512, and slower
# than contiguous without; on a GPU it is the layout of tensor cores.
WIDE = torch.backends.cpu.get_cpu_capability() == "AVX512"
LAYOUTS = {
    "cpu": torch.channels_last if WIDE else torch.contiguous_format,
    "cuda": torch.channels_last,
}
ADAM: dict[str, dict[str, Any]] = {"cpu": {"fused": True}, "cuda": {"fused": True}}


def resolve(settings: argparse.Namespace, team: Team) -> tuple[torch.device, int]:
    """Fills in what the command line left open in `settings`, a copy of the options, and sets torch
    up by it. Returns the device and how many images each of this process's backward passes has.
    Raises OptionError."""
    # The best kernels of a convolution are searched at its first use in a shape, and kept: crops
    # have few shapes (dataset.sampler.CROP_GRID). Whether that pays is for a GPU to say.
    torch.backends.cudnn.benchmark = True
    if settings.deterministic:
        make_deterministic()
    device = choose_device(settings.device, team)
    settings.device, settings.processes = str(device), team.size
    settings.precision = choose_precision(settings.precision, device)
    share = share_of_batch(settings, team)
    check_memory(share, settings, device)
    settings.num_workers = choose_workers(settings.num_workers, device, team.local_size)
    if device.type == "cpu":
        keep_memory()
    return device, share


def autocast(device: torch.device, precision: str) -> Callable[[], torch.autocast]:
    """What to enter around a forward pass, anew each time."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return partial(torch.autocast, device.type, dtype=dtype, enabled=precision != "fp32")


def choose_device(name: str, team: Team = Team()) -> torch.device:  # noqa: B008
    """The torch.device that --device asks for, with its index if it is a GPU; of several GPUs, each
    process on a machine takes its own. Raises OptionError where it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and team.local_size > 1:
        if team.local_rank >= torch.cuda.device_count():
            raise OptionError(
                f"process {team.rank} has no GPU of its own: {team.local_size} processes were "
                f"started on a machine with {torch.cuda.device_count()}; start as many as it has "
                "(torchrun --nproc-per-node)"
            )
        name = f"cuda:{team.local_rank}"
    elif name.startswith("cuda:") and team.local_size > 1:
        raise OptionError(f"--device {name} is one GPU for {team.local_size} processes; type cuda")
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


def choose_workers(asked: int | None, device: torch.device, processes: int = 1) -> int:
    """How many processes read pictures for each of so many on the machine that compute with them.
    On a CPU none, unless asked for: they would take the cores that the step computes on, all of
    whose threads wait for each other (docs/performance.md, "The whole run")."""
    if asked is not None:
        return asked
    return 0 if device.type == "cpu" else default_workers(processes)


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


def check_memory(share: int, options: argparse.Namespace, device: torch.device) -> None:
    """Raises OptionError where not even a backward pass's pictures (src, bgr, fgr, pha, float32)
    at the largest crop fit into all the memory there is: a slip of the finger, which would be
    found out only after minutes of reading."""
    needed = share * (3 + 3 + 3 + 1) * 4 * options.crop_size[1] ** 2
    if device.type == "cuda" and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(device).total_memory
    elif "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:  # Windows
        return
    if needed > total:
        raise OptionError(
            f"--batch-size {options.batch_size} with --crop-size up to {options.crop_size[1]} "
            f"takes {size_said(needed)} for the pictures alone, and {device} has "
            f"{size_said(total)}; type smaller ones"
        )


def share_of_batch(settings: argparse.Namespace, team: Team) -> int:
    """How many images each of this process's backward passes has. Fills in whether batch norm
    is over all processes, where the command line left that open. Raises OptionError where the batch
    cannot be shared out."""
    parts = team.size * settings.accumulate
    share, rest = divmod(settings.batch_size, parts)
    if rest or not share:
        near = max(1, round(settings.batch_size / parts)) * parts
        raise OptionError(
            f"--batch-size {settings.batch_size} cannot be shared out equally: {team.size} "
            f"process(es) with --accumulate {settings.accumulate} make {parts} parts; type "
            f"--batch-size {near}"
        )
    if settings.sync_batchnorm is None:
        settings.sync_batchnorm = settings.batch_size // team.size < LEAST
    settings.sync_batchnorm = settings.sync_batchnorm and team.size > 1
    if share * (team.size if settings.sync_batchnorm else 1) == 1:
        raise OptionError(
            f"--batch-size {settings.batch_size} cannot train: batch norm needs at least two "
            f"samples, and sees one; type --batch-size {2 * parts} or more, with a smaller "
            "--crop-size if memory is short"
        )
    return share
