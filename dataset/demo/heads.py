"""Heads of the built-in demo data set: faces, hair, beards, hats and glasses.

It never reads or writes a file: every picture is a function of the generator it is handed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from dataset.demo.brush import (
    Canvas,
    Cloth,
    cloth,
    colour,
    curve,
    ellipse,
    frame,
    hairs,
    pick,
    tube,
    wear,
)

# A body is measured in heads: the top of the skull is y = 0, the chin 1, the feet about 7.3.
SKINS: tuple = ((0.96, 0.80, 0.69), (0.91, 0.72, 0.58), (0.80, 0.58, 0.43), (0.62, 0.42, 0.29))
SKINS += ((0.46, 0.30, 0.21), (0.33, 0.21, 0.15), (0.87, 0.66, 0.50))
HAIRS: tuple = ((0.08, 0.06, 0.05), (0.17, 0.10, 0.06), (0.33, 0.20, 0.11), (0.55, 0.36, 0.18))
HAIRS += ((0.78, 0.62, 0.38), (0.60, 0.25, 0.12), (0.68, 0.67, 0.66), (0.88, 0.80, 0.62))
# hair style: how far it stands off the skull, length, wave, curl
STYLES = {
    "buzz": (0.03, 0.05, 0.0, 0.2),
    "short": (0.07, 0.16, 0.0, 0.5),
    "spiky": (0.08, 0.30, 0.0, 0.2),
    "tousled": (0.12, 0.30, 0.0, 1.6),
    "afro": (0.30, 0.30, 0.0, 4.0),
    "bob": (0.10, 0.75, 0.02, 0.4),
    "long": (0.10, 1.60, 0.03, 0.4),
    "wavy": (0.14, 1.40, 0.09, 0.8),
    "curls": (0.20, 1.10, 0.08, 3.0),
    "bun": (0.05, 0.30, 0.0, 0.4),
    "ponytail": (0.05, 0.30, 0.0, 0.4),
    "bald": (0.0, 0.0, 0.0, 0.0),
}


@dataclass
class Person:
    """One person's place, proportions, colours and clothes."""

    unit: float  # the head's height in canvas pixels
    body: Callable  # from heads to canvas pixels
    head: Callable  # the same, for what turns with the head
    skin: np.ndarray
    hair: np.ndarray
    style: str
    face: float  # half the head's width, in heads
    shoulder: float
    waist: float
    hip: float
    limb: float  # how thick arms and legs are
    top: Cloth
    bottom: Cloth
    sleeve: str
    fuzz: float  # how hairy the top is, 0 to 1


def random_person(rng: Generator, at, unit: float, turn: float) -> Person:
    """A person nobody has met: the skull's top is at point `at`, the body leans about `turn`."""
    lean = rng.normal(0, turn)
    body = frame(at, unit, lean)
    hair = np.array(pick(rng, *HAIRS), np.float32) * rng.uniform(0.8, 1.2)
    if rng.random() < 0.07:
        hair = colour(rng, sat=(0.4, 0.8), val=(0.5, 0.9))
    skin = np.array(pick(rng, *SKINS), np.float32) * rng.uniform(0.9, 1.02, 3)
    broad = rng.uniform(0, 1)
    top = cloth(rng, unit)
    other = cloth(rng, unit, ("plain", "plain", "plain", "tweed", "stripes", "checks", "print"))
    return Person(
        unit=unit,
        body=body,
        head=frame(body((0, 1.15)), unit * 1.1, lean + rng.normal(0, 0.09), pivot=(0, 1.0)),
        skin=skin.astype(np.float32),
        hair=hair.astype(np.float32),
        style=pick(rng, *STYLES),
        face=rng.uniform(0.345, 0.405),
        shoulder=0.80 + 0.25 * broad,
        waist=rng.uniform(0.5, 0.62) + 0.18 * broad,
        hip=rng.uniform(0.6, 0.78),
        limb=rng.uniform(0.85, 1.15) + 0.12 * broad,
        top=top,
        bottom=top if rng.random() < 0.15 else other,
        sleeve=pick(rng, "long", "long", "long", "short", "short", "none"),
        fuzz=pick(rng, 0.0, 0.0, 0.0, 0.15, 0.3, 1.0),
    )


