"""Writes checkpoints beside the training: copied at once, on disk a little later, or not at all.

One write at a time; one that fails stops the run at its next step.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.files import write_atomically
from model.weights_file import write_sealed
from training.beside import CPU, Beside, all_given
from training.checkpoint import CheckpointError, checksum, state_path


class Saver(Beside):
    """Saves in a thread of its own, within `with`; leaving it waits for the last write, but only
    for a moment where a second Ctrl-C asks to end at once. device: where the run trains."""

    def __init__(self, device: torch.device = CPU) -> None:
        super().__init__("saver", device)
        self._cancelled = False
        self._room = HostRoom()

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self.join(timeout=2)
            self._cancelled = True
            self.join(timeout=1)
        elif kind is None:
            self.wait()
        elif self.failed():
            print(f"what was trained could not be saved: {self._error}")

    def save(
        self,
        path: Path | None,
        weights: dict[str, Tensor],
        state: dict[str, Any],
        after_write: Callable[[], None],
        best: Path | None = None,
    ) -> None:
        """Copies `weights` and `state` as they are now, and returns. The thread writes them to
        `path` and the state file beside it, and the weights alone to `best`, and calls
        `after_write`. Either path may be None. Waits for an earlier write; where that has failed,
        writes nothing."""
        if self.failed():
            return
        self._room.empty([weights, state])  # which the earlier write is done with
        weights, state = (host_copy(each, self._room) for each in (weights, state))
        copied = all_given(self._device)

        def write() -> None:
            copied()
            if path:
                write_checkpoint(path, weights, state, lambda: self._cancelled)
            if best:
                write_weights(best, weights, lambda: self._cancelled)
            after_write()

        self.begin(write)


class HostRoom:
    """Pinned memory for copies of a GPU's tensors: one block, kept for the next copies. By
    themselves the thousand tensors of a checkpoint would each take, and keep, a block of their own,
    of a power of two bytes."""

    ALIGNED = 64  # bytes that each copy begins at a multiple of

    def __init__(self) -> None:
        self._block = torch.empty(0, dtype=torch.uint8)
        self._used = 0

    def empty(self, value: Any) -> None:
        """Forgets all copies, and has room for one of each tensor in `value`."""
        needed = sum(self._size(each) for each in tensors_in(value) if each.device.type != "cpu")
        if needed > len(self._block):
            self._block = torch.empty(needed, dtype=torch.uint8, pin_memory=True)
        self._used = 0

    def _size(self, tensor: Tensor) -> int:
        return -(-tensor.nbytes // self.ALIGNED) * self.ALIGNED

    def like(self, tensor: Tensor) -> Tensor:
        """Room for a copy of `tensor`, laid out as tensor.to("cpu") would be, and as large a
        storage of its own: torch.save writes whole storages."""
        plan = torch.empty_like(tensor, device="meta")
        bytes_ = self._block[self._used : self._used + tensor.nbytes].numpy()
        self._used += self._size(tensor)
        return torch.from_numpy(bytes_).view(tensor.dtype).as_strided(plan.size(), plan.stride())


def host_copy(value: Any, room: HostRoom | None = None) -> Any:
    """Returns the same nest of dicts and lists with each tensor copied to the CPU. Copies from a
    GPU are only begun, in the order of its stream: into `room`, where it is given."""
    if isinstance(value, Tensor):
        value = value.detach()
        if value.device.type == "cpu":
            return value.clone()
        if room and value.numel():
            return room.like(value).copy_(value, non_blocking=True)
        return value.to("cpu", non_blocking=True)
    if isinstance(value, dict):
        return {name: host_copy(each, room) for name, each in value.items()}
    if isinstance(value, list):
        return [host_copy(each, room) for each in value]
    return value


def tensors_in(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [tensor for each in inner for tensor in tensors_in(each)]


def size_of(*values: Any) -> int:
    """Bytes of all tensors in there."""
    return sum(tensor.nbytes for tensor in tensors_in(list(values)))


def write_checkpoint(
    weights_path: Path,
    weights: dict[str, Tensor],
    state: dict[str, Any],
    cancelled: Callable[[], bool] = lambda: False,
) -> None:
    """Writes both files, the state first: the weights file is what makes the pair exist. The
    state holds the weights' checksum, so that it is never taken for that of others. Raises
    CheckpointError, and writes nothing, where a number is not finite; OSError where there is no
    room."""
    check_finite(weights_path, weights, state)
    weights_path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: value.contiguous() for name, value in weights.items()}
    state = {**state, "weights_checksum": checksum(weights)}
    try:
        for path, content in ((state_path(weights_path), state), (weights_path, weights)):
            write = partial(write_sealed, content)
            write_atomically(path, write, size_of(content), cancelled)
    except BaseException:  # half of a pair is of no use, and takes room
        state_path(weights_path).unlink(missing_ok=True)
        raise


def write_weights(
    path: Path, weights: dict[str, Tensor], cancelled: Callable[[], bool] = lambda: False
) -> None:
    """Writes weights alone, as write_checkpoint does beside a state."""
    check_finite(path, weights, {})
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: value.contiguous() for name, value in weights.items()}
    write_atomically(path, partial(write_sealed, weights), size_of(weights), cancelled)


def check_finite(path: Path, weights: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Raises CheckpointError where a number is not finite."""
    bad = [name for name, value in weights.items() if not value.isfinite().all()]
    bad += ["Adam's moments" for value in tensors_in(state) if not value.isfinite().all()][:1]
    if bad:
        raise CheckpointError(
            f"training has diverged: {len(bad)} of {len(weights)} entries are not finite, such as "
            f"{bad[0]}, so {path} is not written; continue from an earlier checkpoint with "
            "a lower learning rate, or with --precision bf16 or fp32"
        )
