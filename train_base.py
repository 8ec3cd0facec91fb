"""Trains MattingBase: options, machine, data, model, start point, loop, read from top to bottom.

python train_base.py --model-backbone resnet50 --model-pretrain-initialization deeplab.pth
python train_base.py --model-backbone resnet50 --model-last-checkpoint auto
"""

import argparse
import contextlib
import os
import shlex
import signal
import sys
import tempfile
import time
from pathlib import Path

from training.options import parse_options
from training.signals import Stopped, StopRequest


def main(argv: list[str] | None = None) -> int:
    """Trains as the command line says. Returns the exit status: 0; 2 where the input is at fault,
    with one line that says what; 128 + the signal's number where it was asked to stop."""
    argv = sys.argv[1:] if argv is None else argv
    options = parse_options(argv)
    started = time.time()
    try:
        with StopRequest() as stop:
            return run(options, stop)
    except (KeyboardInterrupt, Stopped) as stopped:
        number = stopped.number if isinstance(stopped, Stopped) else signal.SIGINT
        print(f"stopped; {continuation(argv, options, started)}", file=sys.stderr)
        return 128 + number


def run(options: argparse.Namespace, stop: StopRequest) -> int:
    # torch takes seconds to import: only now, so that --help need not wait for it.
    from dataset.images import DataError
    from model.transfer import TransferError
    from model.weights_file import WeightsFileError
    from training.checkpoint import CheckpointError
    from training.start import OptionError

    try:
        with checkpoint_folder(options) as folder, contextlib.ExitStack() as at_end:
            train(options, Path(folder), stop, at_end)
    except (
        OptionError, DataError, TransferError, WeightsFileError, CheckpointError, OSError
    ) as error:  # fmt: skip
        print(f"train_base.py: error: {error}", file=sys.stderr)
        return 2
    return 0


