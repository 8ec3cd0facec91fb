"""What all parts of one start share: the machine, the processes, the folders, how far it is.

`open_run` sets it up and, at the end, closes what was entered; it says what memory that ran out or
a lost process has to do with the run. It knows no network and no loss.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from common import machine
from common.signals import StopRequest
from common.text import tell
from training import team as distributed
from training.batch_norm import over_all_processes
from training.checkpoint_folder import CheckpointFolder
from training.guarded_optimizer import GuardedOptimizer, loss_scaler
from training.memory import memory_short
from training.options import TrainingOptions
from training.resolve import Settings, resolve_options
from training.team import Team, contact_lost

T = TypeVar("T")
Network = TypeVar("Network", bound=nn.Module)
LOG = Path("log")
RECORDED = ("precision", "num_workers", "processes", "sync_batchnorm")


@dataclass
class TrainingState:
    """What a step changes and a checkpoint keeps. best: step and MAD of the best validation so
    far."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    best: dict[str, float] | None = None


class Run:
    """One start of a training, seen by one of its processes.

    options: as typed. settings: what the machine makes of those that were left open. folder: of the
    checkpoints; log_folder: of all else that is written. micro_batches: the numbers of this
    process's parts of a step, of micro_batch_count.

    step: completed optimizer updates, or the one at hand. crop: height and width of the batch at
    hand; None before the first.
    """

    def __init__(
        self,
        options: TrainingOptions,
        settings: Settings,
        stop: StopRequest,
        folder: Path,
        exit_stack: contextlib.ExitStack,
        team: Team,
    ) -> None:
        self.options, self.settings, self.stop = options, settings, stop
        self.checkpoints = CheckpointFolder(folder)
        self.log_folder = LOG / options.model_name
        self.team, self.device = team, settings.device
        self.layout = machine.LAYOUTS[self.device.type]
        self.autocast = machine.autocast(self.device, settings.precision)
        count = options.accumulate
        self.micro_batches = range(team.rank * count, (team.rank + 1) * count)
        self.micro_batch_count = team.size * count
        self.say: Callable[[str], None] = tell if team.is_main else (lambda _line: None)
        self.step = 0
        self.crop: tuple[int, int] | None = None
        self._exit_stack = exit_stack

    @property
    def writes(self) -> bool:
        """Whether this process keeps a log: the main one does, but in a dry run."""
        return self.team.is_main and not self.options.dry_run

    @property
    def recorded(self) -> dict[str, Any]:
        """The options by name, with what the machine has made of them: what is written down."""
        settings = {name: getattr(self.settings, name) for name in RECORDED}
        return vars(self.options) | settings | {"device": str(self.device)}

    def enter(self, context: contextlib.AbstractContextManager[T]) -> T:
        """Enters `context`, which is left when the run ends: the newest first."""
        return self._exit_stack.enter_context(context)

    def place(self, make: Callable[[], Network]) -> Network:
        """The network that `make` gives, its random weights drawn by the seed, on the device and
        laid out for it."""
        torch.manual_seed(self.options.seed)
        model = make().to(self.device).to(memory_format=self.layout)
        if self.settings.sync_batchnorm and self.team.device_group:
            over_all_processes(model, self.team.device_group)
        return model

    def training_state(self, model: nn.Module, **learning_rates: float) -> TrainingState:
        """With Adam for the parts of `model` that are named, each with its learning rate."""
        groups = parameter_groups(model, **learning_rates)
        optimizer = torch.optim.Adam(groups, **machine.ADAM_ARGUMENTS[self.device.type])
        return TrainingState(model, optimizer, loss_scaler(self.device, self.settings.precision))

    def guard(self, state: TrainingState) -> GuardedOptimizer:
        """What moves the weights of `state` in this run."""
        return GuardedOptimizer(
            state.model,
            state.optimizer,
            state.scaler,
            clip=self.options.clip_grad_norm,
            precision=self.settings.precision,
            folder=self.log_folder,
            accumulate=self.options.accumulate,
            team=self.team,
        )


def parameter_groups(model: nn.Module, **learning_rates: float) -> list[dict]:
    """Returns what an optimizer takes: a group for each part of `model` that is named, with its
    learning rate. Every parameter has to be in one of them."""
    groups: list[dict] = [
        {"name": name, "params": list(model.get_submodule(name).parameters()), "lr": rate}
        for name, rate in learning_rates.items()
    ]
    grouped = [parameter for group in groups for parameter in group["params"]]
    assert len(grouped) == len(list(model.parameters())), "parameters without a learning rate"
    return groups


@contextlib.contextmanager
def open_run(options: TrainingOptions, stop: StopRequest, folder: Path) -> Iterator[Run]:
    """The run of `options`, whose checkpoints go to `folder`. At its end, closes what was entered.
    Raises MemoryShortError and ContactError in place of the errors that they stand for, and what
    the parts raise."""
    run, settings = None, None
    with contextlib.ExitStack() as exit_stack:
        try:
            team = distributed.join(options)
            stop.silent = not team.is_main
            settings = team.run_on_all(lambda: resolve_options(options, team))
            team = distributed.with_device(team, settings.device, options)
            run = Run(options, settings, stop, folder, exit_stack, team)
            yield run
            team.close()
        except (MemoryError, RuntimeError) as error:
            crop, step = (run.crop, run.step) if run else (None, 0)
            if known := memory_short(error, options, settings, crop) or contact_lost(error, step):
                raise known from None
            raise
