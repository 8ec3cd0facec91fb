"""Being asked to stop: the step ends, it is saved, and the last line says how to go on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import train_base
from common.cli import interpreter
from dataset.processes import STOP_SIGNALS, signals_later
from training import checkpoint, metrics  # noqa: F401
from training.saving import Saver
from training.signals import Stopped, StopRequest

ROOT = Path(train_base.__file__).parent
WORDS = ["--model-backbone", "mobilenetv2", "--model-name", "run", "--crop-size", "32", "64"]
WORDS += ["--batch-size", "4", "--device", "cpu", "--num-workers", "0"]


def ask_at(
    monkeypatch: pytest.MonkeyPatch, name: str, call: int, number: int, times: int = 1
) -> None:
    """Sends a signal to this process at the given call of a function that the loop uses."""
    module, _, function = name.rpartition(".")
    original = getattr(sys.modules[module], function)
    calls = []

    def asking(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == call:
            for _ in range(times):
                os.kill(os.getpid(), number)
        return original(*arguments)

    monkeypatch.setattr(name, asking)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_step_ends_and_is_saved(
    data: Path,
    here: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    words = ["--dataset-dir", str(data), *WORDS]
    assert train_base.main([*words, "--max-steps", "4", "--model-name", "whole"]) == 0
    before = [signal.getsignal(each) for each in STOP_SIGNALS]
    ask_at(monkeypatch, "training.loss.matting_loss", 3, number)
    assert train_base.main([*words, "--max-steps", "4"]) == 128 + number
    assert [signal.getsignal(each) for each in STOP_SIGNALS] == before
    saved = [path.name for path in checkpoint.find_checkpoints(Path("checkpoint/run"))]
    assert saved == ["epoch-0.pth", "epoch-1-iter-3.pth"]
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith(f"stopped; to continue: {interpreter()} ")
    assert last.endswith("--max-steps 4 --model-last-checkpoint auto")

    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert train_base.main([*words, "--max-steps", "4", "--model-last-checkpoint", "auto"]) == 0
    one, other = (torch.load(f"checkpoint/{n}/epoch-1.pth") for n in ("run", "whole"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_validation_within_the_loop_is_broken_off_and_not_recorded(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_at(monkeypatch, "training.metrics.mad", 3, signal.SIGTERM)  # 1, 2: before the first step
    words = ["--dataset-dir", str(data), *WORDS, "--log-valid-interval", "1", "--max-steps", "4"]
    words += ["--batch-size", "2"]
    assert train_base.main(words) == 128 + signal.SIGTERM
    saved = [path.name for path in checkpoint.find_checkpoints(Path("checkpoint/run"))]
    assert saved == ["epoch-0-iter-1.pth"]
    assert len(Path("log/run/results.csv").read_text().splitlines()) == 2  # header, step 0


def test_before_the_first_step_there_is_nothing_to_save(
    data: Path, here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_at(monkeypatch, "training.metrics.mad", 1, signal.SIGINT)
    words = ["--dataset-dir", str(data), *WORDS, "--model-last-checkpoint", "auto"]
    assert train_base.main(words) == 130
    last = capsys.readouterr().err.strip().splitlines()[-1]
    said = f"stopped; this start has saved nothing yet; to start again: {interpreter()} "
    assert last.startswith(said)
    assert last.endswith("--model-last-checkpoint auto")
    assert not list(Path("checkpoint/run").glob("*.pth"))


def test_a_second_ctrl_c_ends_at_once(
    data: Path, here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_at(monkeypatch, "training.loss.matting_loss", 4, signal.SIGINT, times=2)
    check = Saver.check  # as where writing takes no longer than a step
    monkeypatch.setattr(Saver, "check", lambda s: (s._thread and s._thread.join(), check(s)))
    assert train_base.main(["--dataset-dir", str(data), *WORDS, "--max-steps", "4"]) == 130
    saved = [path.name for path in checkpoint.find_checkpoints(Path("checkpoint/run"))]
    assert saved == ["epoch-0.pth"]
    assert checkpoint.load_state(Path("checkpoint/run/epoch-0.pth"))["step"] == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("stopped at once: what was trained since the last checkpoint is lost;")


def test_a_second_ctrl_c_before_the_first_step_speaks_of_no_loss(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(_options: object, _stop: object) -> int:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
        return 0

    monkeypatch.setattr(train_base, "run", twice)
    assert train_base.main(WORDS) == 130
    told = capsys.readouterr().err
    assert told.startswith("stopped at once; this start has saved nothing yet; to start again: ")


def test_a_second_ctrl_c_gives_up_a_write_that_takes_long(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up = []

    def slow(content: object, file: object) -> None:
        file.write(b"the first bytes")
        while not file.given_up():
            time.sleep(0.01)
        given_up.append(True)
        file.write(b"more")

    monkeypatch.setattr("training.saving.write_sealed", slow)
    ask_at(monkeypatch, "training.loss.matting_loss", 4, signal.SIGINT, times=2)
    began = time.monotonic()
    assert train_base.main(["--dataset-dir", str(data), *WORDS, "--max-steps", "4"]) == 130
    assert given_up and time.monotonic() - began < 60
    assert not list(Path("checkpoint").glob("run/*.pth*"))


def test_a_request_is_raised_or_noted() -> None:
    with StopRequest() as stop:
        with pytest.raises(Stopped, match="SIGTERM"):
            os.kill(os.getpid(), signal.SIGTERM)
        stop.number, stop.saves = None, True
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
        with pytest.raises(TimeoutError), signals_later(*STOP_SIGNALS):
            within = state()
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
            signal.raise_signal(signal.SIGUSR2)  # which arrives as the mask is put back
        assert state() == before != within
        with signals_later(*STOP_SIGNALS):
            pass
        assert state() == before
    finally:
        signal.signal(signal.SIGUSR2, kept)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_leave_the_signal_to_the_program(data: Path, here: Path, number: int) -> None:
    """As a terminal and a cluster send it: to all processes of the group."""
    command = [sys.executable, str(ROOT / "train_base.py"), "--dataset-dir", str(data), *WORDS]
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
