"""People of the built-in demo data set: bodies, poses and clothes.

It never reads or writes a file: every picture is a function of the generator it is handed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.random import Generator
from PIL import Image

from dataset.demo.brush import (
    SCALE,
    Canvas,
    cloth,
    colour,
    curve,
    ellipse,
    hairs,
    noise,
    pick,
    tube,
    wear,
)
from dataset.demo.heads import (
    Person,
    back_hair,
    beard,
    bezier,
    face,
    front_hair,
    glasses,
    hat,
    random_person,
)
from dataset.demo.objects import OBJECT_KINDS, paint_object

# an arm's angles from hanging straight down: upper arm, forearm; below 0 is inwards
POSES: tuple = ((8, 3), (14, -8), (12, 10), (42, -58), (48, -50), (22, -105), (18, -80))
POSES += ((150, 172), (120, 175), (85, 95), (70, 160), (165, 150), (28, -165), (95, 20))


def hand(canvas: Canvas, look: Person, wrist, way: np.ndarray) -> None:
    """A palm, four fingers and a thumb that point along `way`."""
    rng, unit, skin = canvas.rng, look.unit, look.skin
    side = np.array([-way[1], way[0]]) * pick(rng, -1, 1)
    spread, bend = rng.uniform(0.0, 0.3), rng.uniform(0.45, 1.0)
    palm = np.array(wrist) + way * 0.17 * unit
    for i, reach in enumerate((0.26, 0.3, 0.28, 0.22)):
        offset = (i - 1.5) * 0.075 * unit
        tip = palm + way * reach * unit * bend + side * offset * (1 + spread * 2)
        knuckle = palm + side * offset + way * 0.07 * unit
        shade = skin * (0.86 + 0.05 * i)
        canvas.paint(tube([knuckle, tip], [0.042 * unit, 0.032 * unit]), shade, relief=0.3)
    thumb = [palm - side * 0.1 * unit, palm - side * (0.17 + spread / 4) * unit + way * 0.1 * unit]
    canvas.paint(tube(thumb, [0.05 * unit, 0.035 * unit]), skin * 0.95, relief=0.3)
    edge = [wrist, palm, palm + way * 0.1 * unit]
    canvas.paint(tube(edge, [0.11 * unit * look.limb, 0.15 * unit, 0.12 * unit]), skin, relief=0.3)


def arm(canvas: Canvas, look: Person, side: int, pose, held: str | None) -> None:
    """One arm from shoulder to fingertips, with its sleeve and what the hand holds."""
    rng = canvas.rng
    a, b = np.radians(np.array(pose) + rng.normal(0, 6, 2))
    shoulder = np.array([side * (look.shoulder - 0.17), 1.66])
    elbow = shoulder + 1.35 * np.array([side * np.sin(a), np.cos(a)])
    wrist = elbow + 1.12 * np.array([side * np.sin(b), np.cos(b)])
    joints = look.body([shoulder, (shoulder + elbow) / 2, elbow, (elbow + wrist) / 2, wrist])
    way = (joints[4] - joints[2]) / np.linalg.norm(joints[4] - joints[2])
    upper = np.arctan2(*(joints[2] - joints[0])[::-1]) - np.pi / 2
    thick = np.array([0.23, 0.2, 0.165, 0.15, 0.1]) * look.limb * look.unit
    for part in (slice(0, 3), slice(2, 5)):
        canvas.paint(tube(joints[part], thick[part]), look.skin, relief=0.45)
    if held:
        size = look.unit * rng.uniform(0.7, 1.3)
        base = joints[4] + way * 0.2 * look.unit + (0, size * 0.4)
        paint_object(canvas, held, base, size, rng.normal(0, 0.2))
    hand(canvas, look, joints[4], way)
    lower = np.arctan2(*way[::-1]) - np.pi / 2
    middle = (joints[0] + joints[1]) / 2
    sleeves = {
        "long": ((joints[2:], (0.22, 0.2, 0.18), lower), (joints[:3], (0.27, 0.25, 0.22), upper)),
        "short": (((joints[0], middle, joints[1]), (0.28, 0.28, 0.27), upper),),
        "none": (),
    }
    for path, fit, turn in sleeves[look.sleeve]:
        outline = tube(path, np.array(fit) * look.limb * look.unit)
        wear(canvas, outline, look.top, look.unit, turn)
        if look.fuzz:
            n = int(500 * look.fuzz) + 80
            hairs(canvas, outline, look.unit * (0.03 + 0.06 * look.fuzz), n, look.top.one)


def torso(canvas: Canvas, look: Person) -> None:
    """Neck, chest and hips with the garment over them."""
    rng = canvas.rng
    sh, wa, hi = look.shoulder, look.waist, look.hip
    neck = tube([(0, 0.7), (0, 1.15), (0, 1.45)], [0.21 * look.limb, 0.2 * look.limb, 0.27])
    canvas.paint(look.body(neck), look.skin * 0.92, relief=0.4)
    side = [(0.2, 1.3), (sh * 0.6, 1.42), (sh * 0.92, 1.53), (sh, 1.75), (sh * 0.86, 2.2)]
    side += [(wa, 3.0), (hi, 3.75), (hi * 1.02, 4.25)]
    chest = look.body(curve(side + [(-x, y) for x, y in reversed(side)]))
    if look.sleeve == "none":
        canvas.paint(chest, look.skin, relief=0.4)
        side[:4] = [(0.3, 1.45), (sh * 0.5, 1.46), (sh * 0.68, 1.75), (sh * 0.78, 1.95)]
        chest = look.body(curve(side + [(-x, y) for x, y in reversed(side)]))
    wear(canvas, chest, look.top, look.unit, relief=0.6, folds=0.1)
    if look.fuzz:
        hairs(
            canvas,
            chest,
            look.unit * (0.03 + 0.06 * look.fuzz),
            int(1500 * look.fuzz) + 200,
            look.top.one,
        )
    dark = np.clip(look.top.one * 0.55, 0, 1)
    opening = pick(rng, "round", "vee", "coat", "shirt", "print")
    deep = {"vee": 1.9, "coat": 2.3, "shirt": 1.75}.get(opening, 1.5)
    throat = [(-0.26, 1.33), (0.26, 1.33), (0.12 if deep < 1.7 else 0.02, deep)]
    throat.append((-throat[2][0], deep))
    if opening == "coat":
        inner = [(-0.3, 1.3), (0.3, 1.3), (0.24, 4.4), (-0.24, 4.4)]
        wear(canvas, look.body(inner), replace(look.bottom, one=colour(rng)), look.unit)
        for s in (-1, 1):
            flap = [(s * 0.24, 1.28), (s * 0.5, 1.6), (s * 0.42, 1.75), (s * 0.5, 1.9)]
            wear(
                canvas,
                look.body([*flap, (s * 0.12, 2.9)]),
                np.clip(look.top.one * 0.8, 0, 1),
                look.unit,
            )
    canvas.paint(look.body(curve(throat, steps=4)), look.skin * 0.92, soft=1.0)
    canvas.paint(
        look.body(tube([(0, 0.8), (0, 1.3)], [0.2 * look.limb] * 2)), look.skin * 0.9, relief=0.4
    )
    canvas.shade(look.body(ellipse(0.03, 1.08, 0.3, 0.2)), 0.68, look.unit * 0.07)
    if opening == "shirt":
        for s in (-1, 1):
            collar = [(s * 0.2, 1.15), (s * 0.36, 1.36), (s * 0.2, 1.68), (s * 0.02, 1.72)]
            canvas.paint(look.body([*collar, (s * 0.17, 1.42)]), look.top.one * 0.9, relief=0.3)
        canvas.flat([look.body([(0, 1.75), (0, 4.3)])], dark, width=max(1, int(look.unit * 0.015)))
        for y in np.arange(1.95, 4.2, 0.42):
            canvas.paint(look.body(ellipse(0.05, y, 0.03, 0.03)), colour(rng), soft=0.5)
    elif opening == "print":
        points = 2 * int(rng.integers(3, 9))
        t = np.linspace(0, 2 * np.pi, points, endpoint=False)
        r = np.where(np.arange(points) % 2, rng.uniform(0.15, 0.4), 0.4)
        star = np.stack([r * np.sin(t), 2.3 - r * np.cos(t)], 1)
        canvas.paint(look.body(star), colour(rng, sat=(0.4, 0.9)), opacity=0.85, atop=True)
    for s in (-1, 1):  # the shade beside each arm
        canvas.shade(
            look.body(tube([(s * sh, 2.0), (s * wa * 1.1, 3.4)], [0.1, 0.1])), 0.75, look.unit * 0.1
        )


def legs(canvas: Canvas, look: Person) -> None:
    """Legs with trousers or a skirt, and shoes, for whole-body figures."""
    rng = canvas.rng
    apart = rng.uniform(0.25, 0.55)
    skirt = rng.random() < 0.35
    shoe = colour(rng, val=(0.08, 0.9))
    for s in (-1, 1):
        joints = [(s * look.hip * 0.52, 3.9), (s * (0.3 + apart * 0.3), 5.5), (s * apart, 7.1)]
        toe = s * (apart + rng.uniform(0.1, 0.35))
        foot = tube([(s * apart, 7.16), (toe, 7.25)], [0.15, 0.12])
        canvas.paint(look.body(foot), shoe, relief=0.6)
        if skirt:
            canvas.paint(look.body(tube(joints, [0.3, 0.19, 0.11])), look.skin, relief=0.5)
        else:
            fit = np.array([0.42, 0.29, 0.21]) * look.limb
            wear(canvas, look.body(tube(joints, fit)), look.bottom, look.unit)
    if skirt:
        low, wide = rng.uniform(5.0, 6.6), rng.uniform(0.8, 1.3)
        hem = [(x, low + rng.normal(0, 0.06)) for x in np.linspace(wide, -wide, 6)]
        outline = [(-look.waist, 3.1), (look.waist, 3.1), (look.hip, 3.9), *hem, (-look.hip, 3.9)]
        sheer = pick(rng, 1.0, 1.0, 0.75)
        wear(canvas, look.body(outline), look.bottom, look.unit, folds=0.16, opacity=sheer)
    else:
        hips = ellipse(0, 4.0, look.hip * 1.02, 0.42)
        wear(canvas, look.body(hips), look.bottom, look.unit, relief=0.25)


def veil(canvas: Canvas, look: Person) -> None:
    """Thin cloth over head and shoulders through which the background shows."""
    rng = canvas.rng
    tone, low = colour(rng, sat=(0, 0.5), val=(0.6, 1.0)), rng.uniform(2.0, 3.6)
    side = [(0.2, -0.16), (look.face + 0.25, 0.2), (look.face + rng.uniform(0.3, 0.5), 1.0)]
    side += [(look.shoulder + rng.uniform(0.2, 0.5), 2.0), (look.shoulder + 0.4, low)]
    outline = look.body(
        curve(side + [(x - 2 * x, y + rng.normal(0, 0.1)) for x, y in reversed(side)])
    )
    canvas.paint(outline, tone, folds=0.3, soft=look.unit * 0.015, opacity=rng.uniform(0.25, 0.55))
    hem = np.concatenate([outline, outline[:1]])
    canvas.flat([hem], tone, 0.5, width=max(2, int(look.unit * 0.03)), soft=1.5)


def scarf(canvas: Canvas, look: Person) -> None:
    """A knitted scarf with a fringe of threads, one end hanging down or blown aside."""
    rng = canvas.rng
    wool = cloth(rng, look.unit, ("knit", "stripes", "checks", "tweed"))
    s, blown = pick(rng, -1, 1), rng.uniform(0.0, 1.2)
    end = np.array([s * (0.35 + blown), 2.9 - blown * 0.7])
    tail = look.body(tube([(s * 0.25, 1.4), (s * (0.3 + blown / 3), 2.1), end], [0.15, 0.2, 0.2]))
    wear(canvas, tail, wool, look.unit, s * blown)
    n = 160
    root = end + rng.uniform(-0.18, 0.18, (n, 2)) * (1, 0.4)
    way = np.array([s * blown * 0.3, 0.35]) + rng.normal(0, 0.05, (n, 2))
    canvas.strands(look.body(bezier(root, root + way * 0.5, root + way)), wool.one, 0.2)
    loop = look.body(tube([(-0.42, 1.3), (0, 1.5), (0.42, 1.3)], [0.18, 0.22, 0.18]))
    wear(canvas, loop, wool, look.unit, relief=0.7)
    hairs(canvas, loop, look.unit * 0.06, 300, wool.one)


def moved(rgba: np.ndarray, dx: int, dy: int) -> np.ndarray:
    """A layer shifted by whole pixels, empty where nothing comes in."""
    h, w = rgba.shape[:2]
    result = np.zeros_like(rgba)
    to = slice(max(dy, 0), h + min(dy, 0)), slice(max(dx, 0), w + min(dx, 0))
    result[to] = rgba[max(-dy, 0) : h - max(dy, 0), max(-dx, 0) : w - max(dx, 0)]
    return result


def smeared(canvas: Canvas, draw: Callable[[Canvas], None], way) -> None:
    """Draw on a layer of its own and lay it down blurred along `way`: a limb in motion."""
    layer = Canvas(canvas.w // SCALE, canvas.h // SCALE, canvas.rng)
    layer.light = canvas.light
    draw(layer)
    rgba = layer.rgba
    for part in (0.5, 0.25, 0.125, 0.0625):  # doubling: sixteen copies in four steps
        rgba = (rgba + moved(rgba, *(np.rint(way * part).astype(int)))) / 2
    canvas.rgba *= 1 - rgba[..., 3:]
    canvas.rgba += rgba


def draw_person(canvas: Canvas, at, unit: float, whole: bool) -> None:
    """One person whose skull's top is at point `at` and whose head is `unit` pixels high."""
    rng = canvas.rng
    look = random_person(rng, at, unit, 0.03 if whole else 0.06)
    poses = [POSES[i] for i in rng.integers(len(POSES), size=2)]
    if rng.random() < 0.35:
        poses[1] = poses[0]
    front: list[partial] = []
    back: list[partial] = []
    held = pick(rng, *OBJECT_KINDS) if rng.random() < 0.2 else None
    for side, pose, item in zip((-1, 1), poses, (None, held), strict=True):
        behind = pose[0] > 100 or (pose[0] < 15 and rng.random() < 0.5)
        limb = partial(arm, look=look, side=side, pose=pose, held=item)
        if pose[0] > 60 and rng.random() < 0.3:
            limb = partial(smeared, draw=limb, way=rng.normal(0, 0.15, 2) * unit)
        (back if behind else front).append(limb)

    back_hair(canvas, look)
    if whole:
        legs(canvas, look)
    for draw in back:
        draw(canvas)
    torso(canvas, look)
    if rng.random() < 0.15:
        scarf(canvas, look)
    face(canvas, look)
    if rng.random() < (0.8 if look.style == "bald" else 0.2):
        beard(canvas, look)
    if look.style != "bald":
        front_hair(canvas, look)
    if rng.random() < 0.25:
        glasses(canvas, look)
    if rng.random() < 0.15 and look.style != "afro":
        hat(canvas, look)
    for draw in front:
        draw(canvas)
    if rng.random() < 0.1:
        veil(canvas, look)


