"""How a run begins: from which weights, and with what in its way.

The options decide whether it is a resume, a transfer or from scratch; this does it and says so.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from common.cli import size_said
from common.errors import OptionError, UserError
from common.files import check_writable, write_bytes
from common.text import printable, tell
from model.download import torchvision_file
from model.load import kernel_size_of, matting_of
from model.sources import MATTING_REFINE, recognise
from model.transfer import TransferError, transfer
from model.weights_file import read_weights, weights_of_state
from training import checkpoint, locks
from training.checkpoint import FIRST_STAGE, Checkpoint, CheckpointError
from training.checkpoint_folder import CheckpointFolder
from training.data import Data
from training.options import RefineOptions, TrainingOptions
from training.run import Run, TrainingState
from training.same_run import GRID_WORDS, OTHER_NETWORK, differences
from training.saving import size_of

CHECKPOINTS = Path("checkpoint")
DRY_RUN_PREFIX = ".dry-run-"

# "resume" and a checkpoint, "transfer" and another network's file, or "scratch" and None.
Source = tuple[str, Checkpoint | Path | None]


@contextlib.contextmanager
def checkpoint_folder(options: TrainingOptions) -> Iterator[Path]:
    """checkpoint/NAME; for a dry run one that is gone afterwards. Removes those of dry runs that
    were killed."""
    for left in locks.remove_abandoned(CHECKPOINTS, DRY_RUN_PREFIX):
        tell(f"removed {left}, which a killed dry run left")
    if not options.dry_run:
        yield own_folder(options).path
        return
    made = not CHECKPOINTS.exists()
    CHECKPOINTS.mkdir(exist_ok=True)
    try:
        with locks.temporary_folder(CHECKPOINTS, DRY_RUN_PREFIX) as temporary:
            yield temporary
    finally:
        if made:
            with contextlib.suppress(OSError):  # something has come into it meanwhile
                CHECKPOINTS.rmdir()


def own_folder(options: TrainingOptions) -> CheckpointFolder:
    """The one that the run's name stands for; a dry run reads it, too, and writes into another."""
    return CheckpointFolder(CHECKPOINTS / options.model_name)


def check_room(folder: Path, model: torch.nn.Module) -> None:
    """Raises OptionError where not even one checkpoint would fit: weights, and twice the
    parameters for Adam's moments."""
    needed = size_of(model.state_dict()) + 2 * size_of(list(model.parameters()))
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OptionError(
            f"a checkpoint takes {size_said(needed)}, and {size_said(free)} are free in "
            f"{folder}; make room, or start where there is some"
        )


@dataclass
class Start:
    """What a start brings beside the weights, as every process has to know it."""

    kind: str  # resume, transfer or scratch
    source: Path | None
    first_step: int  # completed steps
    best: dict[str, float] | None = None  # step and MAD of the best validation so far
    transferred: tuple[str, dict] | None = None  # as text, and for run.json
    to_replace: tuple[Path, ...] = ()  # checkpoints that are in the way, to go by --overwrite

    @property
    def resumed(self) -> bool:
        return self.kind == "resume"


def look_ahead(run: Run) -> Source:
    """Finds out what would be in the way, before anything takes time: holds the folders of the run,
    and returns where its weights come from, in the main process. Raises what its parts raise."""

    def look() -> Source:
        options, team = run.options, run.team
        for each in (run.log_folder, run.checkpoints.path):
            check_writable(each)
        run.enter(run.checkpoints.held())
        several = f", {team.size} processes" if team.size > 1 else ""
        what = f"{options.model_backbone}, {run.settings.precision} on {run.device}{several}"
        print(f"{options.model_name}: {what}")
        return source_of(options)

    return run.team.run_on_all(lambda: look() if run.team.is_main else ("", None))


def start_run(run: Run, state: TrainingState, data: Data, source: Source) -> Start:
    """Carries out exactly one of resume, transfer, scratch: what `source` says, as look_ahead gives
    it. The main process alone reads files; what it has read goes to all. Sets run.step and
    state.best, and the last step of a dry run. Raises what its parts raise."""
    team = run.team
    start = team.run_on_main(lambda: _start(run, state, data, *source))
    if team.size > 1:
        team.broadcast(list(state.model.state_dict().values()))
        team.broadcast_optimizer(state.optimizer)
        state.scaler.load_state_dict(team.run_on_main(state.scaler.state_dict))
    run.step, state.best = start.first_step, start.best
    if run.options.dry_run:
        data.last_step = run.step + 1
    return start


