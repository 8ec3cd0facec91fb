"""Trains MattingBase: options, machine, data, model, start point, loop, read from top to bottom.

python train_base.py --model-backbone resnet50 --model-pretrain-initialization deeplab.pth
python train_base.py --model-backbone resnet50 --model-last-checkpoint auto
"""

import argparse
import contextlib
import json
import os
import shlex
import sys
import tempfile
from pathlib import Path

from training.options import parse_options


def main(argv: list[str] | None = None) -> int:
    """Trains as the command line says. Returns the exit status: 0; 2 where the input is at fault,
    with one line that says what; 130 after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    options = parse_options(argv)
    try:
        # torch takes seconds to import: only now, so that --help need not wait for it.
        from dataset.images import DataError
        from model.transfer import TransferError
        from model.weights_file import WeightsFileError
        from training.checkpoint import CheckpointError

        try:
            with checkpoint_folder(options) as folder:
                train(options, Path(folder))
        except (OptionError, DataError, TransferError, WeightsFileError, CheckpointError) as error:
            print(f"train_base.py: error: {error}", file=sys.stderr)
            return 2
    except KeyboardInterrupt:
        print(f"\nstopped; to continue: {continuation(argv)}", file=sys.stderr)
        return 130
    return 0


def train(options: argparse.Namespace, folder: Path) -> None:
    """The run. Checkpoints go to `folder`; raises the errors that main turns into a line."""
    import torch
    from torch.utils.data import DataLoader

    from dataset.augmentation import augment
    from dataset.folders import data_folders, open_half
    from dataset.matting import MattingDataset, batches, collate, evenly_spaced, leave_interrupts
    from dataset.sampler import BatchSampler, SampleKey, seed_of, steps_per_epoch
    from model import MattingBase
    from training import checkpoint
    from training.journal import Journal, batch_picture
    from training.loss import matting_loss, total
    from training.validation import pictures, validate

    # ---- Machine --------------------------------------------------------------------------------

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise OptionError("started as one of several processes; start one, without torchrun")
    device = choose_device(options.device)
    precision = choose_precision(options.precision, device)
    torch.backends.cudnn.benchmark = True  # crops have few shapes: their best kernels are kept

    def autocast() -> torch.autocast:
        dtype = torch.float16 if precision == "fp16" else torch.bfloat16
        return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")

    log_folder = Path("log") / options.model_name
    print(f"{options.model_name}: {options.model_backbone}, {precision} on {device}")

    # ---- Data -----------------------------------------------------------------------------------

    folders = data_folders(options.dataset_name, options.dataset_dir, print)
    foregrounds, backgrounds = open_half(folders, "train")
    valid_foregrounds, valid_backgrounds = open_half(folders, "valid")
    epoch_steps = steps_per_epoch(len(foregrounds), options.batch_size)
    last_step = options.epoch_end * epoch_steps
    if options.max_steps:
        last_step = min(last_step, options.max_steps)
    print(
        f"data: {len(foregrounds)} foregrounds and {len(backgrounds)} backgrounds to train on "
        f"({epoch_steps} steps an epoch), {len(valid_foregrounds)} and {len(valid_backgrounds)} "
        "to validate on"
    )

    # ---- Model ----------------------------------------------------------------------------------

    torch.manual_seed(options.seed)
    model = MattingBase(options.model_backbone).to(device)
    optimizer = torch.optim.Adam(parameter_groups(model, options), fused=device.type == "cuda")
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    # ---- Start point: exactly one of resume, transfer, scratch ----------------------------------

    start, source = start_point(options)
    first_step = options.epoch_start * epoch_steps
    if start == "resume":
        first_step = resume(source, model, optimizer, scaler, options, first_step)
    ahead = checkpoints_ahead(folder, first_step, epoch_steps, options.overwrite)
    if start == "transfer":
        summary = initialise(model, source, options, log_folder)
    elif start == "scratch":
        print("start: from scratch, all weights random")
    if options.dry_run:
        last_step = first_step + 1
    if first_step >= last_step:
        print(f"nothing to do: {first_step} of {last_step} steps are done; raise --epoch-end")
        return

    # ---- Loop -----------------------------------------------------------------------------------

    size = (options.crop_size[1],) * 2
    valid_keys = [SampleKey(0, i, 0, size) for i in evenly_spaced(len(valid_foregrounds), 50)]
    loading = {
        "num_workers": options.num_workers,
        "collate_fn": collate,
        "pin_memory": device.type == "cuda",
        "worker_init_fn": leave_interrupts,
    }
    loader = DataLoader(
        MattingDataset(foregrounds, backgrounds, options.seed, options.dataset_pairing),
        batch_sampler=BatchSampler(
            first_step,
            last_step,
            count=len(foregrounds),
            batch_size=options.batch_size,
            seed=options.seed,
            crop_size=tuple(options.crop_size),
        ),
        **loading,
    )
    valid_loader = DataLoader(
        MattingDataset(valid_foregrounds, valid_backgrounds, augmented=False),
        sampler=valid_keys[: options.batch_size] if options.dry_run else valid_keys,
        batch_size=options.batch_size,
        **loading,
    )
    journal = Journal(
        None if options.dry_run else log_folder, first_step, last_step, options.batch_size
    )

    def run_validation(step: int) -> None:
        results, shown = validate(model, batches(valid_loader), device, autocast)
        journal.validation(step, step // epoch_steps, results, shown)

    if start == "transfer":
        journal.text("transfer", summary, first_step)
    remove(ahead)
    model.train()
    if start != "resume" and not options.dry_run:
        run_validation(first_step)

    for step, batch in enumerate(journal.watch(batches(loader)), first_step + 1):
        torch.manual_seed(seed_of(options.seed, "dropout", step))
        src, bgr, true_pha, true_fgr = augment(batch, device)

        with autocast():
            pred_pha, pred_fgr, pred_err, _ = model(src, bgr)
        terms = matting_loss(pred_pha, pred_fgr, pred_err, true_pha, true_fgr)

        optimizer.zero_grad(set_to_none=True)
        scaler.scale(total(terms)).backward()
        scaler.step(optimizer)
        scaler.update()

        is_last = step == last_step
        if step % options.log_train_loss_interval == 0 or is_last:
            journal.train_losses(step, terms, optimizer, scaler.get_scale())
        if step % options.log_train_images_interval == 0:
            journal.train_pictures(
                step, pictures(src, bgr, true_pha, true_fgr, pred_pha, pred_fgr, pred_err)
            )
        if step % options.log_valid_interval == 0 or is_last:
            run_validation(step)
        if step % options.checkpoint_interval == 0 or step % epoch_steps == 0 or is_last:
            path = folder / checkpoint.checkpoint_name(step, epoch_steps)
            state = checkpoint.training_state(step, epoch_steps, options, optimizer, scaler)
            checkpoint.save(path, model.state_dict(), state)
            journal.say(f"saved {path}")

    if options.dry_run:
        checkpoint.load_weights(model, path, options.model_backbone)
        checkpoint.load_state(path)
        log_folder.mkdir(parents=True, exist_ok=True)
        shown = pictures(src, bgr, true_pha, true_fgr, pred_pha, pred_fgr, pred_err)
        batch_picture(log_folder / "batch.png", shown)
        journal.say(f"dry run: every part works; look at {log_folder / 'batch.png'}")
    journal.close()


# ---- Machine ------------------------------------------------------------------------------------


class OptionError(ValueError):
    """Options that do not go with this machine or with what lies in the run's folders."""


