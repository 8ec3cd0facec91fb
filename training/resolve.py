"""What the machine and the processes make of the options that the command line left open."""

import os
from dataclasses import dataclass

import torch

from common.cli import size_said
from common.errors import OptionError
from common.machine import choose_device, choose_precision, keep_memory, make_deterministic
from training.batch_norm import MIN_IMAGES_PER_PROCESS
from training.option_groups import default_workers
from training.options import TrainingOptions
from training.team import Team


@dataclass(frozen=True)
class Settings:
    """What a run computes with, in one of its processes. micro_batch_size: images of one backward
    pass. sync_batchnorm: whether batch norm is over the images of all processes."""

    device: torch.device
    precision: str
    num_workers: int
    processes: int
    sync_batchnorm: bool
    micro_batch_size: int


def resolve_options(options: TrainingOptions, team: Team) -> Settings:
    """What `options` mean on this machine, in a process of `team`; sets torch up by it. Raises
    OptionError."""
    # The best kernels of a convolution are searched at its first use in a shape, and kept: crops
    # have few shapes (dataset.sampler.CROP_GRID). Whether that pays is for a GPU to say.
    torch.backends.cudnn.benchmark = True
    if options.deterministic:
        make_deterministic()
    device = own_device(options.device, team)
    settings = Settings(
        device=device,
        precision=choose_precision(options.precision, device),
        num_workers=choose_workers(options.num_workers, device, team.local_size),
        processes=team.size,
        sync_batchnorm=choose_sync_batchnorm(options, team),
        micro_batch_size=share_of_batch(options, team),
    )
    check_memory(settings.micro_batch_size, options, device)
    if device.type == "cpu":
        keep_memory()
    return settings


def own_device(name: str, team: Team) -> torch.device:
    """Chooses a device as choose_device does. Where there are several GPUs, each process on a
    machine takes its own. Raises OptionError where there is none for it."""
    if name == "auto" and torch.cuda.is_available():
        name = "cuda"
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
    return choose_device(name)


def choose_workers(asked: int | None, device: torch.device, processes: int = 1) -> int:
    """How many processes read pictures for each of so many on the machine that compute with them.
    On a CPU none, unless asked for: they would take the cores that the step computes on, all of
    whose threads wait for each other (docs/log.md, 2026-11-26)."""
    if asked is not None:
        return asked
    return 0 if device.type == "cpu" else default_workers(processes)


def check_memory(share: int, options: TrainingOptions, device: torch.device) -> None:
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


def choose_sync_batchnorm(options: TrainingOptions, team: Team) -> bool:
    """Whether batch norm is over all processes: as asked for, else where each has few images."""
    asked = options.sync_batchnorm
    if asked is None:
        asked = options.batch_size // team.size < MIN_IMAGES_PER_PROCESS
    return asked and team.size > 1


def share_of_batch(options: TrainingOptions, team: Team) -> int:
    """How many images each of this process's backward passes has. Raises OptionError where the
    batch cannot be shared out."""
    parts = team.size * options.accumulate
    share, rest = divmod(options.batch_size, parts)
    if rest or not share:
        near = max(1, round(options.batch_size / parts)) * parts
        raise OptionError(
            f"--batch-size {options.batch_size} cannot be shared out equally: {team.size} "
            f"process(es) with --accumulate {options.accumulate} make {parts} parts; type "
            f"--batch-size {near}"
        )
    if share * (team.size if choose_sync_batchnorm(options, team) else 1) == 1:
        raise OptionError(
            f"--batch-size {options.batch_size} cannot train: batch norm needs at least two "
            f"samples, and sees one; type --batch-size {2 * parts} or more, with a smaller "
            "--crop-size if memory is short"
        )
    return share
