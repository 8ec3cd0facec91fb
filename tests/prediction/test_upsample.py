"""Any size of picture: what the network sees, and how its alpha comes back to full size."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F  # noqa: N812

from benchmarks import upsampling
from benchmarks.upsampling import brought_back, composites, measures
from prediction import predictor as matter
from prediction.predictor import Matter, as_bytes, network_size, reduced
from prediction.upsample import enlarge_rows, guided_alpha, guided_factors
from tests.support import SHARED, on_photos
from tests.support.predicting import save_weights

METRICS = SHARED / "fixtures/metrics"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_weights(tmp_path_factory.mktemp("weights") / "weights.pth")


def pictures(*shape: int, seed: int = 0) -> torch.Tensor:
    """Smooth ones, with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(*shape[:2], 5, 5, generator=generator)
    fine = 0.05 * torch.rand(*shape, generator=generator)
    return (0.9 * F.interpolate(coarse, shape[2:], mode="bilinear") + fine).clamp(0, 1)


@pytest.mark.parametrize("size", [(48, 64), (45, 61)])
def test_a_picture_that_is_small_enough_gets_the_networks_own(
    weights: Path, size: tuple[int, int]
) -> None:
    made = Matter(weights, "cpu", size=64)
    src, bgr = pictures(2, 3, *size), pictures(2, 3, *size, seed=1)
    with torch.inference_mode():
        pha, fgr, err, _ = made.model(src, bgr)
    assert pha.std() > 0.01 and fgr.std() > 0.01  # or equality would say little
    found = made(src, bgr, ["err", "pha", "fgr"])
    assert torch.equal(found["pha"], pha) and torch.equal(found["err"], err)
    assert torch.allclose(found["fgr"], fgr, atol=1e-6)


@pytest.mark.parametrize("size", [(1080, 1920), (4000, 6000), (100, 5000), (700, 500), (2000, 40)])
def test_the_network_sees_about_as_many_pixels_as_asked(size: tuple[int, int]) -> None:
    height, width = network_size(size, 256)
    assert height % 16 == width % 16 == 0 and min(height, width) >= 32
    assert 0.8 < height * width / 256**2 < 1.25
    if min(height, width) > 64:
        assert height / width == pytest.approx(size[0] / size[1], rel=0.1)
    assert network_size((200, 201), 256) == (200, 201)
    assert network_size((5, 70), 256) == (32, 70)


@pytest.mark.parametrize("size", [(37, 53), (20, 16), (100, 31)])
def test_rows_are_those_of_the_whole(size: tuple[int, int]) -> None:
    x = torch.rand(2, 4, 20, 16)
    whole = F.interpolate(x, size, mode="bilinear", align_corners=False)
    for first, last in ((0, size[0]), (0, 1), (7, 12), (size[0] - 3, size[0])):
        rows = enlarge_rows(x, size, first, last)
        assert torch.allclose(rows, whole[:, :, first:last], atol=1e-6)


