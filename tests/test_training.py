"""The run as a user types it: transfer, train, resume, exactly; what it writes; the real data."""

import csv
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from conftest import REAL, make_data, published_file, published_state
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train_base
from model import MattingBase
from model.download import WEIGHTS
from training import checkpoint

ROOT = Path(train_base.__file__).parent


def run(data: Path, *arguments: object, backbone: str = "mobilenetv2", status: int = 0) -> None:
    argv = ["--dataset-dir", data, "--model-backbone", backbone, "--model-name", "run"]
    argv += ["--crop-size", 32, 64, "--batch-size", 4, "--num-workers", 0, "--device", "cpu"]
    assert train_base.main([str(word) for word in [*argv, *arguments]]) == status


def weights(name: str) -> dict[str, torch.Tensor]:
    return torch.load(name, weights_only=True)


def same(one: dict, other: dict) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("stop", "before", "after"), [(2, 0, 0), (2, 2, 2), (3, 2, 0), (1, 0, 2)])
def test_a_resumed_run_equals_one_that_was_never_stopped(
    data: Path, here: Path, stop: int, before: int, after: int
) -> None:
    run(data, "--max-steps", 4, "--model-name", "whole")
    run(data, "--max-steps", stop, "--num-workers", before)
    run(data, "--max-steps", 4, "--num-workers", after, "--model-last-checkpoint", "auto")
    name = "epoch-1.pth"
    assert same(weights(f"checkpoint/run/{name}"), weights(f"checkpoint/whole/{name}"))
    whole = checkpoint.load_state(Path("checkpoint/whole") / name)
    resumed = checkpoint.load_state(Path("checkpoint/run") / name)
    assert resumed["step"] == whole["step"] == 4
    for index, moments in whole["optimizer"]["state"].items():
        assert same(resumed["optimizer"]["state"][index], moments)


def test_steps_change_what_they_should(data: Path, here: Path) -> None:
    """Guards the test above against a loop that trains nothing."""
    run(data, "--max-steps", 2, "--checkpoint-interval", 1)
    first, second = (
        weights("checkpoint/run/epoch-0-iter-1.pth"),
        weights("checkpoint/run/epoch-0.pth"),
    )
    changed = [name for name in first if not torch.equal(first[name], second[name])]
    assert len(changed) > 0.99 * len(first)  # a ReLU6 may leave a bias without gradient


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_it_learns_from_random_weights(data: Path, here: Path, seed: int) -> None:
    rates = ["--lr-backbone", 2e-3, "--lr-aspp", 2e-3, "--lr-decoder", 2e-3]
    length = ["--max-steps", 80, "--epoch-end", 100, "--checkpoint-interval", 1000]
    run(data, *rates, *length, "--crop-size", 64, 64, "--seed", seed)
    with Path("log/run/results.csv").open() as file:
        before, after = (float(row["mad"]) for row in csv.DictReader(file))
    assert after < before / 2


@pytest.mark.parametrize("backbone", ["mobilenetv2", "resnet50"])
def test_transfer_then_resume_without_transfer(
    data: Path, here: Path, capsys: pytest.CaptureFixture, backbone: str
) -> None:
    listing = f"vainf_deeplabv3_{backbone.removesuffix('v2')}"
    deeplab = published_file(here / "deeplab.pth", listing)
    initial = ["--model-pretrain-initialization", deeplab]
    run(data, *initial, "--max-steps", 1, "--lr-backbone", 1e-12, backbone=backbone)
    told = capsys.readouterr().out
    assert {"mobilenetv2": "341/362", "resnet50": "353/374"}[backbone] in told
    report = json.loads(Path("log/run/transfer.json").read_text())
    assert set(report) >= {"matched", "mismatched", "missing", "unused"}
    name = report["matched"][-40]  # in the backbone, whose learning rate is next to nothing
    source = published_state(listing)[
        name.replace("backbone.features", "backbone.high_level_features")
    ]
    trained = weights("checkpoint/run/epoch-0-iter-1.pth")[name]
    assert name.startswith("backbone.")
    torch.testing.assert_close(trained, source)

    Path("log/run/transfer.json").unlink()
    last = "checkpoint/run/epoch-0-iter-1.pth"
    run(data, *initial, "--model-last-checkpoint", last, "--max-steps", 2, backbone=backbone)
    told = capsys.readouterr().out
    assert "deeplab.pth is not transferred: the run continues" in told
    assert f"continuing {last} at step 2" in told
    assert not Path("log/run/transfer.json").exists()


