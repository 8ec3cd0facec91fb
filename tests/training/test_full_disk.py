"""A full disk is one line with the path, and ends only what cannot do without it."""

import threading
from pathlib import Path

import pytest
import torch

from common.errors import DataError
from dataset.folders import data_folders
from tests.support.running import run
from training.journal import batch_picture

pytestmark = pytest.mark.usefixtures("tiny_network")


def full(*_arguments: object, **_more: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("call", [1, 3])
def test_a_full_log_folder_is_a_line_and_no_traceback(
    data: Path,
    here: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    call: int,
) -> None:
    from tensorboard.compat.tensorflow_stub.io.gfile import LocalFileSystem

    written, calls = LocalFileSystem._write, []
    seen: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", hook := seen.append)

    def write(*arguments: object) -> None:
        calls.append(1)
        (full if len(calls) >= call else written)(*arguments)

    monkeypatch.setattr(LocalFileSystem, "_write", write)
    run(data, "--max-steps", 3, "--log-train-loss-interval", 1)
    told = capsys.readouterr()
    assert told.out.count("log/run cannot be written (No space left on device)") == 1
    assert not seen and threading.excepthook is hook
    assert list(Path("checkpoint/run").glob("*.pth"))


def test_other_threads_tell_their_errors(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.journal import Journal

    seen: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    journal = Journal(Path("log"), 0, 1, 1)
    thread = threading.Thread(target=full)
    thread.start()
    thread.join()
    journal.close()
    assert [each.thread for each in seen] == [thread]


def test_the_path_is_said(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {name: torch.zeros(2, 3, 8, 8) for name in ("src", "bgr", "true_pha", "true_fgr")}
    batch_picture(Path("batch.png"), shown)
    assert Path("batch.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr("common.files._Output.write", full)
    with pytest.raises(OSError, match=r"batch\.png could not be written"):
        batch_picture(Path("batch.png"), shown)
    monkeypatch.setattr("dataset.folders.make_demo", full)
    with pytest.raises(DataError, match="No space left on device in data"):
        data_folders("demo", None, print)
