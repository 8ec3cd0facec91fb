"""What a run reads: the batches of its steps.

Which samples meet at a step is the sampler's business; how they are read, dataset/'s.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import Dataset

from common.processes import STOP_SIGNALS
from dataset.bad_images import BadImages
from dataset.sample import MattingDataset
from dataset.sample_loader import SampleLoader, batches, grouped
from dataset.sampler import BatchSampler, places_of, seed_of
from training.data import Data
from training.journal import Journal
from training.run import Run
from training.team import ElsewhereError


def make_loader(run: Run, dataset: Dataset, **sampling: Any) -> SampleLoader:
    """A loader of `dataset` as this machine is served best. sampling: what it is asked for."""
    on_gpu = run.device.type == "cuda"
    return SampleLoader(dataset, run.settings.num_workers, on_gpu, **sampling)


class TrainingSteps:
    """The steps that are left of a run: of each its number, counted from 1, and this process's
    micro-batches, with the seeds of their dropout. All processes have the same steps.

    check: called before each step; it raises what went wrong elsewhere in this process.

    Within `with`. Ends before the step at which a process was asked to stop. Raises this process's
    own error, of reading or of writing checkpoints; ElsewhereError where it is another's.
    """

    def __init__(self, run: Run, data: Data, journal: Journal, check: Callable[[], None]) -> None:
        self._run, self._journal, self._check = run, journal, check
        options, (foregrounds, backgrounds) = run.options, data.train
        self._bad_images = BadImages(len(foregrounds), journal.say)
        self._loader = make_loader(
            run,
            MattingDataset(
                foregrounds,
                backgrounds,
                options.seed,
                options.dataset_pairing,
                skip=options.on_bad_image == "skip",
                fgr_scale=options.fgr_scale,
            ),
            batch_sampler=BatchSampler(
                run.step,
                data.last_step,
                run.micro_batches,
                run.micro_batch_count,
                count=len(foregrounds),
                batch_size=options.batch_size,
                seed=options.seed,
                crop_size=tuple(options.crop_size),
            ),
        )
        self._exit_stack = contextlib.ExitStack()

    def __enter__(self) -> Iterator[tuple[int, list[dict]]]:
        self._run.stop.has_steps = True  # from now on there is something to lose
        read = batches(self._loader, self._bad_images)
        self._exit_stack.enter_context(contextlib.closing(read))
        return self._steps(self._journal.watch(grouped(read, self._run.options.accumulate)))

    def __exit__(self, *_error: object) -> None:
        self._exit_stack.close()

    def _steps(self, groups: Iterator[list[dict]]) -> Iterator[tuple[int, list[dict]]]:
        run = self._run
        while (group := self._next(groups)) is not None:
            run.step += 1
            run.crop = group[0]["size"]
            for number, batch in zip(run.micro_batches, group, strict=True):
                batch["dropout_seeds"] = self._dropout_seeds(number)
            yield run.step, group
        if self._bad_images.samples:
            seen = len(self._bad_images.seen)
            self._journal.say(
                f"{seen} bad pictures left out, in {self._bad_images.samples} samples"
            )

    def _dropout_seeds(self, micro_batch: int) -> list[int]:
        run, options = self._run, self._run.options
        where = places_of(micro_batch, run.micro_batch_count, options.batch_size)
        return [seed_of(options.seed, "dropout", run.step, place) for place in where]

    def _next(self, groups: Iterator[list[dict]]) -> list[dict] | None:
        """What this process has for the next step, as long as all have something and none was
        asked to stop."""
        stop = self._run.stop
        group, error = None, None
        try:
            self._check()
            group = next(groups, None)
        except Exception as raised:
            error = raised
        asked = [stop.number == number for number in STOP_SIGNALS]
        failures, faults, *asked = self._run.team.sum_counts(
            [error is not None, len(self._bad_images.seen), *asked]
        )
        if error:
            raise error
        if failures:
            raise ElsewhereError("another process has failed")
        self._bad_images.check(faults)
        if any(asked):  # every process ends with the same one
            stop.number = next(n for n, count in zip(STOP_SIGNALS, asked, strict=True) if count)
        return None if stop.number is not None else group
