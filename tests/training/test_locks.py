"""What a killed dry run leaves is removed at the next start; what a living one holds is not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT
from training import locks, start
from training.options import parse_base_options

pytest.importorskip("fcntl")

KILLED = """
import os, pathlib, signal, time
from training import locks
with locks.temporary_folder(pathlib.Path("checkpoint"), ".dry-run-") as folder:
    (folder / "epoch-0.pth").write_bytes(b"weights")
    ready, told = os.pipe()
    if not os.fork():  # a worker, which lives on
        os.write(told, b"1")
        time.sleep(60)
    os.read(ready, 1)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("words", [[], ["--dry-run"]])
def test_the_next_start_removes_what_a_killed_dry_run_left(
    here: Path, capsys: pytest.CaptureFixture, words: list[str]
) -> None:
    Path("checkpoint").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.Popen(
        [sys.executable, "-c", KILLED], env=environment, start_new_session=True
    )
    killed.wait()
    (left,) = Path("checkpoint").iterdir()
    assert (left / "epoch-0.pth").exists()
    try:
        with locks.temporary_folder(Path("checkpoint"), ".dry-run-") as alive:
            with start.checkpoint_folder(parse_base_options(words)) as mine:
                assert not left.exists() and alive.exists()
                assert mine.exists() == bool(words)
                assert not locks.remove_abandoned(Path("checkpoint"), ".dry-run-")
            assert capsys.readouterr().out == f"removed {left}, which a killed dry run left\n"
        assert not os.listdir("checkpoint")
    finally:
        os.killpg(killed.pid, 9)


def test_one_that_is_being_made_is_left_alone(here: Path) -> None:
    Path("checkpoint/.dry-run-1").mkdir(parents=True)
    Path("checkpoint/.dry-run-1/.owner.new").touch()
    assert not locks.remove_abandoned(Path("checkpoint"), ".dry-run-")
    assert Path("checkpoint/.dry-run-1").exists()
