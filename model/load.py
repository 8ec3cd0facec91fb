"""Loads finished weights of MattingBase into the network: this program's, or the published one's.

Wrappers' names and a refiner are left out, and nothing else is renamed; what does not fit is an
error. To begin training from another network's weights is transfer.py's business.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from common.choices import BACKBONES
from common.text import tell
from model.matting_base import MattingBase
from model.sources import MATTING, backbone_of, canonical, network_of, recognise
from model.values import broken, coarse, of_wrong_kind
from model.weights_file import WeightsFileError, read_weights, weights_of_state


def load_matting_base(path: str | Path, say: Callable[[str], object] = tell) -> MattingBase:
    """The network of a weights file, on the CPU in eval mode, in float32; its backbone is read off
    the entries' names.

    path: as model.weights_file.read_weights takes it, of MattingBase or of MattingRefine, whose
    refiner is left out; or a state file of a checkpoint, whose weights are taken from beside it.
    say: is told what was left out, or chosen. Raises WeightsFileError where it cannot be read, or
    is something else.
    """
    path = weights_of_state(Path(path))
    found = read_weights(path)
    short = canonical(found.state_dict)
    source, backbone = recognise(short.values()), backbone_of(short.values())
    if source is not MATTING:
        what = (
            f"looks like {source.name}, to be trained first" if source else "is none that we know"
        )
        raise WeightsFileError(
            f"{path} holds no weights of MattingBase: it {what}; give a file that train_base.py "
            "has saved, such as checkpoint/NAME/epoch-0.pth"
        )
    if backbone is None:
        raise WeightsFileError(
            f"{path} is a MattingBase of a backbone that is not known here; known are "
            f"{', '.join(BACKBONES)}"
        )
    model = MattingBase(backbone)
    weights, notes = base_of(found.state_dict)
    if fault := misfit(model, weights):
        raise WeightsFileError(f"{path} does not fit MattingBase with {backbone}: {fault}")
    if fault := fault_of_values(model, weights):
        raise WeightsFileError(f"{path} holds no weights that compute: {fault}")
    for note in (*found.notes, *(f"{path}: {note}" for note in notes)):
        say(f"note: {note}")
    model.load_state_dict(weights)
    return model.eval()


def base_of(state_dict: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The entries of MattingBase by their names there, of a state dict of MattingBase or
    MattingRefine however it is wrapped; and what is worth saying of the others."""
    short, inside = canonical(state_dict), network_of(state_dict)
    refiner = [name for name in inside if short[name].startswith("refiner.")]
    weights = {short[name]: state_dict[name] for name in inside if name not in set(refiner)}
    notes = []
    if refiner:
        notes.append(f"it is of MattingRefine; the refiner, {len(refiner)} entries, is left out")
    if counters := _counters(weights):
        notes.append(f"{len(counters)} counters of batches are missing and taken as 0")
        weights |= counters
    if beside := [name for name in state_dict if name not in inside and state_dict[name].ndim]:
        notes.append(f"{len(beside)} entries beside the network are left out, such as {beside[0]}")
    if kinds := coarse(weights):
        notes.append(f"the weights were rounded to {', '.join(kinds)}, and are used as float32")
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
