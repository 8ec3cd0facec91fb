"""evaluate.py with a MattingRefine: composed at full size, with the coarse alpha's figures."""

import json
from pathlib import Path

import pytest
import torch

from dataset.augmentation import augment
from dataset.folders import data_folders, open_split
from dataset.sample import collate
from evaluation import metrics
from evaluation.network import Compositions
from tests.support.evaluating import error_of, of_checkpoint, run
from tests.support.refining import network, reference_weights


@pytest.fixture(scope="module")
def refiner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "epoch-0.pth"
    torch.save(reference_weights("mobilenetv2", 3), path)
    return path


def test_figures_are_those_of_the_network_refined_and_coarse(
    refiner: Path, data: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    # All are refined: which of two nearly equal patches is chosen may differ by a batch's size.
    words = ["--size", 98, "--backbone-scale", "1/4", "--refine-mode", "full"]
    run(*of_checkpoint(refiner, data), *words, "--json", "out.json", "--report", "out.html")
    told = capsys.readouterr().out
    assert "MattingRefine" in told and "1/4, 25x25" in told and "all pixels" in told
    heads = [line for line in told.splitlines() if "SAD" in line and "coarse" in line]
    assert heads[-1].split()[-4:] == ["coarse", "MAD", "coarse", "Grad"]
    content = json.loads(Path("out.json").read_text())
    assert content["about"]["network"] == "MattingRefine" and content["about"]["size"] == 98
    assert content["about"]["backbone scale"] == 0.25
    assert content["about"]["refine mode"] == "full"
    assert not {"refine sample pixels", "refine threshold"} & content["about"].keys()
    compositions = Compositions(
        *open_split(data_folders("", data, print), "valid"), [0, 1], seed=0, captured=False
    )
    key = compositions.keys(None, 98)[1]
    src, bgr, true_pha, true_fgr = augment(collate([compositions[key]]), torch.device("cpu"))
    with torch.inference_mode():
        found = network(refine_mode="full")(src, bgr)
    coarse = torch.nn.functional.interpolate(found.pha_sm, (100, 100), mode="bilinear")[
        ..., :98, :98
    ]
    image = {each["name"]: each for each in content["images"]}[compositions.name(key)]
    for name, expected in (
        ("mad", metrics.mad(found.pha, true_pha)),
        ("grad", metrics.grad(found.pha, true_pha)),
        ("fgr_mse", metrics.fgr_mse(found.fgr, true_fgr, true_pha)),
        ("coarse_mad", metrics.mad(coarse, true_pha)),
        ("coarse_grad", metrics.grad(coarse, true_pha)),
    ):
        assert image[name] == pytest.approx(expected.item(), rel=1e-4), name
    assert image["coarse_mad"] != image["mad"]


def test_compositions_are_as_large_as_in_training(
    refiner: Path, checkpoint: Path, data: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluate.SIZE", 64)
    monkeypatch.setattr("evaluate.REFINE_SIZE", 128)
    words = ["--dataset-dir", data, "--num-workers", 0, "--backgrounds", 1, "--json", "out.json"]
    for weights, size, more in (
        (checkpoint, 64, []),
        (refiner, 128, []),
        (refiner, 64, ["--model-type", "mattingbase"]),
    ):
        run("--model-checkpoint", weights, *words, *more, "--overwrite")
        content = json.loads(Path("out.json").read_text())
        assert content["about"]["size"] == size
        refined = 80_000 if size == 128 else None
        assert content["about"].get("refine sample pixels") == refined
        assert ("network" in content["about"]) == ("coarse_mad" in content["mean"]) == (size == 128)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--refine-mode", "full"], ["--refine-mode", "MattingBase"]),
        (["--backbone-scale", "0.7"], ["--backbone-scale", "0.7"]),
    ],
)
def test_what_goes_with_a_refiner_alone(
    checkpoint: Path,
    data: Path,
    here: Path,
    capsys: pytest.CaptureFixture,
    more: list[str],
    named: list[str],
) -> None:
    said = error_of(capsys, *of_checkpoint(checkpoint, data), *more)
    assert all(word in said for word in named)
    said = error_of(capsys, "--pred-dir", here, "--true-dir", data, "--refine-pixels", 9)
    assert "--refine-pixels goes with --model-checkpoint" in said


@pytest.mark.parametrize(("threshold", "refined"), [("1", False), ("0", True)])
def test_it_is_said_where_nothing_is_refined(
    refiner: Path, data: Path, here: Path, threshold: str, refined: bool, capsys
) -> None:
    words = ["--size", 64, "--refine-mode", "thresholding", "--refine-threshold", threshold]
    run(*of_checkpoint(refiner, data), *words)
    assert ("smaller --refine-threshold" in capsys.readouterr().out) != refined
