"""The second stage's run: its options, and where it begins."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dataset.sample import MattingDataset
from model import MattingBase, MattingRefine
from tests.support import ROOT, on_photos
from tests.support.published import published_file
from tests.support.running import AUTO, error_of, run, same, weights
from training import checkpoint
from training.options import parse_refine_options
from training.refined import RefinedShare
from training.team import Team

pytestmark = pytest.mark.usefixtures("tiny_network_throughout")
REFINE = {"script": "train_refine"}
FEW = ["--max-steps", 1, "--crop-size", 64, 64, "--batch-size", 2]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a base network, as another program writes them: without a state."""
    path = tmp_path_factory.mktemp("base") / "base.pth"
    torch.manual_seed(1)
    torch.save(MattingBase("mobilenetv2").state_dict(), path)
    return path


# ---- Options ------------------------------------------------------------------------------------


def test_the_published_command_line_is_taken() -> None:
    typed = """--dataset-name videomatte240k --model-backbone resnet101 --model-name NAME
        --model-backbone-scale 0.125 --model-refine-mode thresholding
        --model-refine-sample-pixels 320000 --model-refine-thresholding 0.1
        --model-refine-kernel-size 1 --model-last-checkpoint PATH --batch-size 8 --num-workers 16
        --epoch-start 1 --epoch-end 2 --log-train-loss-interval 10
        --log-train-images-interval 1000 --log-valid-interval 2000 --checkpoint-interval 2000"""
    options = parse_refine_options(typed.split())
    assert (options.model_backbone_scale, options.model_refine_threshold) == (0.125, 0.1)
    assert (options.model_refine_kernel_size, options.model_refine_sample_pixels) == (1, 320_000)
    assert parse_refine_options(["--model-refine-threshold", "0.2"]).model_refine_threshold == 0.2


def test_the_recipe_is_the_published_one() -> None:
    options = parse_refine_options([])
    assert options.model_name == "mattingrefine-resnet50-demo"
    rates = (options.lr_backbone, options.lr_aspp, options.lr_decoder, options.lr_refiner)
    assert rates == (5e-5, 5e-5, 1e-4, 3e-4)
    assert (options.batch_size, options.crop_size, options.fgr_scale) == (4, [1024, 2048], (0.3, 1))
    network = (options.model_backbone_scale, options.model_refine_mode)
    assert (*network, options.model_refine_threshold) == (0.25, "sampling", 0.7)
    assert (options.model_refine_sample_pixels, options.model_refine_kernel_size) == (80_000, 3)
    intervals = (
        options.log_train_loss_interval,
        options.log_train_images_interval,
        options.log_valid_interval,
        options.checkpoint_interval,
    )
    assert intervals == (10, 1000, 2000, 2000)
    words = ["--model-backbone-scale", "1/4", "--model-refine-threshold", "0"]
    typed = parse_refine_options(words)  # as predict.py takes them
    assert (typed.model_backbone_scale, typed.model_refine_threshold) == (0.25, 0)
    scaled = parse_refine_options(["--batch-size", "16", "--lr-scale", "sqrt"])
    assert scaled.lr_refiner == pytest.approx(6e-4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--model-backbone-scale 0.6", "0.6"),
        ("--model-backbone-scale 0.25 --crop-size 32 128", "type a MIN of 64 or more"),
        ("--model-refine-kernel-size 2", "--model-refine-kernel-size: invalid choice: 2"),
    ],
)
def test_what_no_network_can_be_is_refused(
    capsys: pytest.CaptureFixture, words: str, said: str
) -> None:
    with pytest.raises(SystemExit):
        parse_refine_options(words.split())
    assert said in capsys.readouterr().err


# ---- Data and validation ------------------------------------------------------------------------


