"""Initialises a MattingBase from a checkpoint of another network, and reports what it did.

Recognise the source by its entry names, rename, load what matches in name and shape. It never
resumes a run and never loads anything in silence.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from common.choices import BACKBONES
from common.errors import UserError
from common.text import listed
from model.sources import SOURCES, Source, backbone_of, canonical, recognise
from model.values import broken


class TransferError(UserError, ValueError):
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
    foreign: list[str] = field(default_factory=list)
    """unused entries within modules that this kind of source fills, where that was allowed"""
    converted: list[str] = field(default_factory=list)
    """the types that were converted to the model's, such as float16"""
    stem: str = "random"
    parameters: dict[str, int] = field(default_factory=dict)
    """every entry of the model → its trainable elements (0 for batch-norm statistics)"""

    def as_dict(self) -> dict:
        """Returns what transfer.json holds."""
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
            "foreign": self.foreign,
            "converted": self.converted,
            "stem": self.stem,
            "modules": {
                module or "total": dict(
                    zip(
                        ("entries", "of_entries", "parameters", "of_parameters"),
                        self._counts(module),
                        strict=True,
                    )
                )
                for module in [*self._modules(), ""]
            },
        }

    def _modules(self) -> list[str]:
        return list(dict.fromkeys(name.split(".")[0] for name in self.parameters))

    def table(self) -> str:
        """A short table for people: module by module, what came and what stays random, and why."""
        rows = [("module", "entries", "parameters", "left random")]
        for module in [*self._modules(), ""]:
            came, entries, elements, of = self._counts(module)
            share = f"{elements / 1e6:.2f}M/{of / 1e6:.2f}M"
            why = self._why(module) if module else ""
            rows.append((module or "total", f"{came}/{entries}", share, why))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [f"Transferred from {self.source}, {self.backbone}:"]
        for module, share, parameters, why in rows:
            lines.append(
                f"  {module:<{widths[0]}}  {share:>{widths[1]}}  {parameters:>{widths[2]}}  {why}"
            )
        for name, (theirs, ours) in self.mismatched.items():
            lines.append(f"  {name}: shape {_by(theirs)} in the file, {_by(ours)} in the model")
        partly = [name for name in self.missing if self._counts(name.split(".")[0])[0]]
        if partly:
            lines.append(f"  not in the file: {listed(partly)}")
        for name in self.folded:
            lines.append(
                f"  {name}: src half from the file with its input normalisation folded in, "
                "bgr half zero"
            )
        if self.converted:
            lines.append(f"  converted from {', '.join(self.converted)}")
        unused = f": {listed(self.unused, 4)}" if self.unused else ""
        lines.append(
            f"  entries of the file without a place in the model: {len(self.unused)}{unused}"
        )
        if self.foreign:
            lines.append(
                f"  warning: {len(self.foreign)} of them are layers that our {self.backbone} has "
                f"not: {listed(self.foreign)}"
            )
        if self.lacking:
            lines.append(
                f"  warning: {len(self.lacking)} entries that such a file should fill were not in "
                f"it or of another shape, and stay random: {listed(self.lacking)}"
            )
        return "\n".join(line.rstrip() for line in lines)

    def _counts(self, module: str) -> tuple[int, int, int, int]:
        """Entries that came, of how many; parameters that came, of how many. "": of the whole."""
        names = [name for name in self.parameters if not module or name.split(".")[0] == module]
        came = {*self.matched, *self.folded}.intersection(names)
        elements = sum(self.parameters[name] for name in came)
        return len(came), len(names), elements, sum(self.parameters[name] for name in names)

    def _why(self, module: str) -> str:
        missing = sum(name.split(".")[0] == module for name in self.missing)
        mismatched = sum(name.split(".")[0] == module for name in self.mismatched)
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

    if found := broken(state_dict):
        bad, what = found
        raise TransferError(
            f"{len(bad)} entries {what}: {listed(bad)}; the file is of a run that diverged, or is "
            "damaged: give another"
        )

    report = Report(source=source.name, backbone=backbone, stem=stem)
    trainable = {name: parameter.numel() for name, parameter in model.named_parameters()}
    report.parameters = {name: trainable.get(name, 0) for name in target}
    values, at_odds, kinds = {}, {}, {}  # by the model's names
    for name, value in state_dict.items():
        place = places[name]
        if place not in target or place in values or place in at_odds:
            report.unused.append(name)
        elif value.is_floating_point() != target[place].is_floating_point():
            report.unused.append(name)  # quantised, or complex, for instance
            kinds[place] = str(value.dtype).removeprefix("torch.")
        elif value.shape == target[place].shape:
            values[place] = value
        else:
            at_odds[place] = value
    report.matched = [name for name in target if name in values]
    if stem == "rgb":
        report.folded = _fold_stem(values, at_odds, target, source)
    report.mismatched = {
        name: (list(value.shape), list(target[name].shape)) for name, value in at_odds.items()
    }
    report.missing = [name for name in target if name not in values and name not in at_odds]
    report.lacking = [n for n in target if source.should_fill(n) and n not in values]
    report.foreign = [name for name in report.unused if source.is_foreign(places[name])]
    if report.lacking and not partial:
        raise TransferError(_lacking(report, kinds))
    if report.foreign and not partial:
        raise TransferError(
            f"the file looks like {source.name}, {backbone}, but {len(report.foreign)} of its "
            f"entries are layers that our {backbone} has not, so what is left of it would compute "
            f"something else: {listed(report.foreign)}; give a file of a plain {backbone}, or "
            "type --model-pretrain-partial to take what fits"
        )

    types = {state_dict[n].dtype for n in state_dict if places[n] in values}
    types -= {torch.float32, torch.int64}
    report.converted = sorted(str(each).removeprefix("torch.") for each in types)
    with torch.no_grad():
        for name, value in values.items():
            target[name].copy_(value)
    return report


