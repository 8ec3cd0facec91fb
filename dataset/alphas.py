"""What is an alpha and what is none: judges the values of one, and a sample of many, in words.

It opens no file. A fault is a kind, a key of KINDS in checking/faults.py, and what was seen.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from common.errors import DataError

# Of an alpha in 0..255. JPEG leaves noise, so that nothing is exactly 0 or 255.
CLEAR, SOLID = 12, 243  # up to it transparent, from it on opaque
# Share of pixels that may differ in an alpha that is empty, full, or of one grey.
MAX_ODD_SHARE = 1e-4
# Between a tenth and nine tenths; noise beside a hard edge is mostly outside.
SOFT_VALUES = 26, 229
MIN_SOFT_PER_EDGE = 0.1  # soft pixels per pixel of outline; a plain antialiased edge has some 0.5
RIM, FALL = 0.6, 0.3  # inverted: the mean of the rim is above, the middle so much below it
UNLIKE_BY, UNLIKE_SHARE = 8, 1e-3  # channels differ by more than 8 of 255 in over 1 in 1000 pixels
MAX_COMPARED_PIXELS = 250_000  # pixels of a picture in three channels that are compared
SOLID_SHARE_OF_MAX = 0.97  # of the largest value: what is above it is the solid part of a figure
# That part's share of all that is not 0, at least, where values are on another scale.
MIN_SOLID_SHARE = 0.05
MAX_NOISE_SHARE = 0.5  # of the changes that independent pixels would have; a figure has far fewer
MAX_LABELS = 40  # labels are no more values than these
# A level's pixels with like neighbours; and their share of a picture.
PATCH_NEIGHBOURS, MIN_PATCHES_SHARE = 0.5, 5e-3

# Pixels of a soft edge; and the least brightness beside it, of 255.
MIN_EDGE_PIXELS, MIN_EDGE_BRIGHTNESS = 100, 40
EDGE_WINDOW_SIDE = 11  # pixels: the window around a soft one in which solid ones are beside it
# Share brighter than alpha; colour left at alpha 0; its rise.
OVER_ALPHA_SHARE, REST_AT_ALPHA_0, REST_SLOPE = 0.02, 0.25, 0.6
NO_FIGURE_ADVICE = "there is no figure to be told from its background: give mattes that have one"
ADVICE_OF_FAULT = {  # what to do, by the kind of fault
    "colour_alpha": "an alpha is grey: put the matte of this picture in its place",
    "scaled_alpha": "or give the mattes that these were made of",
    "label_alpha": "write 255 where the figure is and 0 elsewhere, or better: make mattes",
    "empty_alpha": NO_FIGURE_ADVICE,
    "full_alpha": NO_FIGURE_ADVICE,
    "flat_alpha": NO_FIGURE_ADVICE,
    "middle_alpha": "a matte is 0 where the background is and 255 where the figure is: give the "
    "mattes, or stretch the values to 0 to 255 where they are those of a video (16 to 235)",
}
# What is no fault of one alpha, but is of all: the kinds that together leave nothing to be learned.
NO_FIGURES = ({"empty_alpha", "full_alpha", "flat_alpha"}, {"flat_alpha", "middle_alpha"})
WORDS_OF_FAULT = {  # in the order in which a mixture of them is called by one
    "flat_alpha": "of one grey everywhere",
    "middle_alpha": "nowhere transparent and nowhere opaque",
    "empty_alpha": "empty",
    "full_alpha": "full, opaque everywhere",
}
MEASURE_FAULT_ADVICE = (
    "the alpha channel was lost where they were converted: export them with transparency, or put "
    "their mattes into a folder pha beside a folder fgr"
)


class AlphaError(DataError):
    """An alpha whose values are those of something else. kind: as check_data.py names the fault."""

    def __init__(self, path: object, kind: str, figures: str) -> None:
        super().__init__(f"{path} is no alpha: {figures}; {ADVICE_OF_FAULT[kind]}")
        self.kind, self.figures = kind, figures
        self._given = path, kind, figures

    def __reduce__(self) -> tuple:  # to another process
        return AlphaError, self._given


class Judged(NamedTuple):
    """An alpha, and its faults as pairs of kind and figures. own: whether the file is an RGBA
    picture's."""

    path: object
    faults: list[tuple[str, str]]
    own: bool = False


