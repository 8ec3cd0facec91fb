"""The steps of the augmentation, each against another program's or what it should be."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms import functional as TF  # noqa: N812
from torchvision.transforms.functional import to_tensor

from dataset import appearance, geometry
from dataset.appearance import box_blur, colour_jitter
from dataset.geometry import affine, coverage, fit, source_points, warp
from tests.support.drawn import backdrop
from tests.support.memory import PeakBytes

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


def test_a_large_picture_is_warped_channel_by_channel_to_the_same_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pictures = [(torch.rand(3, side, 100) * 255).to(torch.uint8) for side in (100, 80)]
    matrices = [fit((64, 56), (side, 100)) @ affine((64, 56), rotate=4) for side in (100, 80)]
    sizes = torch.tensor([[100, 100], [80, 100]])
    points = source_points(sizes, torch.tensor(np.stack(matrices)[:, :2]).float(), (32, 28))
    peaks, results = [], []
    for at_once in (10_000, 9_999):
        monkeypatch.setattr(geometry, "PIXELS_AT_ONCE", at_once)
        with PeakBytes() as memory:
            results.append(warp(pictures, points, reflect=True))
        peaks.append(memory.peak / 4)
    assert torch.equal(*results)
    assert peaks[1] < peaks[0] / 2


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


def test_a_large_picture_is_blurred_channel_by_channel_to_the_same_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pictures, radii = torch.rand(2, 3, 90, 70), torch.tensor([0.7, 5.0])
    monkeypatch.setattr(appearance, "PIXELS_AT_ONCE", 90 * 70)
    whole = box_blur(pictures, radii)
    monkeypatch.setattr(appearance, "PIXELS_AT_ONCE", 90 * 70 - 1)
    torch.testing.assert_close(box_blur(pictures, radii), whole, atol=1e-6, rtol=0)


def test_sharpen_is_pillows(picture: Image.Image) -> None:
    result = appearance.sharpen(to_tensor(picture)[None])[0]
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
    luma = torch.tensor(appearance.LUMA)
    torch.testing.assert_close(
        torch.einsum("bchw,c->bhw", result, luma),
        torch.einsum("bchw,c->bhw", tensor, luma),
        atol=1e-4,
        rtol=0,
    )
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
    result = appearance.cast_shadow(bgr, pha, moved, torch.tensor([0.3]), torch.tensor([20.0]))
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
    result = appearance.cast_shadow(
        torch.ones(1, 3, *size),
        to_tensor(pha)[None],
        torch.tensor(matrix).float()[None],
        torch.tensor([0.3]),
        torch.tensor([side]),
    )[0]
    assert (result - expected).abs().max() < 0.018  # along the rim, of a shadow that is 0.3 deep
    assert (result - expected).abs().mean() < 0.002


def test_noise_has_the_asked_deviation_and_belongs_to_its_seed() -> None:
    flat = torch.full((2, 3, 64, 64), 0.5)
    sigma, seeds = torch.tensor([0.03, 0.01]), torch.tensor([11, 12])
    noisy = appearance.add_noise(flat, sigma, seeds) - flat
    assert noisy.std((1, 2, 3)).tolist() == pytest.approx([0.03, 0.01], rel=0.05)
    alone = appearance.add_noise(flat[1:], sigma[1:], seeds[1:]) - flat[1:]
    assert torch.equal(alone[0], noisy[1])
