"""The network on a null GPU: what a training step in fp16 does there, at the size of a run."""

from typing import Any

import pytest

from tests.null_gpu import needs_null_gpu, run_code

pytestmark = needs_null_gpu

# A step of the loop's own parts on a batch of 8 at 384 that is on the device. `step` gives what was
# counted; `seen` is how each of its operations was dispatched.
STEP = """
import json, sys
import torch
from tests.support.operations import Operations
from common import machine
from model import MattingBase
from tests.null_cuda import counts
from training.loss import matting_loss
from training.guarded_optimizer import GuardedOptimizer, loss_scaler

device, layout = torch.device("cuda", 0), machine.LAYOUTS["cuda"]
model = MattingBase({backbone!r}).to(device).to(memory_format=layout).train()
optimizer = torch.optim.Adam(model.parameters(), **machine.ADAM_ARGUMENTS["cuda"])
update = GuardedOptimizer(
    model, optimizer, loss_scaler(device, {precision!r}), clip={clip}, precision={precision!r},
    folder=None,
)
update._check = lambda *numbers: None  # which mean nothing here
src, bgr, fgr, pha = (
    torch.zeros(8, c, 384, 384, device=device).contiguous(memory_format=layout)
    for c in (3, 3, 3, 1)
)

def step():
    before = counts.snap()
    model.seed_dropout(list(range(8)))
    with machine.autocast(device, {precision!r})():
        pred_pha, pred_fgr, pred_err, _ = model(src, bgr, hid=False)
    update.backward(matting_loss(pred_pha, pred_fgr, pred_err, pha, fgr))
    update.step()
    update.check_later(0, [])
    return counts.diff(before, counts.snap())

for _ in range(6):
    step()
"""


def run_step(code: str, backbone: str, precision: str = "fp16", clip: float | None = None) -> Any:
    from tests.null_gpu import ROOT

    values = {"backbone": backbone, "precision": precision, "clip": clip}
    return run_code(STEP.format(**values) + code, ROOT)


BACKBONES = pytest.mark.parametrize("backbone", ["resnet50", "mobilenetv2"])


@BACKBONES
def test_fp16_and_channels_last_are_kept_and_nothing_is_copied(backbone: str) -> None:
    """What is as large as a batch is neither enlarged nor joined in float32, nor joined or added
    across layouts; and no activation is copied for autograd, 34 in a mobilenetv2."""
    types, mixed, counted = run_step(
        """
with Operations() as operations:
    step()
types, mixed = [], []
for of in operations.seen:
    every = [x for x in of.inputs + of.outputs if len(x[0]) == 4 and x[0][0] == 8 and x[0][2] > 1]
    if every and ("upsample" in of.name or of.name == "cat"):
        types.append((of.name, every[-1][0][1], [str(x[1]) for x in every]))
    if of.name in ("cat", "add", "add_"):
        if {"contiguous", "channels_last"} <= {x[2] for x in every}:
            mixed.append((of.name, every))
print(json.dumps([types, str(mixed), step()]))
""",
        backbone,
    )
    assert sum("upsample" in name for name, *_ in types) == 2 * 4  # forward and backward
    (name, channels, _), *others = types  # the first joins src and bgr, as they come
    assert (name, channels) == ("cat", 6)
    assert {each for *_, all_types in others for each in all_types} == {"torch.float16"}
    assert mixed == "[]"
    assert counted["copies_d2d"] < 20


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_a_step_waits_for_nothing(precision: str, clip: float | None) -> None:
    counted = run_step(
        """
torch.cuda.set_sync_debug_mode("error")
counted = step()
print(json.dumps([counts.waits(counted), counted["pageable_h2d"], counted["pageable_d2h"]]))
""",
        "mobilenetv2",
        precision,
        clip,
    )
    assert counted == [0, 0, 0]
