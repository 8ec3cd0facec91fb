"""Augmentation as a whole: per sample, aligned, reproducible."""

import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import to_tensor

from dataset import appearance, augmentation, geometry
from dataset.augmentation import NEUTRAL, augment
from dataset.names import Names
from dataset.pictures import Backgrounds, Foregrounds
from dataset.sample import MattingDataset, collate, validation_keys
from dataset.sampler import SampleKey
from dataset.threads import PICTURE_NAMES
from tests.support.drawn import backdrop
from tests.support.memory import PeakBytes
from tests.support.samples import batch_of, samples

CPU = torch.device("cpu")

EVERYTHING = {
    "fgr_blur": 3.5,
    "fgr_sharpen": 1,
    "bgr_blur": 5,
    "bgr_sharpen": 1,
    "shadow_strength": 0.3,
    "shadow_blur": 30,
    "src_noise": 0.02,
    "bgr_noise": 0.02,
    "input_hue": 0.05,
    "misaligned": 1,
}
SHADOW = {"shadow_strength": 0.3, "shadow_blur": 30, "bgr_noise": 0.02}


@pytest.mark.parametrize(("numbers", "channels"), [(EVERYTHING, 29), (SHADOW, 15)])
def test_a_large_sample_takes_little_more_memory_than_what_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbers: dict[str, float], channels: int
) -> None:
    """In channels of float32; the batch of src, bgr, alpha and foreground has 10. The pictures have
    almost 4 times as many pixels as the crop, which is the most that is decoded."""
    side = 256
    for module in (geometry, appearance):
        monkeypatch.setattr(module, "PIXELS_AT_ONCE", side * side - 1)
    for kind, mode in (("fgr", "RGB"), ("pha", "L"), ("bgr", "RGB")):
        Image.effect_noise((500, 500), 60).convert(mode).save(tmp_path / f"{kind}.png")
    fgr, pha = (Names([f"{kind}.png"]) for kind in ("fgr", "pha"))
    foregrounds = Foregrounds(tmp_path, fgr, tmp_path, pha)
    dataset = MattingDataset(foregrounds, Backgrounds(tmp_path, Names(["bgr.png"])))
    batch = collate([dataset[SampleKey(0, 0, 0, (side, side))]])
    for name, value in ({**NEUTRAL, "fgr_hue": 0.05, "bgr_hue": 0.05} | numbers).items():
        batch["numbers"][:, augmentation.NUMBERS.index(name)] = value
    with PeakBytes() as memory:
        augment({**batch, **augmentation.choose(batch["numbers"])}, CPU)
    assert memory.peak / (4 * side * side) < 10 + channels


def test_draws_differ_within_a_batch_and_between_epochs_and_seeds(data: Path) -> None:
    one_picture = samples(data, seed=1)
    keys = [SampleKey(epoch, 0, 0, (64, 64)) for epoch in range(8)]
    batch = collate([one_picture[key] for key in keys])
    numbers = batch["numbers"]
    drawn = [n for n in NEUTRAL if n.endswith(("brightness", "contrast", "saturation", "hue"))]
    for name in drawn[:8]:  # those of the foreground and the background are always on
        column = numbers[:, augmentation.NUMBERS.index(name)]
        assert len(column.unique()) == 8, name
    for name in ("fgr_matrix", "bgr_matrix", "shadow_matrix"):
        assert len(batch[name].unique(dim=0)) == 8, name
    for output in augment(batch, CPU):
        assert len(output.flatten(1).unique(dim=0)) == 8
    assert len({sample_files[-1] for sample_files in batch["files"]}) > 2  # backgrounds, too

    other_seed = collate([samples(data, seed=2)[key] for key in keys])
    assert not torch.equal(numbers, other_seed["numbers"])


