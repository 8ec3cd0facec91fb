"""File names by the million: few bytes for each, and shared by worker processes."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np


class Names(Sequence[str]):
    """Many file names in one block of bytes: a million take tens of megabytes, and worker
    processes share them, since reading one touches no reference count of the others."""

    def __init__(self, names: Iterable[str]) -> None:
        names = list(names)
        lengths = (len(name.encode("utf-8", "surrogateescape")) for name in names)
        self._ends = np.cumsum(np.fromiter(lengths, np.int64, len(names)))
        self._bytes = "".join(names).encode("utf-8", "surrogateescape")

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]  # it takes no slices
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = self._ends[index - 1] if index else 0
        return self._bytes[start : self._ends[index]].decode("utf-8", "surrogateescape")

    def digest(self) -> bytes:
        """Returns a hash of all names in their order, their ends included."""
        return hashlib.sha256(self._ends.tobytes() + self._bytes).digest()
