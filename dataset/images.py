"""Finds pictures in folders, pairs foregrounds with alphas, and decodes no more than is needed.

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

from dataset.colours import GREY, conversion_of, to_srgb
from dataset.names import Names
from dataset.orientation import ORIENTATIONS, orientation_of, upright_size
from dataset.png import open_image

if TYPE_CHECKING:
    from dataset.tar import Member, TarFolder

ENDINGS = (".jpg", ".jpeg", ".png")
NAMED_AT_MOST = 20  # how many offenders a message lists
HEADERS_CHECKED_AT_MOST = 20_000  # beyond it, pairs evenly spaced; all are checked when read
LINKS_AT_MOST = 3  # on the way to a picture
PIXELS_AT_MOST = 100_000_000  # in a picture; more are a mistake, or meant to exhaust memory
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit, 179 million, and its warnings: ours is lower

# Pillow's modes of pictures that can be taken as RGB, L (grey) or RGBA; CMYK as RGB, too, where a
# profile says what it is. In an alpha that has an alpha of its own it is not clear which is meant.
MODES = {
    "RGB": (*GREY, "P", "RGB", "LA", "PA", "RGBA"),
    "L": (*GREY, "P", "RGB"),
    "RGBA": ("P", "LA", "PA", "RGBA", "RGB", "L"),  # with an alpha, or a transparent colour
}


class DataError(ValueError):
    """Data that cannot be trained on; the message names the files and says what to do."""


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


def find_pictures(folder: "Path | TarFolder") -> list[str]:
    """Paths of all pictures below `folder`, relative to it, sorted. Raises DataError if none."""
    if not isinstance(folder, Path):
        return list(folder.names)
    if "PATH_TO" in os.fspath(folder):
        raise DataError(
            f"there is no folder {folder}: this is a placeholder; enter your own in data_path.py"
        )
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise DataError(f"there is no folder {folder}: it {what}; check the path")
    found = sorted(_walk(os.fspath(folder)))
    if not found:
        raise DataError(f"no picture ({', '.join(ENDINGS)}) in {folder}; is it the right folder?")
    return found


def _walk(top: str) -> Iterator[str]:
    # Of each folder that is left: where it is, how its names begin, the folders on the way to it,
    # their links resolved (a link back to one would be walked for ever), how many were links.
    left: list[tuple[str, str, tuple[str, ...], int]] = [(top, "", (os.path.realpath(top),), 0)]
    while left:
        folder, prefix, way, links = left.pop()
        folders = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.name.lower().endswith(ENDINGS):
                        # a pipe would not end; a link to nothing is told of later
                        if entry.is_file() or not os.path.exists(entry.path):
                            yield prefix + entry.name
                    elif _is_folder(entry):
                        folders.append(entry)
        except OSError as error:
            raise DataError(f"{folder} cannot be read ({error.strerror})") from None
        for entry in folders:
            real = os.path.join(way[-1], entry.name)
            linked = entry.is_symlink()
            real = os.path.realpath(real) if linked else real
            if real in way:
                continue
            if linked and links == LINKS_AT_MOST:
                raise DataError(
                    f"{entry.path} is a link behind {links} others: folders that link to each "
                    "other have pictures without end; give the folder with the pictures itself"
                )
            left.append((entry.path, f"{prefix}{entry.name}/", (*way, real), links + linked))


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def find_backgrounds(folder: "Path | TarFolder", look: bool = True) -> Backgrounds:
    """All pictures below `folder`. Raises DataError where there are none, or, where `look` is set,
    one's header, of the 20,000 that are looked at, is not that of a picture."""
    backgrounds = Backgrounds(folder, Names(find_pictures(folder)))
    if look:
        indices = _spread(range(len(backgrounds)))
        _sizes((backgrounds.path(index) for index in indices), "RGB")
    return backgrounds


def find_rgba(folder: "Path | TarFolder", look: bool = True) -> Foregrounds:
    """Pictures with an alpha channel of their own. Raises DataError where there are none."""
    names = find_pictures(folder)
    if look:
        _sizes((folder / name for name in _spread(names)), "RGBA")
    return Foregrounds(folder, Names(names), None, Names([]))


def find_pairs(
    fgr_folder: "Path | TarFolder", pha_folder: "Path | TarFolder", look: bool = True
) -> Foregrounds:
    """Pairs by relative path without the ending: a/b.jpg in one folder meets a/b.png in the other.

    Raises DataError where a folder is missing or empty, a foreground has no alpha or the reverse,
    a name is there twice with two endings, or, where `look` is set, a pair's two pictures are
    unlike in size. Sizes are read from the headers: of all pairs, or of 20,000 evenly spaced ones
    where there are more.
    """
    fgr_names, fgr_stems = _names_and_stems(fgr_folder)
    pha_names, pha_stems = _names_and_stems(pha_folder)
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
            f"for the ending ({', '.join(ENDINGS)}): add what is missing or move these away"
        )
    partners = np.empty_like(fgr_stems)
    partners[np.argsort(fgr_stems)] = np.argsort(pha_stems)
    if (np.diff(partners) != 1).any():  # sorted unlike, as a.jpg, a.k.jpg and a.k.png, a.png
        pha_names = Names([pha_names[place] for place in partners])
    pairs = Foregrounds(fgr_folder, fgr_names, pha_folder, pha_names)
    if not look:
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
            "foreground must have the same: replace or remove them"
        )
    return pairs


