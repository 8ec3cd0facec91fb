"""A checkpoint: its name, its two files, and what makes a continued run another one.

`epoch-3.pth` holds the weights and nothing else, a flat dict that any tool reads;
`epoch-3.state.pth` beside it all else that continuing needs. The weights are written last.
"""

import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import UserError
from common.text import tell
from dataset.sampler import crop_grid
from model import MattingRefine
from model.load import fault_of_values, kernel_size_of, matting_of, misfit
from model.sources import MATTING, MATTING_REFINE, backbone_of, canonical, recognise
from model.weights_file import read_file, read_weights

STATE_FORMAT = 2
FIRST_STAGE = "base"  # of all states that say none
STAGES = {MATTING: "base", MATTING_REFINE: "refine"}
STATE_KEYS = {
    "step",
    "steps_per_epoch",
    "optimizer",
    "scaler",
    "options",
    "data",
    "weights_checksum",
}
CHECKPOINT_NAME = re.compile(r"epoch-(\d+)(?:-iter-(\d+))?\.pth")


class CheckpointError(UserError, ValueError):
    """A checkpoint that cannot be continued from; the message names it and says what to do."""


@dataclass(frozen=True, order=True)
class Progress:
    """How far a checkpoint's name says that it is. An epoch's end is after all of its steps."""

    epoch: int
    step: float  # infinite at the epoch's end


def checkpoint_name(step: int, steps_per_epoch: int) -> str:
    """The name of the checkpoint after `step` completed steps: epoch-E.pth where they end epoch E,
    counted from 0, else epoch-E-iter-STEP.pth."""
    epoch, within = divmod(step, steps_per_epoch)
    return f"epoch-{epoch}-iter-{step}.pth" if within else f"epoch-{epoch - 1}.pth"


def progress_of(name: str) -> Progress | None:
    """What a file's name says; None where it is no checkpoint's."""
    found = CHECKPOINT_NAME.fullmatch(name)
    if not found:
        return None
    epoch, step = found.groups()
    return Progress(int(epoch), float(step) if step else float("inf"))


def progress_in(name: str) -> Progress:
    """What the name of a checkpoint says."""
    progress = progress_of(name)
    assert progress is not None, name
    return progress


def steps_of(name: str, steps_per_epoch: int) -> int:
    """How many steps a file's name says are completed, counted with epochs of this length; 0 where
    it says nothing."""
    progress = progress_of(name)
    if progress is None:
        return 0
    first, last = progress.epoch * steps_per_epoch, (progress.epoch + 1) * steps_per_epoch
    return int(progress.step) if first < progress.step < last else last


def progress_at(step: int, steps_per_epoch: int) -> Progress:
    """What the name of a checkpoint after `step` steps says; before every one where it is 0."""
    if step == 0:
        return Progress(-1, 0)
    return progress_in(checkpoint_name(step, steps_per_epoch))


@dataclass(frozen=True)
class Checkpoint:
    """What was read of a checkpoint: its weights, and its state where there is one."""

    path: Path
    weights: dict[str, Tensor]
    state: dict[str, Any] | None


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a weights file and the state file beside it, if any. Raises WeightsFileError where one
    is damaged or of another kind, CheckpointError where they do not belong together."""
    found = read_weights(path)
    for note in found.notes:
        tell(f"note: {note}")
    return Checkpoint(path, found.state_dict, load_state(path, found.state_dict))


def state_path(weights: Path) -> Path:
    return weights.with_name(weights.name.removesuffix(".pth") + ".state.pth")


def training_state(
    step: int,
    steps_per_epoch: int,
    options: dict[str, Any],
    data: dict[str, Any],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    best: dict[str, float] | None,
) -> dict[str, Any]:
    """All that continuing needs beside the weights. Randomness is computed from the step and the
    seed, so there is none to keep. options: by name, as Run records them. data: what
    folders.describe says of each split. best: step and MAD of the best validation so far."""
    plain = {
        name: str(value.resolve()) if isinstance(value, Path) else value
        for name, value in options.items()
    }
    return {
        "format": STATE_FORMAT,
        "step": step,
        "steps_per_epoch": steps_per_epoch,
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict() if options["precision"] == "fp16" else {},
        "options": plain,
        "stage": options["stage"],
        "crop_grid": crop_grid(options["crop_size"]),
        "data": data,
        "best": best,
    }


def checksum(weights: dict[str, Tensor]) -> int:
    """CRC-32 of all values: tells weights apart."""
    crc = 0
    for value in weights.values():
        array = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        crc = zlib.crc32(array, crc)  # type: ignore[arg-type]  # an array is a buffer
    return crc


def stage_of(checkpoint: Checkpoint) -> str | None:
    """Which stage a checkpoint is of: as its state says, else by its entries; None where these are
    of another network."""
    if checkpoint.state is not None:
        return checkpoint.state.get("stage", FIRST_STAGE)
    source = recognise(canonical(checkpoint.weights).values())
    return STAGES.get(source) if source else None


def load_weights(model: nn.Module, path: Path, weights: dict[str, Tensor], backbone: str) -> None:
    """Loads what was read of `path` strictly, and says what of it was left out: a counter, say.
    Raises CheckpointError where an entry is missing, foreign or of another shape, saying what the
    file looks like, or holds what no weight is."""
    entries, notes = matting_of(weights)
    found, name = misfit(model, entries), type(model).__name__
    if not found:
        if fault := fault_of_values(model, entries):
            raise CheckpointError(f"{path} holds no weights that compute: {fault}")
        for note in notes:
            tell(f"note: {path}: {note}")
        model.load_state_dict(entries)
        return
    looks, source = backbone_of(entries), recognise(canonical(weights).values())
    if source is MATTING_REFINE and not isinstance(model, MattingRefine):
        advice = "it is of MattingRefine: type train_refine.py instead"
    elif source in STAGES and looks and looks != backbone:
        advice = f"its backbone is {looks}: type --model-backbone {looks}"
    elif source is MATTING_REFINE and (size := kernel_size_of(entries)) != kernel_size_of(
        model.state_dict()
    ):
        advice = (
            f"its refiner's kernels are of another size: type --model-refine-kernel-size {size}"
        )
    elif source:
        advice = (
            f"it looks like {source.name}, a file to initialise from: type "
            "--model-pretrain-initialization instead"
        )
    else:
        advice = f"give a weights file of {name}"
    raise CheckpointError(f"{path} does not fit {name} with {backbone}: {found}; {advice}")


def load_state(
    weights_path: Path, weights: dict[str, Tensor] | None = None
) -> dict[str, Any] | None:
    """The state beside a weights file; None where there is none. Raises CheckpointError where it
    is no state of this program, or not that of `weights`; WeightsFileError where it is
    unreadable or damaged."""
    path = state_path(weights_path)
    if not path.exists():
        return None
    state = read_file(path)
    if (
        not isinstance(state, dict)
        or state.get("format") != STATE_FORMAT
        or STATE_KEYS - state.keys()
    ):
        raise CheckpointError(
            f"{path} is no state file of this version (format {STATE_FORMAT}), but of another "
            f"program; move it away to start the optimizer afresh from {weights_path.name}"
        )
    if weights is not None and state["weights_checksum"] != checksum(weights):
        raise CheckpointError(
            f"{path} does not belong to these weights: it is of another run, or "
            f"{weights_path.name} was replaced; move the state file away to start the optimizer "
            "afresh, or give another checkpoint"
        )
    return state
