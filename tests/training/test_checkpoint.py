"""Checkpoint files: named and found in order, whole at every instant."""

import hashlib
import pickle
import random
import threading
import zipfile
from pathlib import Path

import pytest
import torch

from common import files as output
from model.weights_file import WeightsFileError
from training import checkpoint, saving
from training.checkpoint_folder import CheckpointFolder


def test_names_say_epoch_and_step() -> None:
    names = [checkpoint.checkpoint_name(step, 10) for step in (1, 9, 10, 11, 20, 105)]
    assert names == [
        "epoch-0-iter-1.pth",
        "epoch-0-iter-9.pth",
        "epoch-0.pth",
        "epoch-1-iter-11.pth",
        "epoch-1.pth",
        "epoch-10-iter-105.pth",
    ]


def test_the_newest_is_found_by_number_and_not_by_text_or_date(tmp_path: Path) -> None:
    in_order = [
        "epoch-0-iter-5.pth",
        "epoch-0.pth",
        "epoch-2-iter-25.pth",
        "epoch-2-iter-100.pth",
        "epoch-2.pth",
        "epoch-9.pth",
        "epoch-10-iter-500.pth",
        "epoch-10.pth",
    ]
    for name in reversed(in_order):
        (tmp_path / name).touch()
    for name in ("epoch-11.state.pth", "epoch-12.pth.partial-7", "best.pth", "epoch-x.pth"):
        (tmp_path / name).touch()
    assert [path.name for path in CheckpointFolder(tmp_path).checkpoints()] == in_order
    assert CheckpointFolder(tmp_path / "nothing").checkpoints() == []
    here = checkpoint.progress_at(30, 10)  # after epoch-2
    ahead = [name for name in in_order if checkpoint.progress_of(name) > here]
    assert ahead == in_order[5:]
    start = checkpoint.progress_at(0, 10)
    assert all(checkpoint.progress_of(name) > start for name in in_order)
    assert [checkpoint.steps_of(name, 50) for name in in_order] == [
        5,
        50,
        150,
        150,
        150,
        500,
        550,
        550,
    ]
    assert checkpoint.steps_of("downloaded.pth", 50) == 0


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "epoch-0.pth"
    output.write_atomically(path, lambda file: file.write(b"old"))

    def fail(file: object) -> None:
        file.write(b"half of the new")
        raise OSError("disk full")

    with pytest.raises(OSError, match=r"epoch-0.pth could not be written \(disk full\)"):
        output.write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_weights_are_written_last_and_are_plain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    whole = saving.write_atomically
    monkeypatch.setattr(
        saving,
        "write_atomically",
        lambda path, *rest: (written.append(path.name), whole(path, *rest)),
    )
    weights = {"a": torch.ones(2), "b": torch.zeros(3, dtype=torch.int64)}
    saving.write_checkpoint(tmp_path / "new" / "epoch-3.pth", weights, {"format": 2})
    assert written == ["epoch-3.state.pth", "epoch-3.pth"]
    read = torch.load(tmp_path / "new" / "epoch-3.pth", weights_only=True)
    assert list(read) == ["a", "b"] and torch.equal(read["a"], weights["a"])


def small_checkpoint(folder: Path) -> Path:
    path = folder / "epoch-3.pth"
    weights = {"a.weight": torch.randn(7, 5), "a.bias": torch.randn(3), "n": torch.tensor(4)}
    state = {name: {} for name in checkpoint.STATE_KEYS} | {
        "format": checkpoint.STATE_FORMAT,
        "step": 9,
    }
    state["optimizer"] = {"state": {0: {"exp_avg": torch.randn(7, 5)}}, "param_groups": [{"lr": 1}]}
    saving.write_checkpoint(path, weights, state)
    return path


def found_out(path: Path) -> bool:
    try:
        checkpoint.read_checkpoint(path)
    except (WeightsFileError, checkpoint.CheckpointError):
        return True
    return False