def face(canvas: Canvas, look: Person) -> None:
    """The head without hair: skull, ears, eyes, nose, mouth."""
    rng = canvas.rng
    fw, turn = look.face, rng.uniform(-0.1, 0.1)
    skin, dark = look.skin, look.skin * 0.62
    ear = pick(rng, 0.9, 1.0)
    for s in (-1, 1):
        lobe = ellipse(s * fw * 0.98 - turn * 0.4, 0.56, 0.07 * ear, 0.13)
        canvas.paint(look.head(lobe), skin * 0.88, relief=0.4)
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    y = 0.5 - 0.5 * np.cos(t)
    jaw = 1 - rng.uniform(0.1, 0.26) * np.clip(y - 0.35, 0, 1) ** 1.3 / 0.5
    skull = np.stack([fw * np.sign(np.sin(t)) * np.abs(np.sin(t)) ** 0.85 * jaw, y], 1)
    canvas.paint(look.head(skull), skin, relief=0.42)
    blush = skin * (1.02, 0.8, 0.78)
    for s in (-1, 1):
        cheek = ellipse(turn + s * fw * 0.55, 0.68, 0.1, 0.08)
        canvas.paint(look.head(cheek), blush, soft=look.unit * 0.04, opacity=0.5, atop=True)
        socket = ellipse(turn + s * fw * 0.44, 0.5, 0.1, 0.06)
        canvas.shade(look.head(socket), 0.82, look.unit * 0.03)
    wide, open_ = rng.uniform(0.062, 0.08), rng.uniform(0.022, 0.042)
    iris = colour(rng, hue=(0.05, 0.6), sat=(0.3, 0.7), val=(0.15, 0.6))
    gaze = rng.normal(0, 0.012)
    brow_up, brow_w = rng.uniform(0.07, 0.1), max(1, int(look.unit * rng.uniform(0.01, 0.022)))
    for s in (-1, 1):
        x = turn * 1.1 + s * fw * 0.44
        white = [(x - wide, 0.505), (x, 0.505 - open_), (x + wide, 0.505), (x, 0.505 + open_ * 0.8)]
        canvas.paint(look.head(curve(white)), (0.93, 0.92, 0.9), soft=0.6)
        canvas.paint(look.head(ellipse(x + gaze, 0.503, 0.032, open_ * 1.05)), iris, soft=0.6)
        canvas.paint(
            look.head(ellipse(x + gaze, 0.503, 0.015, 0.015)), (0.03, 0.03, 0.03), soft=0.4
        )
        canvas.paint(look.head(ellipse(x + gaze + 0.01, 0.49, 0.007, 0.007)), (1, 1, 1), soft=0.3)
        lid = curve(white[:3], closed=False)
        brow = [
            (x - s * wide, 0.5 - brow_up),
            (x, 0.48 - brow_up),
            (x + s * wide * 1.4, 0.51 - brow_up),
        ]
        canvas.flat(
            [look.head(lid)],
            dark * 0.5,
            0.9,
            width=max(1, int(look.unit * 0.012)),
            soft=0.5,
            atop=True,
        )
        tone = look.hair * 0.8 if look.style != "bald" else dark * 0.5
        canvas.flat(
            [look.head(curve(brow, closed=False))], tone, 0.8, width=brow_w, soft=0.8, atop=True
        )
    nose = [(turn * 1.3 + 0.02, 0.52), (turn * 1.7 + 0.045, 0.68), (turn * 1.5, 0.72)]
    canvas.flat(
        [look.head(curve(nose, closed=False))],
        dark,
        0.55,
        width=max(1, int(look.unit * 0.02)),
        soft=1.2,
        atop=True,
    )
    canvas.paint(
        look.head(ellipse(turn * 1.6 - 0.01, 0.66, 0.03, 0.05)),
        skin * 1.2,
        soft=3,
        opacity=0.5,
        atop=True,
    )
    mouth_w, smile = rng.uniform(0.1, 0.15), rng.uniform(-0.006, 0.035)
    lips = skin * (0.86, 0.55, 0.55) * rng.uniform(0.85, 1.1)
    x = turn * 1.3
    corners = (x - mouth_w, 0.815 - smile), (x + mouth_w, 0.815 - smile)
    upper = [corners[0], (x - 0.03, 0.792), (x, 0.798), (x + 0.03, 0.792), corners[1], (x, 0.825)]
    lower = [corners[0], (x, 0.818), corners[1], (x, 0.862 + smile / 2)]
    canvas.paint(look.head(curve(lower)), lips * 1.08, soft=0.8, atop=True)
    canvas.paint(look.head(curve(upper)), lips * 0.88, soft=0.8, atop=True)
    if smile > 0.015:
        teeth = [corners[0], (x, 0.812), corners[1], (x, 0.838)]
        canvas.paint(look.head(curve(teeth)), (0.95, 0.93, 0.9), soft=0.6, atop=True)
    canvas.shade(look.head(ellipse(x, 0.895, 0.08, 0.02)), 0.85, look.unit * 0.015)