def test_rare_steps_are_as_frequent_as_the_recipe_says() -> None:
    rng = random.Random(0)
    drawn = [augmentation.draw_numbers(rng) for _ in range(4000)]
    for name, probability in {
        "fgr_blur": 0.1,
        "fgr_sharpen": 0.1,
        "bgr_blur": 0.1,
        "bgr_sharpen": 0.1,
        "shadow_strength": 0.3,
        "src_noise": 0.4,
        "bgr_noise": 0.4,
        "input_hue": 0.8,
        "misaligned": 0.3,
    }.items():
        share = np.mean([numbers[name] != NEUTRAL[name] for numbers in drawn])
        assert share == pytest.approx(probability, abs=0.03), name
    for name, low, high in (
        ("fgr_blur", 0, 5),
        ("fgr_brightness", 0.85, 1.15),
        ("bgr_contrast", 0.85, 1.15),
        ("fgr_hue", -0.05, 0.05),
        ("input_saturation", 0.82, 1.18),
        ("input_hue", -0.1, 0.1),
        ("shadow_strength", 0, 0.3),
        ("shadow_blur", 20, 40),
        ("src_noise", 0, 0.03),
    ):
        values = [numbers[name] for numbers in drawn]
        assert low <= min(values) and max(values) <= high, name
        assert max(values) - min(values) > 0.9 * (high - low), name


@pytest.mark.parametrize(
    ("draw", "rotate", "translate", "scale", "shear", "flip"),
    [
        (partial(augmentation.draw_fgr_affine, scale=(0.4, 1)), 5, 0.1, (0.4, 1), 5, 1),
        (partial(augmentation.draw_fgr_affine, scale=(0.3, 1)), 5, 0.1, (0.3, 1), 5, 1),
        (augmentation.draw_bgr_affine, 5, 0.1, (1, 2), 5, 1),
        (augmentation.draw_shadow_affine, 5, 0.2, (0.5, 1.5), 5, 0),
        (augmentation.draw_misalignment_affine, 1, 0.01, (1, 1), 0, 0),
    ],
)
def test_affine_steps_are_as_wide_as_the_recipe_says(
    draw: Callable, rotate: float, translate: float, scale: tuple, shear: float, flip: int
) -> None:
    rng = random.Random(0)
    drawn = [draw(rng) for _ in range(1000)]
    for name, low, high in (
        ("rotate", -rotate, rotate),
        ("translate_x", -translate, translate),
        ("translate_y", -translate, translate),
        ("scale", *scale),
        ("shear", -shear, shear),
        ("flip", 0, flip),
    ):
        values = [float(each[name]) for each in drawn]
        assert low <= min(values) and max(values) <= high, name
        assert max(values) - min(values) >= 0.9 * (high - low), name


def test_radii_and_shadows_are_pixels_of_any_crop(data: Path) -> None:
    dataset = samples(data, seed=3)
    keys = [SampleKey(0, number, 0, (64, 64)) for number in range(6)]
    larger = [key._replace(size=(256, 256)) for key in keys]
    small, large = (collate([dataset[key] for key in some]) for some in (keys, larger))
    assert torch.equal(small["numbers"], large["numbers"])


def test_a_figure_is_decoded_at_the_smallest_scale_that_its_size_allows(tmp_path: Path) -> None:
    """At a quarter at least, since a figure at 0.3 of a crop of 60 pixels shows 18 of 120."""
    backdrop(120, 120, 1).save(tmp_path / "a.jpg")
    backdrop(120, 120, 1).convert("L").save(tmp_path / "a.png")
    foregrounds = Foregrounds(tmp_path, Names(["a.jpg"]), tmp_path, Names(["a.png"]))
    backgrounds = Backgrounds(tmp_path, Names(["a.jpg"]))
    decoded = {}
    for scale in (1.0, 0.3):
        dataset = MattingDataset(foregrounds, backgrounds, fgr_scale=(scale, scale))
        every = [dataset[SampleKey(epoch, 0, 0, (60, 60))] for epoch in range(8)]
        decoded[scale] = max(
            max(sample[name].shape) for sample in every for name in PICTURE_NAMES[:2]
        )
        steps = [np.linalg.svd(sample["fgr_matrix"][:, :2])[1].min() for sample in every]
        assert min(steps) >= 0.9  # a pixel of the source for each of the crop
    assert decoded[1.0] > 60 and decoded[0.3] <= 30