def test_training_makes_figures_as_small_as_its_stage_says_and_validation_none(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, init = [], MattingDataset.__init__

    def noting(dataset: MattingDataset, *arguments: object, **named: object) -> None:
        init(dataset, *arguments, **named)
        made.append((dataset.augmented, dataset.fgr_scale))

    monkeypatch.setattr(MattingDataset, "__init__", noting)
    run(data, *FEW, "--log-train-images-interval", 1, **REFINE)
    run(data, *FEW, "--model-name", "base", script="train_base")
    assert [scale for augmented, scale in made if augmented] == [(0.3, 1.0), (0.4, 1.0)]
    assert {augmented for augmented, _ in made} == {True, False}
    # What validation says of the second stage is of the coarse alpha, too.
    heads = [Path(f"log/{name}/results.csv").read_text().splitlines() for name in ("run", "base")]
    coarse = ["coarse_mad", "coarse_mse", "coarse_grad"]
    assert heads[0][0].split(",")[-6:] == ["mad", "mse", "grad", *coarse]
    assert heads[1][0].split(",")[-4:] == ["error", "mad", "mse", "grad"]
    # Both networks' batches were shown: of one, whole ones over zoomed ones.
    sizes = [Image.open(f"log/{name}/preview.png").size for name in ("run", "base")]
    assert sizes[0][0] == sizes[1][0] and sizes[0][1] == 2 * sizes[1][1] - 4


# ---- Starts -------------------------------------------------------------------------------------


def empty(kind: type, backbone: str) -> MattingBase:
    """A network whose weights are all 1: to draw them takes seconds."""
    with torch.device("meta"):
        model = kind(backbone)
    model = model.to_empty(device="cpu")
    for value in model.state_dict().values():
        value.fill_(1)
    return model


@pytest.mark.published
@pytest.mark.parametrize(
    ("backbone", "matched", "entries"),
    [("resnet50", 374, 394), ("resnet101", 680, 700), ("mobilenetv2", 362, 382)],
)
def test_a_base_network_fills_all_but_the_refiner(
    backbone: str, matched: int, entries: int
) -> None:
    from model.transfer import transfer

    kinds = (MattingBase, MattingRefine, MattingRefine)
    base, model, again = (empty(kind, backbone) for kind in kinds)
    report = transfer(model, base.state_dict())
    assert report.source == "MattingBase" and f" {matched}/{entries} " in report.table()
    assert all(name.startswith("refiner.") for name in report.missing)
    behind = {f"module.{name}": value for name, value in model.state_dict().items()}
    whole = transfer(again, behind)
    assert whole.source == "MattingRefine" and len(whole.matched) == entries


def test_it_begins_with_a_base_checkpoint_and_continues_its_own(
    data: Path, here: Path, base: Path, capsys: pytest.CaptureFixture
) -> None:
    # The published command line: a base file as the last checkpoint.
    unread = ["--model-pretrain-initialization", "unread.pth"]
    run(data, *FEW, "--model-last-checkpoint", base, *unread, **REFINE)
    said = capsys.readouterr().out
    assert "unread.pth is not transferred" in said
    entries = len(weights(base))
    assert f"{base} is of the base stage" in said and f" {entries}/{entries + 20} " in said
    entry = json.loads(Path("log/run/run.json").read_text())[0]
    assert (entry["start"], entry["from"]) == ("transfer", str(base))
    assert entry["options"]["stage"] == "refine"
    # The same weights as an initialisation: the same run.
    run(data, *FEW, "--model-name", "two", "--model-pretrain-initialization", base, **REFINE)
    assert same(*(weights(f"checkpoint/{name}/epoch-0-iter-1.pth") for name in ("run", "two")))
    run(data, *FEW, "--max-steps", 2, *AUTO, **REFINE)
    assert "continuing checkpoint/run/epoch-0-iter-1.pth at step 2" in capsys.readouterr().out
    # Other settings of the refiner make another run; those of a mode that is not its, do not.
    again = [*FEW, "--max-steps", 3, *AUTO, "--model-refine-threshold", 0.3]
    for words in (
        ["--model-backbone-scale", 0.5],
        ["--model-refine-mode", "full"],
        ["--model-refine-sample-pixels", 160],
    ):
        run(data, *again, *words, status=2, **REFINE)
        said = error_of(capsys)
        assert f"{words[0]} was " in said and "--resume-anyway" in said
    run(data, *again, "--model-refine-kernel-size", 1, "--resume-anyway", status=2, **REFINE)
    assert "type --model-refine-kernel-size 3" in error_of(capsys)
    run(data, *again, **REFINE)
    expected = empty(MattingRefine, "mobilenetv2").state_dict()
    assert list(weights("checkpoint/run/epoch-0.pth")) == list(expected)


def test_a_file_of_one_stage_in_the_place_of_the_other(
    data: Path, here: Path, base: Path, capsys: pytest.CaptureFixture
) -> None:
    run(data, *FEW, "--model-name", "refined", **REFINE)
    own = Path("checkpoint/refined/epoch-0-iter-1.pth")
    for words, said in (
        (["--model-last-checkpoint", own], "train_refine.py"),
        (["--model-pretrain-initialization", own], "--model-pretrain-partial"),
        (["--model-name", "refined"], "refine stage, up to epoch-0-iter-1.pth; choose another"),
        (["--model-name", "refined", "--overwrite"], "choose another --model-name"),
        (["--model-name", "refined", *AUTO], "train_refine.py"),
    ):
        run(data, *FEW, *words, status=2, script="train_base")
        assert said in error_of(capsys)
    before = own.read_bytes()
    alone = ["--model-pretrain-initialization", own, "--model-pretrain-partial"]
    run(data, *FEW, *alone, "--model-name", "alone", script="train_base")
    assert "Transferred from MattingRefine" in capsys.readouterr().out
    for words, said in (
        (["--model-pretrain-initialization", own, "--model-refine-kernel-size", 1], "size 3"),
        (["--model-pretrain-initialization", base, "--model-backbone", "resnet50"], "mobilenetv2"),
        (["--model-last-checkpoint", base, "--model-backbone", "resnet50"], "mobilenetv2"),
    ):
        run(data, *FEW, *words, status=2, **REFINE)
        assert said in error_of(capsys)
    checkpoint.state_path(own).unlink()  # bare weights, as another program writes them
    run(data, *FEW, "--model-last-checkpoint", own, status=2, script="train_base")
    assert "train_refine.py" in error_of(capsys)
    assert own.read_bytes() == before and not Path("checkpoint/run").exists()


def test_a_run_of_the_base_stage_is_never_lost_to_this_one(
    data: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    run(data, *FEW, script="train_base")
    files = {path: path.read_bytes() for path in Path("checkpoint/run").iterdir()}
    for words in ([], ["--overwrite"], AUTO, ["--overwrite", *AUTO]):
        run(data, *FEW, *words, status=2, **REFINE)
        said = error_of(capsys)
        assert "checkpoint/run holds" in said and "choose another --model-name" in said
        assert "--model-pretrain-initialization checkpoint/run/epoch-0" in said
    best = ["--model-pretrain-initialization", "checkpoint/run/best.pth", "--overwrite"]
    run(data, *FEW, *best, status=2, **REFINE)
    assert "choose another --model-name" in error_of(capsys)
    # Under a name of its own the run begins there, whether the weights have a state or not.
    words = ["--model-last-checkpoint", "checkpoint/run/epoch-0-iter-1.state.pth"]
    run(data, *FEW, *words, "--model-name", "next", **REFINE)
    said = capsys.readouterr().out
    assert "epoch-0-iter-1.pth is of the base stage" in said and " 20 not in the file" in said
    assert Path("checkpoint/next/epoch-0-iter-1.pth").exists()
    assert {path: path.read_bytes() for path in Path("checkpoint/run").iterdir()} == files


# ---- What is refined ----------------------------------------------------------------------------


def test_a_base_network_of_random_weights_is_warned_of(
    data: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    run(data, *FEW, **REFINE)
    assert "--model-pretrain-initialization checkpoint/NAME/best.pth" in capsys.readouterr().out
    run(data, *FEW, "--model-name", "base", script="train_base")
    assert "random, too" not in capsys.readouterr().out


def test_a_refiner_that_learns_nothing_is_told_once(
    data: Path, here: Path, base: Path, capsys: pytest.CaptureFixture
) -> None:
    """An expected error above 0.99 is nowhere; the options of other modes are of no use."""
    nowhere = ["--model-refine-mode", "thresholding", "--model-refine-threshold", 0.99]
    nowhere += ["--model-refine-sample-pixels", 160, "--model-pretrain-initialization", base]
    run(data, *FEW, *nowhere, "--max-steps", 3, "--log-train-loss-interval", 1, **REFINE)
    said = capsys.readouterr().out
    assert said.count("nothing is refined in step") == 1
    assert "nowhere above --model-refine-threshold 0.99" in said
    assert "--model-refine-sample-pixels 160 is not used" in said
    saved = weights("checkpoint/run/epoch-0.pth")
    assert all(value.isfinite().all() for value in saved.values())


def test_what_another_process_refines_counts() -> None:
    class Two(Team):
        def all_reduce_sum(self, tensor: torch.Tensor) -> torch.Tensor:
            return tensor.add_(0.5)  # the other's

    said: list[str] = []
    refined = RefinedShare(parse_refine_options([]), said.append, Two(size=2))
    assert refined.numbers(1, torch.zeros(2, 1, 4, 4)) == {"refined_share": 0.25} and not said


def test_how_much_is_refined_is_logged(data: Path, here: Path) -> None:
    words = ["--log-train-loss-interval", 1, "--model-refine-mode", "full"]
    run(data, *FEW, *words, **REFINE)
    events = EventAccumulator("log/run").Reload()
    assert [e.value for e in events.Scalars("run/refined_share")] == [1.0]


@pytest.mark.parametrize("script", ["train_base", "train_refine"])
def test_a_dry_run_leaves_nothing_and_tells_of_small_pictures_once(
    data: Path, here: Path, capsys: pytest.CaptureFixture, script: str
) -> None:
    """The pictures of this data set are 72 and 96 pixels wide, and as high."""
    run(data, "--dry-run", "--batch-size", 2, "--crop-size", 64, 96, script=script)
    said = capsys.readouterr().out
    assert said.count(" are smaller than the largest crop ") == 1 and "(now 96)" in said
    assert "dry run: every part works" in said and not Path("checkpoint").exists()
    run(data, "--dry-run", "--batch-size", 2, "--crop-size", 64, 64, script=script)
    assert "smaller than" not in capsys.readouterr().out


# ---- Both stages --------------------------------------------------------------------------------


@pytest.mark.slow
@on_photos
def test_both_stages_on_photographs_by_the_commands_of_the_readme(here: Path, photos: Path) -> None:
    typed = re.findall(r"^    python (train_\w+\.py) (.*)$", (ROOT / "README.md").read_text(), re.M)
    assert [script for script, _ in typed] == 2 * ["train_base.py"] + ["train_refine.py"]
    published_file(here / "deeplab.pth", "vainf_deeplabv3_resnet50")
    small = ["--dataset-dir", str(photos), "--batch-size", "2", "--num-workers", "0"]
    small += ["--device", "cpu", "--epoch-end", "9", "--crop-size"]

    def start(number: int, steps: int, crops: tuple[int, int], *more: str) -> str:
        script, words = typed[number]
        command = [*shlex.split(words.replace("NAME", "mattingbase-resnet50-real")), *small]
        command += [*map(str, crops), "--max-steps", str(steps), *more]
        return subprocess.run(
            [sys.executable, str(ROOT / script), *command],
            cwd=here,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    epoch_steps = -(-len(list(photos.glob("train/fgr/*"))) // 2)
    assert "353/374" in start(0, 4 * epoch_steps, (32, 64))
    assert f"epoch-3.pth at step {4 * epoch_steps + 1}" in start(1, 4 * epoch_steps + 1, (32, 64))
    said = start(2, 1, (64, 128))
    assert "374/394" in said and "Transferred from MattingBase, resnet50" in said
    assert "at step 2" in start(2, 2, (64, 128), *AUTO)
    folder = here / "checkpoint/mattingrefine-resnet50-real"
    entries = torch.load(folder / "best.pth", weights_only=True)
    assert len(entries) == 394 and all(value.isfinite().all() for value in entries.values())
    assert (here / "log/mattingrefine-resnet50-real/preview.png").exists()