def refuse(path: object, picture: Image.Image) -> None:
    """Raises AlphaError where a decoded picture, as the file has it, cannot be an alpha, whatever
    the others are: a colour picture, or values of another scale."""
    if found := foreign_values(picture):
        raise AlphaError(path, *found)


def foreign_values(picture: Image.Image) -> tuple[str, str] | None:
    """The fault that makes a picture no alpha by itself. picture: decoded, of mode 1, L, I or
    I;16, RGB or P (in either colours must be grey)."""
    if picture.mode in ("RGB", "P"):
        step = max(1, int((picture.width * picture.height / MAX_COMPARED_PIXELS) ** 0.5))
        # Pillow converts no picture with a step; a palette is small, and so are the rows taken.
        rows = np.asarray(picture)[::step, ::step]
        if picture.mode == "P":
            small = Image.fromarray(np.ascontiguousarray(rows), "P")
            small.putpalette(picture.getpalette() or [])
            rows = np.asarray(small.convert("RGB"))
        if channels_differ(rows):
            what = (
                "its palette has colours, as labels have"
                if picture.mode == "P"
                else ("its three channels are unlike each other, as those of a colour picture")
            )
            return "colour_alpha", what
        if picture.mode == "P":
            picture = picture.convert("L")
    return scaled_values(picture)


def scaled_values(picture: Image.Image) -> tuple[str, str] | None:
    """The fault of values that are meant on another scale: 0 and 1, or 0 to 255 in 16 bits."""
    extrema = picture.getextrema()
    high = max(pair[1] for pair in extrema) if isinstance(extrema[0], tuple) else extrema[1]
    deep = picture.mode.startswith("I")
    if high == 1 or (deep and 250 <= high <= 255):
        values = np.asarray(picture)
        values = values if values.ndim == 2 else values[..., 0]
        top = values >= SOLID_SHARE_OF_MAX * high
        if top.sum() > max(
            MIN_SOLID_SHARE * np.count_nonzero(values), MAX_ODD_SHARE * values.size
        ) and _one_figure(top):
            white = 65535 if deep else 255
            factor = 257 if high > 1 else white
            also = ", or save them as 8 bits" if high > 1 else ""
            what = f"its largest value is {high} of {white}: multiply by {factor}{also}"
            return "scaled_alpha", what
    return None


def _one_figure(inside: np.ndarray) -> bool:
    """Whether a mask is of connected parts, and no noise, nor all of the picture."""
    share = inside.mean()
    changes = (inside[:, 1:] != inside[:, :-1]).mean() if inside.shape[1] > 1 else 0.0
    return bool(share < 1 and changes < MAX_NOISE_SHARE * 2 * share * (1 - share))


