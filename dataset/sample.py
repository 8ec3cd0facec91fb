"""One training sample: which pictures, under which matrices, with which drawn numbers.

Runs where pictures are read and decoded, in workers or, on a CPU, in the program itself between
two steps; the pixels are augmented later, on the device.
"""

import random
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from common.errors import DataError
from dataset import augmentation
from dataset.augmentation import NEUTRAL, NUMBERS, draw_numbers
from dataset.bad_images import max_bad_images
from dataset.geometry import affine, fit
from dataset.hand_over import handed_over
from dataset.pictures import Backgrounds, Foregrounds, decode, open_picture, unlike, upright_size
from dataset.sampler import SampleKey, seed_of
from dataset.threads import PICTURE_NAMES, map_in_threads

# Samples in a row that may be replaced; one bad background may meet several.
MAX_REPLACED_IN_A_ROW = 100


class MattingDataset(Dataset):
    """Samples by SampleKey. A sample is a dict of decoded pictures and of what augmentation.augment
    will do to them; or, since a worker's exception would lose its type on the way, a DataError.

    pairing: "random", every draw of a foreground meets a background drawn anew; or "zip",
    foreground number i always meets background number i (modulo their count).
    augmented: False for validation: fitted and centred, each with a background of its own for ever.
    skip: whether a sample with a bad picture is replaced by that of the next foreground in the
    same epoch, which then says under "faults" what was wrong.
    fgr_scale: the range in which figures are made smaller, as parts of the crop's size.
    """

    def __init__(
        self,
        foregrounds: Foregrounds,
        backgrounds: Backgrounds,
        seed: int = 0,
        pairing: str = "random",
        augmented: bool = True,
        skip: bool = False,
        fgr_scale: tuple[float, float] = (0.4, 1),
    ) -> None:
        self.foregrounds = foregrounds
        self.backgrounds = backgrounds
        self.seed = seed
        self.pairing = pairing
        self.augmented = augmented
        self.skip = skip
        self.fgr_scale = fgr_scale

    def __len__(self) -> int:
        return len(self.foregrounds)

    def __getitem__(self, key: SampleKey) -> dict | DataError:
        faults = []
        while True:
            try:
                sample = self._augmented(key) if self.augmented else self._plain(key)
            except DataError as error:
                faults.append(str(error))
                if not self.skip:
                    return error
                bad = dict.fromkeys(faults)
                if len(bad) > max_bad_images(len(self)) or len(faults) > MAX_REPLACED_IN_A_ROW:
                    return DataError(
                        f"more than 1 % of {len(self)} pictures are bad, these in a row: "
                        + "; ".join(bad)
                    )
                key = key._replace(index=(key.index + 1) % len(self))
            else:
                return {**sample, "faults": faults}

    def __getitems__(self, keys: list[SampleKey]) -> list[dict | DataError]:
        """A batch's samples, which DataLoader asks for at once."""
        return map_in_threads(self.__getitem__, [(key,) for key in keys])

    def _augmented(self, key: SampleKey) -> dict:
        rng = random.Random(seed_of(self.seed, "sample", key.epoch, key.index, key.draw))
        drawn_background = rng.randrange(len(self.backgrounds))
        in_order = key.index % len(self.backgrounds)
        numbers = draw_numbers(rng)
        fgr = affine(key.size, **augmentation.draw_fgr_affine(rng, self.fgr_scale))
        bgr = affine(key.size, **augmentation.draw_bgr_affine(rng))
        shadow = affine(key.size, **augmentation.draw_shadow_affine(rng))
        misalignment = affine(key.size, **augmentation.draw_misalignment_affine(rng))
        return self._sample(
            key,
            in_order if self.pairing == "zip" else drawn_background,
            numbers,
            (fgr, bgr, bgr @ misalignment, shadow),
            (rng.getrandbits(63), rng.getrandbits(63)),
        )

    def _plain(self, key: SampleKey) -> dict:
        background = (seed_of("validation", key.index) + key.draw) % len(self.backgrounds)
        return self._sample(key, background, NEUTRAL, (np.eye(3),) * 4, (0, 0))

    def _sample(
        self,
        key: SampleKey,
        background: int,
        numbers: dict[str, float],
        frames: tuple[np.ndarray, ...],
        noise_seeds: tuple[int, int],
    ) -> dict:
        """frames: (3, 3) matrices within the output's frame, for fgr, bgr, bgr as input, shadow."""
        fgr_path, pha_path = self.foregrounds.paths(key.index)
        bgr_path = self.backgrounds.path(background)
        fgr_frame, bgr_frame, input_frame, shadow_frame = frames

        if pha_path is None:
            picture = open_picture(fgr_path)
            matrix = (fit(key.size, upright_size(picture)) @ fgr_frame)[:2]
            rgba, (fgr_matrix,) = decode(picture, "RGBA", key.size, matrix)
            fgr, pha, pha_matrix = rgba[..., :3], rgba[..., 3:], fgr_matrix
        else:
            fgr_picture, pha_picture = open_picture(fgr_path), open_picture(pha_path)
            sizes = [upright_size(each)[::-1] for each in (fgr_picture, pha_picture)]
            if sizes[0] != sizes[1]:
                said = unlike(fgr_path, sizes[0], pha_path, sizes[1])
                raise DataError(f"{said} are of unlike sizes: replace, turn or remove them")
            matrix = (fit(key.size, upright_size(fgr_picture)) @ fgr_frame)[:2]
            fgr, (fgr_matrix,) = decode(fgr_picture, "RGB", key.size, matrix)
            pha, (pha_matrix,) = decode(pha_picture, "L", key.size, matrix)

        picture = open_picture(bgr_path)
        fitted = fit(key.size, upright_size(picture))
        bgr, (bgr_matrix, input_matrix) = decode(
            picture, "RGB", key.size, (fitted @ bgr_frame)[:2], (fitted @ input_frame)[:2]
        )
        return {
            "fgr": fgr,
            "pha": pha,
            "bgr": bgr,
            "fgr_matrix": fgr_matrix,
            "pha_matrix": pha_matrix,
            "bgr_matrix": bgr_matrix,
            "input_matrix": input_matrix,
            "shadow_matrix": shadow_frame[:2],
            "numbers": [numbers[name] for name in NUMBERS],
            "noise_seeds": noise_seeds,
            "size": key.size,
            "files": [str(path) for path in (fgr_path, pha_path, bgr_path) if path],
        }


