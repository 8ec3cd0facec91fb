"""How every script begins and ends."""

import argparse
import pickle
import signal
import subprocess
import sys

import pytest

from common.errors import DataError, OptionError, UserError
from common.script import run_script
from common.signals import Stopped, StopRequest
from tests.support import ROOT


def no_options(_argv: list[str] | None) -> argparse.Namespace:
    return argparse.Namespace(size=3)


def ended(error: BaseException | None = None, **said: object) -> int:
    """The exit status of a script whose work raises `error`."""

    def work(_options: argparse.Namespace) -> None:
        print("at work")
        if error is not None:
            raise error

    return run_script("x.py", no_options, work, [], **said)


def test_the_status_is_the_work_s() -> None:
    assert ended() == 0
    assert run_script("x.py", no_options, lambda options: options.size) == 3


@pytest.mark.parametrize(
    "error", [OptionError("no\ngood"), UserError("no\ngood"), OSError("no\ngood")]
)
def test_what_the_user_can_mend_is_one_line(
    capsys: pytest.CaptureFixture, error: Exception
) -> None:
    assert ended(error) == 2
    assert capsys.readouterr().err == "x.py: error: no\\ngood\n"
    assert ended(error, after_error=lambda options: f"type {options.size}") == 2
    assert capsys.readouterr().err.splitlines()[1:] == ["type 3"]


def test_the_last_line_is_last_where_both_streams_go_to_one_file() -> None:
    code = "from tests.common.test_script import *; sys.exit(ended(OSError('no good')))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "at work\nx.py: error: no good\n")


def test_a_fault_of_the_program_is_none_of_the_user_s() -> None:
    for error in (ValueError("x"), RuntimeError("x"), KeyError("x"), AssertionError("x")):
        with pytest.raises(type(error)):
            ended(error, when_memory_is_short=lambda _: "short")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory")])
def test_memory_that_ran_out_is_the_script_s_line(
    capsys: pytest.CaptureFixture, error: Exception
) -> None:
    assert ended(error, when_memory_is_short=lambda options: f"short at {options.size}") == 2
    assert capsys.readouterr().err == "x.py: error: short at 3\n"


def test_what_may_be_skipped_is_said_by_who_can(capsys: pytest.CaptureFixture) -> None:
    for error, skip, line in (
        (DataError("bad", skippable=True), "--skip", "bad, or type --skip"),
        (DataError("bad", skippable=True), "", "bad"),
        (DataError("bad"), "--skip", "bad"),
        (OSError("bad"), "--skip", "bad"),
    ):
        assert ended(error, skip=skip) == 2
        assert capsys.readouterr().err == f"x.py: error: {line}\n"


@pytest.mark.parametrize("at_once", [False, True])
def test_being_stopped(capsys: pytest.CaptureFixture, at_once: bool) -> None:
    stop = StopRequest()
    error = KeyboardInterrupt() if at_once else Stopped(signal.SIGTERM)
    status = 128 + (signal.SIGINT if at_once else signal.SIGTERM)
    assert ended(error) == status
    assert capsys.readouterr().err == "x.py: stopped\n"
    assert ended(error, stop=stop, when_stopped=lambda options: f"at {options.size}") == status
    assert capsys.readouterr().err == "at 3\n" and stop.at_once == at_once
    assert ended(error, when_stopped=lambda _: None) == status
    assert capsys.readouterr().err == ""


def test_a_signal_stops_it_once(capsys: pytest.CaptureFixture) -> None:
    tidied = []

    def work(_options: argparse.Namespace) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGINT):
                signal.raise_signal(number)
            tidied.append(True)

    before = signal.getsignal(signal.SIGINT)
    assert run_script("x.py", no_options, work, stop=StopRequest(once=True)) == 143
    assert tidied and signal.getsignal(signal.SIGINT) == before
    assert capsys.readouterr().err == "x.py: stopped\n"


def test_an_error_comes_from_another_process_as_it_was() -> None:
    other = pickle.loads(pickle.dumps(DataError("bad", skippable=True)))
    assert type(other) is DataError and str(other) == "bad" and other.skippable
