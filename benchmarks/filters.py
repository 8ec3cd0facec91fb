"""The program's own filters against kornia's: seconds of a processor, and how far values differ.

    python -m benchmarks.filters            # a minute or two

Each filter is compared with the nearest that kornia.filters has, in one thread, in turns:

- the box of constant size that sharpen takes, 3x3: box_blur, whole and separable;
- boxes of another size for each sample: box_blur of each by itself, sides rounded to odd pixels;
- the guided filter that brings alpha back to the picture's size: guided_blur at the small size,
  which gives no factors for the full one, and with `subsample`, which takes each fourth pixel;
- the Gaussian gradient of the metric: filter2d_separable in place of convolutions.
"""

import sys
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from benchmarks.common import arguments, in_turns, machine, said, table, write
from dataset.augmentation import box_blur
from evaluation.metrics import GRAD_REACH, GRAD_SIGMA, _gradient
from prediction.upsample import (
    MIN_VARIANCE,
    WINDOW_RADIUS,
    enlarge_rows,
    guided_alpha,
    guided_factors,
)

ROUNDS = 9
SIZES = {"crop": (8, 256, 256), "large crop": (4, 512, 512), "HD": (1, 1080, 1920)}
SHRINK = 4  # how much smaller the network sees a picture

Variants = dict[str, Callable[[], Tensor]]


def constant_box(src: Tensor) -> Variants:
    from kornia.filters import box_blur as kornia_box

    radius = torch.ones(len(src))
    return {
        "ours": lambda: box_blur(src, radius),
        "kornia": lambda: kornia_box(src, 3, "replicate", separable=False),
        "kornia, separable": lambda: kornia_box(src, 3, "replicate"),
    }


def drawn_boxes(src: Tensor) -> Variants:
    from kornia.filters import box_blur as kornia_box

    radii = [1 + index % 5 for index in range(len(src))]
    radius = torch.tensor(radii, dtype=torch.float32)

    def each() -> Tensor:
        samples = zip(src.split(1), radii, strict=True)
        return torch.cat([kornia_box(one, 2 * r + 1, "replicate") for one, r in samples])

    return {"ours": lambda: box_blur(src, radius), "kornia, one by one": each}


def seen(src: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures as the network sees them, and an alpha of that size."""
    small = F.interpolate(src, (src.shape[2] // SHRINK, src.shape[3] // SHRINK), mode="area")
    return small, (small.mean(1, keepdim=True) > 0.5).float()


def guided_small(src: Tensor) -> Variants:
    from kornia.filters import guided_blur

    small, pha = seen(src)
    return {
        "ours": lambda: guided_alpha(guided_factors(small, pha), small),
        "kornia": lambda: guided_blur(
            small, pha, 2 * WINDOW_RADIUS + 1, MIN_VARIANCE, "replicate"
        ).clamp(0, 1),
    }


def guided(src: Tensor) -> Variants:
    from kornia.filters import guided_blur

    size = src.shape[2:]
    small, pha = seen(src)

    def ours() -> Tensor:
        factors = guided_factors(small, pha)
        return guided_alpha(enlarge_rows(factors, size, 0, size[0]), src)

    def kornia() -> Tensor:  # wants alpha at the full size, of which it takes each fourth pixel
        large = F.interpolate(pha, size, mode="nearest")
        side = (2 * WINDOW_RADIUS + 1) * SHRINK
        return guided_blur(src, large, side, MIN_VARIANCE, "replicate", SHRINK).clamp(0, 1)

    return {"ours": ours, "kornia": kornia}


def gradient(src: Tensor) -> Variants:
    from kornia.filters import filter2d_separable

    pha = src[:, :1].double()

    def kornia() -> Tensor:
        place = torch.arange(-GRAD_REACH, GRAD_REACH + 1, dtype=pha.dtype)
        smooth = torch.exp(place.square() / (-2 * GRAD_SIGMA**2))
        slope = place * smooth
        smooth, slope = ((kernel / kernel.norm())[None] for kernel in (smooth, slope))
        across = filter2d_separable(pha, slope, smooth, "replicate")
        down = filter2d_separable(pha, smooth, slope, "replicate")
        return (across.square() + down.square()).sqrt()

    return {"ours": lambda: _gradient(pha), "kornia": kornia}


FILTERS = {
    "3x3 box (sharpen)": constant_box,
    "boxes of drawn sizes (blur)": drawn_boxes,
    "guided filter, at the small size": guided_small,
    "guided filter, to the full size (predict.py)": guided,
    "Gaussian gradient (metric)": gradient,
}


def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__ or "", "benchmarks/results/filters.json")
    options = parser.parse_args(sys.argv[1:] if argv is None else argv)
    torch.set_num_threads(1)
    generator, device = torch.Generator().manual_seed(0), torch.device("cpu")
    sizes = {"tiny": (2, 256, 384)} if options.quick else SIZES
    rows, figures = [], []
    for name, variants_of in FILTERS.items():
        for what, (count, height, width) in sizes.items():
            src = torch.rand(count, 3, height // 8, width // 8, generator=generator)
            src = F.interpolate(src, (height, width), mode="bicubic").clamp(0, 1)
            variants = variants_of(src)
            seconds = in_turns(variants, 1 if options.quick else ROUNDS)
            reference = variants["ours"]()
            for variant, work in variants.items():
                differs = (work() - reference).abs()
                times = [a / b for a, b in zip(seconds[variant], seconds["ours"], strict=True)]
                inner = differs[..., 8:-8, 8:-8].max().item()
                rows.append(
                    [
                        name,
                        f"{count} x {width}x{height}",
                        variant,
                        said(seconds[variant], 1e3),
                        said(times, digits=2),
                        f"{differs.max():.1e}",
                        f"{inner:.1e}",
                    ]
                )
                figures.append(
                    {
                        "filter": name,
                        "size": what,
                        "variant": variant,
                        "seconds": seconds[variant],
                        "largest_difference": differs.max().item(),
                        "inside": inner,
                    }
                )
    head = ["filter", "pictures", "variant", "ms", "of ours", "largest difference", "inside"]
    print(table(head, rows))
    about = machine(device)
    write(options.json, {"quick": options.quick, "machine": about, "threads": 1, "cases": figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
