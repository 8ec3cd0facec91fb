"""check_data.py as a user types it: what it says and writes, alphas, the contact sheet."""

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import check_data
from checking.look import CheckOptions, check_all, list_groups
from dataset import shard
from dataset.alphas import channels_differ, judge_alpha
from dataset.folders import data_folders
from dataset.sampler import steps_per_epoch
from tests.support import ROOT, on_photos
from tests.support.checking import PHA, alpha, coloured, cut, error_of, pristine, run


def test_a_good_data_set_is_fit_and_says_what_it_takes(
    own: Path, capsys: pytest.CaptureFixture
) -> None:
    pristine(own)
    content = run(own, "--batch-size", 4, "--epoch-end", 3)
    assert content["fit"] and not content["faults"]
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "train: 6 fgr, 6 pha, 6 pairs, 6 backgrounds"
    verdict = said.index("fit to train on: 0 errors, 0 warnings")
    assert "3 epochs of 2 steps (batch size 4), 6 steps in all" in said[verdict + 1]
    assert all(line.startswith("wrote ") for line in said[verdict + 2 :])
    takes = content["takes"]
    assert takes["steps_per_epoch"] == steps_per_epoch(6, 4)

    def mean(pattern: str) -> float:
        return np.mean([path.stat().st_size for path in own.glob(pattern)])

    sample = mean("train/fgr/*/*") + mean("train/pha/*/*") + mean("backgrounds/train/*")
    assert takes["bytes_per_epoch"] == pytest.approx(8 * sample, abs=8)
    assert takes["bytes_on_disk"] == sum(p.stat().st_size for p in own.rglob("*.*g"))


def test_what_is_smaller_than_the_crop_is_a_warning(own: Path) -> None:
    pristine(own)
    faults = run(own, "--crop-size", 32, 73)["faults"]
    assert {fault["kind"] for fault in faults} == {"small"} and len(faults) == 6 + 2


def test_headers_alone_find_names_and_sizes_but_not_pixels(
    own: Path, capsys: pytest.CaptureFixture
) -> None:
    pristine(own)
    alpha(own / PHA, lambda a: 255 - a)
    cut(own / "train/fgr/clip0/0002.jpg")
    assert not run(own, "--headers-only")["faults"]
    assert "only headers were read" in capsys.readouterr().out
    Image.open(own / PHA).resize((50, 96)).save(own / PHA)
    (own / "train/fgr/clip0/0002.jpg").write_bytes(b"")
    kinds = [fault["kind"] for fault in run(own, "--headers-only", status=1)["faults"]]
    assert sorted(kinds) == ["unlike_sizes", "unreadable"]


def rgba(folder: Path) -> None:
    for split in ("train", "valid"):
        for path in sorted((folder / split / "fgr").rglob("*.jpg")):
            name = path.relative_to(folder / split / "fgr").with_suffix(".png")
            picture = Image.open(path).convert("RGB")
            picture.putalpha(Image.open(folder / split / "pha" / name))
            (folder / split / "rgba" / name).parent.mkdir(parents=True, exist_ok=True)
            picture.save(folder / split / "rgba" / name)
        shutil.rmtree(folder / split / "fgr")
        shutil.rmtree(folder / split / "pha")


def test_rgba_pictures(own: Path, capsys: pytest.CaptureFixture) -> None:
    pristine(own)
    rgba(own)
    assert run(own)["counts"]["train rgba"] == 6
    assert "train: 6 rgba, 6 backgrounds\n" in capsys.readouterr().out
    path = own / "train/rgba/clip0/0000.png"
    alpha(path, lambda a: np.concatenate([a[..., :3], 255 - a[..., 3:]], axis=-1))
    Image.open(own / "train/rgba/clip0/0002.png").convert("RGB").save(
        own / "train/rgba/clip0/0002.png"
    )
    faults = run(own, "--contact-rows", 9, "--contact-sheet", "sheet.png", status=1)["faults"]
    assert {fault["kind"] for fault in faults} == {"inverted_alpha", "unreadable"}
    assert Path("sheet.png").stat().st_size


def test_in_tars_the_same_is_found(own: Path, tmp_path: Path) -> None:
    pristine(own)
    alpha(own / PHA, lambda a: 255 - a)
    shutil.copy(own / "backgrounds/train/0.jpg", own / "backgrounds/valid/0.jpg")
    from_files = run(own, status=1)
    shard.pack(own, tmp_path / "packed", 20_000)
    from_tars = run(tmp_path / "packed", "--contact-rows", 4, "--contact-sheet", "s.png", status=1)
    assert [f["kind"] for f in from_tars["faults"]] == [f["kind"] for f in from_files["faults"]]
    assert from_tars["takes"] == from_files["takes"]
    assert ".tar: pha/clip0/0000.png" in from_tars["faults"][0]["what"]


def test_processes_find_the_same_in_the_same_order(own: Path) -> None:
    pristine(own)
    for number in range(40):
        shutil.copy(own / "backgrounds/train/0.jpg", own / f"backgrounds/train/{number:02}x.jpg")
    cut(own / "backgrounds/train/07x.jpg")
    alpha(own / PHA, lambda a: 255 - a)
    alone, together = run(own, status=1), run(own, "--num-workers", 2, status=1)
    assert together == alone and len(alone["faults"]) == 2 + 39


def test_every_picture_ticks_the_bar(own: Path) -> None:
    groups, _, _ = list_groups(data_folders("", own, print), print)
    ticks: list[int] = []
    check_all(groups, CheckOptions(64, headers=True), 0, ticks.append)
    assert sum(ticks) == 6 + 6 + 2 + 2


# ------------------------------------------------------------------------------------------------
# Alphas


