"""Pairs foregrounds with alphas, looks into headers, and decodes no more than is needed.

It never changes a file, and never guesses a pair from the order of names.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from common.errors import DataError
from common.text import listed
from dataset.alphas import refuse
from dataset.colours import GREY_MODES, conversion_of, to_srgb
from dataset.intact import ends_early, lacks_pixels
from dataset.kinds import PICTURE_ENDINGS, VIDEO_ENDINGS
from dataset.listing import (
    VIDEO_ADVICE,
    Say,
    clips_advice,
    find_pictures,
    names_and_stems,
    quiet,
)
from dataset.names import Names
from dataset.orientation import orientation_of, upright_size, upright_to_stored
from dataset.other_pictures import what_it_is
from dataset.png import open_image

if TYPE_CHECKING:
    from dataset.tar import Member, TarFolder

MAX_HEADERS_CHECKED = 20_000  # beyond it, pairs evenly spaced; all are checked when read
MAX_PICTURE_PIXELS = 100_000_000  # in a picture; more are a mistake, or meant to exhaust memory
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit, 179 million, and its warnings: ours is lower

# Pillow's modes of pictures that can be taken as RGB, L (grey) or RGBA; CMYK as RGB, too, where a
# profile says what it is. In an alpha that has an alpha of its own it is not clear which is meant.
PIXEL_MODES = {
    "RGB": (*GREY_MODES, "P", "RGB", "LA", "PA", "RGBA"),
    "L": (*GREY_MODES, "P", "RGB"),
    "matte": (*GREY_MODES, "P", "RGB", "LA", "PA", "RGBA"),  # an alpha channel is the matte
    "RGBA": ("P", "LA", "PA", "RGBA", "RGB", "L"),  # with an alpha, or a transparent colour
}


WORDS_OF_MODE = {
    "RGB": "colours",
    "L": "an alpha",
    "matte": "an alpha",
    "RGBA": "colours with their alpha",
}


@dataclass(frozen=True)
class Foregrounds:
    """Pairs of a foreground and its alpha; without `pha_folder`, RGBA pictures that hold both."""

    fgr_folder: "Path | TarFolder"
    fgr_names: Names
    pha_folder: "Path | TarFolder | None"
    pha_names: Names

    def __len__(self) -> int:
        return len(self.fgr_names)

    def paths(self, index: int) -> "tuple[Path | Member, Path | Member | None]":
        fgr = self.fgr_folder / self.fgr_names[index]
        return fgr, self.pha_folder / self.pha_names[index] if self.pha_folder else None


@dataclass(frozen=True)
class Backgrounds:
    folder: "Path | TarFolder"
    names: Names

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> "Path | Member":
        return self.folder / self.names[index]


def find_backgrounds(
    folder: "Path | TarFolder", check_headers: bool = True, say: Say = quiet
) -> Backgrounds:
    """All pictures below `folder`. check_headers: whether headers are read, 20,000 at most. say:
    told of files that are not read. Raises DataError where there are no pictures, or a header is
    not that of one."""
    backgrounds = Backgrounds(folder, Names(find_pictures(folder, say)))
    if check_headers:
        indices = _spread(range(len(backgrounds)))
        _sizes((backgrounds.path(index) for index in indices), "RGB")
    return backgrounds


def find_rgba(
    folder: "Path | TarFolder", check_headers: bool = True, say: Say = quiet
) -> Foregrounds:
    """Pictures with an alpha channel of their own. Raises DataError where there are none."""
    names = find_pictures(folder, say)
    if check_headers:
        _sizes((folder / name for name in _spread(names)), "RGBA")
    return Foregrounds(folder, Names(names), None, Names([]))


def find_pairs(
    fgr_folder: "Path | TarFolder",
    pha_folder: "Path | TarFolder",
    check_headers: bool = True,
    say: Say = quiet,
) -> Foregrounds:
    """Pairs by relative path without the ending: a/b.jpg in one folder meets a/b.png in the other.

    Raises DataError where a folder is missing or empty, a foreground has no alpha or the reverse,
    or a name is there twice (with two endings, or in two Unicode forms). Where `check_headers` is
    set, also where a pair's two pictures are unlike in size: of all pairs, or of 20,000 evenly
    spaced ones where there are more. say: told of files that are not read.
    """
    advice = clips_advice(fgr_folder, pha_folder)
    fgr_names, fgr_stems = names_and_stems(fgr_folder, say, advice)
    pha_names, pha_stems = names_and_stems(pha_folder, say, advice)
    orphans = [
        folder / names[place]
        for folder, names, stems, others in (
            (fgr_folder, fgr_names, fgr_stems, pha_stems),
            (pha_folder, pha_names, pha_stems, fgr_stems),
        )
        for place in np.flatnonzero(~np.isin(stems, others)).tolist()
    ]
    if orphans:
        raise DataError(
            f"{len(orphans)} picture(s) without a partner of the same name in {fgr_folder} and "
            f"{pha_folder}: {listed(orphans)}; a foreground and its alpha have the same name but "
            f"for the ending ({', '.join(PICTURE_ENDINGS)}): add what is missing or move these away"
        )
    partners = np.empty_like(fgr_stems)
    partners[np.argsort(fgr_stems)] = np.argsort(pha_stems)
    if (np.diff(partners) != 1).any():  # sorted unlike, as a.jpg, a.k.jpg and a.k.png, a.png
        pha_names = Names([pha_names[place] for place in partners])
    pairs = Foregrounds(fgr_folder, fgr_names, pha_folder, pha_names)
    if not check_headers:
        return pairs
    unlike_pairs = []
    chosen = [pairs.paths(index) for index in _spread(range(len(pairs)))]
    paths = zip(zip(*chosen, strict=True), ("RGB", "L"), strict=True)
    fgr_sizes, pha_sizes = (_sizes(some, mode) for some, mode in paths)
    for (fgr_path, pha_path), one, other in zip(chosen, fgr_sizes, pha_sizes, strict=True):
        if one != other:
            unlike_pairs.append(unlike(fgr_path, one, pha_path, other))
    if unlike_pairs:
        raise DataError(
            f"{len(unlike_pairs)} pair(s) of unlike sizes: {listed(unlike_pairs)}; alpha and "
            "foreground must have the same: replace or remove them, or, where EXIF turns one "
            "alone, turn the other's pixels likewise, or take the orientation out"
        )
    return pairs


def _sizes(paths: "Iterable[Path | Member]", mode: str) -> list[tuple[int, int]]:
    """Reads the sizes that headers say. Many are read at once, since disks may be far away, and
    some in a row, since to hand over a single one costs as much as to read it."""
    paths = list(paths)
    rows = [paths[start : start + 32] for start in range(0, len(paths), 32)]
    with ThreadPoolExecutor(16) as threads:
        sizes = threads.map(lambda row: [_size_of(path, mode) for path in row], rows)
        return list(chain.from_iterable(sizes))


def _size_of(path: "Path | Member", mode: str) -> tuple[int, int]:
    """(width, height), as people say it, of a picture that can be taken as `mode`."""
    with open_picture(path) as picture:
        check_mode(picture, mode)
        return upright_size(picture)[::-1]


def check_mode(picture: ImageFile.ImageFile, mode: str) -> None:
    """Raises DataError where an opened picture cannot be taken as a mode of PIXEL_MODES."""
    path = os.fsdecode(picture.filename)
    if mode == "RGBA" and "A" not in picture.getbands() and "transparency" not in picture.info:
        raise DataError(
            f"{path} has no alpha channel (its mode is {picture.mode}), and pictures in a folder "
            "rgba must: save them as PNG with transparency, which JPEG has none of, or give them "
            "as fgr with their mattes as pha"
        )
    inks = picture.mode == "CMYK" and mode == "RGB"
    if picture.mode not in PIXEL_MODES[mode] and not (inks and conversion_of(picture)):
        kind = WORDS_OF_MODE[mode]
        bare = ", without a colour profile that can be used" if inks else ""
        mend = f"convert it to {mode}"
        if mode in ("L", "matte"):
            mend = "convert it to L (grey)"
            if "A" in picture.getbands():  # whose grey would be that of the colours
                mend = (
                    "take its alpha channel (in Python: Image.open(FILE).getchannel('A')), or, "
                    "where that is opaque and the matte is its grey, convert it to L"
                )
        raise DataError(
            f"{path} cannot be taken as {kind}: its mode is {picture.mode}{bare}; {mend}"
        )


def unlike(
    fgr: "Path | Member",
    fgr_size: tuple[int, int],
    pha: "Path | Member | None",
    pha_size: tuple[int, int],
) -> str:
    """Two pictures as a message names them, with their (width, height), and with how EXIF turns
    them where that may be why they are unlike."""
    said = []
    for path, (width, height) in ((fgr, fgr_size), (pha, pha_size)):
        turned = ""
        if path and fgr_size == pha_size[::-1]:
            with open_picture(path) as picture:
                held = orientation_of(picture)
            turned = f", turned by EXIF orientation {held}" if held != 1 else ", not turned by EXIF"
        said.append(f"{path} ({width}x{height}{turned})")
    return " and ".join(said)


def _spread(items: Sequence) -> Iterator:
    """All of the items, or MAX_HEADERS_CHECKED evenly spaced ones."""
    count = min(len(items), MAX_HEADERS_CHECKED)
    return (items[index * len(items) // count] for index in range(count))


def open_picture(path: "Path | Member") -> ImageFile.ImageFile:
    """The picture with its header read and its pixels not yet. Raises DataError."""
    if isinstance(path, Path) and path.exists() and not path.is_file():
        raise DataError(f"{path} is no file, but a folder, a pipe or a device; give a picture")
    source = path if isinstance(path, Path) else path.open()
    try:
        picture = open_image(source)
        picture.filename = str(path)
        picture.source = path  # type: ignore[attr-defined]  # for who looks into it again
    except FileNotFoundError:
        link = isinstance(path, Path) and path.is_symlink()
        what = "is a link to nothing" if link else "is not there any more"
        raise DataError(f"{path} {what}; restore or remove it, and start again") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise _undecodable(str(path), error, what_it_is(path)) from None
    if picture.width * picture.height > MAX_PICTURE_PIXELS:
        picture.close()
        raise DataError(
            f"{path} is too large a picture: {picture.width}x{picture.height}, more than "
            f"{MAX_PICTURE_PIXELS // 1_000_000} million pixels; scale it down or remove it"
        )
    return picture


def decode(
    picture: ImageFile.ImageFile, mode: str, size: tuple[int, int], *matrices: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The part of an opened picture that a warp will look at, at the smallest sufficient scale.

    picture: as open_picture gives it, closed here. mode: "RGB", "L" or "RGBA". size: (height,
    width) of the output. matrices: (2, 3) each, from the output's to the picture's coordinates,
    (x, y) in pixels of the upright picture, the first pixel's centre being at 0.5; what any of
    them looks at is kept.

    A JPEG is decoded at 1/2, 1/4 or 1/8 (which skips most of the work), a PNG is averaged after
    decoding, as long as there remains a pixel for every pixel of the output. What lies outside of
    the output's outline, reflection at the picture's borders considered, is cut off.

    Returns the pixels, uint8 (h, w, channels), colours in sRGB whatever the picture's profile, and
    the matrices to *their* coordinates. Raises DataError naming the file that cannot be decoded.
    """
    path, width = os.fsdecode(picture.filename), picture.width
    check_mode(picture, mode)
    conversion = None if mode == "L" else conversion_of(picture)
    if (orientation := orientation_of(picture)) != 1:
        to_stored = upright_to_stored(orientation, picture.size)
        matrices = tuple(to_stored @ np.vstack([matrix, (0, 0, 1)]) for matrix in matrices)
    shrink = int(max(1, min(_pixels_a_step(matrix) for matrix in matrices)))
    scale = 1
    try:
        with picture:
            if picture.format == "JPEG" and shrink > 1:
                wanted = (max(1, width // shrink), max(1, picture.height // shrink))
                drafted = picture.draft("L" if mode == "L" else "RGB", wanted)
                scale = round(width / drafted[1][2]) if drafted else 1
            load(picture, mode, scale)
            pixels = as_8_bits(picture, mode)
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise _undecodable(path, error) from None

    reduce = max(1, shrink // scale)
    corners = np.stack([matrix @ _corners(size) for matrix in matrices], axis=1) / scale
    left, right = _span(corners[0], pixels.width, 2 * reduce)
    top, bottom = _span(corners[1], pixels.height, 2 * reduce)
    box = (left, top, right, bottom)
    if reduce > 1:
        # Each band by itself: Pillow would multiply an RGBA picture's colours by its alpha, and
        # so lose those of transparent pixels.
        bands = [np.asarray(band.reduce(reduce, box)) for band in pixels.split()]
        array = np.stack(bands, axis=-1)
    else:
        array = np.array(pixels.crop(box))
        array = array.reshape(*array.shape[:2], -1)
    origin = np.array([[0, 0, left], [0, 0, top]]) / reduce
    return to_srgb(array, conversion), [matrix / (scale * reduce) - origin for matrix in matrices]


def load(picture: ImageFile.ImageFile, mode: str, scale: int = 1) -> None:
    """Decodes an opened picture that is to be taken as `mode`, of PIXEL_MODES. scale: a JPEG is
    decoded so many times smaller. Raises DataError where it cannot be decoded, and AlphaError where
    its alpha is none."""
    try:
        picture.load()
        if ends_early(picture, picture.format, scale):
            source = picture.source  # type: ignore[attr-defined]
            with source.open("rb") if isinstance(source, Path) else source.open() as file:
                if lacking := lacks_pixels(file, picture.format):
                    raise ValueError(lacking)
    except (OSError, SyntaxError, ValueError) as error:
        raise _undecodable(os.fsdecode(picture.filename), error) from None
    if mode != "RGB":
        alpha_of(picture, mode)


def alpha_of(picture: ImageFile.ImageFile, mode: str) -> Image.Image:
    """The alpha of a decoded picture, as the file has it: of mode 1, L, I or I;16, or RGB or P
    that is grey. mode: "L"; "RGBA": its alpha channel; "matte": that, but where it is opaque the
    grey beside it. Raises AlphaError where it is none."""
    alpha: Image.Image = picture
    if mode != "L" and (mode == "RGBA" or "A" in picture.getbands()):
        whole = picture if picture.mode in ("LA", "RGBA") else picture.convert("RGBA")
        alpha = whole.getchannel("A")
        if mode == "matte" and alpha.getextrema() == (255, 255):
            alpha = whole.convert("RGB")
    refuse(os.fsdecode(picture.filename), alpha)
    return alpha


def _pixels_a_step(matrix: np.ndarray) -> float:
    """How far apart, at least, two neighbouring output pixels are in the picture."""
    return np.linalg.svd(matrix[:, :2], compute_uv=False).min()


def _corners(size: tuple[int, int]) -> np.ndarray:
    height, width = size
    return np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]]).T


