"""Trains MattingBase: options, machine, data, model, start point, loop, read from top to bottom.

python train_base.py --model-backbone resnet50 --model-pretrain-initialization deeplab.pth
python train_base.py --model-backbone resnet50 --model-last-checkpoint auto
"""

import argparse
import contextlib
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

from common.loading import loading
from common.streams import lasting_streams
from common.text import printable, tell
from training.options import parse_options
from training.signals import Stopped, StopRequest, continuation


@lasting_streams()
@loading("train_base.py")
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
        lost = ": what was trained since the last checkpoint is lost" if stop.saves else ""
        told = f"stopped at once{lost}; "
    else:
        told = ""
    sys.stdout.flush()  # where both go to one file, the last line is to be the last
    if status and (told or stop.saved) and not stop.quiet:
        print(told + continuation(argv, options, stop.saved), file=sys.stderr)
    return status


def run(options: argparse.Namespace, stop: StopRequest) -> int:
    # torch takes seconds to import: only now, so that --help need not wait for it.
    from dataset.images import DataError
    from model.transfer import TransferError
    from model.weights_file import WeightsFileError
    from training.checkpoint import CheckpointError
    from training.distributed import ContactError, ElsewhereError, contact_lost
    from training.memory import MemoryShortError, memory_short
    from training.options import OptionError
    from training.start import checkpoint_folder
    from training.update import DivergedError

    try:
        with checkpoint_folder(options) as folder, contextlib.ExitStack() as at_end:
            try:
                train(options, folder, stop, at_end)
            except (MemoryError, RuntimeError) as error:
                known = memory_short(error, options) or contact_lost(error)
                if known:
                    raise known from None
                raise
    except (
        OptionError, DataError, TransferError, WeightsFileError, CheckpointError, DivergedError,
        MemoryShortError, ContactError, ElsewhereError, OSError,
    ) as error:  # fmt: skip
        sys.stdout.flush()
        print(f"train_base.py: error: {printable(error)}", file=sys.stderr)
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
    from dataset.images import DataError
    from dataset.matting import (
        LeftOut,
        MattingDataset,
        batches,
        begin_worker,
        collate,
        grouped,
        validation_keys,
    )
    from dataset.sampler import BatchSampler, places_of, seed_of, steps_per_epoch
    from model import MattingBase
    from training import checkpoint, distributed, machine, provenance, start
    from training.batch_norm import over_all_processes
    from training.journal import Journal, batch_picture
    from training.loss import matting_loss
    from training.output import check_writable
    from training.saving import Saver
    from training.update import Update, loss_scaler
    from training.validation import pictures, validate
    from training.wandb_sync import wandb_run

    # ---- Machine --------------------------------------------------------------------------------

    team = distributed.join(options)
    stop.quiet = not team.is_first
    device, share = team.each(lambda: machine.settle(options, team))
    team = distributed.with_device(team, device, options)
    autocast = machine.autocast(device, options.precision)
    say = tell if team.is_first else (lambda _line: None)
    log_folder = Path("log") / options.model_name

    def look_ahead() -> tuple[str, Any]:
        for each in (log_folder, folder):
            check_writable(each)
        at_end.enter_context(checkpoint.only_run_in(folder))
        several = f", {team.size} processes" if team.size > 1 else ""
        what = f"{options.model_backbone}, {options.precision} on {device}{several}"
        print(f"{options.model_name}: {what}")
        return start.start_point(options)

    kind, source = team.each(lambda: look_ahead() if team.is_first else ("", None))

    # ---- Data -----------------------------------------------------------------------------------

    halves, data = start.open_data(options, team, say)
    (foregrounds, backgrounds), (valid_foregrounds, valid_backgrounds) = halves.values()
    epoch_steps = steps_per_epoch(len(foregrounds), options.batch_size)
    last_step, limit = options.epoch_end * epoch_steps, f"--epoch-end {options.epoch_end}"
    if options.max_steps and options.max_steps < last_step:
        last_step, limit = options.max_steps, f"--max-steps {options.max_steps}"
    say(
        f"data: {len(foregrounds)} foregrounds and {len(backgrounds)} backgrounds to train on, "
        f"{len(valid_foregrounds)} and {len(valid_backgrounds)} to validate on; "
        f"{epoch_steps} steps an epoch, the last step is {last_step} ({limit})"
    )

    # ---- Model, and start point: exactly one of resume, transfer, scratch -----------------------

    torch.manual_seed(options.seed)
    model = MattingBase(options.model_backbone)
    layout = machine.LAYOUTS[device.type]
    model = model.to(device).to(memory_format=layout)
    if options.sync_batchnorm and team.tensors:
        over_all_processes(model, team.tensors)
    optimizer = torch.optim.Adam(
        start.parameter_groups(model, options), **machine.ADAM[device.type]
    )
    scaler = loss_scaler(device, options.precision)

    def begin() -> start.Begun:
        parts = model, optimizer, scaler
        return start.begin(kind, source, *parts, options, data, epoch_steps, folder, log_folder)

    begun = start.begin_together(team, begin, model, optimizer, scaler)
    first_step, best = begun.first_step, begun.best
    forward = team.wrap(model)
    if options.dry_run:
        last_step = first_step + 1
    if first_step >= last_step:
        say(f"nothing to do: {first_step} steps are done; the limit is {last_step} ({limit})")
        return

    # ---- Loop -----------------------------------------------------------------------------------

    skip = options.on_bad_image == "skip"
    parts = range(team.rank * options.accumulate, (team.rank + 1) * options.accumulate)
    of_parts = team.size * options.accumulate
    size = (options.crop_size[1],) * 2
    valid_keys = validation_keys(len(valid_foregrounds), len(valid_backgrounds), 50, size)
    if options.dry_run:
        valid_keys = valid_keys[: options.batch_size]
    loading = {
        "num_workers": options.num_workers,
        "collate_fn": collate,
        "pin_memory": device.type == "cuda",
        "worker_init_fn": partial(begin_worker, on_gpu=device.type == "cuda"),
    }
    loader = DataLoader(
        MattingDataset(foregrounds, backgrounds, options.seed, options.dataset_pairing, skip=skip),
        batch_sampler=BatchSampler(
            first_step,
            last_step,
            parts,
            of_parts,
            count=len(foregrounds),
            batch_size=options.batch_size,
            seed=options.seed,
            crop_size=tuple(options.crop_size),
        ),
        **loading,
    )
    valid_loader = DataLoader(
        MattingDataset(valid_foregrounds, valid_backgrounds, augmented=False, skip=skip),
        sampler=team.share_of(valid_keys),
        batch_size=share,
        **loading,
    )
    if options.log_to == "wandb" and team.is_first and not options.dry_run:
        at_end.enter_context(wandb_run(log_folder, options))  # before there is a SummaryWriter
    journal = Journal(
        log_folder if team.is_first and not options.dry_run else None,
        first_step,
        last_step,
        options.batch_size,
        prefix="" if team.is_first else f"process {team.rank}: ",
        device=device,
    )
    at_end.enter_context(journal)
    saver = at_end.enter_context(Saver(device))
    update = Update(
        model, optimizer, scaler, clip=options.clip_grad_norm, precision=options.precision,
        folder=log_folder, team=team,
    )  # fmt: skip
    left_out = LeftOut(len(foregrounds), journal.say)
    valid_left_out = LeftOut(len(valid_foregrounds), journal.say)
    if team.is_first and not options.dry_run:
        provenance.record(log_folder / "run.json", options, device, begun, data)
        if begun.transferred:
            journal.text("transfer", begun.transferred[0], first_step)

    def run_validation(step: int) -> bool:
        """Whether its result is the best so far."""
        nonlocal best
        with contextlib.closing(batches(valid_loader, valid_left_out)) as seen:
            results, shown, count = validate(
                model, stop.until(seen), device, autocast, team, options.valid_conn
            )
        if count < len(valid_keys):  # asked to stop
            return False
        journal.validation(step, step // epoch_steps, results, shown)
        if step == first_step or (best and best["mad"] <= results["mad"]):
            return False
        best = {"step": step, "mad": results["mad"]}
        return True

    def save(step: int, due: bool = True, is_best: bool = False) -> None:
        update.settle()
        if not team.is_first:
            return
        ahead = begun.ahead
        if ahead and saver.failed():  # a first write of this run must not be taken for an old one
            return
        due = due or bool(ahead)
        path = folder / checkpoint.checkpoint_name(step, epoch_steps) if due else None
        state = checkpoint.training_state(step, epoch_steps, options, data, optimizer, scaler, best)
        if ahead:
            start.put_aside(ahead)
        if is_best and not begun.best:
            checkpoint.rename_aside(folder / checkpoint.BEST)  # of a start that is not continued
        begun.best = best

        def then() -> None:
            if due:
                stop.saved = path
            if not options.dry_run:
                journal.say(f"saved {path}" if due else f"saved {folder / checkpoint.BEST}")
            if ahead:  # only now, when there is something in their place
                removed = ", ".join(start.remove_replaced(folder))
                journal.say(f"removed {removed} of an earlier run (--overwrite)")
                ahead.clear()
            checkpoint.prune(folder, options.checkpoint_keep)

        best_path = folder / checkpoint.BEST if is_best else None
        saver.save(path, model.state_dict(), state, then, best_path)

    model.train()
    step = first_step
    try:
        if begun.kind != "resume" and not options.dry_run:
            run_validation(first_step)
        stop.saves = True
        train_batches = at_end.enter_context(contextlib.closing(batches(loader, left_out)))
        steps = journal.watch(grouped(train_batches, options.accumulate))
        for step, of_step in enumerate(
            team.lockstep(steps, stop, saver.check, left_out), first_step + 1
        ):
            for part, batch in zip(parts, of_step, strict=True):
                size, places = batch["size"], places_of(part, of_parts, options.batch_size)
                model.seed_dropout([seed_of(options.seed, "dropout", step, at) for at in places])
                src, bgr, true_pha, true_fgr = augment(batch, device, layout)
                with distributed.averaging(forward, last=part == parts[-1]):
                    with autocast():
                        pred_pha, pred_fgr, pred_err, _ = forward(src, bgr, hid=False)
                    terms = matting_loss(pred_pha, pred_fgr, pred_err, true_pha, true_fgr)
                    update.backward(terms, options.accumulate)
            update.step()
            update.watch(step, of_step)

            is_last = step == last_step
            if step % options.log_train_loss_interval == 0 or is_last:
                rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
                scale, norm = scaler.get_scale(), update.norm.item()
                journal.train_losses(
                    step, update.terms, rates, gradient_scale=scale, gradient_norm=norm
                )
            if step % options.log_train_images_interval == 0:
                journal.train_pictures(
                    step, pictures(src, bgr, true_pha, true_fgr, pred_pha, pred_fgr, pred_err)
                )
            is_best = (step % options.log_valid_interval == 0 or is_last) and run_validation(step)
            due = step % options.checkpoint_interval == 0 or step % epoch_steps == 0 or is_last
            if due or is_best:
                save(step, due, is_best)
        if stop.number and step > first_step and not due:
            save(step)
    except (DataError, distributed.ElsewhereError):
        if step > first_step:  # a bad picture: what was trained before it is kept
            save(step)
        raise
    except (MemoryError, RuntimeError) as error:
        # For what is said where memory or contact is lost.
        error.crop, error.step = size, step  # type: ignore[union-attr]
        raise
    if left_out.samples:
        journal.say(f"{len(left_out.seen)} bad pictures left out, in {left_out.samples} samples")
    team.each(saver.wait)
    stop.check()

    if options.dry_run and team.is_first:
        path = folder / checkpoint.checkpoint_name(step, epoch_steps)
        saved = checkpoint.read_checkpoint(path)
        checkpoint.load_weights(model, path, saved.weights, options.model_backbone)
        log_folder.mkdir(parents=True, exist_ok=True)
        shown = pictures(src, bgr, true_pha, true_fgr, pred_pha, pred_fgr, pred_err)
        batch_picture(log_folder / "batch.png", shown)
        print(f"dry run: every part works; look at {log_folder / 'batch.png'}")
    team.leave()


if __name__ == "__main__":
    sys.exit(main())