def test_the_background_input_is_a_little_out_of_place(data: Path) -> None:
    """By its own matrix: at most a degree and a hundredth of the frame from the other's."""
    batch = batch_of(samples(data, seed=1), count=12, side=100)
    centre = torch.tensor([50.0, 50, 1])
    moved = torch.linalg.norm((batch["input_matrix"] - batch["bgr_matrix"]) @ centre, dim=1)
    step = torch.linalg.norm(batch["bgr_matrix"][:, :, 0], dim=1)
    assert (moved > 0).all() and (moved / step < 1.6).all()
    turned = torch.linalg.solve(batch["bgr_matrix"][:, :, :2], batch["input_matrix"][:, :, :2])
    angle = torch.rad2deg(torch.atan2(turned[:, 1, 0], turned[:, 0, 0])).abs()
    assert (angle < 1.01).all() and len(angle.unique()) == 12


def test_the_two_noises_of_a_sample_differ(data: Path) -> None:
    seeds = batch_of(samples(data, seed=1))["noise_seeds"]
    assert len(seeds.unique()) == seeds.numel()


def test_foreground_and_alpha_stay_aligned(tmp_path: Path) -> None:
    """The foreground's red and green are its position, and so is alpha's value in a second set."""
    width, height = 160, 120
    y, x = np.mgrid[0:height, 0:width]
    colours = np.stack([x / width, y / height, np.full(x.shape, 0.5)], axis=-1)
    fgr = Image.fromarray((colours * 255).round().astype(np.uint8))
    for axis in (0, 1):
        folder = tmp_path / str(axis)
        for split in ("train", "valid"):
            for kind in ("fgr", "pha"):
                (folder / split / kind).mkdir(parents=True)
            (folder / "backgrounds" / split).mkdir(parents=True)
            # Never 0, so that the picture's outline can be told from its inside.
            pha = Image.fromarray((55 + 200 * colours[..., axis]).round().astype(np.uint8))
            fgr.save(folder / split / "fgr/a.png")
            pha.save(folder / split / "pha/a.png")
            backdrop(64, 64, 1).save(folder / "backgrounds" / split / "b.png")
        batch = batch_of(samples(folder, seed=4), count=16, side=96)
        # Colour steps would change what is compared; geometry, blur and sharpening stay.
        for name, value in NEUTRAL.items():
            if name.endswith(("brightness", "contrast", "saturation", "hue")):
                batch["numbers"][:, augmentation.NUMBERS.index(name)] = value
        _, _, true_pha, true_fgr = augment(batch, CPU)
        position = (true_pha[:, 0] * 255 - 55) / 200
        inside = true_pha[:, 0] > 60 / 255
        # Along the picture's border alpha fades, and blur reaches as far as 5 pixels.
        outside = torch.nn.functional.pad(1 - inside.float(), (7, 7, 7, 7), value=1)
        rim = torch.nn.functional.max_pool2d(outside[:, None], 15, 1)[:, 0] > 0
        compared = inside & ~rim
        assert (compared.flatten(1).sum(1) > 50).all()  # in every sample
        difference = (true_fgr[:, axis] - position).abs()
        assert difference[compared].max() < 0.02


