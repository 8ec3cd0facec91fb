"""A picture of pairs, a row each: foreground, alpha, and the two composited on a flat colour.

It reads as training does, at the size that is shown, and writes nothing.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from checking.faults import Fault, Group
from common.errors import DataError
from common.text import printable
from dataset.pictures import Foregrounds, decode, open_picture, upright_size
from dataset.tar import Member

CELL, GAP, LABEL, HEAD = 240, 16, 300, 56  # pixels
PAPER, PANEL, INK, FAINT, ALARM = "#f4f2ee", "#e6e3dc", "#222222", "#77736b", "#b3261e"
# Behind composites: green, seldom a colour of people, so that remains of an old background show.
COMPOSITE_COLOUR = (46, 158, 116)
COLUMN_TITLES = ("foreground", "alpha", "composite")


class Row(NamedTuple):
    split: str
    pairs: Foregrounds
    index: int  # type: ignore[assignment]  # hides tuple.index
    wrong: str  # what, or ""


def choose_rows(groups: Sequence[Group], faults: Sequence[Fault], count: int) -> list[Row]:
    """At most `count` pairs that something is wrong with, of each kind of fault the first, then of
    each the second, and so on; and as many evenly spaced ones, two in train for one in valid.
    Being small is no fault that a picture would show."""
    pairs = {
        group.split: group.pictures for group in groups if isinstance(group.pictures, Foregrounds)
    }
    wrong: dict[tuple[str, int], list[str]] = {}
    of_kind: Counter[str] = Counter()
    ranked = []
    for fault in faults:
        if fault.index >= 0 and fault.kind != "small":
            wrong.setdefault((fault.split, fault.index), []).append(fault.kind.replace("_", " "))
            of_kind[fault.kind] += 1
            ranked.append((of_kind[fault.kind], fault.split, fault.index))
    chosen = [(split, index) for _, split, index in sorted(ranked)]
    chosen = list(dict.fromkeys(chosen))[:count]
    for split, share in (("train", -(-2 * count // 3)), ("valid", count // 3)):
        share = min(share, len(pairs.get(split, ())))
        chosen += [(split, number * len(pairs[split]) // share) for number in range(share)]
    return [
        Row(split, pairs[split], index, ", ".join(wrong.get((split, index), [])))
        for split, index in dict.fromkeys(chosen)
    ]


def contact_sheet(rows: Sequence[Row], title: str) -> Image.Image:
    """RGB. A picture that cannot be read is left blank."""
    drawn = [_drawn(row) for row in rows]
    width = 2 * GAP + LABEL + 3 * (CELL + GAP)
    sheet = Image.new("RGB", (width, HEAD + sum(row.height + GAP for row in drawn)), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, HEAD / 2), _wrapped(title, 20, 1)[0], INK, _font(20), anchor="lm")
    for column, name in enumerate(COLUMN_TITLES):
        middle = 2 * GAP + LABEL + column * (CELL + GAP) + CELL / 2
        pen.text((middle, HEAD / 2), name, FAINT, _font(15), anchor="mm")
    top = HEAD
    for row in drawn:
        sheet.paste(row, (0, top))
        top += row.height + GAP
    return sheet


def _drawn(row: Row) -> Image.Image:
    """Its label and three pictures, as high as they need."""
    pictures, size = _pictures(row.pairs, row.index)
    lines = [(line, 16, INK) for line in _wrapped(printable(row.pairs.fgr_names[row.index]), 16, 4)]
    lines += [(line, 14, FAINT) for line in _wrapped(f"{row.split}, {size}", 14, 3)]
    lines += [(line, 14, ALARM) for line in _wrapped(row.wrong, 14, 4)]
    heights = [picture.height for picture in pictures if picture]
    height = max([*heights, sum(high + 7 for _, high, _ in lines), 60])
    strip = Image.new("RGB", (2 * GAP + LABEL + 3 * (CELL + GAP), height), PAPER)
    pen = ImageDraw.Draw(strip)
    y = 0
    for line, high, colour in lines:
        pen.text((GAP, y), line, colour, _font(high))
        y += high + 7
    for column, picture in enumerate(pictures):
        left = 2 * GAP + LABEL + column * (CELL + GAP)
        pen.rectangle((left, 0, left + CELL - 1, height - 1), PANEL)
        if picture:
            at = (left + (CELL - picture.width) // 2, (height - picture.height) // 2)
            strip.paste(picture, at)
    return strip


def _pictures(
    foregrounds: Foregrounds, index: int
) -> tuple[tuple[Image.Image | None, Image.Image | None, Image.Image | None], str]:
    """Foreground, alpha and composite, each within CELL x CELL, and the size as text."""
    fgr_path, pha_path = foregrounds.paths(index)
    fgr = pha = None
    size = "cannot be read"
    try:
        bands, (height, width) = _read(fgr_path, "RGB" if pha_path else "RGBA")
        size = f"{width}x{height}"
        fgr = Image.merge("RGB", bands[:3])
        pha = None if pha_path else bands[3]
    except DataError:
        pass
    if pha_path:
        try:
            (pha,), (height, width) = _read(pha_path, "L")
            size += f", alpha {width}x{height}" if f"{width}x{height}" != size else ""
        except DataError:
            size += ", alpha cannot be read"
    if not (fgr and pha):
        return (fgr, pha, None), size
    colour = Image.new("RGB", fgr.size, COMPOSITE_COLOUR)
    return (fgr, pha, Image.composite(fgr, colour, pha.resize(fgr.size))), size


def _read(path: Path | Member, mode: str) -> tuple[list[Image.Image], tuple[int, int]]:
    """The bands of a picture, upright and within CELL x CELL, and its (height, width)."""
    picture = open_picture(path)
    size = height, width = upright_size(picture)
    scale = CELL / max(size)
    out = max(1, round(height * scale)), max(1, round(width * scale))
    to_picture = np.array([[width / out[1], 0, 0], [0, height / out[0], 0]])
    pixels, (matrix,) = decode(picture, mode, out, to_picture)
    # Each band by itself: Pillow would lose the colours of transparent pixels.
    return [
        Image.fromarray(np.ascontiguousarray(pixels[..., band])).transform(
            out[::-1], Image.Transform.AFFINE, matrix.ravel().tolist(), Image.Resampling.BILINEAR
        )
        for band in range(pixels.shape[2])
    ], size


def _font(height: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(height)


def _wrapped(text: str, height: int, at_most: int) -> list[str]:
    """Lines that fit beside the pictures, broken anywhere: names have few spaces."""
    lines: list[str] = []
    while text and len(lines) < at_most:
        count = len(text)
        while count > 1 and _font(height).getlength(text[:count]) > LABEL:
            count -= 1
        if count < len(text) and " " in text[count // 2 : count]:
            count = text.rindex(" ", 0, count) + 1
        lines.append(text[:count].rstrip())
        text = text[count:]
    if text and lines:
        lines[-1] = lines[-1][:-1] + "…"
    return lines
