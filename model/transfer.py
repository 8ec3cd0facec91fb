"""Initialises a MattingBase from a checkpoint of another network, and reports what it did.

Recognise the source by its entry names, rename, load what matches in name and shape. It never
resumes a run and never loads anything in silence.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


class TransferError(ValueError):
    """A source that does not fit; the message says what it looks like and what to type."""


@dataclass(frozen=True)
class Source:
    """A kind of checkpoint: how to recognise it and how its entries are called in MattingBase."""

    name: str
    signature: tuple[str, ...]  # regular expressions; a file of this kind has a match for each
    renames: tuple[tuple[str, str], ...]  # (regular expression, replacement), applied in order

    def recognises(self, names: Iterable[str]) -> bool:
        names = list(names)
        return all(any(re.match(pattern, name) for name in names) for pattern in self.signature)

    def rename(self, name: str) -> str:
        """The entry's name in MattingBase, where it has one there; a function of the name alone."""
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        return name


# https://github.com/VainF/DeepLabV3Plus-Pytorch splits MobileNetV2's features into two runs that
# keep their numbers, and has the ASPP as the first module of the classifier.
SOURCES = (
    Source(
        name="DeepLabV3 (VainF/DeepLabV3Plus-Pytorch)",
        signature=(r"backbone\.", r"classifier\.classifier\.0\.convs\."),
        renames=(
            (r"^backbone\.(low|high)_level_features\.", "backbone.features."),
            (r"^classifier\.classifier\.0\.", "aspp."),
        ),
    ),
)

# The last block that each backbone has, and the one after it, which it has not.
BACKBONE_BLOCKS = {
    "resnet50": ("backbone.layer3.5.conv3.weight", "backbone.layer3.6.conv3.weight"),
    "resnet101": ("backbone.layer3.22.conv3.weight", "backbone.layer3.23.conv3.weight"),
    "mobilenetv2": ("backbone.features.17.conv.3.weight", "backbone.features.19.0.weight"),
}


@dataclass
class Report:
    """What a transfer did, entry by entry; names are MattingBase's unless said otherwise."""

    source: str  # what the file was recognised as
    backbone: str
    matched: list[str] = field(default_factory=list)
    mismatched: dict[str, tuple[list[int], list[int]]] = field(default_factory=dict)
    """name → (shape in the file, shape in the model)"""
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    """entries of the file that the model has no place for, by their names in the file"""
    parameters: dict[str, int] = field(default_factory=dict)
    """every entry of the model → its trainable elements (0 for batch-norm statistics)"""

    def as_dict(self) -> dict:
        """For transfer.json."""
        return {
            "source": self.source,
            "backbone": self.backbone,
            "matched": self.matched,
            "mismatched": {
                name: {"file": shapes[0], "model": shapes[1]}
                for name, shapes in self.mismatched.items()
            },
            "missing": self.missing,
            "unused": self.unused,
        }

    def table(self) -> str:
        """A short table for people: module by module, what came and what stays random, and why."""
        rows = [("module", "entries", "parameters", "left random")]
        modules = list(dict.fromkeys(name.split(".")[0] for name in self.parameters))
        for module in modules:
            rows.append((module, *self._counts(module + "."), self._why(module + ".")))
        rows.append(("total", *self._counts(""), ""))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [f"Transferred from {self.source}, {self.backbone}:"]
        for module, entries, parameters, why in rows:
            lines.append(
                f"  {module:<{widths[0]}}  {entries:>{widths[1]}}  {parameters:>{widths[2]}}  {why}"
            )
        for name, (theirs, ours) in self.mismatched.items():
            lines.append(f"  {name}: shape {_by(theirs)} in the file, {_by(ours)} in the model")
        lines.append(f"  entries of the file without a place in the model: {len(self.unused)}")
        return "\n".join(line.rstrip() for line in lines)

    def _counts(self, prefix: str) -> tuple[str, str]:
        names = [name for name in self.parameters if name.startswith(prefix)]
        came = [name for name in self.matched if name.startswith(prefix)]
        elements = sum(self.parameters[name] for name in came)
        of = sum(self.parameters[name] for name in names)
        return f"{len(came)}/{len(names)}", f"{elements / 1e6:.2f}M/{of / 1e6:.2f}M"

    def _why(self, prefix: str) -> str:
        missing = sum(name.startswith(prefix) for name in self.missing)
        mismatched = sum(name.startswith(prefix) for name in self.mismatched)
        reasons = []
        if missing:
            reasons.append(f"{missing} not in the file")
        if mismatched:
            reasons.append(f"{mismatched} of another shape")
        return ", ".join(reasons) or "none"


def transfer(model: nn.Module, state_dict: dict[str, Tensor]) -> Report:
    """Loads into `model`, a MattingBase, every entry of `state_dict` that, renamed, matches one
    of its entries in name and shape; all others keep their values. Converts to the model's dtype.

    The rule is the published one (PeterL1n/BackgroundMattingV2). Raises TransferError, with the
    model untouched, where the source is not recognised or is of another backbone.
    """
    source = recognise(state_dict)
    renamed = {name: source.rename(name) for name in state_dict}
    target = model.state_dict()
    backbone = _check_backbone(source, renamed.values(), target)

    report = Report(source=source.name, backbone=backbone)
    trainable = {name: parameter.numel() for name, parameter in model.named_parameters()}
    report.parameters = {name: trainable.get(name, 0) for name in target}
    arrived = set()
    with torch.no_grad():
        for name, value in state_dict.items():
            place = renamed[name]
            if place not in target:
                report.unused.append(name)
                continue
            arrived.add(place)
            if value.shape == target[place].shape:
                target[place].copy_(value)
                report.matched.append(place)
            else:
                report.mismatched[place] = (list(value.shape), list(target[place].shape))
    report.missing = [name for name in target if name not in arrived]
    return report


def recognise(names: Iterable[str]) -> Source:
    """The kind of source that has these entries. Raises TransferError where it is none of ours."""
    names = list(names)
    for source in SOURCES:
        if source.recognises(names):
            return source
    looks = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    raise TransferError(
        f"nothing of the backbone would transfer: the file's {len(names)} entries ({looks}) are "
        f"of no known layout; give one of: {'; '.join(source.name for source in SOURCES)}"
    )


def backbone_of(names: Iterable[str]) -> str | None:
    """Which backbone entries named as in MattingBase belong to; None where it is none of ours."""
    names = set(names)
    for backbone, (last, beyond) in BACKBONE_BLOCKS.items():
        if last in names and beyond not in names:
            return backbone
    return None


def _check_backbone(source: Source, renamed: Iterable[str], target: Iterable[str]) -> str:
    found, wanted = backbone_of(renamed), backbone_of(target)
    if found is None:
        raise TransferError(
            f"nothing of the backbone would transfer: the file looks like {source.name} with a "
            f"backbone that is none of {', '.join(BACKBONE_BLOCKS)}; give a file of a {wanted}"
        )
    if found != wanted:
        raise TransferError(
            f"the file looks like {source.name} with a {found} backbone, and the model's is "
            f"{wanted}; type --model-backbone {found}, or give the file of a {wanted}"
        )
    return found


def _by(shape: list[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"
