"""Knows from EXIF how a camera was held: where pixels of the upright picture are stored."""

from PIL import Image

# EXIF orientation → where the point (x, y) of the upright picture lies in the stored one: two rows
# of factors for x, y, the stored width and the stored height.
ORIENTATIONS = {
    2: ((-1, 0, 1, 0), (0, 1, 0, 0)),
    3: ((-1, 0, 1, 0), (0, -1, 0, 1)),
    4: ((1, 0, 0, 0), (0, -1, 0, 1)),
    5: ((0, 1, 0, 0), (1, 0, 0, 0)),
    6: ((0, 1, 0, 0), (-1, 0, 0, 1)),
    7: ((0, -1, 1, 0), (-1, 0, 0, 1)),
    8: ((0, -1, 1, 0), (1, 0, 0, 0)),
}


def orientation_of(picture: Image.Image) -> int:
    """How a camera was held, as EXIF counts it: 1, or a key of ORIENTATIONS."""
    if "exif" not in picture.info:
        return 1
    try:
        found = picture.getexif().get(0x0112, 1)
    except Exception:  # Pillow's errors are of many kinds where EXIF is damaged; pixels are not
        return 1
    return found if found in ORIENTATIONS else 1


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """(height, width) of a picture as it is shown."""
    width, height = picture.size
    return (width, height) if orientation_of(picture) >= 5 else (height, width)
