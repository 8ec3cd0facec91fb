"""Backgrounds of the built-in demo data set: outdoor scenes, clutter, and the choice of one.

It never reads or writes a file: every picture is a function of the generator it is handed.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageFilter

from dataset.demo.brush import (
    Canvas,
    cloth,
    colour,
    curve,
    ellipse,
    frame,
    gradient,
    noise,
    pick,
    rect,
    to_image,
    tube,
)
from dataset.demo.objects import OBJECT_KINDS, foliage, paint_object
from dataset.demo.rooms import scene_room, scene_shelves, scene_studio


def grass(canvas: Canvas, base_y: float, n: int, length: float, tone) -> None:
    """Blades of grass rooted along a band below `base_y`, the near ones last."""
    rng = canvas.rng
    depth = np.sort(rng.uniform(0, 1, n))
    root = np.stack([rng.uniform(0, canvas.w, n), base_y + depth * (canvas.h - base_y)], 1)
    t = np.linspace(0, 1, 5)[None, :, None]
    lean = rng.normal(0, 0.35, (n, 1, 1)) * t**2
    up = np.concatenate([lean, -t + 0 * lean], 2) * (length * (0.25 + depth))[:, None, None]
    shades = tone * rng.uniform(0.55, 1.35, (n, 1)) * (1 + 0.08 * rng.standard_normal((n, 3)))
    canvas.flat(root[:, None] + up, shades, width=2)


def sky(canvas: Canvas, horizon: float) -> None:
    """A sky down to `horizon`: clear, cloudy, grey or at sunset."""
    rng = canvas.rng
    mood = pick(rng, "clear", "clear", "grey", "sunset")
    top = colour(rng, hue=(0.55, 0.62), sat=(0.3, 0.75), val=(0.5, 0.9))
    low = colour(rng, hue=(0.53, 0.6), sat=(0.05, 0.3), val=(0.85, 1))
    if mood == "grey":
        top, low = (
            colour(rng, sat=(0, 0.08), val=(0.5, 0.75)),
            colour(rng, sat=(0, 0.06), val=(0.75, 0.95)),
        )
    elif mood == "sunset":
        top = colour(rng, hue=(0.6, 0.85), sat=(0.3, 0.6), val=(0.3, 0.65))
        low = colour(rng, hue=(0.02, 0.13), sat=(0.4, 0.75), val=(0.85, 1))
    gradient(canvas, (0, 0, canvas.w, horizon + 2), top, low)
    h = int(horizon)
    if h > 8:
        cloud = sum(noise(rng, canvas.w, h, 3 * k, 2 * k) / k for k in (1, 2, 4, 8))
        cover = np.clip(cloud * 0.6 + rng.uniform(-0.6, 0.4), 0, 1)[..., None] * 0.85
        view = canvas.rgba[:h, :, :3]
        view += (np.float32(low * 0.3 + 0.7) - view) * cover


def ridge(canvas: Canvas, y: float, rough: float, tone) -> None:
    """Hills, mountains or a wood's edge: everything below a wavy line about `y`."""
    rng = canvas.rng
    x = np.linspace(0, canvas.w, 160)
    line = sum(
        np.interp(x, np.linspace(0, canvas.w, 3 * k), rng.normal(0, 1 / k, 3 * k))
        for k in (1, 2, 5, 14)
    )
    top = np.stack([x, y + line * rough], 1)
    canvas.paint(
        np.concatenate([top, [(canvas.w, canvas.h), (0, canvas.h)]]), tone, folds=0.06, soft=1
    )


