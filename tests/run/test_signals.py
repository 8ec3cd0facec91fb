"""Being asked to stop: the step ends, it is saved, and the last line says how to go on."""

import importlib
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

import train_base
from common.cli import interpreter
from common.processes import STOP_SIGNALS, deferred_signals
from common.signals import Stopped, StopRequest
from tests.support import ROOT
from tests.support.running import AUTO, SCRIPTS, for_both, words_of
from training import checkpoint, launch
from training.checkpoint_folder import CheckpointFolder
from training.saving import Saver
from training.tensorboard_log import TensorBoardLog

WORDS = ["--model-backbone", "mobilenetv2", "--model-name", "run", "--crop-size", "32", "64"]
WORDS += ["--batch-size", "4", "--device", "cpu", "--num-workers", "0"]


def ask_at(
    monkeypatch: pytest.MonkeyPatch, name: str, call: int, number: int, times: int = 1
) -> None:
    """Sends a signal to this process at the given call of a function that the loop uses."""
    module, _, function = name.rpartition(".")
    original = getattr(importlib.import_module(module), function)
    calls = []

    def asking(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == call:
            for _ in range(times):
                os.kill(os.getpid(), number)
        return original(*arguments)

    monkeypatch.setattr(name, asking)


@for_both
@pytest.mark.parametrize(
    "number",
    [
        number if number == signal.SIGINT else pytest.param(number, marks=pytest.mark.slow)
        for number in STOP_SIGNALS
    ],
)
def test_the_step_ends_and_is_saved(
    data: Path,
    here: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    script: str,
) -> None:
    main, words = SCRIPTS[script].main, [*words_of(script, data), "--max-steps", "4"]
    assert main([*words, "--model-name", "whole"]) == 0
    before = [signal.getsignal(each) for each in STOP_SIGNALS]
    ask_at(monkeypatch, "training.guarded_optimizer.total", 3, number)
    assert main(words) == 128 + number
    assert [signal.getsignal(each) for each in STOP_SIGNALS] == before
    saved = [path.name for path in CheckpointFolder(Path("checkpoint/run")).checkpoints()]
    assert saved == ["epoch-0.pth", "epoch-1-iter-3.pth"]
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith(f"stopped; to continue: {interpreter()} ")
    assert last.endswith("--max-steps 4 --model-last-checkpoint auto")

    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert main([*words, *AUTO]) == 0
    one, other = (torch.load(f"checkpoint/{n}/epoch-1.pth") for n in ("run", "whole"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("script", "number"),
    [
        ("train_base", signal.SIGTERM),
        ("train_base", signal.SIGHUP),
        ("train_refine", signal.SIGTERM),
    ],
)
def test_validation_within_the_loop_is_broken_off_and_not_recorded(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch, script: str, number: int
) -> None:
    calls = {"train_base": 2, "train_refine": 4}  # of two samples; of the coarse alpha, too
    ask_at(monkeypatch, "evaluation.metrics.mad", calls[script] + 1, number)  # behind a step
    words = [*words_of(script, data), "--log-valid-interval", "1", "--max-steps", "4"]
    assert SCRIPTS[script].main([*words, "--batch-size", "2"]) == 128 + number
    saved = [path.name for path in CheckpointFolder(Path("checkpoint/run")).checkpoints()]
    assert saved == ["epoch-0-iter-1.pth"]
    assert len(Path("log/run/results.csv").read_text().splitlines()) == 2  # header, step 0


def test_before_the_first_step_there_is_nothing_to_save(
    data: Path, here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_at(monkeypatch, "evaluation.metrics.mad", 1, signal.SIGINT)
    words = ["--dataset-dir", str(data), *WORDS, "--model-last-checkpoint", "auto"]
    assert train_base.main(words) == 130
    last = capsys.readouterr().err.strip().splitlines()[-1]
    said = f"stopped; this start has saved nothing yet; to start again: {interpreter()} "
    assert last.startswith(said)
    assert last.endswith("--model-last-checkpoint auto")
    assert not list(Path("checkpoint/run").glob("*.pth"))


def test_what_is_handed_to_a_thread_is_not_broken_off(
    data: Path, here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorBoard's thread, which misses what it was being handed, is waited for two minutes."""
    add, added = SummaryWriter.add_scalar, []

    def asking(*arguments: object) -> None:
        if not added:
            os.kill(os.getpid(), signal.SIGINT)
        added.append(add(*arguments))

    monkeypatch.setattr(SummaryWriter, "add_scalar", asking)
    assert train_base.main(["--dataset-dir", str(data), *WORDS]) == 130
    assert len(added) > 1 and Path("log/run/preview.png").exists()
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("stopped; this start has saved nothing yet; to start again: ")
    assert not list(Path("checkpoint/run").glob("*.pth"))


def test_a_signal_while_a_checkpoint_is_written_spoils_nothing(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_at(monkeypatch, "training.saving.write_sealed", 2, signal.SIGHUP)  # 1: the state
    words = ["--dataset-dir", str(data), *WORDS, "--checkpoint-interval", "1", "--max-steps", "99"]
    assert train_base.main(words) == 128 + signal.SIGHUP
    newest = CheckpointFolder(Path("checkpoint/run")).newest_intact(set_aside=False)
    assert newest.state["step"] == len(CheckpointFolder(Path("checkpoint/run")).checkpoints())
    assert not list(Path("checkpoint/run").glob("*.partial-*"))


def test_sighup_that_is_ignored_stays_so(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As nohup starts a program."""
    ask_at(monkeypatch, "training.guarded_optimizer.total", 3, signal.SIGHUP)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert train_base.main(["--dataset-dir", str(data), *WORDS, "--max-steps", "4"]) == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
def test_a_terminal_that_is_closed_costs_no_step(data: Path, here: Path) -> None:
    """A real one: its end sends SIGHUP, and every write to it fails from then on."""
    terminal, program = pty.openpty()
    words = [*WORDS, "--epoch-end", "9999", "--checkpoint-interval", "1"]
    command = [sys.executable, str(ROOT / "train_base.py"), "--dataset-dir", str(data), *words]
    own = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY); "
    own += "os.execv(sys.argv[1], sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", own, *command],
        cwd=here,
        start_new_session=True,
        stdin=program,
        stdout=program,
        stderr=program,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    os.close(program)
    shown = b""
    while b"saved checkpoint/run/" not in shown:
        shown += os.read(terminal, 4096)
    os.close(terminal)
    assert process.wait(120) == 128 + signal.SIGHUP, shown
    assert (
        CheckpointFolder(here / "checkpoint/run").newest_intact(set_aside=False).state["step"] > 0
    )


def test_a_second_ctrl_c_ends_at_once(
    data: Path, here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_at(monkeypatch, "training.guarded_optimizer.total", 4, signal.SIGINT, times=2)
    check = Saver.check  # as where writing takes no longer than a step
    monkeypatch.setattr(Saver, "check", lambda s: (s._thread and s._thread.join(), check(s)))
    assert train_base.main(["--dataset-dir", str(data), *WORDS, "--max-steps", "4"]) == 130
    saved = [path.name for path in CheckpointFolder(Path("checkpoint/run")).checkpoints()]
    assert saved == ["epoch-0.pth"]
    assert checkpoint.load_state(Path("checkpoint/run/epoch-0.pth"))["step"] == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("stopped at once: what was trained since the last checkpoint is lost;")


def test_a_second_ctrl_c_before_the_first_step_speaks_of_no_loss(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(_train: object, _options: object, _stop: object) -> int:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
        return 0

    monkeypatch.setattr(launch, "_run", twice)
    assert train_base.main(WORDS) == 130
    told = capsys.readouterr().err
    assert told.startswith("stopped at once; this start has saved nothing yet; to start again: ")


def test_a_second_ctrl_c_gives_up_a_write_that_takes_long(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled = []

    def slow(content: object, file: object) -> None:
        file.write(b"the first bytes")
        while not file.cancelled():
            time.sleep(0.01)
        cancelled.append(True)
        file.write(b"more")

    monkeypatch.setattr("training.saving.write_sealed", slow)
    ask_at(monkeypatch, "training.guarded_optimizer.total", 4, signal.SIGINT, times=2)
    began = time.monotonic()
    assert train_base.main(["--dataset-dir", str(data), *WORDS, "--max-steps", "4"]) == 130
    assert cancelled and time.monotonic() - began < 60
    assert not list(Path("checkpoint").glob("run/*.pth*"))


def test_a_second_ctrl_c_leaves_nothing_half_handed_to_tensorboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, added = SummaryWriter.add_scalar, []

    def asking(*arguments: object) -> None:
        signal.raise_signal(signal.SIGINT)
        added.append(add(*arguments))

    monkeypatch.setattr(SummaryWriter, "add_scalar", asking)
    log = TensorBoardLog(tmp_path, 0)
    with StopRequest() as stop:
        stop.number = signal.SIGINT  # the first has come
        with pytest.raises(KeyboardInterrupt):
            log.scalars(1, {"loss": 1.0, "mad": 2.0})
    log.close(failed=True)
    assert len(added) == 2


def test_a_request_is_raised_or_noted() -> None:
    with StopRequest() as stop:
        with pytest.raises(Stopped, match="SIGTERM"):
            os.kill(os.getpid(), signal.SIGTERM)
        stop.number, stop.defers = None, True
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number == signal.SIGTERM
        assert list(stop.until([{}, {}])) == []
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no signal masks here")
def test_another_signal_while_processes_start_leaves_handlers_and_mask_as_they_were() -> None:
    def handle(_number: int, _frame: object) -> None:
        raise TimeoutError

    def state() -> tuple:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        return mask, [signal.getsignal(number) for number in STOP_SIGNALS]

    before, kept = state(), signal.signal(signal.SIGUSR2, handle)
    try:
        with pytest.raises(TimeoutError), deferred_signals(*STOP_SIGNALS):
            within = state()
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
            signal.raise_signal(signal.SIGUSR2)  # which arrives as the mask is put back
        assert state() == before != within
        with deferred_signals(*STOP_SIGNALS):
            pass
        assert state() == before
    finally:
        signal.signal(signal.SIGUSR2, kept)


@pytest.mark.slow
@for_both
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_leave_the_signal_to_the_program(
    data: Path, here: Path, number: int, script: str
) -> None:
    """As a terminal and a cluster send it: to all processes of the group."""
    command = [sys.executable, str(ROOT / f"{script}.py"), *words_of(script, data)]
    command += ["--num-workers", "2", "--epoch-end", "1000", "--checkpoint-interval", "1"]
    process = subprocess.Popen(
        command, cwd=here, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while not list(here.glob("checkpoint/run/*.pth")):
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    lines = err.decode().strip().splitlines()
    assert process.returncode == 128 + number, lines
    assert lines[-1].startswith("stopped; to continue: ") and "Traceback" not in err.decode()
    with pytest.raises(ProcessLookupError):  # nobody is left of the group
        os.killpg(process.pid, 0)


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["torchrun", "one of its processes"])
def test_torchrun_s_processes_save_at_sighup(data: Path, here: Path, whom: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += [str(ROOT / "train_base.py"), "--dataset-dir", str(data), *WORDS]
    with Path("told").open("w") as told:
        launcher = subprocess.Popen(
            [*command, "--epoch-end", "9999", "--checkpoint-interval", "3"],
            stdout=told,
            stderr=told,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    while not list(here.glob("checkpoint/run/*.pth")):
        assert launcher.poll() is None
        time.sleep(0.1)
    if whom == "torchrun":
        launcher.send_signal(signal.SIGHUP)
    else:
        children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
        (other,) = (each for each in children if b"RANK=1" in environment(each))
        os.kill(int(other), signal.SIGHUP)
    launcher.wait(120)
    lines = [line for line in Path("told").read_text().splitlines() if "to continue: " in line]
    saved = Path("told").read_text().count("saved ")
    assert len(lines) == 1 and lines[0].endswith("--model-last-checkpoint auto"), lines
    newest = CheckpointFolder(here / "checkpoint/run").newest_intact(set_aside=False)
    assert saved and newest.state["step"] >= saved
    assert not list(here.glob("checkpoint/run/*.partial-*"))


def environment(process: str) -> list[bytes]:
    try:
        return Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    except FileNotFoundError:  # it has ended
        return []
