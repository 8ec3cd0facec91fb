"""Which pictures lie in a folder, and under which names they meet others; says what it passes over.

It opens no file.
"""

import os
import shlex
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from common.choices import SPLITS
from common.cli import command
from common.errors import DataError
from common.text import listed
from dataset.kinds import PICTURE_ENDINGS, VIDEO_ENDINGS, kind_of, said_of_passed
from dataset.names import Names
from dataset.tar import TarFolder

VIDEO_ADVICE = "take the frames out of a video first: ffmpeg -i VIDEO FOLDER/%06d.png"
MAX_FOLDERS_LISTED = 6  # of those that lie where pictures are looked for
MAX_LINKS = 3  # on the way to a picture
LITTER_FILES = ("thumbs.db", "desktop.ini", "icon\r")  # which systems leave in folders of pictures

FOREIGN_FOLDER_NAMES = {  # of the folders of a data set, in other programs
    "train": ("training", "trainset", "train_set"),
    "valid": ("test", "val", "validation", "eval", "testing", "dev"),
    "fgr": ("fg", "foreground", "foregrounds", "image", "images", "img", "imgs", "rgb"),
    "pha": ("alpha", "alphas", "matte", "mattes", "mask", "masks", "gt"),
    "backgrounds": ("background", "bg", "bgs", "bgr"),
}

Say = Callable[[str], object]


def quiet(_line: str) -> None:
    """A `say` that says nothing: in processes beside the main one."""


def clips_advice(fgr_folder: Path | TarFolder, pha_folder: Path | TarFolder) -> str:
    """What to do where foregrounds and alphas are videos."""
    words = "--from-clips", str(fgr_folder), str(pha_folder), "OUT"
    return f"to make a data set out of clips, type: {command('pack_data.py', *words)}"


def find_pictures(
    folder: Path | TarFolder, say: Say = quiet, advice: str = VIDEO_ADVICE
) -> list[str]:
    """Paths of all pictures below `folder`, relative to it, sorted. say: told how many files of
    which endings lie there that are not read. advice: what to do where there are just videos.
    Raises DataError if there is no picture."""
    if not isinstance(folder, Path):
        return list(folder.names)
    if "PATH_TO" in os.fspath(folder):
        raise DataError(
            f"there is no folder {folder}: this is a placeholder; enter your own in data_path.py"
        )
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise DataError(f"there is no folder {folder}: it {what}; {_what_lies_there(folder)}")
    passed: Counter[str] = Counter()
    found = sorted(_walk(os.fspath(folder), passed))
    others = said_of_passed(passed)
    if not found:
        there = f"; there are {others}, which are not read" if others else ""
        if any(kind in VIDEO_ENDINGS for kind in passed):
            raise DataError(f"no picture in {folder}{there}; {advice}")
        raise DataError(
            f"no picture ({', '.join(PICTURE_ENDINGS)}) in {folder}{there}; is it the right folder?"
        )
    if others:
        say(f"{folder}: not read: {others}; pictures are {', '.join(PICTURE_ENDINGS)}")
    return found


def _what_lies_there(missing: Path) -> str:
    """What to do about a folder that is missing, from what lies where it would."""
    parts = [missing, *missing.parents]
    place = next((path for path in parts if path.is_dir()), None)
    if place is None or place == missing:
        return "check the path"
    wanted = parts[parts.index(place) - 1].name
    try:
        with os.scandir(place) as entries:
            there = [(entry.name, _is_folder(entry)) for entry in islice(entries, 10_000)]
    except OSError:
        return "check the path"
    folders = sorted(name for name, is_folder in there if is_folder)
    for name in folders:
        if name.lower() == wanted or name.lower() in FOREIGN_FOLDER_NAMES.get(wanted, ()):
            link = f"ln -s {shlex.quote(name)} {shlex.quote(str(place / wanted))}"
            return f"there is {place / name}: rename it to {wanted}, or type: {link}"
    pictures = sum(
        name.lower().endswith(PICTURE_ENDINGS) for name, is_folder in there if not is_folder
    )
    holds = [f"{name}/" for name in folders[:MAX_FOLDERS_LISTED]]
    holds += ["..."] if len(folders) > MAX_FOLDERS_LISTED else []
    holds += [f"{pictures} pictures"] if pictures else []
    if pictures and wanted in SPLITS:
        return (
            f"{place} holds {' and '.join(holds)}: make the folders train and valid in it, and "
            "move each picture into one of them"
        )
    return f"{place} holds {', '.join(holds) or 'no folder'}; check the path"


