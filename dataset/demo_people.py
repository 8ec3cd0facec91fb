"""People of the built-in demo data set: bodies, poses and clothes.

It never reads or writes a file: every picture is a function of the generator it is handed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.random import Generator
from PIL import Image

from .demo_brush import (
    SCALE,
    Canvas,
    cloth,
    colour,
    curve,
    ellipse,
    frame,
    hairs,
    noise,
    pick,
    tube,
    wear,
)
from .demo_heads import Look, back_hair, beard, bezier, face, front_hair, glasses, hat, random_look
from .demo_objects import OBJECT_KINDS, paint_object

# an arm's angles from hanging straight down: upper arm, forearm; below 0 is inwards
POSES = ((8, 3), (14, -8), (12, 10), (42, -58), (48, -50), (22, -105), (18, -80))
POSES += ((150, 172), (120, 175), (85, 95), (70, 160), (165, 150), (28, -165), (95, 20))


def hand(canvas: Canvas, wrist, way: np.ndarray, unit: float, skin, limb: float) -> None:
    """A palm, four fingers and a thumb that point along `way`."""
    rng = canvas.rng
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
    canvas.paint(tube(edge, [0.11 * unit * limb, 0.15 * unit, 0.12 * unit]), skin, relief=0.3)


def arm(canvas: Canvas, look: Look, body, unit: float, side: int, pose, held: str | None) -> None:
    """One arm from shoulder to fingertips, with its sleeve and what the hand holds."""
    rng = canvas.rng
    a, b = np.radians(np.array(pose) + rng.normal(0, 6, 2))
    shoulder = np.array([side * (look.shoulder - 0.17), 1.66])
    elbow = shoulder + 1.35 * np.array([side * np.sin(a), np.cos(a)])
    wrist = elbow + 1.12 * np.array([side * np.sin(b), np.cos(b)])
    joints = body([shoulder, (shoulder + elbow) / 2, elbow, (elbow + wrist) / 2, wrist])
    way = (joints[4] - joints[2]) / np.linalg.norm(joints[4] - joints[2])
    upper = np.arctan2(*(joints[2] - joints[0])[::-1]) - np.pi / 2
    thick = np.array([0.23, 0.2, 0.165, 0.15, 0.1]) * look.limb * unit
    for part in (slice(0, 3), slice(2, 5)):
        canvas.paint(tube(joints[part], thick[part]), look.skin, relief=0.45)
    if held:
        size = unit * rng.uniform(0.7, 1.3)
        base = joints[4] + way * 0.2 * unit + (0, size * 0.4)
        paint_object(canvas, held, *base, size, rng.normal(0, 0.2))
    hand(canvas, joints[4], way, unit, look.skin, look.limb)
    lower = np.arctan2(*way[::-1]) - np.pi / 2
    middle = (joints[0] + joints[1]) / 2
    sleeves = {
        "long": ((joints[2:], (0.22, 0.2, 0.18), lower), (joints[:3], (0.27, 0.25, 0.22), upper)),
        "short": (((joints[0], middle, joints[1]), (0.28, 0.28, 0.27), upper),),
        "none": (),
    }
    for path, fit, turn in sleeves[look.sleeve]:
        outline = tube(path, np.array(fit) * look.limb * unit)
        wear(canvas, outline, look.top, unit, turn)
        if look.fuzz:
            n = int(500 * look.fuzz) + 80
            hairs(canvas, outline, unit * (0.03 + 0.06 * look.fuzz), n, look.top.one)


def torso(canvas: Canvas, look: Look, body, unit: float) -> None:
    """Neck, chest and hips with the garment over them."""
    rng = canvas.rng
    sh, wa, hi = look.shoulder, look.waist, look.hip
    neck = tube([(0, 0.7), (0, 1.15), (0, 1.5)], [0.2 * look.limb, 0.2 * look.limb, 0.3])
    side = [(0.2, 1.3), (sh * 0.6, 1.42), (sh * 0.92, 1.53), (sh, 1.75), (sh * 0.86, 2.2)]
    side += [(wa, 3.0), (hi, 3.75), (hi * 1.02, 4.25)]
    chest = body(curve(side + [(-x, y) for x, y in reversed(side)]))
    if look.sleeve == "none":
        canvas.paint(chest, look.skin, relief=0.4)
        side[:4] = [(0.3, 1.45), (sh * 0.5, 1.46), (sh * 0.68, 1.75), (sh * 0.78, 1.95)]
        chest = body(curve(side + [(-x, y) for x, y in reversed(side)]))
    wear(canvas, chest, look.top, unit, relief=0.6, folds=0.1)
    if look.fuzz:
        hairs(
            canvas,
            chest,
            unit * (0.03 + 0.06 * look.fuzz),
            int(1500 * look.fuzz) + 200,
            look.top.one,
        )
    dark = np.clip(look.top.one * 0.55, 0, 1)
    opening = pick(rng, "round", "vee", "coat", "shirt", "print")
    deep = {"vee": 1.95, "coat": 2.3, "shirt": 1.75}.get(opening, 1.56)
    throat = [(-0.26, 1.33), (0.26, 1.33), (0.12 if deep < 1.7 else 0.02, deep)]
    throat.append((-throat[2][0], deep))
    if opening == "coat":
        inner = [(-0.3, 1.3), (0.3, 1.3), (0.24, 4.4), (-0.24, 4.4)]
        wear(canvas, body(inner), replace(look.bottom, one=colour(rng)), unit)
        for s in (-1, 1):
            flap = [(s * 0.24, 1.28), (s * 0.5, 1.6), (s * 0.42, 1.75), (s * 0.5, 1.9)]
            wear(canvas, body([*flap, (s * 0.12, 2.9)]), np.clip(look.top.one * 0.8, 0, 1), unit)
    canvas.paint(body(curve(throat, steps=4)), look.skin * 0.93, soft=1.0)
    canvas.paint(body(neck), look.skin * 0.9, relief=0.4)
    canvas.shade(body(ellipse(0.03, 1.08, 0.3, 0.2)), 0.68, unit * 0.07)
    if opening == "shirt":
        for s in (-1, 1):
            collar = [(s * 0.2, 1.15), (s * 0.36, 1.36), (s * 0.2, 1.68), (s * 0.02, 1.72)]
            canvas.paint(body([*collar, (s * 0.17, 1.42)]), look.top.one * 0.9, relief=0.3)
        canvas.flat([body([(0, 1.75), (0, 4.3)])], dark, width=max(1, int(unit * 0.015)))
        for y in np.arange(1.95, 4.2, 0.42):
            canvas.paint(body(ellipse(0.05, y, 0.03, 0.03)), colour(rng), soft=0.5)
    elif opening == "print":
        t = np.linspace(0, 2 * np.pi, 10, endpoint=False)
        r = np.where(np.arange(10) % 2, rng.uniform(0.15, 0.4), 0.4)
        star = np.stack([r * np.sin(t), 2.3 - r * np.cos(t)], 1)
        canvas.paint(body(star), colour(rng, sat=(0.4, 0.9)), opacity=0.85, atop=True)
    for s in (-1, 1):  # the shade beside each arm
        canvas.shade(body(tube([(s * sh, 2.0), (s * wa * 1.1, 3.4)], [0.1, 0.1])), 0.75, unit * 0.1)


def legs(canvas: Canvas, look: Look, body, unit: float) -> None:
    """Legs with trousers or a skirt, and shoes, for whole-body figures."""
    rng = canvas.rng
    apart = rng.uniform(0.25, 0.55)
    skirt = rng.random() < 0.35
    shoe = colour(rng, val=(0.08, 0.9))
    for s in (-1, 1):
        joints = [(s * look.hip * 0.52, 3.9), (s * (0.3 + apart * 0.3), 5.5), (s * apart, 7.1)]
        toe = s * (apart + rng.uniform(0.1, 0.35))
        foot = tube([(s * apart, 7.16), (toe, 7.25)], [0.15, 0.12])
        canvas.paint(body(foot), shoe, relief=0.6)
        if skirt:
            canvas.paint(body(tube(joints, [0.3, 0.19, 0.11])), look.skin, relief=0.5)
        else:
            fit = np.array([0.42, 0.29, 0.21]) * look.limb
            wear(canvas, body(tube(joints, fit)), look.bottom, unit)
    if skirt:
        low, wide = rng.uniform(5.0, 6.6), rng.uniform(0.8, 1.3)
        hem = [(x, low + rng.normal(0, 0.06)) for x in np.linspace(wide, -wide, 6)]
        outline = [(-look.waist, 3.1), (look.waist, 3.1), (look.hip, 3.9), *hem, (-look.hip, 3.9)]
        sheer = pick(rng, 1.0, 1.0, 0.75)
        wear(canvas, body(outline), look.bottom, unit, folds=0.16, opacity=sheer)
    else:
        hips = ellipse(0, 4.0, look.hip * 1.02, 0.42)
        wear(canvas, body(hips), look.bottom, unit, relief=0.25)


def veil(canvas: Canvas, look: Look, body, unit: float) -> None:
    """Thin cloth over head and shoulders through which the background shows."""
    rng = canvas.rng
    tone, low = colour(rng, sat=(0, 0.5), val=(0.6, 1.0)), rng.uniform(2.0, 3.6)
    side = [(0.2, -0.16), (look.face + 0.25, 0.2), (look.face + rng.uniform(0.3, 0.5), 1.0)]
    side += [(look.shoulder + rng.uniform(0.2, 0.5), 2.0), (look.shoulder + 0.4, low)]
    outline = body(curve(side + [(x - 2 * x, y + rng.normal(0, 0.1)) for x, y in reversed(side)]))
    canvas.paint(outline, tone, folds=0.3, soft=unit * 0.015, opacity=rng.uniform(0.25, 0.55))
    hem = np.concatenate([outline, outline[:1]])
    canvas.flat([hem], tone, 0.5, max(2, int(unit * 0.03)), soft=1.5)


def scarf(canvas: Canvas, look: Look, body, unit: float) -> None:
    """A knitted scarf with a fringe of threads, one end hanging down or blown aside."""
    rng = canvas.rng
    wool = cloth(rng, unit, ("knit", "stripes", "checks", "tweed"))
    s, blown = pick(rng, -1, 1), rng.uniform(0.0, 1.2)
    end = np.array([s * (0.35 + blown), 2.9 - blown * 0.7])
    tail = body(tube([(s * 0.25, 1.4), (s * (0.3 + blown / 3), 2.1), end], [0.15, 0.2, 0.2]))
    wear(canvas, tail, wool, unit, s * blown)
    n = 160
    root = end + rng.uniform(-0.18, 0.18, (n, 2)) * (1, 0.4)
    way = np.array([s * blown * 0.3, 0.35]) + rng.normal(0, 0.05, (n, 2))
    canvas.strands(body(bezier(root, root + way * 0.5, root + way)), wool.one, 0.2)
    loop = body(tube([(-0.42, 1.3), (0, 1.5), (0.42, 1.3)], [0.18, 0.22, 0.18]))
    wear(canvas, loop, wool, unit, relief=0.7)
    hairs(canvas, loop, unit * 0.06, 300, wool.one)


def smeared(canvas: Canvas, draw: Callable[[Canvas], None], way) -> None:
    """Draw on a layer of its own and lay it down blurred along `way`: a limb in motion."""
    layer = Canvas(canvas.w // SCALE, canvas.h // SCALE, canvas.rng)
    layer.light = canvas.light
    draw(layer)
    moved = sum(np.roll(layer.rgba, (int(way[1] * i), int(way[0] * i)), (0, 1)) for i in range(5))
    canvas.rgba *= 1 - moved[..., 3:] / 5
    canvas.rgba += moved / 5


def person(canvas: Canvas, x: float, y: float, unit: float, whole: bool) -> None:
    """One person whose skull's top is at (x, y) and whose head is `unit` canvas pixels high."""
    rng = canvas.rng
    look = random_look(rng, unit)
    lean = rng.normal(0, 0.03 if whole else 0.06)
    body = frame((x, y), unit, lean)
    head = frame(body((0, 1.15)), unit * 1.1, lean + rng.normal(0, 0.09), pivot=(0, 1.0))
    extra = rng.random(6)
    poses = [POSES[int(rng.integers(len(POSES)))] for _ in range(2)]
    if extra[0] < 0.35:
        poses[1] = poses[0]
    back_hair(canvas, look, head, unit)
    if whole:
        legs(canvas, look, body, unit)
    held = pick(rng, *OBJECT_KINDS) if extra[1] < 0.2 else None
    arms = []
    for side, pose in zip((-1, 1), poses, strict=True):
        item = held if side == 1 else None
        behind = pose[0] > 100 or (pose[0] < 15 and rng.random() < 0.5)
        arms.append((behind, side, pose, item))

    def reach(behind: bool) -> None:
        for back, side, pose, item in arms:
            if back != behind:
                continue
            if pose[0] > 60 and extra[2] < 0.35:
                way = rng.normal(0, 0.02, 2) * unit
                smeared(canvas, partial(arm, **how), way)
            else:
                arm(canvas, **how)

    reach(True)
    torso(canvas, look, body, unit)
    if extra[3] < 0.15:
        scarf(canvas, look, body, unit)
    face(canvas, look, head, unit)
    if extra[4] < (0.8 if look.style == "bald" else 0.2):
        beard(canvas, look, head, unit)
    if look.style != "bald":
        front_hair(canvas, look, head, unit)
    if rng.random() < 0.25:
        glasses(canvas, look, head, unit)
    if rng.random() < 0.15 and look.style != "afro":
        hat(canvas, look, head, unit)
    reach(False)
    if extra[5] < 0.1:
        veil(canvas, look, body, unit)


def draw_figure(rng: Generator, width: int, height: int) -> tuple[Image.Image, Image.Image]:
    """One or two people: (fgr, pha), RGB and L, both width x height.

    pha is soft at hair and cloth; fgr has true colours, continued beyond the edge of pha.
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
        y = canvas.h * rng.uniform(0.93, 0.99) - 7.3 * size
        if shot != "whole":
            y = max(canvas.h * rng.uniform(0.04, 0.22), canvas.h - 4.0 * size)
        person(
            canvas, canvas.w * float(np.clip(place, 0.15, 0.85)), y, size, shot in ("whole", "knee")
        )
    tint = 1 + 0.1 * np.clip(rng.standard_normal(3), -1.5, 1.5) * rng.random()
    glow = np.clip(1 + 0.12 * noise(rng, width, height, 2, 2), 0.6, 1.3)[..., None]
    light = (glow * tint * rng.uniform(0.75, 1.08)).astype(np.float32)
    return canvas.cutout(pick(rng, 0.0, 0.0, rng.uniform(0, 0.6)), light)