def _span(points: np.ndarray, length: int, margin: int) -> tuple[int, int]:
    """The pixels along an axis that an output with these corners touches: [first, behind last)."""
    low, high = int(np.floor(points.min())) - margin, int(np.ceil(points.max())) + margin
    first = max(0, min(low, 2 * length - high, length - 1))
    return first, max(first + 1, min(length, max(high, -low)))


def as_8_bits(picture: Image.Image, mode: str) -> Image.Image:
    """A decoded picture as RGB, L or RGBA (CMYK stays)."""
    if picture.mode.startswith("I") or picture.mode == "F":
        # 16-bit grey: Pillow's own conversion would clip everything above 255.
        values = np.asarray(picture).astype(np.float32)
        picture = Image.fromarray((values / 257).round().clip(0, 255).astype(np.uint8))
    return picture if picture.mode in (mode, "CMYK") else picture.convert(mode)


def _undecodable(path: str, error: Exception, other: str = "") -> DataError:
    if path.lower().endswith(VIDEO_ENDINGS):
        return DataError(f"{path} is a video, not a picture; {VIDEO_ADVICE}")
    if os.path.exists(path) and not os.path.getsize(path):
        what = "is empty"
    elif isinstance(error, UnidentifiedImageError):
        what = other or "is no picture, or of another format"
    else:
        what = str(error)
    return DataError(
        f"{path} cannot be decoded as JPEG or PNG ({what}); replace or remove it", skippable=True
    )
