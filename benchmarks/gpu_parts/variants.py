"""What the step would cost without each of the choices that were made for a GPU without one."""

import contextlib
import statistics
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torchvision.models.segmentation import deeplabv3

from benchmarks.gpu_parts.common import Training, device_ms, forget_memory, peak_gb
from benchmarks.gpu_parts.findings import Findings
from model import decoder
from training.loss import matting_loss, total

CALLS, ROUNDS = 4, 5


def variants(found: Findings) -> None:
    """Milliseconds of forward, loss and backward at batch 32, in turns, as the program is and with
    one choice undone; times: of the program's in the same round."""
    count, side = (2, 64) if found.quick else (32, 384)
    for backbone in ("mobilenetv2",) if found.quick else ("resnet50", "mobilenetv2"):
        forget_memory()
        _variants(found, backbone, count, side)


def _variants(found: Findings, backbone: str, count: int, side: int) -> None:
    works, peaks = {}, {}
    for name, change in UNDONE.items():
        if name.startswith("ReLU6") and backbone != "mobilenetv2":
            continue
        held = torch.cuda.memory_allocated()
        training = Training(backbone)
        within = change(training)
        works[name] = work_of(training, count, side, within)
        torch.cuda.reset_peak_memory_stats()
        for _ in range(3):
            works[name]()
        peaks[name] = peak_gb() - held / 1e9
    ms: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(2 if found.quick else ROUNDS):
        for name, work in works.items():
            ms[name].append(device_ms(work, CALLS, warm_up=1))
    program = next(iter(ms.values()))
    for name, values in ms.items():
        times = [value / (of or 1.0) for value, of in zip(values, program, strict=True)]
        found.case(
            f"{backbone}, {count} x {side}²: {name}",
            ms=statistics.median(values),
            least=min(values),
            most=max(values),
            times=statistics.median(times),
            peak_GB=peaks[name],
        )


Within = Callable[[], contextlib.AbstractContextManager]


def work_of(training: Training, count: int, side: int, within: Within) -> Callable[[], None]:
    """Forward, loss and backward on pictures that are on the device; `within` is entered around
    each."""
    src, bgr, true_fgr = (
        torch.rand(count, 3, side, side, device=training.device).contiguous(
            memory_format=training.layout
        )
        for _ in range(3)
    )
    true_pha = torch.rand(count, 1, side, side, device=training.device)
    training.model.seed_dropout(list(range(count)))

    def work() -> None:
        with within():
            outputs = training.forward(src, bgr)
            (total(matting_loss(*outputs, true_pha, true_fgr)) * 1024).backward()
        training.model.zero_grad(set_to_none=True)

    return work


# ------------------------------------------------------------------------------------------------
# The changes: each is made to a Training, and returns what is to be entered around its steps


def as_it_is(_training: Training) -> Within:
    return contextlib.nullcontext


def with_hid(training: Training) -> Within:
    """The 32 channels for a refiner are computed, though no term of the loss reads them."""
    model = training.model

    def forward(src: Tensor, bgr: Tensor) -> tuple[Tensor, ...]:
        with training.autocast():
            return model(src, bgr)[:3]

    training.forward = forward  # type: ignore[method-assign]
    return contextlib.nullcontext


def joined_in_float32(_training: Training) -> Within:
    """Upsampled as autocast has it: in float32, and so is all that is joined with it."""

    def join(x: Tensor, skip: Tensor) -> Tensor:
        upsampled = F.interpolate(x, skip.shape[2:], mode="bilinear", align_corners=False)
        return torch.cat([upsampled, skip], dim=1)

    @contextlib.contextmanager
    def within() -> Iterator[None]:
        ours, decoder._join = decoder._join, join
        try:
            yield
        finally:
            decoder._join = ours

    return within


def aspp_of_torchvision(training: Training) -> Within:
    """The mean's branch is upsampled like a picture, and makes the five branches' join
    contiguous."""
    ours = training.model.aspp
    theirs = deeplabv3.ASPP(ours.convs[0][0].in_channels, [3, 6, 9])
    theirs.load_state_dict(ours.state_dict())
    theirs.project[3] = ours.project[3]
    training.model.aspp = theirs.train().to(training.device).to(memory_format=training.layout)
    return contextlib.nullcontext


def relu6_in_place(training: Training) -> Within:
    """Autograd copies what it is given, since a convolution or norm before it needs that."""
    for module in training.model.modules():
        if isinstance(module, nn.ReLU6):
            module.inplace = True
    return contextlib.nullcontext


def contiguous(training: Training) -> Within:
    training.layout = torch.contiguous_format
    training.model.to(memory_format=training.layout)
    return contextlib.nullcontext


def all_four(training: Training) -> Within:
    with_hid(training)
    aspp_of_torchvision(training)
    relu6_in_place(training)
    return joined_in_float32(training)


UNDONE = {
    "as it is": as_it_is,
    "hid computed": with_hid,
    "joined in float32": joined_in_float32,
    "torchvision's ASPP": aspp_of_torchvision,
    "ReLU6 in place": relu6_in_place,
    "these undone together": all_four,
    "all contiguous": contiguous,
    "as it is, once more": as_it_is,
}
