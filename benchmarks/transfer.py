"""Does the transfer help? Trains from scratch, from a DeepLabV3, and from it with the rgb stem.

    python -m benchmarks.transfer            # about 40 minutes on two cores
    python -m benchmarks.transfer --quick    # about 3 minutes: whether it runs, not what is true

The DeepLabV3 is trained here, on a segmentation task drawn by the demo's hand, and saved as the
published one is; then MattingBase (MobileNetV2) is trained on the demo data set with each start,
with the same batches for all starts of a seed.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.scenes import CLASSES, draw_scenes
from common.cli import Parser
from common.machine import LAYOUTS
from dataset.augmentation import augment
from dataset.folders import data_folders, open_split
from dataset.sample import MattingDataset, collate
from dataset.sample_loader import batches
from dataset.sampler import SampleKey, batch_of_step, seed_of
from model import MattingBase
from model.sources import IMAGENET
from model.transfer import transfer
from model.weights_file import read_weights
from training.loss import matting_loss, total
from training.validator import measure as validate

STARTS = ("scratch", "transfer", "transfer, rgb stem")
COLOURS = {"scratch": "#999999", "transfer": "#1f77b4", "transfer, rgb stem": "#d62728"}


class DeepLab(nn.Module):
    """MobileNetV2, ASPP and head of VainF's DeepLabV3, put together from MattingBase's parts, its
    rates included: on small pictures the published 6, 12, 18 would see little but borders."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        matting = MattingBase("mobilenetv2")
        self.backbone, self.aspp = matting.backbone, matting.aspp
        self.backbone.features[0][0] = nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False)
        self.head = nn.Sequential(
            nn.Conv2d(256, 256, 3, padding=1, bias=False),
            nn.BatchNorm2d(256),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, classes, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, 3, H, W), normalised as for ImageNet. Returns the classes' scores, same size."""
        scores = self.head(self.aspp(self.backbone(x)[-1]))
        return F.interpolate(scores, x.shape[2:], mode="bilinear", align_corners=False)

    def published_state_dict(self) -> dict[str, Tensor]:
        """Its entries under the names that VainF/DeepLabV3Plus-Pytorch gives them."""
        names = {}
        for name in self.state_dict():
            part, rest = name.split(".", 1)
            if part == "backbone":
                number = int(rest.split(".")[1])
                run = "low_level_features" if number < 4 else "high_level_features"
                names[name] = f"backbone.{run}.{rest.split('.', 1)[1]}"
            elif part == "aspp":
                names[name] = f"classifier.classifier.0.{rest}"
            else:
                number, rest = rest.split(".", 1)
                names[name] = f"classifier.classifier.{int(number) + 1}.{rest}"
        return {names[name]: value for name, value in self.state_dict().items()}


