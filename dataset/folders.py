"""Which folders a data set is made of, by name or by directory; opens its two splits.

It draws the demo where that is asked for, and touches no other data set's files.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from common.choices import SPLITS
from common.errors import DataError
from common.text import tell
from dataset.demo import LARGE, make_demo
from dataset.entries import DEMO_FOLDERS, EntryError, entry_of, lacking, lacking_backgrounds
from dataset.pictures import Backgrounds, Foregrounds, find_backgrounds, find_pairs, find_rgba
from dataset.tar import TarFolder, open_tars
from dataset.tar_index import tars_in


def data_folders(name: str, directory: Path | None, say: Callable[[str], None]) -> dict:
    """The entry that data_path.py has for `name`, with backgrounds; or what `directory` is made
    of: `{train,valid}/{fgr,pha}`, or `{train,valid}/rgba`, and `backgrounds/{train,valid}`, each of
    the four being folders of pictures, or a folder of tars in which these are packed. Draws the
    demo or demo-large where it is asked for and not there. Raises DataError."""
    if directory:
        if not directory.is_dir():
            raise DataError(f"there is no folder {directory}; check --dataset-dir")
        folders = {split: _split_in(directory / split) for split in SPLITS}
        backgrounds = {split: directory / "backgrounds" / split for split in SPLITS}
        return {**folders, "backgrounds": backgrounds}
    try:
        entry = entry_of(name)
    except EntryError as error:
        raise DataError(str(error)) from None
    if name in DEMO_FOLDERS:
        folder = Path(DEMO_FOLDERS[name])
        try:
            make_demo(folder, say=say, **(LARGE if name == "demo-large" else {}))
        except ValueError as error:
            raise DataError(f"the demo data set cannot be drawn: {error}") from None
        except OSError as error:  # one of a full disk does not say where
            where = error.filename or folder.parent
            said = f"{error.strerror} in {where}; start in another folder, or make room"
            raise DataError(f"the demo data set cannot be drawn: {said}") from None
    return entry


def _split_in(folder: Path) -> dict[str, Path]:
    if tars_in(folder):
        return {"tars": folder}
    if (folder / "rgba").is_dir() and not (folder / "fgr").is_dir():
        return {"rgba": folder / "rgba"}
    return {"fgr": folder / "fgr", "pha": folder / "pha"}


def places(folders: dict) -> list[Path]:
    """All folders of an entry as data_folders gives it."""
    entries = (folders.get(each, {}) for each in (*SPLITS, "backgrounds"))
    return [Path(folder) for entry in entries for folder in entry.values()]


def open_split(
    folders: dict, split: str, check_headers: bool = True, say: Callable[[str], None] = tell
) -> tuple[Foregrounds, Backgrounds]:
    """The foregrounds and backgrounds of one split, "train" or "valid". check_headers: whether a
    picture whose header is bad is an error now; else it is one when it is read. Raises
    DataError."""
    entry = opened(folders, split, say)
    if "rgba" in entry:
        foregrounds = find_rgba(entry["rgba"], check_headers, say)
    else:
        foregrounds = find_pairs(entry["fgr"], entry["pha"], check_headers, say)
    folder = opened_backgrounds(folders, split, say)
    return foregrounds, find_backgrounds(folder, check_headers, say)


def opened(folders: dict, split: str, say: Callable[[str], None]) -> Mapping[str, Path | TarFolder]:
    """The folders of one split by their kinds, or what is in their place in tars."""
    if split not in folders:
        raise DataError(lacking(split))
    entry = {kind: Path(folder) for kind, folder in folders[split].items()}
    return in_tars(entry["tars"], say) if "tars" in entry else entry


def opened_backgrounds(folders: dict, split: str, say: Callable[[str], None]) -> Path | TarFolder:
    """The same of the backgrounds of one split."""
    if split not in folders["backgrounds"]:
        raise DataError(lacking_backgrounds(split))
    folder = Path(folders["backgrounds"][split])
    return open_tars(folder, ("",), say)[""] if tars_in(folder) else folder


def in_tars(folder: Path, say: Callable[[str], None]) -> dict[str, TarFolder]:
    """What _split_in would find if the tars in `folder` were unpacked there."""
    found = open_tars(folder, ("fgr", "pha", "rgba"), say)
    if "rgba" in found and "fgr" not in found:
        return {"rgba": found["rgba"]}
    for kind, other in (("fgr", "pha"), ("pha", "fgr")):
        if kind not in found:
            raise DataError(
                f"no picture under {kind}/ in {folder}/*.tar, but {len(found[other].names)} under "
                f"{other}/: pack both, with python pack_data.py"
            )
    return {"fgr": found["fgr"], "pha": found["pha"]}


def describe(foregrounds: Foregrounds, backgrounds: Backgrounds) -> dict[str, int | str]:
    """How many there are, and a fingerprint of their names in order: what tells data sets apart
    without reading them. Where the folders lie does not count."""
    digest = hashlib.sha256()
    for names in (foregrounds.fgr_names, foregrounds.pha_names, backgrounds.names):
        digest.update(names.digest())
    return {
        "foregrounds": len(foregrounds),
        "backgrounds": len(backgrounds),
        "fingerprint": digest.hexdigest()[:16],
    }
