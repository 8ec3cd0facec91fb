"""The machine, the pictures, and the training step: waits, time, crop shapes, a captured graph."""

import os
import resource
import shutil
import statistics
import time
from functools import partial
from typing import Any

import torch

from benchmarks import common
from benchmarks.gpu_parts.common import (
    PHASES,
    Training,
    batch_of,
    device_ms,
    forget_memory,
    host_seconds,
    median_ms,
    peak_gb,
)
from benchmarks.gpu_parts.findings import Findings, NotHereError
from common.machine import choose_device
from dataset.sampler import crop_of_step
from training.loss import matting_loss, total

WAIT_MS = 1000  # of the kernel behind which a phase that waits shows itself
CROPS = (256, 512)  # train_base.py's default


def machine(found: Findings) -> None:
    """What the figures were measured on; and that --device cuda and auto find the device."""
    for name, value in common.machine(torch.device("cuda", 0)).items():
        found.case(name, **{"is": value})
    found.case("CUDA", **{"is": torch.version.cuda})
    found.case("cuDNN", **{"is": torch.backends.cudnn.version()})
    tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    found.case("TF32 in convolutions and products", **{"is": [str(each) for each in tf32]})
    if os.path.isdir("/dev/shm"):
        found.case("/dev/shm, GB free", **{"is": shutil.disk_usage("/dev/shm").free / 1e9})
    for name in ("cuda", "auto"):
        found.case(f"--device {name}", **{"is": str(choose_device(name))})
    copy = torch.empty(2**20 if found.quick else 2**30, dtype=torch.uint8, device="cuda")
    other = torch.empty_like(copy)
    ms = device_ms(lambda: other.copy_(copy), 20)
    found.case("copying on the device, TB/s", **{"is": 2 * copy.nbytes / ms / 1e9})
    side = 64 if found.quick else 8192
    one, two = (torch.randn(side, side, device="cuda").half() for _ in range(2))
    ms = device_ms(lambda: one @ two, 20)
    found.case(f"fp16 product of {side}x{side}, TFLOP/s", **{"is": 2 * side**3 / ms / 1e9})


def data(found: Findings) -> None:
    """Draws the pictures that other parts read."""
    began = time.perf_counter()
    folder = found.pictures()
    files = list(folder.rglob("*.jpg"))
    found.case("drawn", files=len(files), s=time.perf_counter() - began)


def waits(found: Findings) -> None:
    """The host's ms of each phase of a step behind a kernel of a second: a phase that takes as
    long waits for the device, by whatever means. The last row is a phase that is known to wait."""
    training = Training()
    batch = batch_of(found.pictures(), 8, (64, 64) if found.quick else (256, 256))
    for _ in range(5):
        training.step(batch)
    cycles = 10**6
    ms = max(device_ms(lambda: torch.cuda._sleep(cycles)), 1e-3)
    cycles = min(int(cycles * WAIT_MS / ms), 10**10)

    def row(name: str, behind: bool) -> None:
        seconds: dict[str, list[float]] = {}
        torch.cuda.synchronize()
        if behind:
            torch.cuda._sleep(cycles)
        training.step(batch, seconds)
        of = median_ms(seconds)
        waiting = [phase for phase in PHASES if of[phase] > WAIT_MS / 2]
        found.case(name, **of, waits=", ".join(waiting) or "none")

    row("by itself", behind=False)
    row("behind the kernel", behind=True)
    training.update.clip = 1.0
    row("--clip-grad-norm, warming up", behind=False)
    row("--clip-grad-norm, behind the kernel", behind=True)
    torch.cuda.synchronize()
    torch.cuda._sleep(cycles)
    began = time.perf_counter()
    training.update.norm.item()
    found.case("asking for a number, behind the kernel", watch=1000 * (time.perf_counter() - began))


def step(found: Findings) -> None:
    """ms, images a second, the share of the time that the device is busy, what it is asked to do,
    and memory; the batch is on the host, in pinned memory, as the loader hands it over."""
    cases = [
        ("resnet50", 8, 384),
        ("resnet50", 32, 384),
        ("mobilenetv2", 8, 384),
        ("mobilenetv2", 32, 384),
    ]
    if found.quick:
        cases = [("mobilenetv2", 2, 64)]
    for backbone, count, side in cases:
        forget_memory()
        _step(found, backbone, count, side)


