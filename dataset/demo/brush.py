"""Brushes with which the pictures of the built-in demo data set are drawn.

It never reads or writes a file: every picture is a function of the generator it is handed.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

SCALE = 2  # everything is drawn this many times larger and then reduced: soft edges


def pick(rng: Generator, *choices):
    """One of `choices`, whatever their type."""
    return choices[int(rng.integers(len(choices)))]


def colour(rng: Generator, hue=(0.0, 1.0), sat=(0.1, 0.8), val=(0.2, 0.95)) -> np.ndarray:
    """A random colour, float32 [3] in 0..1, from ranges of hue, saturation and value."""
    hsv = rng.uniform(*hue) % 1.0, rng.uniform(*sat), rng.uniform(*val)
    return np.array(colorsys.hsv_to_rgb(*hsv), np.float32)


def noise(rng: Generator, width: int, height: int, columns: int, rows: int) -> np.ndarray:
    """Smooth noise, float32 [height, width], mean about 0 and deviation about 1."""
    grid = rng.standard_normal((max(rows, 2), max(columns, 2))).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))


def curve(points, closed: bool = True, steps: int = 6) -> np.ndarray:
    """A smooth line [n, 2] through `points` [k, 2] (Catmull-Rom)."""
    p = np.asarray(points, np.float64)
    p = np.concatenate([p[-1:], p, p[:2]]) if closed else np.concatenate([p[:1], p, p[-1:]])
    a, b, c, d = (p[i : len(p) - 3 + i, None] for i in range(4))
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    line = (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2) / 2
    line = (line + (3 * b - a - 3 * c + d) * t**3 / 2).reshape(-1, 2)
    return line if closed else np.concatenate([line, p[-1:]])


def ellipse(cx, cy, rx, ry, n: int = 32) -> np.ndarray:
    """The outline [n, 2] of an upright ellipse."""
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([cx + rx * np.cos(t), cy + ry * np.sin(t)], 1)


def rect(x0, y0, x1, y1) -> np.ndarray:
    """The outline [4, 2] of an upright rectangle."""
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float64)


def tube(path, radii) -> np.ndarray:
    """The outline of a round-ended tube along `path` [k, 2] with a radius at each point."""
    line = curve(path, closed=False)
    radius = np.interp(np.linspace(0, 1, len(line)), np.linspace(0, 1, len(radii)), radii)
    along = np.gradient(line, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    side = np.stack([-along[:, 1], along[:, 0]], 1) * radius[:, None]
    turn = np.linspace(-np.pi / 2, np.pi / 2, 9)[1:-1, None]
    out = (along[-1] * np.cos(turn) - side[-1] / radius[-1] * np.sin(turn)) * radius[-1]
    back = (-along[0] * np.cos(turn) + side[0] / radius[0] * np.sin(turn)) * radius[0]
    return np.concatenate([line + side, line[-1] + out, (line - side)[::-1], line[0] + back])


def frame(origin, scale: float, angle: float = 0.0, pivot=(0.0, 0.0)) -> Callable:
    """A map from a figure's own units to canvas pixels: turn about `pivot`, which is `origin`."""
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    turn = np.array([[cos, sin], [-sin, cos]])
    return lambda points: (np.asarray(points, np.float64) - pivot) @ turn + origin


