"""Several processes train as one: the same samples, gradients, validation; and all end together."""

import copy
import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from tests.support import ROOT
from tests.support.drawn import make_data
from tests.support.running import AUTO, for_both, words_of
from training import checkpoint
from training.batch_norm import GlobalBatchNorm2d, GlobalPatchNorm
from training.checkpoint_folder import CheckpointFolder

SUPPORT = ROOT / "tests/support"
EVERY_STEP = ["--log-train-loss-interval", "1"]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("many"), train=12, valid=5)


def launch(
    folder: Path,
    data: Path,
    processes: int,
    *words: object,
    fault: str = "",
    script: str = "train_base",
    **launching: object,
) -> subprocess.Popen:
    """Starts torchrun in `folder`. launching: options of torchrun."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    for name, value in launching.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    command += [str(SUPPORT / "launched.py"), *words_of(script, data), *EVERY_STEP]
    return subprocess.Popen(
        [*command, *map(str, words)],
        cwd=folder,
        env={**os.environ, "SCRIPT": script, "FAULT": fault, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end_of(process: subprocess.Popen, limit: float = 150) -> str:
    try:
        told, _ = process.communicate(timeout=limit)
    finally:
        process.kill()  # its processes end with it, as is tested below
    return told


def single(folder: Path, data: Path, *words: object, script: str = "train_base") -> str:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, str(ROOT / f"{script}.py"), *words_of(script, data)]
    done = subprocess.run(
        [*command, *EVERY_STEP, *map(str, words)],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def newest(folder: Path) -> checkpoint.Checkpoint:
    return CheckpointFolder(folder / "checkpoint/run").newest_intact(set_aside=False)


def assert_equal(one: checkpoint.Checkpoint, other: checkpoint.Checkpoint) -> None:
    assert one.state["step"] == other.state["step"]
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)
    for number, moments in one.state["optimizer"]["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, other.state["optimizer"]["state"][number][name])


def results(folder: Path) -> list[dict[str, str]]:
    with (folder / "log/run/results.csv").open() as file:
        return list(csv.DictReader(file))


# ---- Two processes ------------------------------------------------------------------------------


def test_two_processes_have_the_gradient_of_one(tmp_path: Path) -> None:
    """In float64, where only what is wrong differs; batch norm and dropout included: batch norm as
    on a CPU, and as on a GPU. A refiner has other numbers of patches in each process: where one
    has none, or all have, it takes part all the same, and nobody waits for ever."""
    networks = ["base", "3,40,9,1", "5,2,0,0", "0,0,0,0"]
    for processes in (1, 2):
        launcher = [sys.executable, "-m", "torch.distributed.run"]
        command = [*launcher, "--nproc-per-node", str(processes), str(SUPPORT / "gradients.py")]
        paths = [str(tmp_path / f"{processes}{how}.pt") for how in ("", "-kernels")]
        subprocess.run(
            [*command, *paths, *networks], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    one, *others = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1", "2", "2-kernels")
    )
    assert len(one) > 4 * 300  # gradients and running statistics
    for other in others:
        assert other.keys() == one.keys()
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=1e-8, atol=1e-12, msg=name)


@pytest.mark.parametrize("kind", [GlobalBatchNorm2d, GlobalPatchNorm])
def test_batch_norm_over_processes_takes_half_precision(kind: type[GlobalBatchNorm2d]) -> None:
    """As --precision bf16 gives it on a CPU; statistics are of float32."""
    plain, x = nn.BatchNorm2d(4), torch.rand(2, 4, 3, 3).bfloat16()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        norm = kind(copy.deepcopy(plain), dist.group.WORLD)
        y = norm(x)
    finally:
        dist.destroy_process_group()
    expected = plain(x.float())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected, atol=2e-2, rtol=0)
    torch.testing.assert_close(norm.running_var, plain.running_var)


@pytest.mark.slow
@for_both
def test_two_processes_train_as_one(many: Path, tmp_path: Path, script: str) -> None:
    """Loss and validation of the same run; resumed with another number of processes; signals and
    faults are below."""
    each = ["--max-steps", 3, "--log-valid-interval", 2]
    told = end_of(launch(tmp_path / "two", many, 2, *each, script=script))
    assert told.count("validation at step 0") == 1 and "2 processes" in told  # one of them talks
    single(tmp_path / "one", many, *each, script=script)
    two, one = results(tmp_path / "two"), results(tmp_path / "one")
    assert [row["step"] for row in two] == [row["step"] for row in one] == ["0", "2", "3"]
    for name in ("loss", "mad", "mse", "grad"):
        assert float(two[0][name]) == pytest.approx(float(one[0][name]), rel=1e-5)
    # Afterwards Adam has divided rounding errors by themselves: its steps are of a size, not equal.
    assert float(two[1]["loss"]) == pytest.approx(float(one[1]["loss"]), rel=0.02)
    record = json.loads((tmp_path / "two/log/run/run.json").read_text())[0]["options"]
    assert (record["processes"], record["sync_batchnorm"]) == (2, True)

    # On one process, what two have left continues; it is whole, and Adam's steps are counted on.
    before = newest(tmp_path / "two")
    words = ["--model-last-checkpoint", "auto", "--max-steps", 5]
    assert "at step 4" in single(tmp_path / "two", many, *words, script=script)
    after = newest(tmp_path / "two")
    assert (before.state["step"], after.state["step"]) == (3, 5)
    moments = after.state["optimizer"]["state"].values()
    assert {int(each["step"]) for each in moments} == {5}
    # And the other way about: one's checkpoint on two, from the same moments.
    told = end_of(launch(tmp_path / "one", many, 2, "--max-steps", 4, *words[:2], script=script))
    assert "at step 4" in told
    again = newest(tmp_path / "one")
    assert again.state["step"] == 4
    moments = again.state["optimizer"]["state"].values()
    assert {int(each["step"]) for each in moments} == {4}


@pytest.mark.parametrize(
    "script", ["train_base", pytest.param("train_refine", marks=pytest.mark.slow)]
)
def test_a_signal_to_one_process_stops_all_and_the_run_goes_on(
    many: Path, tmp_path: Path, script: str
) -> None:
    end_of(launch(tmp_path / "whole", many, 2, "--max-steps", 4, script=script))
    one = (tmp_path / "run", many, 2, "--max-steps", 4)
    told = end_of(launch(*one, fault="1:SIGUSR1:2", script=script))
    number = 128 + signal.SIGUSR1
    assert f"exitcode  : {number}" in told, told  # the other may be ended by torchrun as it leaves
    (said,) = [line for line in told.splitlines() if "to continue: " in line]
    assert " --nproc-per-node 2 " in said and said.endswith("--model-last-checkpoint auto")
    assert newest(tmp_path / "run").state["step"] == 2
    end_of(launch(*one, *AUTO, script=script))
    assert_equal(newest(tmp_path / "run"), newest(tmp_path / "whole"))


@pytest.mark.slow
def test_more_processes_than_samples_to_validate_on(tmp_path: Path) -> None:
    few = make_data(tmp_path / "few", train=4, valid=1)
    backgrounds = sorted((few / "backgrounds/valid").iterdir())
    assert len(backgrounds) == 1  # so that there is one sample in all
    for words in (["--max-steps", 1], ["--max-steps", 1, "--dry-run"]):
        launcher = launch(tmp_path / "run", few, 2, *words, "--overwrite")
        told = end_of(launcher)
        assert launcher.returncode == 0, told
    assert len(results(tmp_path / "run")) == 2 and (tmp_path / "run/log/run/preview.png").exists()


@pytest.mark.slow
def test_a_bad_number_in_one_process_stops_all(many: Path, tmp_path: Path) -> None:
    told = end_of(launch(tmp_path / "run", many, 2, "--max-steps", 4, fault="1:nan:2"))
    assert "step 2: the loss is not finite (alpha nan" in told, told
    assert "lost another" not in told  # they have ended together
    kept = torch.load(tmp_path / "run/log/run/bad-batch.pt", weights_only=True)
    assert kept["step"] == 2 and len(kept["src"]) == 2  # the part of the process that it was in
    assert not list((tmp_path / "run/checkpoint").glob("run/*.pth"))
    (line,) = [line for line in told.splitlines() if "bad-batch.pt" in line]
    files = kept["batches"][0]["files"]
    assert all(name in line for names in files for name in names)


@pytest.mark.slow
def test_a_write_that_fails_ends_all(many: Path, tmp_path: Path) -> None:
    words = ["--max-steps", 50, "--checkpoint-interval", 1]
    told = end_of(launch(tmp_path / "run", many, 2, *words, fault="0:write:0"))
    assert "epoch-0-iter-1.state.pth could not be written (No space left on device)" in told
    assert "error: another process has failed" in told and "step 50" not in told


@pytest.mark.slow
def test_a_bad_picture_in_one_process_saves_what_was_trained(many: Path, tmp_path: Path) -> None:
    told = end_of(launch(tmp_path / "run", many, 2, "--max-steps", 4, fault="1:picture:3"))
    assert told.count("error: clip0/0000.jpg cannot be decoded") == 1, told
    assert "error: another process has failed" in told
    assert newest(tmp_path / "run").state["step"] == 2


@pytest.mark.slow
def test_data_that_are_not_the_same_are_refused(
    many: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER", json.dumps(str(data)))
    told = end_of(launch(tmp_path / "run", many, 2, "--max-steps", 4, fault="1:data:0"))
    assert "process 0 has {'train': {'foregrounds': 12" in told
    assert "but process 1 has {'train': {'foregrounds': 6" in told
    assert told.count("train_base.py: error: the data") == 1


@pytest.mark.slow
def test_four_processes_validate_as_one_does(many: Path, tmp_path: Path) -> None:
    words = ["--max-steps", 1, "--batch-size", 8]
    told = end_of(launch(tmp_path / "four", many, 4, *words))
    single(tmp_path / "one", many, *words)
    four, one = results(tmp_path / "four")[0], results(tmp_path / "one")[0]
    for name in set(one) - {"start", "conn"}:  # which is empty unless asked for
        assert float(four[name]) == pytest.approx(float(one[name]), rel=1e-5), told


@pytest.mark.slow
def test_a_killed_process_changes_nothing(many: Path, tmp_path: Path) -> None:
    """torchrun starts all of them again, and auto continues: the same result, to the last bit."""
    words = ["--max-steps", 6, "--checkpoint-interval", 2, "--model-last-checkpoint", "auto"]
    end_of(launch(tmp_path / "whole", many, 2, *words))
    step = random.randint(1, 6)
    print(f"killed at step {step}")
    killed = launch(
        tmp_path / "run",
        many,
        2,
        *words,
        fault=f"1:SIGKILL:{step}",
        max_restarts=3,
        monitor_interval=0.2,
    )
    told = end_of(killed)
    assert killed.returncode == 0, told
    assert told.count("run: mobilenetv2") == 2  # it was started again
    assert_equal(newest(tmp_path / "run"), newest(tmp_path / "whole"))


@pytest.mark.slow
def test_a_process_that_hangs_ends_the_job(many: Path, tmp_path: Path) -> None:
    words = ["--max-steps", 6, "--dist-timeout", 10]
    hanging = launch(tmp_path / "run", many, 2, *words, fault="1:SIGSTOP:3", shutdown_timeout=3)
    told = end_of(hanging)
    assert hanging.returncode != 0
    (line,) = [line for line in told.splitlines() if "has lost another one in step 3" in line]
    assert "process 0 of 2" in line and "--dist-timeout" in line


@pytest.mark.slow
def test_nobody_outlives_the_launcher(many: Path, tmp_path: Path) -> None:
    launcher = launch(tmp_path / "run", many, 2, "--epoch-end", 10**6, "--checkpoint-interval", 1)
    folder = tmp_path / "run/checkpoint/run"
    while not list(folder.glob("*.pth")):
        assert launcher.poll() is None
        time.sleep(0.2)
    listing = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text()
    children = [int(pid) for pid in listing.split()]
    assert len(children) >= 2
    launcher.kill()
    launcher.wait()
    deadline = time.monotonic() + 60
    while alive := [pid for pid in children if running(pid)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.2)
    assert newest(tmp_path / "run").state["step"] >= 1  # asked to stop, they have saved


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
