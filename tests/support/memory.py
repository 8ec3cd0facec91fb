"""How much memory the tensors of a piece of code hold at once."""

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakBytes(TorchDispatchMode):
    """Within `with`, counts the bytes of all tensors that operations have made and that are not
    freed yet; `peak` is the most of them. What an operation takes within itself is not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._held: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {storage(x)._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for made in tree_leaves(result):
            if isinstance(made, Tensor) and storage(made)._cdata not in given | self._held.keys():
                key = storage(made)._cdata
                self._held[key] = storage(made).nbytes()
                weakref.finalize(storage(made), self._held.pop, key, None)
        self.peak = max(self.peak, sum(self._held.values()))
        return result


def storage(tensor: Tensor) -> Any:
    return tensor.untyped_storage()
