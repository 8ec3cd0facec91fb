"""The report: one HTML page that needs nothing else, with figures, distributions and pictures.

The page is report.html beside this file; here is what it shows. It fetches nothing, and whatever
a file is called stays text.
"""

import base64
import heapq
import io
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from common.files import write_bytes
from common.text import plural
from evaluation.scores import (
    TITLES,
    WHOLE_IMAGE,
    Batch,
    Result,
    Score,
    said_of_empty,
    units,
)
from prediction.frames import read_rgb

PICTURE_SIDE = 480  # pixels: the longer side of the page's pictures
HISTOGRAM_BINS = 24
# What an error is painted with, from none to the whole of alpha: too opaque, too transparent.
NONE, OPAQUE, TRANSPARENT = (18, 18, 20), (255, 150, 30), (60, 150, 255)
DIM_WHERE_UNMEASURED = 0.3  # of that, where it was not measured


@dataclass(frozen=True)
class Pictured:
    """An image on the page: its score, its size, and its pictures by name, data URIs: true_pha,
    pred_pha, error, and, where there are colours, src and fgr, which is for composites."""

    score: Score
    width: int
    height: int
    pictures: dict[str, str]


class Gallery:
    """Keeps the pictures of the worst images (by MAD), of `at_most`, while all are measured."""

    def __init__(self, at_most: int) -> None:
        self.at_most = at_most
        self._heap: list[tuple[float, int, Pictured]] = []
        self._count = 0

    def offer(self, score: Score, batch: Batch, place: int) -> None:
        """score: of the image at this place of the batch. Raises DataError where its photo is read
        and cannot be."""
        error, full = score.figures["mad"], len(self._heap) == self.at_most
        if not self.at_most or (full and error <= self._heap[0][0]):
            return
        self._count += 1
        item = (error, -self._count, pictured(score, batch, place))  # of two alike the first stays
        if full:
            heapq.heapreplace(self._heap, item)
        else:
            heapq.heappush(self._heap, item)

    def worst_first(self) -> list[Pictured]:
        kept = sorted(self._heap, key=lambda item: (-item[0], item[2].score.name))
        return [picture for _, _, picture in kept]


def pictured(score: Score, batch: Batch, place: int) -> Pictured:
    true_pha, pred_pha = (x[place, 0].cpu().numpy() for x in (batch.true_pha, batch.pred_pha))
    region = None if batch.region is None else batch.region[place, 0].cpu().numpy()
    pictures = {
        "true_pha": _png(_picture(true_pha)),
        "pred_pha": _png(_picture(pred_pha)),
        "error": _jpeg(Image.fromarray(error_map(pred_pha, true_pha, region))),
    }
    if batch.src is not None:
        pictures["src"] = _jpeg(_picture(batch.src[place].permute(1, 2, 0).cpu().numpy()))
    elif batch.src_files:
        pictures["src"] = _jpeg(Image.fromarray(read_rgb(batch.src_files[place])))
    if batch.pred_fgr is not None:
        pictures["fgr"] = _jpeg(_picture(batch.pred_fgr[place].permute(1, 2, 0).cpu().numpy()))
    height, width = true_pha.shape
    return Pictured(score, width, height, pictures)


def error_map(
    pred_pha: np.ndarray, true_pha: np.ndarray, region: np.ndarray | None = None
) -> np.ndarray:
    """(H, W, 3) uint8: dark where alphas (H, W) are alike, orange where the prediction is too
    opaque, blue where it is too transparent; dim outside of region, (H, W) bool. By the root of the
    error, so that small ones show."""
    difference = pred_pha - true_pha
    strength = np.sqrt(np.abs(difference))
    if region is not None:
        strength = np.where(region, strength, DIM_WHERE_UNMEASURED * strength)
    base, opaque, transparent = (np.array(colour) for colour in (NONE, OPAQUE, TRANSPARENT))
    colour = np.where(difference[..., None] > 0, opaque, transparent)
    return (base + (colour - base) * strength[..., None]).round().clip(0, 255).astype(np.uint8)


def _picture(values: np.ndarray) -> Image.Image:
    """values: (H, W) or (H, W, 3), 0..1."""
    return Image.fromarray((values * 255).round().clip(0, 255).astype(np.uint8))


def _scaled(image: Image.Image) -> Image.Image:
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.BOX)
    return image


def _png(image: Image.Image) -> str:
    return _uri(_scaled(image), "PNG", optimize=True)


def _jpeg(image: Image.Image) -> str:
    # Colours at full scale: an error is often a line of one pixel.
    return _uri(_scaled(image), "JPEG", quality=85, subsampling=0)


def _uri(image: Image.Image, kind: str, **how: object) -> str:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


# ------------------------------------------------------------------------------------------------
# Distributions


@dataclass(frozen=True)
class Bar:
    """How many images have a figure in [low, high), the last bar's end included; share: of the
    fullest bar."""

    low: float
    high: float
    count: int
    share: float


@dataclass(frozen=True)
class Distribution:
    title: str
    bars: list[Bar]
    least: float
    median: float
    mean: float
    most: float

    def place(self, value: float) -> float:
        """Where on the axis of the bars, 0..1."""
        low, high = self.bars[0].low, self.bars[-1].high
        return (value - low) / (high - low)


def distribution(title: str, values: list[float]) -> Distribution:
    """Bars of like width from 0 to the greatest value."""
    high = max(values) or 1.0
    bins = min(HISTOGRAM_BINS, max(5, math.ceil(2 * math.sqrt(len(values)))))
    counts, edges = np.histogram(values, bins, (0, high))
    bars = [
        Bar(float(low), float(up), int(count), float(count / counts.max()))
        for low, up, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    mean = sum(values) / len(values)
    return Distribution(title, bars, min(values), median(values), mean, max(values))


# ------------------------------------------------------------------------------------------------
# The page


def write_report(path: Path, result: Result, gallery: Gallery, title: str) -> None:
    """title: what was measured, for the head. Raises OSError."""
    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("report.html")
    names, pictures = list(result.images[0].figures), gallery.worst_first()
    text = page.render(
        title=title,
        result=result,
        pictured=pictures,
        places={each.score.name: place for place, each in enumerate(pictures, 1)},
        names=names,
        titles=TITLES,
        units=units(result),
        partly=result.over != WHOLE_IMAGE,
        images=plural(len(result.images), "image"),
        empty=said_of_empty(result) if result.empty else "",
        distributions=[
            distribution(TITLES[name], [score.figures[name] for score in result.images])
            for name in names
        ],
        legend={"opaque": _css(OPAQUE), "transparent": _css(TRANSPARENT), "none": _css(NONE)},
        number=number,
    )
    write_bytes(path, text.encode())


def number(value: float) -> str:
    """Four digits that matter, at most four after the point."""
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    return f"{value:.{max(0, 4 - whole)}f}"


def _css(colour: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)
