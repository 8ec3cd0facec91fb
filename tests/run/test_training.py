"""The run as a user types it: transfer, train, what it writes; the real data."""

import csv
import hashlib
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import evaluate
import predict
from common import machine
from model import MattingBase, decoder
from model.download import WEIGHTS
from model.matting_base import Outputs
from prediction.predictor import Matter
from tests.support import PHOTOS, ROOT
from tests.support.drawn import make_data
from tests.support.published import published_file, published_state
from tests.support.running import AUTO, for_both, run, weights
from training import checkpoint
from training.checkpoint_folder import CheckpointFolder
from training.option_groups import LR_SCALES


def test_steps_change_what_they_should(data: Path, here: Path) -> None:
    """Nearly every entry: weights, running statistics and counters."""
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


@pytest.mark.published
@pytest.mark.parametrize(
    "backbone", ["mobilenetv2", pytest.param("resnet50", marks=pytest.mark.slow)]
)
def test_transfer_then_resume_without_transfer(
    data: Path, here: Path, capsys: pytest.CaptureFixture, backbone: str
) -> None:
    listing = f"vainf_deeplabv3_{backbone.removesuffix('v2')}"
    deeplab = published_file(here / "deeplab.pth", listing)
    initial = ["--model-pretrain-initialization", deeplab]
    run(data, *initial, "--max-steps", 1, "--lr-backbone", 1e-12, "--model-backbone", backbone)
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
    again = ["--model-last-checkpoint", last, "--max-steps", 2, "--model-backbone", backbone]
    run(data, *initial, *again)
    told = capsys.readouterr().out
    assert "deeplab.pth is not transferred: the run continues" in told
    assert f"continuing {last} at step 2" in told
    assert not Path("log/run/transfer.json").exists()


@pytest.mark.published
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


@pytest.mark.published
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


@pytest.mark.published
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


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])  # which some processors emulate
def test_both_commands_on_real_photographs(here: Path, precision: str) -> None:
    published_file(here / "deeplab.pth", "vainf_deeplabv3_resnet50")
    command = [sys.executable, str(ROOT / "train_base.py"), "--dataset-dir", str(PHOTOS)]
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


def commands_told(told: str) -> dict[str, list[str]]:
    """The words of each command that is printed at the end, by the script's name."""
    lines = [shlex.split(line[line.index(": ") + 2 :]) for line in told.splitlines()[-2:]]
    assert all(Path(words[1]).exists() for words in lines)
    return {Path(words[1]).stem: words[2:] for words in lines}


@for_both
def test_the_end_says_what_to_type_next(
    data: Path,
    here: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
) -> None:
    titles: list[str] = []
    monkeypatch.setattr("training.journal.draw_results", lambda *given: titles.append(given[2]))

    def ended(*more: object) -> str:
        run(data, "--model-name", "my run", *more, script=script)
        return capsys.readouterr().out

    told, best = ended("--max-steps", 1), Path("checkpoint/my run/best.pth")
    with Path("log/my run/results.csv").open() as file:
        mad = float(list(csv.DictReader(file))[-1]["mad"])
    assert f"{best} (step 1, validation MAD {mad:.2f} " in told.splitlines()[-3]
    typed = commands_told(told)
    assert {words[1] for words in typed.values()} == {str(best)}
    assert evaluate.main([*typed["evaluate"], "--device", "cpu", "--size", "64"]) == 0
    report = Path(typed["evaluate"][-1])
    assert report.parent == Path("log/my run") and report.stat().st_size > 1000
    for name in ("PHOTO.jpg", "EMPTY.jpg"):
        Image.new("RGB", (64, 48)).save(name)
    assert predict.main([*typed["predict"], "--device", "cpu"]) == 0
    assert list(Path("mattes").rglob("PHOTO.*"))
    again = commands_told(ended("--max-steps", 2, *AUTO))["evaluate"]
    assert not Path(again[-1]).exists()  # it would be refused
    assert set(titles) == {"my run"}


