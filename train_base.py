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
from collections.abc import Iterator
from pathlib import Path

from training.options import parse_options
from training.signals import Stopped, StopRequest


def main(argv: list[str] | None = None) -> int:
    """Trains as the command line says. Returns the exit status: 0; 2 where the input is at fault,
    with one line that says what; 128 + the signal's number where it was asked to stop."""
    argv = sys.argv[1:] if argv is None else argv
    options = parse_options(argv)
    stop = StopRequest()
    try:
        with stop:
            status = run(options, stop)
    except Stopped as stopped:
        status, told = 128 + stopped.number, "stopped; "
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
        told = "stopped at once: what was trained since the last checkpoint is lost; "
    else:
        told = ""
    sys.stdout.flush()  # where both go to one file, the last line is to be the last
    if status and (told or stop.saved):
        print(told + continuation(argv, options, stop.saved), file=sys.stderr)
    return status


def run(options: argparse.Namespace, stop: StopRequest) -> int:
    # torch takes seconds to import: only now, so that --help need not wait for it.
    from dataset.images import DataError
    from model.transfer import TransferError
    from model.weights_file import WeightsFileError
    from training.checkpoint import CheckpointError
    from training.memory import MemoryShortError, memory_short
    from training.start import OptionError
    from training.update import DivergedError

    try:
        with checkpoint_folder(options) as folder, contextlib.ExitStack() as at_end:
            try:
                train(options, folder, stop, at_end)
            except (MemoryError, RuntimeError) as error:
                if short := memory_short(error, options):
                    raise short from None
                raise
    except (
        OptionError, DataError, TransferError, WeightsFileError, CheckpointError, DivergedError,
        MemoryShortError, OSError,
    ) as error:  # fmt: skip
        sys.stdout.flush()
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
    from dataset.folders import data_folders, describe, open_half
    from dataset.images import DataError
    from dataset.matting import (
        LeftOut,
        MattingDataset,
        batches,
        collate,
        leave_signals,
        validation_keys,
    )
    from dataset.sampler import BatchSampler, seed_of, steps_per_epoch
    from model import MattingBase
    from training import checkpoint, provenance, start
    from training.journal import Journal, batch_picture
    from training.loss import matting_loss, total
    from training.saving import Saver
    from training.update import Update, loss_scaler
    from training.validation import pictures, validate
    from training.wandb_sync import wandb_run

    # ---- Machine --------------------------------------------------------------------------------

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise start.OptionError("started as one of several processes; start one, without torchrun")
    torch.backends.cudnn.benchmark = True  # crops have few shapes: their best kernels are kept
    if options.deterministic:
        start.make_deterministic()
    device = start.choose_device(options.device)
    precision = options.precision = start.choose_precision(options.precision, device)
    options.device = str(device)
    if device.type == "cpu":
        start.keep_memory()

    def autocast() -> torch.autocast:
        dtype = torch.float16 if precision == "fp16" else torch.bfloat16
        return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")

    log_folder = Path("log") / options.model_name
    for each in (log_folder, folder):
        start.check_writable(each)
    at_end.enter_context(checkpoint.only_run_in(folder))
    print(f"{options.model_name}: {options.model_backbone}, {precision} on {device}")
    kind, source = start.start_point(options)

    # ---- Data -----------------------------------------------------------------------------------

    folders = data_folders(options.dataset_name, options.dataset_dir, print)
    skip = options.on_bad_image == "skip"
    foregrounds, backgrounds = open_half(folders, "train", stop=not skip)
    valid_foregrounds, valid_backgrounds = open_half(folders, "valid", stop=not skip)
    data = {
        "train": describe(foregrounds, backgrounds),
        "valid": describe(valid_foregrounds, valid_backgrounds),
    }
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
    model = MattingBase(options.model_backbone)
    model = model.to(device, memory_format=start.LAYOUTS[device.type])
    optimizer = torch.optim.Adam(parameter_groups(model, options), **start.ADAM[device.type])
    scaler = loss_scaler(device, precision)
    start.check_room(folder, model)

    # ---- Start point: exactly one of resume, transfer, scratch ----------------------------------

    first_step, report = options.epoch_start * epoch_steps, None
    if kind == "resume":
        first_step = start.resume(source, model, optimizer, scaler, options, data, epoch_steps)
        source = source.path
    ahead = start.checkpoints_ahead(folder, source, first_step, epoch_steps, options)
    if kind == "transfer":
        report = start.initialise(model, source, options, log_folder)
    elif kind == "scratch":
        print("start: from scratch, all weights random")
    if options.dry_run:
        last_step = first_step + 1
    if first_step >= last_step:
        print(f"nothing to do: {first_step} steps are done; the limit is {last_step} ({limit})")
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
        MattingDataset(foregrounds, backgrounds, options.seed, options.dataset_pairing, skip=skip),
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
        MattingDataset(valid_foregrounds, valid_backgrounds, augmented=False, skip=skip),
        sampler=valid_keys[: options.batch_size] if options.dry_run else valid_keys,
        batch_size=options.batch_size,
        **loading,
    )
    if options.log_to == "wandb" and not options.dry_run:
        at_end.enter_context(wandb_run(log_folder, options))  # before there is a SummaryWriter
    journal = Journal(
        None if options.dry_run else log_folder, first_step, last_step, options.batch_size
    )
    at_end.callback(journal.close)
    saver = at_end.enter_context(Saver())
    update = Update(
        model, optimizer, scaler, clip=options.clip_grad_norm, precision=precision,
        folder=log_folder,
    )  # fmt: skip
    left_out = LeftOut(len(foregrounds), journal.say)
    valid_left_out = LeftOut(len(valid_foregrounds), journal.say)
    if not options.dry_run:
        summary, transferred = report or ("", None)
        facts = {"start": kind, "from": source and str(source), "steps_done": first_step}
        provenance.record(
            log_folder / "run.json", options, device, **facts, data=data, transfer=transferred
        )
        if kind == "transfer":
            journal.text("transfer", summary, first_step)

    def run_validation(step: int) -> None:
        with contextlib.closing(batches(valid_loader, valid_left_out)) as seen:
            results, shown = validate(model, stop.until(seen), device, autocast)
        if not stop.number:
            journal.validation(step, step // epoch_steps, results, shown)

    def save(step: int) -> None:
        update.settle()
        path = folder / checkpoint.checkpoint_name(step, epoch_steps)
        state = checkpoint.training_state(step, epoch_steps, options, data, optimizer, scaler)

        if ahead:
            saver.wait()  # for a first write of this run, whose files must not be taken for old
            start.put_aside(ahead)

        def then() -> None:
            stop.saved = path
            if not options.dry_run:
                journal.say(f"saved {path}")
            if ahead:  # only now, when there is something in their place
                removed = ", ".join(start.remove_replaced(folder))
                journal.say(f"removed {removed} of an earlier run (--overwrite)")
                ahead.clear()
            checkpoint.prune(folder, options.checkpoint_keep)

        saver.save(path, model.state_dict(), state, then)

    model.train()
    step = first_step
    try:
        if kind != "resume" and not options.dry_run:
            run_validation(first_step)
        stop.saves = True
        train_batches = at_end.enter_context(contextlib.closing(batches(loader, left_out)))
        for step, batch in enumerate(journal.watch(train_batches), first_step + 1):
            saver.check()
            torch.manual_seed(seed_of(options.seed, "dropout", step, 0))  # 0: the process's rank
            size = batch["size"]
            src, bgr, true_pha, true_fgr = augment(batch, device)

            with autocast():
                pred_pha, pred_fgr, pred_err, _ = model(src, bgr)
            terms = matting_loss(pred_pha, pred_fgr, pred_err, true_pha, true_fgr)

            update.backward(total(terms))
            update.step()
            update.watch(step, batch, terms)

            is_last = step == last_step
            if step % options.log_train_loss_interval == 0 or is_last:
                rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
                scale, norm = scaler.get_scale(), update.norm.item()
                journal.train_losses(step, terms, rates, gradient_scale=scale, gradient_norm=norm)
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
    except (MemoryError, RuntimeError) as error:
        error.crop = size  # for what is said where memory ran out
        raise
    if left_out.samples:
        journal.say(f"{len(left_out.seen)} bad pictures left out, in {left_out.samples} samples")
    saver.wait()
    stop.check()

    if options.dry_run:
        path = folder / checkpoint.checkpoint_name(step, epoch_steps)
        saved = checkpoint.read_checkpoint(path)
        checkpoint.load_weights(model, path, saved.weights, options.model_backbone)
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


@contextlib.contextmanager
def checkpoint_folder(options: argparse.Namespace) -> Iterator[Path]:
    """checkpoint/NAME; for a dry run one that is gone afterwards."""
    folder = Path("checkpoint")
    if not options.dry_run:
        yield folder / options.model_name
        return
    made = not folder.exists()
    folder.mkdir(exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".dry-run-", dir=folder) as temporary:
            yield Path(temporary)
    finally:
        if made:
            with contextlib.suppress(OSError):  # something has come into it meanwhile
                folder.rmdir()


def continuation(argv: list[str], options: argparse.Namespace, saved: Path | None) -> str:
    """How to go on with a run of `argv` that was stopped: from what it has saved, if anything."""
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
    return f"this start has saved nothing yet; to start again: {command}"


if __name__ == "__main__":
    sys.exit(main())
