"""Several processes that torchrun has not started: refused, with what to type."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import train_base
from training.launchers import another_launcher, under_torchrun

ARGV = ["--batch-size", "8", "--model-name", "two words"]
TYPED = "train_base.py --batch-size 8 --model-name 'two words'"
JOB = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_NNODES": "2"}
STEP = {**JOB, "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2", "SLURM_PROCID": "0"}
TORCHRUN = {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none"}


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str | None]:
    def say(environment: dict[str, str], argv: list[str] = ARGV) -> str | None:
        with monkeypatch.context() as within:
            for name in list(os.environ):
                if name.startswith(("SLURM_", "OMPI_", "PMI_", "MV2_", "MPI_")) or name in TORCHRUN:
                    within.delenv(name)
            for name, value in environment.items():
                within.setenv(name, value)
            within.setattr("sys.argv", ["train_base.py"])
            within.setattr("training.launchers.tool", lambda name, _module: name)
            return another_launcher(argv)

    return say


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, .* torchrun --nproc-per-node 2 "),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, "srun has .* 2 .* --nproc-per-node 2 "),
        ({**JOB, "SLURM_PROCID": "3"}, "srun has started 8 tasks"),
        (STEP, "srun --ntasks-per-node 1 torchrun --nproc-per-node 4 --nnodes 2 .*SLURM_JOB_NODE"),
        ({**STEP, "SLURM_STEP_NUM_NODES": "1"}, ": torchrun --nproc-per-node 8 train"),
        (
            {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"},
            "mpirun has .* torchrun --nproc-per-node 2 --nnodes 2 .*HOST:29500 train_base",
        ),
        ({"PMI_SIZE": "2"}, "mpirun has started 2 .* torchrun --nproc-per-node 2 train_base"),
    ],
)
def test_another_launcher_is_refused_with_torchrun_s_command(
    said: Callable, environment: dict[str, str], words: str
) -> None:
    line = said(environment)
    assert re.search(words, line), line
    assert TYPED in line and "\n" not in line


@pytest.mark.parametrize(
    "added", [["--local-rank=1"], ["--local_rank", "1"], ["--local-rank", "1"]]
)
def test_an_option_that_a_launcher_adds(said: Callable, added: list[str]) -> None:
    line = said({**TORCHRUN, "LOCAL_WORLD_SIZE": "2"}, [*added, *ARGV])
    assert "torch.distributed.launch" in line and "torchrun: " in line
    assert line.endswith(f"torchrun --nproc-per-node 2 {TYPED}")


@pytest.mark.parametrize(
    "environment",
    [
        {},
        TORCHRUN,
        {**TORCHRUN, **STEP},  # srun torchrun
        {**TORCHRUN, "OMPI_COMM_WORLD_SIZE": "2"},  # mpirun torchrun
        {
            **STEP,
            "SLURM_STEP_NUM_TASKS": "1",
            "SLURM_STEP_NUM_NODES": "1",
        },  # srun -n 1 in a job of 8
        {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
        {**JOB, "SLURM_PROCID": "0"},  # the script of sbatch
        JOB,  # salloc
        {"OMPI_COMM_WORLD_SIZE": "1", "PMI_SIZE": "1", "WORLD_SIZE": "1"},
        {"WORLD_SIZE": ""},
    ],
)
def test_one_process_or_torchrun_s_is_none(said: Callable, environment: dict[str, str]) -> None:
    assert said(environment) is None


def test_what_a_launcher_has_left_behind_makes_no_team(
    monkeypatch: pytest.MonkeyPatch, said: Callable
) -> None:
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    for left in ({"LOCAL_RANK": "0"}, {"RANK": "0"}, {"LOCAL_RANK": "0", "WORLD_SIZE": "1"}):
        with monkeypatch.context() as within:
            for name, value in left.items():
                within.setenv(name, value)
            assert not under_torchrun() and said(left) is None
    assert "WORLD_SIZE is 2" in said({"LOCAL_RANK": "0", "WORLD_SIZE": "2"})


def test_it_is_one_line_and_status_2(
    here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PMI_SIZE", "2")
    with pytest.raises(SystemExit) as ended:
        train_base.main(["--dataset-dir", "nowhere"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("train_base.py: error: mpirun has started 2 processes (PMI_SIZE)")
    assert not os.listdir()
    with pytest.raises(SystemExit) as ended:
        train_base.main(["--help"])
    assert ended.value.code == 0
