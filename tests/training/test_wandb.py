"""--log-to wandb: it gets what TensorBoard gets, and whatever goes wrong in it ends no training."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter
from torchvision.transforms.functional import pil_to_tensor
from torchvision.utils import make_grid

import train_base
from tests.support import ROOT
from training import options
from training.journal import Journal
from training.pictures import as_bytes
from training.wandb_log import WandbLog

wandb = pytest.importorskip("wandb")

BLOCK = 32768  # of the file that wandb keeps: a log of LevelDB's kind behind a head of 7 bytes


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        if name != "WANDB_SERVICE":
            monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


def words(data: Path, *more: object) -> list[str]:
    argv = ["--dataset-dir", data, "--model-backbone", "mobilenetv2", "--model-name", "run"]
    argv += ["--crop-size", 32, 64, "--batch-size", 4, "--num-workers", 0, "--device", "cpu"]
    argv += ["--log-train-loss-interval", 1, "--log-to", "wandb", *more]
    return [str(word) for word in argv]


def wandb_history(path: Path) -> dict[int, dict[str, Any]]:
    """By step, what is in a run's .wandb file; no tag is there twice for a step."""
    from wandb.proto import wandb_internal_pb2

    content, at, record, steps = path.read_bytes(), 7, b"", {}
    while at + 7 <= len(content):
        if BLOCK - at % BLOCK < 7:  # no room for the head of a piece: the block's rest is empty
            at += BLOCK - at % BLOCK
            continue
        length, kind = struct.unpack("<4xHB", content[at : at + 7])
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind not in (1, 4):  # whole, or a last piece
            continue
        read = wandb_internal_pb2.Record.FromString(record)
        record = b""
        if read.WhichOneof("record_type") == "history":
            row = {item.key or "/".join(item.nested_key): item for item in read.history.item}
            logged = {name: json.loads(item.value_json) for name, item in row.items()}
            logged = {name: logged[name] for name in logged if not name.startswith("_")}
            step = logged.pop("global_step")
            assert not logged.keys() & steps.get(step, {}).keys(), "a step was logged twice"
            steps.setdefault(step, {}).update(logged)
    return steps