def test_the_photograph_is_composed_of_what_is_returned(data: Path) -> None:
    batch = batch_of(samples(data, seed=1), count=6)
    columns = [augmentation.NUMBERS.index(n) for n in NEUTRAL if n.startswith(("src_", "bgr_n"))]
    columns += [
        augmentation.NUMBERS.index(n) for n in NEUTRAL if n.startswith(("input_", "shadow"))
    ]
    columns += [augmentation.NUMBERS.index("misaligned")]
    for column in columns:
        batch["numbers"][:, column] = list(NEUTRAL.values())[column]
    src, bgr, true_pha, true_fgr = augment(batch, CPU)
    torch.testing.assert_close(src, true_fgr * true_pha + bgr * (1 - true_pha))


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("shadow_strength", {"src"}),
        ("src_noise", {"src"}),
        ("bgr_noise", {"bgr"}),
        ("input_brightness", {"bgr"}),
        ("misaligned", {"bgr"}),
        ("bgr_hue", {"src", "bgr"}),
        ("fgr_brightness", {"src", "true_fgr"}),
        ("fgr_blur", {"src", "true_fgr", "true_pha"}),
        ("fgr_sharpen", {"src", "true_fgr", "true_pha"}),
    ],
)
def test_a_step_changes_its_sample_and_its_pictures_alone(
    data: Path, name: str, changed: set[str]
) -> None:
    batch = batch_of(samples(data, seed=1), count=4)
    batch["numbers"] = torch.tensor([list(NEUTRAL.values())]).repeat(4, 1)
    plain = augment(batch, CPU)
    value = {"shadow_strength": 0.3, "src_noise": 0.03, "bgr_noise": 0.03, "bgr_hue": 0.05}
    column = augmentation.NUMBERS.index(name)
    batch["numbers"][2, column] = value.get(name, 0.85 if "brightness" in name else 1.0)
    batch["numbers"][:, augmentation.NUMBERS.index("shadow_blur")] = 25
    for output, before, after in zip(
        ("src", "bgr", "true_pha", "true_fgr"), plain, augment(batch, CPU), strict=True
    ):
        assert torch.equal(before[[0, 1, 3]], after[[0, 1, 3]]), output
        assert torch.equal(before[2], after[2]) == (output not in changed), output


def test_zip_pairs_by_number_for_ever(data: Path) -> None:
    zipped = samples(data, seed=1, pairing="zip")
    for epoch in (0, 1):
        files = [zipped[SampleKey(epoch, i, 0, (64, 64))]["files"] for i in range(6)]
        assert [Path(names[-1]).stem for names in files] == ["0", "1", "2", "3", "4", "5"]


def test_rgba_pictures_give_what_their_two_parts_give(data: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs"
    shutil.copytree(data, pairs)
    for path in pairs.rglob("fgr/*/*.jpg"):  # a JPEG would be decoded at a smaller scale
        Image.open(path).save(path.with_suffix(".png"))
        path.unlink()
    rgba = tmp_path / "rgba"
    shutil.copytree(data / "backgrounds", rgba / "backgrounds")
    for path in pairs.rglob("fgr/*/*.png"):
        picture, name = Image.open(path), path.relative_to(path.parents[1])
        picture.putalpha(Image.open(path.parents[2] / "pha" / name))
        target = rgba / path.parents[2].name / "rgba" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        picture.save(target)
    for one, other in zip(
        augment(batch_of(samples(pairs)), CPU), augment(batch_of(samples(rgba)), CPU), strict=True
    ):
        assert torch.equal(one, other)


def test_validation_is_never_warped(data: Path) -> None:
    batch = batch_of(samples(data, augmented=False), count=6, side=64)
    src, bgr, true_pha, true_fgr = augment(batch, CPU)
    for index, (fgr_path, pha_path, bgr_path) in enumerate(batch["files"]):
        for path, output in ((fgr_path, true_fgr), (pha_path, true_pha), (bgr_path, bgr)):
            picture = Image.open(path)
            side, middle = min(picture.size), (picture.width / 2, picture.height / 2)
            box = [middle[0] - side / 2, middle[1] - side / 2, middle[0] + side / 2]
            box.append(middle[1] + side / 2)
            expected = to_tensor(picture.resize((64, 64), Image.Resampling.BILINEAR, box))
            assert (output[index] - expected).abs().mean() < 0.01
    torch.testing.assert_close(src, true_fgr * true_pha + bgr * (1 - true_pha))
    again = augment(batch_of(samples(data, augmented=False, seed=9), count=6, epoch=3), CPU)
    assert torch.equal(src, again[0])


def test_validation_samples_are_evenly_spaced_or_have_several_backgrounds(data: Path) -> None:
    many = validation_keys(1000, 7, 50, (64, 64))
    assert [key.index for key in many] == list(range(0, 1000, 20))
    few = validation_keys(6, 6, 20, (64, 64))
    assert len(set(few)) == 20 and {key.index for key in few} == set(range(6))
    plain = samples(data, augmented=False)
    assert len({tuple(plain[key]["files"]) for key in few}) == 20
    assert len(validation_keys(2, 3, 50, (64, 64))) == 6
