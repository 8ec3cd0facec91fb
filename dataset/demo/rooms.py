"""Indoor backgrounds of the built-in demo data set: rooms, libraries, studios.

It never reads or writes a file: every picture is a function of the generator it is handed.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

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
)
from dataset.demo.objects import paint_object


def window(canvas: Canvas, x0, y0, x1, y1) -> None:
    """A window on a bright outdoors, maybe with curtains."""
    rng = canvas.rng
    out = colour(rng, hue=(0.5, 0.62), sat=(0.05, 0.4), val=(0.8, 1))
    gradient(canvas, (x0, y0, min(x1, canvas.w), min(y1, canvas.h)), out, np.clip(out * 1.15, 0, 1))
    green = colour(rng, hue=(0.2, 0.4), sat=(0.2, 0.5), val=(0.4, 0.7))
    cut = np.clip(
        ellipse((x0 + x1) / 2, y1, (x1 - x0) * 0.7, (y1 - y0) * rng.uniform(0.2, 0.7)),
        (x0, y0),
        (x1, y1),
    )
    canvas.paint(cut, green, folds=0.15, soft=3)
    bar = np.float32(1) * rng.uniform(0.2, 0.95)
    xm, ym = (x0 + x1) / 2, y0 + (y1 - y0) * rng.uniform(0.35, 0.6)
    t = max(4, (x1 - x0) * 0.03)
    bars = [
        rect(x0 - t, y0 - t, x0 + t, y1 + t),
        rect(x1 - t, y0 - t, x1 + t, y1 + t),
        rect(x0, y0 - t, x1, y0 + t),
    ]
    bars += [
        rect(x0 - 2 * t, y1 - t, x1 + 2 * t, y1 + t),
        rect(xm - t / 2, y0, xm + t / 2, y1),
        rect(x0, ym, x1, ym + t),
    ]
    canvas.flat(bars, (bar, bar, bar * 0.97))
    if rng.random() < 0.6:
        hang, wide = cloth(rng, canvas.h * 0.3), (x1 - x0) * rng.uniform(0.18, 0.35)
        low = y1 + rng.uniform(0.05, 0.3) * canvas.h
        for a, b in ((x0 - wide * 0.5, x0 + wide * 0.6), (x1 - wide * 0.6, x1 + wide * 0.5)):
            canvas.paint(
                rect(a, y0 - 4 * t, b, low),
                hang,
                relief=0.2,
                folds=0.15,
                opacity=pick(rng, 1, 1, 0.7),
            )


def shelf(canvas: Canvas, x0, y0, x1, y1) -> None:
    """Shelves with books and things."""
    rng = canvas.rng
    wood = colour(rng, hue=(0.04, 0.12), sat=(0.0, 0.6), val=(0.2, 0.9))
    canvas.paint(rect(x0, y0, x1, y1), wood * 0.45, soft=0.5, folds=0.05)
    rows = int(rng.integers(3, 7))
    step, t = (y1 - y0) / rows, max(4, (y1 - y0) * 0.015)
    books: list = []
    tones: list = []
    for row in range(rows):
        floor, x = y0 + (row + 1) * step, x0 + t
        while x < x1 - t * 2:
            what = rng.random()
            if what < 0.08:
                size = step * rng.uniform(0.4, 0.75)
                paint_object(
                    canvas,
                    pick(rng, "bottle", "cup", "plant", "ball", "box"),
                    (min(x + size / 2, x1 - size / 2), floor),
                    size,
                )
                x += size * 1.2
            elif what < 0.14:
                x += step * rng.uniform(0.2, 0.6)
            else:
                wide, high = step * rng.uniform(0.06, 0.2), step * rng.uniform(0.55, 0.88)
                lean = rng.normal(0, 0.12) * wide
                books.append(
                    [
                        (x, floor),
                        (x + lean, floor - high),
                        (x + lean + wide, floor - high),
                        (x + wide, floor),
                    ]
                )
                tone = colour(rng, sat=(0.05, 0.8), val=(0.2, 0.9))
                mark = floor - high * rng.uniform(0.3, 0.8)
                books.append(rect(x + wide * 0.2, mark, x + wide * 0.8, mark + high * 0.08))
                tones += [tone, tone * 0.5 + 0.4 * (rng.random() < 0.6)]
                x += wide + 1.5
    canvas.flat(books, tones)
    boards = [rect(x0, y0 + i * step - t / 2, x1, y0 + i * step + t / 2) for i in range(rows + 1)]
    canvas.flat([*boards, rect(x0 - t, y0, x0 + t, y1), rect(x1 - t, y0, x1 + t, y1)], wood)


def picture(canvas: Canvas, x0, y0, x1, y1) -> None:
    """A framed picture or poster: a small landscape, a pattern or shapes."""
    rng = canvas.rng
    edge = (x1 - x0) * rng.uniform(0.02, 0.08)
    canvas.shade(rect(x0, y0, x1 + edge, y1 + edge), 0.7, 6)
    canvas.paint(rect(x0 - edge, y0 - edge, x1 + edge, y1 + edge), colour(rng), relief=0.2)
    canvas.paint(rect(x0, y0, x1, y1), cloth(rng, x1 - x0), soft=0.5)
    for _ in range(int(rng.integers(1, 6))):
        r = rng.uniform(0.08, 0.3) * (x1 - x0)
        at = rng.uniform((x0 + r, y0 + r), (max(x1 - r, x0 + r + 1), max(y1 - r, y0 + r + 1)))
        blob = np.clip(ellipse(at[0], at[1], r, r * rng.uniform(0.4, 1.4)), (x0, y0), (x1, y1))
        canvas.paint(blob, colour(rng), opacity=0.8)


def sofa(canvas: Canvas, x0, base, x1) -> None:
    """A sofa or an armchair with cushions."""
    rng = canvas.rng
    cover = cloth(rng, canvas.h * 0.15, ("plain", "plain", "tweed", "stripes", "checks"))
    high, arm = canvas.h * rng.uniform(0.2, 0.3), (x1 - x0) * 0.1
    canvas.shade(ellipse((x0 + x1) / 2, base, (x1 - x0) * 0.55, high * 0.12), 0.5, 10)
    canvas.paint(
        curve(rect(x0, base - high, x1, base - high * 0.2), steps=12),
        cover,
        relief=0.4,
        folds=0.06,
        soft=2,
    )
    canvas.paint(
        rect(x0 + arm, base - high * 0.5, x1 - arm, base - high * 0.1),
        cover,
        relief=0.5,
        folds=0.06,
        soft=4,
    )
    for a in (x0 - arm * 0.3, x1 - arm * 0.7):
        canvas.paint(
            curve(rect(a, base - high * 0.65, a + arm, base), steps=8), cover, relief=0.6, soft=2
        )
    for _ in range(int(rng.integers(0, 4))):
        x, r = rng.uniform(x0 + arm * 1.5, x1 - arm * 1.5), high * 0.22
        spin = frame((x, base - high * 0.62), r, rng.normal(0, 0.4))
        canvas.paint(
            curve(spin(rect(-1, -1, 1, 1))), cloth(rng, r), relief=0.7, folds=0.05, soft=1.5
        )


def floor(canvas: Canvas, top: float) -> None:
    """Planks, tiles or a carpet that run towards a vanishing point."""
    rng, w, h = canvas.rng, canvas.w, canvas.h
    tone = colour(rng, hue=(0.02, 0.14), sat=(0.05, 0.6), val=(0.25, 0.8))
    gradient(canvas, (0, top, w, h), tone * 0.85, tone * 1.1)
    kind, n = pick(rng, "planks", "planks", "tiles", "carpet"), 26
    vx, vy = w * rng.uniform(0.3, 0.7), top - h * rng.uniform(0.2, 0.5)
    near = np.linspace(-1.5, 2.5, n) * w
    far = vx + (near - vx) * (top - vy) / (h - vy)
    if kind != "carpet":
        strips = [
            [(far[i], top), (far[i + 1], top), (near[i + 1], h), (near[i], h)] for i in range(n - 1)
        ]
        if kind == "planks":
            tones = tone * rng.uniform(0.75, 1.2, (n - 1, 1))
        else:
            tones = tone * np.where(np.arange(n - 1) % 2, 0.75, 1.1)[:, None]
        canvas.flat(strips, tones, 0.8)
        canvas.flat([s[:1] + s[-1:] for s in strips], tone * 0.5, 0.7, width=2)
        depth = vy + (top - vy) / np.linspace(1, (top - vy) / (h - vy), 9)
        if kind == "tiles":
            canvas.flat([[(0, y), (w, y)] for y in depth], tone * 0.5, 0.7, width=2)
    if kind == "carpet" or rng.random() < 0.4:
        rug = cloth(rng, h * 0.2)
        mid = (top + h) / 2
        canvas.paint(ellipse(vx, mid, w * rng.uniform(0.25, 0.5), (h - top) * 0.4), rug, folds=0.04)
    canvas.shade(rect(0, top - 2, w, top + h * 0.03), 0.7, 8)


def scene_room(canvas: Canvas) -> None:
    """A room: wall, floor, and furniture side by side."""
    rng, w, h = canvas.rng, canvas.w, canvas.h
    base = h * rng.uniform(0.62, 0.9)
    paper = cloth(
        rng,
        h * rng.uniform(0.08, 0.25),
        ("plain", "plain", "plain", "stripes", "print", "dots", "checks"),
    )
    soft = colour(rng, sat=(0.0, 0.45), val=(0.45, 0.95))
    paper = type(paper)(
        paper.kind, soft, soft * rng.uniform(0.8, 1.1), paper.unit, paper.angle, paper.phase
    )
    canvas.paint(rect(-5, -5, w + 5, base), paper, folds=0.02)
    floor(canvas, base)
    if rng.random() < 0.5:  # a side wall that runs towards the viewer
        x, s = w * rng.uniform(0.05, 0.25), pick(rng, 0, 1)
        wall = np.array([(0, -5), (x, -5), (x, base), (0, base + (h - base) * 0.8)])
        canvas.paint(wall if s == 0 else (w, 0) + wall * (-1, 1), soft * 0.8, folds=0.03)
    board = soft * pick(rng, 0.5, 1.15)
    canvas.flat([rect(0, base - h * 0.025, w, base)], np.clip(board, 0, 1))
    edges = np.cumsum(rng.uniform(0.6, 1.4, rng.integers(3, 6)))
    edges = np.concatenate([[0], edges / edges[-1]]) * w
    for x0, x1 in itertools.pairwise(edges):
        gap = (x1 - x0) * 0.1
        a, b = x0 + gap, x1 - gap
        wide = b - a
        what = pick(
            rng, "window", "window", "shelf", "shelf", "picture", "door", "things", "sofa", "sofa"
        )
        if what == "window":
            top = h * rng.uniform(0.05, 0.2)
            window(
                canvas,
                int(a),
                int(top),
                int(b),
                int(min(base - h * 0.1, top + wide * rng.uniform(0.9, 1.8))),
            )
        elif what == "shelf":
            shelf(canvas, a, h * rng.uniform(-0.1, 0.25), b, base + h * 0.02)
        elif what == "door":
            top, leaf = (
                base - h * rng.uniform(0.6, 0.85),
                colour(rng, hue=(0.03, 0.12), sat=(0, 0.6)),
            )
            b = min(b, a + (base - top) * 0.55)
            canvas.paint(rect(a - 8, top - 8, b + 8, base), leaf * 0.8)
            canvas.paint(rect(a, top, b, base), leaf, folds=0.03)
            for u, v in ((0.08, 0.45), (0.55, 0.94)):
                panel = rect(
                    a + wide * 0.12, top + (base - top) * u, b - wide * 0.12, top + (base - top) * v
                )
                canvas.paint(panel, leaf * 0.85, relief=0.2)
            canvas.paint(
                ellipse(b - wide * 0.08, (top + base) / 2, 7, 7), (0.8, 0.7, 0.4), relief=0.5
            )
        elif what == "things":
            for _ in range(2):
                paint_object(
                    canvas,
                    pick(rng, "plant", "lamp", "chair", "box"),
                    (rng.uniform(a, b), base + h * 0.05),
                    h * rng.uniform(0.25, 0.55),
                )
        else:
            top = h * rng.uniform(0.05, 0.2)
            high = min(wide * rng.uniform(0.6, 1.3), base * 0.5)
            picture(canvas, a + wide * 0.1, top, b - wide * 0.1, top + high)
            if what == "sofa":
                sofa(canvas, x0 - gap, base + h * rng.uniform(0.03, 0.12), x1 + gap)
    for _ in range(int(rng.integers(0, 3))):
        size = h * rng.uniform(0.3, 0.7)
        kind = pick(rng, "plant", "lamp", "chair", "chair", "animal", "ball", "box")
        if kind in ("ball", "box", "animal"):
            size *= 0.4
        x, y = rng.uniform(0, w), base + (h - base) * rng.uniform(0.3, 1.1)
        canvas.shade(ellipse(x, y, size * 0.35, size * 0.06), 0.6, 8)
        paint_object(canvas, kind, (x, y), size)


def scene_shelves(canvas: Canvas) -> None:
    """A library: the whole picture is shelves."""
    rng, w, h = canvas.rng, canvas.w, canvas.h
    gradient(canvas, (0, 0, w, h), colour(rng), colour(rng))
    edges = np.linspace(-0.05, 1.05, int(rng.integers(2, 5))) * w
    for x0, x1 in itertools.pairwise(edges):
        shelf(canvas, x0 + 4, -h * rng.uniform(0, 0.15), x1 - 4, h * rng.uniform(0.97, 1.1))


def scene_studio(canvas: Canvas) -> None:
    """A backdrop: paper, creased cloth or a green screen."""
    rng, w, h = canvas.rng, canvas.w, canvas.h
    tone = colour(rng, sat=(0.0, 0.7), val=(0.2, 0.95))
    if rng.random() < 0.3:
        screens = (0.1, 0.7, 0.25), (0.15, 0.3, 0.8), (0.3, 0.75, 0.3)
        tone = np.array(pick(rng, *screens), np.float32)
    gradient(canvas, (0, 0, w, h), tone * rng.uniform(0.6, 1.1), tone * rng.uniform(0.5, 1.0))
    glow = ellipse(w * rng.uniform(0.2, 0.8), h * rng.uniform(0.2, 0.7), w * 0.35, h * 0.4)
    canvas.shade(glow, rng.uniform(1.2, 1.7), h * 0.15)
    if rng.random() < 0.6:
        crease: Any = sum(
            noise(rng, w, h, 3 * k, int(rng.integers(2, 4)) * k) / k for k in (1, 2, 5)
        )
        canvas.rgba[..., :3] *= (1 + rng.uniform(0.03, 0.12) * crease)[..., None]
    if rng.random() < 0.5:
        base = int(h * rng.uniform(0.75, 0.92))
        canvas.shade(rect(0, base, w, h + 50), rng.uniform(0.7, 1.3), rng.uniform(2, 20))
    for _ in range(int(rng.integers(0, 4))):  # edges of the set: stands, boxes, plants
        kind, x = pick(rng, "lamp", "plant", "box", "chair"), pick(rng, 0.06, 0.94, 0.15, 0.85)
        at = x * w, h * rng.uniform(0.9, 1.1)
        paint_object(canvas, kind, at, h * rng.uniform(0.3, 0.8))