# The first convolution, and the running mean of the batch norm behind it.
STEMS = {
    "backbone.conv1.weight": "backbone.bn1.running_mean",
    "backbone.features.0.0.weight": "backbone.features.0.1.running_mean",
}


def _fold_stem(
    values: dict[str, Tensor],
    at_odds: dict[str, Tensor],
    target: dict[str, Tensor],
    source: Source,
) -> list[str]:
    """Moves a 3-channel first convolution from `at_odds` to `values`, folded; returns its name,
    or nothing where the file's takes 6 channels already and came whole."""
    if any(stem in values for stem in STEMS):
        return []
    for stem, running_mean in STEMS.items():
        if stem not in at_odds or running_mean not in values:
            continue
        channels, _, *kernel = target[stem].shape
        if at_odds[stem].shape == (channels, 3, *kernel):
            values[stem], values[running_mean] = fold_rgb_stem(
                at_odds.pop(stem), values[running_mean], *source.normalisation
            )
            return [stem]
    raise TransferError(
        "the file has no first convolution like ours but of 3 channels, with batch norm, to fill "
        "the src half from; leave out --model-pretrain-stem rgb"
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
    Both are float32, whatever the source's type: rounding them again would show.
    """
    per_channel = torch.tensor(deviation, dtype=torch.float64)[None, :, None, None]
    scaled = weight.double() / per_channel
    constant = (scaled.sum((2, 3)) * torch.tensor(mean, dtype=torch.float64)).sum(1)
    both = torch.cat([scaled, torch.zeros_like(scaled)], dim=1)
    return both.float(), (running_mean.double() + constant).float()


def _check_backbone(source: Source, renamed: Iterable[str], target: Iterable[str]) -> str:
    found, wanted = backbone_of(renamed), backbone_of(target)
    if found is None:
        raise TransferError(
            f"nothing of the backbone would transfer: the file looks like {source.name} with a "
            f"backbone that is none of {', '.join(BACKBONES)}; give a file of a {wanted}"
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


def _lacking(report: Report, kinds: dict[str, str]) -> str:
    """kinds: the types of entries whose numbers are of another kind than the model's."""
    odd = [name for name in report.lacking if name in report.mismatched]
    converted = [name for name in report.lacking if name in kinds]
    unlike = f" ({converted[0]} is {kinds[converted[0]]} there)" if converted else ""
    if odd:
        theirs, ours = report.mismatched[odd[0]]
        unlike = f" ({odd[0]} is {_by(theirs)} there and {_by(ours)} here)"
    return (
        f"the file looks like {report.source}, {report.backbone}, but {len(report.lacking)} "
        f"entries that such a file should fill are not in it or of another shape or kind{unlike}: "
        f"{listed(report.lacking)}; give a whole file, or type --model-pretrain-partial to train "
        "with these left random"
    )


def _by(shape: list[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"
