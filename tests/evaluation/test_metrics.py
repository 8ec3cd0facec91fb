"""The metrics: the figures of the programs that the field's tables come from, and defined values
where there is nothing to measure. tests/data/metrics is explained in its README."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from evaluation import metrics
from tests.support import DATA, SHARED

FOLDER = DATA / "metrics"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
NAMES = ("sad", "mad", "mse", "grad", "conn")


def read(name: str) -> Tensor:
    return torch.from_numpy(np.array(Image.open(FOLDER / f"{name}.png")))[None, None]


def pair(name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Predicted alpha, true alpha and the unknown region."""
    pred, true = (read(f"{name}_{which}").float() / 255 for which in ("pred", "true"))
    return pred, true, read(f"{name}_trimap") == 128


@pytest.mark.parametrize("name", EXPECTED)
def test_figures_are_those_of_the_published_programs(name: str) -> None:
    pred, true, unknown = pair(name)
    for where, region in (("whole", None), ("unknown", unknown)):
        for metric, value in EXPECTED[name].get(where, {}).items():
            found = getattr(metrics, metric)(pred, true, region)
            assert found.shape == (1,) and found.dtype == torch.float32
            assert found.item() == pytest.approx(value, rel=1e-3), (where, metric)


def test_a_batch_gives_what_its_images_give() -> None:
    pred, true, unknown = (torch.cat(part) for part in zip(*map(pair, EXPECTED), strict=True))
    for name in NAMES:
        metric = getattr(metrics, name)
        together = metric(pred, true, unknown)
        single = [
            metric(*(part[i : i + 1] for part in (pred, true, unknown))) for i in range(len(pred))
        ]
        assert torch.equal(together, torch.cat(single)), name
        assert not torch.equal(together, metric(pred, true)), name


@pytest.mark.parametrize("name", NAMES)
def test_what_is_outside_of_the_region_does_not_count(name: str) -> None:
    """But for Grad and Conn near it; far from it here, and of the same range."""
    pred, true, _ = pair("noise")
    region = torch.zeros_like(true, dtype=torch.bool)
    region[..., :40, :60] = True
    other = pred.clone()
    other[..., 80:, 100:] = pred[..., 80:, 100:].flip(3)
    metric = getattr(metrics, name)
    assert torch.equal(metric(pred, true, region), metric(other, true, region))
    assert not torch.equal(metric(pred, true), metric(other, true))


def test_nothing_to_measure_gives_zero() -> None:
    pred, true, unknown = pair("blur")
    nowhere = torch.zeros_like(unknown)
    for name in NAMES:
        assert getattr(metrics, name)(pred, true, nowhere).tolist() == [0.0]
        assert getattr(metrics, name)(true, true).tolist() == [0.0]
    assert metrics.dtssd(pred, true).shape == (0,)
    assert metrics.dtssd(pred.repeat(2, 1, 1, 1), true.repeat(2, 1, 1, 1)).tolist() == [0.0]
    fgr = torch.linspace(0, 1, 3 * 120 * 160).view(1, 3, 120, 160)
    assert metrics.fgr_mse(fgr, 1 - fgr, torch.zeros_like(true)).tolist() == [0.0]


def test_mattes_without_a_common_component() -> None:
    """The Octave program fails here. Two half-opaque squares apart: neither is connected, so that
    each stands out of the level 0 as a whole."""
    pred, true = torch.zeros(2, 1, 1, 20, 20)
    pred[..., 2:6, 2:6] = 0.5
    true[..., 12:16, 12:16] = 0.5
    assert metrics.conn(pred, true).item() == pytest.approx(2 * 16 * 0.5 / 1000)
    assert metrics.conn(torch.zeros_like(pred), torch.zeros_like(pred)).item() == 0
    assert metrics.grad(torch.ones_like(pred), torch.zeros_like(pred)).item() == 0