def bezier(a, b, c, k: int = 10) -> np.ndarray:
    """Quadratic curves [n, k, 2] from a over b to c, each [n, 2]."""
    t = np.linspace(0, 1, k)[None, :, None]
    a, b, c = (np.asarray(p)[:, None] for p in (a, b, c))
    return a * (1 - t) ** 2 + b * 2 * t * (1 - t) + c * t**2


def drape(rng: Generator, look: Person, n: int, q=None) -> np.ndarray:
    """`n` hairs [n, 14, 2] that fall from the crown past the face; q: place from side to side."""
    stand, length, wave, curl = STYLES[look.style]
    q = rng.uniform(-1.08, 1.08, n) if q is None else q
    q = q[:, None]
    reach = (0.5 + length) * rng.uniform(0.75, 1.06, (n, 1))
    t = np.linspace(0, 1, 14)[None]
    y = t * reach
    round_ = 0.2 + 0.8 * np.sqrt(1 - (1 - np.clip(y / 0.55, 0, 1)) ** 2)
    flow = np.sin(t * rng.uniform(5, 9, (n, 1)) * (1 + curl) + rng.uniform(0, 6, (n, 1)))
    x = q * (look.face + stand) * round_ + q * 0.12 * y + flow * t * (wave + 0.015)
    x += rng.normal(0, 0.03, (n, 1)) * y
    return np.stack([x, y - stand + 0.1 * q**2], 2)


def back_hair(canvas: Canvas, look: Person) -> None:
    """What hangs behind the neck: long hair, a bun or a tail."""
    rng = canvas.rng
    _stand, length, *_ = STYLES[look.style]
    if look.style in ("bun", "ponytail"):
        at, size = (rng.uniform(-0.12, 0.12), -0.08), rng.uniform(0.17, 0.26)
        if look.style == "ponytail":
            side = pick(rng, -1, 1)
            tail = [(side * 0.2, 0.1), (side * 0.55, 0.25), (side * 0.6, 0.9), (side * 0.5, 1.5)]
            canvas.paint(
                look.head(tube(tail, [0.1, 0.14, 0.13, 0.04])), look.hair * 0.8, relief=0.4
            )
            n = 400
            off = rng.normal(0, 0.07, (n, 4, 2)).cumsum(1) * 0.6
            path = (np.array(tail) + off)[:, :, None]
            path = bezier(path[:, 0, 0], path[:, 1, 0], path[:, 2, 0] + (0, 0.5))
            canvas.strands(look.head(path), look.hair, 0.3, (0.3, 0.9))
        else:
            blob = look.head(ellipse(*at, size, size * 0.9))
            canvas.paint(blob, look.hair * 0.9, relief=0.5)
            hairs(canvas, blob, look.unit * 0.12, 260, look.hair)
    if length > 0.5:
        rim = drape(rng, look, 2, np.array([-0.9, 0.9])) * (1, 0.92)
        mass = np.concatenate([rim[0], rim[1][::-1]])
        canvas.paint(look.head(curve(mass[::3])), look.hair * 0.6, relief=0.3, soft=2.0)
        canvas.strands(look.head(drape(rng, look, 1100)), look.hair * 0.85, 0.3, (0.35, 0.95))


