"""Colours that were multiplied by their alpha are told from straight ones, without false alarms."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.choices import SPLITS
from dataset.alphas import premultiplied
from tests.support import on_photos
from tests.support.alpha_pictures import checked, disc, hard, saved


def lit(level: float) -> np.ndarray:
    """Colours of such a brightness, unlike from place to place."""
    y, x = np.mgrid[0:180, 0:240]
    waves = [level * (0.75 + 0.25 * np.sin(x / (9 + c) + y / 13 + c)) for c in range(3)]
    return np.stack(waves, axis=-1).round().astype(np.uint8)


def times(fgr: np.ndarray, pha: np.ndarray) -> np.ndarray:
    return (fgr * (pha[..., None] / 255)).round().astype(np.uint8)


def through_jpeg(path: Path, pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.open(saved(path, pixels, quality=85)))


@pytest.mark.parametrize("level", [70, 150, 255])
@pytest.mark.parametrize("soft", [3, 12])
def test_premultiplied_colours_are_told_from_straight_ones(
    level: int, soft: int, tmp_path: Path
) -> None:
    fgr, pha = lit(level), disc(60, soft)
    black = np.where(pha[..., None] > 0, fgr, 0)
    noisy = (fgr * np.random.default_rng(0).uniform(0.5, 1, fgr.shape)).astype(np.uint8)
    for straight in (fgr, black, noisy, through_jpeg(tmp_path / "a.jpg", black)):
        assert premultiplied(straight, pha) is None
    for dark in (times(fgr, pha), times(noisy, pha)):
        assert "fall with alpha" in premultiplied(dark, pha)
    if level > 70:
        assert premultiplied(through_jpeg(tmp_path / "a.jpg", times(fgr, pha)), pha)


def test_what_is_dark_or_hard_anyway_is_not_told_apart() -> None:
    fgr, pha = lit(25), disc(60, 6)
    assert premultiplied(times(fgr, pha), pha) is premultiplied(fgr, pha) is None
    mask = hard(pha, 255)
    assert premultiplied(times(lit(200), mask), mask) is None


@pytest.mark.parametrize("own", [False, True])
def test_check_data_warns_of_premultiplied_colours(own: bool, here: Path) -> None:
    data = here / "data"
    for split in SPLITS:
        for number in range(2):
            pha, fgr = disc(50 + 9 * number, 8), lit(220 - 20 * number)
            fgr = times(fgr, pha) if split == "train" else fgr
            saved(data / f"backgrounds/{split}/{number}.jpg", lit(99 + number + len(split)))
            if own:
                picture = Image.fromarray(np.dstack([fgr, pha]))
                saved(data / split / f"rgba/{number}.png", picture)
            else:
                saved(data / split / f"fgr/{number}.jpg", fgr, quality=92)
                saved(data / split / f"pha/{number}.png", pha)
    faults = [fault for fault in checked(data) if fault["kind"] == "premultiplied"]
    assert [fault["split"] for fault in faults] == ["train"] * 2
    assert not any(fault["error"] for fault in faults)


@on_photos
def test_real_colours_are_straight(photos: Path) -> None:
    told = 0
    for path in sorted(photos.glob("*/fgr/*.jpg")):
        fgr = np.asarray(Image.open(path).convert("RGB"))
        alpha = path.parents[1] / "pha" / path.with_suffix(".png").name
        pha = np.asarray(Image.open(alpha).convert("L"))
        assert premultiplied(fgr, pha) is None
        told += premultiplied(times(fgr, pha), pha) is not None
    assert told >= 5  # the other two are dark
