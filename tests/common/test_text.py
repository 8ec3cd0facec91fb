"""Names of files that would act on a terminal, a spreadsheet or a page are written as text."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import check_data
import evaluate
import pack_data
import predict
from common.text import UNPRINTABLE, csv_cell, listed, plural, printable
from tests.support.drawn import make_data
from tests.support.predicting import save_weights, scene
from tests.support.running import run as train

BAD = "\x1b[31m\n\x9b2J\u202ered\udcff"
SHOWN = r"\x1b[31m\n\x9b2J\u202ered\xff"


def test_what_acts_on_a_terminal_is_written_out() -> None:
    assert printable(Path("in") / BAD) == f"in/{SHOWN}"
    assert printable(printable(BAD)) == printable(BAD)
    plain = "Zoë/人物 (1)/naïve 100 %/👩‍🚀/\\x.png"  # a zero-width joiner among them
    assert printable(plain) == plain
    every = "".join(map(chr, range(0x3000)))
    assert not UNPRINTABLE.search(printable(every))


def test_a_cell_is_no_formula() -> None:
    for name in ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "'=1"):
        assert csv_cell(name) == f"'{name}"
    for name in ("a=1", "1-1", "clip/=1", ""):
        assert csv_cell(name) == name


@pytest.fixture
def bad_data(here: Path) -> Path:
    """A data set in which one foreground of such a name is no picture."""
    make_data(here / "data")
    Path(f"data/train/fgr/clip0/{BAD}.jpg").write_bytes(b"none")
    Image.new("L", (8, 8)).save(f"data/train/pha/clip0/{BAD}.png")
    return here / "data"


def told(capsys: pytest.CaptureFixture) -> str:
    """What was printed, with nothing in it that acts on a terminal but ends of lines."""
    found = capsys.readouterr()
    text = found.out + found.err
    assert not UNPRINTABLE.search(text.replace("\n", "").replace("\r", ""))
    return text


@pytest.mark.usefixtures("tiny_network")
def test_no_script_prints_a_name_as_it_is(bad_data: Path, capsys: pytest.CaptureFixture) -> None:
    train(bad_data, status=2)
    assert SHOWN in told(capsys)
    train(bad_data, "--on-bad-image", "skip", "--max-steps", 2)
    assert SHOWN in told(capsys)
    argv = ["--dataset-dir", str(bad_data), "--num-workers", "0", "--json", "faults.json"]
    assert check_data.main(argv) == 1
    assert SHOWN in told(capsys)
    assert SHOWN in json.loads(Path("faults.json").read_text())["faults"][0]["what"]
    assert pack_data.main([str(bad_data), BAD]) == 0
    assert SHOWN in told(capsys)


def test_options_that_are_wrong(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        evaluate.main(["--pred-dir", "a", "--true-dir", "b", "--json", BAD, "--csv", BAD])
    assert "the same file: " + SHOWN in told(capsys)


def test_predict_and_evaluate(here: Path, capsys: pytest.CaptureFixture) -> None:
    weights = save_weights(here / "w.pth")
    src, bgr = scene(0)
    bgr.save("bgr.png")
    Path("src").mkdir()
    src.save("src/=cmd<b>.png")
    Path(f"src/{BAD}.png").write_bytes(b"none")
    argv = ["--model-checkpoint", str(weights), "--src", "src", "--bgr", "bgr.png", "--size", "48"]
    argv += ["--output", "out", "--device", "cpu"]
    assert predict.main(argv) == 2
    assert SHOWN in told(capsys)
    assert predict.main([*argv, "--on-bad-image", "skip"]) == 0
    assert f"left out: src/{SHOWN}" in told(capsys)

    Image.fromarray(np.full((44, 60), 99, np.uint8)).save(f"out/pha/{BAD}.png")
    Path("true").mkdir()
    for path in Path("out/pha").iterdir():
        Image.fromarray(np.tile(np.arange(60, dtype=np.uint8), (44, 1))).save(f"true/{path.name}")
    argv = ["--pred-dir", "out/pha", "--true-dir", "true", "--device", "cpu"]
    argv += ["--json", "a.json", "--report", "a.html"]
    assert evaluate.main(argv) == 0
    assert SHOWN in told(capsys) and "=cmd<b>" not in Path("a.html").read_text()
    with open("a.csv", newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert {row[0] for row in rows} == {"'=cmd<b>", SHOWN}
    assert all(float(cell) >= 0 for row in rows for cell in row[1:])
    names = {image["name"] for image in json.loads(Path("a.json").read_text())["images"]}
    assert names == {"=cmd<b>", SHOWN}  # JSON has the name itself: no spreadsheet computes it
    assert not UNPRINTABLE.search(Path("a.html").read_text().replace("\n", ""))


def test_counts_and_lists() -> None:
    assert [plural(count, "image") for count in (0, 1, 1200)] == [
        "0 images",
        "1 image",
        "1,200 images",
    ]
    assert listed(["a", Path("b")]) == "a, b" and listed([]) == ""
    assert listed("abcd", 2) == "a, b and 2 more"
    assert listed("abcd", 2, between=";") == "a; b; and 2 more"
    assert listed(range(20)).endswith(", 19") and listed(range(21)).endswith(", 19 and 1 more")
