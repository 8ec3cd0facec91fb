"""What evaluate.py has measured: a score for each image, and how scores are told and written.

It measures tensors that it is given. It reads no pictures and runs no network.
"""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from common.files import write_bytes
from common.text import csv_cell, plural
from evaluation.metrics import conn, fgr_mse, grad, mad, mse, sad

METRICS = {"sad": sad, "mad": mad, "mse": mse, "grad": grad, "conn": conn}
TITLES = {
    "sad": "SAD",
    "mad": "MAD",
    "mse": "MSE",
    "grad": "Grad",
    "conn": "Conn",
    "fgr_mse": "fgr MSE",
    "coarse_mad": "coarse MAD",
    "coarse_grad": "coarse Grad",
    "dtssd": "dtSSD",
}
WHOLE_IMAGE, UNKNOWN_REGION = "the whole image", "the unknown region"
WORST_LISTED = 5  # of the worst images, and of the worst clips


@dataclass(frozen=True)
class Batch:
    """Images to be measured: names (B), alphas (B, 1, H, W), region the same in bool or None: all,
    colours (B, 3, H, W) or None; float32, 0..1. src_files: instead of src, photos to be read where
    they are wanted. coarse_pha: alpha before it was refined, at the full size; None where it was
    not."""

    names: list[str]
    pred_pha: Tensor
    true_pha: Tensor
    region: Tensor | None = None
    pred_fgr: Tensor | None = None
    true_fgr: Tensor | None = None
    src: Tensor | None = None
    src_files: list[Path] | None = None
    coarse_pha: Tensor | None = None


class NotFiniteError(UserError, ValueError):
    """A prediction that is no number; the message names the image."""


@dataclass(frozen=True)
class Score:
    """The figures of one image, or of one clip, by metric: keys of TITLES."""

    name: str
    figures: dict[str, float]


@dataclass
class Result:
    """The scores of all images, the worst (by MAD) first, and of clips (dtSSD alone). over: the
    pixels that were measured, in words. empty: names of images in which those are none, which are
    in no mean. about: what was measured, for those who find the files later."""

    over: str
    images: list[Score]
    clips: list[Score] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.images.sort(key=lambda score: (-score.figures["mad"], score.name))
        self.clips.sort(key=lambda score: (-score.figures["dtssd"], score.name))

    @property
    def mean(self) -> dict[str, float]:
        """The mean of each metric over all images; of dtSSD over all clips."""
        groups = [scores for scores in (self.images, self.clips) if scores]
        return {
            name: fmean(score.figures[name] for score in scores)
            for scores in groups
            for name in scores[0].figures
        }


def measure(batch: Batch) -> list[Score]:
    """The scores of a batch's images, of which those of an empty region are 0. Raises
    NotFiniteError."""
    alphas = batch.pred_pha, batch.true_pha
    columns = {name: metric(*alphas, batch.region) for name, metric in METRICS.items()}
    if batch.pred_fgr is not None and batch.true_fgr is not None:
        columns["fgr_mse"] = fgr_mse(batch.pred_fgr, batch.true_fgr, batch.true_pha)
    if batch.coarse_pha is not None:
        coarse = batch.coarse_pha, batch.true_pha, batch.region
        columns |= {"coarse_mad": mad(*coarse), "coarse_grad": grad(*coarse)}
    figures = torch.stack(list(columns.values()), dim=1).cpu()
    for name, row in zip(batch.names, figures, strict=True):
        if not row.isfinite().all():
            raise NotFiniteError(
                f"{name}: the prediction has values that are not finite; try --precision fp32, and "
                "if that gives the same, take an earlier checkpoint"
            )
    return [
        Score(name, dict(zip(columns, row, strict=True)))
        for name, row in zip(batch.names, figures.tolist(), strict=True)
    ]


def has_region(batch: Batch) -> list[bool]:
    """Whether there is a pixel to be measured, for each image."""
    if batch.region is None:
        return [True] * len(batch.names)
    return batch.region.flatten(1).any(1).tolist()


def table(result: Result) -> str:
    """Writes for the terminal: the means, and the worst images and clips."""
    names = list(result.images[0].figures)
    lines = [
        f"{plural(len(result.images), 'image')}, over {result.over}",
        f"({units(result)})",
        "",
        _line({name: TITLES[name] for name in names}),
        _line({name: f"{result.mean[name]:.4f}" for name in names}, "mean"),
        "",
        _worst_of(result.images, "MAD"),
        *_worst(result.images),
    ]
    if result.clips:
        mean, count = result.mean["dtssd"], plural(len(result.clips), "clip")
        lines += ["", _line({"dtssd": TITLES["dtssd"]})]
        lines += [_line({"dtssd": f"{mean:.4f}"}, f"mean of {count}"), ""]
        lines += [_worst_of(result.clips, "dtSSD"), *_worst(result.clips)]
    if result.empty:
        lines += ["", f"note: {said_of_empty(result)}"]
    return "\n".join(lines)


def units(result: Result) -> str:
    """Says in which units the figures of a result are."""
    said = ["SAD, Grad, Conn over 1000", "MAD, MSE times 1000"]
    if "fgr_mse" in result.images[0].figures:
        said.append("fgr MSE times 1000, wherever true alpha is above 0")
    if "coarse_mad" in result.images[0].figures:
        figures = [image.figures for image in result.images]
        if all(each["coarse_mad"] == each["mad"] for each in figures):
            said.append(
                "coarse: the same, since nothing was refined; type a smaller --refine-threshold, "
                "or --refine-mode sampling"
            )
        else:
            said.append("coarse: the same of alpha before it was refined")
    if result.clips:
        said.append("dtSSD times 100")
    return "; ".join([*said, "alpha being 0..1"])


def said_of_empty(result: Result) -> str:
    count = len(result.empty)
    verb, are = ("has", "is") if count == 1 else ("have", "are")
    return (
        f"{plural(count, 'image')} {verb} no pixel in {result.over} and {are} left out of the "
        f"means; the first is {result.empty[0]}"
    )


def _worst_of(scores: Sequence[Score], title: str) -> str:
    few = len(scores) <= WORST_LISTED
    return (
        f"by {title}, the worst first:"
        if few
        else f"the worst {WORST_LISTED} of {len(scores)} by {title}:"
    )


def _worst(scores: Sequence[Score]) -> list[str]:
    return [
        _line({name: f"{value:.4f}" for name, value in score.figures.items()}, score.name)
        for score in scores[:WORST_LISTED]
    ]


def _line(cells: dict[str, str], name: str = "") -> str:
    """cells: by metric, whose column is as wide as its title needs."""
    wide = (text.rjust(max(11, len(TITLES[metric]) + 1)) for metric, text in cells.items())
    return ("".join(wide) + f"  {name}").rstrip()


def write_json(path: Path, result: Result) -> None:
    """Keys: `over`, `mean` (by metric), `images` and, where there are any, `clips` (each with
    `name` and its figures; the worst first), `empty` (names of images without a pixel to be
    measured), `about`."""
    content: dict[str, Any] = {"over": result.over, "units": units(result), "mean": result.mean}
    content["images"] = [{"name": score.name, **score.figures} for score in result.images]
    if result.clips:
        content["clips"] = [{"name": score.name, **score.figures} for score in result.clips]
    if result.empty:
        content["empty"] = result.empty
    content["about"] = result.about
    write_bytes(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def write_csv(path: Path, result: Result) -> None:
    """A row for each image, the worst first, and a head."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["name", *result.images[0].figures])
    writer.writerows([csv_cell(score.name), *score.figures.values()] for score in result.images)
    write_bytes(path, text.getvalue().encode())
