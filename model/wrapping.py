"""Finds the weights in what a file holds, whatever programs have put around them.

A function of entry names, but for telling two sets of weights apart.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from model.sources import BACKBONE, Source, canonical, prefixes, recognise, unwrapped

# Keys under which programs keep the weights that are meant, the surest first.
WRAPPERS = ("model_state", "state_dict", "model_state_dict", "model")
AVERAGE_KEY = re.compile(r"(^|[_.])(ema|swa|avg|average|averaged|shadow)([_.]|$)", re.IGNORECASE)
MAX_DEPTH = 8  # of dicts and lists in each other


class AmbiguousError(UserError, ValueError):
    """Several sets of weights, of which none is the one that is meant; the message names them."""


@dataclass(frozen=True)
class Found:
    """A dict of tensors in a file's content. keys: that lead to it. prefix: of the entries that
    belong to it, where others lie beside them; else "". layout: the known one that it has."""

    keys: tuple[str | int, ...]
    prefix: str
    entries: dict[str, Tensor]
    layout: Source | None

    @property
    def wrapper(self) -> str:
        return ".".join(map(str, self.keys))

    @property
    def is_whole(self) -> bool:
        """Whether there is more than a classifier's backbone."""
        return self.layout is not None and self.layout.fills != (BACKBONE,)

    @property
    def place(self) -> str:
        """The keys under which the entries were found, as a message says them."""
        words = ["".join(f"[{key!r}]" for key in self.keys), self.prefix and f"{self.prefix}*"]
        return " ".join(filter(None, words)) or "the file's own"

    @property
    def rank(self) -> tuple[bool, bool, int]:
        """Less is taken before more: a classifier beside a whole network serves its loss, say; an
        average of weights is what a run is judged by."""
        averaged = any(AVERAGE_KEY.search(str(each)) for each in (*self.keys, self.prefix))
        last = self.keys[-1] if self.keys else ""
        known = WRAPPERS.index(last) if last in WRAPPERS else len(WRAPPERS)
        return not self.is_whole, not averaged, known


def find_weights(content: Any) -> tuple[Found | None, list[Found]]:
    """The weights that are meant, and others of a known layout that are not. Without a known
    layout: what most looks like weights; None where there is no tensor with a name.

    A whole network comes before a classifier, an average before what it is of, then the keys of
    WRAPPERS in their order. Raises AmbiguousError where two sets that are not the same are equally
    good.
    """
    tensors = [(keys, entries) for keys, entries in _dicts(content, ()) if entries]
    found = [each for keys, entries in tensors for each in _networks(keys, entries)]
    if not any(each.is_whole for each in found):  # each part may lie in a dict of its own
        joined = _networks((), dict(_flat(content, "", frozenset())))
        found = [each for each in joined if each.is_whole] or found
    if not found:
        rest = [Found(keys, "", entries, None) for keys, entries in tensors]
        rest.sort(key=lambda each: (*each.rank, -len(each.entries)))
        return (rest[0] if rest else None), []
    found.sort(key=lambda each: each.rank)
    best, *others = found
    others = [each for each in others if not _same(best.entries, each.entries)]
    if rivals := [each for each in others if each.rank == best.rank]:
        places = " and ".join(each.place for each in (best, *rivals))
        raise AmbiguousError(
            f"{1 + len(rivals)} sets of weights, {places}, and nothing says which is meant; save "
            "the one that is by itself: torch.save("
            + (
                f"{{n: v for n, v in {_path(best)}.items() if n.startswith({best.prefix!r})}}"
                if best.prefix
                else _path(best)
            )
            + ", NEW_FILE)"
        )
    return best, others


def _path(found: Found) -> str:
    return "torch.load(FILE)" + "".join(f"[{key!r}]" for key in found.keys)


def _networks(keys: tuple[str | int, ...], entries: dict[str, Tensor]) -> list[Found]:
    """The networks of a known layout in a dict of tensors."""
    behind, short = prefixes(entries), unwrapped(entries)
    parts = [entries] * len(behind)
    if len(behind) > 1:
        parts = [{n: v for n, v in entries.items() if short[n].startswith(p)} for p in behind]
    return [
        Found(keys, prefix if len(behind) > 1 else "", part, recognise(canonical(part).values()))
        for prefix, part in zip(behind, parts, strict=True)
    ]


def _dicts(
    content: Any, keys: tuple[str | int, ...], seen: frozenset[int] = frozenset()
) -> Iterator[tuple[tuple[str | int, ...], dict[str, Tensor]]]:
    """Every dict in there with its tensors, the outer before the inner."""
    if len(keys) > MAX_DEPTH or id(content) in seen:
        return
    seen = seen | {id(content)}
    if isinstance(content, dict):
        yield keys, {n: v for n, v in content.items() if isinstance(n, str) and _is_tensor(v)}
        for key, value in content.items():
            if isinstance(value, (dict, list, tuple)):
                yield from _dicts(value, (*keys, key), seen)
    elif isinstance(content, (list, tuple)):
        for number, value in enumerate(content[:100]):
            if isinstance(value, (dict, list, tuple)):
                yield from _dicts(value, (*keys, number), seen)


def _flat(content: Any, prefix: str, seen: frozenset[int]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor, by the names of all dicts that it lies in."""
    if not isinstance(content, dict) or len(seen) > MAX_DEPTH or id(content) in seen:
        return
    for name, value in content.items():
        if isinstance(name, str) and _is_tensor(value):
            yield prefix + name, value
        elif isinstance(name, str):
            yield from _flat(value, f"{prefix}{name}.", seen | {id(content)})


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether both hold the same values in the same order."""
    pairs = zip(one.values(), other.values(), strict=False)
    return len(one) == len(other) and all(
        is_plain(a) and is_plain(b) and a.shape == b.shape and torch.equal(a, b) for a, b in pairs
    )


def is_plain(tensor: Tensor) -> bool:
    """Whether its values lie in memory one by one as they are."""
    return (
        tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
        and not tensor.is_nested
    )


def kind_of(tensor: Tensor) -> str:
    """Says in one word what a value is that is_plain turns away."""
    if tensor.is_quantized:
        return "quantised"
    if tensor.device.type != "cpu":
        return f"of device {tensor.device.type}, without values"
    return "nested" if tensor.is_nested else "sparse"