def tree(canvas: Canvas, x: float, base: float, size: float) -> None:
    """A tree `size` high that stands at (x, base)."""
    rng = canvas.rng
    bark = colour(rng, hue=(0.04, 0.1), sat=(0.2, 0.5), val=(0.15, 0.4))
    green = colour(
        rng,
        hue=pick(rng, (0.2, 0.38), (0.22, 0.35), (0.03, 0.14)),
        sat=(0.35, 0.8),
        val=(0.25, 0.7),
    )
    lean = rng.normal(0, 0.06)
    trunk = [(x, base), (x + lean * size, base - size * 0.35), (x, base - size * 0.8)]
    canvas.paint(tube(trunk, np.array([0.05, 0.035, 0.01]) * size), bark, relief=0.6, folds=0.2)
    for _ in range(int(rng.integers(2, 5))):
        at = x + rng.normal(0, 0.13) * size, base - rng.uniform(0.5, 0.85) * size
        wide = rng.uniform(0.15, 0.3) * size
        foliage(canvas, at, (wide, wide * 0.8), 300, max(6.0, size * 0.06), tone=green)


def scene_nature(canvas: Canvas) -> None:
    """Hills or the sea under a sky, with trees and grass."""
    rng, w, h = canvas.rng, canvas.w, canvas.h
    horizon = h * rng.uniform(0.35, 0.7)
    sky(canvas, horizon)
    green = colour(rng, hue=(0.15, 0.38), sat=(0.25, 0.65), val=(0.3, 0.7))
    haze = np.array([0.65, 0.75, 0.85], np.float32)
    for far in (0.75, 0.5, 0.25)[: int(rng.integers(1, 4))]:
        ridge(canvas, horizon - h * far * 0.18, h * 0.06, green * (1 - far) + haze * far)
    ground = pick(rng, "meadow", "meadow", "sea", "sand")
    tone = {
        "sea": colour(rng, hue=(0.48, 0.6), sat=(0.3, 0.7)),
        "sand": colour(rng, hue=(0.08, 0.13), sat=(0.2, 0.5), val=(0.6, 0.9)),
    }.get(ground, green)
    gradient(canvas, (0, horizon, w, h), tone * 1.1, tone * 0.6)
    if ground == "sea":
        y = horizon + (h - horizon) * rng.uniform(0, 1, 260) ** 1.8
        x, long = rng.uniform(0, w, 260), (y - horizon + 8) * rng.uniform(0.2, 0.6, 260)
        waves = np.stack([np.stack([x - long, y], 1), np.stack([x + long, y + 1], 1)], 1)
        canvas.flat(waves, tone * rng.uniform(0.7, 1.6, (260, 1)), 0.6, width=3, soft=1)
    elif ground == "sand":
        canvas.rgba[int(horizon) :, :, :3] *= (1 + 0.08 * noise(rng, w, h - int(horizon), 12, 30))[
            ..., None
        ]
    else:
        grass(canvas, horizon, 3500, h * 0.1, green)
        for base in np.sort(rng.uniform(horizon, h * 0.97, rng.integers(1, 7))):
            tree(canvas, rng.uniform(0, w), base, h * (0.15 + 1.1 * (base - horizon) / h))


def scene_foliage(canvas: Canvas) -> None:
    """A wall of leaves, with trunks, grass or flowers."""
    rng, w, h = canvas.rng, canvas.w, canvas.h
    green = colour(
        rng,
        hue=pick(rng, (0.2, 0.42), (0.2, 0.36), (0.02, 0.15)),
        sat=(0.35, 0.8),
        val=(0.35, 0.75),
    )
    light = np.clip(green * 1.6 + 0.2, 0, 1)
    gradient(canvas, (0, 0, w, h), light if rng.random() < 0.4 else green * 0.5, green * 0.25)
    for x in rng.uniform(0, w, rng.integers(0, 4)):
        trunk = [(x, h), (x + rng.normal(0, 30), h / 2), (x + rng.normal(0, 60), -20)]
        bark = colour(rng, hue=(0.04, 0.1), sat=(0.1, 0.5), val=(0.1, 0.5))
        canvas.paint(tube(trunk, np.array([0.06, 0.05, 0.04]) * h), bark, relief=0.6, folds=0.25)
    for near in np.linspace(0.2, 1, int(rng.integers(2, 5))):
        blur = rng.uniform(3, 6) * (1 - near)
        tone = green * (0.4 + 0.7 * near) * (1 + rng.normal(0, 0.08, 3))
        for _ in range(3):
            at = rng.uniform(0, w), rng.uniform(0, h)
            size = h * rng.uniform(0.02, 0.11) * (0.5 + near)
            foliage(canvas, at, (w * 0.45, h * 0.45), 420, size, tone=tone, soft=blur)
    if rng.random() < 0.4:
        petals = colour(rng, sat=(0.3, 0.9), val=(0.7, 1))
        spots = [
            ellipse(rng.uniform(0, w), rng.uniform(0, h), r, r, 9) for r in rng.uniform(4, 20, 60)
        ]
        canvas.flat(spots, petals * rng.uniform(0.7, 1.2, (60, 1)))
    if rng.random() < 0.5:
        grass(canvas, h * rng.uniform(0.7, 0.9), 1800, h * 0.2, green)


