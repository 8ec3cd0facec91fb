"""Knows from EXIF how a camera was held: where pixels of the upright picture are stored."""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageOps

ORIENTATION_TAG = 0x0112
TURNED_ORIENTATIONS = range(2, 9)  # of pictures that are not stored upright


def orientation_of(picture: Image.Image) -> int:
    """How a camera was held, as EXIF counts it: 1, or one of TURNED_ORIENTATIONS."""
    if "exif" not in picture.info:
        return 1
    try:
        found = picture.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # Pillow's errors are of many kinds where EXIF is damaged; pixels are not
        return 1
    return found if found in TURNED_ORIENTATIONS else 1


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """(height, width) of a picture as it is shown."""
    width, height = picture.size
    return (width, height) if orientation_of(picture) >= 5 else (height, width)


def turn_upright(stored: Image.Image, orientation: int) -> Image.Image:
    """A picture's pixels as they are shown. orientation: as orientation_of gives it."""
    stored.getexif()[ORIENTATION_TAG] = orientation
    return ImageOps.exif_transpose(stored)


@lru_cache
def upright_to_stored(orientation: int, size: tuple[int, int]) -> np.ndarray:
    """The matrix (2, 3) from the upright picture's coordinates to the stored one's, (x, y) in
    pixels. size: (width, height) of the stored picture.

    A crop is warped out of the stored pixels, so that they need not be turned, nor all decoded.
    """
    # A picture whose four pixels say which corner of the stored one they are shows where each goes.
    upright = turn_upright(Image.frombytes("L", (2, 2), bytes(range(4))), orientation)
    corners = np.asarray(upright).reshape(4, 1) // (1, 2) % 2  # (x, y) in the stored one
    return np.column_stack(
        [corners[1] - corners[0], corners[2] - corners[0], corners[0] * size]
    ).astype(np.float64)
