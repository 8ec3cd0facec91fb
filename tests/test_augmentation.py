"""Augmentation: per sample, aligned, reproducible, and each step against another program's."""

import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import backdrop
from PIL import Image, ImageFilter
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import functional as TF  # noqa: N812
from torchvision.transforms.functional import to_tensor

from dataset import augmentation
from dataset.augmentation import NEUTRAL, augment, box_blur, colour_jitter
from dataset.folders import data_folders, open_half
from dataset.geometry import affine, coverage, fit, source_points, warp
from dataset.matting import MattingDataset, batches, collate, validation_keys
from dataset.one_by_one import in_threads
from dataset.sampler import BatchSampler, SampleKey

CPU = torch.device("cpu")


def samples(folder: Path, **options: object) -> MattingDataset:
    return MattingDataset(*open_half(data_folders("", folder, print), "train"), **options)


def batch_of(dataset: MattingDataset, count: int = 8, side: int = 64, epoch: int = 0) -> dict:
    keys = [
        SampleKey(epoch, i % len(dataset), i // len(dataset), (side, side)) for i in range(count)
    ]
    return next(batches([collate([dataset[key] for key in keys])]))


# ---- The whole ----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_the_same_bits_for_any_number_of_workers(data: Path, workers: int) -> None:
    def run(workers: int) -> list[Tensor]:
        order = {"count": 6, "batch_size": 4, "seed": 3, "crop_size": (64, 96)}
        loader = DataLoader(
            samples(data, seed=3),
            batch_sampler=BatchSampler(2, 6, **order),
            num_workers=workers,
            collate_fn=collate,
        )
        return [tensor for batch in batches(loader) for tensor in augment(batch, CPU)]

    torch.manual_seed(workers)  # the global generator must not matter
    for one, other in zip(run(0), run(workers), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("places", [(4, 8), (3, 8), (1, 2, 3, 4, 5, 6, 7, 8)])
def test_a_sample_is_the_same_to_the_last_bit_in_every_batch(
    data: Path, places: tuple[int, ...]
) -> None:
    """Which others are in it, how many, and how large their pictures are: as where several
    processes share a global batch."""
    dataset = samples(data, seed=5)
    keys = [SampleKey(2, i % 6, i // 6, (96, 128)) for i in range(8)]
    every = [dataset[key] for key in keys]
    assert len({sample["bgr"].shape for sample in every}) > 4
    whole = augment(collate(every), CPU)
    starts = (0, *places[:-1])
    parts = [augment(collate(every[a:b]), CPU) for a, b in zip(starts, places, strict=True)]
    for output, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(output, torch.cat(pieces))


def test_a_sample_is_the_same_to_the_last_bit_with_any_number_of_threads(data: Path) -> None:
    """Processes that share a machine have fewer of them: torchrun gives each one."""
    batch, before = batch_of(samples(data, seed=6), count=12, side=160), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(augment(batch, CPU))
    finally:
        torch.set_num_threads(before)
    for outputs in zip(*results, strict=True):
        assert all(torch.equal(outputs[0], each) for each in outputs)


def test_without_workers_a_batch_is_decoded_by_as_many_threads_as_torch_has(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, together = samples(data), threading.Barrier(2, timeout=10)
    keys = [SampleKey(0, index, 0, (64, 64)) for index in (2, 0, 5, 1)]
    alone = [dataset[key]["files"] for key in keys]
    one = MattingDataset.__getitem__

    def meet(self: MattingDataset, key: SampleKey) -> object:
        together.wait()  # for another sample's thread
        return one(self, key)

    monkeypatch.setattr(MattingDataset, "__getitem__", meet)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        loader = DataLoader(dataset, batch_sampler=[keys], num_workers=0, collate_fn=collate)
        (batch,) = batches(loader)
    finally:
        torch.set_num_threads(before)
    assert batch["files"] == alone


def test_threads_take_part_in_inference_and_pass_errors_on() -> None:
    before, seen = torch.get_num_threads(), {}

    def note(place: int) -> None:
        seen[place] = torch.get_num_threads(), torch.is_inference_mode_enabled()
        if place == 2:
            raise MemoryError("of the third")

    try:
        torch.set_num_threads(2)
        with torch.inference_mode(), pytest.raises(MemoryError, match="of the third"):
            in_threads(note, [(0,), (1,), (2,)])
        in_threads(note, [(0,), (1,)])
        torch.set_num_threads(6)
        in_threads(note, [(3,), (4,)])
        assert torch.get_num_threads() == 6
    finally:
        torch.set_num_threads(before)
    assert seen == {0: (1, False), 1: (1, False), 2: (1, True), 3: (3, False), 4: (3, False)}


def test_all_at_once_gives_what_one_by_one_gives(data: Path) -> None:
    """The way of a GPU, tried on the CPU."""
    batch = batch_of(samples(data, seed=1), count=12, side=96)
    at_once = augmentation.augment_together(batch, CPU)
    for one, other in zip(augment(batch, CPU), at_once, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


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
        "fgr_blur": 0.1, "fgr_sharpen": 0.1, "bgr_blur": 0.1, "bgr_sharpen": 0.1,
        "shadow_strength": 0.3, "src_noise": 0.4, "bgr_noise": 0.4, "input_hue": 0.8,
        "misaligned": 0.3,
    }.items():  # fmt: skip
        share = np.mean([numbers[name] != NEUTRAL[name] for numbers in drawn])
        assert share == pytest.approx(probability, abs=0.03), name
    for name, low, high in (
        ("fgr_blur", 0, 5), ("fgr_brightness", 0.85, 1.15), ("bgr_contrast", 0.85, 1.15),
        ("fgr_hue", -0.05, 0.05), ("input_saturation", 0.82, 1.18), ("input_hue", -0.1, 0.1),
        ("shadow_strength", 0, 0.3), ("shadow_blur", 20, 40), ("src_noise", 0, 0.03),
    ):  # fmt: skip
        values = [numbers[name] for numbers in drawn]
        assert low <= min(values) and max(values) <= high, name
        assert max(values) - min(values) > 0.9 * (high - low), name


@pytest.mark.parametrize(
    ("draw", "rotate", "translate", "scale", "shear", "flip"),
    [
        (augmentation.draw_fgr_affine, 5, 0.1, (0.4, 1), 5, 1),
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
        ("rotate", -rotate, rotate), ("translate_x", -translate, translate),
        ("translate_y", -translate, translate), ("scale", *scale), ("shear", -shear, shear),
        ("flip", 0, flip),
    ):  # fmt: skip
        values = [float(each[name]) for each in drawn]
        assert low <= min(values) and max(values) <= high, name
        assert max(values) - min(values) >= 0.9 * (high - low), name


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
        for half in ("train", "valid"):
            for kind in ("fgr", "pha"):
                (folder / half / kind).mkdir(parents=True)
            (folder / "backgrounds" / half).mkdir(parents=True)
            # Never 0, so that the picture's outline can be told from its inside.
            pha = Image.fromarray((55 + 200 * colours[..., axis]).round().astype(np.uint8))
            fgr.save(folder / half / "fgr/a.png")
            pha.save(folder / half / "pha/a.png")
            backdrop(64, 64, 1).save(folder / "backgrounds" / half / "b.png")
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


def test_rgba_pictures_give_what_their_halves_give(data: Path, tmp_path: Path) -> None:
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


# ---- Geometry -----------------------------------------------------------------------------------


def warped(picture: Tensor, matrix: np.ndarray, size: tuple[int, int], **options: bool) -> Tensor:
    """picture: (C, h, w); matrix: to its pixels. Returns (C, *size)."""
    sizes = torch.tensor([picture.shape[1:]])
    points = source_points(sizes, torch.tensor(matrix[:2]).float()[None], size)
    return warp([picture], points, **options)[0]


@pytest.mark.parametrize("reflect", [False, True])
def test_a_warp_that_moves_nothing_changes_nothing(reflect: bool) -> None:
    picture = torch.rand(3, 40, 56)
    matrix = fit((40, 56), (40, 56)) @ affine((40, 56))
    result = warped(picture, matrix, (40, 56), reflect=reflect)
    torch.testing.assert_close(result, picture, atol=1e-4, rtol=0)


def test_flip_quarter_turn_and_shift_are_what_torch_makes_of_them() -> None:
    picture = torch.rand(3, 32, 32)

    def by(**arguments: float) -> Tensor:
        return warped(picture, affine((32, 32), **arguments), (32, 32))

    close = {"atol": 1e-4, "rtol": 0}
    torch.testing.assert_close(by(flip=True), picture.flip(2), **close)
    torch.testing.assert_close(by(rotate=90), picture.rot90(-1, (1, 2)), **close)
    shifted = by(translate_x=0.25, translate_y=-0.125)
    torch.testing.assert_close(shifted[..., :28, 8:], picture[..., 4:, :24], **close)
    half = by(scale=0.5)
    mean = torch.nn.functional.avg_pool2d(picture, 2)
    torch.testing.assert_close(half[..., 8:24, 8:24], mean, **close)


def test_outside_is_mirrored_or_continued() -> None:
    picture = torch.arange(8.0).expand(1, 10, 8)
    matrix = np.array([[1.0, 0, -3], [0, 1, 0]])
    mirrored = warped(picture, matrix, (10, 14), reflect=True)[0, 5]
    expected = torch.tensor([2.0, 1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 7, 6, 5])
    torch.testing.assert_close(mirrored, expected, atol=1e-4, rtol=0)
    continued = warped(picture, matrix, (10, 14))[0, 5]
    expected = torch.tensor([0.0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 7, 7, 7])
    torch.testing.assert_close(continued, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("reflect", [False, True])
def test_pictures_of_unlike_sizes_are_warped_each_by_its_own_matrix(reflect: bool) -> None:
    pictures = [torch.rand(3, 20, 30), torch.rand(3, 12, 9)]
    matrices = [affine((16, 24), rotate=4, scale=0.7), affine((16, 24), shear=-3, flip=True)]
    points = source_points(
        torch.tensor([[20, 30], [12, 9]]),
        torch.tensor(np.stack(matrices)[:, :2]).float(),
        (16, 24),
    )
    both = warp(pictures, points, reflect)
    for result, picture, matrix in zip(both, pictures, matrices, strict=True):
        assert torch.equal(result, warped(picture, matrix, (16, 24), reflect=reflect))


def test_coverage_is_one_inside_and_ends_at_the_border() -> None:
    sizes = torch.tensor([[10, 8]])
    matrix = torch.tensor([[[1.0, 0, -3.5], [0, 1, 0]]])
    row = coverage(sizes, matrix, (10, 14))[0, 0, 5]
    torch.testing.assert_close(row, torch.tensor([0.0] * 3 + [0.5] + [1] * 7 + [0.5] + [0] * 2))
    column = coverage(sizes, matrix, (12, 14))[0, 0, :, 7]
    torch.testing.assert_close(column, torch.tensor([1.0] * 10 + [0] * 2))


# ---- Appearance ---------------------------------------------------------------------------------


@pytest.fixture
def picture() -> Image.Image:
    return backdrop(60, 44, 2)


def test_box_blur_is_pillows_with_a_radius_for_each(picture: Image.Image) -> None:
    radii = [0.0, 0.4, 1.0, 2.7, 5.0]
    blurred = box_blur(to_tensor(picture).expand(5, -1, -1, -1), torch.tensor(radii))
    for result, radius in zip(blurred, radii, strict=True):
        expected = to_tensor(picture.filter(ImageFilter.BoxBlur(radius)))
        assert (result - expected).abs().max() < 2.5 / 255, radius


def test_sharpen_is_pillows(picture: Image.Image) -> None:
    result = augmentation.sharpen(to_tensor(picture)[None])[0]
    expected = to_tensor(picture.filter(ImageFilter.SHARPEN))
    assert (result - expected)[:, 1:-1, 1:-1].abs().max() < 1.5 / 255  # Pillow leaves the rim


@pytest.mark.parametrize(
    ("name", "factor"), [("brightness", 0.85), ("contrast", 1.1), ("saturation", 0.82)]
)
def test_colour_jitter_is_torchvisions(picture: Image.Image, name: str, factor: float) -> None:
    tensor = to_tensor(picture) * 0.8 + 0.1
    factors = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0, name: factor}
    stacked = {key: torch.tensor([1.0 if key != "hue" else 0.0, f]) for key, f in factors.items()}
    result = colour_jitter(tensor.expand(2, -1, -1, -1), **stacked)
    expected = getattr(TF, f"adjust_{name}")(tensor, factor)
    torch.testing.assert_close(result[1], expected, atol=2e-3, rtol=0)
    torch.testing.assert_close(result[0], tensor, atol=1e-4, rtol=0)


def test_hue_turns_colours_and_keeps_grey_and_luma() -> None:
    red, grey = torch.tensor([0.6, 0.3, 0.3]), torch.tensor([0.4, 0.4, 0.4])
    tensor = torch.stack([red, grey], dim=1)[None, :, None].expand(2, -1, -1, -1)
    one = torch.ones(2)
    result = colour_jitter(tensor, one, one, one, torch.tensor([0.05, -0.05]))
    torch.testing.assert_close(result[:, :, 0, 1], grey.expand(2, 3), atol=1e-4, rtol=0)
    luma = torch.tensor(augmentation.LUMA)
    torch.testing.assert_close(
        torch.einsum("bchw,c->bhw", result, luma), torch.einsum("bchw,c->bhw", tensor, luma),
        atol=1e-4, rtol=0,
    )  # fmt: skip
    expected = TF.adjust_hue(tensor[0], 0.05)[:, 0, 0], TF.adjust_hue(tensor[0], -0.05)[:, 0, 0]
    # YIQ is not HSV, but at the same grey a small turn goes the same way and about as far.
    for ours, theirs in zip(result[:, :, 0, 0], expected, strict=True):
        moved = [colour - red - (colour - red).mean() for colour in (ours, theirs)]
        assert torch.nn.functional.cosine_similarity(*moved, dim=0) > 0.8
        assert 0.5 < moved[0].norm() / moved[1].norm() < 2


def test_a_shadow_darkens_below_the_figure_and_nowhere_else() -> None:
    bgr, pha = torch.full((1, 3, 128, 128), 0.5), torch.zeros(1, 1, 128, 128)
    pha[..., 30:60, 30:60] = 1
    moved = torch.tensor(affine((128, 128), translate_x=0.25)[:2]).float()[None]
    result = augmentation.cast_shadow(bgr, pha, moved, torch.tensor([0.3]), torch.tensor([20.0]))
    assert result[0, 0, 45, 77] == pytest.approx(0.2, abs=0.01)  # 32 pixels to the right
    assert torch.equal(result[..., :10], bgr[..., :10])
    assert (result <= bgr + 1e-6).all()


@pytest.mark.parametrize("side", [20, 27.5, 40])
def test_a_shadow_is_that_of_a_warp_and_a_blur_at_full_size(side: float) -> None:
    """Which Pillow computes; of a soft figure, the crop's sides no multiples of four."""
    size = (130, 201)
    pha = Image.fromarray(np.zeros(size, np.uint8))
    pha.paste(255, (60, 40, 120, 110))
    pha = pha.filter(ImageFilter.BoxBlur(2))
    matrix = affine(size, rotate=4, translate_x=0.1, scale=1.2, shear=-4)[:2]
    drawn = pha.transform(
        size[::-1], Image.Transform.AFFINE, matrix.ravel().tolist(), Image.Resampling.BILINEAR
    )
    expected = 1 - 0.3 * to_tensor(drawn.filter(ImageFilter.BoxBlur((side - 1) / 2)))
    result = augmentation.cast_shadow(
        torch.ones(1, 3, *size), to_tensor(pha)[None], torch.tensor(matrix).float()[None],
        torch.tensor([0.3]), torch.tensor([side]),
    )[0]  # fmt: skip
    assert (result - expected).abs().max() < 0.018  # along the rim, of a shadow that is 0.3 deep
    assert (result - expected).abs().mean() < 0.002


def test_noise_has_the_asked_deviation_and_belongs_to_its_seed() -> None:
    flat = torch.full((2, 3, 64, 64), 0.5)
    sigma, seeds = torch.tensor([0.03, 0.01]), torch.tensor([11, 12])
    noisy = augmentation.add_noise(flat, sigma, seeds) - flat
    assert noisy.std((1, 2, 3)).tolist() == pytest.approx([0.03, 0.01], rel=0.05)
    alone = augmentation.add_noise(flat[1:], sigma[1:], seeds[1:]) - flat[1:]
    assert torch.equal(alone[0], noisy[1])