def test_connected_level_by_hand() -> None:
    """An opaque bar of five pixels, a separate one of three, and a rim of 153/255, which is 0.6."""
    pha = np.zeros((5, 7), dtype=np.float32)
    pha[1, 1:6] = 1
    pha[3, 1:4] = 1
    pha[0, 1:6] = np.float32(153) / np.float32(255)
    level = metrics.connected_level(pha, pha)
    assert level[1].tolist() == pytest.approx([0, 1, 1, 1, 1, 1, 0])
    assert level[0].tolist() == pytest.approx([0, 0.6, 0.6, 0.6, 0.6, 0.6, 0])
    assert not level[2:].any()
    # Diagonal neighbours are not connected.
    pha[2, 0] = 1
    assert metrics.connected_level(pha, pha)[2, 0] == 0


def test_dtssd_by_hand() -> None:
    """A clip that stands still, and one that gets brighter by 0.1, then by 0.2 in its left half."""
    true = torch.full((3, 1, 4, 4), 0.3)
    pred = true.clone()
    pred[1:] += 0.1
    pred[2, :, :, :2] += 0.2
    expected = [10, 100 * (0.5 * 0.2**2) ** 0.5]
    assert metrics.dtssd(pred, true).tolist() == pytest.approx(expected)
    left = torch.zeros_like(true, dtype=torch.bool)
    left[2, :, :, :2] = True
    assert metrics.dtssd(pred, true, left).tolist() == pytest.approx([0, 20])


def test_foreground_where_alpha_is_above_0() -> None:
    true_fgr, pred_fgr = torch.rand(2, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    true_pha = torch.zeros(2, 1, 4, 4)
    true_pha[0, :, :2] = 1e-3
    true_pha[1, :, 1, 1] = 1
    expected = [
        (pred_fgr - true_fgr)[0, :, :2].square().mean().item() * 1000,
        (pred_fgr - true_fgr)[1, :, 1, 1].square().mean().item() * 1000,
    ]
    assert metrics.fgr_mse(pred_fgr, true_fgr, true_pha).tolist() == pytest.approx(expected)


def test_unknown_region() -> None:
    """The fixtures' trimaps were derived by the same rule, dilated 5 times."""
    _, true, trimap = pair("blur")
    assert torch.equal(metrics.unknown_region(true, dilations=5), trimap)
    # A single pixel grows into a rhombus of 10 pixels either way.
    point = torch.zeros(1, 1, 41, 41)
    point[..., 20, 20] = 0.5
    y, x = torch.meshgrid(torch.arange(41), torch.arange(41), indexing="ij")
    rhombus = (x - 20).abs() + (y - 20).abs() <= 10
    assert torch.equal(metrics.unknown_region(point)[0, 0], rhombus)
    bounds = torch.tensor([0.05, 0.07, 0.95, 0.97]).view(4, 1, 1, 1)
    assert metrics.unknown_region(bounds).flatten().tolist() == [False, True, True, False]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_measured_in_full(dtype: torch.dtype) -> None:
    pred, true = (each.to(dtype) for each in pair("shift")[:2])
    for name in NAMES:
        metric = getattr(metrics, name)
        assert torch.equal(metric(pred, true), metric(pred.float(), true.float())), name


def test_unlike_shapes_are_not_spread() -> None:
    with pytest.raises(AssertionError, match="would be spread"):
        metrics.mad(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_as_on_a_processor() -> None:
    pred, true, unknown = (torch.cat(part) for part in zip(*map(pair, EXPECTED), strict=True))
    for name in NAMES:
        metric = getattr(metrics, name)
        there = metric(pred.cuda(), true.cuda(), unknown.cuda())
        assert torch.allclose(there.cpu(), metric(pred, true, unknown), rtol=1e-5, atol=1e-9), name


def test_the_copied_fixtures_are_the_shared_ones() -> None:
    shared = SHARED / "fixtures/metrics"
    if not shared.is_dir():
        pytest.skip(f"there is no {shared}: a clone of the project alone")
    for path in shared.iterdir():
        assert (FOLDER / path.name).read_bytes() == path.read_bytes(), path.name
