"""TensorBoard's files of a run, in its log folder.

It only ever adds to the folder. Raises OSError where that cannot be written.

What is added goes to a thread by a queue. A second Ctrl-C in the middle of that would leave the
thread asleep, and whoever closes the log waiting for it for two minutes: it is put off till then.
"""

import signal
from pathlib import Path

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from common.processes import deferred_signals


class TensorBoardLog:
    """folder: log/NAME. first_step: completed when this start begins; what an earlier start wrote
    beyond it is marked as replaced."""

    def __init__(self, folder: Path, first_step: int) -> None:
        self._writer = SummaryWriter(folder, purge_step=first_step + 1 if first_step else 0)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        with deferred_signals(signal.SIGINT):
            for tag, value in values.items():
                self._writer.add_scalar(tag, value, step)

    def images(self, step: int, images: dict[str, Tensor]) -> None:
        """images: uint8 (3, H, W)."""
        with deferred_signals(signal.SIGINT):
            for tag, image in images.items():
                self._writer.add_image(tag, image, step)

    def text(self, step: int, tag: str, text: str) -> None:
        with deferred_signals(signal.SIGINT):
            self._writer.add_text(tag, f"```\n{text}\n```", step)

    def close(self, failed: bool) -> None:
        self._writer.close()
