"""MattingRefine equals the published network, and its patches are right for every batch."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from common.choices import BACKBONES
from evaluation import metrics
from model import MattingRefine, matting_base, matting_refine
from model.refiner import cut_patches, replace_patches
from tests.support import DATA, SHARED
from tests.support.published import STATE_DICTS, reference_image
from tests.support.refining import inputs, network
from training.loss import REFINE_TERMS, refine_loss, total
from training.validator import figures

FIXTURES = SHARED / "fixtures"
EVERYDAY = sorted(DATA.glob("refine/mattingrefine_*.json"))
ALL = sorted(FIXTURES.glob("mattingrefine_*x*.json"))


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.mark.parametrize(
    "listing",
    [*EVERYDAY, *(pytest.param(path, marks=pytest.mark.slow) for path in ALL)],
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_outputs_are_those_of_the_published_network(listing: Path) -> None:
    reference = np.load(listing.with_suffix(".npz"))
    for name, case in json.loads(listing.read_text()).items():
        settings = {
            key: case[key]
            for key in (
                "backbone",
                "backbone_scale",
                "refine_mode",
                "refine_sample_pixels",
                "refine_threshold",
                "refine_prevent_oversampling",
            )
            if case[key] is not None
        }
        model = network(case["refine_kernel_size"], **settings)
        outputs = model(*inputs(case["batch"], case["height"], case["width"]))
        seen = slice(case["offset"], None, case["stride"]), slice(None, None, case["sm_stride"])
        for output in ("pha", "fgr"):
            ours = getattr(outputs, output)[..., seen[0], seen[0]].numpy()
            np.testing.assert_allclose(ours, reference[f"{name}.{output}"], atol=1e-4, rtol=0)
        for output in ("pha_sm", "fgr_sm", "err_sm"):
            ours = getattr(outputs, output)[..., seen[1], seen[1]].numpy()
            expected = reference[f"{name.split('_')[0]}.{output}"]
            np.testing.assert_allclose(ours, expected, atol=1e-4, rtol=0)
        np.testing.assert_array_equal(outputs.ref_sm.numpy(), reference[f"{name}.ref_sm"])
        assert outputs.ref_sm.sum() == case["refined_patches"]


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_entries_are_the_base_networks_and_then_the_refiners(
    backbone: str, kernel_size: int
) -> None:
    with torch.device("meta"):
        model = MattingRefine(backbone, refine_kernel_size=kernel_size)
    ours = {name: list(value.shape) for name, value in model.state_dict().items()}
    expected = STATE_DICTS[f"mattingbase_{backbone}"] | STATE_DICTS[f"refiner_kernel{kernel_size}"]
    assert list(ours.items()) == list(expected.items())


@pytest.mark.parametrize(("kernel_size", "atol"), [(3, 0), (1, 1e-6)])
def test_refining_every_patch_is_refining_the_whole(kernel_size: int, atol: float) -> None:
    full = network(kernel_size, refine_mode="full")(*inputs(2))
    every = network(kernel_size, refine_sample_pixels=10**9, refine_prevent_oversampling=False)(
        *inputs(2)
    )
    for name, ours, expected in zip(full._fields, every, full, strict=True):
        torch.testing.assert_close(ours, expected, atol=atol, rtol=0, msg=name)


@pytest.mark.parametrize("mode", ["sampling", "thresholding"])
def test_a_picture_is_refined_in_a_batch_as_by_itself(mode: str) -> None:
    model = network(refine_mode=mode, refine_sample_pixels=4423, refine_threshold=0.18)
    together = model(*inputs(2))
    for number, (src, bgr) in enumerate(zip(*inputs(2), strict=True)):
        alone = model(src[None], bgr[None])
        for ours, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(ours[number], expected[0], atol=1e-5, rtol=0)


def test_patches_are_refined_in_portions_as_at_once() -> None:
    model = network()
    half, full = torch.rand(2, 42, 80, 112), torch.rand(2, 6, 160, 224)
    places = torch.ones(2, 40, 56).nonzero()
    assert len(places) > 2048  # of a portion, on a CPU
    parts = [each.contiguous(memory_format=torch.channels_last) for each in (half, full)]
    at_once = model.refiner.patches(parts[:1], parts[1:], places)
    assert torch.equal(model.refined(parts[:1], parts[1:], places), at_once)


def test_the_patches_that_are_given_are_refined() -> None:
    model = network(refine_sample_pixels=4423)
    by_itself = model(*inputs(2))
    again = network(refine_mode="thresholding", refine_threshold=1.0)(
        *inputs(2), chosen=by_itself.ref_sm > 0
    )
    assert all(torch.equal(one, other) for one, other in zip(by_itself, again, strict=True))


def test_patches_are_cut_with_zeros_about_the_picture_and_put_back() -> None:
    pictures = torch.arange(2 * 3 * 8 * 12).view(2, 3, 8, 12).float() + 1
    every = torch.ones(2, 2, 3).nonzero()
    patches = cut_patches(list(pictures.split(1, dim=1)), every, 4, 1)
    padded = torch.nn.functional.pad(pictures, [1] * 4)
    for patch, (picture, row, column) in zip(patches, every.tolist(), strict=True):
        top, left = 4 * row, 4 * column
        assert torch.equal(patch, padded[picture, :, top : top + 6, left : left + 6])
    some = torch.tensor([(0, 0, 1), (1, 0, 2), (1, 1, 2)])
    changed = pictures.clone()
    replace_patches(changed, some, -cut_patches([pictures], some, 4, 0))
    expected = pictures.clone()
    for picture, row, column in some.tolist():
        expected[picture, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] *= -1
    assert torch.equal(changed, expected)


def test_sides_that_are_no_multiple_of_four_are_those_of_the_outputs() -> None:
    src, bgr = inputs(1, 163, 226)
    model = network(refine_sample_pixels=4423)
    outputs = model(src, bgr)
    assert outputs.pha.shape[2:] == outputs.fgr.shape[2:] == (163, 226)
    more = [0, 2, 0, 1]
    padded = model(*(torch.nn.functional.pad(each, more, mode="replicate") for each in (src, bgr)))
    assert torch.equal(outputs.pha, padded.pha[:, :, :163, :226])


def test_coarse_figures_of_such_sides_are_of_the_continued_pictures() -> None:
    model = network(refine_sample_pixels=4423)
    small = inputs(1, 163, 226)
    truth = [reference_image(channels, 163, 226, 1.3) for channels in (1, 3)]
    whole = [torch.nn.functional.pad(x, [0, 2, 0, 1], mode="replicate") for x in (*small, *truth)]
    outputs = model(*small)
    ours, expected = refine_loss(outputs, *truth), refine_loss(model(*whole[:2]), *whole[2:])
    for name in ("alpha_sm", "gradient_sm", "foreground_sm"):
        assert ours[name].item() == pytest.approx(expected[name].item(), rel=1e-6), name
    enlarged = torch.nn.functional.interpolate(
        torch.cat([outputs.pha_sm, outputs.err_sm], dim=1), (164, 228), mode="bilinear"
    )
    coarse, err = enlarged[..., :163, :226].split(1, dim=1)
    error = (err - (coarse - truth[0]).abs()).square().mean()
    assert ours["error"].item() == pytest.approx(error.item(), rel=1e-6)
    found, mad = figures(outputs, truth[0])["coarse_mad"], metrics.mad(coarse, truth[0])
    assert found.item() == pytest.approx(mad.mean().item(), rel=1e-6)


def running(refiner: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: each for name, each in refiner.named_buffers() if "running" in name}


def test_nothing_chosen_is_the_coarse_matte_and_still_trains_every_parameter() -> None:
    model = network(refine_mode="thresholding", refine_threshold=1.0)
    src, bgr = inputs(2)
    outputs = model(src, bgr)
    assert not outputs.ref_sm.any()
    enlarged = torch.nn.functional.interpolate(outputs.pha_sm, src.shape[2:], mode="bilinear")
    assert torch.equal(outputs.pha, enlarged)
    before = {name: each.clone() for name, each in running(model.refiner).items()}
    with torch.enable_grad():
        outputs = model.train()(src, bgr)
        assert not outputs.ref_sm.any()
        (outputs.pha.mean() + outputs.fgr.mean() + outputs.err_sm.mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert not any(p.grad.any() for p in model.refiner.parameters())
    assert all(torch.equal(each, before[name]) for name, each in running(model.refiner).items())


def test_batch_norm_of_the_refiner_sees_the_chosen_patches_alone() -> None:
    expected = json.loads((DATA / "refine/loss.json").read_text())["mobilenetv2"]
    expected = expected["train_mode_batch_2_dropout_0"]["buffers_after_one_forward"]
    model = network(refine_sample_pixels=4423).train()
    model.aspp.project[3].p = 0.0
    model(*inputs(2))
    buffers = dict(model.named_buffers())
    assert any(name.startswith("refiner") for name in expected)
    for name, values in expected.items():
        np.testing.assert_allclose(
            buffers[name].flatten()[: len(values)].numpy(), values, rtol=1e-4, err_msg=name
        )


@pytest.mark.parametrize("mode", ["eval_mode_batch_1", "train_mode_batch_2_dropout_0"])
@pytest.mark.parametrize("published", [True, False], ids=["published", "detached"])
def test_loss_terms_and_their_gradients_are_the_published_ones(
    mode: str, published: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (matting_base, matting_refine):  # torch's own has no gradient outside of 0..1
        monkeypatch.setattr(module, "clamp", lambda x: x.clamp(0, 1))
    expected = json.loads((DATA / "refine/loss.json").read_text())["mobilenetv2"][mode]
    expected = expected["published" if published else "with_the_target_detached"]
    training, batch = mode.startswith("train"), 2 if "batch_2" in mode else 1
    model = network(refine_sample_pixels=4423).train(training)
    model.aspp.project[3].p = 0.0
    true_pha = torch.cat([reference_image(1, 160, 224, p) for p in (1.3, 2.1)[:batch]])
    true_fgr = torch.cat([reference_image(3, 160, 224, p) for p in (3.3, 4.4)[:batch]])
    with torch.enable_grad():
        outputs = model(*inputs(batch))
        terms = refine_loss(
            outputs, (true_pha * 1.4 - 0.2).clamp(0, 1), true_fgr, detach_error=not published
        )
        total(terms).backward()
    assert tuple(terms) == tuple(expected["terms"]) == REFINE_TERMS
    for name, value in terms.items():
        assert value.item() == pytest.approx(expected["terms"][name], rel=1e-4), name
    assert outputs.ref_sm.sum() == expected["refined_patches"]
    for name, values in expected["grad"].items():
        name = name.split("[")[0]
        ours = model.get_parameter(name).grad.flatten()[: len(values)].numpy()
        np.testing.assert_allclose(ours, values, rtol=5e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("mode", ["sampling", "full"])
def test_half_precision_gives_nearly_the_same(mode: str) -> None:
    model = network(refine_mode=mode, refine_sample_pixels=10**9)
    expected = model(*inputs())
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(*inputs())
    for name in ("pha", "fgr"):
        ours = getattr(outputs, name).float()
        assert (ours - getattr(expected, name)).abs().mean() < 0.02, name


def test_settings_can_be_changed_on_a_loaded_torchscript() -> None:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(network()), file)
    file.seek(0)
    loaded = torch.jit.load(file)
    loaded.refine_sample_pixels, loaded.backbone_scale = 4423, 0.5
    expected = network(refine_sample_pixels=4423, backbone_scale=0.5)(*inputs(2))
    for ours, theirs in zip(loaded(*inputs(2)), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    loaded.refine_mode = "full"
    assert loaded(*inputs(2))[5].all()
    loaded.refine_mode = "sample"
    with pytest.raises(Exception, match="sampling, thresholding, full"):
        loaded(*inputs(2))


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"backbone_scale": 0.6}, "0.6"),
        ({"refine_mode": "sample"}, "sample"),
        ({"refine_kernel_size": 5}, "5"),
    ],
)
def test_wrong_settings_are_named(settings: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        MattingRefine("mobilenetv2", **settings)