def judge_alpha(pha: np.ndarray) -> Iterator[tuple[str, str]]:
    """The kinds of faults of an alpha, (H, W) uint8, each with its figures.

    label: flat patches of values between clear and opaque, or of small numbers, without soft
    edges. empty, full: but for 1 pixel in 10,000. binary: hardly a soft pixel along its outline,
    which is counted where neighbours lie on two sides of one half; a share of all pixels would call
    a small figure in a large picture binary. inverted: the rim mostly opaque, the middle ninth much
    less; the rim is the outermost twentieth at the top and along the upper two thirds of the sides,
    since figures stand on the lower border. It does not find an inverted figure off the middle.
    """
    histogram = np.array(Image.fromarray(np.ascontiguousarray(pha)).histogram())
    few = MAX_ODD_SHARE * pha.size
    if levels := _label_levels(pha, histogram):
        yield "label_alpha", f"flat patches of the values {', '.join(map(str, levels))} of 255"
        return
    if histogram[CLEAR + 1 :].sum() <= few:
        yield "empty_alpha", f"largest value {np.flatnonzero(histogram)[-1]} of 255"
        return
    if histogram[:SOLID].sum() <= few:
        yield "full_alpha", f"smallest value {np.flatnonzero(histogram)[0]} of 255"
        return
    low, high = _range_of_most(histogram)
    if high - low <= 2 * CLEAR and low > 0 and high < 255:
        yield "flat_alpha", f"values {low} to {high} of 255" if low < high else f"{low} of 255"
        return
    if low > CLEAR and high < SOLID:
        yield "middle_alpha", f"values {low} to {high} of 255"
        return
    inside = pha > 127
    outline = np.count_nonzero(inside[1:] != inside[:-1])
    outline += np.count_nonzero(inside[:, 1:] != inside[:, :-1])
    soft = int(histogram[SOFT_VALUES[0] : SOFT_VALUES[1] + 1].sum())
    if outline and soft < MIN_SOFT_PER_EDGE * outline:
        yield "binary_alpha", f"{soft} soft pixels along an outline of {outline}"
    height, width = pha.shape
    y, x = max(1, height // 20), max(1, width // 20)
    upper = pha[: 2 * height // 3]
    rim = np.concatenate([part.ravel() for part in (pha[:y], upper[:, :x], upper[:, -x:])])
    middle = pha[height // 3 : -(-2 * height // 3), width // 3 : -(-2 * width // 3)]
    around, within = rim.mean() / 255, middle.mean() / 255
    if around > RIM and around - within > FALL:
        yield "inverted_alpha", f"mean {around:.2f} at the rim, {within:.2f} in the middle"


def _range_of_most(histogram: np.ndarray) -> tuple[int, int]:
    """The lowest and the highest value but for few pixels: 1 in 10,000 below, and as many above."""
    total = int(histogram.sum())
    low = np.searchsorted(histogram.cumsum(), MAX_ODD_SHARE * total, side="right")
    high = 255 - np.searchsorted(histogram[::-1].cumsum(), MAX_ODD_SHARE * total, side="right")
    return int(low), int(high)


def _label_levels(pha: np.ndarray, histogram: np.ndarray) -> list[int]:
    """The values of a map of labels or of a trimap; empty for anything else. A slow ramp is flat in
    patches too, but its neighbouring levels differ by 1; a soft edge has pixels in no patch."""
    high = int(np.flatnonzero(histogram)[-1])
    between = slice(CLEAR + 1, SOLID) if high > CLEAR else slice(2, CLEAR + 1)
    if (
        np.sort(histogram[between])[-MAX_LABELS:].sum() < MIN_PATCHES_SHARE * pha.size
        or min(pha.shape) < 2
    ):
        return []
    core = pha[:-1, :-1]
    right, below = pha[:-1, 1:] != core, pha[1:, :-1] != core
    flat = ~(right | below)
    counts = np.bincount(core.ravel(), minlength=256)
    patches = np.bincount(core[flat], minlength=256)
    levels = np.flatnonzero(
        (patches >= PATCH_NEIGHBOURS * counts) & (patches > MAX_ODD_SHARE * pha.size)
    )
    inner = levels[(levels >= between.start) & (levels < between.stop)]
    if (
        not len(inner)
        or len(levels) > MAX_LABELS
        or patches[inner].sum() < MIN_PATCHES_SHARE * pha.size
    ):
        return []
    borders = np.count_nonzero(right) + np.count_nonzero(below)
    others = counts.sum() - counts[levels].sum()
    if not borders or others >= MIN_SOFT_PER_EDGE * borders:
        return []
    if high > CLEAR:
        signed = pha.astype(np.int16)
        jumps = np.abs(np.diff(signed, axis=1)[:-1][right])
        jumps = np.concatenate([jumps, np.abs(np.diff(signed, axis=0)[:, :-1][below])])
        if np.median(jumps) < 2:
            return []
    return levels.tolist()


def channels_differ(pha: np.ndarray) -> bool:
    """Whether an alpha, (H, W, 3) uint8, is not grey; what JPEG does to grey is let pass."""
    spread = pha.max(axis=2) - pha.min(axis=2)
    return bool((spread > UNLIKE_BY).mean() > UNLIKE_SHARE)


def premultiplied(fgr: np.ndarray, pha: np.ndarray) -> str | None:
    """The figures of colours, (H, W, 3) uint8, that were multiplied by their alpha, (H, W) uint8;
    None where they were not, or that cannot be told: the edge is short, or the figure dark there.

    Along a soft edge such colours fall with alpha, from those of the solid pixels beside it down to
    black; a line is fitted to that. Straight colours stay what they are, or end in what was behind.
    """
    soft = (pha >= SOFT_VALUES[0]) & (pha <= SOFT_VALUES[1])
    if np.count_nonzero(soft) < MIN_EDGE_PIXELS or not np.ptp(
        pha[soft]
    ):  # a trimap has one value there
        return None
    near = np.asarray(
        Image.fromarray(soft).convert("L").filter(ImageFilter.MaxFilter(EDGE_WINDOW_SIDE))
    )
    bright = fgr.max(axis=2)
    solid = bright[(near > 0) & (pha > SOLID)]
    if len(solid) < MIN_EDGE_PIXELS or (level := float(solid.mean())) < MIN_EDGE_BRIGHTNESS:
        return None
    over = float((bright[soft] > pha[soft].astype(np.int16) + UNLIKE_BY).mean())
    slope, rest = np.polyfit(pha[soft] / 255, bright[soft] / level, 1)
    if over > OVER_ALPHA_SHARE or rest > REST_AT_ALPHA_0 or slope < REST_SLOPE:
        return None
    return (
        f"colours fall with alpha along the edge, to {max(0, 100 * rest):.0f} % where it is clear"
    )


# ------------------------------------------------------------------------------------------------
# A sample of many


def fault_of_sample(
    judged: Sequence[Judged], total: int, what: str = "alphas", allowed: int = 0
) -> tuple[str, str] | None:
    """What makes a data set whose alphas these are a sample of unfit: the kind, and a sentence with
    the first file, what was seen and what to do; None where nothing does.

    One alpha that is a colour picture, or of another scale, is enough; of labels more than half
    must be; and all of those without a figure (NO_FIGURES), since there are such frames; of either
    nothing is said by fewer than 4 of a `total` that is more. allowed: how many colour pictures,
    and how many of another scale, are let pass."""
    enough = len(judged) >= min(4, total)
    for kind, least in (
        ("colour_alpha", allowed + 1),
        ("scaled_alpha", allowed + 1),
        ("label_alpha", len(judged) // 2 + 1 if enough else total),
    ):
        if len(some := _of(judged, kind)) >= least:
            said = _figures(some[0], kind)
            if len(judged) > 1:
                said += f" ({len(some)} of {len(judged)} {what} that were looked at)"
            return kind, f"{some[0].path} is no alpha: {said}; {ADVICE_OF_FAULT[kind]}"
    if not judged or not enough:
        return None
    for kinds in NO_FIGURES:
        found = [kind for kind in WORDS_OF_FAULT if kind in kinds and _of(judged, kind)]
        if sum(len(_of(judged, kind)) for kind in found) == len(judged):
            kind, first = found[0], _of(judged, found[0])[0]
            mend = (
                MEASURE_FAULT_ADVICE
                if first.own and kind == "full_alpha"
                else ADVICE_OF_FAULT[kind]
            )
            how = " or ".join(WORDS_OF_FAULT[kind] for kind in found)
            said = f"{first.path} is {how} ({_figures(first, kind)})"
            if len(judged) > 1:
                said += f", and so are all {len(judged)} {what} that were looked at"
            return kind, f"{said}; {mend}"
    return None


def _figures(judged: Judged, kind: str) -> str:
    return next(figures for fault, figures in judged.faults if fault == kind)


def _of(judged: Sequence[Judged], kind: str) -> list[Judged]:
    return [each for each in judged if any(fault == kind for fault, _ in each.faults)]
