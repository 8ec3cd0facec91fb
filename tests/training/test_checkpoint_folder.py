"""The folder of checkpoints: what is in it, what is continued, what goes. No run is needed."""

from pathlib import Path

import pytest
import torch

from training import checkpoint, saving
from training.checkpoint_folder import CheckpointFolder

EPOCH_STEPS = 2


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    """Checkpoints after each of 5 steps, and the best weights."""
    found = CheckpointFolder(tmp_path / "run")
    for step in range(1, 6):
        state = dict.fromkeys(checkpoint.STATE_KEYS, 0)
        state |= {"format": checkpoint.STATE_FORMAT, "step": step}
        weights = {"a": torch.full((3,), float(step))}
        saving.write_checkpoint(found.path_after(step, EPOCH_STEPS), weights, state)
    saving.write_weights(found.best, {"a": torch.zeros(3)})
    return found


def names(folder: CheckpointFolder) -> list[str]:
    return sorted(path.name for path in folder.path.rglob("*.pth*"))


def test_each_checkpoint_is_there_and_those_ahead_of_a_step(folder: CheckpointFolder) -> None:
    every = [folder.path_after(step, EPOCH_STEPS) for step in range(1, 6)]
    assert folder.checkpoints() == every
    for step in range(6):
        assert folder.ahead(step, EPOCH_STEPS) == every[step:]
    assert all(map(folder.has, every))
    assert not folder.has(folder.best) and not folder.has(folder.path / "epoch-9.pth")


def test_the_newest_intact_one_is_continued(folder: CheckpointFolder) -> None:
    newest, before, oldest = (folder.path_after(step, EPOCH_STEPS) for step in (5, 4, 3))
    assert folder.newest_intact(set_aside=True).path == newest
    newest.write_bytes(newest.read_bytes()[:-9])
    checkpoint.state_path(before).write_bytes(b"")
    files = names(folder)
    assert folder.newest_intact(set_aside=False).path == oldest
    assert names(folder) == files
    assert folder.newest_intact(set_aside=True).path == oldest
    aside = [newest, checkpoint.state_path(newest), before, checkpoint.state_path(before)]
    assert all(path.with_name(f"{path.name}.set-aside").exists() for path in aside)
    assert folder.checkpoints()[-1] == oldest


def test_where_no_checkpoint_is_intact_none_is_renamed(folder: CheckpointFolder) -> None:
    for path in folder.checkpoints():
        path.write_bytes(b"")
    files = names(folder)
    with pytest.raises(checkpoint.CheckpointError, match=str(folder.path)):
        folder.newest_intact(set_aside=True)
    assert names(folder) == files
    assert CheckpointFolder(folder.path / "none").newest_intact(set_aside=True) is None


def test_old_states_go_and_the_weights_of_epochs_stay(folder: CheckpointFolder) -> None:
    folder.prune(keep=2)
    assert names(folder) == [
        "best.pth",
        "epoch-0.pth",
        "epoch-1.pth",
        "epoch-1.state.pth",
        "epoch-2-iter-5.pth",
        "epoch-2-iter-5.state.pth",
    ]
    before = names(folder)
    folder.prune(keep=2)
    assert names(folder) == before


def test_what_is_put_aside_is_not_found_and_goes_when_it_is_replaced(
    folder: CheckpointFolder,
) -> None:
    files = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    folder.put_aside([*folder.checkpoints(), folder.best])
    assert folder.checkpoints() == [] and folder.newest_intact(set_aside=True) is None
    assert {path.name: path.read_bytes() for path in folder.path.rglob("*.pth")} == files
    removed = folder.remove_replaced()
    assert sorted(removed) == sorted(name for name in files if ".state" not in name)
    assert list(folder.path.iterdir()) == []


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    folder = CheckpointFolder(tmp_path / "new" / "run")
    with folder.held():
        partial = folder.path / "epoch-0.pth.partial-1"
        partial.write_bytes(b"of the holder")
        with (
            pytest.raises(checkpoint.CheckpointError, match=str(folder.path)),
            CheckpointFolder(folder.path).held(),
        ):
            raise AssertionError("held twice")
        assert partial.exists()
    with folder.held():
        assert not partial.exists()
    with CheckpointFolder(tmp_path / "other" / "run").held():
        pass
    assert not (tmp_path / "other").exists()
