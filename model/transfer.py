"""Initialises a MattingBase from a checkpoint of another network, and reports what it did.

Recognise the source by its entry names, rename, load what matches in name and shape. It never
resumes a run and never loads anything in silence.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from model.sources import SOURCES, Source, backbone_of, canonical, recognise

LISTED_AT_MOST = 20


class TransferError(ValueError):
    """A source that does not fit; the message says what it looks like and what to type."""


@dataclass
class Report:
    """What a transfer did, entry by entry; names are MattingBase's unless said otherwise."""

    source: str  # what the file was recognised as
    backbone: str
    matched: list[str] = field(default_factory=list)
    folded: list[str] = field(default_factory=list)
    """the first convolution, where its src half was filled by `fold_rgb_stem`"""
    mismatched: dict[str, tuple[list[int], list[int]]] = field(default_factory=dict)
    """name → (shape in the file, shape in the model)"""
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    """entries of the file that the model has no place for, by their names in the file"""
    lacking: list[str] = field(default_factory=list)
    """entries that this kind of source should fill and did not, where that was allowed"""
    converted: list[str] = field(default_factory=list)
    """the types that were converted to the model's, such as float16"""
    parameters: dict[str, int] = field(default_factory=dict)
    """every entry of the model → its trainable elements (0 for batch-norm statistics)"""

    def as_dict(self) -> dict:
        """For transfer.json."""
        return {
            "source": self.source,
            "backbone": self.backbone,
            "matched": self.matched,
            "folded": self.folded,
            "mismatched": {
                name: {"file": shapes[0], "model": shapes[1]}
                for name, shapes in self.mismatched.items()
            },
            "missing": self.missing,
            "unused": self.unused,
            "lacking": self.lacking,
            "converted": self.converted,
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
        for name in self.folded:
            lines.append(
                f"  {name}: src half from the file with its input normalisation folded in, "
                "bgr half zero"
            )
        if self.converted:
            lines.append(f"  converted from {', '.join(self.converted)}")
        lines.append(f"  entries of the file without a place in the model: {len(self.unused)}")
        if self.lacking:
            lines.append(
                f"  warning: {len(self.lacking)} entries that such a file should fill were not in "
                f"it or of another shape, and stay random: {_listed(self.lacking)}"
            )
        return "\n".join(line.rstrip() for line in lines)

    def _counts(self, prefix: str) -> tuple[str, str]:
        names = [name for name in self.parameters if name.startswith(prefix)]
        came = [name for name in [*self.matched, *self.folded] if name.startswith(prefix)]
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


def transfer(
    model: nn.Module, state_dict: dict[str, Tensor], partial: bool = False, stem: str = "random"
) -> Report:
    """Loads into `model`, a MattingBase, every entry of `state_dict` that, renamed, matches one
    of its entries in name and shape; all others keep their values. Converts to the model's dtype.

    The rule is the published one (PeterL1n/BackgroundMattingV2). partial: take a file that lacks
    something which its kind should fill. stem: "rgb" fills the first convolution, too, as
    `fold_rgb_stem` says; "random" leaves it.

    Raises TransferError, with the model untouched, where the source is not recognised, is of
    another backbone, lacks what its kind should fill, or holds values that are not finite.
    """
    short = canonical(state_dict)
    source = recognise(short.values())
    if source is None:
        raise TransferError(_unrecognised(list(state_dict)))
    places = {name: source.rename(now) for name, now in short.items()}
    target = model.state_dict()
    backbone = _check_backbone(source, places.values(), target)

    report = Report(source=source.name, backbone=backbone)
    trainable = {name: parameter.numel() for name, parameter in model.named_parameters()}
    report.parameters = {name: trainable.get(name, 0) for name in target}
    values, at_odds = {}, {}  # by the model's names
    for name, value in state_dict.items():
        place = places[name]
        if place not in target or place in values or place in at_odds:
            report.unused.append(name)
        elif value.shape == target[place].shape:
            values[place] = value
        else:
            at_odds[place] = value
    report.matched = [name for name in target if name in values]
    if stem == "rgb":
        report.folded = _fold_stem(values, at_odds, source)
    report.mismatched = {
        name: (list(value.shape), list(target[name].shape)) for name, value in at_odds.items()
    }
    report.missing = [name for name in target if name not in values and name not in at_odds]
    report.lacking = [n for n in target if source.should_fill(n) and n not in values]
    if report.lacking and not partial:
        raise TransferError(_lacking(report))
    bad = [n for n, v in values.items() if v.is_floating_point() and not v.isfinite().all()]
    if bad:
        raise TransferError(
            f"{len(bad)} entries hold values that are not finite: {_listed(bad)}; the file is of a "
            "run that diverged, or is damaged: give another"
        )

    kinds = {v.dtype for n, v in values.items() if v.dtype != target[n].dtype}
    report.converted = sorted(str(kind).removeprefix("torch.") for kind in kinds)
    with torch.no_grad():
        for name, value in values.items():
            target[name].copy_(value)
    return report


# The first convolution, and the running mean of the batch norm behind it.
STEMS = {
    "backbone.conv1.weight": "backbone.bn1.running_mean",
    "backbone.features.0.0.weight": "backbone.features.0.1.running_mean",
}


def _fold_stem(values: dict[str, Tensor], at_odds: dict[str, Tensor], source: Source) -> list[str]:
    """Moves a 3-channel first convolution from `at_odds` to `values`, folded; returns its name,
    or nothing where the file's takes 6 channels already and came whole."""
    if any(stem in values for stem in STEMS):
        return []
    for stem, running_mean in STEMS.items():
        if stem in at_odds and at_odds[stem].shape[1] == 3 and running_mean in values:
            values[stem], values[running_mean] = fold_rgb_stem(
                at_odds.pop(stem), values[running_mean], *source.normalisation
            )
            return [stem]
    raise TransferError(
        "the file has no first convolution of 3 channels, with batch norm, to fill the src half "
        "from; leave out --model-pretrain-stem rgb"
    )


def fold_rgb_stem(
    weight: Tensor, running_mean: Tensor, mean: tuple[float, ...], deviation: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """A first convolution for (src, bgr) that sees src as the source's saw normalised pictures.

    weight: (C, 3, k, k) of a network whose input is (x - mean) / deviation; running_mean: (C,) of
    the batch norm behind it; mean, deviation: of its three channels. Returns (C, 6, k, k), whose
    second half is zero, and the running mean to go with it. In eval mode, away from the border
    (which is padded with black instead of the mean colour), what leaves the batch norm is the
    same: weight * (x - mean) / deviation is a convolution of x minus a constant for each channel.
    """
    per_channel = torch.tensor(deviation, dtype=torch.float64)[None, :, None, None]
    scaled = weight.double() / per_channel
    constant = (scaled.sum((2, 3)) * torch.tensor(mean, dtype=torch.float64)).sum(1)
    both = torch.cat([scaled, torch.zeros_like(scaled)], dim=1)
    return both.to(weight.dtype), (running_mean.double() + constant).to(running_mean.dtype)


def _check_backbone(source: Source, renamed: Iterable[str], target: Iterable[str]) -> str:
    found, wanted = backbone_of(renamed), backbone_of(target)
    if found is None:
        raise TransferError(
            f"nothing of the backbone would transfer: the file looks like {source.name} with a "
            f"backbone that is none of resnet50, resnet101, mobilenetv2; give a file of a {wanted}"
        )
    if found != wanted:
        raise TransferError(
            f"the file looks like {source.name} with a {found} backbone, and the model's is "
            f"{wanted}; type --model-backbone {found}, or give the file of a {wanted}"
        )
    return found


def _unrecognised(names: list[str]) -> str:
    looks = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    kinds = "; ".join(source.name for source in SOURCES)
    return (
        f"nothing of the backbone would transfer: the file's {len(names)} entries ({looks}) are of "
        f"no known layout; give one of: {kinds}"
    )


def _lacking(report: Report) -> str:
    odd = [name for name in report.lacking if name in report.mismatched]
    unlike = ""
    if odd:
        theirs, ours = report.mismatched[odd[0]]
        unlike = f" ({odd[0]} is {_by(theirs)} there and {_by(ours)} here)"
    return (
        f"the file looks like {report.source}, {report.backbone}, but {len(report.lacking)} "
        f"entries that such a file should fill are not in it or of another shape{unlike}: "
        f"{_listed(report.lacking)}; give a whole file, or type --model-pretrain-partial to train "
        "with these left random"
    )


def _listed(names: list[str]) -> str:
    more = len(names) - LISTED_AT_MOST
    return ", ".join(names[:LISTED_AT_MOST]) + (f" and {more} more" if more > 0 else "")


def _by(shape: list[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"