def _start(
    run: Run, state: TrainingState, data: Data, kind: str, source: Checkpoint | Path | None
) -> Start:
    check_room(run.checkpoints.path, state.model)
    epoch_steps = data.epoch_steps
    first_step, best, report = run.options.epoch_start * epoch_steps, None, None
    if isinstance(source, Checkpoint):
        first_step = resume(source, state, run.options, run.recorded, data.described, epoch_steps)
        best = (source.state or {}).get("best")
        source = source.path
    to_replace = in_the_way(kind, run.checkpoints, source, first_step, epoch_steps, run.options)
    if kind == "transfer" and source:
        report = initialise(state.model, source, run.options, run.log_folder)
    elif kind == "scratch":
        print("start: from scratch, all weights random")
        if run.options.stage != FIRST_STAGE:
            tell(
                "warning: the base network is random, too; --model-pretrain-initialization "
                "checkpoint/NAME/best.pth begins with that of a run of train_base.py"
            )
    if to_replace:
        best = None  # what it was may be of what is replaced
    return Start(kind, source, first_step, best, report, tuple(to_replace))


def source_of(options: TrainingOptions) -> Source:
    """Where the weights come from: ("resume", a checkpoint), ("transfer", file of another network)
    or ("scratch", None). A checkpoint wins over an initialisation, which need not be there then. A
    state file stands for the weights beside it. Raises OptionError where there is no such file,
    CheckpointError and WeightsFileError where a checkpoint is not intact."""
    last, initial = options.model_last_checkpoint, options.model_pretrain_initialization
    last, initial = last and weights_of_state(last), initial and weights_of_state(initial)
    if last and last != Path("auto"):
        _must_exist(last)
    found = None
    if last == Path("auto"):
        folder = own_folder(options)
        found = folder.newest_intact(set_aside=not options.dry_run)
        if found is None:
            print(f"no checkpoint in {folder.path} yet: this is a fresh start")
    elif last:
        found = checkpoint.read_checkpoint(last)
    if found and (options.stage, checkpoint.stage_of(found)) == ("refine", "base"):
        if last == Path("auto"):
            raise other_stage(found)
        tell(f"{found.path} is of the base stage: this stage begins with its weights")
        if initial:
            tell(f"{initial} is not transferred: --model-last-checkpoint is in its place")
        return "transfer", found.path
    if found is None:
        if initial and initial != Path("torchvision"):
            _must_exist(initial)
        return ("transfer", initial) if initial else ("scratch", None)
    if initial:
        tell(f"{initial} is not transferred: the run continues from {found.path}")
    return "resume", found


def other_stage(found: Checkpoint) -> OptionError:
    """What is wrong with a run's name where its folder holds checkpoints of another stage."""
    stage = checkpoint.stage_of(found)
    begin = f", and begin with --model-pretrain-initialization {found.path}"
    return OptionError(
        f"{found.path.parent} holds the checkpoints of a run of the {stage} stage, up to "
        f"{found.path.name}; choose another --model-name{begin if stage == FIRST_STAGE else ''}"
    )


def _must_exist(path: Path) -> None:
    if not path.exists():
        raise OptionError(f"there is no file {path}; check the path")


def resume(
    found: Checkpoint,
    now: TrainingState,
    options: TrainingOptions,
    recorded: dict[str, Any],
    data: dict[str, dict],
    epoch_steps: int,
) -> int:
    """Loads a checkpoint strictly into `now`. Returns the number of completed steps that it stands
    for. Without a state file (a weights file of elsewhere) the optimizer starts afresh, after as
    many steps as the name says where it lies in the run's own folder. recorded: the options as Run
    records them. data: what folders.describe says of each split. Raises CheckpointError where it
    does not fit, or is of another run and --resume-anyway is not given."""
    path, state = found.path, found.state
    if state is not None:
        stage = checkpoint.stage_of(found)
        if stage != options.stage:
            raise CheckpointError(
                f"{path} is a checkpoint of the {stage} stage, and this trains the {options.stage} "
                f"stage; continue it with train_{stage}.py, or give one of {options.stage}"
            )
        others, notes = differences(state, recorded, data)
        if others and not options.resume_anyway:
            ways = []
            if not all(GRID_WORDS in each for each in others):  # which no option gives back
                ways.append("type (or put back) what it was")
            if not any(each.startswith(OTHER_NETWORK) for each in others):
                ways.append("add --resume-anyway to go on with what it is now")
            to_type = ", or ".join(ways)
            raise CheckpointError(f"{path} is of another run: {'; '.join(others)}; {to_type}")
        for each in others:
            tell(f"warning: {each} (--resume-anyway)")
        for each in notes:
            tell(f"note: {each}")
    checkpoint.load_weights(now.model, path, found.weights, options.model_backbone)
    if state is None:
        step = options.epoch_start * epoch_steps
        own = own_folder(options).path.resolve()
        if not step and path.resolve().parent == own:
            step = checkpoint.steps_of(path.resolve().name, epoch_steps)
        tell(
            f"start: weights of {path}; there is no {checkpoint.state_path(path).name} beside it, "
            f"so the optimizer starts afresh, at step {step + 1} (--epoch-start sets the epoch)"
        )
        return step
    groups = zip(state["optimizer"]["param_groups"], now.optimizer.param_groups, strict=True)
    for saved, own_group in groups:
        # Learning rates are the command line's; how Adam is computed, this machine's.
        saved.update({name: value for name, value in own_group.items() if name != "params"})
    now.optimizer.load_state_dict(state["optimizer"])
    for parameter, moments in now.optimizer.state.items():
        for name, value in moments.items():
            if value.shape == parameter.shape:  # laid out alike, as fused Adam takes for granted
                moments[name] = torch.empty_like(parameter).copy_(value)
    if state["scaler"] and recorded["precision"] == "fp16":
        now.scaler.load_state_dict(state["scaler"])
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
    tell(f"start: continuing {path} at step {step + 1}")
    return step


