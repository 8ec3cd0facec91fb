"""Data sets of people's own, as they met them: what the program says of each (../shared/cases)."""

import shutil
from pathlib import Path

import pytest

import check_data
import data_path
import train_base
from tests.support import CASES
from tests.support.running import error_of, run

pytestmark = [
    pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases beside this clone"),
    pytest.mark.usefixtures("tiny_network"),
]
# Of each: the status of training, and what it says or its error.
SAID = {
    "alpha_0_1": (2, "its largest value is 1 of 255: multiply by 255"),
    "exif_raw_alpha": (2, "turned by EXIF orientation 6"),
    "rgba_as_alpha": (2, "take its alpha channel"),
    "other_formats_ignored": (0, "backgrounds/train: not read: 1 .bmp, 1 .tif, 1 .webp"),
    "nfc_nfd": (0, "data: 4 foregrounds"),
    "png_text_chunk": (0, "step 1/1"),
}


@pytest.mark.parametrize("name", SAID)
def test_training_says_it(name: str, here: Path, capsys: pytest.CaptureFixture) -> None:
    status, said = SAID[name]
    run(CASES / name / "data", "--max-steps", 1, "--batch-size", 2, status=status)
    assert said in (error_of(capsys) if status else capsys.readouterr().out)


def test_a_pair_that_exif_turns_by_half_a_turn(here: Path, capsys: pytest.CaptureFixture) -> None:
    data = shutil.copytree(CASES / "exif_raw_alpha/data", here / "data")
    for path in (data, *data.rglob("*")):
        path.chmod(0o755)
    for name in ("fgr/0.jpg", "pha/0.png"):
        (data / "train" / name).unlink()
    run(data, "--max-steps", 1, "--batch-size", 2)
    assert "1.jpg is turned by its EXIF orientation" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("premultiplied", "6 warnings: colours multiplied by alpha"),
        ("alpha_0_1", "6 errors: alpha on another scale"),
        ("exif_raw_alpha", "1 warning: foreground turned by its EXIF orientation"),
    ],
)
def test_check_data_says_it(
    name: str, said: str, here: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["--dataset-dir", str(CASES / name / "data"), "--num-workers", "0"]
    check_data.main([*words, "--crop-size", "32", "32", "--contact-rows", "0"])
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("how", ["list", "string"])
def test_an_entry_of_another_program(
    how: str, here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = CASES / "data_path_lists/data"
    pair = {"fgr": str(data / "train/fgr"), "pha": str(data / "train/pha")}
    behind = {split: str(data / "backgrounds" / split) for split in ("train", "valid")}
    entry = {"train": pair, "valid": pair, "backgrounds": behind}
    if how == "list":
        entry["train"] = {kind: [folder] for kind, folder in pair.items()}
    else:
        entry["backgrounds"] = behind["train"]
    monkeypatch.setitem(data_path.DATA_PATH, "adobe", entry)
    assert train_base.main(["--dataset-name", "adobe", "--device", "cpu"]) == 2
    where = "'adobe', 'train', 'fgr' is a list" if how == "list" else "'backgrounds' is a text"
    assert where in error_of(capsys)