def choose_device(name: str):
    """The torch.device that --device asks for. Raises OptionError where it is not there."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise OptionError(f"--device {name} cannot be used here ({reason}); try cpu") from None
    return device


def choose_precision(precision: str | None, device) -> str:
    if precision is None:
        return "fp16" if device.type == "cuda" else "fp32"
    if precision == "fp16" and device.type != "cuda":
        raise OptionError(f"--precision fp16 needs CUDA, not {device}; type bf16 or fp32")
    return precision


def parameter_groups(model, options: argparse.Namespace) -> list[dict]:
    """Every parameter of the network in one of three groups, each with its learning rate."""
    return [
        {"name": name, "params": list(getattr(model, name).parameters()), "lr": rate}
        for name, rate in (
            ("backbone", options.lr_backbone),
            ("aspp", options.lr_aspp),
            ("decoder", options.lr_decoder),
        )
    ]


# ---- Start point --------------------------------------------------------------------------------


def start_point(options: argparse.Namespace) -> tuple[str, Path | None]:
    """Where the weights come from: ("resume", weights file), ("transfer", file of another network)
    or ("scratch", None). A checkpoint wins over an initialisation."""
    from training.checkpoint import find_checkpoints

    last, initial = options.model_last_checkpoint, options.model_pretrain_initialization
    if last == Path("auto"):
        found = find_checkpoints(Path("checkpoint") / options.model_name)
        last = found[-1] if found else None
        if last is None:
            print(f"no checkpoint in checkpoint/{options.model_name} yet: this is a fresh start")
    if last:
        if initial:
            print(f"{initial} is not transferred: the run continues from {last}")
        return "resume", last
    return ("transfer", initial) if initial else ("scratch", None)


def resume(path: Path, model, optimizer, scaler, options: argparse.Namespace, first_step: int):
    """Loads a checkpoint strictly; returns the number of completed steps that it stands for.
    Without a state file (a weights file of elsewhere) the optimizer starts afresh."""
    from training import checkpoint

    checkpoint.load_weights(model, path, options.model_backbone)
    state = checkpoint.load_state(path)
    if state is None:
        print(
            f"start: weights of {path}; there is no {checkpoint.state_path(path).name} beside it, "
            f"so the optimizer starts afresh, at step {first_step} (--epoch-start)"
        )
        return first_step
    rates = [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict(state["optimizer"])
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate  # the command line's, which may have changed
    if state["scaler"]:  # empty where the run did not scale
        scaler.load_state_dict(state["scaler"])
    for name, (before, now) in checkpoint.changed_options(state, options).items():
        print(f"note: {name} was {before} when {path} was saved and is {now} now")
    print(f"start: continuing {path} at step {state['step'] + 1}")
    return state["step"]


def initialise(model, path: Path, options: argparse.Namespace, log_folder: Path) -> str:
    """Transfers what fits of another network's checkpoint; prints, writes and returns what that
    was."""
    from model.download import torchvision_file
    from model.transfer import TransferError, transfer
    from model.weights_file import read_weights

    if path == Path("torchvision"):
        path = torchvision_file(options.model_backbone)
    weights = read_weights(path)
    try:
        report = transfer(
            model,
            weights.state_dict,
            partial=options.model_pretrain_partial,
            stem=options.model_pretrain_stem,
        )
    except TransferError as error:
        raise TransferError(f"{path}: {error}") from None
    found = {"file": str(path), "sha256": weights.sha256(), "found_in": weights.wrapper}
    where = f" (found in {weights.wrapper!r})" if weights.wrapper else ""
    summary = f"{path}{where}, SHA-256 {found['sha256']}\n{report.table()}"
    print(f"start: {summary}")
    log_folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(found | report.as_dict(), indent=1)
    (log_folder / "transfer.json").write_text(content + "\n")
    return summary


def checkpoints_ahead(
    folder: Path, first_step: int, epoch_steps: int, overwrite: bool
) -> list[Path]:
    """The checkpoints in `folder` that lie ahead of the start point, where this run would write.
    Raises OptionError where there are some and they may not be removed."""
    from training.checkpoint import find_ahead

    ahead = find_ahead(folder, first_step, epoch_steps)
    if ahead and not overwrite:
        raise OptionError(
            f"{folder} already holds {len(ahead)} checkpoint(s) ahead of this start, up to "
            f"{ahead[-1].name}; continue them with --model-last-checkpoint auto, choose another "
            "--model-name, or remove them with --overwrite"
        )
    return ahead


def remove(checkpoints: list[Path]) -> None:
    from training.checkpoint import state_path

    for path in checkpoints:
        path.unlink()
        state_path(path).unlink(missing_ok=True)
        print(f"removed {path} (--overwrite)")


def checkpoint_folder(options: argparse.Namespace):
    """checkpoint/NAME; for a dry run one that is gone afterwards."""
    if not options.dry_run:
        return contextlib.nullcontext(Path("checkpoint") / options.model_name)
    Path("checkpoint").mkdir(exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=".dry-run-", dir="checkpoint")


def continuation(argv: list[str]) -> str:
    """The command that continues a run started with `argv`."""
    kept, skip = [], False
    for word in argv:
        if not skip and word.split("=")[0] not in ("--model-last-checkpoint", "--overwrite"):
            kept.append(word)
        skip = word == "--model-last-checkpoint"
    return shlex.join(["python", "train_base.py", *kept, "--model-last-checkpoint", "auto"])


if __name__ == "__main__":
    sys.exit(main())