def building(canvas: Canvas, box, far: float) -> None:
    """A house front with rows of windows, paler the farther away."""
    rng = canvas.rng
    x0, top, x1, base = box
    wall = colour(rng, hue=(0, 0.15), sat=(0.05, 0.5), val=(0.3, 0.9)) * (1 - far) + far * 0.75
    canvas.paint(rect(x0, top, x1, base), wall, folds=0.05, soft=0.5)
    columns, rows = (
        int(rng.integers(2, 7)),
        max(2, int((base - top) / (canvas.h * rng.uniform(0.05, 0.11)))),
    )
    dx, dy = (x1 - x0) / columns, (base - top) / rows
    panes: list = []
    tones: list = []
    glass = colour(rng, hue=(0.5, 0.65), sat=(0.05, 0.4), val=(0.2, 0.7))
    mx, my = rng.uniform(0.12, 0.3, 2)
    for i in range(columns):
        for j in range(rows):
            left, up = x0 + i * dx, top + j * dy
            panes.append(
                rect(left + dx * mx, up + dy * my, left + dx * (1 - mx), up + dy * (1 - my))
            )
            tones.append(glass * rng.uniform(0.6, 1.5) if rng.random() < 0.85 else (1, 0.9, 0.6))
    canvas.flat(panes, np.clip(tones, 0, 1) * (1 - far) + far * 0.7)
    canvas.flat([rect(x0 - 4, top - 8, x1 + 4, top + 4)], wall * 0.7)


def scene_street(canvas: Canvas) -> None:
    """Houses along a road, with cars and trees."""
    rng, w, h = canvas.rng, canvas.w, canvas.h
    base = h * rng.uniform(0.6, 0.85)
    sky(canvas, base)
    for far, high in ((0.55, 0.75), (0.25, 0.6), (0.0, 0.8))[int(rng.integers(2)) :]:
        x = rng.uniform(-0.1, 0.1) * w
        while x < w:
            wide = w * rng.uniform(0.1, 0.28)
            if rng.random() < 0.88:
                top = base - h * high * rng.uniform(0.35, 1.05)
                building(canvas, (x, top, x + wide, base), far)
            x += wide * rng.uniform(1.0, 1.15)
    road = colour(rng, sat=(0, 0.15), val=(0.25, 0.6))
    gradient(canvas, (0, base, w, h), road * 1.15, road * 0.8)
    middle = w * rng.uniform(0.2, 0.8)
    canvas.flat([rect(0, base, w, base + h * 0.025)], road * 1.4)
    marks = [
        [(middle, base + 8), (middle + 8, base + 8), (middle + s * w, h), (middle + s * w - 40, h)]
        for s in (-0.5, 0.1, 0.7)
    ]
    canvas.flat(marks, (0.85, 0.85, 0.8), 0.7, soft=1)
    for at in np.sort(rng.uniform(base + h * 0.01, h * 0.95, rng.integers(1, 5))):
        size = h * (0.1 + 0.45 * (at - base) / h)
        if rng.random() < 0.35:
            tree(canvas, rng.uniform(0, w), at, size * 4)
        else:
            paint_object(canvas, "car", (rng.uniform(0, w), at), size)


