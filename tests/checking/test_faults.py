"""Each fault of a data set, put into one."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from checking.faults import KINDS
from tests.support.checking import FGR, PHA, alpha, coloured, cut, hard, pristine, run

Spoil = Callable[[Path], object]


def copied(source: str, target: str) -> Spoil:
    return lambda folder: shutil.copy(folder / source, folder / target)


# What is done to a good data set, the kind that is found, in which file, and whether the data set
# is unfit for it.
FAULTS: dict[str, tuple[Spoil, str, str, bool]] = {
    "an alpha is missing": (lambda d: (d / PHA).unlink(), "orphan", FGR, True),
    "a foreground is missing": (lambda d: (d / FGR).unlink(), "orphan", PHA, True),
    "a name twice": (copied(FGR, "train/fgr/clip0/0000.png"), "duplicate_name", FGR, True),
    "unlike sizes": (
        lambda d: Image.open(d / PHA).resize((50, 96)).save(d / PHA),
        "unlike_sizes",
        PHA,
        True,
    ),
    "a foreground cut off": (lambda d: cut(d / FGR), "unreadable", FGR, True),
    "an alpha cut off": (lambda d: cut(d / PHA), "unreadable", PHA, True),
    "a background cut off": (
        lambda d: cut(d / "backgrounds/valid/0.jpg"),
        "unreadable",
        "backgrounds/valid/0.jpg",
        True,
    ),
    "an empty file": (lambda d: (d / FGR).write_bytes(b""), "unreadable", FGR, True),
    "text": (lambda d: (d / FGR).write_text("no picture"), "unreadable", FGR, True),
    "a link to nothing": (
        lambda d: ((d / FGR).unlink(), (d / FGR).symlink_to("nowhere")),
        "unreadable",
        FGR,
        True,
    ),
    "an alpha with alpha": (
        lambda d: Image.open(d / PHA).convert("LA").save(d / PHA),
        "unreadable",
        PHA,
        True,
    ),
    "a colour picture as alpha": (
        lambda d: alpha(d / PHA, coloured),
        "colour_alpha",
        PHA,
        True,
    ),
    "an inverted alpha": (lambda d: alpha(d / PHA, lambda a: 255 - a), "inverted_alpha", PHA, True),
    "an empty alpha": (lambda d: alpha(d / PHA, lambda a: a * 0), "empty_alpha", PHA, False),
    "a full alpha": (lambda d: alpha(d / PHA, lambda a: a * 0 + 255), "full_alpha", PHA, False),
    "a binary alpha": (lambda d: alpha(d / PHA, hard), "binary_alpha", PHA, False),
    "a foreground in both splits": (
        copied(FGR, "valid/fgr/clip0/0000.jpg"),
        "in_both_splits",
        "valid/fgr/clip0/0000.jpg",
        True,
    ),
    "a background in both splits": (
        copied("backgrounds/train/3.jpg", "backgrounds/valid/1.jpg"),
        "in_both_splits",
        "backgrounds/valid/1.jpg",
        True,
    ),
    "a background again": (
        copied("backgrounds/train/3.jpg", "backgrounds/train/new.jpg"),
        "repeated",
        "backgrounds/train/new.jpg",
        False,
    ),
    "no validation": (lambda d: shutil.rmtree(d / "valid/pha"), "folder", "valid/pha", True),
    "no backgrounds": (
        lambda d: shutil.rmtree(d / "backgrounds/train"),
        "folder",
        "backgrounds/train",
        True,
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_alone_is_found_where_it_is(own: Path, name: str) -> None:
    spoil, kind, where, is_error = FAULTS[name]
    pristine(own)
    spoil(own)
    content = run(own, status=1 if is_error else 0)
    assert [fault["kind"] for fault in content["faults"]] == [kind]
    assert str(own / where) in content["faults"][0]["what"]
    assert content["faults"][0]["error"] == is_error and content["fit"] != is_error
    assert content["faults"][0]["split"] == ("valid" if "valid" in where else "train")


def test_all_faults_together_are_all_found(own: Path, capsys: pytest.CaptureFixture) -> None:
    pristine(own)
    (own / "train/pha/clip1/0001.png").unlink()
    cut(own / "train/fgr/clip0/0002.jpg")
    alpha(own / "train/pha/clip1/0003.png", lambda a: 255 - a)
    shutil.copy(own / "backgrounds/train/0.jpg", own / "backgrounds/valid/0.jpg")
    kinds = [fault["kind"] for fault in run(own, status=1)["faults"]]
    assert sorted(kinds) == ["in_both_splits", "inverted_alpha", "orphan", "unreadable"]
    said = capsys.readouterr().out
    assert "NOT fit to train on: 4 errors, 0 warnings" in said
    assert all(f"1 error: {KINDS[kind].title}" in said for kind in kinds)


def test_masks_are_an_error_where_most_alphas_are(own: Path) -> None:
    pristine(own)
    alphas = sorted((own / "train/pha").rglob("*.png"))
    for path in alphas[:3]:
        alpha(path, hard)
    assert not any(fault["error"] for fault in run(own)["faults"])
    alpha(alphas[3], hard)
    faults = run(own, status=1)["faults"]
    assert [fault["kind"] for fault in faults if fault["error"]] == ["binary_alpha"] * 4


def test_empty_alphas_of_both_splits_are_no_copies_of_each_other(own: Path) -> None:
    pristine(own)
    for split in ("train", "valid"):
        alpha(own / split / "pha/clip0/0000.png", lambda a: a * 0)
    assert [fault["kind"] for fault in run(own)["faults"]] == ["empty_alpha"] * 2


def test_twenty_are_named_and_the_json_has_all(own: Path, capsys: pytest.CaptureFixture) -> None:
    pristine(own)
    for number in range(23):
        (own / f"backgrounds/train/bad{number:02}.png").write_text("x")
    assert len(run(own, status=1)["faults"]) == 23
    said = capsys.readouterr().out
    assert "bad19.png" in said and "bad20.png" not in said and "and 3 more" in said
