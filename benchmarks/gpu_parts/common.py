"""What the parts share: the program's own step, a batch for it, and clocks of a GPU."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from common import machine
from dataset.augmentation import augment
from dataset.folders import data_folders, open_split
from dataset.sample import MattingDataset, collate
from dataset.sampler import SampleKey
from model import MattingBase
from training import resolve
from training.guarded_optimizer import GuardedOptimizer, loss_scaler
from training.loss import matting_loss
from training.options import parse_base_options
from training.run import parameter_groups
from training.team import Team

PHASES = ("augment", "forward", "loss", "backward", "step", "watch")


class Training:
    """Model, optimizer and GuardedOptimizer as train_base.py makes them for CUDA, and its step."""

    def __init__(self, backbone: str = "resnet50", precision: str = "fp16", *words: str) -> None:
        """words: more options of train_base.py."""
        words = ("--model-backbone", backbone, "--precision", precision, *words)
        options = parse_base_options(["--device", "cuda", *words])
        self.device = resolve.resolve_options(options, Team()).device
        self.layout = machine.LAYOUTS["cuda"]
        self.autocast = machine.autocast(self.device, precision)
        torch.manual_seed(0)
        model = MattingBase(backbone).to(self.device).to(memory_format=self.layout)
        self.model = model.train()
        rates = {name: getattr(options, f"lr_{name}") for name in ("backbone", "aspp", "decoder")}
        groups = parameter_groups(model, **rates)
        optimizer = torch.optim.Adam(groups, **machine.ADAM_ARGUMENTS["cuda"])
        self.update = GuardedOptimizer(
            model,
            optimizer,
            loss_scaler(self.device, precision),
            clip=options.clip_grad_norm,
            precision=precision,
            folder=None,
        )
        self.number = 0

    def step(self, batch: dict, seconds: dict[str, list[float]] | None = None) -> None:
        """From a batch as workers hand it over to moved weights. seconds: gets the host's, of each
        of PHASES."""
        at = [time.perf_counter()]
        self.model.seed_dropout(list(range(len(batch["numbers"]))))
        src, bgr, true_pha, true_fgr = augment(batch, self.device, self.layout)
        at.append(time.perf_counter())
        outputs = self.forward(src, bgr)
        at.append(time.perf_counter())
        terms = matting_loss(*outputs, true_pha, true_fgr)
        at.append(time.perf_counter())
        self.update.backward(terms)
        at.append(time.perf_counter())
        self.update.step()
        at.append(time.perf_counter())
        self.number += 1
        self.update.check_later(self.number, [batch])
        at.append(time.perf_counter())
        if seconds is not None:
            for phase, began, ended in zip(PHASES, at, at[1:], strict=False):
                seconds.setdefault(phase, []).append(ended - began)

    def forward(self, src: Tensor, bgr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """pha, fgr and err, within autocast."""
        with self.autocast():
            pha, fgr, err, _ = self.model(src, bgr, hid=False)
        return pha, fgr, err


def batch_of(folder: Path, count: int, size: tuple[int, int]) -> dict:
    """A batch of augmented samples in pinned memory, as the loader hands it over. size: height and
    width of the crop."""
    from torch.utils.data._utils.pin_memory import pin_memory

    split = open_split(data_folders("", folder, lambda _line: None), "train")
    samples = MattingDataset(*split)
    keys = [SampleKey(0, number % len(samples), number, size) for number in range(count)]
    return pin_memory(collate([samples[key] for key in keys]))


def device_ms(work: Callable[[], object], count: int = 10, warm_up: int = 3) -> float:
    """Milliseconds between two events of the device, of one of `count` calls in a row."""
    for _ in range(warm_up):
        work()
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    began.record()
    for _ in range(count):
        work()
    ended.record()
    torch.cuda.synchronize()
    return began.elapsed_time(ended) / count


def host_seconds(work: Callable[[], object], count: int = 1) -> float:
    """Seconds of a call, the device's work included: the mean of `count` in a row."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(count):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / count


def median_ms(seconds: dict[str, list[float]]) -> dict[str, float]:
    """By phase, for Findings.case."""
    return {phase: 1000 * statistics.median(values) for phase, values in seconds.items()}


def peak_gb() -> float:
    return torch.cuda.max_memory_allocated() / 1e9


def forget_memory() -> None:
    """So that what is measured next is charged with its own memory alone."""
    import gc

    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