def test_every_truncation_and_every_flipped_bit_is_found(tmp_path: Path) -> None:
    """200 truncations and 1,000 flipped bits at random places of both files."""
    path = small_checkpoint(tmp_path)
    assert checkpoint.read_checkpoint(path).state["step"] == 9
    rng = random.Random(6)
    for number in range(1200):
        spoilt = rng.choice([path, checkpoint.state_path(path)])
        content = spoilt.read_bytes()
        if number < 200:
            length = rng.randrange(len(content)) if number >= 10 else len(content) - 1 - number
            spoilt.write_bytes(content[:length])
            what = f"{spoilt.name} cut to {length} of {len(content)} bytes"
        else:
            place, bit = rng.randrange(len(content)), rng.randrange(8)
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            spoilt.write_bytes(flipped)
            what = f"bit {bit} of byte {place} of {spoilt.name} ({len(content)} bytes) flipped"
        assert found_out(path), what
        spoilt.write_bytes(content)
    assert not found_out(path)


def test_a_sealed_file_is_an_ordinary_archive(tmp_path: Path) -> None:
    path = small_checkpoint(tmp_path)
    content, seal = path.read_bytes()[:-71], path.read_bytes()[-71:]
    assert seal == b"sha256:" + hashlib.sha256(content).hexdigest().encode()
    weights = checkpoint.read_checkpoint(path).weights
    for loaded in (
        torch.load(path, weights_only=True),
        torch.load(path, weights_only=True, mmap=True),
    ):
        assert all(torch.equal(loaded[name], weights[name]) for name in weights)
    assert zipfile.ZipFile(path).testzip() is None


def test_the_state_of_another_run_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    path, other = small_checkpoint(tmp_path), small_checkpoint(tmp_path / "other")
    checkpoint.state_path(path).write_bytes(checkpoint.state_path(other).read_bytes())
    with pytest.raises(checkpoint.CheckpointError, match="it is of another run"):
        checkpoint.read_checkpoint(path)
    torch.save({"format": 2, "epoch": 4}, checkpoint.state_path(path))
    with pytest.raises(checkpoint.CheckpointError, match="but of another program"):
        checkpoint.read_checkpoint(path)


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_what_a_state_file_holds_is_never_executed(tmp_path: Path) -> None:
    path = small_checkpoint(tmp_path)
    for protocol in (0, 2, 4):
        content = pickle.dumps({"format": 2, "step": Payload(tmp_path / "owned")}, protocol)
        checkpoint.state_path(path).write_bytes(content)
        assert found_out(path)
    torch.save({"format": 2, "step": Payload(tmp_path / "owned")}, checkpoint.state_path(path))
    with pytest.raises(WeightsFileError, match="reading it could run code"):
        checkpoint.read_checkpoint(path)
    assert not (tmp_path / "owned").exists()


def test_a_copy_is_of_the_moment_and_writes_are_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, running, at_once = threading.Event(), [], []
    write = saving.write_checkpoint

    def slow(*arguments: object) -> None:
        running.append(1)
        at_once.append(len(running))
        assert go_on.wait(60)
        write(*arguments)
        running.pop()

    monkeypatch.setattr(saving, "write_checkpoint", slow)
    weights = {"a": torch.zeros(3)}
    moments = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1}]}
    order = []
    with saving.Saver() as saver:
        saver.save(tmp_path / "1.pth", weights, {"optimizer": moments}, lambda: order.append(1))
        weights["a"] += 1  # training goes on
        moments["state"][0]["exp_avg"] += 1
        moments["param_groups"][0]["lr"] = 2
        assert order == []
        go_on.set()
        saver.save(tmp_path / "2.pth", weights, {"optimizer": moments}, lambda: order.append(2))
    assert order == [1, 2] and at_once == [1, 1]
    for name, value in (("1", 0), ("2", 1)):
        assert torch.load(tmp_path / f"{name}.pth")["a"].tolist() == [value] * 3
        state = torch.load(tmp_path / f"{name}.state.pth")["optimizer"]
        assert state["state"][0]["exp_avg"].tolist() == [value] * 3
        assert state["param_groups"][0]["lr"] == value + 1


def test_a_write_that_fails_is_told_at_the_next_step(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="folder"), saving.Saver() as saver:
        saver.save(tmp_path / "folder/1.pth", {"a": torch.zeros(3)}, {}, lambda: None)
        saver._thread.join()
        saver.check()
        raise AssertionError("the step went on")


def test_what_is_not_finite_is_not_written(tmp_path: Path) -> None:
    bad = torch.tensor([1.0, float("inf")])
    for weights, state in (({"a": bad}, {}), ({"a": torch.zeros(2)}, {"moments": [bad]})):
        with pytest.raises(checkpoint.CheckpointError, match="not finite"):
            saving.write_checkpoint(tmp_path / "1.pth", weights, state)
    assert list(tmp_path.iterdir()) == []