def test_the_end_names_the_newest_weights_where_there_are_no_best_ones(
    data: Path, here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(data, "--max-steps", 1)
    Path("elsewhere").mkdir()
    for path in Path("checkpoint/run").glob("epoch-0-iter-1.*"):
        path.rename(Path("elsewhere") / path.name)
    Path("checkpoint/run/best.pth").write_bytes(b"of another run")
    capsys.readouterr()
    monkeypatch.setattr("evaluation.metrics.mad", lambda pred, _true: torch.ones(len(pred)))
    state = torch.load("elsewhere/epoch-0-iter-1.state.pth")
    torch.save(state | {"best": {"step": 1, "mad": 0.5}}, "elsewhere/epoch-0-iter-1.state.pth")
    run(data, "--max-steps", 2, "--model-last-checkpoint", "elsewhere/epoch-0-iter-1.pth")
    told = capsys.readouterr().out
    assert "best.pth" not in told
    typed = commands_told(told)
    assert {words[1] for words in typed.values()} == {"checkpoint/run/epoch-0.pth"}
    assert Path("checkpoint/run/best.pth").read_bytes() == b"of another run"


def test_a_dry_run_names_no_weights_at_its_end(
    data: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    run(data, "--dry-run")
    assert "predict.py" not in capsys.readouterr().out


def test_a_last_batch_of_one_is_filled_up(tmp_path: Path, here: Path) -> None:
    make_data(tmp_path / "five", train=5)
    run(tmp_path / "five", "--epoch-end", 1)
    assert checkpoint.load_state(Path("checkpoint/run/epoch-0.pth"))["step"] == 2


@pytest.mark.published
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


def test_what_was_trained_before_a_bad_picture_is_kept(
    tmp_path: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    own = make_data(tmp_path / "own")
    path = own / "train/fgr/clip1/0003.jpg"
    path.write_bytes(path.read_bytes()[:-200])  # its header is whole
    run(own, "--batch-size", 2, "--seed", 0, status=2)  # with this seed it is in the second batch
    assert "0003.jpg cannot be decoded" in capsys.readouterr().err
    kept = CheckpointFolder(Path("checkpoint/run")).checkpoints()
    assert [path.name for path in kept] == ["epoch-0-iter-1.pth"]


def test_what_has_diverged_is_not_saved(
    data: Path, here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LR_SCALES, "linear", lambda _ratio: 1e34)  # above what may be typed
    run(data, "--max-steps", 2, "--lr-scale", "linear", status=2)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "not finite" in error and "lower learning rate" in error
    assert not list(Path("checkpoint/run").glob("*.pth"))


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


def test_nothing_is_joined_of_two_layouts(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training, in validation and by evaluate.py: torch would make it contiguous, and turn it
    over again."""
    join, joined = decoder._join, []

    def watched(*features: torch.Tensor) -> torch.Tensor:
        joined.append(join(*features))
        return joined[-1]

    monkeypatch.setitem(machine.LAYOUTS, "cpu", torch.channels_last)
    monkeypatch.setattr(decoder, "_join", watched)
    run(data, "--max-steps", 1)
    assert {each.requires_grad for each in joined} == {True, False}
    seen = len(joined)
    words = ["--model-checkpoint", "checkpoint/run/epoch-0-iter-1.pth", "--dataset-dir", str(data)]
    assert evaluate.main([*words, "--size", "64", "--device", "cpu"]) == 0
    assert len(joined) > seen
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in joined)


def test_hid_is_computed_nowhere(data: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In training, in validation, by evaluate.py and by predict.py: only a refiner needs it."""
    coarse, asked = MattingBase.coarse, []

    def watched(self: MattingBase, *arguments: object) -> Outputs:
        outputs = coarse(self, *arguments)
        asked.append((torch.is_grad_enabled(), outputs.hid is not None))
        return outputs

    monkeypatch.setattr(MattingBase, "coarse", watched)
    run(data, "--max-steps", 1)
    assert set(asked) == {(True, False), (False, False)}
    asked.clear()
    words = ["--model-checkpoint", "checkpoint/run/epoch-0-iter-1.pth", "--dataset-dir", str(data)]
    assert evaluate.main([*words, "--size", "64", "--device", "cpu"]) == 0
    assert set(asked) == {(False, False)}
    asked.clear()
    Matter("checkpoint/run/epoch-0-iter-1.pth", "cpu")(*torch.rand(2, 1, 3, 64, 64))
    assert asked == [(False, False)]


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
