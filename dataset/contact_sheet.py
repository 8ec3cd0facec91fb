"""A picture of pairs, a row each: foreground, alpha, and the two composited on a flat colour.

It reads as training does, at the size that is shown, and writes nothing.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dataset.images import DataError, Foregrounds, decode, open_picture, upright_size

CELL, GAP, LABEL, HEAD = 240, 16, 300, 56  # pixels
PAPER, PANEL, INK, FAINT, ALARM = "#f4f2ee", "#e6e3dc", "#222222", "#77736b", "#b3261e"
BEHIND = (46, 158, 116)  # green, seldom a colour of people: what is left of an old background shows
TITLES = ("foreground", "alpha", "composite")


def contact_sheet(rows: list[tuple[str, Foregrounds, int, str]], title: str) -> Image.Image:
    """RGB. rows: of each, the half, its pairs, which of them, and what is wrong with it or "".
    A picture that cannot be read is left blank."""
    width = 2 * GAP + LABEL + 3 * (CELL + GAP)
    sheet = Image.new("RGB", (width, HEAD + GAP + len(rows) * (CELL + GAP)), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, HEAD / 2), _cut(title, 20, LABEL), INK, _font(20), anchor="lm")
    lefts = [2 * GAP + LABEL + column * (CELL + GAP) for column in range(3)]
    for left, name in zip(lefts, TITLES, strict=True):
        pen.text((left + CELL / 2, HEAD / 2), name, FAINT, _font(15), anchor="mm")
    for number, (half, foregrounds, index, wrong) in enumerate(rows):
        top = HEAD + number * (CELL + GAP)
        name = _shown(foregrounds.fgr_names[index])
        pictures, size = _pictures(foregrounds, index)
        for left, picture in zip(lefts, pictures, strict=True):
            pen.rectangle((left, top, left + CELL - 1, top + CELL - 1), PANEL)
            if picture:
                at = (left + (CELL - picture.width) // 2, top + (CELL - picture.height) // 2)
                sheet.paste(picture, at)
        lines = [(line, 16, INK) for line in _wrapped(name, 16, 4)]
        lines += [(f"{half}, {size}", 14, FAINT)]
        lines += [(line, 14, ALARM) for line in _wrapped(wrong, 14, 6)]
        y = top + 4
        for line, height, colour in lines:
            pen.text((GAP, y), line, colour, _font(height))
            y += height + 7
    return sheet


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
    colour = Image.new("RGB", fgr.size, BEHIND)
    return (fgr, pha, Image.composite(fgr, colour, pha.resize(fgr.size))), size


def _read(path, mode: str) -> tuple[list[Image.Image], tuple[int, int]]:
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
    lines = []
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


def _cut(text: str, height: int, width: int) -> str:
    if _font(height).getlength(text) <= width:
        return text
    while text and _font(height).getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _shown(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
