"""A segmentation task drawn by the demo's own hand: scenes of people and objects, with labels.

Imports nothing heavy, since its processes are started afresh.
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
from PIL import Image

from dataset.demo import OBJECT_KINDS, draw_background, draw_figure, draw_object

CLASSES = ("background", "person", *OBJECT_KINDS)
STREAM = 7_000_000  # of random numbers, apart from those that draw the demo data set


def draw_scene(number: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Scene `number`: uint8 (side, side, 3), and the class of each pixel, uint8 (side, side)."""
    rng = np.random.default_rng([STREAM, number])
    scene = draw_background(rng, side, side)
    labels = np.zeros((side, side), dtype=np.uint8)

    def place(fgr: Image.Image, pha: Image.Image, label: int) -> None:
        left = int(rng.integers(-pha.width // 4, side - 3 * pha.width // 4 + 1))
        top = int(rng.integers(0, side - pha.height // 2 + 1))
        scene.paste(fgr, (left, top), pha)
        mask = Image.new("L", (side, side))
        mask.paste(pha, (left, top))
        labels[np.asarray(mask) > 127] = label

    for _ in range(rng.integers(0, 3)):
        size = int(side * rng.uniform(0.3, 0.6))
        kind, fgr, pha = draw_object(rng, size, size)
        place(fgr, pha, CLASSES.index(kind))
    if rng.random() < 0.7:
        size = int(side * rng.uniform(0.6, 1.0))
        place(*draw_figure(rng, size, size), CLASSES.index("person"))
    return np.asarray(scene), labels


def draw_scenes(first: int, count: int, side: int, processes: int) -> tuple[np.ndarray, np.ndarray]:
    """Scenes first .. first + count - 1, stacked; the same with any number of processes."""
    numbers = range(first, first + count)
    draw = partial(draw_scene, side=side)
    if processes > 1:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, mp_context=context) as pool:
            drawn = list(pool.map(draw, numbers, chunksize=8))
    else:
        drawn = [draw(number) for number in numbers]
    scenes, labels = zip(*drawn, strict=True)
    return np.stack(scenes), np.stack(labels)
