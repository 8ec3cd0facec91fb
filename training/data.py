"""The data of a run, opened once: both splits, and what follows from their sizes."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from common.choices import SPLITS
from common.files import check_apart
from common.text import plural, tell
from dataset.first_look import look_at_alphas, smaller_than
from dataset.folders import data_folders, describe, open_split, places
from dataset.pictures import Backgrounds, Foregrounds
from dataset.sampler import steps_per_epoch
from training.run import Run


@dataclass
class Data:
    """Both splits of a data set, and what follows from their sizes. described: what
    folders.describe says of each split. last_step: the run's; limit: the option that sets it."""

    train: tuple[Foregrounds, Backgrounds]
    valid: tuple[Foregrounds, Backgrounds]
    described: dict[str, dict]
    epoch_steps: int
    last_step: int
    limit: str

    def is_due(self, step: int, interval: int) -> bool:
        """Whether what is done each `interval` steps, and at the end, is done behind `step`."""
        return step % interval == 0 or step == self.last_step


def open_data(run: Run) -> Data:
    """Both splits of the run's data set. Headers are looked into once a machine. Raises DataError,
    also where the processes see different data sets."""
    options, team = run.options, run.team
    where = options.dataset_name or "", options.dataset_dir
    team.run_on_all(
        lambda: data_folders(*where, tell) if team.local_rank == 0 else None
    )  # may draw
    folders = data_folders(*where, run.say)
    written = [Path(folder) / options.model_name for folder in ("log", "checkpoint")]
    team.run_on_all(
        lambda: check_apart(written, places(folders), deep=False) if team.is_main else None
    )
    check_headers = options.on_bad_image == "stop" and team.local_rank == 0
    splits = {
        split: team.run_on_all(partial(open_split, folders, split, check_headers, run.say))
        for split in SPLITS
    }
    foregrounds_of = {split: opened[0] for split, opened in splits.items()}
    skip = options.on_bad_image == "skip"
    team.run_on_all(lambda: look_at_alphas(foregrounds_of, run.say, skip) if team.is_main else None)
    team.run_on_all(lambda: tell_of_small(run, *splits["train"]) if team.is_main else None)
    described = {split: describe(*opened) for split, opened in splits.items()}
    team.check_same("the data sets are not the same", described)

    (foregrounds, backgrounds), (valid_foregrounds, valid_backgrounds) = splits.values()
    epoch_steps = steps_per_epoch(len(foregrounds), options.batch_size)
    last_step, limit = options.epoch_end * epoch_steps, f"--epoch-end {options.epoch_end}"
    if options.max_steps and options.max_steps < last_step:
        last_step, limit = options.max_steps, f"--max-steps {options.max_steps}"
    run.say(
        f"data: {len(foregrounds)} foregrounds and {len(backgrounds)} backgrounds to train on, "
        f"{len(valid_foregrounds)} and {len(valid_backgrounds)} to validate on; "
        f"{plural(epoch_steps, 'step')} an epoch, the last step is {last_step} ({limit})"
    )
    limit = f"{last_step} ({limit})"
    return Data(splits["train"], splits["valid"], described, epoch_steps, last_step, limit)


def tell_of_small(run: Run, foregrounds: Foregrounds, backgrounds: Backgrounds) -> None:
    """Says once where pictures are smaller than the crops, which enlarges them: the network learns
    no finer detail than they have."""
    side = run.options.crop_size[1]
    small, looked_at = smaller_than(side, foregrounds, backgrounds)
    if small:
        path, (height, width) = small[0]
        run.say(
            f"note: {len(small)} of {looked_at} pictures to train on that were looked at are "
            f"smaller than the largest crop and are enlarged for it, such as {path} "
            f"({width}x{height}); a smaller MAX for --crop-size (now {side}) costs less"
        )
