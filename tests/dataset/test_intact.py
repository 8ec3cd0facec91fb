"""A picture whose header promises more pixels than its data have is none, wherever it is read."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import DataError
from dataset import shard
from dataset.pictures import decode, open_picture
from tests.support.drawn import make_data
from tests.support.running import error_of, run

pytestmark = pytest.mark.usefixtures("tiny_network")

RNG = np.random.default_rng(0)
Y, X = np.mgrid[0:96, 0:128]
NOISE = RNG.integers(1, 256, (96, 128, 3), dtype=np.uint8)
RAMP = np.stack([X * 2, Y * 2, X * 0 + 40], axis=-1).astype(np.uint8)
HALF_GREY = np.where((Y > 40)[..., None], 128, NOISE).astype(np.uint8)
WAYS: list[dict] = [
    {"quality": 50},
    {"quality": 100},
    {"progressive": True},
    {"subsampling": 0},
    {"restart_marker_rows": 1},
    {"restart_marker_blocks": 3},
    {"optimize": True},
]
MODES = ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"]


def jpeg(pixels: np.ndarray, **way: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **way)
    return file.getvalue()


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def claiming(content: bytes, width: int, height: int) -> bytes:
    """A file with another size in its header."""
    if content.startswith(b"\x89PNG"):
        header = b"IHDR" + struct.pack(">II", width, height) + content[24:29]
        return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]
    place = 2
    while not 0xC0 <= content[place + 1] <= 0xC2:
        place += 2 + struct.unpack(">H", content[place + 2 : place + 4])[0]
    return content[: place + 5] + struct.pack(">HH", height, width) + content[place + 9 :]


def read(path: Path, content: bytes, shrink: int = 1, mode: str = "RGB") -> np.ndarray:
    path.write_bytes(content)
    picture = open_picture(path)
    size = max(1, picture.height // shrink), max(1, picture.width // shrink)
    matrix = np.array([[shrink, 0, 0], [0, shrink, 0]], np.float64)
    return decode(picture, mode, size, matrix)[0]


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("colours", [True, False])
def test_a_jpeg_of_a_larger_size_than_its_data(way: dict, colours: bool, tmp_path: Path) -> None:
    for pixels in (NOISE, RAMP):
        content = jpeg(pixels if colours else pixels[..., 0], **way)
        read(tmp_path / "a.jpg", content)
        for size in ((1000, 900), (128, 200), (300, 96)):
            for shrink in (1, 4):
                with pytest.raises(DataError, match=r"a\.jpg cannot be decoded .*its pixels end"):
                    read(tmp_path / "a.jpg", claiming(content, *size), shrink)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_jpeg_that_is_grey_at_its_end_is_whole(way: dict, tmp_path: Path) -> None:
    for pixels in (HALF_GREY, HALF_GREY[..., 0], HALF_GREY * 0 + 128, HALF_GREY[:, :20]):
        for shrink in (1, 2, 8):
            read(tmp_path / "a.jpg", jpeg(np.ascontiguousarray(pixels), **way), shrink)


def test_a_jpeg_that_was_cut_and_given_an_end(tmp_path: Path) -> None:
    content = jpeg(NOISE)
    with pytest.raises(DataError, match="its pixels end before 128x96 are full"):
        read(tmp_path / "a.jpg", content[: len(content) // 2] + b"\xff\xd9")


@pytest.mark.parametrize("mode", MODES)
def test_a_png_of_more_rows_than_its_data(mode: str, tmp_path: Path) -> None:
    whole = (
        Image.fromarray(NOISE[..., 0]).convert(mode)
        if mode != "I;16"
        else (Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257))
    )
    wanted = "RGBA" if mode in ("RGBA", "LA") else "RGB"
    read(tmp_path / "a.png", png(whole), mode=wanted)
    with pytest.raises(DataError, match=r"a\.png cannot be decoded .*its pixels end after 9.? %"):
        read(tmp_path / "a.png", claiming(png(whole), 128, 100), mode=wanted)
    for rows in (1, 40):  # which may be 0, at once or not
        whole.paste(Image.new(whole.mode, (128, rows)), (0, 96 - rows))
        read(tmp_path / "a.png", png(whole), mode=wanted)
    read(tmp_path / "a.png", png(Image.new(whole.mode, (128, 96))), mode=wanted)


@pytest.mark.parametrize("packed", [False, True])
def test_training_stops_at_it(packed: bool, here: Path, capsys: pytest.CaptureFixture) -> None:
    """A header of 5000 x 5000 over the data of 64 x 64, as background and as alpha."""
    data = make_data(here / "data", 2, 2)
    pixels = RNG.integers(0, 256, (64, 64), dtype=np.uint8)
    for name in ("backgrounds/train/0.jpg", "backgrounds/train/1.jpg"):
        (data / name).write_bytes(claiming(jpeg(pixels), 5000, 5000))
    folder = data
    if packed:
        shard.pack(data, folder := here / "packed", 20_000_000)
    run(folder, "--max-steps", 1, status=2)
    assert "its pixels end before 5000x5000 are full" in error_of(capsys)
