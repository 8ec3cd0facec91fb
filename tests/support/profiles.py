"""ICC profiles for tests, written by the specification (ICC.1:2001-04, version 2.4)."""

import itertools
import struct

import numpy as np

D50 = (0.9642, 1.0, 0.8249)
# Columns: the primaries' XYZ, adapted to D50, as profiles have them.
SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7139))
DISPLAY_P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
ADOBE_RGB = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
SRGB_CURVE = [
    ((v / 1023 + 0.055) / 1.055) ** 2.4 if v / 1023 > 0.04045 else v / 1023 / 12.92
    for v in range(1024)
]


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_fixed, values))


def _curve(gamma: float | list[float]) -> bytes:
    if isinstance(gamma, list):
        values = [round(value * 65535) for value in gamma]
        return b"curv\0\0\0\0" + struct.pack(f">I{len(values)}H", len(values), *values)
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def _profile(space: bytes, connection: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    name = b"of a test\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + bytes(78),
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": _xyz(D50),
        **tags,
    }
    table, body = struct.pack(">I", len(tags)), b""
    for tag, data in tags.items():
        table += tag + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(
        ">I4sI4s4s4s12s4s40s",
        128 + len(table) + len(body),
        b"",
        0x02400000,
        kind,
        space,
        connection,
        bytes(12),
        b"acsp",
        bytes(28) + b"".join(map(_fixed, D50)),
    )
    return head.ljust(128, b"\0") + table + body


def rgb_profile(primaries: tuple, gamma: float | list[float]) -> bytes:
    tags = {c + b"XYZ": _xyz(xyz) for c, xyz in zip((b"r", b"g", b"b"), primaries, strict=True)}
    tags |= {c + b"TRC": _curve(gamma) for c in (b"r", b"g", b"b")}
    return _profile(b"RGB ", b"XYZ ", b"mntr", tags)


def grey_profile(gamma: float) -> bytes:
    return _profile(b"GRAY", b"XYZ ", b"mntr", {b"kTRC": _curve(gamma)})


def cmyk_profile() -> bytes:
    """Of inks that are Lab numbers at the corners of the cube, and straight between them."""
    inks = {0: (62, -31, -48), 1: (48, 74, -4), 2: (89, -5, 93)}
    corners = []
    for amounts in itertools.product((0, 1), repeat=4):
        lab = np.array([100.0, 0.0, 0.0])
        for ink, amount in enumerate(amounts[:3]):
            if amount:
                lab = np.array([lab[0] * inks[ink][0] / 100, *(lab[1:] + inks[ink][1:]) * 0.8])
        if amounts[3]:
            lab = np.array([lab[0] * 0.1, *lab[1:] * 0.1])
        corners.append([round(lab[0] * 2.55), round(lab[1] + 128), round(lab[2] + 128)])
    ramp = bytes(range(256))
    lut = b"mft1\0\0\0\0" + struct.pack(">BBBB", 4, 3, 2, 0)
    lut += b"".join(map(_fixed, (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    lut += ramp * 4 + bytes(np.clip(corners, 0, 255).astype(np.uint8)) + ramp * 3
    return _profile(b"CMYK", b"Lab ", b"prtr", {b"A2B0": lut, b"A2B1": lut})