@dataclass(frozen=True)
class Cloth:
    """A pattern in the plane: `unit` is its size in canvas pixels, `angle` its turn."""

    kind: str
    one: np.ndarray
    two: np.ndarray
    unit: float
    angle: float = 0.0
    phase: float = 0.0

    def colours(self, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
        """The pattern's colours, [h, w, 3] or [3], at columns xs [1, w] and rows ys [h, 1]."""
        if self.kind == "plain":
            return self.one
        scale = 2 * math.pi / float(self.unit)
        u = (xs * math.cos(self.angle) + ys * math.sin(self.angle)) * scale + self.phase
        v = (ys * math.cos(self.angle) - xs * math.sin(self.angle)) * scale
        if self.kind == "stripes":
            t = np.clip(np.sin(v) * 6 + 3 * math.sin(self.phase), -1, 1) / 2 + 0.5
        elif self.kind == "checks":
            t = (np.clip(np.sin(u) * 8, -1, 1) + np.clip(np.sin(v) * 8, -1, 1)) / 4 + 0.5
        elif self.kind == "dots":
            t = np.clip(np.sin(u) * np.sin(v) * 9 - 4, 0, 1)
        elif self.kind == "print":
            blobs = np.sin(u * 0.7 + np.sin(v * 0.9)) + np.sin(v * 0.8 + 1.7 * np.sin(u * 0.6))
            t = np.clip(blobs * 4 - 1, 0, 1)
        elif self.kind == "knit":
            t = 0.5 + 0.5 * np.sin(2.4 * v + 1.6 * np.abs(np.sin(1.2 * u)))
        else:  # tweed
            t = 0.5 + 0.5 * np.sin(u * 6.1 + 3 * np.sin(v * 4.3)) * np.sin(v * 7.3 + u * 2)
        step = (self.two - self.one).astype(np.float32)[:, None, None]
        planes = step * t.astype(np.float32) + self.one[:, None, None]
        return np.moveaxis(planes, 0, -1)


def cloth(rng: Generator, unit: float, kinds: Sequence[str] = (), base=None) -> Cloth:
    """A random pattern; `unit` is roughly a head's height, or a tile's, in canvas pixels."""
    kind = pick(
        rng, *(kinds or ("plain", "plain", "stripes", "checks", "dots", "print", "knit", "tweed"))
    )
    one = colour(rng, val=(0.1, 0.95), sat=(0.0, 0.85)) if base is None else base
    two = colour(rng, val=(0.1, 1.0), sat=(0.0, 0.8))
    if kind in ("knit", "tweed"):
        two = one * rng.uniform(0.6, 0.85)
    size = unit * rng.uniform(0.12, 0.4) * (0.5 if kind in ("knit", "tweed") else 1.0)
    angle = pick(rng, 0.0, 0.0, np.pi / 2, rng.uniform(0, np.pi))
    return Cloth(kind, one, two, size, angle, rng.uniform(0, 6))


class Canvas:
    """A large picture of premultiplied colour and alpha, float32 [h, w, 4] in 0..1."""

    def __init__(self, width: int, height: int, rng: Generator):
        if min(width, height) < 16:
            raise ValueError(f"a drawing is at least 16 x 16 pixels, not {width} x {height}")
        self.w, self.h = width * SCALE, height * SCALE
        self.rng = rng
        # plane after plane in memory, which numpy works through several times faster
        self.rgba = np.moveaxis(np.zeros((4, self.h, self.w), np.float32), 0, -1)
        angle = rng.uniform(-2.6, -0.5)  # light falls from above
        self.light = np.array([math.cos(angle), math.sin(angle)])

    def box(self, points: np.ndarray, pad: float) -> tuple[int, int, int, int] | None:
        """The part of the canvas that `points` touch, or None where they miss it."""
        x0, y0 = np.floor(points.min(0) - pad).astype(int)
        x1, y1 = np.ceil(points.max(0) + pad).astype(int) + 1
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, self.w), min(y1, self.h)
        return (x0, y0, x1, y1) if x1 - x0 > 1 and y1 - y0 > 1 else None

    def blend(self, box, colours, alpha: np.ndarray, atop: bool = False) -> None:
        """Lay colours over what is there; `atop` keeps to where something is already."""
        view = self.rgba[box[1] : box[3], box[0] : box[2]]
        a = alpha[..., None]
        if atop:
            view[..., :3] += (colours * view[..., 3:] - view[..., :3]) * a
        else:
            view *= 1 - a
            view[..., :3] += colours * a
            view[..., 3:] += a

    def mask(self, outline: np.ndarray, soft: float):
        """A filled outline as (box, L image), or None where it misses the canvas."""
        outline = np.asarray(outline, np.float64)
        box = self.box(outline, 3 * soft + 1)
        if box is None:
            return None
        image = Image.new("L", (box[2] - box[0], box[3] - box[1]))
        ImageDraw.Draw(image).polygon((outline - box[:2]).ravel().tolist(), fill=255)
        return box, image.filter(ImageFilter.GaussianBlur(float(soft))) if soft > 0 else image

    def relief(self, image: Image.Image, strength: float) -> np.ndarray:
        """Light on a rounded body with this mask: factors [h, w] about 1."""
        small = image.reduce(4) if min(image.size) > 32 else image
        blurred = small.filter(ImageFilter.GaussianBlur(max(1.0, min(small.size) * 0.12)))
        height = np.asarray(blurred, np.float32) / 255
        if min(height.shape) < 2:
            return np.ones(image.size[::-1], np.float32)
        dy, dx = np.gradient(height)
        slope = -(dx * self.light[0] + dy * self.light[1]) * min(small.size) * 0.35
        shade = 1 + strength * (np.clip(slope, -1, 1) + 0.35 * height - 0.22)
        large = Image.fromarray(shade.astype(np.float32)).resize(image.size)
        return np.asarray(large)

    def paint(
        self, outline, fill, *, relief=0.0, folds=0.0, soft=0.8, opacity=1.0, atop=False
    ) -> None:
        """Fill an outline with a colour or a Cloth, shaded as a rounded body with folds."""
        found = self.mask(outline, soft)
        if found is None:
            return
        box, image = found
        alpha = np.asarray(image, np.float32) * np.float32(opacity / 255)
        if isinstance(fill, Cloth):
            xs = np.arange(box[0], box[2], dtype=np.float32)[None]
            ys = np.arange(box[1], box[3], dtype=np.float32)[:, None]
            fill = fill.colours(xs, ys)
        if relief or folds:
            shade = self.relief(image, relief)
            if folds:
                w, h = image.size
                shade = shade + folds * noise(self.rng, w, h, 4 + w // 60, 3 + h // 140)
            fill = np.clip(fill * np.clip(shade, 0.25, 1.7)[..., None], 0, 1)
        self.blend(box, fill, alpha, atop)

    def shade(self, outline, factor, soft: float) -> None:
        """Multiply what is there inside a soft outline: shadows below 1, glow above."""
        found = self.mask(outline, soft)
        if found is not None:
            box, image = found
            m = np.asarray(image, np.float32)[..., None] / 255
            view = self.rgba[box[1] : box[3], box[0] : box[2]]
            view[..., :3] *= 1 + (np.asarray(factor, np.float32) - 1) * m
            np.minimum(view[..., :3], view[..., 3:], out=view[..., :3])

    def flat(self, shapes, colours, opacity=1.0, *, width=0, soft=0.0, atop=False) -> None:
        """Many flat polygons at once, or lines where `width` > 0, each with its colour."""
        shapes = [np.asarray(s, np.float64) for s in shapes]
        if not shapes:
            return
        box = self.box(np.concatenate(shapes), 3 * soft + width)
        if box is None:
            return
        tones = np.broadcast_to(np.asarray(colours, np.float32), (len(shapes), 3))
        alphas = (np.broadcast_to(opacity, len(shapes)) * 255).astype(int).tolist()
        rows = np.column_stack([np.clip(tones * 255, 0, 255).astype(int), alphas]).tolist()
        # the empty part has the mean colour, so that blurring brings in no black
        empty = (*np.mean(rows, 0)[:3].astype(int).tolist(), 0)
        layer = Image.new("RGBA", (box[2] - box[0], box[3] - box[1]), empty)
        pen = ImageDraw.Draw(layer)
        for shape, row in zip(shapes, rows, strict=True):
            points = (shape - box[:2]).ravel().tolist()
            if width:
                pen.line(points, tuple(row), width)
            else:
                pen.polygon(points, tuple(row))
        if soft:
            layer = layer.filter(ImageFilter.GaussianBlur(float(soft)))
        drawn = np.asarray(layer, np.float32) / 255
        self.blend(box, drawn[..., :3], drawn[..., 3], atop)

    def strands(self, paths: np.ndarray, base: np.ndarray, spread=0.3, opacity=(0.4, 1.0)) -> None:
        """Fine hairs along `paths` [n, k, 2] in shades of one colour, fading to the tip."""
        n, half = len(paths), paths.shape[1] // 2
        shades = base * (1 + spread * np.clip(self.rng.standard_normal((n, 1)), -2, 2.5))
        strength = self.rng.uniform(opacity[0], opacity[1], n)
        self.flat(paths[:, half:], shades, strength * 0.6, width=1)
        self.flat(paths[:, : half + 1], shades, strength, width=1 if self.h < 1000 else 2)

    def reduced(self) -> np.ndarray:
        """The picture at its own size: premultiplied float32 [height, width, 4]."""
        a = self.rgba
        return (a[::2, ::2] + a[1::2, ::2] + a[::2, 1::2] + a[1::2, 1::2]) / SCALE**2

    def cutout(self, blur: float, light=1.0) -> tuple[Image.Image, Image.Image]:
        """(fgr, pha): colours free of alpha, times `light` and spread outwards; alpha as L."""
        small = self.reduced()
        if blur > 0:
            planes = [Image.fromarray(small[..., i]) for i in range(4)]
            small = np.moveaxis(np.stack([box_blur(p, blur) for p in planes]), 0, -1)
        fgr = spread(small) * light
        fgr = fgr + 0.01 * self.rng.standard_normal((*fgr.shape[:2], 1), np.float32)
        alpha = np.clip(small[..., 3] * 255 + 0.5, 0, 255).astype(np.uint8)
        return to_image(fgr), Image.fromarray(alpha)


def box_blur(plane: Image.Image, radius: float) -> np.ndarray:
    """A float plane blurred by reducing and enlarging it a little (F images have no filter)."""
    size = plane.size
    small = max(2, round(size[0] / (1 + radius))), max(2, round(size[1] / (1 + radius)))
    # bilinear: a bicubic enlargement would swing below 0 beside an edge
    shrunk = plane.resize(small, Image.Resampling.BOX)
    return np.asarray(shrunk.resize(size, Image.Resampling.BILINEAR))


def spread(rgba: np.ndarray) -> np.ndarray:
    """True colours [h, w, 3] from premultiplied [h, w, 4], smoothly continued where alpha is 0."""
    h, w = rgba.shape[:2]
    if min(h, w) <= 2:
        mean = rgba.reshape(-1, 4).mean(0)
        return np.broadcast_to(mean[:3] / max(mean[3], 1e-6), (h, w, 3)).astype(np.float32)
    even = np.pad(rgba, ((0, h % 2), (0, w % 2), (0, 0)), mode="edge") if h % 2 or w % 2 else rgba
    half = (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4
    coarse = spread(half)
    smooth = Image.Resampling.BILINEAR
    planes = [Image.fromarray(coarse[..., i]).resize((w, h), smooth) for i in range(3)]
    around = np.moveaxis(np.stack([np.asarray(p) for p in planes]), 0, -1)
    # a whisper of the surroundings: decides only where there is (almost) nothing
    return (rgba[..., :3] + 1e-4 * around) / (rgba[..., 3:] + 1e-4)


def to_image(values: np.ndarray) -> Image.Image:
    """An RGB image from float values [h, w, 3] in 0..1."""
    return Image.fromarray(np.clip(values * 255 + 0.5, 0, 255).astype(np.uint8))


def gradient(canvas: Canvas, box, top, bottom) -> None:
    """Fill a box (x0, y0, x1, y1) with a vertical gradient."""
    x0, y0, x1, y1 = (max(0, int(v)) for v in box)
    if y1 > y0 and x1 > x0:
        t = np.linspace(0, 1, y1 - y0, dtype=np.float32)[:, None, None]
        part = canvas.rgba[y0:y1, x0:x1]
        part[..., :3] = (np.asarray(top) * (1 - t) + np.asarray(bottom) * t)[: part.shape[0]]
        part[..., 3] = 1


def hairs(canvas: Canvas, outline, length: float, n: int, tone) -> None:
    """A fringe of short hairs that stand out from an outline: fur, wool, frayed cloth."""
    rng = canvas.rng
    outline = np.asarray(outline)
    i = rng.integers(len(outline), size=n)
    after = np.roll(outline, -1, 0)
    root = outline[i] + (after[i] - outline[i]) * rng.uniform(0, 1, (n, 1))
    out = root - outline.mean(0)
    edge = after[i] - outline[i]
    side = np.stack([edge[:, 1], -edge[:, 0]], 1)
    side /= np.linalg.norm(side, axis=1, keepdims=True) + 1e-6
    side *= np.sign((side * out).sum(1, keepdims=True))
    way = side + rng.normal(0, 0.5, (n, 2)) + (0, 0.3)
    t = np.linspace(-0.4, 1, 5)[None, :, None]
    path = root[:, None] + way[:, None] * t * (length * rng.uniform(0.3, 1.2, n))[:, None, None]
    canvas.strands(path, np.asarray(tone), 0.2, (0.3, 0.9))


def wear(canvas: Canvas, outline, fabric, unit: float, turn=0.0, **how) -> None:
    """Paint a piece of clothing whose pattern follows the limb it is on."""
    if isinstance(fabric, Cloth):
        fabric = replace(fabric, angle=fabric.angle + turn)
    settings = {"relief": 0.55, "folds": 0.09, "soft": max(0.8, unit * 0.006)} | how
    canvas.paint(outline, fabric, **settings)
