"""PNG files with chunks that change no pixel: too long, damaged, before and behind the pixels."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import DataError
from dataset.orientation import orientation_of
from dataset.pictures import open_picture
from prediction.frames import read_rgb

LONG = zlib.compress(b"x" * 3_000_000)
NONSENSE = bytes(range(256)) * 8
HEADER = 33  # bytes: the signature and IHDR


def chunk(kind: bytes, data: bytes, wrong: bool = False) -> bytes:
    checksum = zlib.crc32(kind + data) ^ wrong
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def picture(mode: str = "RGB") -> tuple[np.ndarray, bytes]:
    shape = {"L": (20, 30), "RGB": (20, 30, 3), "RGBA": (20, 30, 4)}[mode]
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return pixels, file.getvalue()


CHUNKS = {
    "zTXt": chunk(b"zTXt", b"history\0\0" + LONG),
    "iTXt": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LONG),
    "tEXt, wrong checksum": chunk(b"tEXt", b"Comment\0text", wrong=True),
    "tIME, wrong checksum": chunk(b"tIME", bytes(7), wrong=True),
    "unknown, wrong checksum": chunk(b"vpAg", bytes(9), wrong=True),
    "pHYs, too short": chunk(b"pHYs", b"\0"),
    "gAMA, too short": chunk(b"gAMA", b"\0"),
    "iCCP, of another method": chunk(b"iCCP", b"name\0\7" + NONSENSE),
    "iCCP, no more than a name": chunk(b"iCCP", b"name"),
    "iCCP, long": chunk(b"iCCP", b"name\0\0" + LONG),
    "eXIf, wrong checksum": chunk(b"eXIf", NONSENSE, wrong=True),
}


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("name", CHUNKS)
def test_chunks_that_change_no_pixel_are_passed_over(
    tmp_path: Path, name: str, behind: bool
) -> None:
    pixels, content = picture()
    at = len(content) - 12 if behind else HEADER
    path = tmp_path / "a.png"
    path.write_bytes(content[:at] + CHUNKS[name] + content[at:])
    assert np.array_equal(read_rgb(path), pixels)


def test_orientation_and_profile_are_read_beside_what_is_passed_over(tmp_path: Path) -> None:
    pixels, content = picture()
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = np.random.default_rng(1).bytes(2_000_000)  # Pillow reads one million
    chunks = [
        CHUNKS["zTXt"],
        chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"), wrong=True),
        chunk(b"iCCP", b"name\0\0" + zlib.compress(profile), wrong=True),
    ]
    path = tmp_path / "a.png"
    path.write_bytes(content[:HEADER] + b"".join(chunks) + content[HEADER:])
    with open_picture(path) as opened:
        assert orientation_of(opened) == 6
        assert opened.info["icc_profile"] == profile
    assert np.array_equal(read_rgb(path), pixels[::-1].swapaxes(0, 1))


def test_what_makes_the_pixels_has_to_be_right(tmp_path: Path) -> None:
    _, content = picture()
    start = content.index(b"IDAT") + 4
    damaged = bytearray(content)
    damaged[start + 100] ^= 1
    transparent = chunk(b"tRNS", bytes(6), wrong=True)
    for number, bad in enumerate(
        (
            bytes(damaged),
            content[: start + 100],
            content[:16] + b"\1" + content[17:],  # the header's checksum is that of another width
            content[:HEADER] + transparent + content[HEADER:],
            content[:HEADER] + CHUNKS["zTXt"] + content[HEADER : start + 100],
        )
    ):
        path = tmp_path / f"{number}.png"
        path.write_bytes(bad)
        with pytest.raises(DataError, match=f"{number}.png cannot be decoded"):
            read_rgb(path)


def test_an_animation_is_its_first_picture(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    path = tmp_path / "a.png"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert (read_rgb(path) == (255, 0, 0)).all()
    content = path.read_bytes()
    path.write_bytes(content[:HEADER] + CHUNKS["iTXt"] + content[HEADER:])
    assert (read_rgb(path) == (255, 0, 0)).all()
