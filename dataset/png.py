"""Opens JPEG and PNG files by what their pixels need: text in a PNG, however long, is passed over,
and so is a wrong checksum of what changes no pixel.

Pillow reads every chunk of a PNG, and refuses the file for one of them. Such a file gets a second
try here, with the chunks of the pixels alone.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageFile, UnidentifiedImageError

PILLOW_FORMATS = ("JPEG", "PNG")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Header, palette, what is transparent, pixels, end: with the checksums that they have.
PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
# Read whatever their checksums; nonsense is passed over.
ORIENTATION_CHUNK, PROFILE_CHUNK = b"eXIf", b"iCCP"
MAX_CHUNK_BYTES = 1 << 24  # bytes of those two; a printer's profile has some 3 million


def open_image(source: Path | BinaryIO) -> ImageFile.ImageFile:
    """A picture with its header read and its pixels not yet. Raises what Pillow raises."""
    try:
        picture = Image.open(source, formats=PILLOW_FORMATS)
    except (UnidentifiedImageError, SyntaxError, ValueError):
        with source.open("rb") if isinstance(source, Path) else source as file:
            file.seek(0)
            if file.read(len(PNG_SIGNATURE)) != PNG_SIGNATURE:
                raise
            picture = _without_text(file)
    if picture.format == "PNG":
        picture.load_end = lambda: None  # type: ignore[method-assign]  # it reads text behind them
    return picture


def _without_text(file: BinaryIO) -> ImageFile.ImageFile:
    profile, kept = b"", [PNG_SIGNATURE]
    for kind, data, checksum in _chunks(file):
        if kind == PROFILE_CHUNK:
            profile = _profile_in(data)
            continue
        if kind == ORIENTATION_CHUNK:
            checksum = struct.pack(">I", zlib.crc32(kind + data))
        kept += [struct.pack(">I", len(data)), kind, data, checksum]
    picture = Image.open(io.BytesIO(b"".join(kept)), formats=PILLOW_FORMATS)
    if profile:
        picture.info["icc_profile"] = profile
    return picture


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Kind, data and checksum of those chunks behind the signature that matter, up to where the
    file is cut off."""
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind in PIXEL_CHUNKS or (
            kind in (ORIENTATION_CHUNK, PROFILE_CHUNK) and length <= MAX_CHUNK_BYTES
        ):
            yield kind, file.read(length), file.read(4)
        else:
            file.seek(length + 4, io.SEEK_CUR)


def _profile_in(data: bytes) -> bytes:
    """What an iCCP chunk holds: a name, a zero, the method (0), and the profile, compressed. Empty
    where that is damaged."""
    inflate = zlib.decompressobj()
    try:
        return inflate.decompress(data[data.index(b"\0") + 2 :], MAX_CHUNK_BYTES)
    except (zlib.error, ValueError):
        return b""
