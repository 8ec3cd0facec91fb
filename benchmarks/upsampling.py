"""Which way of bringing alpha back to a picture's size is nearer to the truth.

    python -m benchmarks.upsampling --dataset-dir DIR
    python -m benchmarks.upsampling --dataset-dir DIR --model-checkpoint checkpoint/NAME/epoch-7.pth
    python -m benchmarks.upsampling --quick        # under a minute: whether it runs

Composites of true foregrounds on backgrounds, with camera noise; true alpha, reduced by a factor
and brought back by each method, against itself. Since a network's alpha is not the true one, also
alpha that was made wrong at the small size (blurred, moved by a pixel, noisy), and, with weights,
the network's own. Without --dataset-dir it takes the demo data set, which it draws.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from benchmarks.common import arguments, in_turns, machine, said, table, write
from dataset.folders import data_folders, open_split
from prediction.frames import cover, read_rgb
from prediction.predictor import Matter, reduced
from prediction.upsample import (
    MIN_VARIANCE,
    WINDOW_RADIUS,
    enlarge_rows,
    guided_alpha,
    guided_factors,
)

FACTORS = (2, 4, 8)
NOISE = 0.01  # sigma, on src and on bgr
SIGMA = 1.4  # of the gradient error, as in the field's tables
OTHERS = (
    (WINDOW_RADIUS + 1, MIN_VARIANCE),
    (WINDOW_RADIUS, MIN_VARIANCE * 10),
    (WINDOW_RADIUS, MIN_VARIANCE / 10),
)
TIMED = ((1080, 1920), (384, 688))  # sizes of picture and network for what it costs


def main(argv: list[str] | None = None) -> None:
    parser = arguments(__doc__, "benchmarks/results/upsampling.json")
    parser.add_argument(
        "--dataset-dir",
        type=Path,
        metavar="DIR",
        help="a data set, as of train_base.py (default: the demo)",
    )
    parser.add_argument(
        "--model-checkpoint",
        type=Path,
        metavar="FILE",
        help="measure the alpha of these weights, too",
    )
    parser.add_argument(
        "--count",
        type=int,
        default=7,
        metavar="N",
        help="foregrounds, each on two backgrounds (default: 7)",
    )
    options = parser.parse_args(argv)
    device = torch.device(options.device)
    count = 1 if options.quick else options.count
    factors = FACTORS[1:2] if options.quick else FACTORS
    matter = options.model_checkpoint and Matter(options.model_checkpoint, device, "fp32")

    errors: dict[tuple[str, int, str], list[Tensor]] = defaultdict(list)
    number = 0
    for src, bgr, true_pha in composites(options.dataset_dir, count):
        src, bgr, true_pha = (x.to(device) for x in (src, bgr, true_pha))
        number += 1
        for factor in factors:
            for (alpha, method), pred_pha in brought_back(src, true_pha, factor):
                errors[alpha, factor, method].append(measures(pred_pha, true_pha))
            for method in ("bilinear", "guided") if matter else ():
                side = math.sqrt(true_pha.shape[2] * true_pha.shape[3]) / factor
                matter.size, matter.guided = round(side), method == "guided"
                pred_pha = matter(src, bgr, ["pha"])["pha"]
                errors["network's", factor, method].append(measures(pred_pha, true_pha))
        print(f"{number} composites", flush=True)
    rows = [
        {
            "alpha": alpha,
            "factor": factor,
            "method": method,
            **dict(zip(("mad", "mse", "grad"), torch.stack(of).mean(0).tolist(), strict=True)),
            "mad_each": [each[0].item() for each in of],
        }
        for (alpha, factor, method), of in errors.items()
    ]
    seconds = in_turns(timed_works(device), rounds=1 if options.quick else 7)
    print(table(*report(rows)))
    for name, values in seconds.items():
        print(f"{name}: {said(values, 1000, 0)} ms of processor for one of 1920x1080")
    content = {
        "machine": machine(device),
        "quick": options.quick,
        "composites": number,
        "radius": WINDOW_RADIUS,
        "epsilon": MIN_VARIANCE,
        "rows": rows,
        "seconds": seconds,
    }
    write(options.json, content)


def composites(folder: Path | None, count: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """src, bgr (1, 3, H, W) and true_pha (1, 1, H, W): each foreground on two backgrounds."""
    folders = data_folders("demo", folder, print)
    splits = [open_split(folders, split) for split in ("train", "valid")]
    pairs = [one.paths(i) for one, _ in splits for i in range(len(one))]
    bgrs = [bgr.path(i) for _, bgr in splits for i in range(len(bgr))]
    generator = torch.Generator().manual_seed(0)

    def noisy(x: Tensor) -> Tensor:
        return (x + NOISE * torch.randn(x.shape, generator=generator)).clamp(0, 1)

    for number in range(min(count, len(pairs))):
        fgr_path, pha_path = pairs[number * len(pairs) // min(count, len(pairs))]
        fgr, true_pha = tensor(read_rgb(fgr_path)), tensor(read_rgb(pha_path))[:, :1]
        for turn in range(2):
            path = bgrs[(number + turn * (len(bgrs) // 2 + 1)) % len(bgrs)]
            bgr = tensor(cover(read_rgb(path), tuple(fgr.shape[2:])))
            yield noisy(fgr * true_pha + bgr * (1 - true_pha)), noisy(bgr), true_pha


def tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def brought_back(
    src: Tensor, true_pha: Tensor, factor: int
) -> Iterator[tuple[tuple[str, str], Tensor]]:
    """((which small alpha, which method), alpha at full size)"""
    size = tuple(true_pha.shape[2:])
    small = (round(size[0] / factor), round(size[1] / factor))
    small_src, small_pha = reduced(src, small), reduced(true_pha, small)
    generator = torch.Generator().manual_seed(factor)
    noise = torch.randn(small_pha.shape, generator=generator).to(small_pha.device)
    edges = F.pad(small_pha, (1, 1, 1, 1), mode="replicate")
    alphas = {
        "true": small_pha,
        "blurred": F.avg_pool2d(edges, 3, stride=1),
        "moved": edges[:, :, 1:-1, :-2],
        "noisy": (small_pha + 0.05 * noise).clamp(0, 1),
    }
    for name, pha in alphas.items():
        yield (name, "bilinear"), enlarge_rows(pha, size, 0, size[0])
        yield (name, "guided"), guided(src, small_src, pha, WINDOW_RADIUS, MIN_VARIANCE)
        for radius, epsilon in OTHERS:
            method = f"guided, radius {radius}, epsilon {epsilon:g}"
            yield (name, method), guided(src, small_src, pha, radius, epsilon)


def guided(src: Tensor, small_src: Tensor, pha: Tensor, radius: int, epsilon: float) -> Tensor:
    height, width = src.shape[2:]
    factors = guided_factors(small_src, pha, radius, epsilon)
    return guided_alpha(enlarge_rows(factors, (height, width), 0, height), src)


def measures(pred_pha: Tensor, true_pha: Tensor) -> Tensor:
    """Mean absolute and mean squared difference, times 1000, and the gradient error / 1000."""
    off = pred_pha - true_pha
    grad = (gradient(pred_pha) - gradient(true_pha)).square().sum()
    return torch.stack([off.abs().mean() * 1000, off.square().mean() * 1000, grad / 1000]).cpu()


def gradient(pha: Tensor) -> Tensor:
    """The magnitude of alpha's gradient, by derivatives of a Gaussian of sigma 1.4 that are scaled
    to unit norm (Rhemann et al., CVPR 2009)."""
    reach = math.ceil(SIGMA * math.sqrt(-2 * math.log(math.sqrt(2 * math.pi) * SIGMA * 0.01)))
    x = torch.arange(-reach, reach + 1, device=pha.device, dtype=torch.float32)
    bell = torch.exp(-(x**2) / (2 * SIGMA**2)) / (SIGMA * math.sqrt(2 * math.pi))
    kernel = torch.outer(bell, -x * bell / SIGMA**2)
    kernel = kernel / kernel.norm()
    padded = F.pad(pha, (reach,) * 4, mode="replicate")
    across, down = (F.conv2d(padded, each[None, None]) for each in (kernel, kernel.T))
    return (across.square() + down.square()).sqrt()


def timed_works(device: torch.device) -> dict[str, Callable[[], Tensor]]:
    size, small = TIMED
    src, small_src = (torch.rand(1, 3, *each, device=device) for each in (size, small))
    pha = torch.rand(1, 1, *small, device=device)
    return {
        "bilinear": lambda: enlarge_rows(pha, size, 0, size[0]),
        "guided": lambda: guided(src, small_src, pha, WINDOW_RADIUS, MIN_VARIANCE),
    }


def report(rows: list[dict]) -> tuple[list[str], list[list[str]]]:
    """MAD, MSE and gradient error of each method, a line for each alpha and factor."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    of = {(row["alpha"], row["factor"], row["method"]): row for row in rows}
    lines = []
    for alpha, factor in dict.fromkeys((row["alpha"], row["factor"]) for row in rows):
        found = [of.get((alpha, factor, method)) for method in methods]
        lines.append(
            [alpha, factor]
            + [
                " / ".join(f"{row[name]:.2f}" for name in ("mad", "mse", "grad")) if row else ""
                for row in found
            ]
        )
    return ["small alpha", "factor", *methods], sorted(lines, key=lambda line: line[0])


if __name__ == "__main__":
    main()