def train(
    options: argparse.Namespace, folder: Path, stop: StopRequest, at_end: contextlib.ExitStack
) -> None:
    """The run. Checkpoints go to `folder`; what is to be closed is left to `at_end`. Raises the
    errors that are turned into a line."""
    import torch
    from torch.utils.data import DataLoader

    from dataset.augmentation import augment
    from dataset.folders import data_folders, open_half
    from dataset.images import DataError
    from dataset.matting import MattingDataset, batches, collate, leave_signals, validation_keys
    from dataset.sampler import BatchSampler, seed_of, steps_per_epoch
    from model import MattingBase
    from training import checkpoint
    from training.journal import Journal, batch_picture
    from training.loss import matting_loss, total
    from training.start import (
        OptionError,
        check_writable,
        checkpoints_ahead,
        choose_device,
        choose_precision,
        initialise,
        remove,
        resume,
    )
    from training.validation import pictures, validate

    # ---- Machine --------------------------------------------------------------------------------

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise OptionError("started as one of several processes; start one, without torchrun")
    device = choose_device(options.device)
    precision = options.precision = choose_precision(options.precision, device)
    torch.backends.cudnn.benchmark = True  # crops have few shapes: their best kernels are kept

    def autocast() -> torch.autocast:
        dtype = torch.float16 if precision == "fp16" else torch.bfloat16
        return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")

    log_folder = Path("log") / options.model_name
    for each in (log_folder, folder):
        check_writable(each)
    print(f"{options.model_name}: {options.model_backbone}, {precision} on {device}")
    start, source = start_point(options)

    # ---- Data -----------------------------------------------------------------------------------

    folders = data_folders(options.dataset_name, options.dataset_dir, print)
    foregrounds, backgrounds = open_half(folders, "train")
    valid_foregrounds, valid_backgrounds = open_half(folders, "valid")
    epoch_steps = steps_per_epoch(len(foregrounds), options.batch_size)
    last_step, limit = options.epoch_end * epoch_steps, f"--epoch-end {options.epoch_end}"
    if options.max_steps and options.max_steps < last_step:
        last_step, limit = options.max_steps, f"--max-steps {options.max_steps}"
    print(
        f"data: {len(foregrounds)} foregrounds and {len(backgrounds)} backgrounds to train on, "
        f"{len(valid_foregrounds)} and {len(valid_backgrounds)} to validate on; "
        f"{epoch_steps} steps an epoch, the last step is {last_step} ({limit})"
    )

    # ---- Model ----------------------------------------------------------------------------------

    torch.manual_seed(options.seed)
    model = MattingBase(options.model_backbone).to(device)
    optimizer = torch.optim.Adam(parameter_groups(model, options), fused=device.type == "cuda")
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    # ---- Start point: exactly one of resume, transfer, scratch ----------------------------------

    first_step = options.epoch_start * epoch_steps
    if start == "resume":
        first_step = resume(source, model, optimizer, scaler, options, epoch_steps)
    ahead = checkpoints_ahead(folder, first_step, epoch_steps, options)
    if start == "transfer":
        summary = initialise(model, source, options, log_folder)
    elif start == "scratch":
        print("start: from scratch, all weights random")
    if options.dry_run:
        last_step = first_step + 1
    if first_step >= last_step:
        print(f"nothing to do: {first_step} of {last_step} steps are done; the limit is {limit}")
        return

    # ---- Loop -----------------------------------------------------------------------------------

    size = (options.crop_size[1],) * 2
    valid_keys = validation_keys(len(valid_foregrounds), len(valid_backgrounds), 50, size)
    loading = {
        "num_workers": options.num_workers,
        "collate_fn": collate,
        "pin_memory": device.type == "cuda",
        "worker_init_fn": leave_signals,
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
    at_end.enter_context(checkpoint.only_run_in(folder))
    journal = Journal(
        None if options.dry_run else log_folder, first_step, last_step, options.batch_size
    )
    at_end.callback(journal.close)

    def run_validation(step: int) -> None:
        results, shown = validate(model, stop.until(batches(valid_loader)), device, autocast)
        if not stop.number:
            journal.validation(step, step // epoch_steps, results, shown)

    if start == "transfer":
        journal.text("transfer", summary, first_step)

    def save(step: int) -> None:
        path = folder / checkpoint.checkpoint_name(step, epoch_steps)
        state = checkpoint.training_state(step, epoch_steps, options, optimizer, scaler)
        checkpoint.save(path, model.state_dict(), state)
        while ahead:  # only now, when there is something in their place
            remove(ahead.pop(), kept=(path, source))
        if not options.dry_run:
            journal.say(f"saved {path}")
        checkpoint.prune(folder, options.checkpoint_keep)

    model.train()
    if start != "resume" and not options.dry_run:
        run_validation(first_step)

    step, stop.saves = first_step, True
    try:
        for step, batch in enumerate(journal.watch(batches(loader)), first_step + 1):
            torch.manual_seed(seed_of(options.seed, "dropout", step, 0))  # 0: the process's rank
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
            due = step % options.checkpoint_interval == 0 or step % epoch_steps == 0
            if due or is_last or stop.number:
                save(step)
            if stop.number:
                break
    except DataError:
        if step > first_step:  # a bad picture: what was trained before it is kept
            save(step)
        raise
    stop.check()

    if options.dry_run:
        path = folder / checkpoint.checkpoint_name(step, epoch_steps)
        checkpoint.load_weights(model, path, options.model_backbone)
        checkpoint.load_state(path, model.state_dict())
        log_folder.mkdir(parents=True, exist_ok=True)
        shown = pictures(src, bgr, true_pha, true_fgr, pred_pha, pred_fgr, pred_err)
        batch_picture(log_folder / "batch.png", shown)
        print(f"dry run: every part works; look at {log_folder / 'batch.png'}")


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
    from training.checkpoint import newest_whole
    from training.start import OptionError

    last, initial = options.model_last_checkpoint, options.model_pretrain_initialization
    if last == Path("auto"):
        folder = Path("checkpoint") / options.model_name
        last = newest_whole(folder, set_aside=not options.dry_run)
        if last is None:
            print(f"no checkpoint in checkpoint/{options.model_name} yet: this is a fresh start")
    start, source = ("resume", last) if last else ("transfer", initial)
    if source is None:
        return "scratch", None
    if not source.exists() and source != Path("torchvision"):
        raise OptionError(f"there is no file {source}; check the path")
    if last and initial:
        print(f"{initial} is not transferred: the run continues from {last}")
    return start, source


def checkpoint_folder(options: argparse.Namespace):
    """checkpoint/NAME; for a dry run one that is gone afterwards."""
    if not options.dry_run:
        return contextlib.nullcontext(Path("checkpoint") / options.model_name)
    Path("checkpoint").mkdir(exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=".dry-run-", dir="checkpoint")


def continuation(argv: list[str], options: argparse.Namespace, started: float) -> str:
    """How to go on with a run of `argv` that was stopped: from what it has saved since it
    started, if anything."""
    folder = Path("checkpoint") / options.model_name
    saved = [path for path in folder.glob("epoch-*.state.pth") if path.stat().st_mtime >= started]
    kept, skip = list(argv), False
    if saved:
        kept = []
        for word in argv:
            if not skip and word.split("=")[0] not in ("--model-last-checkpoint", "--overwrite"):
                kept.append(word)
            skip = word == "--model-last-checkpoint"
        kept += ["--model-last-checkpoint", "auto"]
    command = shlex.join(["python", sys.argv[0], *kept])
    if saved or options.dry_run:
        return f"to continue: {command}"
    return f"nothing was saved yet; to start again: {command}"


if __name__ == "__main__":
    sys.exit(main())