def collate(samples: list[Any]) -> Any:
    """One batch for augmentation.augment: fgr, pha and bgr each a block of uint8 (pixels, C), one
    picture's behind the other's, with their sizes (B, 2), height and width; matrices (B, 2, 3)
    float32; numbers (B, N) float32, and what augmentation.choose says of them; noise_seeds (B, 2)
    int64; the crop's size; files; faults of what was left out. A sample that failed, a DataError,
    fails its batch. From a worker it comes through hand_over."""
    for sample in samples:
        if isinstance(sample, DataError):
            return sample
    batch = {
        "size": samples[0]["size"],
        "files": [sample["files"] for sample in samples],
        "faults": [fault for sample in samples for fault in sample["faults"]],
        "numbers": torch.tensor([sample["numbers"] for sample in samples], dtype=torch.float32),
        "noise_seeds": torch.tensor([sample["noise_seeds"] for sample in samples]),
    }
    batch |= augmentation.choose(batch["numbers"])
    for name in PICTURE_NAMES:
        pictures = [sample[name] for sample in samples]
        batch[name] = torch.from_numpy(
            np.concatenate([p.reshape(-1, p.shape[2]) for p in pictures])
        )
        batch[f"{name}_size"] = torch.tensor([picture.shape[:2] for picture in pictures])
    for name in ("fgr_matrix", "pha_matrix", "bgr_matrix", "input_matrix", "shadow_matrix"):
        matrices = np.stack([sample[name] for sample in samples])
        batch[name] = torch.from_numpy(matrices.astype(np.float32))
    return handed_over(batch)


def validation_keys(
    foregrounds: int, backgrounds: int, at_most: int, size: tuple[int, int]
) -> list[SampleKey]:
    """Up to `at_most` samples, always the same: evenly spaced foregrounds; where there are fewer,
    each several times, before another background each time."""
    if foregrounds >= at_most:
        chosen = [(place * foregrounds // at_most, 0) for place in range(at_most)]
    else:
        count = min(at_most, foregrounds * backgrounds)
        chosen = [(place % foregrounds, place // foregrounds) for place in range(count)]
    return [SampleKey(0, index, draw, size) for index, draw in chosen]