def _step(found: Findings, backbone: str, count: int, side: int) -> None:
    training = Training(backbone)
    batch = batch_of(found.pictures(), count, (side, side))
    first = host_seconds(lambda: training.step(batch))
    for _ in range(5):
        training.step(batch)
    seconds: dict[str, list[float]] = {}
    whole = host_seconds(lambda: training.step(batch, seconds), 20)
    operations, busy = profiled(lambda: training.step(batch))
    found.case(
        f"{backbone}, fp16, {count} x {side}²",
        ms=1000 * whole,
        images_per_s=count / whole,
        busy_ms=busy and 1000 * busy,
        busy_share=busy and busy / whole,
        operations=operations,
        host_ms=sum(median_ms(seconds).values()),
        peak_GB=peak_gb(),
        first_step_s=first,
    )


def profiled(work: Any, count: int = 3) -> tuple[int | None, float | None]:
    """How many operations the device is given by a call, and the seconds in which it has at least
    one of them; None where the profiler sees none."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(count):
            work()
        torch.cuda.synchronize()
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in seen.events()
        if event.device_type == DeviceType.CUDA
        and not getattr(event, "is_user_annotation", False)
        and not event.name.startswith("Optimizer.")  # an annotation, in versions that do not say so
    )
    if not spans:
        return None, None
    print(seen.key_averages().table("self_cuda_time_total", row_limit=20))
    busy, until = 0.0, 0.0
    for began, ended in spans:
        busy += max(0.0, ended - max(began, until))
        until = max(until, ended)
    return len(spans) // count, busy / 1e6 / count


def shapes(found: Findings) -> None:
    """What a crop shape costs that has not been seen, and the step afterwards."""
    _shapes(found, benchmark=True)


def shapes_plain(found: Findings) -> None:
    """The same without a search for the fastest kernels."""
    _shapes(found, benchmark=False)


def _shapes(found: Findings, benchmark: bool) -> None:
    training = Training()
    torch.backends.cudnn.benchmark = benchmark
    low, high = (64, 128) if found.quick else CROPS
    drawn = dict.fromkeys(crop_of_step(number, 0, (low, high)) for number in range(100))
    sizes = list(drawn)[: 3 if found.quick else 8]
    folder = found.pictures()
    batches = [batch_of(folder, 2 if found.quick else 8, size) for size in sizes]
    training.step(batches[0])
    training.step(batches[0])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    first = [host_seconds(partial(training.step, batch)) for batch in batches[1:]]
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 / len(first)
    seconds = [host_seconds(partial(training.step, batch)) for batch in batches]
    turns = host_seconds(lambda: [training.step(batch) for batch in batches], 4) / len(sizes)
    found.case(
        f"cudnn.benchmark {benchmark}",
        shapes=len(sizes),
        of_the_run=len({crop_of_step(number, 0, CROPS) for number in range(2000)}),
        s_at_a_new_shape=statistics.median(first),
        most_s_at_one=max(first),
        s_at_a_known_shape=statistics.median(seconds),
        ms_a_step_in_turns=1000 * turns,
        host_MB_a_shape=grown,
        peak_GB=peak_gb(),
        reserved_GB=torch.cuda.max_memory_reserved() / 1e9,
    )


def graph(found: Findings) -> None:
    """Forward, loss and backward of one shape by themselves, and as one captured graph."""
    training = Training()
    model, (count, side) = training.model, (2, 64) if found.quick else (8, 384)
    model.seed_dropout(None)  # by torch's own generator, which can be captured
    src, bgr, true_fgr = (
        torch.rand(count, 3, side, side, device=training.device).contiguous(
            memory_format=training.layout
        )
        for _ in range(3)
    )
    true_pha = torch.rand(count, 1, side, side, device=training.device)
    training.autocast = lambda: torch.autocast("cuda", torch.float16, cache_enabled=False)

    def work() -> None:
        outputs = training.forward(src, bgr)
        (total(matting_loss(*outputs, true_pha, true_fgr)) * 1024).backward()

    alone = device_ms(work)
    found.case(f"by itself, {count} x {side}²", ms=alone)
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(beside)
    model.zero_grad(set_to_none=True)
    captured, began = torch.cuda.CUDAGraph(), time.perf_counter()
    try:
        with torch.cuda.graph(captured):
            work()
    except RuntimeError as error:
        raise NotHereError(f"nothing can be captured: {str(error).splitlines()[0]}") from error
    seconds = time.perf_counter() - began
    found.case("as a graph", ms=device_ms(captured.replay), s_to_capture=seconds)
