"""How a run begins: on which device, from which weights, and with what in its way.

Which of the three starts it is decides train_base.py; this carries it out and says what it did.
"""

import argparse
import json
import os
from pathlib import Path

import torch

from model.download import torchvision_file
from model.transfer import TransferError, transfer
from model.weights_file import read_weights
from training import checkpoint


class OptionError(ValueError):
    """Options that do not go with this machine or with what lies in the run's folders."""


def choose_device(name: str) -> torch.device:
    """The torch.device that --device asks for. Raises OptionError where it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("neither cpu nor cuda")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise OptionError(f"--device {name} cannot be used here ({reason}); try cpu") from None
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def choose_precision(precision: str | None, device: torch.device) -> str:
    if precision is None:
        return "fp16" if device.type == "cuda" else "fp32"
    if precision == "fp16" and device.type != "cuda":
        raise OptionError(f"--precision fp16 needs CUDA, not {device}; type bf16 or fp32")
    return precision


def check_writable(folder: Path) -> None:
    """Raises OptionError where `folder` could not be made or written into."""
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise OptionError(f"{folder} cannot be made: {existing} is a file; move it away")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OptionError(f"{folder} cannot be written: no permission in {existing.resolve()}")


def resume(
    path: Path, model, optimizer, scaler, options: argparse.Namespace, epoch_steps: int
) -> int:
    """Loads a checkpoint strictly. Returns the number of completed steps that it stands for.
    Without a state file (a weights file of elsewhere) the optimizer starts afresh, after as many
    steps as the name says where it lies in the run's own folder."""
    checkpoint.load_weights(model, path, options.model_backbone)
    state = checkpoint.load_state(path, model.state_dict())
    if state is None:
        step = options.epoch_start * epoch_steps
        own = (Path("checkpoint") / options.model_name).resolve()
        if not step and path.resolve().parent == own:
            step = checkpoint.steps_of(path.resolve().name, epoch_steps)
        print(
            f"start: weights of {path}; there is no {checkpoint.state_path(path).name} beside it, "
            f"so the optimizer starts afresh, at step {step + 1} (--epoch-start sets the epoch)"
        )
        return step
    fresh = [{**group, "params": None} for group in optimizer.param_groups]
    optimizer.load_state_dict(state["optimizer"])
    for group, options_now in zip(optimizer.param_groups, fresh, strict=True):
        # Learning rates are the command line's; how Adam is computed, this machine's.
        group.update({**options_now, "params": group["params"]})
    if state["scaler"]:  # empty where the run did not scale
        scaler.load_state_dict(state["scaler"])
    for name, (before, now) in checkpoint.changed_options(state, options).items():
        print(f"note: {name} was {before} when {path} was saved and is {now} now")
    step = state["step"]
    if state["steps_per_epoch"] != epoch_steps:
        # To the end of the epoch, so that what comes is named behind what is there.
        step = -(-step // state["steps_per_epoch"]) * epoch_steps
        print(
            f"note: an epoch had {state['steps_per_epoch']} steps and has {epoch_steps} now: step "
            f"{state['step']} counts as {step}, where the next epoch begins"
        )
    if options.epoch_start and options.epoch_start != step // epoch_steps:
        print(f"note: --epoch-start {options.epoch_start} is not used: the state file knows better")
    print(f"start: continuing {path} at step {step + 1}")
    return step


def initialise(model, path: Path, options: argparse.Namespace, log_folder: Path) -> str:
    """Transfers what fits of another network's checkpoint; prints, writes and returns what that
    was."""
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
    if not options.dry_run:  # which must not replace the report of a run of this name
        log_folder.mkdir(parents=True, exist_ok=True)
        content = json.dumps(found | report.as_dict(), indent=1)
        (log_folder / "transfer.json").write_text(content + "\n")
    return summary


def checkpoints_ahead(
    folder: Path,
    first_step: int,
    epoch_steps: int,
    options: argparse.Namespace,
) -> list[Path]:
    """The checkpoints in `folder` that lie ahead of the start point, where this run would write.
    Raises OptionError where there are some and they may not be removed."""
    here = checkpoint.progress_at(first_step, epoch_steps)
    ahead = [
        path
        for path in checkpoint.find_checkpoints(folder)
        if checkpoint.progress_of(path.name) > here
    ]
    if ahead and not options.overwrite:
        raise OptionError(
            f"{folder} already holds {len(ahead)} checkpoint(s) ahead of this start, up to "
            f"{ahead[-1].name}; continue them with --model-last-checkpoint auto, choose another "
            "--model-name, or remove them with --overwrite"
        )
    return ahead


def remove(path: Path, kept: tuple[Path | None, ...]) -> None:
    """Removes a checkpoint, both of its files, unless it is one of those to keep."""
    if path.resolve() not in [other.resolve() for other in kept if other]:
        path.unlink(missing_ok=True)
        checkpoint.state_path(path).unlink(missing_ok=True)
        print(f"removed {path} (--overwrite)")
