"""What a training says at its end: where its weights are, and what to type to use them."""

from pathlib import Path

from common.cli import command, script
from common.files import next_free
from training.options import TrainingOptions

PHOTO, EMPTY = "PHOTO.jpg", "EMPTY.jpg"  # of whoever types the command


def next_steps(
    options: TrainingOptions,
    log_folder: Path,
    best: Path | None,
    newest: Path,
    validation: dict[str, float] | None,
) -> list[str]:
    """The lines to say. best: the run's best weights, with step and MAD of their `validation`; None
    where there are none. newest: the weights behind the last step, which are named then."""
    if best and validation:
        weights = best
        lines = [
            f"the best weights: {best} (step {validation['step']:.0f}, "
            f"validation MAD {validation['mad']:.2f}  x1000)"
        ]
    else:
        weights = newest
        lines = [f"the newest weights: {newest} (no best ones of this run are beside them)"]
    data = ["--dataset-name", str(options.dataset_name)]
    if options.dataset_dir:
        data = ["--dataset-dir", str(options.dataset_dir)]
    report = next_free(lambda number: log_folder / f"report{number}.html")
    take = ["--model-checkpoint", str(weights)]
    pictures = ["--src", PHOTO, "--bgr", EMPTY, "--output", "mattes"]
    evaluating = command(script("evaluate.py"), *take, *data, "--report", str(report))
    predicting = command(script("predict.py"), *take, *pictures)
    return [
        *lines,
        f"to measure them: {evaluating}",
        f"to matte {PHOTO} with {EMPTY}, the same scene without the person: {predicting}",
    ]
