"""The entries of data_path.py: reads them, and says in a line what is wrong with one.

Imports nothing heavy, and looks at no folder.
"""

import os
import traceback
from pathlib import Path
from typing import Any

from common.choices import SPLITS
from common.errors import UserError

DEMO_FOLDERS = {"demo": "data/demo", "demo-large": "data/demo-large"}
ENTRY_LAYOUT = '{"train": {"fgr": FOLDER, "pha": FOLDER}, "valid": {"fgr": FOLDER, "pha": FOLDER}}'
BACKGROUNDS_LAYOUT = '{"train": FOLDER, "valid": FOLDER}'
MAX_VALUE_CHARACTERS = 60  # of what stands in an entry


class EntryError(UserError, ValueError):
    """data_path.py is wrong; the message names the line or the entry and says what to write."""


def entries() -> dict[str, Any]:
    """DATA_PATH as data_path.py has it, and the demos, which another program's file lacks. Raises
    EntryError where the file cannot be read."""
    try:
        import data_path
    except Exception as error:  # of any type: the file is a program
        raise EntryError(_unreadable(error)) from None
    found = getattr(data_path, "DATA_PATH", None)
    if not isinstance(found, dict):
        what = "has no DATA_PATH" if found is None else f"has a DATA_PATH that is {_kind(found)}"
        raise EntryError(
            f"{_file(data_path)} {what}: write DATA_PATH = {{NAME: {ENTRY_LAYOUT}, ...}}"
        )
    return {name: _demo_entry(folder) for name, folder in DEMO_FOLDERS.items()} | found


def _demo_entry(folder: str) -> dict[str, dict[str, str]]:
    kinds = ("fgr", "pha")
    return {
        **{split: {kind: f"{folder}/{split}/{kind}" for kind in kinds} for split in SPLITS},
        "backgrounds": {split: f"{folder}/backgrounds/{split}" for split in SPLITS},
    }


def entry_of(name: str) -> dict[str, dict[str, Path]]:
    """The entry of a data set, with backgrounds: its own, or those of all. Raises EntryError where
    it is not made of folders as it must be."""
    found = entries()
    if name not in found:
        names = ", ".join(str(each) for each in found if each != "backgrounds")
        raise EntryError(f"data_path.py has no entry {name!r}; it has {names}")
    entry = _mapping(found[name], f"the entry {name!r}", ENTRY_LAYOUT)
    backgrounds = entry.get("backgrounds", found.get("backgrounds"))
    whose = f"{name!r}, 'backgrounds'" if "backgrounds" in entry else "'backgrounds'"
    if backgrounds is None:
        raise EntryError(f"data_path.py has no entry 'backgrounds': write {BACKGROUNDS_LAYOUT}")
    behind = _mapping(backgrounds, f"the entry {whose}", BACKGROUNDS_LAYOUT)
    checked = {split: _split_entry(entry[split], name, split) for split in SPLITS if split in entry}
    return checked | {
        "backgrounds": {
            split: _folder(behind[split], f"{whose}, {split!r}")
            for split in SPLITS
            if split in behind
        }
    }


def _split_entry(value: Any, name: str, split: str) -> dict[str, Path]:
    where = f"{name!r}, {split!r}"
    kinds = _mapping(value, f"the entry {where}", '{"fgr": FOLDER, "pha": FOLDER}')
    known = {kind: kinds[kind] for kind in ("fgr", "pha", "rgba") if kind in kinds}
    if "rgba" not in known and len(known) < 2:
        raise EntryError(f"{lacking(split)} ({name!r} has {_keys(kinds)} there)")
    return {kind: _folder(value, f"{where}, {kind!r}") for kind, value in known.items()}


def lacking(split: str) -> str:
    """What to say of an entry that lacks a split, or a part of one."""
    return (
        f"the entry in data_path.py has no {split!r} with 'fgr' and 'pha', or with 'rgba': write "
        f"{ENTRY_LAYOUT} (what other programs call test is valid here)"
    )


def lacking_backgrounds(split: str) -> str:
    """The same of backgrounds."""
    return f"the backgrounds in data_path.py have no {split!r}: write {BACKGROUNDS_LAYOUT}"


def _mapping(value: Any, what: str, layout: str) -> dict:
    if isinstance(value, dict):
        return value
    raise EntryError(f"data_path.py: {what} is {_kind(value)}: write {layout}")


def _folder(value: Any, where: str) -> Path:
    if isinstance(value, str | os.PathLike) and os.fspath(value):
        return Path(value)
    mend = "write the path of one folder in quotes"
    if isinstance(value, list | tuple | set):
        mend = (
            "one folder is read, with all folders in it: make one that holds links to them "
            "(mkdir ALL; ln -s FOLDER ALL/), and write its path"
        )
    raise EntryError(f"data_path.py: the entry {where} is {_kind(value)}: {mend}")


def _kind(value: Any) -> str:
    shown = repr(value)
    shown = (
        shown if len(shown) <= MAX_VALUE_CHARACTERS else shown[: MAX_VALUE_CHARACTERS - 3] + "..."
    )
    kinds: dict[type, str] = {str: "a text", list: "a list", tuple: "a tuple", set: "a set"}
    kind = kinds.get(type(value), f"of type {type(value).__name__}")
    return f"{kind}, {shown}"


def _keys(mapping: dict) -> str:
    return ", ".join(map(repr, mapping)) or "nothing"


def _file(module: Any) -> str:
    return str(getattr(module, "__file__", None) or "data_path.py")


def _unreadable(error: Exception) -> str:
    if isinstance(error, SyntaxError):
        file, line, what = error.filename, error.lineno, str(error.msg)
        near = f": {text}" if (text := (error.text or "").strip()[:MAX_VALUE_CHARACTERS]) else ""
        return (
            f"{file}, line {line}: {what}{near}; mend it: python -m py_compile {file} shows where"
        )
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.endswith("data_path.py")]
    where = f"{own[-1].filename}, line {own[-1].lineno}" if own else "data_path.py"
    return f"{where}: {type(error).__name__}: {error}; mend it, or bring the file back"