def test_factors_are_those_of_the_papers_formula() -> None:
    """In numpy, float64, a window at a time."""
    guide, pha, radius, epsilon = pictures(1, 3, 9, 8), pictures(1, 1, 9, 8, seed=2), 1, 1e-3
    image, alpha = guide[0].double().numpy(), pha[0, 0].double().numpy()
    each = np.zeros((4, 9, 8))
    windows = {
        (y, x): np.s_[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
        for y in range(9)
        for x in range(8)
    }
    for (y, x), window in windows.items():
        colours = image[(slice(None), *window)].reshape(3, -1)
        values = alpha[window].ravel()
        covariance = np.cov(colours, bias=True) + epsilon * np.eye(3)
        shared = (colours * values).mean(1) - colours.mean(1) * values.mean()
        each[:3, y, x] = np.linalg.solve(covariance, shared)
        each[3, y, x] = values.mean() - each[:3, y, x] @ colours.mean(1)
    expected = np.zeros((4, 9, 8))
    for (y, x), window in windows.items():
        expected[:, y, x] = each[(slice(None), *window)].mean((1, 2))
    found = guided_factors(guide, pha, radius, epsilon)[0]
    assert np.allclose(found.numpy(), expected, atol=1e-3)


def test_alpha_that_follows_the_colours_comes_back_sharp() -> None:
    src = torch.full((1, 3, 64, 64), 0.2)
    src[:, :, :, 31:] = torch.tensor([0.9, 0.5, 0.1]).view(1, 3, 1, 1)
    true_pha = (src[:, :1] - 0.2) / 0.7
    small_src, small_pha = reduced(src, (16, 16)), reduced(true_pha, (16, 16))
    factors = guided_factors(small_src, small_pha)
    found = guided_alpha(enlarge_rows(factors, (64, 64), 0, 64), src)
    bilinear = enlarge_rows(small_pha, (64, 64), 0, 64)
    assert (found - true_pha).abs().max() < 0.05 < 0.4 < (bilinear - true_pha).abs().max()


@on_photos
def test_guided_is_nearer_on_photographs_also_with_alpha_that_is_wrong(photos: Path) -> None:
    src, _, true_pha = next(composites(photos, 1))
    for factor in (2, 8):
        found = {of: measures(x, true_pha) for of, x in brought_back(src, true_pha, factor)}
        for alpha in ("true", "blurred", "moved", "noisy"):
            assert (found[alpha, "guided"] < found[alpha, "bilinear"]).all(), (alpha, factor)


@pytest.mark.skipif(not METRICS.exists(), reason="needs the mattes of ../shared/fixtures")
def test_measures_are_those_of_the_fields_programs() -> None:
    expected = json.loads((METRICS / "expected.json").read_text())
    for name in ("blur", "shift", "noise", "holes"):  # whose alpha reaches from 0 to 1
        pred, true = (
            torch.from_numpy(np.array(Image.open(METRICS / f"{name}_{kind}.png")))[None, None] / 255
            for kind in ("pred", "true")
        )
        figures = [expected[name]["whole"][each] for each in ("mad", "mse", "grad")]
        assert measures(pred, true).tolist() == pytest.approx(figures, rel=1e-3)


@pytest.mark.parametrize("guided", [True, False])
def test_bands_leave_no_seam(weights: Path, monkeypatch: pytest.MonkeyPatch, guided: bool) -> None:
    made = Matter(weights, "cpu", size=48, guided=guided)
    src, bgr = pictures(1, 3, 90, 70), pictures(1, 3, 90, 70, seed=1)
    types = ["pha", "fgr", "com", "err"]
    whole = made(src, bgr, types)
    monkeypatch.setattr(matter, "BAND_PIXELS", 70 * 7)
    for name, value in made(src, bgr, types).items():
        assert value.shape[2:] == (90, 70) and torch.allclose(value, whole[name], atol=1e-6)


def test_guided_and_bilinear_differ(weights: Path) -> None:
    src, bgr = pictures(1, 3, 90, 70), pictures(1, 3, 90, 70, seed=1)
    one, other = (Matter(weights, "cpu", size=48, guided=g)(src, bgr)["pha"] for g in (True, False))
    assert not torch.equal(one, other) and (one - other).abs().mean() < 0.1


def test_com_is_fgr_on_the_background_or_with_alpha(weights: Path) -> None:
    made = Matter(weights, "cpu", size=48)
    src, bgr = pictures(2, 3, 60, 80), pictures(1, 3, 60, 80, seed=1)
    found = made(src, bgr, ["com", "pha", "fgr"])
    assert torch.equal(found["com"], torch.cat([found["fgr"], found["pha"]], dim=1))
    colour = torch.tensor([255, 0, 51], dtype=torch.uint8).view(1, 3, 1, 1)
    com = made(src, bgr, ["com"], colour)["com"]
    expected = found["fgr"] * found["pha"] + colour / 255 * (1 - found["pha"])
    assert torch.allclose(com, expected, atol=1e-6)


def test_whole_numbers_give_whole_numbers(weights: Path) -> None:
    made = Matter(weights, "cpu", size=48)
    src, bgr = (as_bytes(pictures(2, 3, 60, 80, seed=seed)) for seed in (0, 1))
    found = made(src, bgr)
    expected = made(src / 255, bgr / 255)
    assert list(found) == ["pha", "fgr"]
    for name, value in found.items():
        assert value.dtype == torch.uint8 and torch.equal(value, as_bytes(expected[name]))


def test_one_background_is_that_of_all(weights: Path) -> None:
    made = Matter(weights, "cpu", size=48)
    src, bgr = pictures(3, 3, 60, 80), pictures(1, 3, 60, 80, seed=1)
    one, other = made(src, bgr)["pha"], made(src, bgr.expand(3, -1, -1, -1))["pha"]
    assert torch.equal(one, other)


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (3, 400)])
def test_tiny_pictures(weights: Path, size: tuple[int, int]) -> None:
    src, bgr = pictures(1, 3, *size), pictures(1, 3, *size, seed=1)
    found = Matter(weights, "cpu", size=48)(src, bgr, ["pha", "com"])
    assert found["pha"].shape == (1, 1, *size) and found["com"].isfinite().all()


def test_what_does_not_go_together_is_refused(weights: Path) -> None:
    made = Matter(weights, "cpu", size=48)
    src = pictures(2, 3, 40, 40)
    for wrong in (pictures(2, 3, 40, 41), pictures(3, 3, 40, 40), pictures(2, 1, 40, 40)):
        with pytest.raises(ValueError, match=r"bgr is \("):
            made(src, wrong)
    with pytest.raises(ValueError, match="expected \\(B, 3, H, W\\)"):
        made(src[0], src[0])
    with pytest.raises(ValueError, match="no type \\['alpha'\\]"):
        made(src, src, ["alpha"])
    with pytest.raises(ValueError, match=r"torch\.int64"):
        made(src.long(), src)
    with torch.no_grad():
        made.model.decoder.conv4.bias[0] = torch.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        made(src, src)


@pytest.mark.slow
def test_the_benchmark_runs(weights: Path, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "upsampling.json"
    argv = ["--quick", "--dataset-dir", data, "--model-checkpoint", weights, "--json", path]
    upsampling.main([str(word) for word in argv])
    rows = json.loads(path.read_text())["rows"]
    assert {row["alpha"] for row in rows} == {"true", "blurred", "moved", "noisy", "network's"}
    for row in rows:
        assert len(row["mad_each"]) == 2 and row["mad"] == pytest.approx(np.mean(row["mad_each"]))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_half_precision_on_a_gpu_is_near_to_the_cpu(weights: Path) -> None:
    made = Matter(weights, "cuda", size=48)
    assert made.precision == "fp16"
    src, bgr = (as_bytes(pictures(2, 3, 60, 80, seed=seed)) for seed in (0, 1))
    expected = Matter(weights, "cpu", size=48)(src, bgr, ["pha", "com"])
    for name, value in made(src, bgr, ["pha", "com"]).items():
        assert value.device == src.device
        assert (value.int() - expected[name].int()).abs().float().mean() < 2
