"""A data set out of clips: of each foreground clip and the clip of its alpha, every Nth frame.

pack_data.py is its script. Each clip is packed by itself and then noted, so that a run which was
killed goes on where it was; training sees nothing of it before all clips are there.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from common.apart import overlap
from common.choices import SPLITS
from common.cli import command
from common.errors import DataError
from common.files import DISK_FULL_ERRORS, write_bytes
from common.processes import usable_processors
from common.text import listed, plural, printable, tell
from dataset.clip import Clip, Settings, pack_clip, remove
from dataset.clip_pool import results
from dataset.folders import data_folders, opened
from dataset.kinds import VIDEO_ENDINGS
from dataset.listing import quiet, said_of_twice, stem_of
from dataset.pictures import find_pairs
from dataset.shard import UNFINISHED
from dataset.video import frames_said

WHOLE = "whole"  # in UNFINISHED, once all clips are packed


def pack_clips(
    fgr_dir: Path,
    pha_dir: Path,
    out: Path,
    settings: Settings,
    valid_clips: list[str] | None = None,
    valid_share: float = 0.1,
    skip: bool = False,
    workers: int | None = None,
) -> None:
    """Packs the clips of `fgr_dir`, each with the one of the same name in `pha_dir`, into
    `out`/train and `out`/valid, which must not be there. valid_clips: names of those to validate
    on; else it is a share of them, evenly spaced. skip: whether clips that do not fit each other
    are left out. workers: processes; by default one a processor. Raises DataError and OSError."""
    from tqdm import tqdm

    _check_places(fgr_dir, pha_dir, out)
    unfinished = out / UNFINISHED
    with _locked(unfinished):
        if (unfinished / WHOLE).exists():
            return _finish(out)
        clips, faults = find_clips(fgr_dir, pha_dir)
        if faults and not skip:
            raise DataError(
                f"{plural(len(faults), 'clip')} without a partner: {listed(faults, between=';')}; "
                "a clip and its alpha have the same name but for the ending: add what is missing, "
                "or type --on-bad-clip skip"
            )
        clips = _with_splits(clips, valid_clips, valid_share)
        for split in sorted({clip.split for clip in clips}):
            if (out / split).exists():
                raise DataError(
                    f"{out / split} is there: nothing is written over; name another OUT, or move "
                    "it away"
                )
        _check_settings(unfinished, settings)
        done = _already_done(unfinished, clips, settings)
        left = [clip for clip in clips if clip.name not in done]
        if done:
            tell(f"going on: {len(done)} of {plural(len(clips), 'clip')} are packed")
        counts = [frames_said(clip.fgr) for clip in left]
        total = sum(count or 0 for count in counts) if all(counts) else None
        with tqdm(total=total, unit=" frames", desc="packing", leave=False, disable=None) as bar:
            workers = min(workers or usable_processors(), len(left))
            jobs = [(clip, unfinished, settings) for clip in left]
            try:
                with contextlib.closing(results(pack_clip, jobs, workers, bar.update)) as found:
                    for packed in found:
                        faults += [packed.fault] if packed.fault else []
                        done |= {} if packed.fault else {packed.clip.name: packed.frames}
                        for note in packed.notes:
                            tqdm.write(printable(f"note: {note}"))
            except OSError as error:
                if error.errno not in DISK_FULL_ERRORS:
                    raise
                raise DataError(
                    f"no room in {out} ({error.strerror}): {plural(len(done), 'clip')} of "
                    f"{len(clips)} are packed; make room and type the same command to go on"
                ) from None
        if faults and not skip:
            raise DataError(
                f"{len(faults)} of {plural(len(clips), 'clip')} cannot be packed: "
                f"{listed(faults, between=';')}; mend them and type the same command, which goes "
                "on where this one was, or type --on-bad-clip skip"
            )
        for fault in faults:
            tell(f"left out: {fault}")
        if not done:
            raise DataError(f"no clip of {fgr_dir} and {pha_dir} can be packed")
        _look_through(unfinished, [clip for clip in clips if clip.name in done], done)
        (unfinished / WHOLE).touch()
        _finish(out)


def find_clips(fgr_dir: Path, pha_dir: Path) -> tuple[list[Clip], list[str]]:
    """The pairs of one name, sorted, without a split; and the clips that have no partner, in words.
    Raises DataError where there is no pair, or a name is there twice."""
    found = {folder: _videos_in(folder) for folder in (fgr_dir, pha_dir)}
    fgr, pha = found[fgr_dir], found[pha_dir]
    both = sorted(fgr.keys() & pha.keys())
    alone = [str(found[one][name]) for one in found for name in sorted(found[one].keys() - both)]
    if not both:
        raise DataError(
            f"no clip of {fgr_dir} has the name of one in {pha_dir}: there are {len(fgr)} and "
            f"{len(pha)}, {listed(alone, 2)}; a clip and its alpha have the same name but for the "
            f"ending ({', '.join(VIDEO_ENDINGS)})"
        )
    return [Clip(name, fgr[name], pha[name], "") for name in both], alone


def _videos_in(folder: Path) -> dict[str, Path]:
    found: dict[str, str] = {}
    twice = []
    for place, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(VIDEO_ENDINGS) and not name.startswith("."):
                relative = (Path(place) / name).relative_to(folder).as_posix()
                first = found.setdefault(stem_of(relative), relative)
                twice += [(first, relative)] if first != relative else []
    if twice:
        raise DataError(said_of_twice(folder, twice))
    if not found:
        raise DataError(
            f"no clip ({', '.join(VIDEO_ENDINGS)}) in {folder}; is it the right folder?"
        )
    return {stem: folder / name for stem, name in found.items()}


def _with_splits(clips: list[Clip], named: list[str] | None, share: float) -> list[Clip]:
    """A clip is of one split as a whole."""
    names = [clip.name for clip in clips]
    if named is not None:
        chosen = {stem_of(name) if name.lower().endswith(VIDEO_ENDINGS) else name for name in named}
        if unknown := sorted(chosen - set(names)):
            raise DataError(
                f"--valid-clips: there is no pair of clips {listed(unknown)}; there are "
                f"{listed(names, 6)}"
            )
    else:
        count = round(share * len(names))
        if 0 < share < 1:
            if len(names) == 1:
                raise DataError(
                    f"the single clip {names[0]} cannot be divided: type --valid-share 0 to train "
                    "on it, or --valid-share 1 to validate on it"
                )
            count = min(max(count, 1), len(names) - 1)
        chosen = {names[(2 * i + 1) * len(names) // (2 * count)] for i in range(count)}
    train, valid = SPLITS
    return [Clip(c.name, c.fgr, c.pha, valid if c.name in chosen else train) for c in clips]


# ------------------------------------------------------------------------------------------------
# What is done and what is not


def _check_places(fgr_dir: Path, pha_dir: Path, out: Path) -> None:
    for folder in (fgr_dir, pha_dir):
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}: give a folder of clips")
    if fgr_dir.samefile(pha_dir):
        raise DataError(
            f"{fgr_dir} and {pha_dir} are one folder: give one of foregrounds and one of alphas"
        )
    if out.exists() and not out.is_dir():
        raise DataError(f"OUT {out} is a file: name a folder")
    if said := overlap([out], [fgr_dir, pha_dir], deep=False):
        raise DataError(said)


@contextlib.contextmanager
def _locked(unfinished: Path) -> Iterator[None]:
    """By one program at a time; a lock ends with the program that has it. What holds nothing is
    removed in the end."""
    try:
        import fcntl
    except ImportError:  # Windows
        fcntl = None  # type: ignore[assignment]
    made = [path for path in (unfinished, *unfinished.parents) if not path.exists()]
    unfinished.mkdir(parents=True, exist_ok=True)
    path = unfinished / "lock"
    with path.open("w") as lock:
        if fcntl:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(
                    f"another program packs into {unfinished.parent} now: wait for it"
                ) from None
        try:
            yield
        finally:
            if unfinished.is_dir() and os.listdir(unfinished) == ["lock"]:
                path.unlink()
                for folder in [unfinished, *made[1:]]:
                    with contextlib.suppress(OSError):  # there is something in it
                        folder.rmdir()


def _check_settings(unfinished: Path, settings: Settings) -> None:
    path = unfinished / "settings.json"
    begun = path.exists() and any((unfinished / "done").glob("*.json"))
    if begun and (was := json.loads(path.read_bytes())) != asdict(settings):
        differ = [name for name, value in asdict(settings).items() if was.get(name) != value]
        raise DataError(
            f"{unfinished} was begun with other options ({', '.join(differ)} was "
            f"{', '.join(str(was.get(name)) for name in differ)}): type those to go on, or delete "
            "it to begin anew"
        )
    write_bytes(path, json.dumps(asdict(settings)).encode())


def _already_done(unfinished: Path, clips: list[Clip], settings: Settings) -> dict[str, int]:
    """The frames of each clip that an earlier run has packed. What it left of others is removed."""
    shutil.rmtree(unfinished / "work", ignore_errors=True)
    wanted = {clip.name: clip for clip in clips}
    done = {}
    for path in sorted((unfinished / "done").glob("*.json")):
        noted = json.loads(path.read_bytes())
        frames = noted.pop("frames")
        clip = wanted.get(noted["name"])
        if clip and clip.record() == noted:
            done[clip.name] = frames
        else:
            remove(unfinished, Clip(noted["name"], Path(), Path(), noted["split"]))
    for clip in clips:
        if clip.name not in done:
            remove(unfinished, clip)
    return done


def _look_through(unfinished: Path, clips: list[Clip], frames: dict[str, int]) -> None:
    """Reads the names of what was written, as training will. Raises DataError where they are not
    as many as frames were packed."""
    folders = data_folders("", unfinished, quiet)
    for split in sorted({clip.split for clip in clips}):
        entry = opened(folders, split, quiet)
        found = len(find_pairs(entry["fgr"], entry["pha"], check_headers=False))
        packed = sum(frames[clip.name] for clip in clips if clip.split == split)
        if found != packed:
            raise DataError(
                f"{unfinished / split} holds {found} of the {packed} frames that were packed: "
                f"delete {unfinished}, and begin anew"
            )


def _finish(out: Path) -> None:
    """Puts what is packed where training looks for it, and says what there is."""
    unfinished = out / UNFINISHED
    notes = [json.loads(path.read_bytes()) for path in (unfinished / "done").glob("*.json")]
    said = []
    for split, what in zip(SPLITS, ("to train on", "to validate on"), strict=True):
        if (unfinished / split).exists():
            (unfinished / split).rename(out / split)
        mine = [note["frames"] for note in notes if note["split"] == split]
        said.append(f"{plural(sum(mine), 'frame')} of {plural(len(mine), 'clip')} {what}")
    shutil.rmtree(unfinished)
    tell(f"packed into {out}: {' and '.join(said)}")
    line = command("train_base.py", "--dataset-dir", str(out))
    folders = [out / "backgrounds" / split for split in SPLITS]
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        tell(f"to train on them, put backgrounds into {' and '.join(missing)}, and type: {line}")
    else:
        tell(f"to train on them: {line}")
