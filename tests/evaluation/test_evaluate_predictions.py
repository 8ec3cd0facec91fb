"""evaluate.py on what predict.py has written: each --type is measured as it should be, or not."""

import json
from pathlib import Path

import pytest
from PIL import Image

import evaluate
import predict
from common.choices import TYPES
from tests.support.drawn import figure
from tests.support.predicting import save_weights, scene, words


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """out/ has all types, out/green com on a colour; src/, bgr/, true/. Read only."""
    folder = tmp_path_factory.mktemp("predicted")
    for number in range(2):
        src, bgr = scene(number)
        for kind, picture in (("src", src), ("bgr", bgr), ("true", figure(60, 44, number)[1])):
            (folder / kind).mkdir(exist_ok=True)
            picture.save(folder / kind / f"{number}.png")
    weights = save_weights(folder / "weights.pth")
    assert predict.main(words(weights, folder, "--type", *TYPES)) == 0
    argv = words(weights, folder, "--type", "com", "--com-bgr", "green")
    argv[argv.index("--output") + 1] = str(folder / "green")
    assert predict.main(argv) == 0
    return folder


def means(folder: Path, pred: str) -> dict:
    argv = ["--pred-dir", folder / pred, "--true-dir", folder / "true", "--device", "cpu"]
    assert evaluate.main([str(word) for word in [*argv, "--json", "a.json", "--overwrite"]]) == 0
    return json.loads(Path("a.json").read_text())["mean"]


def test_cut_outs_are_measured_by_their_alpha(here: Path, predicted: Path) -> None:
    assert means(predicted, "out/com") == means(predicted, "out/pha")


@pytest.mark.parametrize(
    ("pred", "said"),
    [
        ("out/fgr", "out/fgr/0.png is no alpha"),
        ("out/err", "out/err has expected errors of mattes, not mattes"),
        ("out", "no matte below"),
        ("green/com", "green/com/0.png is no alpha"),
    ],
)
def test_what_is_no_matte_is_not_measured(
    here: Path, predicted: Path, pred: str, said: str, capsys: pytest.CaptureFixture
) -> None:
    folder = str(predicted / "true")
    argv = ["--pred-dir", str(predicted / pred), "--true-dir", folder, "--device", "cpu"]
    assert evaluate.main(argv) == 2
    found = capsys.readouterr().err
    assert said in found
    assert (f"type --pred-dir {predicted / 'out/pha'}" in found) == pred.startswith("out")


def test_true_mattes_are_not_advised_as_predictions(
    here: Path, predicted: Path, capsys: pytest.CaptureFixture
) -> None:
    fgr, pha = (str(predicted / "out" / kind) for kind in ("fgr", "pha"))
    assert evaluate.main(["--pred-dir", fgr, "--true-dir", pha, "--device", "cpu"]) == 2
    found = capsys.readouterr().err
    assert "fgr/0.png is no alpha" in found and "type --pred-dir" not in found


def test_the_true_folder_is_not_taken_for_predict_s(
    here: Path, predicted: Path, capsys: pytest.CaptureFixture
) -> None:
    (here / "true").mkdir()
    for number in range(2):
        Image.new("RGB", (60, 44), (250, 10, 10)).save(f"true/{number}.png")
    argv = ["--pred-dir", str(predicted / "out/com"), "--true-dir", "true", "--device", "cpu"]
    assert evaluate.main(argv) == 2
    found = capsys.readouterr().err
    assert "true/0.png is no alpha" in found and "--pred-dir" not in found