def pretrain(path: Path, steps: int, scenes: int, side: int, device: torch.device) -> dict:
    """Trains a DeepLab on drawn scenes and saves it as a published file. Returns its figures."""
    started = time.perf_counter()
    held_out = max(16, scenes // 10)
    pictures, labels = draw_scenes(0, scenes + held_out, side + side // 4, os.cpu_count() or 1)
    pictures = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    labels = torch.from_numpy(labels).long()
    mean, deviation = (torch.tensor(v, device=device)[:, None, None] for v in IMAGENET)

    def normal(chosen: Tensor) -> Tensor:
        return (chosen.to(device).float() / 255 - mean) / deviation

    torch.manual_seed(0)
    model = DeepLab(len(CLASSES)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rng = np.random.default_rng(0)
    for step in range(steps):
        rows = rng.choice(scenes, 16, replace=False)
        top, left = rng.integers(0, side // 4 + 1, 2)
        window = (..., slice(top, top + side), slice(left, left + side))
        x, y = normal(pictures[rows][window]), labels[rows][window].to(device)
        if rng.random() < 0.5:
            x, y = x.flip(3), y.flip(2)
        x = x * rng.uniform(0.8, 1.2) + rng.uniform(-0.2, 0.2)
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % max(1, steps // 10) == 0:
            print(f"  segmentation step {step + 1}/{steps}  loss {loss.item():.3f}", flush=True)

    model.eval()
    hits = np.zeros((2, len(CLASSES)))  # intersection, union
    with torch.inference_mode():
        for rows in torch.arange(scenes, scenes + held_out).split(16):
            predicted = model(normal(pictures[rows])).argmax(1).cpu()
            for label in range(len(CLASSES)):
                ours, theirs = predicted == label, labels[rows] == label
                hits[:, label] += (ours & theirs).sum().item(), (ours | theirs).sum().item()
    iou = hits[0] / np.maximum(hits[1], 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"cur_itrs": steps, "model_state": model.published_state_dict()}
    content |= {"optimizer_state": {}, "scheduler_state": {}, "best_score": np.float64(iou.mean())}
    torch.save(content, path)
    return {
        "steps": steps,
        "scenes": scenes,
        "mean_iou": float(iou.mean()),
        "person_iou": float(iou[CLASSES.index("person")]),
        "seconds": time.perf_counter() - started,
    }


def train(
    start: str, seed: int, deeplab: Path, splits: dict, options: argparse.Namespace
) -> list[float]:
    """One run; returns the validation MAD at every `options.every` steps, the start included."""
    device = torch.device(options.device)
    torch.manual_seed(seed)
    model = MattingBase("mobilenetv2").to(device)
    if start != "scratch":
        stem = "rgb" if "rgb" in start else "random"
        transfer(model, read_weights(deeplab).state_dict, stem=stem)
    optimizer = torch.optim.Adam(
        [
            {"params": model.backbone.parameters(), "lr": options.lr},
            {"params": model.aspp.parameters(), "lr": 5 * options.lr},
            {"params": model.decoder.parameters(), "lr": 5 * options.lr},
        ]
    )
    training = MattingDataset(*splits["train"], seed)
    validation = MattingDataset(*splits["valid"], augmented=False)
    size = (options.side, options.side)
    valid_samples = [validation[SampleKey(0, i, 0, size)] for i in range(len(validation))]
    valid_batches = [collate(valid_samples[i : i + 10]) for i in range(0, len(valid_samples), 10)]
    order = {"count": len(training), "batch_size": 8, "seed": seed, "crop_size": size}

    def measure() -> float:
        def losses(network, src, bgr, *truth):
            outputs = network(src, bgr, hid=False)
            return outputs, matting_loss(outputs.pha, outputs.fgr, outputs.err, *truth)

        layout = LAYOUTS[device.type]
        results, _, _ = validate(model, valid_batches, losses, device=device, layout=layout)
        return results["mad"]

    curve = [measure()]
    for step in range(1, options.steps + 1):
        samples = [training[key] for key in batch_of_step(step - 1, **order)]
        batch = next(batches([collate(samples)]))
        torch.manual_seed(seed_of(seed, "dropout", step))
        src, bgr, true_pha, true_fgr = augment(batch, device)
        pred_pha, pred_fgr, pred_err, _ = model(src, bgr, hid=False)
        loss = total(matting_loss(pred_pha, pred_fgr, pred_err, true_pha, true_fgr))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % options.every == 0:
            curve.append(measure())
    return curve


def smooth(curve: list[float]) -> np.ndarray:
    """Each measurement averaged with its neighbours: one of them is noisy, the last one too."""
    values = np.array(curve, dtype=float)
    return np.array([values[max(0, i - 1) : i + 2].mean() for i in range(len(values))])


def steps_to(curve: np.ndarray, goal: float, every: int) -> float | None:
    """The step at which a curve first is at or below `goal`, between two measurements by a
    straight line; None where it never is."""
    below = np.flatnonzero(curve <= goal)
    if len(below) == 0:
        return None
    first = below[0]
    if first == 0:
        return 0.0
    before, after = curve[first - 1], curve[first]
    return float(every * (first - 1 + (before - goal) / (before - after)))


def summarise(curves: dict[str, list[list[float]]], every: int) -> list[dict]:
    """A row for each start: MAD at the end over the seeds, and the steps in which its runs reach
    the final MAD of the scratch run with the same seed, both smoothed, as a share of the steps in
    which that run does."""
    goals = [smooth(run)[-1] for run in curves["scratch"]]
    own = [steps_to(smooth(r), g, every) for r, g in zip(curves["scratch"], goals, strict=True)]
    rows = []
    for start, runs in curves.items():
        finals = [smooth(run)[-1] for run in runs]
        needed = [steps_to(smooth(r), g, every) for r, g in zip(runs, goals, strict=True)]
        reached = None not in needed
        rows.append(
            {
                "start": start,
                "final_mad": float(np.mean(finals)),
                "final_mad_min": float(min(finals)),
                "final_mad_max": float(max(finals)),
                "steps_to_scratch": needed,
                "share_of_steps": float(np.mean(needed) / np.mean(own)) if reached else None,
            }
        )
    return rows


def table(rows: list[dict]) -> str:
    lines = [
        "| start | final MAD x1000, mean (least .. most) | steps to scratch's final MAD | share |",
        "|---|---|---|---|",
    ]
    for row in rows:
        final = f"{row['final_mad']:.1f} ({row['final_mad_min']:.1f} .. {row['final_mad_max']:.1f})"
        needed = ", ".join(
            "not reached" if n is None else f"{n:.0f}" for n in row["steps_to_scratch"]
        )
        share = row["share_of_steps"]
        share = "not reached" if share is None else f"{share:.2f}"
        lines.append(f"| {row['start']} | {final} | {needed} | {share} |")
    return "\n".join(lines)


def draw_curves(path: Path, curves: dict[str, list[list[float]]], every: int) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for start, runs in curves.items():
        runs = np.array(runs)
        steps = every * np.arange(runs.shape[1])
        axes.plot(steps, runs.mean(0), color=COLOURS[start], label=start, linewidth=2)
        axes.fill_between(
            steps, runs.min(0), runs.max(0), color=COLOURS[start], alpha=0.2, linewidth=0
        )
    axes.set(xlabel="step", ylabel="validation MAD x1000", ylim=(0, None), xlim=(0, None))
    axes.set_title(f"Mean of {len(runs)} seeds, shaded from the least to the most")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(argv: list[str] | None = None) -> None:
    parser = Parser("benchmarks.transfer", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few steps: does it run at all")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=320, help="of each training run")
    parser.add_argument("--every", type=int, default=20, help="steps between validations")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--side", type=int, default=96, help="of the crops in pixels")
    parser.add_argument("--lr", type=float, default=1e-4, help="of the backbone; the rest 5 times")
    parser.add_argument("--pretrain-steps", type=int, default=3000)
    parser.add_argument("--scenes", type=int, default=1500, help="drawn for the segmentation task")
    parser.add_argument(
        "--output", type=Path, help="folder (default: benchmarks/results; with --quick, log)"
    )
    parser.add_argument("--again", type=Path, help="only sum up and draw what is in this JSON file")
    options = parser.parse_args(argv)
    if options.quick:
        options.steps, options.every, options.seeds = 10, 5, 2
        options.pretrain_steps, options.scenes = 10, 32
    options.output = options.output or Path("log" if options.quick else "benchmarks/results")
    options.output.mkdir(parents=True, exist_ok=True)
    result = json.loads(options.again.read_text()) if options.again else measure(options)
    every = result["options"]["every"]
    result["rows"] = summarise(result["curves"], every)
    write(options.output, result)
    draw_curves(options.output / "transfer.png", result["curves"], every)
    print(table(result["rows"]))
    print(f"wrote {options.output / 'transfer.png'} and transfer.json")


def measure(options: argparse.Namespace) -> dict:
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    machine = f"{device.type}: {name or platform.machine()}, {os.cpu_count()} cores"
    print(f"{machine}; torch {torch.__version__}", flush=True)
    folders = data_folders("demo", None, print)
    splits = {split: open_split(folders, split) for split in ("train", "valid")}
    curves: dict[str, list[list[float]]] = {start: [] for start in STARTS}
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()}
    result = {"machine": machine, "torch": torch.__version__, "options": settings}
    deeplab = options.output / "transfer-deeplab.pth"
    try:
        result["pretraining"] = pretrain(
            deeplab, options.pretrain_steps, options.scenes, options.side, device
        )
        print(
            "DeepLabV3: mean IoU {mean_iou:.3f}, person {person_iou:.3f}".format(
                **result["pretraining"]
            )
        )
        started = time.perf_counter()
        for seed in range(options.seeds):
            for start in STARTS:
                curves[start].append(train(start, seed, deeplab, splits, options))
                print(f"seed {seed}, {start}: final MAD {curves[start][-1][-1]:.1f}", flush=True)
                result |= {"curves": curves, "training_seconds": time.perf_counter() - started}
                write(options.output, result)
    finally:
        deeplab.unlink(missing_ok=True)
    return result


def write(folder: Path, result: dict) -> None:
    (folder / "transfer.json").write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
