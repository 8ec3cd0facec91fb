"""What one training sample costs a processor, from the files to the finished batch.

    python -m benchmarks.loader            # about a minute on two cores
    python -m benchmarks.loader --quick    # under a minute: whether it runs, not what is true

Everything is measured on one core, in turns with the decoding of the same three files, which is
the limit of every loader that decodes on the processor; and with the steps that the published
program takes: whole pictures by Pillow in its workers, the rest of them by torch.
"""

import os
import pickle
import random
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image, ImageFilter
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.transforms import functional as vision

from benchmarks.common import arguments, draw_data, in_turns, machine, said_of, spread, table, write
from common.machine import LAYOUTS, keep_memory
from dataset import augmentation, sample_loader
from dataset.augmentation import augment
from dataset.folders import data_folders, open_split
from dataset.sample import MattingDataset, collate
from dataset.sampler import SampleKey

SIZE = (512, 512)
PARTS = {  # of augment, by the functions that do them; what is left composites and converts
    "warp": ("warp", "coverage"),
    "colour": ("focus", "jitter"),
    "shadow and noise": ("cast_shadow", "add_noise"),
}


def main(argv: list[str] | None = None) -> None:
    parser = arguments(__doc__, "benchmarks/results/loader.json")
    options = parser.parse_args(argv)
    count, rounds = (4, 2) if options.quick else (16, 7)
    folder = draw_data(options.data, count)
    dataset = MattingDataset(*open_split(data_folders("", folder, print), "train"))
    cores = sorted(os.sched_getaffinity(0))
    about = machine(torch.device("cpu"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    keep_memory()  # as train_base.py does
    os.sched_setaffinity(0, cores[:1])
    try:
        figures = one_core(dataset, count, rounds)
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)
    figures["workers"] = with_workers(dataset, 3 if options.quick else 12, len(cores))
    print(report(figures))
    write(options.json, {"machine": about, "quick": options.quick, **figures})


def one_core(dataset: MattingDataset, count: int, rounds: int) -> dict:
    """Milliseconds of processor time for a sample, in turns, over `count` samples each round."""
    keys = [SampleKey(0, index, 0, SIZE) for index in range(count)]
    triples = [[Path(p) for p in dataset[key]["files"]] for key in keys]
    samples = [dataset[key] for key in keys]
    batches = [collate(samples[start : start + 8]) for start in range(0, count, 8)]
    device = torch.device("cpu")
    layout = LAYOUTS[device.type]

    def over(items: list, work: Callable) -> Callable:
        return lambda: [work(item) for item in items]

    published = Published(random.Random(0))
    finished = [published(triple) for triple in triples]
    published_batches = [
        [torch.stack(pictures) for pictures in zip(*finished[start : start + 8], strict=True)]
        for start in range(0, count, 8)
    ]
    seconds = in_turns(
        {
            "read": over(triples, read),
            "decode": over(triples, decode_in_full),
            "decode_reduced": over(triples, decode_reduced),
            "worker": over(keys, dataset.__getitem__),
            "device_part": over(batches, lambda batch: augment(batch, device, layout)),
            "published": over(triples, published),
            "published_device_part": over(published_batches, published.rest),
        },
        rounds,
        warm_up=1,
    )
    ms = {name: [value * 1000 / count for value in values] for name, values in seconds.items()}
    whole = [a + b for a, b in zip(ms["worker"], ms["device_part"], strict=True)]
    theirs = [a + b for a, b in zip(ms["published"], ms["published_device_part"], strict=True)]
    limit = ms["decode"]
    return {
        "cpu_ms_per_sample": spread(whole),
        "worker_over_decode": spread(
            [one / other for one, other in zip(ms["worker"], limit, strict=True)]
        ),
        "published_cpu_ms_per_sample": spread(theirs),
        "published_over_ours": spread(
            [one / other for one, other in zip(theirs, whole, strict=True)]
        ),
        "ms": {name: spread(values) for name, values in ms.items()},
        "augment_ms": parts_of_augment(batches, count, device, layout),
        "bytes_a_sample": len(pickle.dumps(batches[0])) / len(batches[0]["files"]),
        "samples": count,
        "rounds": rounds,
    }


def read(paths: list[Path]) -> None:
    for path in paths:
        path.read_bytes()


def decode_in_full(paths: list[Path]) -> None:
    for path in paths:
        with Image.open(path) as picture:
            picture.load()


def decode_reduced(paths: list[Path]) -> None:
    """At half the scale, which is what most crops of 512 pixels take of 1080 rows."""
    for path in paths:
        with Image.open(path) as picture:
            picture.draft(picture.mode, (picture.width // 2, picture.height // 2))
            picture.load()


def parts_of_augment(
    batches: list[dict], count: int, device: torch.device, layout: torch.memory_format
) -> dict[str, float]:
    """Milliseconds of each of PARTS for a sample, and of the rest."""
    spent = dict.fromkeys([*PARTS, "composite"], 0.0)
    kept = {name: getattr(augmentation, name) for names in PARTS.values() for name in names}

    def watched(part: str, function: Callable) -> Callable:
        def call(*arguments: object, **named: object) -> object:
            began = time.process_time()
            try:
                return function(*arguments, **named)
            finally:
                spent[part] += time.process_time() - began

        return call

    for part, names in PARTS.items():
        for name in names:
            setattr(augmentation, name, watched(part, kept[name]))
    try:
        began = time.process_time()
        for batch in batches:
            augment(batch, device, layout)
        whole = time.process_time() - began
    finally:
        for name, function in kept.items():
            setattr(augmentation, name, function)
    # cast_shadow warps, too, which is then counted under both.
    spent["composite"] = max(0.0, whole - sum(spent.values()))
    return {part: value * 1000 / count for part, value in spent.items()}


class Published:
    """The same sample with the steps that the published program (PeterL1n/BackgroundMattingV2,
    dataset/augmentation.py and train_base.py) takes: in its workers each picture decoded in full,
    warped at its full size, cropped, coloured, by Pillow; then the rest on the device, which is the
    same processor here. torchvision's functions stand for kornia's, of the same methods."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.colours = transforms.ColorJitter(0.15, 0.15, 0.15, 0.05)
        self.input_colours = transforms.ColorJitter(0.18, 0.18, 0.18, 0.1)
        self.shadow_affine = transforms.RandomAffine(5, (0.2, 0.2), (0.5, 1.5), (-5, 5))
        self.input_affine = transforms.RandomAffine(1, (0.01, 0.01))
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, paths: list[Path]) -> list[torch.Tensor]:
        fgr, pha, bgr = (Image.open(path) for path in paths)
        figure = self.warped([fgr, pha], scale=(0.4, 1))
        (behind,) = self.warped([bgr], scale=(1, 2))
        finished = []
        for pictures in (figure, [behind]):
            if self.rng.random() < 0.5:
                pictures = [vision.hflip(picture) for picture in pictures]
            if self.rng.random() < 0.1:
                blur = ImageFilter.BoxBlur(self.rng.randrange(6))
                pictures = [picture.filter(blur) for picture in pictures]
            if self.rng.random() < 0.1:
                pictures = [picture.filter(ImageFilter.SHARPEN) for picture in pictures]
            pictures[0] = self.colours(pictures[0])
            finished += [vision.to_tensor(picture) for picture in pictures]
        return finished

    def rest(self, batch: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """What is done to a batch of true_fgr, true_pha, bgr after the workers, its numbers drawn
        once for all the samples that a step is for: src and bgr."""
        fgr, pha, bgr = batch
        behind, bgr = bgr.clone(), bgr.clone()

        def chosen(probability: float) -> torch.Tensor:
            return torch.rand(len(fgr), generator=self.generator) < probability

        if (some := chosen(0.3)).any():
            shadow = self.shadow_affine(pha[some] * (0.3 * self.rng.random()))
            side = self.rng.randrange(20, 40)
            padding = (side // 2, (side - 1) // 2) * 2
            shadow = F.pad(shadow, padding, mode="reflect")
            shadow = F.conv2d(shadow, torch.full((1, 1, side, side), 1 / side**2))
            behind[some] = (behind[some] - shadow).clamp_(0, 1)
        src = fgr * pha + behind * (1 - pha)
        for pictures in (src, bgr):
            if (some := chosen(0.4)).any():
                noise = torch.randn(pictures[some].shape, generator=self.generator)
                noise *= 0.03 * self.rng.random()
                pictures[some] = (pictures[some] + noise).clamp_(0, 1)
        if (some := chosen(0.8)).any():
            bgr[some] = torch.stack([self.input_colours(picture) for picture in bgr[some]])
        if (some := chosen(0.3)).any():
            bgr[some] = self.input_affine(bgr[some])
        return src, bgr

    def warped(self, pictures: list[Image.Image], scale: tuple[float, float]) -> list[Image.Image]:
        """All under one matrix, at the size they have, and then cropped to SIZE."""
        width, height = pictures[0].size
        fitting = max(SIZE[1] / width, SIZE[0] / height)
        angle, shear = self.rng.uniform(-5, 5), self.rng.uniform(-5, 5)
        factor = self.rng.uniform(*scale) * fitting
        shift = [round(self.rng.uniform(-0.1, 0.1) * fitting * side) for side in (width, height)]
        bilinear = vision.InterpolationMode.BILINEAR
        return [
            vision.center_crop(
                vision.affine(each, angle, shift, factor, [shear, 0.0], interpolation=bilinear),
                list(SIZE),
            )
            for each in pictures
        ]


def with_workers(dataset: MattingDataset, count: int, cores: int) -> dict[str, float]:
    """Samples a second that arrive from 1, 2, 4, ... worker processes, up to twice the cores."""
    rates, workers = {}, 1
    while workers <= 2 * cores:
        keys = [
            SampleKey(epoch, i % len(dataset), 0, SIZE)
            for epoch in range(workers)
            for i in range((count + 2) * 8)
        ]
        loader = DataLoader(
            dataset,
            batch_sampler=[keys[i : i + 8] for i in range(0, len(keys), 8)],
            num_workers=workers,
            collate_fn=collate,
            worker_init_fn=sample_loader.begin_worker,
        )
        iterator = sample_loader.batches(loader)
        for _ in range(2 * workers):  # until all of them are at work
            next(iterator)
        began, seen = time.perf_counter(), 0
        for batch in iterator:
            seen += len(batch["files"])
        rates[str(workers)] = seen / (time.perf_counter() - began)
        workers *= 2
    return rates


def report(figures: dict) -> str:
    rows = [[name.replace("_", " "), said_of(of, 1)] for name, of in figures["ms"].items()]
    lines = [
        table(["one sample of 1920x1080 to 512x512, on one core", "ms of processor"], rows),
        "",
    ]
    parts = ", ".join(f"{name} {value:.1f}" for name, value in figures["augment_ms"].items())
    lines.append(f"the device's part, on a processor: {parts} ms")
    for key, what in (
        ("cpu_ms_per_sample", "ms for all of a sample"),
        ("worker_over_decode", "times decoding alone: the worker's part"),
        ("published_cpu_ms_per_sample", "ms for all of a sample with the published steps"),
        ("published_over_ours", "times ours: the published steps"),
    ):
        of = figures[key]
        lines.append(f"{said_of(of, 2)} {what}")
    lines.append(f"{figures['bytes_a_sample'] / 1e6:.2f} MB a sample from worker to program")
    rates = ", ".join(f"{n}: {rate:.1f}" for n, rate in figures["workers"].items())
    lines.append(f"samples a second by number of workers: {rates}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
