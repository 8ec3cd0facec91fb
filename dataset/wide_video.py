"""Video of high dynamic range or a wide gamut, brought to what the rest of the program means by
colours: BT.709's primaries, in the curve of sRGB.

A frame of 8 bits per colour goes through a table, which is made once for a video.
"""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

# As H.264, H.265 and FFmpeg number them (ITU-T H.273).
PQ, HLG = 16, 18
TRANSFERS = {PQ: "PQ", HLG: "HLG"}
# To linear BT.709 from linear light of these primaries (ITU-R BT.2087; SMPTE RP 431-2 and EG 432-1,
# the first with its white brought to D65).
BT2020 = ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187))
P3 = ((1.2249, -0.2249, 0.0), (-0.0420, 1.0420, 0.0), (-0.0197, -0.0786, 1.0983))
GAMUTS = {9: ("BT.2020", BT2020), 11: ("DCI-P3", P3), 12: ("Display P3", P3)}
WHITE_NITS = 203.0  # nits of a white sheet (ITU-R BT.2408): it becomes nearly the white of BT.709
PEAK_NITS = 1000.0  # nits of the brightest light that keeps its difference from what is darker
# Of WHITE_NITS: below it nothing is changed, above it highlights are pressed together.
KNEE = 0.8
TABLE_SIDE = 65  # entries of the table a colour, the most that Pillow takes


def said(transfer: int, primaries: int) -> str:
    """What a video is of, in words; empty where it is as usual."""
    names = [TRANSFERS.get(transfer, ""), GAMUTS.get(primaries, ("",))[0]]
    return ", ".join(name for name in names if name)


def to_bt709(pixels: np.ndarray, transfer: int, primaries: int) -> np.ndarray:
    """pixels: uint8 (H, W, 3), RGB as the video has it. Returns the same, as BT.709 shows it."""
    return np.array(Image.fromarray(pixels).filter(_table(transfer, primaries)))


@lru_cache
def _table(transfer: int, primaries: int) -> ImageFilter.Color3DLUT:
    steps = np.linspace(0, 1, TABLE_SIDE)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")  # red changes first
    values = np.stack([red, green, blue], axis=-1).reshape(-1, 3)
    return ImageFilter.Color3DLUT(
        TABLE_SIDE, converted(values, transfer, primaries).ravel().tolist()
    )


def converted(values: np.ndarray, transfer: int, primaries: int) -> np.ndarray:
    """values: (N, 3), 0..1, of the video's curve and primaries. Returns those of BT.709 in the
    curve of sRGB, 0..1. PQ and HLG (ITU-R BT.2100; HLG for a display of 1000 nits) are pressed
    into the range above KNEE by the extended curve of Reinhard et al. (2002), of the greatest of
    the three, so that hues stay; other curves are taken to be that of sRGB."""
    if transfer == PQ:
        power = values ** (1 / 78.84375)
        light = (power - 0.8359375).clip(0) / (18.8515625 - 18.6875 * power)
        light = _pressed(light ** (1 / 0.1593017578125) * 10_000 / WHITE_NITS)
    elif transfer == HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)
        luminance = scene @ (0.2627, 0.6780, 0.0593)
        light = _pressed(scene * (luminance**0.2)[:, None] * 1000 / WHITE_NITS)
    else:
        light = np.where(values > 0.04045, ((values + 0.055) / 1.055) ** 2.4, values / 12.92)
    if primaries in GAMUTS:
        light = light @ np.array(GAMUTS[primaries][1]).T
    light = light.clip(0, 1)
    return np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light)


def _pressed(light: np.ndarray) -> np.ndarray:
    most = light.max(axis=1, keepdims=True)
    above = (most - KNEE) / (1 - KNEE)
    end = (PEAK_NITS / WHITE_NITS - KNEE) / (1 - KNEE)
    high = KNEE + (1 - KNEE) * above * (1 + above / end**2) / (1 + above)
    return np.where(most > KNEE, light * high / np.maximum(most, KNEE), light).clip(0, 1)