def test_the_report_is_written_where_it_is_looked_for(
    data: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    deeplab = published_file(here / "deeplab.pth", "vainf_deeplabv3_mobilenet")
    run(data, "--model-pretrain-initialization", deeplab, "--max-steps", 1)
    checksum = hashlib.sha256(deeplab.read_bytes()).hexdigest()
    report = json.loads(Path("log/run/transfer.json").read_text())
    assert (report["sha256"], report["found_in"]) == (checksum, "model_state")
    assert report["source"] == "DeepLabV3 (VainF)" and len(report["matched"]) == 341
    assert (report["modules"]["aspp"]["entries"], report["stem"]) == (36, "random")
    events = EventAccumulator("log/run").Reload()
    text = events.Tensors("transfer/text_summary")[0].tensor_proto.string_val[0].decode()
    for told in (text, capsys.readouterr().out):
        assert checksum in told and "341/362" in told and "20 not in the file" in told


def test_the_word_torchvision_and_the_rgb_stem(
    data: Path, here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(here / "cache"))
    cached = here / "cache/hub/checkpoints" / WEIGHTS["mobilenetv2"].url.rsplit("/", 1)[1]
    cached.parent.mkdir(parents=True)
    torch.save(torchvision.models.mobilenet_v2(weights=None).state_dict(), cached)
    words = ["--model-pretrain-initialization", "torchvision", "--model-pretrain-stem", "rgb"]
    run(data, *words, "--max-steps", 1)
    assert "ImageNet MobileNetV2 (torchvision)" in capsys.readouterr().out
    report = json.loads(Path("log/run/transfer.json").read_text())
    assert report["folded"] == ["backbone.features.0.0.weight"] and len(report["matched"]) == 305


def test_a_partial_source_needs_a_flag(
    data: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    state = published_state("vainf_deeplabv3_mobilenet")
    del state["classifier.classifier.0.project.0.weight"]
    torch.save(state, "part.pth")
    words = ["--model-pretrain-initialization", "part.pth", "--max-steps", 1]
    run(data, *words, status=2)
    assert "part.pth: the file looks like DeepLabV3 (VainF)" in capsys.readouterr().err
    assert not Path("log/run").exists() and not Path("checkpoint/run").exists()
    run(data, *words, "--model-pretrain-partial")
    assert "warning: 1 entries" in capsys.readouterr().out
    assert json.loads(Path("log/run/transfer.json").read_text())["lacking"] == [
        "aspp.project.0.weight"
    ]


@pytest.mark.skipif(not REAL.is_dir(), reason="the small real data set is not beside the project")
@pytest.mark.parametrize(
    "precision",
    ["fp32", pytest.param("bf16", marks=pytest.mark.slow)],  # some processors emulate it
)
def test_both_commands_on_real_photographs(here: Path, precision: str) -> None:
    published_file(here / "deeplab.pth", "vainf_deeplabv3_resnet50")
    command = [sys.executable, str(ROOT / "train_base.py"), "--dataset-dir", str(REAL)]
    command += ["--crop-size", "32", "32", "--precision", precision, "--device", "cpu"]
    command += ["--model-backbone", "resnet50", "--num-workers", "1"]
    first = [*command, "--model-pretrain-initialization", "deeplab.pth", "--max-steps", "4"]
    done = subprocess.run(first, capture_output=True, text=True, check=True, cwd=here)
    assert "353/374" in done.stdout
    last = "checkpoint/mattingbase-resnet50-real/epoch-3.pth"
    second = [*command, "--model-last-checkpoint", last, "--max-steps", "5"]
    done = subprocess.run(second, capture_output=True, text=True, check=True, cwd=here)
    assert f"continuing {last} at step 5" in done.stdout
    assert "Transferred" not in done.stdout
    assert (here / "checkpoint/mattingbase-resnet50-real/epoch-4.pth").exists()


def test_bf16_trains_and_keeps_float32_weights(data: Path, here: Path) -> None:
    run(data, "--max-steps", 2, "--precision", "bf16")
    trained = weights("checkpoint/run/epoch-0.pth")
    assert all(value.isfinite().all() for value in trained.values())
    assert {value.dtype for value in trained.values()} == {torch.float32, torch.int64}


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


def test_what_a_run_writes(data: Path, here: Path) -> None:
    intervals = ["--log-train-loss-interval", 1, "--log-train-images-interval", 2]
    run(data, "--max-steps", 4, *intervals, "--log-valid-interval", 2)
    events = EventAccumulator("log/run", size_guidance={"scalars": 0, "images": 0}).Reload()
    terms = ["loss", "alpha", "gradient", "foreground", "error"]
    expected = {f"train/{name}": [1, 2, 3, 4] for name in terms}
    expected |= {f"valid/{name}": [0, 2, 4] for name in [*terms, "mad", "mse", "grad"]}
    expected |= {f"learning_rate/{name}": [1, 2, 3, 4] for name in ("backbone", "aspp", "decoder")}
    expected |= {
        f"run/{name}": [1, 2, 3, 4]
        for name in ("images_per_s", "waiting_share", "gradient_scale", "gradient_norm")
    }
    scalars = {tag: [e.step for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert scalars == expected
    losses = {name: events.Scalars(f"train/{name}")[2].value for name in terms}
    assert losses["loss"] == pytest.approx(sum(losses[name] for name in terms[1:]), rel=1e-5)
    assert all(0 <= e.value <= 1 for e in events.Scalars("run/waiting_share"))

    shown = ["src", "bgr", "true_pha", "pred_pha", "true_fgr", "pred_fgr", "composite", "pred_err"]
    pictures = {tag: [e.step for e in events.Images(tag)] for tag in events.Tags()["images"]}
    assert pictures == {f"train/{name}": [2, 4] for name in shown} | {
        f"valid/{name}": [0, 2, 4] for name in shown
    }

    with Path("log/run/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["epoch"]) for row in rows] == [("0", "0"), ("2", "1"), ("4", "2")]
    for row, event in zip(rows, events.Scalars("valid/mad"), strict=True):
        assert float(row["mad"]) == pytest.approx(event.value, rel=1e-4)
    assert len({row["start"] for row in rows}) == 1
    assert Image.open("log/run/results.png").width > 1000
    # Four validation samples below each other, four pictures of 64 pixels side by side.
    assert Image.open("log/run/preview.png").size == (4 * 68 + 4, 4 * 68 + 4)


def test_a_last_batch_of_one_is_filled_up(tmp_path: Path, here: Path) -> None:
    make_data(tmp_path / "five", train=5)
    run(tmp_path / "five", "--epoch-end", 1)
    assert checkpoint.load_state(Path("checkpoint/run/epoch-0.pth"))["step"] == 2


def test_a_dry_run_tries_everything_and_leaves_no_checkpoint(data: Path, here: Path) -> None:
    deeplab = published_file(here / "deeplab.pth", "vainf_deeplabv3_mobilenet")
    run(data, "--dry-run", "--model-pretrain-initialization", deeplab)
    assert [path.name for path in Path("log/run").iterdir()] == ["batch.png"]
    assert not Path("checkpoint").exists()
    picture = Image.open("log/run/batch.png")
    assert (picture.width - 4) % 4 == 0 and picture.height > 4 * 32

    run(data, "--max-steps", 1)
    before = sorted(Path("checkpoint/run").iterdir())
    run(data, "--dry-run", "--model-last-checkpoint", "auto")
    assert sorted(Path("checkpoint/run").iterdir()) == before


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
        patch.setattr("training.validation.matting_loss", lambda *_: 1 / 0)
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
    names = [path.name for path in checkpoint.find_checkpoints(folder)]
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
    assert "step 7 counts as 3, where the next epoch begins" in capsys.readouterr().out
    found = checkpoint.find_checkpoints(Path("checkpoint/run"))
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
    assert "holds 2 checkpoint(s) ahead" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_what_was_trained_before_a_bad_picture_is_kept(
    tmp_path: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    own = make_data(tmp_path / "own")
    path = own / "train/fgr/clip1/0003.jpg"
    path.write_bytes(path.read_bytes()[:-200])  # its header is whole
    run(own, "--batch-size", 2, "--seed", 0, status=2)  # with this seed it is in the second batch
    assert "0003.jpg cannot be decoded" in capsys.readouterr().err
    kept = checkpoint.find_checkpoints(Path("checkpoint/run"))
    assert [path.name for path in kept] == ["epoch-0-iter-1.pth"]


def test_what_has_diverged_is_not_saved(
    data: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    run(data, "--max-steps", 2, "--lr-backbone", 1e30, status=2)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "not finite" in error and "lower learning rate" in error
    assert not list(Path("checkpoint/run").glob("*.pth"))


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
def test_auto_falls_back_to_the_newest_whole_checkpoint(
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
        assert "no checkpoint in checkpoint/run is whole" in capsys.readouterr().err


def test_whole_weights_are_better_than_older_ones_where_no_state_is_whole(
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
    with checkpoint.only_run_in(folder):
        (folder / "epoch-0.pth.partial-123").write_bytes(b"half")
        run(data, "--max-steps", 1, status=2)
        assert "another run is alive in checkpoint/run" in capsys.readouterr().err
        assert (folder / "epoch-0.pth.partial-123").exists()  # it may be the other's
    run(data, "--max-steps", 1)
    assert "partial-123, which a killed run left half written" in capsys.readouterr().out
    assert not (folder / "epoch-0.pth.partial-123").exists()


def test_dropout_is_drawn_anew_at_every_step(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    seed = MattingBase.seed_dropout
    monkeypatch.setattr(
        MattingBase, "seed_dropout", lambda self, seeds: (given.extend(seeds), seed(self, seeds))
    )
    run(data, "--max-steps", 3)
    assert len(given) == len(set(given)) == 3 * 4  # each sample of each step has its own


def told_mad(monkeypatch: pytest.MonkeyPatch, *values: float) -> None:
    """What validation measures, one value each time."""
    remaining = list(values)
    monkeypatch.setattr(
        "training.metrics.mad", lambda pred, _true: torch.full((len(pred),), remaining.pop(0))
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
        "step": 5, "mad": 2.0,
    }  # fmt: skip


def test_best_weights_that_a_start_does_not_know_of_are_not_lost(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(data, "--max-steps", 1)
    Path("checkpoint/run/epoch-0-iter-1.state.pth").unlink()
    Path("checkpoint/run/best.pth").write_bytes(b"of another start")
    run(data, "--max-steps", 2, "--model-last-checkpoint", "auto")
    assert Path("checkpoint/run/best.pth.set-aside").read_bytes() == b"of another start"
    assert same(weights("checkpoint/run/best.pth"), weights("checkpoint/run/epoch-0.pth"))


def test_validation_measures_connectivity_if_asked_for(data: Path, here: Path) -> None:
    run(data, "--max-steps", 1)
    run(data, "--max-steps", 2, "--valid-conn", "--model-last-checkpoint", "auto")
    with Path("log/run/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["conn"] for row in rows[:2]] == ["", ""] and float(rows[2]["conn"]) > 0
    assert all(float(row["grad"]) > 0 for row in rows)


def test_a_table_of_another_version_is_kept(data: Path, here: Path) -> None:
    Path("log/run").mkdir(parents=True)
    Path("log/run/results.csv").write_text("step,mad\r\n0,300\r\n")
    run(data, "--max-steps", 1)
    assert Path("log/run/results.csv.set-aside").read_text() == "step,mad\n0,300\n"
    assert len(Path("log/run/results.csv").read_text().splitlines()) == 3