def _sizes(paths: "Iterable[Path | Member]", mode: str) -> list[tuple[int, int]]:
    """Of each picture's header; many at once, since disks may be far away, and some in a row, since
    handing over a single one costs as much as to read it."""
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
    """Raises DataError where an opened picture cannot be taken as RGB, L or RGBA."""
    path = os.fsdecode(picture.filename)
    if mode == "RGBA" and "A" not in picture.getbands() and "transparency" not in picture.info:
        raise DataError(f"{path} has no alpha channel; expected RGBA pictures")
    inks = picture.mode == "CMYK" and mode == "RGB"
    if picture.mode not in MODES[mode] and not (inks and conversion_of(picture)):
        kind = {"L": "an alpha", "RGB": "colours", "RGBA": "colours with their alpha"}[mode]
        grey = " (grey)" if mode == "L" else ""
        bare = ", without a colour profile that can be used" if inks else ""
        raise DataError(
            f"{path} cannot be taken as {kind}: its mode is {picture.mode}{bare}; convert "
            f"it to {mode}{grey}"
        )


def unlike(fgr: object, fgr_size: tuple[int, int], pha: object, pha_size: tuple[int, int]) -> str:
    """Two pictures as a message names them."""
    return f"{fgr} ({fgr_size[0]}x{fgr_size[1]}) and {pha} ({pha_size[0]}x{pha_size[1]})"


def by_stem(folder: Path) -> dict[str, Path]:
    """The pictures below a folder, by their names without the endings. Raises DataError where a
    name is there twice."""
    found: dict[str, Path] = {}
    twice = []
    for name in find_pictures(folder):
        stem = name.rsplit(".", 1)[0]
        if stem in found:
            twice.append(f"{found[stem]} and {folder / name}")
        found[stem] = folder / name
    if twice:
        raise DataError(_said_of_twice(twice))
    return found


def _names_and_stems(folder: "Path | TarFolder") -> tuple[Names, np.ndarray]:
    """The pictures below a folder, and of each the hash of its name without the ending: 64 bits,
    of which two of a million names share one with a probability of 3e-8; the names themselves,
    twice over, would take hundreds of megabytes. Raises DataError where a name is there twice."""
    names = find_pictures(folder)
    stems = np.fromiter((hash(name.rsplit(".", 1)[0]) for name in names), np.int64, len(names))
    order = np.argsort(stems, kind="stable")
    again = np.flatnonzero(np.diff(stems[order]) == 0)
    if len(again):
        twice = sorted((names[order[place]], names[order[place + 1]]) for place in again)
        said = [f"{folder / one} and {folder / other}" for one, other in twice]
        raise DataError(_said_of_twice(said))
    return Names(names), stems


def _said_of_twice(pairs: list[str]) -> str:
    said = f"{len(pairs)} name(s) twice, with two endings: {listed(pairs)}"
    return f"{said}; remove one of each"


def _spread(items: Sequence) -> Iterator:
    """All of the items, or HEADERS_CHECKED_AT_MOST evenly spaced ones."""
    count = min(len(items), HEADERS_CHECKED_AT_MOST)
    return (items[index * len(items) // count] for index in range(count))


def listed(items: Sequence) -> str:
    more = len(items) - NAMED_AT_MOST
    return ", ".join(map(str, items[:NAMED_AT_MOST])) + (f" and {more} more" if more > 0 else "")


def open_picture(path: "Path | Member") -> ImageFile.ImageFile:
    """The picture with its header read and its pixels not yet. Raises DataError."""
    source = path if isinstance(path, Path) else path.open()
    try:
        picture = open_image(source)
        picture.filename = str(path)
    except FileNotFoundError:
        link = isinstance(path, Path) and path.is_symlink()
        what = "is a link to nothing" if link else "is not there any more"
        raise DataError(f"{path} {what}; restore or remove it, and start again") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DataError(_undecodable(str(path), error)) from None
    if picture.width * picture.height > PIXELS_AT_MOST:
        picture.close()
        raise DataError(
            f"{path} is too large a picture: {picture.width}x{picture.height}, more than "
            f"{PIXELS_AT_MOST // 1_000_000} million pixels; scale it down or remove it"
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
        rows = np.array(ORIENTATIONS[orientation], dtype=np.float64)
        to_stored = np.column_stack([rows[:, :2], rows[:, 2:] @ picture.size])
        matrices = tuple(to_stored @ np.vstack([matrix, (0, 0, 1)]) for matrix in matrices)
    shrink = int(max(1, min(_pixels_a_step(matrix) for matrix in matrices)))
    scale = 1
    try:
        with picture:
            if picture.format == "JPEG" and shrink > 1:
                wanted = (max(1, width // shrink), max(1, picture.height // shrink))
                drafted = picture.draft("L" if mode == "L" else "RGB", wanted)
                scale = round(width / drafted[1][2]) if drafted else 1
            picture.load()
            pixels = _as_mode(picture, mode)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(_undecodable(path, error)) from None

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


def _as_mode(picture: Image.Image, mode: str) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":
        # 16-bit grey: Pillow's own conversion would clip everything above 255.
        values = np.asarray(picture).astype(np.float32)
        picture = Image.fromarray((values / 257).round().clip(0, 255).astype(np.uint8))
    return picture if picture.mode in (mode, "CMYK") else picture.convert(mode)


def _undecodable(path: str, error: Exception) -> str:
    if os.path.exists(path) and not os.path.getsize(path):
        what = "is empty"
    elif isinstance(error, UnidentifiedImageError):
        what = "is no picture, or of another format"
    else:
        what = str(error)
    return (
        f"{path} cannot be decoded as JPEG or PNG ({what}); replace or remove it, or type "
        "--on-bad-image skip"
    )
