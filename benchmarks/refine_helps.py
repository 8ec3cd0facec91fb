"""Does the refiner help? Trains the second stage for a few steps, and measures three ways to bring
the coarse alpha back to the picture's size: enlarged, led by the guided filter, and refined.

    python -m benchmarks.refine_helps --dataset-dir DIR    # about half an hour on two cores
    python -m benchmarks.refine_helps --quick              # whether it runs, not what is true

It begins with a base network that train_base.py has trained: by default the one that `make demo`
leaves. Held-out pictures are fitted to a square of --side pixels, and never warped.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.common import machine, said, table, write
from common.cli import Parser
from common.errors import UserError
from common.machine import LAYOUTS
from dataset.augmentation import augment
from dataset.folders import data_folders, open_split
from dataset.sample import MattingDataset, collate, validation_keys
from dataset.sample_loader import batches
from dataset.sampler import batch_of_step, seed_of
from evaluation import metrics
from model import MattingBase, MattingRefine
from model.load import load_matting_base
from model.matting_refine import resize
from prediction.predictor import Matter
from prediction.upsample import enlarge_rows, guided_alpha, guided_factors
from training.loss import refine_loss, total

FIGURES = ("mad", "grad")
PICTURES = 4  # measured at a time
# What is measured: of the base network as it was given, and of the network behind so many steps.
OF_BASE = ("base network, enlarged", "base network, guided filter")
OF_BOTH = ("coarse alpha, enlarged", "coarse alpha, guided filter", "refined alpha")


def main(argv: list[str] | None = None) -> None:
    parser = Parser("benchmarks.refine_helps", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="few steps, on small pictures")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--dataset-name", default="demo")
    add("--dataset-dir", type=Path)
    add("--base", type=Path, default=Path("checkpoint/demo/best.pth"), help="of train_base.py")
    add("--steps", type=int, default=400, help="of each training run")
    add("--every", type=int, default=100, help="steps between measurements")
    add("--seeds", type=int, default=3)
    add("--side", type=int, default=512, help="largest crop, and held-out pictures, in pixels")
    add("--batch-size", type=int, default=4)
    add("--lr", type=float, default=2e-4, help="of all but the refiner")
    add("--lr-refiner", type=float, default=3e-3)
    add("--sample-pixels", type=int, default=40_000, help="refined of each picture")
    add("--held-out", type=int, default=20, help="samples measured, at most")
    add("--json", type=Path, default=Path("benchmarks/results/refine_helps.json"))
    options = parser.parse_args(argv)
    if options.quick:
        options.steps, options.every, options.seeds, options.held_out = 2, 1, 2, 2
        options.side = 128
    for result in measured(options):
        write(options.json, result)
    print(summary(result))


def measured(options: argparse.Namespace) -> Iterator[dict]:
    """Trains and measures for every seed; gives all figures so far behind each."""
    device = torch.device(options.device)
    if not options.base.is_file():
        raise UserError(f"there is no base network {options.base}; make demo trains one, or --base")
    folders = data_folders(options.dataset_name, options.dataset_dir, print)
    splits = {split: open_split(folders, split) for split in ("train", "valid")}
    settings = {k: v.name if isinstance(v, Path) else v for k, v in vars(options).items()}
    result = {"machine": machine(device), "quick": options.quick, "options": settings}
    held_out = held_out_batches(splits["valid"], options)
    base = load_matting_base(options.base).to(device)
    result["held_out"] = sum(len(batch["files"]) for batch in held_out)
    result["base"] = figures(of_base(options), held_out, device)
    runs: list[list[dict]] = []
    began = time.process_time()
    for seed in range(options.seeds):
        runs.append([])
        for step, model in train(base, seed, splits["train"], options):
            found = figures(of_both(model), held_out, device)
            runs[-1].append({"step": step, **found})
            said_now = ", ".join(f"{way} {found[way]['grad']:.2f}" for way in OF_BOTH)
            print(f"seed {seed}, step {step}: Grad of {said_now}", flush=True)
        yield result | {"runs": runs, "processor_seconds": time.process_time() - began}


def held_out_batches(split: tuple, options: argparse.Namespace) -> list[dict]:
    counts = len(split[0]), len(split[1])
    keys = validation_keys(*counts, options.held_out, (options.side,) * 2)
    samples = MattingDataset(*split, augmented=False)
    groups = [keys[n : n + PICTURES] for n in range(0, len(keys), PICTURES)]
    return list(batches([collate([samples[key] for key in group]) for group in groups]))


def train(
    base: MattingBase, seed: int, split: tuple, options: argparse.Namespace
) -> Iterator[tuple[int, MattingRefine]]:
    """The network of the second stage behind every options.every steps, from the weights of
    `base`; its batches, augmentation, dropout and refiner are drawn by the seed."""
    device = torch.device(options.device)
    torch.manual_seed(seed)
    model = MattingRefine(base.backbone_name, refine_sample_pixels=options.sample_pixels)
    model.load_state_dict(base.state_dict(), strict=False)
    model = model.to(device, memory_format=LAYOUTS[device.type]).train()
    coarse = [p for name, p in model.named_parameters() if not name.startswith("refiner.")]
    optimizer = torch.optim.Adam(
        [
            {"params": coarse, "lr": options.lr},
            {"params": list(model.refiner.parameters()), "lr": options.lr_refiner},
        ]
    )
    samples = MattingDataset(*split, seed)
    sizes = (options.side // 2, options.side)  # as the published recipe's 1024 to 2048
    order = {"count": len(samples), "batch_size": options.batch_size, "crop_size": sizes}
    settled = round(options.steps * 3 / 4)  # then at a fifth of the rates, as in the demo
    for step in range(1, options.steps + 1):
        if step == settled + 1:
            for group in optimizer.param_groups:
                group["lr"] /= 5
        keys = batch_of_step(step - 1, seed=seed, **order)
        batch = next(batches([collate([samples[key] for key in keys])]))
        model.seed_dropout([seed_of(seed, "dropout", step, place) for place in range(len(keys))])
        src, bgr, *truth = augment(batch, device)
        optimizer.zero_grad()
        total(refine_loss(model(src, bgr), *truth)).backward()
        optimizer.step()
        if step % options.every == 0:
            yield step, model


def of_base(options: argparse.Namespace):
    """The alphas of the base network at a quarter of the side, by OF_BASE: the second is what
    predict.py makes with --size."""
    matters = [
        Matter(options.base, options.device, size=options.side // 4, guided=guided)
        for guided in (False, True)
    ]

    def alphas(src: Tensor, bgr: Tensor) -> dict[str, Tensor]:
        found = [matter(src, bgr, types=("pha",))["pha"] for matter in matters]
        return dict(zip(OF_BASE, found, strict=True))

    return alphas


def of_both(model: MattingRefine):
    """The alphas of the trained network, by OF_BOTH."""

    def alphas(src: Tensor, bgr: Tensor) -> dict[str, Tensor]:
        model.eval()
        outputs = model(src, bgr)
        model.train()
        size = (src.shape[2], src.shape[3])
        coarse = outputs.pha_sm
        factors = guided_factors(resize(src, (coarse.shape[2], coarse.shape[3])), coarse)
        filtered = guided_alpha(enlarge_rows(factors, size, 0, size[0]), src)
        ways = (resize(coarse, size), filtered, outputs.pha)
        return dict(zip(OF_BOTH, ways, strict=True))

    return alphas


def figures(alphas, held_out: list[dict], device: torch.device) -> dict[str, dict[str, float]]:
    """The mean of each of FIGURES over the held-out samples, for each way of `alphas`."""
    values: dict[str, dict[str, list[float]]] = {}
    with torch.no_grad():
        for batch in held_out:
            src, bgr, true_pha, _ = augment(batch, device)
            for way, pha in alphas(src, bgr).items():
                for name in FIGURES:
                    of_way = values.setdefault(way, {each: [] for each in FIGURES})
                    of_way[name] += getattr(metrics, name)(pha, true_pha).tolist()
    return {
        way: {name: sum(each) / len(each) for name, each in of_way.items()}
        for way, of_way in values.items()
    }


def summary(result: dict) -> str:
    """A table: the base network, then each way behind each number of steps, median of the seeds."""
    rows: list[list] = [
        ["0", way, *(f"{result['base'][way][name]:.2f}" for name in FIGURES)] for way in OF_BASE
    ]
    for each in zip(*result["runs"], strict=True):
        for way in OF_BOTH:
            spreads = [said([run[way][name] for run in each], digits=2) for name in FIGURES]
            rows.append([each[0]["step"], way, *spreads])
    return table(["steps", "alpha", "MAD x1000", "Grad"], rows)


if __name__ == "__main__":
    main()