def draw_figure(rng: Generator, width: int, height: int) -> tuple[Image.Image, Image.Image]:
    """One or two people: (fgr, pha), RGB and L, both width x height.

    pha is soft at hair and cloth; fgr has true colours, continued beyond the edge of pha.
    Raises ValueError for a side below 16.
    """
    canvas = Canvas(width, height, rng)
    shot = pick(rng, "close", "half", "half", "half", "knee", "whole", "whole")
    low, high = {"close": (0.36, 0.5), "half": (0.24, 0.34), "knee": (0.16, 0.21)}.get(
        shot, (0.105, 0.128)
    )
    several = rng.random() < 0.15
    unit = min(canvas.h * rng.uniform(low, high), canvas.w * (0.2 if several else 0.3))
    places = (
        (rng.uniform(0.2, 0.35), rng.uniform(0.65, 0.8)) if several else (rng.normal(0.5, 0.1),)
    )
    for place in places:
        size = unit * rng.uniform(0.9, 1.1)
        y = max(canvas.h * rng.uniform(0.93, 0.99) - 7.3 * size, 0.25 * size)
        if shot != "whole":
            y = max(canvas.h * rng.uniform(0.04, 0.22), canvas.h - 4.0 * size)
        x = canvas.w * float(np.clip(place, 0.15, 0.85))
        draw_person(canvas, (x, y), size, shot in ("whole", "knee"))
    tint = 1 + 0.1 * np.clip(rng.standard_normal(3), -1.5, 1.5) * rng.random()
    glow = np.clip(1 + 0.12 * noise(rng, width, height, 2, 2), 0.6, 1.3)[..., None]
    light = (glow * tint * rng.uniform(0.72, 1.0)).astype(np.float32)
    return canvas.cutout(pick(rng, 0.0, 0.0, rng.uniform(0, 0.6)), light)
