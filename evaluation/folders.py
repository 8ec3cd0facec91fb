"""Folders of mattes that any program has made: finds, pairs and reads them, and knows clips.

Pairs are made by name alone. Alpha is read as exactly as the file has it, 16 bits too.
"""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from common.errors import DataError
from common.text import listed, printable
from dataset.alphas import fault_of_sample
from dataset.first_look import MAX_ALPHAS, MAX_SECONDS_OF_SPLIT, judge_files, spread
from dataset.listing import Say, by_stem, quiet
from dataset.orientation import orientation_of, upright_size
from dataset.pictures import alpha_of, check_mode, load, open_picture
from evaluation.metrics import dtssd, unknown_region
from evaluation.scores import Batch, Score, has_region

# A trimap is 0, 128 and 255; a JPEG, or another program's 127, is near enough to it.
UNKNOWN_GREYS = (64 / 255, 192 / 255)
NO_MATTE_FAULTS = ("colour_alpha", "scaled_alpha")  # what no matte can be, predicted ones neither
ONE_GREY_FAULTS = ("flat_alpha", "middle_alpha")
OTHER_OUTPUTS = ("fgr", "com", "err", "ref")  # folders of predict.py beside pha
NO_MATTES = {"err": "expected errors of mattes", "ref": "maps of what was refined"}
FRAME_NUMBER = re.compile(r"(.*?)(\d+)", re.DOTALL)


@dataclass(frozen=True)
class Pair:
    """The files of one image. name: their path below the folders, without the ending."""

    name: str
    pred: Path
    true: Path
    trimap: Path | None
    src: Path | None


def choose_pairs(
    pred_dir: Path,
    true_dir: Path,
    trimap_dir: Path | None,
    src_dir: Path | None,
    partial: bool,
    say: Say,
) -> tuple[list[Pair], list[str]]:
    """The pairs that are to be measured, as find_mattes has them, and what is left out, which `say`
    is told. partial: whether something may be left out. Raises DataError where it may not and is,
    where none are left, and where mattes show that they are none."""
    beside = mattes_beside(pred_dir)
    if beside and beside.resolve() == true_dir.resolve():  # those of a data set, not of predict.py
        beside = None
    meant = f"; predict.py's mattes are in {beside}: type --pred-dir {beside}" if beside else ""
    if beside and (what := NO_MATTES.get(pred_dir.resolve().name)):
        raise DataError(f"{pred_dir} has {what}, not mattes{meant}")
    try:
        pairs, faults = find_mattes(pred_dir, true_dir, trimap_dir, src_dir, say)
        if faults and not partial:
            less = f", or type --partial to measure the other {len(pairs)}" if pairs else ""
            raise DataError(f"{listed(faults, between=';')}: add or remove what is named{less}")
        for fault in faults:
            say(f"left out: {fault}")
        if not pairs:
            raise DataError(f"{pred_dir} and {true_dir} have no pair of mattes to be measured")
        look_at_mattes(pairs, say)
    except DataError as error:
        raise DataError(f"{error}{meant if str(pred_dir) in str(error) else ''}") from None
    return pairs, faults


def find_mattes(
    pred_dir: Path,
    true_dir: Path,
    trimap_dir: Path | None,
    src_dir: Path | None,
    say: Say = quiet,
) -> tuple[list[Pair], list[str]]:
    """The pairs of predicted and true mattes, of like sizes, with trimap and src where a folder of
    those is given, frames in the order of their numbers; and what is wrong with the others, each
    with its path. Raises DataError where a folder is missing or empty, or a header is bad."""
    optional = {"trimap": trimap_dir, "src": src_dir}
    files = {"pred": by_stem(pred_dir, say), "true": by_stem(true_dir, say)}
    files |= {kind: by_stem(folder, say) for kind, folder in optional.items() if folder}
    folders = {"pred": pred_dir, "true": true_dir, **optional}
    if files["pred"].keys().isdisjoint(files["true"]):
        pred, true = (next(iter(files[kind].values())) for kind in ("pred", "true"))
        raise DataError(
            f"no matte below {pred_dir} has the name of one below {true_dir} (the first are {pred} "
            f"and {true}); pairs have the same path below the two folders, but for the ending"
        )
    stems, faults = [], []
    for stem in sorted(files["true"].keys() | files["pred"].keys(), key=_order):
        missing = [kind for kind, names in files.items() if stem not in names]
        if missing:
            there = next(names[stem] for names in files.values() if stem in names)
            faults.append(printable(f"{there} has no partner in {folders[missing[0]]}"))
        else:
            stems.append(stem)
    pairs = [
        Pair(
            printable(s),
            files["pred"][s],
            files["true"][s],
            *(files[kind][s] if kind in files else None for kind in optional),
        )
        for s in stems
    ]
    with ThreadPoolExecutor(16) as threads:  # disks may be far away
        unlike = list(threads.map(_unlike, pairs))
    faults += [fault for fault in unlike if fault]
    return [pair for pair, fault in zip(pairs, unlike, strict=True) if not fault], faults


def mattes_beside(folder: Path) -> Path | None:
    """Where predict.py has put mattes, for a folder that it has made, or a folder in that for other
    outputs; None where there are none."""
    real = folder.resolve()
    places = [folder / "pha"] + ([folder.parent / "pha"] if real.name in OTHER_OUTPUTS else [])
    return next((place for place in places if place.is_dir()), None)


