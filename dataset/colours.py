"""What numbers in a picture mean: colours of another profile than sRGB become those of sRGB.

Networks, training data, backgrounds and outputs share one colour space so. A picture without a
profile is taken to be of sRGB, as browsers do; an alpha is no colour, and is never converted.
"""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

GREY_MODES = ("1", "L", "I;16", "I;16B", "I", "F")  # Pillow's modes
# Of 255: a profile that moves no colour further is sRGB, whatever it is called.
MAX_SRGB_DIFFERENCE = 3


def conversion_of(picture: Image.Image) -> ImageCms.ImageCmsTransform | None:
    """How the colours of an opened picture become those of sRGB, by its ICC profile: relative
    colorimetric, with black point compensation, by Little CMS. None where they are of sRGB, or
    there is no profile, or a damaged one, or one for pixels of another kind."""
    profile = picture.info.get("icc_profile")
    return _conversion(profile, _kind(picture.mode)) if profile else None


def _kind(mode: str) -> str:
    """Of pixels, as Little CMS gets them."""
    return "L" if mode in (*GREY_MODES, "LA") else "CMYK" if mode == "CMYK" else "RGB"


@lru_cache(maxsize=64)  # the pictures of a data set share few
def _conversion(profile: bytes, kind: str) -> ImageCms.ImageCmsTransform | None:
    if profile[16:20] != {"L": b"GRAY", "RGB": b"RGB ", "CMYK": b"CMYK"}[kind]:
        return None
    try:
        conversion = ImageCms.buildTransform(
            ImageCms.getOpenProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            kind,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOCACHE,  # threads share it
        )
    except (ImageCms.PyCMSError, OSError):
        return None
    if kind == "CMYK":
        return conversion
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    some = np.stack(np.meshgrid(steps, steps, steps), axis=-1) if kind == "RGB" else steps[:, None]
    some = np.broadcast_to(some.reshape(1, -1, some.shape[-1]), (1, some.size // some.shape[-1], 3))
    moved = to_srgb(some, conversion).astype(int) - some
    return conversion if np.abs(moved).max() > MAX_SRGB_DIFFERENCE else None


def to_srgb(pixels: np.ndarray, conversion: ImageCms.ImageCmsTransform | None) -> np.ndarray:
    """pixels: uint8 (h, w, channels): of RGB, or grey three times, and alpha behind them, which
    stays; or of CMYK. Returns (h, w, 3), or 4 with alpha; without a conversion `pixels` itself."""
    if conversion is None:
        return pixels
    kind, alpha = conversion.input_mode, pixels[..., 3:]
    if kind == "CMYK":
        colours, alpha = pixels, pixels[..., 4:]
    else:
        colours = pixels[..., 0] if kind == "L" else pixels[..., :3]
    size = pixels.shape[1], pixels.shape[0]
    picture = Image.frombuffer(kind, size, np.ascontiguousarray(colours), "raw", kind, 0, 1)
    converted = np.array(ImageCms.applyTransform(picture, conversion))
    return np.concatenate([converted, alpha], axis=2) if alpha.size else converted