def front_hair(canvas: Canvas, look: Person) -> None:
    """The cap of hair over the skull, its fringe and the loose hairs around it."""
    rng = canvas.rng
    stand, length, wave, curl = STYLES[look.style]
    fw = look.face
    part = rng.uniform(-0.2, 0.2)
    line = rng.uniform(0.16, 0.26)
    t = np.linspace(0, np.pi, 13)
    low = 0.5 if length > 0.2 else 0.4
    puff = stand * 0.7 * np.sin(t) ** 0.6
    top = np.stack([(fw + puff) * np.cos(t), low - (low + stand) * np.sin(t) ** 0.9], 1)
    inner = [(-fw * 0.96, low), (-fw * 0.84, line + 0.12), (-fw * 0.4, line), (part, line - 0.03)]
    inner += [(fw * 0.4, line), (fw * 0.84, line + 0.12), (fw * 0.96, low)]
    cap = look.head(np.concatenate([top, inner]))
    canvas.paint(cap, look.hair * 0.75, relief=0.5, soft=1.5 + look.unit * 0.008)
    n = 900
    if length > 0.5 or look.style in ("bun", "ponytail"):
        s = np.where(rng.random(n) < 0.5 + part, -1.0, 1.0)
        u = rng.uniform(0, 1, n)
        root = np.stack([part + s * 0.02, line - 0.05 - u * (line + stand - 0.06)], 1)
        ctrl = np.stack([s * fw * rng.uniform(0.75, 1.05, n), line - 0.12 - u * 0.22], 1)
        end_y = 0.5 + (length * 0.75 * rng.uniform(0.2, 1, n) if length > 0.5 else 0)
        swing = rng.normal(0.03, 0.05, n) + stand * rng.uniform(0.3, 1.1, n)
        end = np.stack([s * (fw * 0.95 + swing), end_y + 0 * u], 1)
        paths = bezier(root, ctrl, end)
        ripple = np.sin(np.linspace(0, 9 + 3 * curl, 10)[None] + rng.uniform(0, 6, (n, 1)))
        paths[..., 0] += ripple * wave * np.linspace(0, 1, 10)
        canvas.strands(look.head(paths), look.hair, 0.28, (0.4, 0.95))
    else:
        a = rng.uniform(-np.pi * 1.06, np.pi * 0.06, n)
        depth = rng.uniform(0.25, 1.0, n) ** 0.6
        root = np.stack([fw * np.cos(a) * depth, low + (low + 0.0) * np.sin(a) * depth], 1)
        root = root[(root[:, 1] < line + 0.02) | (np.abs(root[:, 0]) > fw * 0.85)]
        radial_strands(canvas, look, root, length, curl)
    if rng.random() < 0.4 and length > 0.1 and look.style != "afro":
        x = rng.uniform(-fw * 0.85, fw * 0.85, 350)
        lean = rng.normal(0, 0.15)
        end = np.stack([x * 1.05 + lean, 0.34 + rng.normal(0, 0.05, 350) + x * lean], 1)
        root = np.stack([x * 0.5, np.full(350, 0.02)], 1)
        mid = np.stack([x + lean * 0.3, np.full(350, 0.1)], 1)
        canvas.strands(look.head(bezier(root, mid, end)), look.hair * 0.95, 0.25, (0.5, 1.0))
    fly = rng.uniform(-np.pi, 0, 70)
    at = np.stack([(fw + stand) * np.cos(fly) * 0.95, low + (low + stand) * np.sin(fly)], 1)
    radial_strands(canvas, look, at, 0.1 + min(length, 0.5) * 0.3, curl + 1, opacity=(0.15, 0.5))


def radial_strands(
    canvas: Canvas, look: Person, root, length, curl, *, middle=0.45, opacity=(0.4, 1.0)
) -> None:
    """Hairs that stand away from the skull's middle and curl or droop as they go."""
    rng = canvas.rng
    n, k = len(root), 10
    out = np.arctan2(root[:, 1] - middle, root[:, 0]) + rng.normal(0, 0.45, n)
    t = np.linspace(0, 1, k)[None]
    bend = rng.normal(0, 0.5 + curl, (n, 1)) * t * 1.2
    angle = out[:, None] + bend + np.sin(t * 9 + rng.uniform(0, 6, (n, 1))) * 0.25 * curl
    step = (length * rng.uniform(0.4, 1.25, (n, 1))) / k
    path = np.stack([np.cos(angle) * step, np.sin(angle) * step], 2).cumsum(1) + root[:, None]
    canvas.strands(look.head(path), look.hair, 0.3, opacity)


