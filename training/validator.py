"""Measures the network on fixed samples that are never warped, and keeps some to look at.

It takes whatever terms the stage's loss has. Behind them stand the figures of the alpha, and, where
the stage's outputs have a coarse one, those of that.
"""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from dataset.augmentation import augment
from dataset.bad_images import BadImages
from dataset.sample import MattingDataset, validation_keys
from dataset.sample_loader import batches
from evaluation import metrics
from model.matting_refine import enlarge
from training.data import Data
from training.journal import Journal
from training.loader import make_loader
from training.loss import total
from training.pictures import pictures
from training.run import Run, TrainingState
from training.team import Team

METRICS = ("mad", "mse", "grad")
SAMPLES_AT_MOST = 50

# The stage's: network, src, bgr, true_pha, true_fgr -> outputs, with pha and fgr among them, and
# the terms of the loss by name.
Losses = Callable[..., tuple[Any, dict[str, Tensor]]]


class Validator:
    """Validates a run, and knows the best result so far, which stands in `state`.

    Where validation is before the first step, it is for comparison only: random weights are never
    the best.
    """

    def __init__(
        self,
        run: Run,
        state: TrainingState,
        data: Data,
        losses: Losses,
        journal: Journal,
    ) -> None:
        self._run, self._state, self._journal = run, state, journal
        self._losses = losses
        self._first_step, self._epoch_steps = run.step, data.epoch_steps
        (foregrounds, backgrounds), options = data.valid, run.options
        self._size = (options.crop_size[1],) * 2
        counts = len(foregrounds), len(backgrounds)
        self._keys = validation_keys(*counts, SAMPLES_AT_MOST, self._size)
        if options.dry_run:
            self._keys = self._keys[: options.batch_size]
        self._bad_images = BadImages(len(foregrounds), journal.say)
        self._loader = make_loader(
            run,
            MattingDataset(
                foregrounds,
                backgrounds,
                augmented=False,
                skip=options.on_bad_image == "skip",
            ),
            sampler=run.team.shard(self._keys),
            batch_size=run.settings.micro_batch_size,
        )

    def validate(self, step: int) -> bool:
        """Validates behind `step`, and tells the journal. Returns whether this is the best so far;
        False, and tells nothing, where the run was asked to stop meanwhile."""
        run, state = self._run, self._state
        run.crop = run.crop or self._size
        with contextlib.closing(batches(self._loader, self._bad_images)) as read:
            results, images, count = measure(
                state.model,
                run.stop.until(read),
                self._losses,
                device=run.device,
                layout=run.layout,
                team=run.team,
                conn=run.options.valid_conn,
            )
        if count < len(self._keys):
            return False
        self._journal.validation(step, step // self._epoch_steps, results, images)
        if step == self._first_step or (state.best and state.best["mad"] <= results["mad"]):
            return False
        state.best = {"step": step, "mad": results["mad"]}
        return True


def measure(
    model: nn.Module,
    loader: Iterable[dict],
    losses: Losses,
    *,
    device: torch.device,
    layout: torch.memory_format,
    team: Team = Team(),  # noqa: B008  (it is frozen)
    conn: bool = False,
) -> tuple[dict[str, float], dict[str, Tensor], int]:
    """Runs `model` in eval mode over the loader's batches, and puts it back into training mode.

    loader: this process's share of the samples; every process takes part. Batch norm's statistics
    are those of the main process in all of them, which are what is saved.

    Returns the means over all samples of all processes (the loss, its terms, METRICS, and `conn` if
    asked for, which takes long; then the METRICS of a coarse alpha, as coarse_mad); the pictures of
    this process's first batch by name, (B, C, H, W) float32 on the device; and how many samples
    there were. Raises the error of a loader, in the process where it comes from; ElsewhereError in
    the others.
    """
    nothing = torch.zeros((), dtype=torch.float64, device=device)
    sums: dict[str, Tensor] = {}
    images: dict[str, Tensor] = {}
    count = 0

    def measure_share() -> None:
        nonlocal count
        for batch in loader:
            src, bgr, *truth = augment(batch, device, layout)
            outputs, terms = losses(model, src, bgr, *truth)
            results = {"loss": total(terms), **terms, **figures(outputs, truth[0], conn)}
            for name, mean in results.items():
                sums[name] = sums.get(name, nothing) + mean.to(nothing) * len(src)
            count += len(src)
            if not images:
                images.update(pictures((src, bgr, *truth), outputs))

    team.broadcast(list(model.buffers()))
    model.eval()
    with torch.inference_mode():
        team.run_on_all(measure_share)
    model.train()
    # A process whose share is empty has no names; the main process, if any has a share, has one.
    names = team.run_on_main(lambda: list(sums))
    values = [sums.get(name, nothing) for name in names]
    counted = torch.full_like(nothing, count)
    *values, counts = team.all_reduce_sum(torch.stack([*values, counted])).tolist()
    means = {name: value / max(counts, 1) for name, value in zip(names, values, strict=True)}
    return means, images, round(counts)


def figures(outputs: Any, true_pha: Tensor, conn: bool = False) -> dict[str, Tensor]:
    """The means over a batch of METRICS, and of `conn`, of its pha; and of the METRICS, as
    coarse_mad, of its pha_sm where it has one, enlarged to the size of true_pha as in the network.
    """
    names = (*METRICS, "conn") if conn else METRICS
    of = {name: (name, outputs.pha) for name in names}
    if hasattr(outputs, "pha_sm"):
        coarse = enlarge(outputs.pha_sm.float(), (true_pha.shape[2], true_pha.shape[3]))
        of |= {f"coarse_{name}": (name, coarse) for name in METRICS}
    return {
        title: getattr(metrics, name)(pha.float(), true_pha).mean()
        for title, (name, pha) in of.items()
    }
