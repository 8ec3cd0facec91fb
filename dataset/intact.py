"""Whether a file has the pixels that its header promises.

Where data end early, Pillow leaves the rest of a JPEG grey and that of a PNG 0, and says nothing as
long as the end's mark is there. Only a picture that ends so is looked into again, its file's bytes
being counted (PNG) or those of its end decoded (JPEG: ITU-T T.81).
"""

import io
import re
import struct
import zlib
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

MISSING_GREY = 128  # what libjpeg leaves
CODED_UNIT_SIDE = 16  # pixels: of the largest units in which a JPEG usually is coded
COMPARED_SIDE = 48  # pixels: three such units side by side
END_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # what ends coded data
RESTART_MARKER = re.compile(rb"\xff[\xd0-\xd7]")
ROWS_ABOVE, SUDDEN_SHARE = 8, 0.5  # rows above the last, and the share of their pixels that it has
INFLATED_BYTES = 1 << 12  # bytes inflated at once
CODED_BYTES_AT_END = 1 << 10  # bytes: more than two units of zeros take
# Of an interlaced PNG: first column and row, and steps.
INTERLACE_PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
CHANNELS_OF_COLOUR_TYPE = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG's pixel


def ends_early(picture: Image.Image, file_format: str | None, scale: int = 1) -> bool:
    """Whether a decoded picture ends as one does whose data end early; most do not. scale: a JPEG
    was decoded so many times smaller."""
    width, height = picture.size
    if file_format == "PNG":
        return _ends_in_zeros(picture)
    if file_format != "JPEG" or picture.mode not in ("L", "RGB"):
        return False
    long, short = -(-COMPARED_SIDE // scale), -(-8 // scale)
    if width >= long:
        box = (width - long, max(0, height - short), width, height)
    else:
        box = (0, max(0, height - long), width, height)
    extrema = picture.crop(box).getextrema()
    pairs = extrema if isinstance(extrema[0], tuple) else (extrema,)
    return all(pair == (MISSING_GREY, MISSING_GREY) for pair in pairs)


def _ends_in_zeros(picture: Image.Image) -> bool:
    """Whether zeros begin all at once and go on to the end. Below most figures they begin little by
    little; to count the bytes of all those would cost as much as to decode them."""
    width, height = picture.size
    if picture.crop((0, height - 1, width, height)).getbbox(alpha_only=False):
        return False
    box = picture.getbbox(alpha_only=False)
    if box is None:
        return True
    last, above = (
        np.count_nonzero(np.asarray(picture.crop((0, row, width, row + 1))))
        for row in (box[3] - 1, max(0, box[3] - 1 - ROWS_ABOVE))
    )
    return bool(last >= SUDDEN_SHARE * above)


def lacks_pixels(file: BinaryIO, file_format: str | None) -> str | None:
    """What is missing in the file of a picture that ends_early, in words; None where nothing is,
    or that cannot be told."""
    content = file.read()
    try:
        return _png_lacks(content) if file_format == "PNG" else _jpeg_lacks(content)
    except (IndexError, KeyError, struct.error, zlib.error):
        return None  # of a kind that is not known here


# ------------------------------------------------------------------------------------------------
# PNG


def _png_lacks(content: bytes) -> str | None:
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", content[16:29])
    passes = INTERLACE_PASSES if interlaced else ((0, 0, 1, 1),)
    wanted = 0
    for left, top, right, down in passes:
        columns, rows = -(-(width - left) // right), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            wanted += rows * (1 + -(-columns * depth * CHANNELS_OF_COLOUR_TYPE[colour] // 8))
    inflate, found, place = zlib.decompressobj(), 0, 8
    while place < len(content) and found < wanted and not inflate.eof:
        length, kind = struct.unpack(">I4s", content[place : place + 8])
        if kind == b"IDAT":
            for start in range(place + 8, place + 8 + length, INFLATED_BYTES):
                piece = content[start : min(start + INFLATED_BYTES, place + 8 + length)]
                found += len(inflate.decompress(piece))
        place += 12 + length
    if found >= wanted:
        return None
    return f"its pixels end after {100 * found // wanted} % of {width}x{height}"


# ------------------------------------------------------------------------------------------------
# JPEG


class Scan(NamedTuple):
    """The first scan: the codes of a block of zeros, in the order of a unit; where its data are."""

    zeros: str
    data: bytes
    size: tuple[int, int]


def _jpeg_lacks(content: bytes) -> str | None:
    scan = _first_scan(content)
    if scan is None:
        return None
    coded = RESTART_MARKER.split(scan.data[-CODED_BYTES_AT_END:])[-1].replace(b"\xff\x00", b"\xff")
    bits = "".join(f"{byte:08b}" for byte in coded)
    units = 1 if max(scan.size) <= CODED_UNIT_SIDE else 2  # that small, it may have a single one
    if scan.zeros and any(
        bits[: len(bits) - pad].endswith(scan.zeros * units)
        for pad in range(8)
        if bits.endswith("1" * pad)  # which fill the last byte up
    ):
        return None  # the grey is in the file
    return f"its pixels end before {scan.size[0]}x{scan.size[1]} are full"


def _first_scan(content: bytes) -> Scan | None:
    """None where it is coded otherwise than by Huffman's codes."""
    tables: dict[int, dict[int, str]] = {}
    sampling: dict[int, int] = {}
    size, progressive, place = (0, 0), False, 2
    while place < len(content):
        if content[place] != 0xFF:
            return None
        kind = content[place + 1]
        if kind in (0xFF, 0x01):  # filling, and a marker that stands alone
            place += 1 if kind == 0xFF else 2
            continue
        length = struct.unpack(">H", content[place + 2 : place + 4])[0]
        body = content[place + 4 : place + 2 + length]
        place += 2 + length
        if kind == 0xC4:
            _read_tables(body, tables)
        elif kind in (0xC0, 0xC1, 0xC2):
            progressive = kind == 0xC2
            size = struct.unpack(">H", body[3:5])[0], struct.unpack(">H", body[1:3])[0]
            for start in range(6, 6 + 3 * body[5], 3):
                sampling[body[start]] = (body[start + 1] >> 4) * (body[start + 1] & 15)
        elif 0xC3 <= kind <= 0xCF:
            return None
        elif kind == 0xDA:
            zeros = ""
            parts = [body[1 + 2 * n : 3 + 2 * n] for n in range(body[0])]
            for component, table in parts:
                block = tables[table >> 4].get(0, "")
                if not progressive:
                    block += tables[16 | table & 15].get(0, "")
                zeros += block * (sampling[component] if len(parts) > 1 else 1)
            end = END_MARKER.search(content, place)
            return Scan(zeros, content[place : end.start() if end else None], size)
    return None


def _read_tables(body: bytes, tables: dict[int, dict[int, str]]) -> None:
    """Adds the codes by their symbols, as bits; tables are told apart by class * 16 + number."""
    file = io.BytesIO(body)
    while head := file.read(1):
        counts, code, codes = file.read(16), 0, {}
        for length, count in enumerate(counts, 1):
            for symbol in file.read(count):
                codes[symbol] = f"{code:0{length}b}"
                code += 1
            code <<= 1
        tables[head[0]] = codes
