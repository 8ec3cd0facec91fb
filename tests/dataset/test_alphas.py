"""What is an alpha and what is none, by one picture and by a sample; in training, check_data.py and
evaluate.py alike."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import evaluate
from common.choices import SPLITS
from common.errors import DataError
from dataset import first_look, shard
from dataset.alphas import AlphaError, Judged, fault_of_sample, judge_alpha
from dataset.first_look import MAX_ALPHAS, faults_of, judge_files, look_at_alphas, spread
from dataset.folders import data_folders, open_split
from dataset.pictures import decode, open_picture
from tests.support import on_photos
from tests.support.alpha_pictures import checked, disc, hard, saved
from tests.support.drawn import figure, make_data
from tests.support.running import error_of, run

pytestmark = pytest.mark.usefixtures("tiny_network")

Change = Callable[[np.ndarray], object]
NOISE = np.random.default_rng(0)
COLOURS = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0)], np.uint8)


def palette(pha: np.ndarray) -> Image.Image:
    picture = Image.fromarray(hard(pha), "P")
    picture.putpalette(COLOURS.ravel().tolist())
    return picture


def labels(pha: np.ndarray) -> np.ndarray:
    found = hard(pha, 15)
    found[: len(found) // 2] //= 5
    return found


def trimap(pha: np.ndarray) -> np.ndarray:
    return np.where(pha > 200, 255, np.where(pha > 0, 128, 0)).astype(np.uint8)


def sixteen(pha: np.ndarray, factor: float = 257) -> np.ndarray:
    return (pha.astype(float) * factor).astype(np.uint16)


def noisy(pha: np.ndarray, most: int) -> np.ndarray:
    return (pha + NOISE.integers(-most, most, pha.shape, endpoint=True)).astype(np.uint8)


def colours(pha: np.ndarray) -> np.ndarray:
    return np.stack([pha, 255 - pha, np.roll(pha, 9, 1)], axis=-1)


NONE: dict[str, tuple[Change, str]] = {
    "0 and 1": (hard, "scaled_alpha"),
    "0 to 1 in soft steps of 16 bits": (lambda a: sixteen(hard(a), 1), "scaled_alpha"),
    "0 to 255 in 16 bits": (lambda a: sixteen(a, 1), "scaled_alpha"),
    "a colour palette": (palette, "colour_alpha"),
    "a colour picture": (colours, "colour_alpha"),
    "labels": (labels, "label_alpha"),
    "small labels": (lambda a: hard(a, 2) + hard(np.roll(a, 9, 1)), "label_alpha"),
    "a trimap": (trimap, "label_alpha"),
    "half of full": (lambda a: hard(a, 128), "label_alpha"),
    "all clear": (lambda a: a * 0, "empty_alpha"),
    "all opaque": (lambda a: a * 0 + 255, "full_alpha"),
    "one grey": (lambda a: a * 0 + 128, "flat_alpha"),
    "16 to 235": (lambda a: 16 + (a.astype(int) * 219 // 255).astype(np.uint8), "middle_alpha"),
}
GREY: dict[str, tuple[Change, str]] = {
    "one grey in 16 bits": (lambda a: sixteen(a * 0 + 30), "flat_alpha"),
    "noise about one grey": (lambda a: noisy(a * 0 + 128, 12), "flat_alpha"),
    "two close greys": (lambda a: noisy(124 + a // 32, 4), "flat_alpha"),
    "noise about white": (lambda a: noisy(a * 0 + 244, 8), "flat_alpha"),
    "a grey photograph": (lambda a: noisy(a // 2 + 40, 20), "middle_alpha"),
}
GOOD: dict[str, Change] = {
    "soft": lambda a: a,
    "antialiased": lambda _: disc(60, 1),
    "16 bits": sixteen,
    "grey as colours": lambda a: np.stack([a] * 3, axis=-1),
    "grey palette": lambda a: Image.fromarray(a).convert("P"),
    "a mask of 0 and 255": lambda a: hard(a, 255),
    "a mask of one bit": lambda a: Image.fromarray(hard(a, 255)).convert("1"),
    "a largest value of 254": lambda a: a - (a > 0),
    "a mask of 0 and 254": lambda a: hard(a, 254),
    "faint": lambda a: a // 6,
    "faint in 16 bits": lambda a: sixteen(a, 40),
    "a slow ramp": lambda a: np.broadcast_to(np.linspace(0, 60, 240), a.shape).astype(np.uint8),
    "a pane of glass": lambda a: np.maximum(a, disc(80, 3) // 2),
    "small": lambda _: disc(5, 2),
    "a faint figure": lambda a: a // 12,
    "smoke over all but a corner": lambda a: (a // 3 + 90) * (disc(4, 1) == 0),
    "a figure that fills it but for a corner": lambda a: 255 - disc(4, 3),
}
BINARY = {"a mask of 0 and 255", "a mask of one bit", "a mask of 0 and 254"}


@pytest.mark.parametrize("name", NONE | GREY)
def test_each_kind_of_no_alpha_is_told(name: str, tmp_path: Path) -> None:
    change, kind = (NONE | GREY)[name]
    path = saved(tmp_path / "a.png", change(disc()))
    assert [found for found, _ in faults_of(path, "L")] == [kind]


@pytest.mark.parametrize("name", GOOD)
def test_no_alarm_at_good_ones(name: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", GOOD[name](disc()))
    found = [kind for kind, _ in faults_of(path, "L")]
    assert found == (["binary_alpha"] if name in BINARY else [])


def test_noise_of_an_empty_frame_is_no_figure(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).random((180, 240))
    few = saved(tmp_path / "a.png", (noise > 0.97).astype(np.uint8))
    many = saved(tmp_path / "b.png", (noise > 0.5).astype(np.uint8))
    deep = saved(tmp_path / "c.png", (noise * 255).astype(np.uint16))
    one = saved(tmp_path / "d.png", np.ones((180, 240), np.uint8))
    jpeg = saved(tmp_path / "e.jpg", (disc() // 30).astype(np.uint8), quality=60)
    for path in (few, many, deep, one, jpeg):
        assert [kind for kind, _ in faults_of(path, "L")] == ["empty_alpha"]


def test_jpeg_leaves_grey_grey(tmp_path: Path) -> None:
    grey = np.stack([disc()] * 3, axis=-1)
    path = saved(tmp_path / "a.jpg", grey, quality=60)
    assert faults_of(path, "L") == []
    with pytest.raises(AlphaError, match="three channels"):
        decode(
            open_picture(saved(tmp_path / "b.jpg", colours(disc()))), "L", (180, 240), np.eye(3)[:2]
        )


# ------------------------------------------------------------------------------------------------
# A sample of many


def sample(*kinds: str, own: bool = False) -> list[Judged]:
    return [Judged(f"{i}.png", [(k, "seen")] if k else [], own) for i, k in enumerate(kinds)]


def test_how_many_make_a_fault() -> None:
    empty, full, label = "empty_alpha", "full_alpha", "label_alpha"
    flat, middle = "flat_alpha", "middle_alpha"
    for fine in (
        ["", empty],
        ["", full, full, empty],
        ["", label],
        [],
        ["binary_alpha"] * 3,
        ["", "inverted_alpha"],
        ["", flat, flat],
        ["", middle, middle],
        [empty, middle],
        [full, middle],
    ):
        assert fault_of_sample(sample(*fine), len(fine)) is None, fine
    for bad in (
        [empty],
        [full, full],
        [empty, full],
        [label, label, ""],
        ["", "", "scaled_alpha"],
        ["", "colour_alpha", "", ""],
        [flat] * 4,
        [middle] * 4,
        [empty, flat, full],
        [flat, middle],
    ):
        assert fault_of_sample(sample(*bad), len(bad)), bad
    assert fault_of_sample(sample("", "colour_alpha"), 2, allowed=1) is None
    assert fault_of_sample(sample(empty, empty, empty), 9) is None  # three of nine: too few
    assert fault_of_sample(sample(flat, flat, flat), 9) is None
    kind, said = fault_of_sample(sample(full, full, own=True), 2)
    assert kind == full and "alpha channel was lost" in said and "0.png" in said


def test_a_sample_is_spread_however_few_are_looked_at(tmp_path: Path) -> None:
    assert spread(5, 48) == list(range(5)) and spread(0, 48) == []
    chosen = spread(240_000, MAX_ALPHAS)
    assert len(set(chosen)) == MAX_ALPHAS
    for few in (8, 24, MAX_ALPHAS):
        gaps = np.diff(sorted([0, *chosen[:few], 240_000]))
        assert gaps.max() < 3 * 240_000 / few
    paths = [saved(tmp_path / f"{n}.png", disc()) for n in range(9)]
    assert len(judge_files(paths, 60, "L")) == 9
    assert len(judge_files(paths, -1, "L")) == 1


def spoil(folder: Path, change: Change, split: str = "*") -> None:
    for path in folder.glob(f"{split}/pha/*/*.png"):
        saved(path, change(np.asarray(Image.open(path))))


@pytest.mark.parametrize("name", NONE)
def test_training_stops_and_check_data_says_it_of_all(
    name: str, here: Path, capsys: pytest.CaptureFixture
) -> None:
    change, kind = NONE[name]
    data = make_data(here / "data", 4, 2)
    spoil(data, change, "valid" if name == "labels" else "*")
    run(data, "--max-steps", 1, status=2)
    error = error_of(capsys)
    assert str(data) in error and "/pha/" in error and "that were looked at" in error
    faults = [fault for fault in checked(data) if fault["kind"] == kind]
    assert len(faults) == (2 if name == "labels" else 6) and all(f["error"] for f in faults)


def test_a_worker_hands_the_error_over_as_it_was() -> None:
    error = AlphaError("a.png", "empty_alpha", "of 3")
    other = pickle.loads(pickle.dumps(error))
    assert type(other) is AlphaError and str(other) == str(error) and vars(other) == vars(error)


def test_one_alpha_that_is_none_is_enough_and_one_empty_is_not(
    here: Path, capsys: pytest.CaptureFixture
) -> None:
    data = make_data(here / "data", 4, 2)
    path = data / "train/pha/clip1/0003.png"
    before = np.asarray(Image.open(path))
    saved(path, hard(before))
    run(data, "--max-steps", 1, status=2)
    error = error_of(capsys)
    assert f"{path} is no alpha: its largest value is 1 of 255: multiply by 255" in error
    assert "1 of 4 alphas" in error
    saved(path, before * 0)
    look_at_alphas({split: open_split(data_folders("", data, print), split)[0] for split in SPLITS})


def test_it_is_found_in_tars_and_with_skip_when_it_is_read(here: Path) -> None:
    data = make_data(here / "data", 4, 2)
    saved(data / "train/pha/clip1/0003.png", colours(disc(20, 4, (72, 96))))
    shard.pack(data, here / "packed", 20_000)
    for folder in (data, here / "packed"):
        found = open_split(data_folders("", folder, print), "train", check_headers=False)[0]
        with pytest.raises(DataError, match=r"0003\.png is no alpha"):
            look_at_alphas({"train": found})
        look_at_alphas({"train": found}, skip=True)
        run(folder, "--max-steps", 1, "--on-bad-image", "skip", "--overwrite")


def test_only_the_main_process_looks(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.data import open_data
    from training.options import parse_base_options
    from training.team import Team

    looked: list[dict] = []
    monkeypatch.setattr("training.data.look_at_alphas", lambda *a: looked.append(a[0]))
    monkeypatch.setattr(Team, "run_on_all", lambda _self, work: work())
    monkeypatch.setattr(Team, "check_same", lambda *_: None)
    data = make_data(here / "data", 2, 2)
    options = parse_base_options(["--dataset-dir", str(data)])
    for rank in range(2):
        open_data(SimpleNamespace(options=options, team=Team(rank=rank, size=2), say=print))
    assert len(looked) == 1 and list(looked[0]) == ["train", "valid"]


def test_an_opaque_alpha_channel_was_lost(here: Path, capsys: pytest.CaptureFixture) -> None:
    data = make_data(here / "data", 3, 2)
    for split in SPLITS:
        for path in (data / split / "fgr").rglob("*.jpg"):
            name = path.relative_to(data / split / "fgr").with_suffix(".png")
            saved(data / split / "rgba" / name, Image.open(path).convert("RGBA"))
        shutil.rmtree(data / split / "fgr")
        shutil.rmtree(data / split / "pha")
    run(data, "--max-steps", 1, status=2)
    assert "opaque everywhere" in (error := error_of(capsys)) and "was lost" in error
    assert {fault["kind"] for fault in checked(data) if fault["error"]} == {
        "full_alpha",
        "in_both_splits",
    }
    some = data / "train/rgba/clip0/0000.png"
    saved(some, Image.open(some).convert("RGB"))
    run(data, "--max-steps", 1, status=2)
    assert "has no alpha channel" in (error := error_of(capsys)) and "PNG with trans" in error


def test_an_alpha_in_an_alpha_channel_says_to_take_that(
    here: Path, capsys: pytest.CaptureFixture
) -> None:
    data = make_data(here / "data", 2, 2)
    path = data / "train/pha/clip0/0000.png"
    white = Image.new("L", (72, 96), 255)
    for mode, bands in (("RGBA", [white] * 3), ("LA", [white])):
        saved(path, Image.merge(mode, [*bands, figure(72, 96, 0)[1]]))
        run(data, "--max-steps", 1, status=2)
        assert f"its mode is {mode}; take its alpha channel" in error_of(capsys)


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def test_a_foreground_that_exif_turns_and_its_alpha(
    here: Path, capsys: pytest.CaptureFixture
) -> None:
    data = make_data(here / "data", 4, 2)
    path = data / "train/fgr/clip0/0000.jpg"
    picture = Image.open(path).copy()
    picture.save(path, exif=exif(8))
    run(data, "--max-steps", 1, status=2)
    assert "96x72, turned by EXIF orientation 8) and" in (error := error_of(capsys))
    assert "72x96, not turned by EXIF)" in error and "turn the other's pixels" in error
    picture.save(path, exif=exif(3))
    run(data, "--max-steps", 1)
    assert f"note: {path} is turned by its EXIF" in capsys.readouterr().out
    assert "turned_alpha" in {fault["kind"] for fault in checked(data) if not fault["error"]}
    alpha = data / "train/pha/clip0/0000.png"
    saved(alpha, Image.open(alpha).copy(), exif=exif(3))
    said: list[str] = []
    look_at_alphas({"train": open_split(data_folders("", data, print), "train")[0]}, said.append)
    assert said == []


# ------------------------------------------------------------------------------------------------
# evaluate.py


def evaluated(capsys: pytest.CaptureFixture, *words: object, status: int = 0) -> str:
    words = ("--pred-dir", "pred", "--true-dir", "true", "--device", "cpu", *words)
    assert evaluate.main([str(word) for word in words]) == status
    said = capsys.readouterr()
    return said.err if status else said.out


@pytest.mark.parametrize("name", NONE)
@pytest.mark.parametrize("side", ["true", "pred"])
def test_evaluate_does_not_measure_it_in_silence(
    name: str, side: str, here: Path, capsys: pytest.CaptureFixture
) -> None:
    change, kind = NONE[name]
    for number in range(2):
        for folder in ("true", "pred"):
            pha = disc(40 + 9 * number, 4, (90, 120))
            saved(here / folder / f"{number}.png", change(pha) if folder == side else pha)
    measured = "flat_alpha", "middle_alpha"
    stops = kind not in measured if side == "true" else kind in ("colour_alpha", "scaled_alpha")
    said = evaluated(capsys, status=2 if stops else 0)
    assert f"{side}/0.png is" in said and said.startswith("evaluate.py: error" if stops else "note")


def test_the_last_of_many_mattes_is_looked_at_too(
    here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.folders.MAX_ALPHAS", 1)
    for number in range(3):
        saved(here / f"true/{number}.png", disc(40, 4, (90, 120)))
        saved(
            here / f"pred/{number}.png", (hard if number == 2 else np.copy)(disc(40, 4, (90, 120)))
        )
    assert "pred/2.png is no alpha" in evaluated(capsys, status=2)


def test_the_alpha_of_a_cut_out_is_meant(here: Path, capsys: pytest.CaptureFixture) -> None:
    pha = disc(40, 4, (90, 120))
    photo = Image.fromarray(colours(pha))
    photo.putalpha(Image.fromarray(pha))
    saved(here / "pred/a.png", photo)
    saved(here / "true/a.png", pha)
    opaque = Image.fromarray(pha).convert("RGBA")  # a grey matte saved so by a browser
    saved(here / "pred/b.png", opaque)
    saved(here / "true/b.png", pha)
    evaluated(capsys, "--json", "out.json")
    assert json.loads(Path("out.json").read_text())["mean"]["mad"] == 0


@on_photos
def test_real_alphas_are_alphas(photos: Path) -> None:
    folders = data_folders("", photos, print)
    said: list[str] = []
    look_at_alphas({split: open_split(folders, split)[0] for split in SPLITS}, said.append)
    assert said == []


def test_labels_are_judged_in_reasonable_time() -> None:
    assert first_look.MAX_SECONDS_OF_SPLIT["train"] + first_look.MAX_SECONDS_OF_SPLIT["valid"] < 1
    assert list(judge_alpha(disc(400, 4, (1080, 1920)))) == []
