"""Pictures: found and paired by name, decoded no further than needed and in the right place."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from common.errors import DataError
from dataset.geometry import affine, fit
from dataset.pictures import (
    Names,
    decode,
    find_backgrounds,
    find_pairs,
    find_pictures,
    find_rgba,
    open_picture,
    upright_size,
)
from dataset.video import VideoReader
from tests.support.drawn import backdrop, make_data


def test_names_come_back_as_they_went_in() -> None:
    given = ["a.jpg", "b/ü.png", "", "odd\udcff.png"]
    names = Names(given)
    assert list(names) == given
    with pytest.raises(IndexError):
        names[len(given)]


def test_pictures_are_found_in_nested_folders_and_nothing_else(tmp_path: Path) -> None:
    for name in ("b.PNG", "a/c.jpeg", "a/d/e.jpg", ".hidden.png", "notes.txt", "a/.x/y.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert find_pictures(tmp_path) == ["a/c.jpeg", "a/d/e.jpg", "b.PNG"]


def test_pairs_meet_by_name_and_not_by_order(tmp_path: Path) -> None:
    make_data(tmp_path, train=4)
    # Sorted by their whole names, these would shift all pairs by one.
    for number in range(4):
        path = tmp_path / f"train/pha/clip{number % 2}/{number:04}.png"
        path.rename(path.with_suffix(".PNG" if number == 0 else ".png"))
    pairs = find_pairs(tmp_path / "train/fgr", tmp_path / "train/pha")
    for index in range(4):
        fgr, pha = pairs.paths(index)
        assert (fgr.parent.name, fgr.stem) == (pha.parent.name, pha.stem)


def test_orphans_on_both_sides_are_named_and_counted(tmp_path: Path) -> None:
    make_data(tmp_path, train=30)
    for number in range(0, 28, 2):
        (tmp_path / f"train/fgr/clip0/{number:04}.jpg").unlink()
    for number in range(1, 29, 2):
        (tmp_path / f"train/pha/clip1/{number:04}.png").unlink()
    with pytest.raises(DataError) as caught:
        find_pairs(tmp_path / "train/fgr", tmp_path / "train/pha")
    message = str(caught.value)
    assert message.startswith("28 picture(s) without a partner")
    named = re.findall(r"\d{4}\.(jpg|png)", message)
    assert named == ["jpg"] * 14 + ["png"] * 6  # twenty are named
    assert "and 8 more" in message


def test_unlike_sizes_are_named(tmp_path: Path) -> None:
    make_data(tmp_path)
    path = tmp_path / "train/pha/clip0/0002.png"
    Image.new("L", (50, 60)).save(path)
    with pytest.raises(DataError, match=r"1 pair.*0002\.jpg \(72x96\).*0002\.png \(50x60\)"):
        find_pairs(tmp_path / "train/fgr", tmp_path / "train/pha")


def test_pairs_whose_names_sort_unlike_meet_all_the_same(tmp_path: Path) -> None:
    for kind, names in (("fgr", ("a.jpg", "a.k.png")), ("pha", ("a.k.jpg", "a.png"))):
        (tmp_path / kind).mkdir()
        for name in names:
            Image.new("L", (4, 4)).save(tmp_path / kind / name)
    pairs = find_pairs(tmp_path / "fgr", tmp_path / "pha")
    met = [tuple(path.name for path in pairs.paths(index)) for index in range(len(pairs))]
    assert met == [("a.jpg", "a.png"), ("a.k.png", "a.k.jpg")]


def test_one_name_with_two_endings_is_refused(tmp_path: Path) -> None:
    make_data(tmp_path)
    Image.new("RGB", (72, 96)).save(tmp_path / "train/fgr/clip0/0000.png")
    with pytest.raises(DataError, match=r"twice.*0000\.jpg and .*0000\.png"):
        find_pairs(tmp_path / "train/fgr", tmp_path / "train/pha")


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        find_backgrounds(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"no picture \(.jpg, .jpeg, .jpe, .jfif, .png\)"):
        find_backgrounds(tmp_path)


def test_rgba_pictures_need_an_alpha_channel(tmp_path: Path) -> None:
    Image.new("RGBA", (40, 40)).save(tmp_path / "a.png")
    assert len(find_rgba(tmp_path)) == 1
    Image.new("RGB", (40, 40)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"b\.png has no alpha channel"):
        find_rgba(tmp_path)


@pytest.mark.parametrize("ending", ["jpg", "png"])
@pytest.mark.parametrize("side", [(45, 80), (100, 70), (333, 333), (700, 640)])
def test_decoding_keeps_positions(tmp_path: Path, ending: str, side: tuple[int, int]) -> None:
    """A picture whose colour is its position, looked up through the returned matrix."""
    width, height = 1283, 721
    y, x = np.mgrid[0:height, 0:width] + 0.5
    ramp = np.stack([x / width, y / height, np.zeros_like(x)], axis=-1)
    path = tmp_path / f"ramp.{ending}"
    picture = Image.fromarray((ramp * 255).round().astype(np.uint8))
    picture.save(path, **({"quality": 95, "subsampling": 0} if ending == "jpg" else {}))

    frame = affine(side, rotate=5, translate_x=0.08, scale=0.9, shear=-4, flip=True)
    matrix = (fit(side, (height, width)) @ frame)[:2]
    array, (to_array,) = decode(open_picture(path), "RGB", side, matrix)

    rng = np.random.default_rng(0)
    points = np.stack([rng.uniform(0, side[1], 200), rng.uniform(0, side[0], 200), np.ones(200)])
    where = matrix @ points
    inside = (where > 8).all(0) & (where[0] < width - 8) & (where[1] < height - 8)
    assert inside.sum() > 100
    column, row = np.floor(to_array @ points[:, inside]).astype(int)
    expected = where[:, inside].T / (width, height)
    # One array pixel at most, as part of the picture, and the rounding of 8 bits.
    tolerance = 1.0 / min(array.shape[:2]) + 2 / 255
    np.testing.assert_allclose(array[row, column, :2] / 255, expected, atol=tolerance)


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_decoding_leaves_a_pixel_for_every_output_pixel_and_no_more_than_needed(
    tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"large.{ending}"
    backdrop(1600, 1200, 1).save(path)
    for side in (1300, 700, 600, 299, 150, 64):
        matrix = fit((side, side), (1200, 1600))[:2]
        array, (to_array,) = decode(open_picture(path), "RGB", (side, side), matrix)
        step = to_array[0, 0]
        assert step >= 1 or side > 1200
        assert step < 2 or (ending == "jpg" and side < 150)
        assert max(array.shape[:2]) <= side * max(step, 1) + 8  # what lies outside is cut off


@pytest.mark.parametrize("ending", ["jpg", "png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_camera_held_otherwise_gives_upright_pictures(
    tmp_path: Path, ending: str, orientation: int
) -> None:
    picture = backdrop(96, 64, 1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / f"a.{ending}", exif=exif)
    stored = Image.open(tmp_path / f"a.{ending}")
    shown = np.asarray(ImageOps.exif_transpose(stored))
    assert upright_size(stored) == shown.shape[:2]
    size = shown.shape[:2]
    array, (to_array,) = decode(
        open_picture(tmp_path / f"a.{ending}"), "RGB", size, fit(size, size)[:2]
    )
    y, x = np.mgrid[0 : size[0], 0 : size[1]] + 0.5
    column, row = np.floor(to_array @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])).astype(int)
    assert np.array_equal(array[row, column], shown.reshape(-1, 3))


def test_sixteen_bit_alpha_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 40 * 40).reshape(40, 40).astype(np.uint16)
    path = tmp_path / "deep.png"
    Image.fromarray(values).save(path)
    array, _ = decode(open_picture(path), "L", (40, 40), np.eye(3)[:2])
    np.testing.assert_allclose(array[..., 0], values / 257, atol=0.51)


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    backdrop(300, 200, 1).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"cut\.jpg cannot be decoded"):
        decode(open_picture(path), "RGB", (64, 64), np.eye(3)[:2])
    path.write_text("no picture")
    with pytest.raises(DataError, match=r"cut\.jpg cannot be decoded"):
        open_picture(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("opened", [open_picture, VideoReader])
def test_a_pipe_is_not_waited_for(tmp_path: Path, opened: Callable[[Path], object]) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(DataError, match=r"a\.mp4 is no file, but .* a pipe"):
        opened(tmp_path / "a.mp4")
