"""What is a fault: its kinds, which of them make a data set unfit, and how an alpha is judged.

It reads no file: alphas come as arrays, and of files no more than what is known of them.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from PIL import Image

from dataset.images import Backgrounds, Foregrounds

# Of an alpha in 0..255. JPEG leaves noise, so that nothing is exactly 0 or 255.
CLEAR, SOLID = 12, 243  # up to it transparent, from it on opaque
FEW = 1e-4  # share of pixels that may differ in an alpha that is empty or full
SOFT = (26, 229)  # between a tenth and nine tenths; noise beside a hard edge is mostly outside
SOFT_LEAST = 0.1  # soft pixels per pixel of outline; a plain antialiased edge has some 0.5
RIM, FALL = 0.6, 0.3  # inverted: the mean of the rim is above, the middle so much below it
UNLIKE, UNLIKE_SHARE = 8, 1e-3  # channels differ by more than 8 of 255 in over 1 in 1000 pixels


class Kind(NamedTuple):
    """A kind of fault. error: whether one makes the data set unfit; or, for most_error, only where
    more than half of a half's pairs have it."""

    title: str
    error: bool = True
    most_error: bool = False


# An error is what training stops at, or learns something false from. A warning is what good data
# sets have in places: frames that nobody is in, a close-up that fills the picture, a few hard
# masks, frames that repeat. Where most alphas are so, there is no matting to be learned: an error.
# A picture in both halves is one, since validation then measures what was memorised. Alpha that
# looks inverted is one as well: a real figure can hardly be opaque all around and clear in the
# middle, and a single inverted alpha teaches the opposite of all others.
KINDS = {
    "folder": Kind("folders that cannot be used"),
    "twice": Kind("names twice, with two endings or in two Unicode forms: keep one of each"),
    "orphan": Kind("without a partner of the same name: add what is missing, or remove these"),
    "unreadable": Kind("cannot be read: replace or remove them"),
    "unlike_sizes": Kind("foreground and alpha of unlike sizes: replace or remove them"),
    "colour_alpha": Kind("alpha with three channels unlike each other: is it a colour picture?"),
    "inverted_alpha": Kind("alpha that looks inverted, opaque around a clear middle: invert it"),
    "in_both_halves": Kind("the same file in train and valid: remove it from one of them"),
    "empty_alpha": Kind("alpha that is empty, transparent all over", False, most_error=True),
    "full_alpha": Kind("alpha that is full, opaque all over", False, most_error=True),
    "binary_alpha": Kind("alpha that is binary, a mask without soft edges", False, most_error=True),
    "small": Kind("smaller than the largest crop, and so enlarged for it", False),
    "repeated": Kind("the same file again in the same half", False),
}


class Fault(NamedTuple):
    kind: str  # a key of KINDS
    half: str  # "train" or "valid"
    what: str  # a sentence with the path
    index: int = -1  # type: ignore[assignment]  # of the pair in its half, where it is a pair's


@dataclass
class Group:
    """Pictures that are looked at alike: the pairs (or RGBA pictures) or the backgrounds of a half,
    and what is known of each, in their order."""

    half: str
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


def judge_alpha(pha: np.ndarray) -> Iterator[tuple[str, str]]:
    """The kinds of faults of an alpha, (H, W) uint8, each with its figures.

    empty, full: but for 1 pixel in 10,000. binary: hardly a soft pixel along its outline, which is
    counted where neighbours lie on two sides of one half; a share of all pixels would call a small
    figure in a large picture binary. inverted: the rim mostly opaque, the middle ninth much less;
    the rim is the outermost twentieth at the top and along the upper two thirds of the sides, since
    figures stand on the lower border. It does not find an inverted figure off the middle.
    """
    histogram = np.array(Image.fromarray(np.ascontiguousarray(pha)).histogram())
    few = FEW * pha.size
    if histogram[CLEAR + 1 :].sum() <= few:
        yield "empty_alpha", f"largest value {np.flatnonzero(histogram)[-1]} of 255"
        return
    if histogram[:SOLID].sum() <= few:
        yield "full_alpha", f"smallest value {np.flatnonzero(histogram)[0]} of 255"
        return
    inside = pha > 127
    outline = np.count_nonzero(inside[1:] != inside[:-1])
    outline += np.count_nonzero(inside[:, 1:] != inside[:, :-1])
    soft = int(histogram[SOFT[0] : SOFT[1] + 1].sum())
    if outline and soft < SOFT_LEAST * outline:
        yield "binary_alpha", f"{soft} soft pixels along an outline of {outline}"
    height, width = pha.shape
    y, x = max(1, height // 20), max(1, width // 20)
    upper = pha[: 2 * height // 3]
    rim = np.concatenate([part.ravel() for part in (pha[:y], upper[:, :x], upper[:, -x:])])
    middle = pha[height // 3 : -(-2 * height // 3), width // 3 : -(-2 * width // 3)]
    around, within = rim.mean() / 255, middle.mean() / 255
    if around > RIM and around - within > FALL:
        yield "inverted_alpha", f"mean {around:.2f} at the rim, {within:.2f} in the middle"


def channels_differ(pha: np.ndarray) -> bool:
    """Whether an alpha, (H, W, 3) uint8, is not grey; what JPEG does to grey is let pass."""
    spread = pha.max(axis=2) - pha.min(axis=2)
    return bool((spread > UNLIKE).mean() > UNLIKE_SHARE)


def duplicates(groups: Sequence[Group]) -> list[Fault]:
    """Files with the same bytes: in both halves, or twice in one.

    Alphas count across the halves alone, and where they are neither empty nor full: within a video
    a still figure has the same alpha in many frames. The same picture saved anew, scaled, or
    cut otherwise is not found, nor are neighbouring frames of one video in both halves.
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
                (some[g].half, _file(some[g].pictures, int(place - starts[g]), part))
                for g, place in zip(numbers, run, strict=True)
            ]
            first_half, first = files[0]
            for half, path in files[1:]:
                kind = "repeated" if half == first_half else "in_both_halves"
                if kind == "in_both_halves" or part == 0:
                    faults.append(Fault(kind, half, f"{first} and {path}"))
    return faults


def _file(pictures: Foregrounds | Backgrounds, index: int, part: int) -> object:
    if isinstance(pictures, Foregrounds):
        return pictures.paths(index)[part]
    return pictures.path(index)


def errors_among(faults: Sequence[Fault], groups: Sequence[Group]) -> set[str]:
    """The kinds that make the data set unfit: errors, and warnings that most pairs have."""
    pairs = {group.half: len(group.pictures) for group in groups if group.paired}
    counts = Counter((fault.kind, fault.half) for fault in faults)
    found = {kind for kind, _ in counts if KINDS[kind].error}
    for (kind, half), count in counts.items():
        if KINDS[kind].most_error and count > pairs.get(half, 0) / 2:
            found.add(kind)
    return found
