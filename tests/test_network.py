"""The network equals the published one: names, shapes, outputs, and the four loss terms."""

import json

import numpy as np
import pytest
import torch
from conftest import DATA, STATE_DICTS, reference_entry, reference_image

from model import MattingBase
from model.matting_base import BACKBONES, clamp
from training import start
from training.loss import matting_loss, sobel, total
from training.options import BACKBONES as OFFERED
from training.options import parse_options


@pytest.fixture(params=BACKBONES)
def backbone(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def outputs() -> dict:
    """By backbone: pha, fgr, err, hid for the reference's weights and inputs."""
    computed = {}
    for backbone in BACKBONES:
        model = MattingBase(backbone).eval()
        listing = STATE_DICTS[f"mattingbase_{backbone}"]
        model.load_state_dict({name: reference_entry(name, s) for name, s in listing.items()})
        with torch.no_grad():
            computed[backbone] = model(
                reference_image(3, 64, 96, 0.3), reference_image(3, 64, 96, 2.3)
            )
    return computed


def test_entries_are_those_of_the_published_class(backbone: str) -> None:
    ours = {name: list(value.shape) for name, value in MattingBase(backbone).state_dict().items()}
    assert ours == STATE_DICTS[f"mattingbase_{backbone}"]


def test_outputs_are_those_of_the_published_class(backbone: str, outputs: dict) -> None:
    reference = np.load(DATA / "mattingbase_reference.npz")
    pha, fgr, err, hid = (output.numpy() for output in outputs[backbone])
    for name, ours in (("pha", pha), ("fgr", fgr), ("err", err), ("hid", hid[:, ::8])):
        np.testing.assert_allclose(ours, reference[f"{backbone}_{name}"], atol=1e-4, rtol=1e-4)


def test_loss_terms_are_those_of_the_published_program(backbone: str, outputs: dict) -> None:
    expected = json.loads((DATA / "mattingbase_reference_loss.json").read_text())[backbone]
    pha, fgr, err, _ = outputs[backbone]
    true_pha = (reference_image(1, 64, 96, 1.3) * 1.4 - 0.2).clamp(0, 1)
    terms = matting_loss(pha, fgr, err, true_pha, reference_image(3, 64, 96, 3.3))
    assert list(terms) == ["alpha", "gradient", "foreground", "error"]
    for name, value in terms.items():
        assert value.item() == pytest.approx(expected[name], rel=1e-4), name


def test_sobel_is_that_of_kornia() -> None:
    from kornia.filters import sobel as reference

    with torch.inference_mode():  # as in a run, whose first call is validation's
        sobel(torch.rand(1, 1, 4, 4))
    pictures = torch.rand(3, 1, 17, 23, requires_grad=True)
    ours, theirs = sobel(pictures), reference(pictures)
    torch.testing.assert_close(ours, theirs)
    one, other = (torch.autograd.grad(each.sum(), pictures)[0] for each in (ours, theirs))
    torch.testing.assert_close(one, other)


def test_loss_is_computed_in_float32_even_under_autocast() -> None:
    half = [torch.rand(2, c, 8, 8).bfloat16() for c in (1, 3, 1)]
    true = torch.rand(2, 1, 8, 8), torch.rand(2, 3, 8, 8)
    expected = matting_loss(*(value.float() for value in half), *true)
    with torch.autocast("cpu", torch.bfloat16):
        terms = matting_loss(*half, *true)
    assert {term.dtype for term in terms.values()} == {torch.float32}
    assert terms == expected


def test_error_target_takes_no_gradient() -> None:
    pred_pha = torch.rand(2, 1, 8, 8, requires_grad=True)
    pred_err = torch.rand(2, 1, 8, 8, requires_grad=True)
    true_fgr = torch.rand(2, 3, 8, 8)
    terms = matting_loss(pred_pha, true_fgr, pred_err, torch.rand(2, 1, 8, 8), true_fgr)
    terms["error"].backward()
    assert pred_pha.grad is None
    assert pred_err.grad.abs().sum() > 0


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (50, 64)])
def test_any_size_from_32_pixels(backbone: str, size: tuple[int, int]) -> None:
    model = MattingBase(backbone).eval()
    with torch.no_grad():
        pha, fgr, err, hid = model(torch.rand(1, 3, *size), torch.rand(1, 3, *size))
    shapes = [tuple(output.shape) for output in (pha, fgr, err, hid)]
    assert shapes == [(1, 1, *size), (1, 3, *size), (1, 1, *size), (1, 32, *size)]
    for output in (pha, fgr, err):
        assert output.min() >= 0 and output.max() <= 1
    assert hid.min() >= 0


def test_every_parameter_is_in_one_group_and_gets_a_gradient(backbone: str) -> None:
    torch.manual_seed(0)
    model = MattingBase(backbone)
    options = parse_options(["--model-backbone", backbone])
    groups = start.parameter_groups(model, options)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    assert [(group["name"], group["lr"]) for group in groups] == [
        ("backbone", 1e-4),
        ("aspp", 5e-4),
        ("decoder", 5e-4),
    ]
    # Outputs in the middle of their range, where the clamps pass a gradient.
    with torch.no_grad():
        model.decoder.conv4.weight.mul_(0.05)
        model.decoder.conv4.bias[:5] = torch.tensor([0.5, 0, 0, 0, 0.5])
    src, bgr = torch.rand(2, 2, 3, 64, 64)
    pha, fgr, err, _ = model(src, bgr)
    terms = matting_loss(pha, fgr, err, torch.rand(2, 1, 64, 64), torch.rand(2, 3, 64, 64))
    total(terms).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_a_clamp_lets_values_back_in_and_none_further_out() -> None:
    x = torch.tensor([-0.5, -0.5, 0.5, 0.5, 1.5, 1.5], requires_grad=True)
    clamped = clamp(x)
    assert torch.equal(clamped, x.clamp(0, 1))
    clamped.backward(torch.tensor([-1.0, 1.0, -1.0, 1.0, -1.0, 1.0]))
    assert x.grad.tolist() == [-1, 0, -1, 1, 0, 1]


def test_options_offer_the_backbones_that_there_are() -> None:
    assert OFFERED == BACKBONES


def test_an_unknown_backbone_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'resnet18'.*resnet50"):
        MattingBase("resnet18")
