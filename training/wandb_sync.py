"""Weights & Biases, for those who watch there (--log-to wandb): it follows what TensorBoard gets.

Nothing else depends on it, and nothing that goes wrong in it ends a training.
"""

import argparse
import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

# What a machine without network may cost: at the start, at the end. What was not sent by then is
# on disk all the same, for `wandb sync`.
START_S, END_S = 60, 60

# It looks for event files at intervals: what ends before it has looked would arrive empty.
SEEN_S = 6

FILES = "log"  # its own are in log/wandb, unless WANDB_DIR says otherwise


@contextlib.contextmanager
def wandb_run(folder: Path, options: argparse.Namespace) -> Iterator[None]:
    """Within `with`, a run of wandb that follows every SummaryWriter made meanwhile in `folder`,
    log/NAME. The environment's WANDB_MODE, WANDB_PROJECT and so on hold; WANDB_MODE=offline sends
    nothing. Each start of a training is a run, in a group of the training's name."""
    import wandb

    run = None
    try:
        # Without copies of the event files, which TensorBoard would show again, and wandb, where
        # they lie below `folder`, follow in turn, without end.
        wandb.tensorboard.patch(save=False, root_logdir=str(folder.absolute()))  # type: ignore[attr-defined]
        run = wandb.init(
            dir=os.path.abspath(os.environ.get("WANDB_DIR", FILES)),
            project=os.environ.get("WANDB_PROJECT", "mattingbase"),
            name=options.model_name,
            group=options.model_name,
            config={
                name: str(value) if isinstance(value, Path) else value
                for name, value in vars(options).items()
            },
            settings=wandb.Settings(
                console="off",  # the terminal is the journal's
                init_timeout=START_S,
                login_timeout=START_S,
                finish_timeout=END_S,
            ),
        )
    except Exception as error:  # its own, the network's, a quota's
        print(
            f"warning: wandb did not start ({_first_line(error)}); this run goes to TensorBoard "
            "alone. Type `wandb login`, or set WANDB_MODE=offline and send it later by `wandb sync`"
        )
    status, began = 1, time.monotonic()
    try:
        yield
        status = 0
    finally:
        try:
            if run:
                if not status:
                    time.sleep(max(0.0, SEEN_S - (time.monotonic() - began)))
                run.finish(exit_code=status)
        except Exception as error:
            print(f"warning: wandb did not end well ({_first_line(error)})")
        finally:
            wandb.tensorboard.unpatch()  # type: ignore[attr-defined]


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
