"""Whether numbers in a file can be a network's weights, whatever network it is."""

import torch
from torch import Tensor

WEIGHT_TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def broken(state_dict: dict[str, Tensor]) -> tuple[list[str], str] | None:
    """The entries whose values no training leaves behind, and what they are: not finite, as
    float32, too; or variances below 0. None where all is well."""
    floating = {name: value for name, value in state_dict.items() if value.is_floating_point()}
    bad = [name for name, value in floating.items() if not _distinct(value).isfinite().all()]
    if bad:
        return bad, "hold values that are not finite"
    variances = [n for n in floating if n.endswith("running_var")]
    bad = [name for name in variances if (_distinct(floating[name]) < 0).any()]
    return (bad, "are variances and hold values below 0") if bad else None


def of_wrong_kind(value: Tensor, target: Tensor) -> bool:
    """Whether copying `value` into `target` would lose more than digits: numbers without a point,
    such as quantised weights, into weights; complex ones into real ones."""
    if value.is_complex():
        return True
    return target.is_floating_point() and not value.is_floating_point()


def coarse(state_dict: dict[str, Tensor]) -> list[str]:
    """The types with fewer digits than weights are used with, such as float8_e4m3fn."""
    kinds = {value.dtype for value in state_dict.values() if value.is_floating_point()}
    return sorted(str(kind).removeprefix("torch.") for kind in kinds.difference(WEIGHT_TYPES))


def _distinct(value: Tensor) -> Tensor:
    """The values as float32, without those that are one place in memory read again and again: a
    file of a kilobyte could else ask for gigabytes."""
    once = value[tuple(slice(1) if step == 0 else slice(None) for step in value.stride())]
    return once.float()
