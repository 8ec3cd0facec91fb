"""What torch is made to do for the network: types under autocast, layouts, copies."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F  # noqa: N812
from torchvision.models.segmentation import deeplabv3

import evaluate
from model import MattingBase
from model.aspp import ASPP
from model.batch_norm import BatchNorm2d
from model.decoder import Decoder, _join
from prediction.predictor import Matter
from tests.support.operations import Operation, Operations
from tests.support.running import run
from training.loss import matting_loss, total


def step(backbone: str, dtype: torch.dtype) -> Operations:
    """One forward and backward pass in training mode, laid out as channels_last."""
    torch.manual_seed(0)
    model = MattingBase(backbone).to(memory_format=torch.channels_last)
    model.seed_dropout([1, 2])
    src, bgr, true_fgr = (
        x.contiguous(memory_format=torch.channels_last) for x in torch.rand(3, 2, 3, 64, 96)
    )
    with Operations() as operations:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            pha, fgr, err, _ = model(src, bgr, hid=False)
        total(matting_loss(pha, fgr, err, true_fgr[:, :1], true_fgr)).backward()
    return operations


def large(operation: Operation) -> list[tuple]:
    """Those of its tensors that are of a batch and have pixels."""
    every = operation.inputs + operation.outputs
    return [x for x in every if len(x[0]) == 4 and x[0][0] == 2 and x[0][2] > 1]


@pytest.mark.parametrize(
    "backbone", [pytest.param("resnet50", marks=pytest.mark.slow), "mobilenetv2"]
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_nothing_is_enlarged_or_joined_in_float32(
    backbone: str, dtype: torch.dtype
) -> None:
    operations = step(backbone, dtype)
    seen = [of for of in operations.seen if "upsample" in of.name or of.name == "cat"]
    assert sum("upsample" in of.name for of in seen) == 2 * 4  # forward and backward
    inputs, *others = seen  # the first joins src and bgr
    assert inputs.outputs[0][0] == (2, 6, 64, 96)
    assert {x[1] for of in others for x in large(of)} == {dtype}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_decoder_under_autocast_has_the_gradients_of_float32(dtype: torch.dtype) -> None:
    """Up to rounding, and finite at the scale that fp16 begins with."""
    torch.manual_seed(0)
    decoder = Decoder((64, 32, 16, 12, 37), (8, 6, 4, 6))
    shapes = [(64, 4, 6), (8, 8, 12), (6, 16, 24), (4, 32, 48), (6, 64, 96)]
    features = [torch.randn(2, *shape, requires_grad=True) for shape in shapes]
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype, enabled=enabled):
            y = decoder(*features, channels=5)
        loss = y.float().square().mean() * 65536
        found.append(torch.autograd.grad(loss, [*features, decoder.conv1.weight]))
    for one, other in zip(*found, strict=True):
        assert other.isfinite().all()
        assert F.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.99


def test_in_float32_a_join_is_torchs_own() -> None:
    x, skip = torch.randn(2, 8, 5, 7), torch.randn(2, 3, 9, 13)
    enlarged = F.interpolate(x, (9, 13), mode="bilinear", align_corners=False)
    assert torch.equal(_join(x, skip), torch.cat([enlarged, skip], dim=1))


@pytest.mark.parametrize("backbone", ["resnet50", "mobilenetv2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_is_joined_or_added_across_layouts(backbone: str, dtype: torch.dtype) -> None:
    operations = step(backbone, dtype)
    seen = [of for of in operations.seen if of.name in ("cat", "add", "add_")]
    assert len(seen) > 20
    for of in seen:
        assert not {"contiguous", "channels_last"} <= {layout for *_, layout in large(of)}, of


def test_aspp_is_torchvisions() -> None:
    """In float64, where the rounding of an interpolation leaves as many digits as one wants."""
    torch.manual_seed(0)
    theirs = deeplabv3.ASPP(24, [3, 6, 9]).double()
    ours = ASPP(24, [3, 6, 9]).double()
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.project[3].p = ours.project[3].p = 0.0
    x = torch.randn(2, 24, 7, 10, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 256, 7, 10, dtype=torch.float64)
    found = []
    for aspp in (theirs, ours):
        y = aspp(x)
        gradients = torch.autograd.grad((y * weight).sum(), [x, *aspp.parameters()])
        found.append([y, *gradients])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


def test_autograd_copies_no_features() -> None:
    """As it would for each activation that is in place and keeps its input."""
    for backbone in ("resnet50", "mobilenetv2"):
        operations = step(backbone, torch.float32)
        assert not [of for of in operations.seen if of.name == "clone" and large(of)]


def test_batches_are_counted_in_one_operation_and_where_they_train() -> None:
    torch.manual_seed(0)
    model = MattingBase("mobilenetv2")
    src, bgr = torch.rand(2, 2, 3, 32, 32)
    model(src, bgr)
    model.backbone.eval()  # as who keeps its statistics does
    with Operations() as operations:
        model(src, bgr)
    model.eval()(src, bgr)
    counts = {k: v for k, v in model.state_dict().items() if k.endswith("num_batches_tracked")}
    assert len(counts) == 60 and {value.dtype for value in counts.values()} == {torch.int64}
    assert {int(v) for k, v in counts.items() if k.startswith("backbone")} == {1}
    assert {int(v) for k, v in counts.items() if not k.startswith("backbone")} == {2}
    counting = [of for of in operations.seen if any(x[1] == torch.int64 for x in of.inputs)]
    assert [of.name for of in counting] == ["_foreach_add_"]


def test_no_script_has_hid_computed(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a refiner needs its channels: not training, validation, evaluate.py, predict.py."""
    coarse, asked = MattingBase.coarse, []

    def noted(self: MattingBase, src: torch.Tensor, bgr: torch.Tensor, hid: bool = True) -> tuple:
        asked.append((self.training, hid))
        return coarse(self, src, bgr, hid)

    monkeypatch.setattr(MattingBase, "coarse", noted)
    run(data, "--max-steps", 1)
    assert set(asked) == {(True, False), (False, False)}  # trained, validated
    asked.clear()
    weights = str(next(here.glob("checkpoint/run/epoch-*[0-9].pth")))
    words = ["--dataset-dir", str(data), "--model-checkpoint", weights, "--size", "64"]
    assert evaluate.main(words) == 0 and set(asked) == {(False, False)}
    asked.clear()
    Matter(weights, device="cpu")(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64))
    assert asked == [(False, False)]


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_a_scripted_batch_norm_is_torchs() -> None:
    x = torch.randn(2, 3, 4, 5)
    ours, theirs = torch.jit.script(BatchNorm2d(3)), torch.nn.BatchNorm2d(3)
    assert torch.equal(ours(x), theirs(x))
    assert all(torch.equal(ours.state_dict()[k], v) for k, v in theirs.state_dict().items())
