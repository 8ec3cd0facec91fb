"""What is said of how much is refined: a refiner that learns nothing would be seen by nobody."""

from collections.abc import Callable

from torch import Tensor

from training.options import OF_MODES, REFINER_DEFAULTS, RefineOptions
from training.team import Team


class RefinedShare:
    """Measures how much of a step's last micro-batches is refined, over all processes of `team`,
    and says once where it is nothing.

    say: is told at once, too, which options the refine mode makes no use of.
    """

    def __init__(self, options: RefineOptions, say: Callable[[str], None], team: Team) -> None:
        self._options, self._say, self._team = options, say, team
        self._told = False
        for mode, name in OF_MODES.items():
            value = getattr(options, name)
            if mode != options.model_refine_mode and value != REFINER_DEFAULTS[name]:
                say(
                    f"note: --{name.replace('_', '-')} {value} is not used: it goes with "
                    f"--model-refine-mode {mode}"
                )

    def numbers(self, step: int, refined: Tensor) -> dict[str, float]:
        """What to log of a step; every process takes part. refined: as MattingRefine gives ref_sm.
        Waits for the device."""
        share = self._team.all_reduce_mean(refined.float().mean()).item()
        if not share and not self._told:
            self._told = True
            self._say(f"note: nothing is refined in step {step}: {self._reason()}")
        return {"refined_share": share}

    def _reason(self) -> str:
        options = self._options
        if options.model_refine_mode != "thresholding":
            return "the expected error is 0 everywhere"
        return (
            "the expected error is nowhere above --model-refine-threshold "
            f"{options.model_refine_threshold:g}, and the refiner learns nothing; type a smaller "
            "one, or --model-refine-mode sampling"
        )
