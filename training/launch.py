"""From a training script's options to its exit status, and what is said at an early end."""

import sys
from collections.abc import Callable
from typing import Any

from common.script import run_script
from common.signals import StopRequest, continuation
from training.options import TrainingOptions


def launch(
    script: str,
    parse_options: Callable[[list[str] | None], TrainingOptions],
    train: Any,
    argv: list[str] | None,
) -> int:
    """Trains by a script's `train`, as the options of `argv` say. Returns the exit status, as
    run_script does; an early end says how to go on."""
    argv = sys.argv[1:] if argv is None else argv
    stop = StopRequest()

    def stopped(options: TrainingOptions) -> str | None:
        lost = ": what was trained since the last checkpoint is lost" if stop.has_steps else ""
        how = f"stopped at once{lost}" if stop.at_once else "stopped"
        if stop.silent:
            return None
        return f"{how}; {continuation(argv, options, stop.newest_checkpoint)}"

    def failed(options: TrainingOptions) -> str | None:
        if stop.silent or not stop.newest_checkpoint:
            return None
        return continuation(argv, options, stop.newest_checkpoint)

    return run_script(
        script,
        parse_options,
        lambda options: _run(train, options, stop),
        argv,
        when_stopped=stopped,
        after_error=failed,
        skip="--on-bad-image skip",
        stop=stop,
    )


def _run(train: Any, options: TrainingOptions, stop: StopRequest) -> None:
    # torch takes seconds to import: only now, so that --help need not wait for it.
    from training.run import open_run
    from training.start import checkpoint_folder

    with checkpoint_folder(options) as folder, open_run(options, stop, folder) as run:
        train(options, run)
