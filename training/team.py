"""One process or many: torchrun's environment, read once, and what its processes agree on.

With one process nothing of torch.distributed is started, and every call here is the identity. It
never decides anything of the training.
"""

import argparse
import contextlib
import ctypes
import inspect
import os
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from common.errors import DataError, UserError
from training.launchers import under_torchrun

T = TypeVar("T")
DEFAULT_TIMEOUTS_S = (300, 120)  # in which every process must answer: in start-up, in training
# What torch says where a process is gone or does not answer: gloo's words, and NCCL's.
LOST_CONTACT_PHRASES = (
    "peer",
    "Timed out",
    "timed out",
    "timeout",
    "Broken pipe",
    "gloo",
    "Gloo",
    "NCCL",
)


class ElsewhereError(UserError, RuntimeError):
    """Another process of this run has failed; it says itself why."""


class ContactError(UserError, RuntimeError):
    """Another process is gone or does not answer; the message says when that was found."""


@dataclass(frozen=True)
class Team:
    """The processes of a run, seen by one of them.

    rank: its number of `size`; local_rank: its number on this machine. host_group: a group on the
    host for short words, whose timeout is training's. device_group: the device's group. None where
    torchrun has not started this.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    host_group: dist.ProcessGroup | None = None
    device_group: dist.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and talks."""
        return self.rank == 0

    # ---- What all of them learn -----------------------------------------------------------------

    def sum_counts(self, numbers: list[int]) -> list[int]:
        """The sum of each number over the processes."""
        if self.size == 1:
            return numbers
        total = torch.tensor(numbers)
        dist.all_reduce(total, group=self.host_group)
        return total.tolist()

    def gather(self, value: Any) -> list[Any]:
        """Everyone's value, by rank; start-up and errors may take their time for it."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def run_on_all(self, work: Callable[[], T]) -> T:
        """The result of `work` in this process, when it has succeeded in all of them. Otherwise
        raises: its own error in the first that failed, ElsewhereError in the others."""
        result: T | None = None
        error: Exception | None = None
        try:
            result = work()
        except Exception as raised:
            error = raised
        failed = [rank for rank, bad in enumerate(self.gather(error is not None)) if bad]
        if failed and failed[0] == self.rank:
            assert error is not None
            raise error
        if failed:
            raise ElsewhereError(f"process {failed[0]} has failed")
        return cast(T, result)

    def run_on_main(self, work: Callable[[], T]) -> T:
        """The result of `work` in the main process, which alone does it, sent to all."""
        result = self.run_on_all(lambda: work() if self.is_main else None)
        if self.size > 1:
            sent = [result]
            dist.broadcast_object_list(sent)
            result = sent[0]
        return cast(T, result)

    def check_same(self, what: str, value: Any) -> None:
        """Raises DataError in the main process, ElsewhereError in the others, where `value` is
        not the same in all of them."""
        values = self.gather(value)

        def compare() -> None:
            others = [rank for rank, each in enumerate(values) if each != values[0]]
            if others:
                raise DataError(
                    f"{what}: process 0 has {values[0]}, but process {others[0]} has "
                    f"{values[others[0]]}; give all machines the same"
                )

        self.run_on_all(lambda: compare() if self.is_main else None)

    # ---- Tensors --------------------------------------------------------------------------------

    def all_reduce_mean(self, tensor: Tensor) -> Tensor:
        """Over the processes, in place; nothing waits for the device."""
        self.all_reduce_sum(tensor)
        if self.size > 1:
            tensor /= self.size
        return tensor

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """The sum over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor, group=self.device_group)
        return tensor

    def broadcast(self, tensors: list[Tensor]) -> None:
        """Gives everyone the main process's tensors, in place."""
        for tensor in tensors if self.size > 1 else ():
            dist.broadcast(tensor, 0, group=self.device_group)

    def broadcast_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Gives everyone the moments that the main process has read, if it has."""
        if not self.run_on_main(lambda: bool(optimizer.state)):
            return
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                moments = optimizer.state[parameter]
                for name in ("step", "exp_avg", "exp_avg_sq"):
                    like = parameter if name != "step" else _step_like(optimizer, parameter)
                    moments.setdefault(name, torch.zeros_like(like))
                    on_device = moments[name].to(parameter.device)
                    self.broadcast([on_device])
                    moments[name].copy_(on_device)

    def wrap(self, model: nn.Module) -> nn.Module:
        """The module to train by: its gradients are averaged over the processes as they are
        computed, and it starts everywhere as in the first."""
        if self.device_group is None:
            return model
        known = inspect.signature(DistributedDataParallel).parameters
        # Buffers are shared before each validation, not at each step. Newer versions of torch call
        # the argument forward_sync_buffers, and warn of the older name.
        newer, older = "forward_sync_buffers", "broadcast_buffers"
        unshared: dict[str, Any] = {newer if newer in known else older: False}
        # It copies gradients into its buckets in any case: those of other strides, too.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        return DistributedDataParallel(
            model,
            process_group=self.device_group,
            gradient_as_bucket_view=True,
            **unshared,
        )

    def averaging(self, network: nn.Module, last: bool) -> contextlib.AbstractContextManager:
        """Goes around a forward and backward pass. In the last one of a step, gradients are
        averaged over the processes; those of the passes before were added to them."""
        if isinstance(network, DistributedDataParallel) and not last:
            return network.no_sync()
        return contextlib.nullcontext()

    def shard(self, items: list[T]) -> list[T]:
        """This process's share of what is done once: all have about as many, in their order. Where
        there are fewer than processes, the main process has one: it is the one that shows it."""
        begin, end = (-(-rank * len(items) // self.size) for rank in (self.rank, self.rank + 1))
        return items[begin:end]

    def close(self) -> None:
        if self.device_group is not None:
            dist.destroy_process_group()


def _step_like(optimizer: torch.optim.Optimizer, parameter: Tensor) -> Tensor:
    """Adam counts steps on the device where it is fused, else on the host."""
    fused = optimizer.param_groups[0].get("fused")
    return torch.zeros((), device=parameter.device if fused else "cpu")


def join(options: argparse.Namespace) -> Team:
    """The team that torchrun has started, or that of one process alone.

    options.dist_timeout: seconds in which every process must answer, in start-up and in training;
    None: DEFAULT_TIMEOUTS_S. Raises ContactError where the others do not come.
    """
    if not under_torchrun():
        return Team()
    _die_with_launcher()
    starting, training = _timeouts(options)
    try:
        store, rank, size = next(dist.rendezvous("env://", timeout=starting))
    except (RuntimeError, ValueError) as error:
        raise ContactError(
            f"the processes have not found each other within {starting.total_seconds():.0f} s "
            f"({str(error).splitlines()[0]}); start all of them, with torchrun, or raise "
            "--dist-timeout"
        ) from None
    if os.environ.get("GROUP_WORLD_SIZE", "1") == "1":
        # On one machine torchrun keeps its store when it starts the processes again, and in it
        # the addresses of those that are gone.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"attempt-{attempt}", store)
    # The default group is the host's: what is said in start-up needs no device, and a process
    # that has none of its own must be able to say so.
    dist.init_process_group("gloo", timeout=starting, store=store, rank=rank, world_size=size)
    return Team(
        rank=rank,
        size=size,
        local_rank=int(os.environ["LOCAL_RANK"]),
        local_size=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        host_group=_group("gloo", training),
    )


def _group(backend: str, timeout: timedelta) -> dist.ProcessGroup:
    """Makes a group of all processes."""
    group = dist.new_group(backend=backend, timeout=timeout)
    return cast(dist.ProcessGroup, group)  # another type is for processes that are not in it


def with_device(team: Team, device: torch.device, options: argparse.Namespace) -> Team:
    """The team with a group for the device's tensors: NCCL for GPUs, gloo for processors."""
    if team.host_group is None:
        return team
    starting, training = _timeouts(options)
    if device.type == "cuda":
        # NCCL's watchdog ends the process without a word of ours. It waits longer than any answer
        # on the host, whose error says what was lost.
        return replace(team, device_group=_group("nccl", starting + training))
    return replace(team, device_group=_group("gloo", training))


