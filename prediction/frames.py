"""What to predict on: pictures and the backgrounds that go with them, found by name, read in full.

Training reads no more of a picture than a crop needs: dataset/pictures.py and dataset/sample.py.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from common.errors import DataError
from common.text import listed
from dataset.listing import Say, by_stem, quiet
from dataset.orientation import orientation_of, turn_upright, upright_size
from dataset.pictures import check_mode, decode, open_picture, unlike


class Frame(NamedTuple):
    """A picture to predict on, and its background. name: the picture's path relative to its
    folder, without the ending, with slashes. size: (height, width) of both, upright."""

    name: str
    src: Path
    bgr: Path
    size: tuple[int, int]


def find_frames(src: Path, bgr: Path, say: Say = quiet) -> tuple[list[Frame], list[DataError]]:
    """The pictures of `src`, a folder or one picture, each with its background out of `bgr`: of a
    folder the one with the same relative path but for the ending; a picture is that of them all.

    say: told of files that are not read. Returns the frames, sorted by name, and an error for each
    picture whose header cannot be read, which is in no frame. Raises DataError where there is
    none, a background is missing, a name is there twice, or the two pictures of a frame are unlike
    in size.
    """
    for path, flag in ((src, "--src"), (bgr, "--bgr")):
        if not path.exists():
            raise DataError(f"there is no file or folder {path}; check {flag}")
    if src.is_dir():
        names = by_stem(src, say)
    elif bgr.is_dir():
        raise DataError(
            f"--src {src} is one picture, and --bgr {bgr} a folder; give the one background"
        )
    else:
        names = {src.stem: src}
    if bgr.is_dir():
        backgrounds = by_stem(bgr, say)
        lacking = [path for stem, path in names.items() if stem not in backgrounds]
        if lacking:
            raise DataError(
                f"{len(lacking)} of {len(names)} picture(s) in {src} without a background of the "
                f"same name in {bgr}: {listed(lacking)}; add them, or give --bgr one picture for "
                "all"
            )
    else:
        backgrounds = dict.fromkeys(names, bgr)

    paths = list(dict.fromkeys([*names.values(), *(backgrounds[stem] for stem in names)]))
    with ThreadPoolExecutor(16) as threads:
        looked = dict(zip(paths, threads.map(_look, paths), strict=True))
    frames, unlikes = [], []
    for stem, path in sorted(names.items()):
        one, other = looked[path], looked[backgrounds[stem]]
        if isinstance(one, DataError) or isinstance(other, DataError):
            continue
        if one != other:
            unlikes.append(unlike(path, one[::-1], backgrounds[stem], other[::-1]))
        name = path.relative_to(src).as_posix().rsplit(".", 1)[0] if src.is_dir() else stem
        frames.append(Frame(name, path, backgrounds[stem], one))
    if unlikes:
        raise DataError(
            f"{len(unlikes)} picture(s) unlike their background in size: {listed(unlikes)}; both "
            "must show the same scene from the same place: take the background again, or crop it "
            "and scale it to the same size"
        )
    return frames, [found for found in looked.values() if isinstance(found, DataError)]


def _look(path: Path) -> tuple[int, int] | DataError:
    try:
        with open_picture(path) as picture:
            check_mode(picture, "RGB")
            return upright_size(picture)
    except DataError as error:
        return error


def read_rgb(path: Path) -> np.ndarray:
    """The whole picture upright, uint8 (H, W, 3); grey and 16-bit ones as well, and without an
    alpha that it may have. Raises DataError."""
    picture = open_picture(path)
    orientation = orientation_of(picture)
    pixels, _ = decode(picture, "RGB", upright_size(picture), np.eye(3)[:2])
    if orientation == 1:
        return pixels
    return np.array(turn_upright(Image.fromarray(pixels), orientation))


def cover(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture (h, w, 3) scaled until it covers (height, width), its middle cut out."""
    fitted = ImageOps.fit(Image.fromarray(pixels), size[::-1], Image.Resampling.BICUBIC)
    return np.array(fitted)
