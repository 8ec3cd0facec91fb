"""What is a fault: its kinds, and which of them make a data set unfit.

It reads no file, and knows no more of files than what others have found.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from dataset.pictures import Backgrounds, Foregrounds


class Kind(NamedTuple):
    """A kind of fault. error: whether one makes the data set unfit; or, for most_error, only where
    more than half of a split's pairs have it."""

    title: str
    error: bool = True
    most_error: bool = False


# An error is what training stops at, or learns something false from. A warning is what good data
# sets have in places: frames that nobody is in, a close-up that fills the picture, a few hard
# masks, frames that repeat. Where most alphas are so, there is no matting to be learned: an error.
# A picture in both splits is one, since validation then measures what was memorised. Alpha that
# looks inverted is one as well: a real figure can hardly be opaque all around and clear in the
# middle, and a single inverted alpha teaches the opposite of all others.
KINDS = {
    "folder": Kind("folders that cannot be used"),
    "duplicate_name": Kind(
        "names twice, with two endings or in two Unicode forms: keep one of each"
    ),
    "orphan": Kind("without a partner of the same name: add what is missing, or remove these"),
    "unreadable": Kind("cannot be read: replace or remove them"),
    "unlike_sizes": Kind("foreground and alpha of unlike sizes: replace or remove them"),
    "colour_alpha": Kind("alpha with three channels unlike each other: is it a colour picture?"),
    "scaled_alpha": Kind("alpha on another scale than 0 to 255, or 0 to 65535 in 16 bits"),
    "inverted_alpha": Kind("alpha that looks inverted, opaque around a clear middle: invert it"),
    "in_both_splits": Kind("the same file in train and valid: remove it from one of them"),
    "label_alpha": Kind("alpha that is a map of labels or a trimap", False, most_error=True),
    "turned_alpha": Kind(
        "foreground turned by its EXIF orientation, its alpha not: if the alpha was made from the "
        "unturned pixels, turn it likewise, or take the orientation out of the foreground",
        False,
    ),
    "premultiplied": Kind(
        "colours multiplied by alpha, from which dark edges are learnt: divide them by alpha first",
        False,
    ),
    "empty_alpha": Kind("alpha that is empty, transparent all over", False, most_error=True),
    "full_alpha": Kind("alpha that is full, opaque all over", False, most_error=True),
    "flat_alpha": Kind("alpha that is of one grey all over", False, most_error=True),
    "middle_alpha": Kind(
        "alpha that is nowhere transparent and nowhere opaque: a video's 16 to 235, or no matte",
        False,
        most_error=True,
    ),
    "binary_alpha": Kind("alpha that is binary, a mask without soft edges", False, most_error=True),
    "small": Kind("smaller than the largest crop, and so enlarged for it", False),
    "repeated": Kind("the same file again in the same split", False),
}


class Fault(NamedTuple):
    kind: str  # a key of KINDS
    split: str  # "train" or "valid"
    what: str  # a sentence with the path
    index: int = -1  # type: ignore[assignment]  # of the pair in its split, where it is a pair's


@dataclass
class Group:
    """Pictures that are looked at alike: the pairs (or RGBA pictures) or the backgrounds of a
    split, and what is known of each, in their order."""

    split: str
    pictures: Foregrounds | Backgrounds
    sizes: np.ndarray = field(init=False)  # (N, 2) int32: height, width
    bytes: np.ndarray = field(init=False)  # (N,) int64
    digests: np.ndarray = field(init=False)  # (2, N) uint64

    def __post_init__(self) -> None:
        count = len(self.pictures)
        self.sizes = np.zeros((count, 2), np.int32)
        self.bytes = np.zeros(count, np.int64)
        self.digests = np.zeros((2, count), np.uint64)

    @property
    def paired(self) -> bool:
        return isinstance(self.pictures, Foregrounds)


def duplicates(groups: Sequence[Group]) -> list[Fault]:
    """Files with the same bytes: in both splits, or twice in one.

    Alphas count across the splits alone, and where they are not empty, full or flat: within a video
    a still figure has the same alpha in many frames. The same picture saved anew, scaled, or
    cut otherwise is not found, nor are neighbouring frames of one video in both splits.
    """
    faults = []
    for paired, part in ((True, 0), (True, 1), (False, 0)):
        some = [group for group in groups if group.paired == paired]
        if not some:
            continue
        digests = np.concatenate([group.digests[part] for group in some])
        starts = np.cumsum([0] + [len(group.pictures) for group in some])
        order = np.argsort(digests, kind="stable")  # stable: of equal ones, train's come first
        order = order[np.searchsorted(digests[order], 1) :]  # without the zeros
        runs = np.split(order, np.flatnonzero(np.diff(digests[order])) + 1)
        for run in sorted((run for run in runs if len(run) > 1), key=lambda run: run[0]):
            numbers = np.searchsorted(starts, run, side="right") - 1
            files = [
                (some[g].split, _file(some[g].pictures, int(place - starts[g]), part))
                for g, place in zip(numbers, run, strict=True)
            ]
            first_split, first = files[0]
            for split, path in files[1:]:
                kind = "repeated" if split == first_split else "in_both_splits"
                if kind == "in_both_splits" or part == 0:
                    faults.append(Fault(kind, split, f"{first} and {path}"))
    return faults


def _file(pictures: Foregrounds | Backgrounds, index: int, part: int) -> object:
    if isinstance(pictures, Foregrounds):
        return pictures.paths(index)[part]
    return pictures.path(index)


def errors_among(faults: Sequence[Fault], groups: Sequence[Group]) -> set[str]:
    """The kinds that make the data set unfit: errors, and warnings that most pairs have."""
    pairs = {group.split: len(group.pictures) for group in groups if group.paired}
    counts = Counter((fault.kind, fault.split) for fault in faults)
    found = {kind for kind, _ in counts if KINDS[kind].error}
    for (kind, split), count in counts.items():
        if KINDS[kind].most_error and count > pairs.get(split, 0) / 2:
            found.add(kind)
    return found