def scene_clutter(canvas: Canvas) -> None:
    """Things of every kind, heaped up before a wall."""
    rng, w, h = canvas.rng, canvas.w, canvas.h
    canvas.paint(rect(-5, -5, w + 5, h + 5), cloth(rng, h * 0.3), folds=0.05)
    n = int(rng.integers(18, 40))
    for _ in range(n):
        spin = frame(rng.uniform((0, 0), (w, h)), h * rng.uniform(0.04, 0.25), rng.uniform(0, 6))
        sides = int(rng.integers(3, 8))
        t = np.sort(rng.uniform(0, 2 * np.pi, sides))
        shape = np.stack([np.cos(t), np.sin(t)], 1)
        shape = curve(shape) if rng.random() < 0.5 else shape
        canvas.paint(spin(shape), cloth(rng, h * 0.15), relief=0.4, soft=rng.uniform(0.5, 3))
    for y in np.sort(rng.uniform(0.2, 1.1, n)):
        size = h * rng.uniform(0.1, 0.4)
        at = rng.uniform(0, w), y * h
        paint_object(canvas, pick(rng, *OBJECT_KINDS), at, size, rng.normal(0, 0.15))


def scene_lights(canvas: Canvas) -> None:
    """A town at night, out of focus: discs of light."""
    rng, w, h = canvas.rng, canvas.w, canvas.h
    dark = colour(rng, sat=(0.2, 0.7), val=(0.05, 0.25))
    gradient(canvas, (0, 0, w, h), dark, colour(rng, val=(0.08, 0.35)))
    for _ in range(4):
        x, top = rng.uniform(-0.1, 0.9) * w, h * rng.uniform(0.1, 0.6)
        building(canvas, (x, top, x + w * 0.25, h), 0)
    canvas.shade(rect(-99, -99, w + 99, h + 99), 0.3, 1)
    for _ in range(4):
        r = rng.uniform(0.01, 0.07) * h
        spots = [ellipse(x, y, r, r, 20) for x, y in rng.uniform((0, 0), (w, h), (18, 2))]
        tones = [colour(rng, hue=(-0.05, 0.2), sat=(0.1, 0.8), val=(0.7, 1)) for _ in spots]
        canvas.flat(spots, tones, rng.uniform(0.3, 0.9, 18), soft=2)


def draw_background(rng: Generator, width: int, height: int) -> Image.Image:
    """A scene without people: RGB, width x height; ValueError for a side below 16."""
    canvas = Canvas(width, height, rng)
    rooms, outside = [scene_room] * 7, [scene_nature] * 2 + [scene_foliage] * 3 + [scene_street] * 3
    other = [scene_studio] * 2 + [scene_clutter] * 3 + [scene_shelves, scene_lights]
    pick(rng, *rooms, *outside, *other)(canvas)
    values = canvas.reduced()[..., :3]
    light = 1 + 0.15 * noise(rng, width, height, 2, 2) * rng.random()
    cast = 1 + 0.06 * rng.standard_normal(3)
    light = (np.clip(light, 0.5, 1.4)[..., None] * cast * rng.uniform(0.8, 1.1)).astype(np.float32)
    picture_ = to_image(values * light)
    blur = pick(rng, 0.0, 0.0, 0.6, rng.uniform(0.5, 2), rng.uniform(2, 6))
    picture_ = picture_.filter(ImageFilter.GaussianBlur(float(blur))) if blur else picture_
    grain = rng.uniform(0, 0.02) * rng.standard_normal((height, width, 1), np.float32)
    return to_image(np.asarray(picture_, np.float32) / 255 + grain)