def _timeouts(options: argparse.Namespace) -> tuple[timedelta, timedelta]:
    """The times in which every process must answer on the host: in start-up, and in training."""
    starting, training = (options.dist_timeout or default for default in DEFAULT_TIMEOUTS_S)
    return timedelta(seconds=starting), timedelta(seconds=training)


def _die_with_launcher() -> None:
    """Has Linux send SIGTERM when the launcher dies, even by kill -9: no process is left behind."""
    if not sys.platform.startswith("linux"):
        return
    launcher = os.getppid()
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl.h
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != launcher:  # it died before that
        os.kill(os.getpid(), signal.SIGTERM)


def contact_lost(error: BaseException, step: int) -> ContactError | None:
    """What to raise instead of `error`, where it is that another process is gone; else None. step:
    the one at hand; 0 before the first."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return None
    if not any(word in str(error) for word in LOST_CONTACT_PHRASES):
        return None
    when = f"in step {step}" if step else "in start-up"
    if "/dev/shm" in str(error):  # NCCL's, whose GPUs hand over through it
        return ContactError(
            f"the processes of this machine cannot exchange gradients {when}: /dev/shm is too "
            "small or full; give a container more (docker run --shm-size 1g), or set "
            "NCCL_SHM_DISABLE=1, which is slower; the checkpoints are as they were"
        )
    reason = str(error).splitlines()[0][:200]
    who = f"process {dist.get_rank()} of {dist.get_world_size()}"
    return ContactError(
        f"{who} has lost another one {when}: it ended, or did not answer in time "
        f"(--dist-timeout); the checkpoints are as they were ({reason})"
    )