def test_it_gets_what_tensorboard_gets(
    data: Path,
    here: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a second start, too, whose folder holds what the first has logged; and where wandb's
    process, which outlives a run, was started in another folder."""
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    wandb.init(project="elsewhere").finish()
    monkeypatch.chdir(here)
    assert train_base.main(words(data, "--max-steps", 2)) == 0
    more = ["--max-steps", 4, "--model-last-checkpoint", "auto"]
    assert train_base.main(words(data, *more)) == 0
    events = EventAccumulator("log/run").Reload()
    by_step: dict[int, dict[str, float]] = {}
    for tag in events.Tags()["scalars"]:
        for event in events.Scalars(tag):
            by_step.setdefault(event.step, {})[tag] = event.value
    assert not list(Path("log/wandb").rglob("*tfevents*"))  # which TensorBoard would show again
    files = sorted(Path("log/wandb").glob("offline-run-*/run-*.wandb"), key=os.path.getmtime)
    deadline = time.monotonic() + 10  # its process may still be writing after finish()
    while any(not wandb_history(path) for path in files) and time.monotonic() < deadline:
        time.sleep(0.2)
    first, second = (wandb_history(path) for path in files)
    assert list(first) == [0, 1, 2] and list(second) == [3, 4]
    for step, numbers in by_step.items():
        row = (first | second)[step]
        assert {name: row[name] for name in numbers} == pytest.approx(numbers, rel=1e-6)
    assert "train/loss" in by_step[4] and "valid/mad" in by_step[4]
    assert {"valid/src/width", "valid/pred_pha/width"} <= first[0].keys()  # pictures, too


def test_a_dry_run_logs_nothing(data: Path, here: Path) -> None:
    assert train_base.main(words(data, "--dry-run")) == 0
    assert not Path("log/wandb").exists() and not Path("wandb").exists()


@pytest.mark.parametrize("where", ["start", "end"])
def test_a_failure_ends_no_training(
    data: Path,
    here: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise wandb.errors.CommError("the network is gone\nand more")

    run = mock.Mock(finish=fails)
    monkeypatch.setattr(wandb, "init", fails if where == "start" else lambda **_: run)
    assert train_base.main(words(data, "--max-steps", 1)) == 0
    said = {"start": "did not start", "end": "did not end well"}[where]
    assert f"warning: wandb {said} (the network is gone)" in capsys.readouterr().out
    assert Path("checkpoint/run/epoch-0-iter-1.pth").exists()
    assert EventAccumulator("log/run").Reload().Scalars("train/loss")[0].step == 1


def logged_with(run: mock.Mock, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Journal:
    """The journal of a run that logs to `run`, in place of wandb's."""
    monkeypatch.setattr(wandb, "init", lambda **_: run)
    journal = Journal(folder, 0, 4, 2)
    journal.sinks.append(WandbLog({"model_name": "run", "stage": "refine"}, journal.say))
    return journal


def test_where_its_process_is_gone_tensorboard_goes_on(
    here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = mock.Mock(log=mock.Mock(side_effect=BrokenPipeError("its process is gone")))
    with logged_with(run, monkeypatch, here / "log") as journal:
        for step in (1, 2):
            journal.train_losses(step, {"alpha": torch.ones(())}, {})
    told = capsys.readouterr().out
    assert told.count("its process is gone") == 1 and str(here / "log") not in told
    assert [e.step for e in EventAccumulator("log").Reload().Scalars("train/loss")] == [1, 2]
    run.finish.assert_called_once_with(exit_code=0)


def test_a_failed_run_is_marked_as_failed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = mock.Mock()
    with pytest.raises(ValueError), logged_with(run, monkeypatch, here / "log"):
        raise ValueError
    run.finish.assert_called_once_with(exit_code=1)


def test_it_gets_pictures_and_texts(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TensorBoard, too, whose files cannot be written."""
    run, shown = mock.Mock(), {"src": torch.linspace(0, 1, 75).reshape(1, 3, 5, 5)}
    with logged_with(run, monkeypatch, here / "log") as journal:
        monkeypatch.setattr(SummaryWriter, "add_scalar", mock.Mock(side_effect=OSError(28, "full")))
        journal.train_losses(1, {"alpha": torch.ones(())}, {})
        journal.train_pictures(2, shown)
        journal.text(3, "transfer", "a < b")
    logged = {call.args[0]["global_step"]: call.args[0] for call in run.log.call_args_list}
    assert logged.keys() == {2, 3}  # in any order: pictures come from a thread
    pictures, text = logged[2], logged[3]
    assert torch.equal(
        pil_to_tensor(pictures["train/src"].image), make_grid(as_bytes(shown["src"]), nrow=5)
    )
    assert "a &lt; b" in text["transfer"].html


def test_without_wandb_it_is_said_before_training(
    data: Path, here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stop:
        train_base.main(words(data))
    assert stop.value.code == 2 and not list(here.iterdir())
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "needs wandb, not installed here; type: " in line
    assert line.endswith("-m pip install wandb")


@pytest.mark.slow
def test_ctrl_c_saves_and_ends_both(data: Path, here: Path) -> None:
    """It reaches every process of the terminal's group."""
    more = ["--max-steps", 5000, "--epoch-end", 5000, "--log-valid-interval", 5000]
    command = [sys.executable, str(ROOT / "train_base.py"), *words(data, *more)]
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    with Path("output").open("w") as output:
        run = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment,
        )
    try:
        until = time.monotonic() + 120
        while "saved" not in Path("output").read_text() and time.monotonic() < until:
            time.sleep(0.2)
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait(timeout=120) == 130
    finally:
        if run.poll() is None:
            run.kill()
    said = Path("output").read_text()
    assert "stopped; to continue: " in said and "Traceback" not in said
    (file,) = Path("log/wandb").glob("offline-run-*/run-*.wandb")
    events = EventAccumulator("log/run").Reload().Scalars("train/loss")
    assert max(wandb_history(file)) == events[-1].step >= 2
