"""What goes wrong around a run: files of another run, dead workers, no memory, no room."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dataset.folders import data_folders, describe, open_split
from model import MattingBase
from tests.support import ROOT
from tests.support.drawn import make_data
from tests.support.running import AUTO, error_of, run, weights
from training import checkpoint, saving, start
from training.checkpoint_folder import CheckpointFolder
from training.guarded_optimizer import loss_scaler
from training.options import parse_base_options
from training.run import TrainingState, parameter_groups


def test_a_checkpoint_of_another_run_is_refused_with_each_difference(
    data: Path, tmp_path: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    run(data, "--max-steps", 1)
    larger = make_data(tmp_path / "larger", train=7)
    other = ["--seed", 3, "--batch-size", 2, "--crop-size", 32, 96, "--dataset-pairing", "zip"]
    run(larger, *other, *AUTO, status=2)
    error = error_of(capsys)
    for difference in (
        "--seed was 0 and is 3",
        "--batch-size was 4 and is 2",
        "--crop-size was 32 64 and is 32 96",
        "--dataset-pairing was random and is zip",
        "the data to train on were 6 foregrounds and 6 backgrounds (fingerprint of their names ",
        " and are 7 foregrounds and 7 backgrounds",
        "add --resume-anyway",
    ):
        assert difference in error
    run(data, *AUTO, "--model-backbone", "resnet50", status=2)
    error = error_of(capsys)
    assert "--model-backbone was mobilenetv2 and is resnet50" in error
    assert "--resume-anyway" not in error
    another = [*AUTO, "--resume-anyway", "--model-backbone", "resnet50"]
    run(data, *another, status=2)  # nothing helps there
    assert "its backbone is mobilenetv2: type --model-backbone" in error_of(capsys)
    run(larger, *other, *AUTO, "--resume-anyway", "--max-steps", 5)
    told = capsys.readouterr().out
    assert told.count("(--resume-anyway)") == 5
    assert "continuing checkpoint/run/epoch-0-iter-1.pth at step" in told


def test_crops_that_another_version_drew_otherwise_are_told_apart(
    data: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    wide = ["--crop-size", 32, 160]
    for size, refused in ((["--crop-size", 32, 64], False), (wide, True)):
        run(data, *size, "--max-steps", 1, "--overwrite")
        path = Path("checkpoint/run/epoch-0-iter-1.state.pth")
        state = checkpoint.read_file(path)
        assert state.pop("crop_grid") == (64 if refused else 32)
        torch.save(state, path)  # as the versions wrote it that knew a grid of 32 alone
        run(data, *size, *AUTO, "--max-steps", 2, status=2 if refused else 0)
    error = error_of(capsys)
    assert "--crop-size 32 160 was in steps of 32, as another version" in error
    assert "in steps of 64; add --resume-anyway" in error
    run(data, "--crop-size", 32, 192, *AUTO, "--max-steps", 2, status=2)
    error = error_of(capsys)
    assert "--crop-size was 32 160 and is 32 192; type (or put back) what it was, or add" in error
    run(data, *wide, *AUTO, "--max-steps", 2, "--resume-anyway")
    assert "warning: --crop-size 32 160 was in steps of 32" in capsys.readouterr().out
    run(data, *wide, *AUTO, "--max-steps", 3)


def test_the_same_data_elsewhere_are_the_same(
    data: Path, tmp_path: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    run(data, "--max-steps", 1)
    moved = make_data(tmp_path / "moved")
    os.remove(moved / "backgrounds/valid/1.jpg")  # which changes no training
    run(moved, *AUTO, "--max-steps", 2)
    told = capsys.readouterr().out
    assert "note: the data to valid" in told and "--dataset-dir was" not in told
    # One name that changes is another data set, though their number is the same.
    names = describe(*open_split(data_folders("", moved, print), "train"))
    for kind, ending in (("fgr", "jpg"), ("pha", "png")):
        path = moved / "train" / kind / f"clip0/0000.{ending}"
        path.rename(path.with_name(f"renamed.{ending}"))
    renamed = describe(*open_split(data_folders("", moved, print), "train"))
    assert {**names, "fingerprint": ""} == {**renamed, "fingerprint": ""}
    assert names["fingerprint"] != renamed["fingerprint"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_is_named_and_nothing_is_lost(
    data: Path,
    here: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    from training.guarded_optimizer import GuardedOptimizer

    watch = GuardedOptimizer.check_later

    def killing(self: GuardedOptimizer, step: int, *rest: object) -> None:
        watch(self, step, *rest)
        if step == 3:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, number)

    monkeypatch.setattr(GuardedOptimizer, "check_later", killing)
    run(data, "--num-workers", 2, "--checkpoint-interval", 1000, status=2)
    error = error_of(capsys)
    assert f"killed by {number.name}" in error
    assert "fewer --num-workers" in error
    newest = CheckpointFolder(Path("checkpoint/run")).checkpoints()[-1]
    state = checkpoint.load_state(newest)
    assert state["step"] >= 3  # what was read already was trained on
    monkeypatch.undo()
    monkeypatch.chdir(here)
    run(data, "--max-steps", state["step"] + 1, *AUTO)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        "too much for any machine",
    ],
)
def test_out_of_memory(
    data: Path,
    here: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception | str,
) -> None:
    from training.guarded_optimizer import GuardedOptimizer

    backward, calls = GuardedOptimizer.backward, []

    def short(self: GuardedOptimizer, *arguments: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            if isinstance(error, str):
                torch.empty(2**60)
            raise error
        backward(self, *arguments)

    monkeypatch.setattr(GuardedOptimizer, "backward", short)
    run(data, "--max-steps", 4, "--crop-size", 64, 64, status=2)
    told = error_of(capsys)
    assert "this machine is out of memory: this process's peak was " in told
    assert "at a crop of 64x64 with --batch-size 4. Type a smaller --batch-size" in told
    assert "--accumulate 2" in told
    assert checkpoint.read_checkpoint(Path("checkpoint/run/epoch-0.pth")).state["step"] == 2


def test_other_errors_are_not_taken_for_want_of_memory(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.guarded_optimizer import GuardedOptimizer

    def wrong(*_arguments: object) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(GuardedOptimizer, "backward", wrong)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        run(data, "--max-steps", 1, "--num-workers", 2)
    assert not multiprocessing.active_children()  # which would keep the program from ending


def test_every_start_is_recorded(data: Path, here: Path, capsys: pytest.CaptureFixture) -> None:
    run(data, "--max-steps", 1, "--seed", 5)
    run(data, "--max-steps", 2, "--seed", 5, *AUTO)
    first, second = json.loads(Path("log/run/run.json").read_text())
    assert (first["start"], first["from"], first["steps_done"]) == ("scratch", None, 0)
    assert second["start"] == "resume" and second["steps_done"] == 1
    assert second["from"] == "checkpoint/run/epoch-0-iter-1.pth"
    assert first["options"]["seed"] == 5 and first["options"]["precision"] == "fp32"
    assert first["options"]["lr_aspp"] == 5e-4
    assert first["versions"]["torch"] == torch.__version__.split("+")[0] or (
        first["versions"]["torch"] == torch.__version__
    )
    assert "CPU" in first["device"]
    splits = {
        split: open_split(data_folders("", data, print), split) for split in ("train", "valid")
    }
    assert first["data"] == {split: describe(*each) for split, each in splits.items()}
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    assert (first["commit"] or "").startswith(commit)

    Path("log/run/run.json").write_text("[{")
    run(data, "--max-steps", 3, "--seed", 5, *AUTO)
    assert "run.json cannot be read" in capsys.readouterr().out
    assert Path("log/run/run.json.set-aside").read_text() == "[{"
    assert len(json.loads(Path("log/run/run.json").read_text())) == 1


@pytest.mark.published
def test_the_transfer_is_recorded(data: Path, here: Path) -> None:
    run(data, "--max-steps", 1)
    initial = ["--model-pretrain-initialization", "checkpoint/run/epoch-0-iter-1.pth"]
    run(data, "--max-steps", 1, *initial, "--model-name", "next")
    (entry,) = json.loads(Path("log/next/run.json").read_text())
    assert (entry["start"], entry["from"]) == ("transfer", initial[1])
    assert entry["transfer"]["modules"]["total"]["entries"] == 362
    assert len(entry["transfer"]["sha256"]) == 64


@pytest.mark.published
def test_deterministic_algorithms_are_asked_for(data: Path, here: Path) -> None:
    run(data, "--max-steps", 1)
    code = (
        "import torch, train_base, sys; torch.set_num_threads(1); "
        "assert train_base.main(sys.argv[1:]) == 0; "
        "assert torch.are_deterministic_algorithms_enabled(); "
        "assert not torch.utils.deterministic.fill_uninitialized_memory; "
        "assert not torch.backends.cudnn.benchmark"
    )
    words = ["--dataset-dir", data, "--model-backbone", "mobilenetv2", "--model-name", "same"]
    words += ["--crop-size", 32, 64, "--batch-size", 4, "--num-workers", 0, "--max-steps", 1]
    subprocess.run(
        [sys.executable, "-c", code, *map(str, words), "--device", "cpu", "--deterministic"],
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    one, other = (weights(f"checkpoint/{name}/epoch-0-iter-1.pth") for name in ("run", "same"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_that_fails_leaves_no_empty_folder(
    data: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    run(data, "--model-pretrain-initialization", data / "train/pha/clip0/0000.png", status=2)
    assert not Path("checkpoint/run").exists()


@pytest.mark.slow
def test_a_signal_while_workers_are_started_ends_the_program(data: Path, here: Path) -> None:
    """A program of its own, since what is tried is whether it ends."""
    code = (
        "import os, signal, sys, torch, train_base\n"
        "from multiprocessing.process import BaseProcess\n"
        "start, calls = BaseProcess.start, []\n"
        "def asking(self):\n"
        "    start(self)\n"
        "    calls.append(1)\n"
        "    if len(calls) == 2: os.kill(os.getpid(), signal.SIGTERM)\n"
        "BaseProcess.start = asking\n"
        "sys.exit(train_base.main(sys.argv[1:]))"
    )
    words = ["--dataset-dir", data, "--model-backbone", "mobilenetv2", "--model-name", "run"]
    words += ["--crop-size", 32, 64, "--batch-size", 4, "--num-workers", 3, "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONUNBUFFERED", None)
    with open("output.txt", "w") as output:  # both streams into one file, as a cluster has it
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, *map(str, words)],
            env=environment,
            stdout=output,
            stderr=output,
            timeout=120,
        )
    told = Path("output.txt").read_text()
    assert done.returncode == 128 + signal.SIGTERM, told
    assert told.strip().splitlines()[-1].startswith("stopped; "), told
    assert "Exception ignored" not in told


def test_an_error_of_ours_in_a_worker_is_not_taken_for_its_death(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(_samples: list) -> None:
        raise RuntimeError("stack expects each tensor to be equal size")

    monkeypatch.setattr("dataset.sample_loader.collate", wrong)
    with pytest.raises(RuntimeError, match="equal size"):
        run(data, "--max-steps", 1, "--num-workers", 1)


def test_a_log_that_cannot_be_written_ends_no_training(
    data: Path, here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.journal._append_row", full)
    run(data, "--max-steps", 2)
    assert capsys.readouterr().out.count("log/run cannot be written (No space left on device)") == 1
    assert Path("checkpoint/run/epoch-0.pth").exists()


def test_a_row_is_there_as_a_whole(tmp_path: Path) -> None:
    from training.journal import _append_row

    path = tmp_path / "results.csv"
    _append_row(path, {"step": 1, "mad": 0.5})
    path.write_bytes(path.read_bytes() + b"2,0.")  # cut short by a crash
    _append_row(path, {"step": 3, "mad": 0.7})
    assert path.read_bytes() == b"step,mad\r\n1,0.5\r\n2,0.\r\n3,0.7\r\n"


def test_moments_come_back_in_the_layout_of_their_weights(data: Path, here: Path) -> None:
    """A checkpoint of a CPU continues on a GPU, whose weights lie otherwise in memory."""
    run(data, "--max-steps", 2)
    options = parse_base_options(
        ["--model-backbone", "mobilenetv2", "--model-last-checkpoint", "auto"]
    )
    options.resume_anyway = True
    recorded = vars(options) | {"precision": "fp32"}
    found = checkpoint.read_checkpoint(Path("checkpoint/run/epoch-0.pth"))
    model = MattingBase("mobilenetv2").to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(
        parameter_groups(model, backbone=1e-4, aspp=1e-4, decoder=1e-4), fused=True
    )
    scaler = loss_scaler(torch.device("cpu"), "fp32")
    state = TrainingState(model, optimizer, scaler)
    assert start.resume(found, state, options, recorded, found.state["data"], 2) == 2
    saved = found.state["optimizer"]["state"]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    assert any(not parameter.is_contiguous() for parameter in parameters)
    for number, parameter in enumerate(parameters):
        moment = optimizer.state[parameter]["exp_avg"]
        assert moment.stride() == parameter.stride()
        assert torch.equal(moment, saved[number]["exp_avg"])
    saving.write_checkpoint(Path("1.pth"), model.state_dict(), found.state)
    written = checkpoint.read_checkpoint(Path("1.pth")).weights
    assert all(value.is_contiguous() for value in written.values())