def _walk(top: str, passed: Counter[str]) -> Iterator[str]:
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
                    is_picture = entry.name.lower().endswith(PICTURE_ENDINGS)
                    # a pipe would not end; a link to nothing is told of later
                    if is_picture and (entry.is_file() or not os.path.exists(entry.path)):
                        yield prefix + entry.name
                    elif _is_folder(entry):  # whatever its ending
                        folders.append(entry)
                    elif entry.name.lower() not in LITTER_FILES:
                        kind = kind_of(entry.name)
                        passed[f"{kind} that is no file" if is_picture else kind] += 1
        except OSError as error:
            raise DataError(f"{folder} cannot be read ({error.strerror})") from None
        for entry in folders:
            real = os.path.join(way[-1], entry.name)
            linked = entry.is_symlink()
            real = os.path.realpath(real) if linked else real
            if real in way:
                continue
            if linked and links == MAX_LINKS:
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


# ------------------------------------------------------------------------------------------------
# Names that meet


def stem_of(name: str) -> str:
    """A picture's name without the ending, by which it meets others: in Unicode's composed form,
    since some systems write é as one character and some as two."""
    stem = name.rsplit(".", 1)[0]
    return stem if stem.isascii() else unicodedata.normalize("NFC", stem)


def by_stem(folder: Path, say: Say = quiet) -> dict[str, Path]:
    """The pictures below a folder, by their stems. Raises DataError where one is there twice."""
    found: dict[str, str] = {}
    twice = []
    for name in find_pictures(folder, say):
        first = found.setdefault(stem_of(name), name)
        if first != name:
            twice.append((first, name))
    if twice:
        raise DataError(said_of_twice(folder, twice))
    return {stem: folder / name for stem, name in found.items()}


def names_and_stems(
    folder: Path | TarFolder, say: Say = quiet, advice: str = VIDEO_ADVICE
) -> tuple[Names, np.ndarray]:
    """The pictures below a folder, and of each the hash of its stem: 64 bits, of which two of a
    million names share one with a probability of 3e-8; the names themselves, twice over, would
    take hundreds of megabytes. Raises DataError where a stem is there twice."""
    names = find_pictures(folder, say, advice)
    stems = np.fromiter((hash(stem_of(name)) for name in names), np.int64, len(names))
    order = np.argsort(stems, kind="stable")
    again = np.flatnonzero(np.diff(stems[order]) == 0)
    if len(again):
        twice = sorted((names[order[place]], names[order[place + 1]]) for place in again)
        raise DataError(said_of_twice(folder, twice))
    return Names(names), stems


def said_of_twice(folder: Path | TarFolder, pairs: Sequence[tuple[str, str]]) -> str:
    """What to say of names, relative to `folder`, that meet each other."""
    said = listed([both_names(folder, *pair) for pair in pairs])
    forms = any(_differ_in_form(*pair) for pair in pairs)
    how = "with two endings or in two Unicode forms" if forms else "with two endings"
    return f"{len(pairs)} name(s) twice, {how}: {said}; remove or rename one of each"


def both_names(folder: Path | TarFolder, one: str, other: str) -> str:
    """Two names that meet, so that a reader can tell them apart."""
    said = f"{folder / one} and {folder / other}"
    return f"{said} ({one!a} and {other!a})" if _differ_in_form(one, other) else said


def _differ_in_form(one: str, other: str) -> bool:
    return one.rsplit(".", 1)[0] != other.rsplit(".", 1)[0]
