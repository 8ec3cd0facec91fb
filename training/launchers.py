"""Several processes that something else than torchrun has started: what to type in its place.

Each would take itself for the only one, and train over the others' files. Imports nothing heavy.
"""

import os
import sys

from common.cli import quoted, tool

RANK_OPTIONS = ("--local-rank", "--local_rank")  # that a launcher adds to the command line
# Of an MPI: how many processes there are, and how many of them on this machine.
MPI_VARIABLES = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"),  # Open MPI
    ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE"),  # MVAPICH
    ("PMI_SIZE", "MPI_LOCALNRANKS"),  # MPICH, Intel MPI
)
SLURM_RENDEZVOUS = '"$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):29500"'


def under_torchrun() -> bool:
    """Whether this process is one of a team: by all that tells it its place. A shell or a notebook
    that some launcher was used in may keep LOCAL_RANK alone."""
    place = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    return "TORCHELASTIC_RUN_ID" in os.environ or all(name in os.environ for name in place)


def another_launcher(argv: list[str]) -> str | None:
    """What to say where `argv` was started as one of several processes, but not by torchrun; else
    None. A single task of srun, and torchrun within srun or mpirun, are none of that."""
    added = [word for word in argv if word.split("=")[0] in RANK_OPTIONS]
    if added:
        kept, skip = [], False
        for word in argv:
            if not skip and word not in added:
                kept.append(word)
            skip = word in RANK_OPTIONS  # its number is the next word
        here = _count("LOCAL_WORLD_SIZE") or _count("WORLD_SIZE") or 1
        machines = _count("GROUP_WORLD_SIZE") or 1
        return (
            f"{added[0].split('=')[0]} comes from torch.distributed.launch, or a launcher like it; "
            f"start the run with torchrun: {_torchrun(kept, here, machines)}"
        )
    if under_torchrun():
        return None
    if found := _srun():
        size, machines = found
        meeting = f"c10d --rdzv-endpoint {SLURM_RENDEZVOUS}"
        line = _torchrun(argv, -(-size // machines), machines, meeting)
        if machines > 1:
            line = f"srun --ntasks-per-node 1 {line}"
        return (
            f"srun has started {size} tasks, each of which would train by itself; start one a "
            f"machine, and the processes with torchrun: {line}"
        )
    for name, local in MPI_VARIABLES:
        if (size := _count(name) or 1) > 1:
            here = _count(local) or size
            return (
                f"mpirun has started {size} processes ({name}), each of which would train by "
                "itself; start the run with torchrun in its place: "
                f"{_torchrun(argv, here, -(-size // here))}"
            )
    if (size := _count("WORLD_SIZE") or 1) > 1:
        return (
            f"WORLD_SIZE is {size}, but torchrun has not started this process; start the run with "
            f"torchrun: {_torchrun(argv, size)} (or unset WORLD_SIZE)"
        )
    return None


def _srun() -> tuple[int, int] | None:
    """How many tasks, on how many machines, where this is one of several of a step of srun."""
    size, machines = _count("SLURM_STEP_NUM_TASKS"), _count("SLURM_STEP_NUM_NODES")
    number = _count("SLURM_PROCID")
    # The script of a job has SLURM_NTASKS and the task number 0, too, but it runs once.
    if size is None and (number or (number == 0 and "SLURM_JOB_ID" not in os.environ)):
        size = _count("SLURM_NTASKS")
    machines = machines or _count("SLURM_NNODES") or 1
    return (size, machines) if size and size > 1 else None


def _torchrun(
    argv: list[str], here: int, machines: int = 1, meeting: str = "c10d --rdzv-endpoint HOST:29500"
) -> str:
    words = f"{tool('torchrun', 'torch.distributed.run')} --nproc-per-node {here}"
    if machines > 1:
        words += f" --nnodes {machines} --rdzv-backend {meeting}"
    return f"{words} {quoted([sys.argv[0], *argv])}"


def _count(name: str) -> int | None:
    """A number of the environment; None where there is none."""
    try:
        return int(os.environ[name])
    except (KeyError, ValueError):
        return None