def initialise(model, path: Path, options: TrainingOptions, log_folder: Path) -> tuple[str, dict]:
    """Transfers what fits of another network's checkpoint; prints, writes and returns what that
    was, as text and as a dict."""
    if path == Path("torchvision"):
        path = torchvision_file(options.model_backbone)
    weights = read_weights(path)
    check_stage(path, weights.state_dict, options)
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
    for note in weights.notes:
        tell(f"note: {note}")
    summary = f"{printable(path)}{where}, SHA-256 {found['sha256']}\n{report.table()}"
    print(f"start: {summary}")
    result = found | report.as_dict()
    if not options.dry_run:  # which must not replace the report of a run of this name
        content = json.dumps(result, indent=1) + "\n"
        write_bytes(log_folder / "transfer.json", content.encode())
    return summary, {name: result[name] for name in ("file", "sha256", "source", "stem", "modules")}


def check_stage(path: Path, weights: dict[str, torch.Tensor], options: TrainingOptions) -> None:
    """Raises TransferError where `weights` are of MattingRefine, and do not fit this stage or its
    refiner."""
    entries, _ = matting_of(weights)
    if recognise(entries) is not MATTING_REFINE or options.model_pretrain_partial:
        return
    if not isinstance(options, RefineOptions):
        raise TransferError(
            f"{path} is of MattingRefine: train_refine.py goes on with it; to train its base "
            "network alone, type --model-pretrain-partial"
        )
    if (theirs := kernel_size_of(entries)) != options.model_refine_kernel_size:
        raise TransferError(
            f"{path} has a refiner with kernels of {theirs}x{theirs}; type "
            f"--model-refine-kernel-size {theirs}"
        )


def in_the_way(
    kind: str,
    folder: CheckpointFolder,
    source: Path | None,
    first_step: int,
    epoch_steps: int,
    options: TrainingOptions,
) -> list[Path]:
    """The checkpoints in `folder` that are in the way of this run: those that lie ahead of the one
    it continues, or all, where it continues none of them. Raises OptionError where there are some
    and they may not be removed, or the file to transfer from is one of them."""
    continues_own = source is not None and folder.has(source)
    is_best = source is not None and source.resolve() == folder.best.resolve()
    if kind == "transfer" and (continues_own or is_best):
        raise OptionError(
            f"{source} is of the run {options.model_name}, whose checkpoints this one would write "
            "over; choose another --model-name"
        )
    found = folder.ahead(first_step, epoch_steps) if continues_own else folder.checkpoints()
    if not continues_own:
        check_own(found, options)
    if found and not options.overwrite:
        raise OptionError(
            f"{folder.path} already holds {len(found)} checkpoint(s) ahead of this start, up to "
            f"{found[-1].name}; continue them with --model-last-checkpoint auto, choose another "
            "--model-name, or remove them with --overwrite"
        )
    if found and folder.best.exists():
        found.append(folder.best)
    return [path for path in found if not source or path.resolve() != source.resolve()]


def check_own(found: list[Path], options: TrainingOptions) -> None:
    """Raises OptionError where the newest intact one of `found`, of this run's name, is of another
    stage, whose run would be lost."""
    for path in reversed(found):
        try:
            newest = checkpoint.read_checkpoint(path)
        except UserError:  # it is damaged, or no checkpoint of ours
            continue
        if checkpoint.stage_of(newest) not in (None, options.stage):
            raise other_stage(newest)
        return
