"""Looks at some pictures of a data set before anything is done with it, for a moment and no longer.

alphas.py judges alphas; check_data.py looks at every picture.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
from PIL import ImageOps

from common.errors import DataError
from dataset.alphas import AlphaError, Judged, fault_of_sample, judge_alpha
from dataset.listing import Say, quiet
from dataset.orientation import orientation_of, upright_size
from dataset.pictures import (
    Backgrounds,
    Foregrounds,
    alpha_of,
    as_8_bits,
    check_mode,
    load,
    open_picture,
)

if TYPE_CHECKING:
    from pathlib import Path

    from dataset.tar import Member

MAX_HEADERS = 24  # foregrounds, and as many backgrounds, whose size is looked at
MAX_ALPHAS = 48  # alphas of a split, evenly spread
MAX_SECONDS_OF_SPLIT = {"train": 0.5, "valid": 0.25}  # in which one that is begun is to end, too
ALPHAS_AT_ONCE = 4
PIXELS_OF_ALPHA = 500_000  # of each, about; rows and columns between are left out
# Multiples of it, modulo 1, are spread evenly however many are taken.
GOLDEN_RATIO = 0.6180339887498949


def look_at_alphas(splits: dict[str, Foregrounds], say: Say = quiet, skip: bool = False) -> None:
    """Raises DataError where the alphas of a split are none, as far as some of them show. say: told
    where a foreground was turned by its camera and its alpha perhaps not. skip: one bad picture,
    or one in a hundred, is let pass, since it is left out when it is read."""
    for split, foregrounds in splits.items():
        indices = spread(len(foregrounds), MAX_ALPHAS)
        pairs = [foregrounds.paths(index) for index in indices]
        mode = "L" if foregrounds.pha_folder else "RGBA"
        judged = judge_files([pha or fgr for fgr, pha in pairs], MAX_SECONDS_OF_SPLIT[split], mode)
        allowed = max(1, len(judged) // 100) if skip else 0
        if fault := fault_of_sample(judged, len(foregrounds), allowed=allowed):
            raise DataError(fault[1])
        turned = [fgr for fgr, pha in pairs[: len(judged)] if pha and turned_apart(fgr, pha)]
        if turned:
            say(
                f"note: {turned[0]} is turned by its EXIF orientation, and its alpha has none "
                f"({len(turned)} of {len(judged)} pairs that were looked at): where the alpha "
                "was made from the unturned pixels, it lies across its foreground; look at both"
            )


def smaller_than(
    side: int, foregrounds: Foregrounds, backgrounds: Backgrounds
) -> tuple[list[tuple["Path | Member", tuple[int, int]]], int]:
    """Of some pictures of a split, by their headers, those that are narrower or lower than `side`
    pixels, with height and width; and how many were looked at."""
    paths = [foregrounds.paths(index)[0] for index in spread(len(foregrounds), MAX_HEADERS)]
    paths += [backgrounds.path(index) for index in spread(len(backgrounds), MAX_HEADERS)]
    found = []
    for path in paths:
        with suppress(DataError), open_picture(path) as picture:
            size = upright_size(picture)
            if min(size) < side:
                found.append((path, size))
    return found, len(paths)


def spread(count: int, at_most: int) -> list[int]:
    """Up to `at_most` of `count` indices; any first few of them are spread evenly, too."""
    if count <= at_most:
        return list(range(count))
    return list(dict.fromkeys(int(k * GOLDEN_RATIO % 1 * count) for k in range(at_most)))


def judge_files(paths: "Sequence[Path | Member]", seconds: float, mode: str) -> list[Judged]:
    """The first of these alphas that can be looked at in so many seconds, at least one. mode: as
    images.alpha_of takes it. What cannot be read is left out: whoever reads it next says so."""
    start, longest = time.monotonic(), 0.0

    def judge(number: int) -> Judged | None:
        nonlocal longest
        begun = time.monotonic()
        if number and begun + longest > start + seconds:
            return None
        found = None
        with suppress(DataError):
            found = Judged(paths[number], faults_of(paths[number], mode), mode == "RGBA")
        longest = max(longest, time.monotonic() - begun)
        return found

    first = [judge(0)] if paths else []  # alone: it shows how long one takes
    with ThreadPoolExecutor(ALPHAS_AT_ONCE) as threads:
        others = threads.map(judge, range(1, len(paths)))
        return [judged for judged in (*first, *others) if judged]


def faults_of(path: "Path | Member", mode: str) -> list[tuple[str, str]]:
    """Returns what is wrong with an alpha: pairs of kind and figures. Raises DataError."""
    with open_picture(path) as picture:
        check_mode(picture, mode)
        try:
            load(picture, mode)
            alpha = as_8_bits(alpha_of(picture, mode), "L")
        except AlphaError as error:
            return [(error.kind, error.figures)]
        alpha = ImageOps.exif_transpose(alpha) if orientation_of(picture) != 1 else alpha
        step = max(1, round((alpha.width * alpha.height / PIXELS_OF_ALPHA) ** 0.5))
        return list(judge_alpha(np.asarray(alpha)[::step, ::step]))


def turned_apart(fgr: "Path | Member", pha: "Path | Member") -> bool:
    """Whether EXIF turns the foreground and does not turn its alpha."""
    try:
        with open_picture(fgr) as one, open_picture(pha) as other:
            return orientation_of(one) != 1 and orientation_of(other) == 1
    except DataError:
        return False
