"""Runs a network on a data set's validation split: each foreground on each of some backgrounds.

Everything drawn comes from the seed, so that two checkpoints meet the same pictures.
"""

import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from common.machine import LAYOUTS, autocast
from common.text import printable
from dataset.augmentation import NEUTRAL, augment, draw_misalignment_affine
from dataset.geometry import affine
from dataset.pictures import Backgrounds, Foregrounds
from dataset.sample import MattingDataset
from dataset.sample_loader import SampleLoader, batches
from dataset.sampler import SampleKey, seed_of
from evaluation.metrics import unknown_region
from evaluation.scores import Batch
from model import MattingRefine
from model.matting_refine import enlarge

# A background that was captured before the person came differs from what is behind the person.
# Moved as in training; gamma and noise as Sengupta et al., CVPR 2020, drew them to train.
GAMMA_DEVIATION = 0.12
NOISE_DEVIATIONS = (2 / 255, 6 / 255)


class Compositions(MattingDataset):
    """Samples by SampleKey: foreground `index` on background number `draw` of `chosen`, fitted and
    centred, unaugmented. captured: the network's bgr is moved and noisy; its gamma is left to
    `gamma_of`."""

    def __init__(
        self,
        foregrounds: Foregrounds,
        backgrounds: Backgrounds,
        chosen: list[int],
        seed: int,
        captured: bool,
    ) -> None:
        super().__init__(foregrounds, backgrounds, seed, augmented=False)
        self.chosen = chosen
        self.captured = captured

    def _plain(self, key: SampleKey) -> dict:
        numbers, moved, noise_seed = NEUTRAL, np.eye(3), 0
        if self.captured:
            rng = random.Random(seed_of(self.seed, "captured", key.index, key.draw))
            moved = affine(key.size, **draw_misalignment_affine(rng))
            numbers = NEUTRAL | {"misaligned": 1.0, "bgr_noise": rng.uniform(*NOISE_DEVIATIONS)}
            noise_seed = rng.getrandbits(63)
        frames = (np.eye(3), np.eye(3), moved, np.eye(3))
        return self._sample(key, self.chosen[key.draw], numbers, frames, (0, noise_seed))

    def gamma_of(self, key: SampleKey) -> float:
        """The exponent that the captured background's values are raised to."""
        if not self.captured:
            return 1.0
        return random.Random(seed_of(self.seed, "gamma", key.index, key.draw)).gauss(
            1, GAMMA_DEVIATION
        )

    def keys(self, at_most: int | None, side: int) -> list[SampleKey]:
        """All samples: of each foreground, or of so many evenly spaced ones, on each background;
        squares of so many pixels."""
        count = min(len(self), at_most or len(self))
        return [
            SampleKey(0, place * len(self) // count, draw, (side, side))
            for place in range(count)
            for draw in range(len(self.chosen))
        ]

    def name(self, key: SampleKey) -> str:
        fgr = self.foregrounds.fgr_names[key.index]
        bgr = self.backgrounds.names[self.chosen[key.draw]]
        return printable(" on ".join(name.rsplit(".", 1)[0] for name in (fgr, bgr)))


def choose_backgrounds(count: int, at_most: int, seed: int) -> list[int]:
    """Which of `count` backgrounds are used, in order: so many, or all where there are fewer."""
    rng = random.Random(seed_of(seed, "backgrounds"))
    return sorted(rng.sample(range(count), min(at_most, count)))


def predictions(
    model: nn.Module,
    compositions: Compositions,
    keys: list[SampleKey],
    device: torch.device,
    precision: str,
    *,
    batch_size: int,
    num_workers: int,
    unknown: bool,
) -> Iterator[Batch]:
    """What `model`, MattingBase or MattingRefine, in eval mode on `device`, makes of these samples,
    in their order; of MattingRefine with the coarse alpha. precision: "fp32", or of autocast.
    unknown: only the unknown region is to be measured. Raises DataError."""
    on_gpu = device.type == "cuda"
    loader = SampleLoader(compositions, num_workers, on_gpu, sampler=keys, batch_size=batch_size)
    done = 0
    for batch in batches(loader):
        some = keys[done : done + len(batch["files"])]
        done += len(some)
        with torch.inference_mode():
            src, bgr, true_pha, true_fgr = augment(batch, device, LAYOUTS[device.type])
            gamma = torch.tensor([compositions.gamma_of(key) for key in some], device=device)
            bgr = bgr ** gamma[:, None, None, None]
            with autocast(device, precision)():
                pred_pha, pred_fgr, coarse_pha = _predict(model, src, bgr)
            yield Batch(
                names=[compositions.name(key) for key in some],
                pred_pha=pred_pha.float(),
                true_pha=true_pha,
                region=unknown_region(true_pha) if unknown else None,
                pred_fgr=pred_fgr.float(),
                true_fgr=true_fgr,
                src=src,
                coarse_pha=coarse_pha,
            )


def _predict(model: nn.Module, src: Tensor, bgr: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """pha, fgr and, of MattingRefine, the coarse alpha brought to the full size."""
    if not isinstance(model, MattingRefine):
        pha, fgr, _, _ = model(src, bgr, hid=False)
        return pha, fgr, None
    found = model(src, bgr)
    coarse = enlarge(found.pha_sm.float(), (src.shape[2], src.shape[3]))
    return found.pha, found.fgr, coarse
