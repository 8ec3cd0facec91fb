"""How a part tells what it finds. Imports nothing of the program: a package that this lacks is a
finding, too."""

import json
import math
import time
from pathlib import Path
from typing import Any

from benchmarks.common import PICTURE, draw_data

SMALL_PICTURE = (135, 240)  # height, width, with --quick


class NotHereError(RuntimeError):
    """Something cannot be measured on this machine; the message says what."""


class Findings:
    """What a part finds, a line of JSON each, on disk at once. path: of these lines. data: where
    pictures are drawn. quick: whether it only matters that it runs. until: when the part is ended,
    as time.time() says it."""

    def __init__(self, path: Path, data: Path, quick: bool, until: float) -> None:
        self.path, self.data, self.quick, self.until = path, data, quick, until

    def case(self, name: str, **figures: Any) -> None:
        """A row of the part's table: numbers, words, or lists of them, by column."""
        named = {figure.replace("_", " "): plain(value) for figure, value in figures.items()}
        self._add({"case": name, "figures": named})

    def not_here(self, reason: str) -> None:
        """That the part cannot be measured on this machine."""
        self._add({"not here": " ".join(reason.split())})

    def seconds_left(self) -> float:
        return max(0.0, self.until - time.time())

    def _add(self, line: dict[str, Any]) -> None:
        text = json.dumps(line, allow_nan=False)
        print(text, flush=True)
        with self.path.open("a") as file:
            file.write(text + "\n")

    def pictures(self) -> Path:
        """A data set of drawn JPEGs of 1920x1080, as --dataset-dir reads it."""
        if self.quick:
            return draw_data(self.data, 4, 2, SMALL_PICTURE)
        return draw_data(self.data, 16, 4, PICTURE)


def plain(value: Any) -> Any:
    """As JSON can hold it: NaN and infinity become words."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value
