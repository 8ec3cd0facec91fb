"""Objects of the built-in demo data set: plants, chairs, cars, animals and the like.

It never reads or writes a file: every picture is a function of the generator it is handed.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from numpy.random import Generator
from PIL import Image

from dataset.demo.brush import (
    Canvas,
    cloth,
    colour,
    curve,
    ellipse,
    frame,
    hairs,
    pick,
    rect,
    tube,
)


def leaves(rng: Generator, n: int, length) -> np.ndarray:
    """`n` leaf outlines [n, 9, 2] about the origin, turned at random."""
    t = np.linspace(0, 2 * np.pi, 9, endpoint=False)
    shape = np.stack([0.5 * np.cos(t), np.sin(t) * np.abs(np.sin(t)) * rng.uniform(0.12, 0.3)], 1)
    turn = rng.uniform(0, 2 * np.pi, n)
    matrix = np.stack([np.cos(turn), np.sin(turn), -np.sin(turn), np.cos(turn)], 1)
    size = np.asarray(length) * rng.uniform(0.6, 1.3, n)
    return (shape @ matrix.reshape(n, 2, 2)) * size[:, None, None]


def foliage(canvas: Canvas, centre, spread, n: int, length: float, *, tone, soft=0.0) -> None:
    """A cloud of leaves, dark ones first, bright ones towards the light."""
    rng = canvas.rng
    at = rng.normal(0, 0.5, (n, 2)).clip(-1.1, 1.1) * spread
    shade = np.sort(rng.uniform(0.35, 1.35, n))
    at += shade[:, None] * canvas.light * np.asarray(spread) * 0.3
    tones = tone * shade[:, None] * (1 + 0.12 * rng.standard_normal((n, 3)))
    canvas.flat(leaves(rng, n, length) + (at + centre)[:, None], tones, soft=soft)


def paint_plant(canvas: Canvas, rng: Generator, f, size: float) -> None:
    green = colour(rng, hue=(0.2, 0.42), sat=(0.4, 0.8), val=(0.35, 0.7))
    pot = cloth(rng, size * 0.5, ("plain", "plain", "stripes", "dots"))
    n = int(rng.integers(7, 16))
    tips = np.stack([rng.normal(0, 0.26, n), rng.uniform(-1.0, -0.5, n)], 1)
    for x, y in tips:
        stem = curve([(0, -0.25), (x * 0.3, y * 0.7), (x, y)], closed=False)
        canvas.flat([f(stem)], green * 0.7, width=max(2, int(size * 0.012)))
    if rng.random() < 0.5:
        foliage(canvas, f((0, -0.68)), (size * 0.3, size * 0.3), 260, size * 0.12, tone=green)
    else:
        for x, y in tips:
            wide = rng.uniform(0.03, 0.07)
            blade = [(0, -0.25), (x * 0.3 - wide, y * 0.7), (x, y), (x * 0.3 + wide, y * 0.7)]
            canvas.paint(f(curve(blade)), green * rng.uniform(0.7, 1.3), relief=0.6)
    canvas.paint(f([(-0.16, -0.3), (0.16, -0.3), (0.11, 0), (-0.11, 0)]), pot, relief=0.7)


def paint_chair(canvas: Canvas, rng: Generator, f, size: float) -> None:
    wood = colour(rng, hue=(0.03, 0.12), sat=(0.2, 0.7), val=(0.2, 0.8))
    seat = cloth(rng, size * 0.5)
    for x0, x1, y in ((-0.2, -0.22, -0.1), (0.3, 0.32, -0.1), (-0.3, -0.32, 0), (0.2, 0.22, 0)):
        canvas.paint(f(tube([(x0, -0.5), (x1, y)], [0.022, 0.016])), wood, relief=0.6)
    for x in (-0.22, 0.26):
        canvas.paint(f(tube([(x, -0.5), (x * 1.1, -1.0)], [0.024, 0.02])), wood, relief=0.6)
    if rng.random() < 0.5:
        canvas.paint(f(curve(rect(-0.22, -0.98, 0.27, -0.6))), seat, relief=0.5, folds=0.06)
    else:
        for y in np.linspace(-0.93, -0.62, int(rng.integers(2, 5))):
            canvas.paint(f(rect(-0.23, y - 0.03, 0.28, y + 0.03)), wood * 0.9, relief=0.4)
    top = [(-0.24, -0.56), (0.3, -0.56), (0.24, -0.44), (-0.33, -0.44)]
    canvas.paint(f(top), seat, relief=0.4)
    canvas.paint(f([(-0.33, -0.44), (0.24, -0.44), (0.24, -0.4), (-0.33, -0.4)]), wood * 0.7)


def paint_lamp(canvas: Canvas, rng: Generator, f, size: float) -> None:
    metal = colour(rng, sat=(0.0, 0.3), val=(0.15, 0.8))
    shade = colour(rng, hue=(0.05, 0.16), sat=(0.1, 0.6), val=(0.75, 1.0))
    foot = rng.uniform(0.1, 0.18)
    canvas.paint(f(ellipse(0, -0.025, foot, 0.03)), metal * 0.8, relief=0.5)
    canvas.paint(f(tube([(0, -0.03), (0, -0.8)], [0.018, 0.014])), metal, relief=0.6)
    top, low = rng.uniform(0.08, 0.16), rng.uniform(0.18, 0.28)
    canvas.paint(f([(-top, -1), (top, -1), (low, -0.68), (-low, -0.68)]), shade, relief=0.35)
    if rng.random() < 0.5:
        canvas.shade(f(ellipse(0, -0.8, 0.3, 0.3)), (1.4, 1.3, 1.1), size * 0.12)


def paint_ball(canvas: Canvas, rng: Generator, f, size: float) -> None:
    skin = cloth(rng, size * 1.2, ("plain", "stripes", "checks", "dots", "print"))
    canvas.paint(f(ellipse(0, -0.5, 0.5, 0.5, 48)), skin, relief=0.9)
    spot = np.array([0, -0.5]) + canvas.light * 0.24
    canvas.paint(f(ellipse(spot[0], spot[1], 0.1, 0.08)), (1, 1, 1), soft=size * 0.05, opacity=0.5)


def paint_car(canvas: Canvas, rng: Generator, f, size: float) -> None:
    body = colour(rng, sat=(0.0, 0.9), val=(0.15, 0.95))
    roof = rng.uniform(0.25, 0.45)
    shell = [(-1.05, -0.25), (-1.0, -0.5), (-0.6, -0.6), (-roof - 0.05, -0.97), (roof, -0.98)]
    shell += [(roof + 0.4, -0.6), (1.0, -0.5), (1.08, -0.2), (0.9, -0.13), (-0.95, -0.13)]
    canvas.paint(f(curve(shell)), body, relief=0.7)
    glass = colour(rng, hue=(0.5, 0.65), sat=(0.1, 0.4), val=(0.15, 0.6))
    left = [(-0.48, -0.6), (-roof, -0.9), (-0.03, -0.91), (-0.03, -0.6)]
    right = [(0.03, -0.6), (0.03, -0.91), (roof - 0.03, -0.91), (roof + 0.26, -0.6)]
    for pane in (left, right):
        canvas.paint(f(pane), glass, relief=0.5)
    canvas.flat(
        [f([(0, -0.92), (0, -0.2)]), f([(-0.9, -0.42), (0.95, -0.42)])], body * 0.6, width=2
    )
    for x in (-0.62, 0.64):
        canvas.paint(f(ellipse(x, -0.2, 0.22, 0.2)), (0.06, 0.06, 0.07), relief=0.5)
        canvas.paint(f(ellipse(x, -0.2, 0.11, 0.1)), (0.6, 0.6, 0.63), relief=0.8)
    canvas.paint(f(ellipse(1.0, -0.42, 0.05, 0.06)), (1, 0.95, 0.75))
    canvas.paint(f(ellipse(-1.0, -0.42, 0.04, 0.06)), (0.8, 0.1, 0.1))


def paint_bottle(canvas: Canvas, rng: Generator, f, size: float) -> None:
    glass = colour(rng, sat=(0.1, 0.8), val=(0.2, 0.8))
    wide, neck = rng.uniform(0.13, 0.2), rng.uniform(0.04, 0.07)
    half = [(wide, 0), (wide, -0.5), (wide * 0.8, -0.64), (neck, -0.76), (neck, -0.96)]
    outline = half + [(-x, y) for x, y in reversed(half)]
    canvas.paint(f(outline), glass, relief=0.8, opacity=rng.uniform(0.7, 1.0))
    label = cloth(rng, size * 0.4, ("plain", "stripes", "print"))
    canvas.paint(f(rect(-wide, -0.45, wide, -0.18)), label, relief=0.6)
    canvas.paint(f(rect(-neck * 1.2, -1, neck * 1.2, -0.92)), colour(rng), relief=0.5)
    canvas.paint(f(rect(-wide * 0.7, -0.6, -wide * 0.5, -0.05)), (1, 1, 1), soft=2, opacity=0.4)


def paint_animal(canvas: Canvas, rng: Generator, f, size: float) -> None:
    fur = colour(rng, hue=(0.02, 0.12), sat=(0.05, 0.6), val=(0.12, 0.95))
    coat = cloth(rng, size, ("plain", "plain", "stripes", "print"), base=fur)
    coat = replace(coat, two=fur * rng.uniform(0.3, 0.6))
    dog = rng.random() < 0.5
    tail = [(-0.5, -0.5), (-0.75, -0.6), (-0.8, -0.95)]
    parts: list[tuple[list, tuple[float, ...]]] = [(tail, (0.06, 0.05, 0.03))]
    for x in (-0.42, -0.3, 0.25, 0.38):
        parts.append(([(x, -0.4), (x + rng.normal(0, 0.04), -0.03)], (0.09, 0.06)))
    parts.append(([(-0.42, -0.52), (0, -0.5), (0.36, -0.54)], (0.2, 0.19, 0.21)))
    parts.append(([(0.36, -0.6), (0.52, -0.82)], (0.17, 0.14)))
    for path, radii in parts:
        outline = f(tube(path, radii))
        canvas.paint(outline, coat, relief=0.5)
        hairs(canvas, outline, size * 0.045, 500, fur)
    ear = 0.16 if dog else -0.16
    for x in (0.44, 0.66):
        tip = [(x - 0.07, -0.95), (x + (0.02 if dog else 0), -1.0 + ear), (x + 0.07, -0.95)]
        canvas.paint(f(tip if not dog else curve(tip)), fur * 0.75, relief=0.4)
    head = f(ellipse(0.55, -0.88, 0.19, 0.17))
    canvas.paint(head, fur, relief=0.6)
    hairs(canvas, head, size * 0.04, 400, fur)
    canvas.paint(f(ellipse(0.66, -0.82, 0.12, 0.08)), fur * 1.1 + 0.05, relief=0.4)
    for x, y, r in ((0.76, -0.84, 0.035), (0.54, -0.93, 0.025), (0.68, -0.94, 0.025)):
        canvas.paint(f(ellipse(x, y, r, r)), (0.05, 0.04, 0.04))


def paint_box(canvas: Canvas, rng: Generator, f, size: float) -> None:
    side = cloth(rng, size, ("plain", "plain", "print", "stripes"), colour(rng, val=(0.3, 0.9)))
    w, d = rng.uniform(0.45, 0.8), rng.uniform(0.1, 0.35)
    canvas.paint(f(rect(-w, -0.75, w - d, 0)), side, relief=0.15, folds=0.03)
    top, edge = side.one * 1.2, side.one * 0.6
    canvas.paint(f([(-w, -0.75), (d - w, -1), (w, -1), (w - d, -0.75)]), np.clip(top, 0, 1))
    canvas.paint(f([(w - d, -0.75), (w, -1), (w, -0.25), (w - d, 0)]), edge)
    canvas.paint(f(rect(-0.08 - d / 2, -0.75, 0.08 - d / 2, 0)), colour(rng), opacity=0.8)


def paint_umbrella(canvas: Canvas, rng: Generator, f, size: float) -> None:
    one, two = colour(rng, sat=(0.3, 0.9)), colour(rng)
    stick = [(0, -0.95), (0, -0.1), (0.05, -0.02), (0.1, -0.06)]
    canvas.paint(f(tube(stick, [0.012] * 4)), (0.25, 0.18, 0.12), relief=0.4)
    ribs = np.linspace(-0.62, 0.62, 7)
    for i, (a, b) in enumerate(itertools.pairwise(ribs)):
        side = [(a * 0.75, -0.88 + a * a * 0.3), (a, -0.55), ((a + b) / 2, -0.6), (b, -0.55)]
        panel = [(0, -1.0), *side, (b * 0.75, -0.88 + b * b * 0.3)]
        canvas.paint(f(panel), one if i % 2 else two, relief=0.4)


def paint_cup(canvas: Canvas, rng: Generator, f, size: float) -> None:
    glaze = cloth(rng, size, ("plain", "stripes", "dots", "checks"))
    for r, tone in ((0.3, glaze.one * 0.85), (0.2, glaze.one * 0.4)):
        canvas.paint(f(ellipse(0.45, -0.5, r * 0.8, r)), tone, relief=0.4)
    body = [(-0.42, -0.9), (0.42, -0.9), (0.36, -0.06), (0.25, 0), (-0.25, 0), (-0.36, -0.06)]
    canvas.paint(f(body), glaze, relief=0.7)
    canvas.paint(f(ellipse(0, -0.9, 0.42, 0.09)), glaze.one * 0.9, relief=0.2)
    canvas.paint(f(ellipse(0, -0.89, 0.36, 0.065)), colour(rng, hue=(0.02, 0.1), val=(0.1, 0.4)))


PAINTERS = {
    "plant": paint_plant,
    "chair": paint_chair,
    "lamp": paint_lamp,
    "ball": paint_ball,
    "car": paint_car,
    "bottle": paint_bottle,
    "animal": paint_animal,
    "box": paint_box,
    "umbrella": paint_umbrella,
    "cup": paint_cup,
}
OBJECT_KINDS = tuple(PAINTERS)


def paint_object(canvas: Canvas, kind: str, at, size: float, turn=0.0) -> None:
    """Draw one object `size` canvas pixels high that stands at point `at`, turned by `turn`."""
    mirror = pick(canvas.rng, -1.0, 1.0)
    stand = frame(at, size, turn)
    PAINTERS[kind](canvas, canvas.rng, lambda p: stand(np.asarray(p) * (mirror, 1)), size)


def draw_object(rng: Generator, width: int, height: int) -> tuple[str, Image.Image, Image.Image]:
    """One object that is no person: (kind, fgr, pha), kind from OBJECT_KINDS.

    fgr is RGB and pha L, both width x height; fgr's colours run on beyond the edge of pha.
    Raises ValueError for a side below 16.
    """
    canvas = Canvas(width, height, rng)
    kind = pick(rng, *OBJECT_KINDS)
    size = canvas.h * rng.uniform(0.35, 0.9)
    if kind in ("car", "animal", "ball", "cup", "box"):
        size = min(size * 0.75, canvas.w * 0.42)
    x = canvas.w * rng.uniform(0.25, 0.75)
    y = rng.uniform(size, canvas.h * 1.05) if size < canvas.h else canvas.h
    paint_object(canvas, kind, (x, y), size, rng.normal(0, 0.06))
    return kind, *canvas.cutout(rng.uniform(0, 0.4))