def disc(radius: float, soft: float, size: tuple[int, int] = (300, 400)) -> np.ndarray:
    """soft: width of the edge in pixels."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    distance = np.hypot(x - size[1] / 2, y - size[0] / 2)
    return (np.clip((radius - distance) / soft + 0.5, 0, 1) * 255).round().astype(np.uint8)


def kinds_of(pha: np.ndarray) -> list[str]:
    return [kind for kind, _ in judge_alpha(pha)]


def as_jpeg(pha: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pha).save(file, "JPEG", quality=85)
    return np.asarray(Image.open(file))


@pytest.mark.parametrize("change", [lambda a: a, as_jpeg], ids=["png", "jpeg"])
def test_alphas_are_judged_as_people_would(change: Callable[[np.ndarray], np.ndarray]) -> None:
    assert kinds_of(change(disc(100, 1.5))) == []  # no more than antialiased
    assert kinds_of(change(disc(8, 1.5, (900, 1200)))) == []  # small in a large picture
    assert kinds_of(change(disc(100, 0.01))) == ["binary_alpha"]
    assert kinds_of(change(255 - disc(100, 8))) == ["inverted_alpha"]
    portrait = np.roll(disc(140, 8), 90, axis=0)
    portrait[:40] = 0  # what was rolled around
    assert kinds_of(change(portrait)) == []
    assert kinds_of(change(255 - portrait)) == ["inverted_alpha"]  # stands on the lower border
    assert kinds_of(change(255 - disc(100, 0.01))) == ["binary_alpha", "inverted_alpha"]
    assert kinds_of(change(disc(100, 8) * 0)) == ["empty_alpha"]
    assert kinds_of(change(disc(100, 8) * 0 + 255)) == ["full_alpha"]
    assert kinds_of(change(disc(240, 8))) == []  # a close-up: but for the corners, opaque


def test_grey_saved_as_colours_is_an_alpha() -> None:
    grey = np.stack([disc(100, 8)] * 3, axis=-1)
    assert not channels_differ(grey) and not channels_differ(as_jpeg(grey))
    assert channels_differ(coloured(disc(100, 8)))


# ------------------------------------------------------------------------------------------------
# The contact sheet


def test_contact_sheet_shows_pairs_and_composites(own: Path) -> None:
    from checking.contact_sheet import CELL, COMPOSITE_COLOUR, GAP, HEAD, LABEL

    pristine(own)
    cut(own / "train/fgr/clip1/0001.jpg")
    run(own, "--contact-rows", 3, "--contact-sheet", "a/sheet.png", status=1)
    with Image.open("a/sheet.png") as picture:
        sheet = np.asarray(picture.convert("RGB")).astype(int)
    row = CELL  # of the second row: the first is the damaged pair, 240 x 180
    top, left = HEAD + CELL * 3 // 4 + GAP, 2 * GAP + LABEL
    fgr, pha, composite = (
        sheet[top : top + row, left + n * (CELL + GAP) + 30 :][:, :180] for n in range(3)
    )
    weight = pha[..., :1] / 255
    expected = fgr * weight + np.array(COMPOSITE_COLOUR) * (1 - weight)
    assert weight.min() == 0 and weight.max() == 1
    assert np.abs(composite - expected).max() <= 1.01


def test_default_sheet_takes_the_next_free_name(own: Path) -> None:
    arguments = ["--dataset-dir", str(own), "--num-workers", "0", "--contact-rows", "2"]
    for _ in range(2):
        check_data.main(arguments)
    assert sorted(os.listdir("log/check_data")) == ["own-2.png", "own.png"]


# ------------------------------------------------------------------------------------------------
# Wrong input, stopping, real pictures


def test_wrong_input_ends_with_one_line(own: Path, capsys: pytest.CaptureFixture) -> None:
    here = ["--dataset-dir", own]
    assert "there is no folder nowhere" in error_of(capsys, "--dataset-dir", "nowhere")
    assert "placeholder" in error_of(capsys, "--dataset-name", "adobe")
    (own / "bare").mkdir()
    assert "does not exist" in error_of(capsys, "--dataset-dir", own / "bare")
    assert "MIN is above MAX" in error_of(capsys, *here, "--crop-size", 64, 32)
    assert "is above 200" in error_of(capsys, *here, "--contact-rows", 201)
    assert "type a name in .png" in error_of(capsys, *here, "--contact-sheet", "a.jpg")
    Path("there.json").write_text("kept")
    assert "there.json exists" in error_of(capsys, *here, "--json", "there.json")
    assert Path("there.json").read_text() == "kept"
    assert "there.json is a file" in error_of(capsys, *here, "--json", "there.json/a.json")
    assert "is a folder" in error_of(capsys, *here, "--json", own)


@pytest.mark.parametrize("wait", [0, 0.1, 1])  # seconds: before, in, after the start of workers
def test_ctrl_c_ends_it_and_its_processes_without_a_word_more(own: Path, wait: float) -> None:
    for number in range(20_000):  # more than it can look at in the time
        os.link(own / "backgrounds/train/0.jpg", own / f"backgrounds/train/{number}x.jpg")
    command = [sys.executable, ROOT / "check_data.py", "--dataset-dir", own, "--num-workers", "2"]
    process = subprocess.Popen(
        command, cwd=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    for line in process.stdout:
        if line.startswith(b"valid:"):
            break
    time.sleep(wait)
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to all of them
    _, err = process.communicate(timeout=60)  # which waits for all that hold its output
    assert process.returncode == 130
    assert err.decode().strip() == "check_data.py: stopped"


@on_photos
def test_real_pictures_are_fit(photos: Path, here: Path) -> None:
    content = run(photos, "--crop-size", 128, 192)
    assert content["fit"] and not content["faults"]