def beard(canvas: Canvas, look: Person) -> None:
    """A beard and moustache of short hairs round the mouth."""
    rng = canvas.rng
    fw, length = look.face, pick(rng, 0.02, 0.06, 0.18)
    side = [(fw * 0.97, 0.55), (fw * 0.88, 0.78), (fw * 0.55, 0.99), (0, 1.03 + length / 2)]
    inner = [(0.0, 0.9), (fw * 0.45, 0.88), (fw * 0.5, 0.76), (fw * 0.82, 0.68)]
    outline = curve(
        side + [(-x, y) for x, y in side[2::-1]] + [(-x, y) for x, y in inner[:0:-1]] + inner
    )
    canvas.paint(look.head(outline), look.hair * 0.8, soft=look.unit * 0.012, opacity=0.85)
    pick_at = outline[rng.integers(len(outline), size=700)] * rng.uniform(0.85, 1.0, (700, 1))
    root = np.where(pick_at[:, 1:] < 0.55, pick_at + (0, 0.2), pick_at)
    root = root[(root[:, 1] > 0.88) | (np.abs(root[:, 0]) > fw * 0.62)]
    x = rng.uniform(-0.17, 0.17, 160)
    lip = np.stack([x, 0.765 + np.abs(x) * 0.15], 1)
    for at, size in ((root, length + 0.03), (lip, 0.05)):
        radial_strands(canvas, look, at, size, 0.0, middle=-0.3, opacity=(0.4, 0.9))


def hat(canvas: Canvas, look: Person) -> None:
    """A woollen hat, a peaked cap or a brimmed hat."""
    rng = canvas.rng
    fw, kind = look.face, pick(rng, "wool", "peak", "brim")
    felt = cloth(
        rng, look.unit, ("knit",) if kind == "wool" else ("plain", "plain", "tweed", "checks")
    )
    high = rng.uniform(0.1, 0.3)
    dome = [(-fw * 1.1, 0.3), (-fw * 1.08, 0.02), (-fw * 0.6, -high), (fw * 0.6, -high)]
    dome += [(fw * 1.08, 0.02), (fw * 1.1, 0.3), (0, 0.24)]
    outline = look.head(curve(dome))
    wear(canvas, outline, felt, look.unit)
    if kind == "wool":
        hairs(canvas, outline, look.unit * 0.06, 400, felt.one)
        band = look.head(tube([(-fw * 1.08, 0.29), (0, 0.22), (fw * 1.08, 0.29)], [0.09] * 3))
        wear(canvas, band, felt.one * 0.85, look.unit)
        pom = look.head(ellipse(0, -high - 0.08, 0.14, 0.13))
        canvas.paint(pom, felt.two, relief=0.4, soft=2)
        hairs(canvas, pom, look.unit * 0.12, 500, felt.two)
    elif kind == "peak":
        s = pick(rng, -1, 1)
        bill = [(-s * fw * 0.8, 0.27), (s * fw * 1.0, 0.24), (s * fw * 1.7, 0.36), (s * 0.1, 0.36)]
        canvas.paint(look.head(curve(bill)), felt.one * 0.7, relief=0.4)
    else:
        canvas.paint(look.head(ellipse(0, 0.26, fw * 2.0, 0.1)), felt.one * 0.85, relief=0.4)
        ribbon = look.head(tube([(-fw * 1.08, 0.16), (0, 0.2), (fw * 1.08, 0.16)], [0.05] * 3))
        canvas.paint(ribbon, felt.two)


def glasses(canvas: Canvas, look: Person) -> None:
    """Clear or dark glasses."""
    rng = canvas.rng
    fw, rim = look.face, colour(rng, sat=(0, 0.5), val=(0.05, 0.5))
    tint, dark = colour(rng, val=(0.05, 0.3)), pick(rng, 0.12, 0.12, 0.9)
    rx, ry = rng.uniform(0.12, 0.15), rng.uniform(0.09, 0.13)
    lines: list = [
        [(-0.05, 0.5), (0.05, 0.5)],
        [(-fw, 0.49), (-fw * 0.7, 0.5)],
        [(fw, 0.49), (fw * 0.7, 0.5)],
    ]
    for s in (-1, 1):
        lens = ellipse(s * fw * 0.46, 0.52, rx, ry, 24)
        canvas.paint(look.head(lens), tint, opacity=dark, atop=True)
        lines.append(np.concatenate([lens, lens[:1]]))
    canvas.flat([look.head(x) for x in lines], rim, width=max(2, int(look.unit * 0.022)), soft=0.5)
