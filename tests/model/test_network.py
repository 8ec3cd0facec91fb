"""The network equals the published one: names, shapes, outputs, and the four loss terms."""

import json

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from common.choices import BACKBONES, OUTPUTS
from exporting.inference import Inference
from model import MattingBase
from model.matting_base import ENCODERS, Outputs, clamp
from tests.support import DATA
from tests.support.operations import Operations
from tests.support.published import STATE_DICTS, reference_entry, reference_image
from training.loss import matting_loss, sobel, total
from training.options import parse_base_options
from training.run import parameter_groups


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


def test_every_backbone_to_choose_has_its_encoder() -> None:
    assert tuple(ENCODERS) == BACKBONES


def test_entries_are_those_of_the_published_class(backbone: str) -> None:
    with torch.device("meta"):
        state = MattingBase(backbone).state_dict()
    ours = {name: list(value.shape) for name, value in state.items()}
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


def test_sobel_takes_no_tf32_in_either_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    class Settings(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append((func.overloadpacket.__name__, torch.backends.cudnn.allow_tf32))
            return func(*args, **(kwargs or {}))

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    seen: list[tuple[str, bool]] = []
    pictures = torch.rand(2, 1, 9, 13, requires_grad=True)
    with Settings():
        sobel(pictures).sum().backward()
    convolutions = [each for each in seen if "convolution" in each[0]]
    assert convolutions == [("convolution", False), ("convolution_backward", False)]
    assert torch.backends.cudnn.allow_tf32


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
    options = parse_base_options(["--model-backbone", backbone])
    rates = {name: getattr(options, f"lr_{name}") for name in ("backbone", "aspp", "decoder")}
    groups = parameter_groups(model, **rates)
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


def gradients(model: MattingBase, hid: bool) -> dict[str, torch.Tensor | None]:
    """Of the loss, in training mode, on inputs and dropout that are always the same."""
    generator = torch.Generator().manual_seed(1)
    src, bgr, true_fgr = torch.rand(3, 2, 3, 64, 96, generator=generator)
    model.zero_grad()
    model.seed_dropout([3, 4])
    pha, fgr, err, _ = model(src, bgr, hid=hid)
    total(matting_loss(pha, fgr, err, true_fgr[:, :1], true_fgr)).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(
    "backbone", ["resnet50", pytest.param("resnet101", marks=pytest.mark.slow), "mobilenetv2"]
)
def test_without_hid_all_else_is_the_same(backbone: str) -> None:
    """Its channels get a gradient of zero, as they have where it is computed and not used."""
    torch.manual_seed(0)
    model = MattingBase(backbone)
    src, bgr = torch.rand(2, 1, 3, 64, 96)
    with torch.no_grad():
        every, few = model.eval()(src, bgr), model(src, bgr, hid=False)
    assert every.hid is not None and few.hid is None
    assert all(torch.equal(one, other) for one, other in zip(every[:3], few[:3], strict=True))

    model.train()
    with_it, without = gradients(model, hid=True), gradients(model, hid=False)
    assert all(torch.equal(with_it[name], without[name]) for name in with_it)
    assert not without["decoder.conv4.weight"][5:].any()
    assert not without["decoder.conv4.bias"][5:].any()


def test_without_hid_its_channels_are_computed_nowhere() -> None:
    model = MattingBase("mobilenetv2")
    with Operations() as every:
        gradients(model, hid=True)
    with Operations() as few:
        gradients(model, hid=False)

    def channels(operations: Operations) -> int:
        shapes = [x[0] for of in operations.seen for x in of.outputs if "convolution" in of.name]
        return sum(shape[1] for shape in shapes if len(shape) == 4 and shape[2:] == (64, 96))

    # The last convolution and its gradient, whose input is as wide; no other is of this size.
    assert channels(every) - channels(few) == 32


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
@pytest.mark.parametrize("hid", [True, False])
def test_the_network_can_be_scripted_and_traced(hid: bool) -> None:
    model = MattingBase("mobilenetv2").eval()
    src, bgr = torch.rand(2, 2, 3, 64, 96)
    wanted = [output for output in model(src, bgr, hid) if output is not None]
    given = torch.jit.script(model)(src, bgr, hid)
    assert (given.hid is not None) == hid
    for one, other in zip(given, wanted, strict=False):
        torch.testing.assert_close(one, other)
    if hid:
        traced = torch.jit.trace(model, torch.rand(2, 1, 3, 32, 32).unbind(), check_trace=False)
        for one, other in zip(traced(src, bgr), wanted, strict=True):
            torch.testing.assert_close(one, other)


def test_an_export_computes_what_it_gives_and_no_channel_behind() -> None:
    model = MattingBase("mobilenetv2")
    for outputs, channels in ((("pha",), 1), (("fgr", "pha"), 4), (("err",), 5), (("hid",), 37)):
        assert len(Inference(model, outputs).decoder.conv4.weight) == channels


def test_a_clamp_lets_values_back_in_and_none_further_out() -> None:
    x = torch.tensor([-0.5, -0.5, 0.5, 0.5, 1.5, 1.5], requires_grad=True)
    clamped = clamp(x)
    assert torch.equal(clamped, x.clamp(0, 1))
    clamped.backward(torch.tensor([-1.0, 1.0, -1.0, 1.0, -1.0, 1.0]))
    assert x.grad.tolist() == [-1, 0, -1, 1, 0, 1]


def test_outputs_are_named_as_options_name_them() -> None:
    assert Outputs._fields == OUTPUTS


def test_an_unknown_backbone_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'resnet18'.*resnet50"):
        MattingBase("resnet18")
