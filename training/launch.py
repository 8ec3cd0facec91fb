"""From a script's options to its exit status, and what is said at an early end."""

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

from common.signals import Stopped, StopRequest, continuation
from common.text import printable


def launch(train: Any, options: argparse.Namespace, argv: list[str]) -> int:
    """Trains by a script's `train`, as the options of `argv` say. Returns the exit status: 0; 2
    where the input is at fault, with one line that says what; 128 + the signal's number where it
    was asked to stop."""
    stop = StopRequest()
    try:
        with stop:
            status = _run(train, options, stop)
    except Stopped as stopped:
        status, told = 128 + stopped.number, "stopped; "
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
        lost = ": what was trained since the last checkpoint is lost" if stop.saves else ""
        told = f"stopped at once{lost}; "
    else:
        told = ""
    sys.stdout.flush()  # where both go to one file, the last line is to be the last
    if status and (told or stop.saved) and not stop.quiet:
        print(told + continuation(argv, options, stop.saved), file=sys.stderr)
    return status


def _run(train: Any, options: argparse.Namespace, stop: StopRequest) -> int:
    # torch takes seconds to import: only now, so that --help need not wait for it.
    from common.errors import DataError, OptionError
    from common.memory import MemoryShortError
    from model.transfer import TransferError
    from model.weights_file import WeightsFileError
    from training.checkpoint import CheckpointError
    from training.guarded_optimizer import DivergedError
    from training.run import open_run
    from training.start import checkpoint_folder
    from training.team import ContactError, ElsewhereError

    try:
        with checkpoint_folder(options) as folder, open_run(options, stop, folder) as run:
            train(options, run)
    except (
        OptionError, DataError, TransferError, WeightsFileError, CheckpointError, DivergedError,
        MemoryShortError, ContactError, ElsewhereError, OSError,
    ) as error:  # fmt: skip
        sys.stdout.flush()
        script = Path(train.__code__.co_filename).name
        print(f"{script}: error: {printable(error)}", file=sys.stderr)
        return 2
    return 0
