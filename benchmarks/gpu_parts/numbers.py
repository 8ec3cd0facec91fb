"""Whether a GPU's numbers are right: each precision, and the bits of a run that was continued."""

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.gpu_parts.common import batch_of
from benchmarks.gpu_parts.findings import Findings
from dataset.augmentation import augment
from model import MattingBase
from model.dropout import SampleDropout
from training.checkpoint_folder import CheckpointFolder
from training.loss import matting_loss, total

# name → type within autocast, whether TF32 in convolutions, scale of the loss
PRECISIONS = {
    "fp16": (torch.float16, True, 1024.0),
    "bf16": (torch.bfloat16, True, 1.0),
    "fp32, TF32 in convolutions": (None, True, 1.0),
    "fp32": (None, False, 1.0),
}


def precision(found: Findings) -> None:
    """Loss, alpha and gradient of one batch in each precision, beside those of the network in
    float64 on the processor; the processor's float32 shows how much is rounding alone."""
    count, side = (2, 64) if found.quick else (4, 160)
    cpu = torch.device("cpu")
    batch = augment(batch_of(found.pictures(), count, (side, side)), cpu)
    torch.manual_seed(0)
    model = MattingBase("mobilenetv2" if found.quick else "resnet50").train()
    for module in model.modules():
        if isinstance(module, SampleDropout):
            module.p = 0.0  # the generators of two devices differ
    true = computed(model, batch, cpu, torch.float64)
    compared(found, "fp32 on the processor", true, computed(model, batch, cpu))
    before = torch.backends.cudnn.allow_tf32
    for name, (within, tf32, scale) in PRECISIONS.items():
        torch.backends.cudnn.allow_tf32 = tf32
        try:
            numbers = computed(model, batch, torch.device("cuda", 0), within=within, scale=scale)
        except RuntimeError as error:
            found.case(name, said=str(error).splitlines()[0])
        else:
            compared(found, name, true, numbers)
        finally:
            torch.backends.cudnn.allow_tf32 = before


def computed(
    model: nn.Module,
    batch: tuple[Tensor, ...],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    within: torch.dtype | None = None,
    scale: float = 1.0,
) -> tuple[dict[str, float], Tensor, Tensor]:
    """The loss's terms, alpha, and the gradient of all parameters, in one row, on the CPU."""
    model.to(device, dtype).zero_grad()
    src, bgr, true_pha, true_fgr = (each.to(device) for each in batch)
    with torch.autocast(device.type, within or torch.bfloat16, enabled=within is not None):
        pha, fgr, err, _ = model(src.to(dtype), bgr.to(dtype), hid=False)
    terms = matting_loss(pha, fgr, err, true_pha, true_fgr)
    (total(terms) * scale).backward()
    gradients = [p.grad.double().flatten().cpu() / scale for p in model.parameters()]
    numbers = {name: value.item() for name, value in terms.items()}
    return numbers, pha.detach().double().cpu(), torch.cat(gradients)


def compared(found: Findings, name: str, true: tuple, other: tuple) -> None:
    """Differences: of a term over the true one; of alpha, 0..1; of the gradient by its norm."""
    terms = {
        f"term {term}": abs(value - true[0][term]) / (abs(true[0][term]) or 1.0)
        for term, value in other[0].items()
    }
    found.case(
        name,
        **terms,
        most_of_pha=(other[1] - true[1]).abs().max().item(),
        gradients=((other[2] - true[2]).norm() / true[2].norm()).item(),
        cosine_of_gradients=torch.cosine_similarity(other[2], true[2], 0).item(),
    )


def resume(found: Findings) -> None:
    """train_base.py --deterministic, at once and in two starts: whether the weights and all that
    is continued from are the same to the last bit."""
    import train_base

    folder = found.pictures().resolve()
    backbone, crops = ("mobilenetv2", (64, 96)) if found.quick else ("resnet50", (128, 192))
    words = ["--dataset-dir", folder, "--model-backbone", backbone, "--batch-size", 4]
    words += ["--crop-size", *crops, "--device", "cuda", "--num-workers", 2, "--deterministic"]
    auto = ["--model-last-checkpoint", "auto"]
    with scratch():
        for name, more in (
            ("at once", ["--model-name", "whole", "--max-steps", 6]),
            ("stopped", ["--model-name", "parts", "--max-steps", 4]),
            ("continued", ["--model-name", "parts", "--max-steps", 6, *auto]),
        ):
            began = time.perf_counter()
            status = train_base.main([str(word) for word in [*words, *more]])
            found.case(name, status=status, s=time.perf_counter() - began)
            if status:
                raise RuntimeError(f"train_base.py ended with {status}; see the log")
        one, other = (
            CheckpointFolder(Path("checkpoint") / name).newest_intact(set_aside=False)
            for name in ("whole", "parts")
        )
    unequal = [
        name for name in one.weights if not torch.equal(one.weights[name], other.weights[name])
    ]
    found.case("weights", entries=len(one.weights), unequal=len(unequal), such_as=unequal[:3])
    moments = [dict(tensors(each.state["optimizer"]["state"])) for each in (one, other)]
    unequal = [name for name in moments[0] if not torch.equal(moments[0][name], moments[1][name])]
    found.case(
        "moments of Adam", entries=len(moments[0]), unequal=len(unequal), such_as=unequal[:3]
    )
    scalers = [each.state["scaler"] for each in (one, other)]
    found.case("gradient scale", entries=len(scalers[0]), unequal=int(scalers[0] != scalers[1]))


def tensors(state: dict) -> Iterator[tuple[str, Tensor]]:
    """The moments of each parameter, by its number and their name."""
    for number, moments in state.items():
        for name, value in moments.items():
            yield f"{number} {name}", torch.as_tensor(value)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A current folder for log/ and checkpoint/, which is gone afterwards."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(here)
