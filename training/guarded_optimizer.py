"""One step of the optimizer, taken only by finite numbers; and what is said where they are not.

A step may be made of several backward passes, in one process or many. Nothing here waits for the
device: a step with a bad number is skipped there, and found out a little later here.
"""

from collections import deque
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from common.errors import UserError
from common.files import next_free, write_atomically
from dataset.augmentation import augment
from training.loss import total
from training.saving import size_of
from training.team import Team

MAX_SKIPPED_STEPS = 50  # steps in a row that overflow in fp16
CHECK_DELAY_STEPS = 4  # steps behind which a GPU's numbers are looked at: the same in every process


class DivergedError(UserError, ValueError):
    """Numbers that are not finite; the message says at which step, and which pictures."""


def loss_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Returns the usual scaler for fp16. For other precisions it scales by 1, and is there for what
    else it does: it keeps the optimizer from moving where a gradient is not finite, without a wait
    for CUDA."""
    if precision == "fp16":
        return torch.amp.GradScaler(device.type)
    return torch.amp.GradScaler(device.type, init_scale=1.0, growth_interval=2**31 - 1)


def one_if_finite(loss: Tensor) -> Tensor:
    """The gradient that a backward pass begins with: 1, and NaN where the loss is infinite or NaN,
    so that no gradient of it is finite. The host does not wait for the device."""
    return loss.detach() * 0 + 1


def spread_if_not_finite(norm: Tensor, gradient: Tensor) -> None:
    """Makes `gradient` NaN where the norm of all gradients is not finite: the scaler looks at
    gradients alone. Else leaves it as it is. The host does not wait for the device."""
    gradient.add_(norm * 0)


class GuardedOptimizer:
    """Moves the weights of a run by finite numbers alone, and says later what was not finite.

    model, optimizer, scaler: as TrainingState has them. clip: the gradient's largest norm, or
    None. precision: of the forward pass. accumulate: micro-batches of a step. folder: where a bad
    batch is written; None: nowhere. team: the processes that share a step, whose gradients
    `backward` finds averaged already (Team.wrap).

    terms, norm: the loss's terms and the gradient's norm of the last step, over its whole batch.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        *,
        clip: float | None,
        precision: str,
        folder: Path | None,
        accumulate: int = 1,
        team: Team = Team(),  # noqa: B008  (it is frozen)
    ) -> None:
        self.parameters = list(model.parameters())
        self.optimizer, self.scaler, self.team = optimizer, scaler, team
        self.clip, self.precision, self.folder = clip, precision, folder
        self.accumulate = accumulate
        self.skipped = 0
        self.terms: dict[str, Tensor] = {}
        self._names: list[str] = []
        self.norm = torch.zeros(())
        self._one = torch.ones((), device=self.parameters[0].device)
        self._own: list[Tensor] = []  # this process's terms, of each of its micro-batches
        self._pending: deque[tuple] = deque()

    def backward(self, terms: dict[str, Tensor]) -> None:
        """Adds the gradient of the sum of a micro-batch's terms, scaled; where it is not finite,
        none that is finite. The gradients of a step's micro-batches add up to that of the mean over
        all of them."""
        loss = total(terms) / self.accumulate
        scaled = self.scaler.scale(loss)
        scaled.backward(one_if_finite(scaled))
        self._own.append(torch.stack(list(terms.values())).detach())
        self._names = list(terms)

    def learning_rates(self) -> dict[str, float]:
        """The learning rate of each group of parameters, by its name."""
        return {group["name"]: group["lr"] for group in self.optimizer.param_groups}

    def numbers(self) -> dict[str, float]:
        """What to log of the last step beside its loss. Waits for the device."""
        return {"gradient_scale": self.scaler.get_scale(), "gradient_norm": self.norm.item()}

    def step(self) -> None:
        """Moves the weights, unless a gradient or the norm of all is not finite, and clears the
        gradients. Clipping is by the norm of all gradients together."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        self.norm = get_total_norm(gradients) / self.scaler.scale(self._one)
        if self.clip:
            # By its norm before scaling: then the limit is a plain number. torch makes one of it,
            # and would wait for the device if it were a tensor there.
            clip_grads_with_norm_(self.parameters, self.clip, self.norm)
        spread_if_not_finite(self.norm, gradients[-1])
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def check_later(self, step: int, batches: list[dict]) -> None:
        """Takes down the numbers of a step that was taken, and looks at those of an earlier one
        (on a CPU at its own). batches: this process's parts of the step's. Raises DivergedError,
        in all processes at the same step."""
        own, self._own = torch.stack(self._own).mean(0), []
        everyones = self.team.all_reduce_mean(own.clone())
        self.terms = dict(zip(self._names, everyones.unbind(), strict=True))
        numbers = torch.cat([everyones, self.norm.detach().reshape(1), own])
        arrived, behind = None, 0
        if numbers.device.type == "cuda":
            numbers, arrived = numbers.to("cpu", non_blocking=True), torch.cuda.Event()
            arrived.record()
            behind = CHECK_DELAY_STEPS
        self._pending.append((step, batches, self._names, numbers, arrived, own.device))
        while len(self._pending) > behind:
            self._check(*self._pending.popleft())

    def flush(self) -> None:
        """Waits for the device, and looks at all that is taken down. Raises DivergedError."""
        while self._pending:
            self._check(*self._pending.popleft())

    def _check(self, step, batches, names, numbers, arrived, device) -> None:
        if arrived:
            arrived.synchronize()
        count = len(names)
        terms, norm, own = numbers[:count].tolist(), numbers[count].item(), numbers[count + 1 :]
        finite = [abs(value) < float("inf") for value in terms]  # not so for NaN either
        if all(finite) and abs(norm) < float("inf"):
            self.skipped = 0
            return
        if all(finite) and self.precision == "fp16":
            self.skipped += 1
            if self.skipped < MAX_SKIPPED_STEPS:
                return
            what = f"the gradient overflowed in {self.skipped} steps in a row, up to this one"
        else:
            what = "the gradient's norm is" if all(finite) else "the loss is"
            what = f"{what} not finite"
        # Where it is known whose part was bad, that is named and kept; else all are named.
        bad = self.team.gather(not bool(own.isfinite().all()))
        culprit = bad.index(True) if any(bad) else 0
        mine = self.team.rank == culprit
        batches = self.team.gather(batches if mine else None)[culprit]
        files = [each["files"] for each in batches]
        files = self.team.gather(files if mine or not any(bad) else [])
        if not self.team.is_main:
            raise DivergedError(f"step {step}: {what}; process 0 says more")
        said = ", ".join(f"{name} {value:.4g}" for name, value in zip(names, terms, strict=True))
        named = "; ".join(", ".join(of) for parts in files for part in parts for of in part)
        lower = " or --precision bf16 or fp32," if self.precision == "fp16" else ""
        raise DivergedError(
            f"step {step}: {what} ({said}, gradient norm {norm:.4g}). The step moved no weight, "
            f"and nothing of it is saved. Try a lower learning rate,{lower} or --clip-grad-norm 1, "
            f"from a checkpoint before it was too high. The batch"
            f"{self._write(step, batches, device)} is of these files: {named}"
        )

    def _write(self, step: int, batches: list[dict], device: torch.device) -> str:
        """Keeps the parts as they were read, and as the network saw them; returns what to say."""
        if not self.folder:
            return ""
        folder = self.folder
        path = next_free(lambda number: folder / f"bad-batch{number}.pt")
        names = ("src", "bgr", "true_pha", "true_fgr")
        try:
            seen = [augment(batch, device) for batch in batches]
            content = {"step": step, "batches": batches} | {
                name: torch.cat(values).cpu()
                for name, values in zip(names, zip(*seen, strict=True), strict=True)
            }
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda file: torch.save(content, file), size_of(content))
        except (OSError, RuntimeError, MemoryError) as error:
            return f", which could not be kept ({error}),"
        return f", kept in {path},"
