"""A run that goes on: exactly, from what is whole; and nothing that is there is lost."""

import shutil
from pathlib import Path

import pytest
import torch

from tests.support.running import AUTO, error_of, run, same, weights
from training import checkpoint
from training.checkpoint_folder import CheckpointFolder


@pytest.mark.parametrize(
    ("script", "stop", "before", "after", "accumulate"),
    [
        ("train_base", 2, 0, 0, 1),
        ("train_base", 2, 2, 2, 1),
        ("train_base", 3, 2, 0, 2),
        ("train_base", 1, 0, 2, 1),
        ("train_refine", 3, 0, 2, 2),
        pytest.param("train_refine", 2, 2, 0, 1, marks=pytest.mark.slow),
        pytest.param("train_refine", 1, 0, 0, 1, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_equals_one_that_was_never_stopped(
    data: Path, here: Path, script: str, stop: int, before: int, after: int, accumulate: int
) -> None:
    def start(*words: object) -> None:
        run(data, *words, "--accumulate", accumulate, script=script)

    start("--max-steps", 4, "--model-name", "whole")
    start("--max-steps", stop, "--num-workers", before)
    start("--max-steps", 4, "--num-workers", after, *AUTO)
    name = "epoch-1.pth"
    assert same(weights(f"checkpoint/run/{name}"), weights(f"checkpoint/whole/{name}"))
    whole = checkpoint.load_state(Path("checkpoint/whole") / name)
    resumed = checkpoint.load_state(Path("checkpoint/run") / name)
    assert resumed["step"] == whole["step"] == 4
    for index, moments in whole["optimizer"]["state"].items():
        assert same(resumed["optimizer"]["state"][index], moments)


def test_auto_starts_fresh_and_then_continues(
    data: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    run(data, "--model-last-checkpoint", "auto", "--max-steps", 1)
    assert "this is a fresh start" in capsys.readouterr().out
    run(data, "--model-last-checkpoint", "auto", "--max-steps", 2)
    assert "epoch-0-iter-1.pth at step 2" in capsys.readouterr().out
    run(data, "--model-last-checkpoint", "auto", "--max-steps", 2)
    assert (
        "nothing to do: 2 steps are done; the limit is 2 (--max-steps 2)" in capsys.readouterr().out
    )


def test_an_initialisation_that_is_not_used_need_not_be_there(
    data: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    run(data, "--max-steps", 1)
    state = "checkpoint/run/epoch-0-iter-1.state.pth"  # which stands for the weights beside it
    gone = ["--model-pretrain-initialization", "moved-away.pth"]
    run(data, "--max-steps", 2, "--model-last-checkpoint", state, *gone)
    said = capsys.readouterr().out
    assert "epoch-0-iter-1.pth at step 2" in said and "moved-away.pth is not transferred" in said
    run(data, "--max-steps", 3, "--model-last-checkpoint", "auto", *gone)
    assert "epoch-0.pth at step 3" in capsys.readouterr().out
    fresh = ["--model-name", "fresh", "--model-last-checkpoint", "auto", *gone]
    run(data, "--max-steps", 1, *fresh, status=2)
    assert "there is no file moved-away.pth; check the path" in capsys.readouterr().err
    assert not Path("checkpoint/fresh").exists()


def test_bare_weights_start_the_optimizer_afresh(
    data: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    run(data, "--max-steps", 2)
    Path("checkpoint/run/epoch-0.pth").rename("downloaded.pth")
    before = weights("downloaded.pth")
    tiny = ["--lr-backbone", 1e-12, "--lr-aspp", 1e-12, "--lr-decoder", 1e-12]
    bare = ["--model-last-checkpoint", "downloaded.pth", "--model-name", "next", *tiny]
    run(data, *bare, "--epoch-start", 1, "--max-steps", 3)
    assert "the optimizer starts afresh, at step 3" in capsys.readouterr().out
    after = weights("checkpoint/next/epoch-1-iter-3.pth")
    name = "decoder.conv1.weight"
    torch.testing.assert_close(after[name], before[name])
    state = checkpoint.load_state(Path("checkpoint/next/epoch-1-iter-3.pth"))
    assert {int(moments["step"]) for moments in state["optimizer"]["state"].values()} == {1}


def test_a_learning_rate_typed_at_a_resume_counts(
    data: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    run(data, "--max-steps", 1)
    run(data, "--max-steps", 2, "--model-last-checkpoint", "auto", "--lr-aspp", 0.01)
    assert "note: --lr-aspp was 0.0005" in capsys.readouterr().out
    state = checkpoint.load_state(Path("checkpoint/run/epoch-0.pth"))
    assert [group["lr"] for group in state["optimizer"]["param_groups"]] == [1e-4, 0.01, 5e-4]


def test_earlier_checkpoints_are_never_overwritten_in_silence(
    data: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    run(data, "--max-steps", 2, "--checkpoint-interval", 1)
    folder = Path("checkpoint/run")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for words in (
        ["--max-steps", 1],
        ["--epoch-start", 1, "--max-steps", 3],
        ["--model-last-checkpoint", "elsewhere.pth", "--epoch-start", 1],
    ):
        if "elsewhere.pth" in words:
            shutil.copy(folder / "epoch-0.pth", "elsewhere.pth")
        run(data, *words, status=2)
        assert "already holds 2 checkpoint(s)" in capsys.readouterr().err
    run(data, "--max-steps", 1, status=2)
    error = capsys.readouterr().err
    assert "holds 2 checkpoint(s) ahead" in error and "--model-last-checkpoint auto" in error
    run(data, "--model-last-checkpoint", folder / "epoch-0-iter-1.pth", status=2)
    assert "up to epoch-0.pth" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_overwritten_checkpoints_go_only_when_there_is_a_new_one(
    data: Path, here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = ["--checkpoint-interval", 1, "--checkpoint-keep", 100]
    run(data, "--max-steps", 4, *keep)
    folder = Path("checkpoint/run")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr("training.validator.total", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(data, "--max-steps", 4, "--overwrite")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    source = folder / "epoch-0-iter-1.pth"
    run(data, "--model-last-checkpoint", source, "--overwrite", "--checkpoint-keep", 100)
    told = capsys.readouterr().out
    assert (
        "removed epoch-0.pth, epoch-1-iter-3.pth, epoch-1.pth, best.pth of an earlier run" in told
    )
    assert told.index("saved checkpoint/run/epoch-0.pth") < told.index("removed epoch-0.pth")
    names = [path.name for path in CheckpointFolder(folder).checkpoints()]
    assert names == ["epoch-0-iter-1.pth", *(f"epoch-{epoch}.pth" for epoch in range(8))]


def test_another_batch_size_goes_on_after_the_same_share_of_the_epochs(
    data: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    run(data, "--max-steps", 4)  # two epochs of two steps
    anyway = ["--model-last-checkpoint", "auto", "--resume-anyway"]
    run(data, "--batch-size", 2, "--max-steps", 7, *anyway)
    told = capsys.readouterr().out
    assert "warning: --batch-size was 4 and is 2" in told and "step 4 counts as 6" in told
    assert "continuing checkpoint/run/epoch-1.pth at step 7" in told
    # In mid-epoch: on from its end, so that what comes is newer by its name, too.
    run(data, "--batch-size", 6, "--max-steps", 4, *anyway)
    assert "step 7 counts as 3" in capsys.readouterr().out
    found = CheckpointFolder(Path("checkpoint/run")).checkpoints()
    assert [path.name for path in found][-2:] == ["epoch-2-iter-7.pth", "epoch-3.pth"]


def test_bare_weights_in_the_runs_own_folder_count_by_their_name(
    data: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    run(data, "--max-steps", 4)
    for path in Path("checkpoint/run").glob("*.state.pth"):
        path.unlink()
    absolute = here / "checkpoint/run/epoch-1.pth"
    run(data, "--max-steps", 5, "--model-last-checkpoint", absolute)
    assert "optimizer starts afresh, at step 5" in capsys.readouterr().out
    assert Path("checkpoint/run/epoch-2-iter-5.pth").exists()


def test_initialising_from_the_runs_own_file_overwrites_nothing(
    data: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    run(data, "--max-steps", 4)
    folder = Path("checkpoint/run")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    run(data, "--model-pretrain-initialization", folder / "epoch-1.pth", status=2)
    told = capsys.readouterr().err
    assert "choose another --model-name" in told
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_states_are_pruned_and_the_weights_of_epochs_kept(data: Path, here: Path) -> None:
    run(data, "--max-steps", 1)
    # Weights of the published program have no state file, and are not ours to remove.
    foreign = Path("checkpoint/run/epoch-0-iter-0.pth")
    foreign.write_bytes(b"theirs")
    Path("checkpoint/run/epoch-0.state.pth").write_bytes(b"a run was killed before the weights")
    run(data, "--max-steps", 7, "--checkpoint-interval", 1, "--model-last-checkpoint", "auto")
    assert foreign.read_bytes() == b"theirs"
    foreign.unlink()
    names = sorted(path.name for path in Path("checkpoint/run").glob("*.pth"))
    epochs = [f"epoch-{epoch}.pth" for epoch in (0, 1, 2)]
    last = ["epoch-2.state.pth", "epoch-3-iter-7.pth", "epoch-3-iter-7.state.pth"]
    assert names == sorted(["best.pth", *epochs, *last])


def test_a_run_that_is_killed_while_it_overwrites_loses_nothing(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(data, "--max-steps", 2)
    folder = Path("checkpoint/run")
    before = {path.name: path.read_bytes() for path in folder.glob("*.pth")}
    with monkeypatch.context() as patch:
        # As if killed between the two files of the first checkpoint.
        patch.setattr("training.saving.write_sealed", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(data, "--max-steps", 2, "--overwrite", "--seed", 9)
    kept = {path.name: path.read_bytes() for path in (folder / "replaced").glob("*.pth")}
    assert kept == before and not list(folder.glob("*.pth"))
    run(data, "--max-steps", 2, "--overwrite", "--seed", 9, "--model-last-checkpoint", "auto")
    assert checkpoint.load_state(folder / "epoch-0.pth")["options"]["seed"] == 9


@pytest.mark.parametrize("damage", ["weights cut", "weights changed", "state cut"])
def test_auto_falls_back_to_the_newest_intact_checkpoint(
    data: Path, here: Path, capsys: pytest.CaptureFixture, damage: str
) -> None:
    run(data, "--max-steps", 4)
    newest = Path("checkpoint/run/epoch-1.pth")
    path = checkpoint.state_path(newest) if "state" in damage else newest
    if "cut" in damage:
        path.write_bytes(path.read_bytes()[:-100])
    else:
        changed = weights(str(path))
        changed["decoder.conv4.bias"] += 1
        torch.save(changed, path)
    spoiled = path.read_bytes()
    run(data, "--max-steps", 3, "--model-last-checkpoint", "auto")
    told = capsys.readouterr().out
    assert f"passed over: {path}" in told or "does not belong to these weights" in told
    assert "continuing checkpoint/run/epoch-0.pth at step 3" in told
    assert path.with_name(path.name + ".set-aside").read_bytes() == spoiled  # nothing is lost
    assert not newest.exists() and not checkpoint.state_path(newest).exists()

    for path in Path("checkpoint/run").glob("*.state.pth"):
        path.write_bytes(b"")
    for path in Path("checkpoint/run").glob("epoch-?.pth"):
        path.write_bytes(b"")
    Path("checkpoint/run/epoch-1-iter-3.pth").unlink()
    for _ in range(2):  # a second try does not take the folder for empty, either
        run(data, "--model-last-checkpoint", "auto", status=2)
        assert "no checkpoint in checkpoint/run is intact" in capsys.readouterr().err


def test_intact_weights_are_better_than_older_ones_where_no_state_is_intact(
    data: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    run(data, "--max-steps", 5)
    checkpoint.state_path(Path("checkpoint/run/epoch-1.pth")).unlink()
    state = Path("checkpoint/run/epoch-2-iter-5.state.pth")
    state.write_bytes(state.read_bytes()[:-100])
    run(data, "--max-steps", 6, "--model-last-checkpoint", "auto")
    told = capsys.readouterr().out
    assert "start: weights of checkpoint/run/epoch-2-iter-5.pth" in told
    assert "the optimizer starts afresh, at step 6" in told
    assert state.with_name(state.name + ".set-aside").exists()


def test_two_runs_of_one_name_and_what_a_killed_one_leaves(
    data: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = Path("checkpoint/run")
    with CheckpointFolder(folder).held():
        (folder / "epoch-0.pth.partial-123").write_bytes(b"half")
        run(data, "--max-steps", 1, status=2)
        assert "alive in checkpoint/run" in capsys.readouterr().err
        assert (folder / "epoch-0.pth.partial-123").exists()  # it may be the other's
    run(data, "--max-steps", 1)
    assert "partial-123" in capsys.readouterr().out
    assert not (folder / "epoch-0.pth.partial-123").exists()


def told_mad(monkeypatch: pytest.MonkeyPatch, *values: float) -> None:
    """What validation measures, one value each time."""
    remaining = list(values)
    monkeypatch.setattr(
        "evaluation.metrics.mad", lambda pred, _true: torch.full((len(pred),), remaining.pop(0))
    )


def test_the_best_weights_so_far_are_kept(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = ["--log-valid-interval", 1, "--checkpoint-interval", 1, "--checkpoint-keep", 9]
    told_mad(monkeypatch, 1.0, 5.0, 3.0, 4.0)  # before the first step there is nothing trained
    run(data, "--max-steps", 3, *every)
    best = weights("checkpoint/run/best.pth")
    assert same(best, weights("checkpoint/run/epoch-0.pth"))
    assert not same(best, weights("checkpoint/run/epoch-1-iter-3.pth"))
    told_mad(monkeypatch, 3.5, 2.0)
    resumed = ["--model-last-checkpoint", "auto", *every]
    run(data, "--max-steps", 4, *resumed)
    assert same(best, weights("checkpoint/run/best.pth"))
    run(data, "--max-steps", 5, *resumed)
    assert same(weights("checkpoint/run/epoch-2-iter-5.pth"), weights("checkpoint/run/best.pth"))
    assert checkpoint.load_state(Path("checkpoint/run/epoch-2-iter-5.pth"))["best"] == {
        "step": 5,
        "mad": 2.0,
    }


def test_best_weights_that_a_start_does_not_know_of_are_not_lost(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(data, "--max-steps", 1)
    Path("checkpoint/run/epoch-0-iter-1.state.pth").unlink()
    Path("checkpoint/run/best.pth").write_bytes(b"of another start")
    run(data, "--max-steps", 2, "--model-last-checkpoint", "auto")
    assert Path("checkpoint/run/best.pth.set-aside").read_bytes() == b"of another start"
    assert same(weights("checkpoint/run/best.pth"), weights("checkpoint/run/epoch-0.pth"))


def test_a_checkpoint_of_another_stage_is_refused_as_that(
    data: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    run(data, "--max-steps", 1)
    path = Path("checkpoint/run/epoch-0-iter-1.state.pth")
    state = torch.load(path)
    assert state.pop("stage") == "base"
    torch.save(state, path)
    run(data, "--max-steps", 2, *AUTO)  # of a version that said none
    path = Path("checkpoint/run/epoch-0.state.pth")
    torch.save(torch.load(path) | {"stage": "refine"}, path)
    run(data, "--max-steps", 3, *AUTO, "--resume-anyway", status=2)
    said = error_of(capsys)
    assert "epoch-0.pth is a checkpoint of the refine stage" in said and "train_refine.py" in said
