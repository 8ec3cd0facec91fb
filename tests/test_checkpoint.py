"""Checkpoint files: named and found in order, whole at every instant."""

from pathlib import Path

import pytest
import torch

from training import checkpoint, saving


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
        "epoch-0-iter-5.pth", "epoch-0.pth", "epoch-2-iter-25.pth", "epoch-2-iter-100.pth",
        "epoch-2.pth", "epoch-9.pth", "epoch-10-iter-500.pth", "epoch-10.pth",
    ]  # fmt: skip
    for name in reversed(in_order):
        (tmp_path / name).touch()
    for name in ("epoch-11.state.pth", "epoch-12.pth.partial-7", "best.pth", "epoch-x.pth"):
        (tmp_path / name).touch()
    assert [path.name for path in checkpoint.find_checkpoints(tmp_path)] == in_order
    assert checkpoint.find_checkpoints(tmp_path / "nothing") == []
    here = checkpoint.progress_at(30, 10)  # after epoch-2
    ahead = [name for name in in_order if checkpoint.progress_of(name) > here]
    assert ahead == in_order[5:]
    start = checkpoint.progress_at(0, 10)
    assert all(checkpoint.progress_of(name) > start for name in in_order)
    assert [checkpoint.steps_of(name, 50) for name in in_order] == [
        5, 50, 150, 150, 150, 500, 550, 550,
    ]  # fmt: skip
    assert checkpoint.steps_of("downloaded.pth", 50) == 0


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "epoch-0.pth"
    saving.write_whole(path, lambda file: file.write(b"old"))

    def fail(file: object) -> None:
        file.write(b"half of the new")
        raise OSError("disk full")

    with pytest.raises(OSError, match=r"epoch-0.pth could not be written \(disk full\)"):
        saving.write_whole(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_weights_are_written_last_and_are_plain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    whole = saving.write_whole
    monkeypatch.setattr(
        saving, "write_whole", lambda path, *rest: (written.append(path.name), whole(path, *rest))
    )
    weights = {"a": torch.ones(2), "b": torch.zeros(3, dtype=torch.int64)}
    saving.write_checkpoint(tmp_path / "new" / "epoch-3.pth", weights, {"format": 2})
    assert written == ["epoch-3.state.pth", "epoch-3.pth"]
    read = torch.load(tmp_path / "new" / "epoch-3.pth", weights_only=True)
    assert list(read) == ["a", "b"] and torch.equal(read["a"], weights["a"])
