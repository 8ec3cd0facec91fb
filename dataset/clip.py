"""A pair of clips, a foreground's and its alpha's, that becomes pictures. It is packed as a whole
and then noted, or nothing of it stays.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.choices import SPLITS
from common.errors import DataError
from common.files import write_bytes
from common.text import plural
from dataset.alphas import channels_differ
from dataset.shard import Encoded, write_tars
from dataset.video import VideoReader

JPEG: dict[str, Any] = {"quality": 95, "subsampling": 0}  # colours at full resolution
PNG: dict[str, Any] = {"compress_level": 4}
RATES_DIFFER = 5e-4  # share; containers round the times of which rates are computed


@dataclass(frozen=True)
class Settings:
    """How clips become pictures. every: N, of every Nth frame. height: of the pictures at most, in
    pixels, 0 for the clip's own. png: whether foregrounds are PNG, else JPEG. folders: whether
    pictures are single files, else in tars of at most shard_bytes."""

    every: int = 1
    height: int = 0
    png: bool = False
    folders: bool = False
    shard_bytes: int = 10**9


@dataclass(frozen=True)
class Clip:
    """A pair of clips; name: the path below their folders, without the ending."""

    name: str
    fgr: Path
    pha: Path
    split: str

    @property
    def key(self) -> str:
        """Its name as that of a file, unlike all others."""
        digest = hashlib.sha256(os.fsencode(self.name)).hexdigest()
        return f"{re.sub(r'[^0-9A-Za-z_-]', '_', self.name)[-80:]}-{digest[:8]}"

    def record(self) -> dict:
        """By which it is known again: a clip that was changed is packed anew."""
        files = {kind: path.stat() for kind, path in (("fgr", self.fgr), ("pha", self.pha))}
        known = {kind: [status.st_size, status.st_mtime_ns] for kind, status in files.items()}
        return {"name": self.name, "split": self.split, **known}


@dataclass(frozen=True)
class Packed:
    """What became of a clip. fault: why it cannot be packed; empty where it is."""

    clip: Clip
    frames: int = 0
    notes: tuple[str, ...] = ()
    fault: str = ""


def pack_clip(
    clip: Clip, unfinished: Path, settings: Settings, told: Callable[[int], object]
) -> Packed:
    """Packs one pair of clips into `unfinished`, and notes it there. told: called with the number
    of frames that were read. Raises OSError where it cannot be written."""
    remove(unfinished, clip)
    record = clip.record()
    notes: list[str] = []
    work = unfinished / "work" / clip.key
    shutil.rmtree(work, ignore_errors=True)
    count = 0

    def groups() -> Iterator[list[tuple[str, Encoded]]]:
        nonlocal count
        for number, fgr, pha in frames_of(clip, settings, told, notes.append):
            count += 1
            ending = "png" if settings.png else "jpg"
            yield [
                (f"fgr/{clip.name}/{number:06}.{ending}", Encoded(fgr)),
                (f"pha/{clip.name}/{number:06}.png", Encoded(pha)),
            ]

    place = unfinished / clip.split
    try:
        if settings.folders:
            for group in groups():
                for name, picture in group:
                    path = place / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(picture.content)
        else:
            write_tars(work, groups(), settings.shard_bytes, lambda _bytes: None)
    except DataError as error:
        remove(unfinished, clip)
        shutil.rmtree(work, ignore_errors=True)
        return Packed(clip, fault=str(error))
    if not settings.folders:
        place.mkdir(parents=True, exist_ok=True)
        for path in sorted(work.iterdir()):
            path.rename(place / f"{clip.key}.{path.name}")
        work.rmdir()
    write_bytes(note_of(unfinished, clip), json.dumps({**record, "frames": count}).encode())
    return Packed(clip, count, tuple(notes))


def frames_of(
    clip: Clip, settings: Settings, told: Callable[[int], object], say: Callable[[str], object]
) -> Iterator[tuple[int, bytes, bytes]]:
    """Every Nth frame of both clips, read in step: its number, the foreground as JPEG or PNG, the
    alpha as a grey PNG. Raises DataError where the two differ in size, rate or length, one is
    damaged, or the alpha is in colour."""
    with VideoReader(clip.fgr) as fgr, VideoReader(clip.pha) as pha:
        _check_alike(fgr, pha)
        for note in fgr.notes(sound=False):
            say(note)
        size = picture_size(fgr.size, float(fgr.pixel_aspect), settings.height)
        for number, (one, other) in enumerate(zip_longest(fgr, pha)):
            if one is None or other is None:
                short, long = (fgr, pha) if one is None else (pha, fgr)
                raise DataError(
                    f"{short.path} ends after {plural(number, 'frame')}, {long.path} goes on"
                )
            told(1)
            if number % settings.every:
                continue
            if not number and channels_differ(other[0]):
                raise DataError(
                    f"{pha.path} is in colour, and an alpha is grey: are the two folders swapped?"
                )
            yield (
                number,
                _encoded(one[0], "RGB", size, settings),
                _encoded(other[0], "L", size, settings),
            )


def _check_alike(fgr: VideoReader, pha: VideoReader) -> None:
    for what, one, other in (
        ("frame size (height, width)", tuple(fgr.size), tuple(pha.size)),
        ("pixel aspect", fgr.pixel_aspect, pha.pixel_aspect),
    ):
        if one != other:
            raise DataError(f"{fgr.path} and {pha.path} differ in {what}: {one} and {other}")
    if abs(fgr.rate / pha.rate - 1) > RATES_DIFFER:
        rates = f"{float(fgr.rate):g} and {float(pha.rate):g}"
        raise DataError(f"{fgr.path} and {pha.path} differ in frames a second: {rates}")
    if pha.wide:
        raise DataError(
            f"{pha.path} is {pha.wide}, which an alpha's numbers would not survive; write it anew "
            "as BT.709"
        )


def picture_size(size: tuple[int, int], aspect: float, height: int) -> tuple[int, int]:
    """(height, width) of the picture of a frame: of square pixels, and not higher than `height`,
    if that is not 0. Nothing is enlarged in height."""
    rows = min(height or size[0], size[0])
    return rows, max(1, round(size[1] * aspect * rows / size[0]))


def _encoded(pixels: np.ndarray, mode: str, size: tuple[int, int], settings: Settings) -> bytes:
    picture = Image.fromarray(pixels).convert(mode)
    if picture.size != size[::-1]:  # by a filter that does not overshoot, as others do at edges
        picture = picture.resize(size[::-1], Image.Resampling.BILINEAR)
    file = io.BytesIO()
    jpeg = mode == "RGB" and not settings.png
    picture.save(file, "JPEG" if jpeg else "PNG", **(JPEG if jpeg else PNG))
    return file.getvalue()


def note_of(unfinished: Path, clip: Clip) -> Path:
    return unfinished / "done" / f"{clip.key}.json"


def remove(unfinished: Path, clip: Clip) -> None:
    """What there is of a clip, in either split; its note first."""
    note_of(unfinished, clip).unlink(missing_ok=True)
    for split in SPLITS:
        for path in (unfinished / split).glob(f"{clip.key}.*"):
            path.unlink()
        for kind in ("fgr", "pha"):
            folder = unfinished / split / kind / clip.name
            for path in folder.glob("*.*"):
                if path.is_file():  # not those of a clip below this one's name
                    path.unlink()
            with contextlib.suppress(OSError):
                folder.rmdir()
