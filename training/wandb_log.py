"""Weights & Biases, for those who watch there (--log-to wandb): it gets what TensorBoard gets.

Nothing else depends on it, and nothing that goes wrong in it ends a training.
"""

import html
import os
from collections.abc import Callable
from typing import Any

from torch import Tensor

from training.provenance import plain_options

# What a machine without network may cost: at the start, at the end. What was not sent by then is
# on disk all the same, for `wandb sync`.
START_S, END_S = 60, 60

FOLDER = "log"  # its own files are in log/wandb, unless WANDB_DIR says otherwise

# Pictures come from a thread, some steps late, which wandb's own count of steps does not allow.
STEP = "global_step"


class WandbLog:
    """A run of wandb, begun here: each start of a training is one, in a group of the training's
    name. The environment's WANDB_MODE, WANDB_PROJECT and so on hold; WANDB_MODE=offline sends
    nothing.

    options: its configuration, and the training's name. say: told in a line when it does not
    start, when it gets no more after a first failure, and when it does not end well.
    """

    def __init__(self, options: dict[str, Any], say: Callable[[str], None]) -> None:
        self._say = say
        self._run: Any = None
        self._wandb: Any = None
        self._lost = False  # whether something has failed
        try:
            import wandb

            self._wandb = wandb
            self._run = wandb.init(
                # As a whole path: wandb's process outlives a run, and may run elsewhere.
                dir=os.path.abspath(os.environ.get("WANDB_DIR", FOLDER)),
                project=os.environ.get("WANDB_PROJECT", f"matting{options['stage']}"),
                name=options["model_name"],
                group=options["model_name"],
                config=plain_options(options),
                settings=wandb.Settings(
                    console="off",  # the terminal is the journal's
                    init_timeout=START_S,
                    login_timeout=START_S,
                    finish_timeout=END_S,
                ),
            )
            self._run.define_metric("*", step_metric=STEP)
        except Exception as error:  # its own, the network's, a quota's
            self._lost = True
            say(
                f"warning: wandb did not start ({_first_line(error)}); this run goes to "
                "TensorBoard alone. Type `wandb login`, or set WANDB_MODE=offline and send it "
                "later by `wandb sync`"
            )

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._log(step, lambda: values)

    def images(self, step: int, images: dict[str, Tensor]) -> None:
        """images: uint8 (3, H, W)."""
        self._log(
            step,
            lambda: {
                tag: self._wandb.Image(image.permute(1, 2, 0).numpy())
                for tag, image in images.items()
            },
        )

    def text(self, step: int, tag: str, text: str) -> None:
        page = f"<pre>{html.escape(text)}</pre>"
        self._log(step, lambda: {tag: self._wandb.Html(page)})

    def close(self, failed: bool) -> None:
        """Waits, for a minute at most, until all is sent. failed: as what the run is marked."""
        run, self._run = self._run, None
        try:
            if run:
                run.finish(exit_code=int(failed))
        except Exception as error:
            self._say(f"warning: wandb did not end well ({_first_line(error)})")

    def _log(self, step: int, values: Callable[[], dict[str, Any]]) -> None:
        if self._lost or not self._run:
            return
        try:
            self._run.log({STEP: step, **values()})
        except Exception as error:
            if self._run:  # and it has not been closed meanwhile, by another thread
                self._lost = True
                self._say(
                    f"warning: wandb gets no more ({_first_line(error)}); this run goes on with "
                    "TensorBoard alone"
                )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
