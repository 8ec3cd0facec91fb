"""Being asked to stop: Ctrl-C, SIGTERM, SIGUSR1, a terminal's SIGHUP. It never stops a step half
done."""

import argparse
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from common.cli import command, quoted, tool
from common.processes import heeded_signals


class Stopped(BaseException):
    """The run was asked to stop, and has saved what there was to save. Like KeyboardInterrupt it
    is no Exception, which others would catch."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class StopRequest:
    """Within `with`, the signals raise Stopped, wherever the program is. Once `defers` is set, they
    only leave a note, which the loop and validation look at. A second Ctrl-C raises
    KeyboardInterrupt in any case.

    defers: set before work is handed to a thread by a queue, as TensorBoard does. Where an
    exception breaks off a hand-over, the thread may miss it and all that follow, and be waited for
    in vain.
    has_steps: whether there are steps that would be lost, which implies `defers`.
    newest_checkpoint: of this start, for what is said at the end. silent: whether another process
    says it. at_once: whether KeyboardInterrupt has ended the program.
    once: the first signal raises Stopped, and all later ones are ignored, so that nothing disturbs
    what is then tidied up.
    """

    def __init__(self, once: bool = False) -> None:
        self.once = once
        self.at_once = False
        self.number: int | None = None
        self.defers = False
        self.has_steps = False
        self.newest_checkpoint: Path | None = None
        self.silent = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._handle) for number in heeded_signals()}
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
        if self.once:
            for each in self._before:
                signal.signal(each, signal.SIG_IGN)
        if not (self.defers or self.has_steps):
            raise Stopped(number)

    def until(self, batches: Iterable[dict]) -> Iterator[dict]:
        """The batches, up to the one before which the run was asked to stop."""
        for batch in batches:
            if self.number is not None:
                return
            yield batch

    def check(self) -> None:
        """Raises Stopped where the run was asked to stop."""
        if self.number is not None:
            raise Stopped(self.number)


def continuation(argv: list[str], options: argparse.Namespace, saved: Path | None) -> str:
    """How to go on with a run of `argv` that was stopped: from what it has saved, if anything."""
    kept, skip = list(argv), False
    if saved:
        kept = []
        for word in argv:
            if not skip and word.split("=")[0] not in ("--model-last-checkpoint", "--overwrite"):
                kept.append(word)
            skip = word == "--model-last-checkpoint"
        kept += ["--model-last-checkpoint", "auto"]
    line = command(sys.argv[0], *kept)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        here, machines = (os.environ.get(f"{of}_WORLD_SIZE", "1") for of in ("LOCAL", "GROUP"))
        launcher = f"{tool('torchrun', 'torch.distributed.run')} --nproc-per-node {here}"
        if machines != "1":
            launcher += f" --nnodes {machines} (and how they meet)"
        line = f"{launcher} {quoted([sys.argv[0], *kept])}"
    if saved or options.dry_run:
        return f"to continue: {line}"
    return f"this start has saved nothing yet; to start again: {line}"