def _unlike(pair: Pair) -> str | None:
    sizes = {}
    for path in (pair.true, pair.pred, pair.trimap, pair.src):
        if path:
            with open_picture(path) as picture:
                check_mode(picture, "RGB" if path is pair.src else "matte")
                sizes[path] = upright_size(picture)
    if len(set(sizes.values())) == 1:
        return None
    said = [f"{path} ({width}x{height})" for path, (height, width) in sizes.items()]
    return printable(f"{' and '.join(said)} are of unlike sizes")


def look_at_mattes(pairs: Sequence[Pair], say: Say) -> None:
    """Raises DataError where some of the mattes show that they are none. say: told of predicted
    ones that are all empty, full, grey or maps of labels, which a network may well have made; and
    of true ones that are all grey, against which errors can be measured all the same."""
    some = [pairs[index] for index in spread(len(pairs), MAX_ALPHAS)]
    for what, paths in (("true", [p.true for p in some]), ("predicted", [p.pred for p in some])):
        judged = judge_files(paths, MAX_SECONDS_OF_SPLIT["train"], "matte")
        kind, said = fault_of_sample(judged, len(pairs), f"{what} mattes") or ("", "")
        if kind in NO_MATTE_FAULTS or (what == "true" and kind not in ("", *ONE_GREY_FAULTS)):
            raise DataError(said)
        if kind:
            say(f"note: {printable(said.partition(';')[0])}")


def read_matte(path: Path) -> Tensor:
    """(1, 1, H, W) float32, 0..1: a grey picture of 8 or 16 bits, or, as cut-outs have it, an alpha
    channel. Raises DataError."""
    picture = _read(path, "matte")
    if picture.mode.startswith("I"):  # 16 bits, which convert would clip at 255
        array, white = np.asarray(picture).astype(np.float32), 65535
    else:
        array, white = np.asarray(picture.convert("L")).astype(np.float32), 255
    return torch.from_numpy(array)[None, None] / white


def read_unknown(path: Path) -> Tensor:
    """The unknown region of a trimap, (1, 1, H, W) bool. Raises DataError."""
    grey, (low, high) = read_matte(path), UNKNOWN_GREYS
    return (grey > low) & (grey < high)


def _read(path: Path, mode: str) -> Image.Image:
    """Upright, with its pixels."""
    with open_picture(path) as picture:
        check_mode(picture, mode)
        load(picture, mode)
        pixels = alpha_of(picture, mode) if mode == "matte" else picture.copy()
        return ImageOps.exif_transpose(pixels) if orientation_of(picture) != 1 else pixels.copy()


def read_pairs(pairs: Sequence[Pair], device: torch.device, *, unknown: bool) -> Iterator[Batch]:
    """Each pair, a batch of one, in their order. unknown: only the unknown region of a trimap that
    is derived from true alpha is to be measured. Raises DataError."""
    for pair in pairs:
        true_pha, region = read_matte(pair.true).to(device), None
        if pair.trimap:
            region = read_unknown(pair.trimap).to(device)
        elif unknown:
            region = unknown_region(true_pha)
        pred_pha = read_matte(pair.pred).to(device)
        src_files = [pair.src] if pair.src else None
        yield Batch([pair.name], pred_pha, true_pha, region, src_files=src_files)


# ------------------------------------------------------------------------------------------------
# Clips: folders below the given one, whose pictures have numbers at the end of their names.


class Clips:
    """Measures dtSSD of each two frames that come one after the other, while they pass by."""

    def __init__(self) -> None:
        self._before: Batch | None = None
        self._values: dict[str, list[float]] = {}

    def add(self, frame: Batch) -> None:
        """frame: a batch of one."""
        before, self._before = self._before, frame
        if before is None or not follows(frame.names[0], before.names[0]):
            return
        if not all(has_region(frame)):
            return
        if before.true_pha.shape != frame.true_pha.shape:
            return
        pred, true = (
            torch.cat([getattr(one, name) for one in (before, frame)])
            for name in ("pred_pha", "true_pha")
        )
        region = None if frame.region is None else frame.region.expand_as(pred)
        value = dtssd(pred, true, region).item()
        self._values.setdefault(clip_of(frame.names[0]), []).append(value)

    def scores(self) -> list[Score]:
        """The mean over the pairs of frames of each clip that has any."""
        return [Score(name, {"dtssd": fmean(values)}) for name, values in self._values.items()]


def clip_of(name: str) -> str:
    """The folder that a frame is in; empty where it is in none."""
    return name.rpartition("/")[0]


def follows(name: str, before: str) -> bool:
    """Whether `name` is the frame after `before`: in a folder, the same but for the next number."""
    if not clip_of(name):
        return False
    first, second = FRAME_NUMBER.fullmatch(before), FRAME_NUMBER.fullmatch(name)
    if not first or not second or first[1] != second[1]:
        return False
    return int(second[2]) == int(first[2]) + 1


def _order(name: str) -> tuple[str, str, int, str]:
    """By folder, then by number: frame 10 comes after frame 9."""
    found = FRAME_NUMBER.fullmatch(name)
    start, number = (found[1], int(found[2])) if found else (name, 0)
    return clip_of(name), start, number, name
