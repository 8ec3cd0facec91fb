"""Loads finished weights of MattingBase or MattingRefine: this program's, or the published one's.

Wrappers' names are left out, and nothing else is renamed; what does not fit is an error. To begin
training from another network's weights is transfer.py's business.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from common.choices import BACKBONES
from common.text import tell
from model.matting_base import MattingBase
from model.matting_refine import MattingRefine
from model.sources import (
    COUNTERS,
    MATTING,
    MATTING_REFINE,
    backbone_of,
    canonical,
    network_of,
    recognise,
)
from model.values import broken, coarse, of_wrong_kind
from model.weights_file import WeightsFileError, read_weights, weights_of_state

REFINER = "refiner."  # its entries are those that MattingRefine has more than MattingBase


class _File(NamedTuple):
    """What a file of either network holds."""

    path: Path
    state_dict: dict[str, Tensor]
    backbone: str
    notes: tuple[str, ...]


def load_matting(
    path: str | Path, say: Callable[[str], object] = tell
) -> MattingBase | MattingRefine:
    """The network of a weights file, as what it is, on the CPU in eval mode, in float32. Backbone,
    refiner and its kernel size are read off the entries' names and shapes.

    path: as model.weights_file.read_weights takes it; or a state file of a checkpoint, whose
    weights are taken from beside it. say: is told what was left out, or chosen.
    Returns a MattingRefine where the file has a refiner, with the settings that its constructor
    gives; no file holds them. It is a MattingBase, too: ask for MattingRefine first.
    Raises WeightsFileError where the file cannot be read, or is of something else.
    """
    file = _read(path)
    weights, notes = matting_of(file.state_dict)
    if any(name.startswith(REFINER) for name in weights):
        kernel_size = kernel_size_of(weights)
        model: MattingBase = MattingRefine(file.backbone, refine_kernel_size=kernel_size)
    else:
        model = MattingBase(file.backbone)
    return _fill(model, file, weights, notes, say)


def load_matting_base(path: str | Path, say: Callable[[str], object] = tell) -> MattingBase:
    """The base network alone, of a file of either network. All else is as with load_matting;
    `say` is told that a refiner was left out."""
    file = _read(path)
    weights, notes = base_of(file.state_dict)
    return _fill(MattingBase(file.backbone), file, weights, notes, say)


def _read(path: str | Path) -> _File:
    path = weights_of_state(Path(path))
    found = read_weights(path)
    short = canonical(found.state_dict)
    source, backbone = recognise(short.values()), backbone_of(short.values())
    if source not in (MATTING, MATTING_REFINE):
        what = (
            f"looks like {source.name}, to be trained first" if source else "is none that we know"
        )
        raise WeightsFileError(
            f"{path} holds no weights of MattingBase or MattingRefine: it {what}; give a file that "
            "train_base.py has saved, such as checkpoint/NAME/epoch-0.pth"
        )
    if backbone is None:
        raise WeightsFileError(
            f"{path} is a MattingBase of a backbone that is not known here; known are "
            f"{', '.join(BACKBONES)}"
        )
    return _File(path, found.state_dict, backbone, found.notes)


def _fill(
    model: MattingBase,
    file: _File,
    weights: dict[str, Tensor],
    notes: list[str],
    say: Callable[[str], object],
) -> MattingBase:
    if fault := misfit(model, weights):
        name = type(model).__name__
        raise WeightsFileError(f"{file.path} does not fit {name} with {file.backbone}: {fault}")
    if fault := fault_of_values(model, weights):
        raise WeightsFileError(f"{file.path} holds no weights that compute: {fault}")
    for note in (*file.notes, *(f"{file.path}: {note}" for note in notes)):
        say(f"note: {note}")
    model.load_state_dict(weights)
    return model.eval()


def kernel_size_of(weights: dict[str, Tensor]) -> int:
    """That of a refiner with these entries: 1 or 3; 3, too, where they are of no refiner."""
    names = (name for name in weights if re.fullmatch(r"refiner\.conv\d\.weight", name))
    shape = weights[name].shape if (name := next(names, None)) else ()
    return 1 if len(shape) == 4 and shape[-1] == 1 else 3


def matting_of(state_dict: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The entries of MattingBase or MattingRefine by their names there, of a state dict that may be
    wrapped; and what is worth saying of the others."""
    short, inside = canonical(state_dict), network_of(state_dict)
    weights = {short[name]: state_dict[name] for name in inside}
    notes = []
    if counters := _counters(weights):
        notes.append(f"{len(counters)} counters of batches are missing and taken as 0")
        weights |= counters
    beside = [n for n in state_dict if n not in inside and not COUNTERS.fullmatch(n)]
    if beside:
        notes.append(f"{len(beside)} entries beside the network are left out, such as {beside[0]}")
    if kinds := coarse(weights):
        notes.append(f"the weights were rounded to {', '.join(kinds)}, and are used as float32")
    return weights, notes


def base_of(state_dict: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The same without a refiner: the entries of MattingBase alone."""
    short = canonical(state_dict)
    refiner = [name for name in network_of(state_dict) if short[name].startswith(REFINER)]
    weights, notes = matting_of({n: v for n, v in state_dict.items() if n not in set(refiner)})
    if refiner:
        notes.insert(0, f"it is of MattingRefine; the refiner, {len(refiner)} entries, is left out")
    return weights, notes


def _counters(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Zeros for the counters of batches that batch norms lack. Files of before PyTorch 0.4.1 and of
    some converters have none; torch fills them in as well, and nothing is computed with them."""
    named = (
        name.removesuffix("running_var") + "num_batches_tracked"
        for name in weights
        if name.endswith(".running_var")
    )
    return {name: torch.tensor(0) for name in named if name not in weights}


def misfit(model: nn.Module, weights: dict[str, Tensor]) -> str | None:
    """How entries differ from what `model` takes: "entries 2 missing, such as a; ..."; None where
    names and shapes are the same."""
    target = model.state_dict()
    missing = [name for name in target if name not in weights]
    foreign = [name for name in weights if name not in target]
    unlike = [n for n in target if n in weights and weights[n].shape != target[n].shape]
    kinds = (("missing", missing), ("foreign", foreign), ("of other shape", unlike))
    said = [f"{len(names)} {kind}, such as {names[0]}" for kind, names in kinds if names]
    return f"entries {'; '.join(said)}" if said else None


def fault_of_values(model: nn.Module, weights: dict[str, Tensor]) -> str | None:
    """What makes entries of the right names and shapes no weights; None where all is well."""
    target = model.state_dict()
    if odd := [name for name in target if of_wrong_kind(weights[name], target[name])]:
        kind = str(weights[odd[0]].dtype).removeprefix("torch.")
        return (
            f"{len(odd)} entries are no real floating-point numbers, such as {odd[0]}, of {kind}; "
            "give the file before it was converted"
        )
    if found := broken(weights):
        names, what = found
        return (
            f"{len(names)} entries {what}, such as {names[0]}; the file is of a run that diverged, "
            "or is damaged: give another"
        )
    return None
