"""What torch is made to do: every operation of a piece of code, forward and backward."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class Operation:
    """name: as in aten, such as "convolution"; shapes, types and layouts of what goes in and out,
    which keep no tensor alive."""

    name: str
    inputs: list[tuple[tuple[int, ...], torch.dtype, str]]
    outputs: list[tuple[tuple[int, ...], torch.dtype, str]]


class Operations(TorchDispatchMode):
    """Takes down in `seen`, within `with`, each operation that is dispatched to a device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [_described(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        found = [_described(x) for x in tree_leaves(result) if isinstance(x, Tensor)]
        self.seen.append(Operation(func.overloadpacket.__name__, given, found))
        return result


def _described(x: Tensor) -> tuple[tuple[int, ...], torch.dtype, str]:
    """layout: "contiguous" or "channels_last"; "any" for what is both; "" for what is neither."""
    wide = x.is_contiguous()
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    layout = ("any" if last else "contiguous") if wide else "channels_last" if last else ""
    return tuple(x.shape), x.dtype, layout
