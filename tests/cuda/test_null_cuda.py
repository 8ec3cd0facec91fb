"""Scripts on a null GPU: what the host does for CUDA, on any machine. Numbers mean nothing here."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.null_gpu import needs_null_gpu, run_code, run_script
from tests.support import ROOT

pytestmark = needs_null_gpu


def train(data: Path, folder: Path, *arguments: object, devices: int = 1, status: int = 0, **named):
    argv = ["train_base.py", "--dataset-dir", data, "--model-name", "run", "--max-steps", 2]
    argv += ["--model-backbone", "mobilenetv2", "--crop-size", 64, 64, "--batch-size", 4]
    argv += ["--num-workers", 0, *arguments]
    done = run_script(argv, folder, devices=devices, **named)
    assert done.returncode == status, done.stdout + done.stderr
    return done


@pytest.mark.parametrize(
    ("asked", "device"), [("auto", "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1")]
)
def test_each_way_to_ask_for_a_gpu_trains_on_it(
    data: Path, tmp_path: Path, asked: str, device: str
) -> None:
    done = train(data, tmp_path, "--device", asked, devices=2)
    assert done.stdout.startswith(f"run: mobilenetv2, fp16 on {device}\n")
    assert list((tmp_path / "checkpoint/run").glob("epoch-*.state.pth"))


def test_a_gpu_that_is_not_there_is_refused_in_a_line(data: Path, tmp_path: Path) -> None:
    done = train(data, tmp_path, "--device", "cuda:7", devices=2, status=2)
    assert done.stderr == (
        "train_base.py: error: --device cuda:7 cannot be used here (CUDA error: invalid device "
        "ordinal); try cuda:0 to cuda:1, or cpu\n"
    )


def test_by_hand_the_words_behind_the_script_are_the_script_s() -> None:
    def by_hand(*words: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "tests.null_gpu", *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    asked = by_hand("--devices", "2", "-m", "platform", "--devices")
    assert asked.returncode == 0 and asked.stdout, asked.stderr
    assert "--model-backbone" in by_hand("train_base.py", "--help").stdout
    nothing = by_hand("--devices", "2")
    assert nothing.returncode == 2 and "name a script" in nothing.stderr


# ---- Memory that is short, and several processes ------------------------------------------------


@pytest.mark.parametrize(
    ("memory", "where"), [(20e6, "before the first batch"), (150e6, "at a crop of 128x128")]
)
def test_memory_that_is_short_is_told_in_a_line(
    data: Path, tmp_path: Path, memory: float, where: str
) -> None:
    words = ["--device", "cuda", "--batch-size", 8, "--crop-size", 128, 128]
    done = train(data, tmp_path, *words, memory=memory, status=2)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("[W")]  # torch's own
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("train_base.py: error: cuda:0 is out of memory: the peak was ")
    assert f"{where} with --batch-size 8. Type a smaller" in lines[0]


@pytest.mark.parametrize("precision", ["fp16", pytest.param("fp32", marks=pytest.mark.slow)])
def test_two_processes_train_on_two_gpus(data: Path, tmp_path: Path, precision: str) -> None:
    """As torchrun starts them: gloo for the host's words, NCCL for tensors, SyncBatchNorm."""
    words = ["--device", "cuda", "--precision", precision, "--accumulate", 2, "--batch-size", 8]
    done = train(data, tmp_path, *words, devices=2, processes=2)
    assert done.stdout.startswith(f"run: mobilenetv2, {precision} on cuda:0, 2 processes\n")
    assert "Warning" not in done.stderr, done.stderr
    assert list((tmp_path / "checkpoint/run").glob("epoch-*.state.pth"))


def test_each_process_takes_a_gpu_of_its_own() -> None:
    source = """
import json, torch
from training.team import Team
from training.resolve import own_device

device = own_device("cuda", Team(rank=3, size=4, local_rank=1, local_size=2))
print(json.dumps({"chosen": str(device), "current": torch.cuda.current_device()}))
"""
    assert run_code(source, devices=2) == {"chosen": "cuda:1", "current": 1}


def test_more_processes_than_gpus_are_refused_in_a_line(data: Path, tmp_path: Path) -> None:
    done = train(data, tmp_path, "--device", "cuda", devices=1, processes=2, status=2)
    assert "error: process 1 has no GPU of its own: 2 processes were started on" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_torchrun_itself(data: Path, tmp_path: Path, processes: int) -> None:
    argv = ["-m", "torch.distributed.run", "--nproc-per-node", processes, ROOT / "train_base.py"]
    argv += ["--dataset-dir", data, "--model-name", "run", "--max-steps", 2, "--batch-size", 4]
    argv += ["--model-backbone", "mobilenetv2", "--crop-size", 64, 64, "--num-workers", 0]
    done = run_script([*argv, "--device", "cuda"], tmp_path, devices=2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((tmp_path / "checkpoint/run").glob("epoch-*.state.pth"))


# ---- The null GPU itself ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "which",
    ["augmenting or bf16", pytest.param("not (augmenting or bf16)", marks=pytest.mark.slow)],
)
def test_what_needs_no_numbers_of_test_cuda(tmp_path: Path, which: str) -> None:
    argv = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--override-ini", "addopts="]
    argv += ["--basetemp", tmp_path / "tests", "-m", "cuda and not numbers", "-k", which]
    done = run_script([*argv, "tests/cuda/test_cuda.py"], ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout and "skipped" not in done.stdout


def test_what_is_done_is_counted(tmp_path: Path) -> None:
    counted = run_code(
        """
import json, torch
from tests.null_cuda import counts
torch.ones(3, device="cuda")
pinned, pageable = torch.zeros(3).pin_memory(), torch.zeros(3)
before = counts.snap()
pinned.to("cuda", non_blocking=True)
on = pageable.to("cuda")
(on + 1)[0].item()
print(json.dumps(counts.diff(before, counts.snap())))
""",
        tmp_path,
    )
    assert (counted["copies_h2d"], counted["pageable_h2d"], counted["copies_d2h"]) == (2, 1, 1)
    assert (counted["launches"], counted["stream_syncs"]) == (1, 2)
