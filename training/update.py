"""One step of the optimizer, taken only by finite numbers; and what is said where they are not.

Nothing here waits for the device: a step with a bad number is skipped there, and found out a
little later here.
"""

from collections import deque
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from dataset.augmentation import augment
from training.saving import size_of, write_whole

SKIPPED_AT_MOST = 50  # steps in a row that overflow in fp16
PENDING_AT_MOST = 4  # steps that the device may be behind before it is waited for


class DivergedError(ValueError):
    """Numbers that are not finite; the message says at which step, and which pictures."""


def loss_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """For fp16 the usual one. For the others it scales by 1, and is there for what it does else:
    it keeps the optimizer from moving where a gradient is not finite, without a wait for CUDA."""
    if precision == "fp16":
        return torch.amp.GradScaler(device.type)
    return torch.amp.GradScaler(device.type, init_scale=1.0, growth_interval=2**31 - 1)


class Update:
    """Moves the weights of `model` by `optimizer`, and watches over the numbers.

    clip: the gradient's largest norm, or None. precision: of the forward pass. folder: where a bad
    batch is written; None: nowhere.
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
    ) -> None:
        self.parameters = list(model.parameters())
        self.optimizer, self.scaler = optimizer, scaler
        self.clip, self.precision, self.folder = clip, precision, folder
        self.skipped = 0
        self.norm = torch.zeros(())
        self._one = torch.ones((), device=self.parameters[0].device)
        self._pending: deque[tuple] = deque()

    def backward(self, loss: Tensor) -> None:
        """Adds the loss's gradient, scaled; where the loss is not finite, none that is finite."""
        scaled = self.scaler.scale(loss)
        scaled.backward(scaled.detach() * 0 + 1)  # 1; NaN where the loss is infinite or NaN

    def step(self) -> None:
        """Moves the weights, unless a gradient or the norm of all is not finite, and clears the
        gradients. Clipping is by the norm of all gradients together."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm, scale = get_total_norm(gradients), self.scaler.scale(self._one)
        if self.clip:
            clip_grads_with_norm_(self.parameters, self.clip * scale, norm)
        gradients[-1].add_(norm * 0)  # so that the scaler sees it, too, if the norm is not finite
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.norm = norm / scale

    def watch(self, step: int, batch: dict, terms: dict[str, Tensor]) -> None:
        """Takes down the numbers of a step that was taken, and looks at those that have arrived
        since. Raises DivergedError."""
        numbers = torch.stack([*terms.values(), self.norm]).detach()
        arrived = None
        if numbers.device.type == "cuda":
            numbers, arrived = numbers.to("cpu", non_blocking=True), torch.cuda.Event()
            arrived.record()
        self._pending.append((step, batch, list(terms), numbers, arrived, self._one.device))
        while self._pending:
            arrived = self._pending[0][4]
            if arrived and not arrived.query() and len(self._pending) <= PENDING_AT_MOST:
                return
            self._judge(*self._pending.popleft())

    def settle(self) -> None:
        """Waits for the device, and looks at all that is taken down. Raises DivergedError."""
        while self._pending:
            self._judge(*self._pending.popleft())

    def _judge(self, step, batch, names, numbers, arrived, device) -> None:
        if arrived:
            arrived.synchronize()
        *terms, norm = numbers.tolist()
        finite = [abs(value) < float("inf") for value in terms]  # not so for NaN either
        if all(finite) and abs(norm) < float("inf"):
            self.skipped = 0
            return
        if all(finite) and self.precision == "fp16":
            self.skipped += 1
            if self.skipped < SKIPPED_AT_MOST:
                return
            what = f"the gradient overflowed in {self.skipped} steps in a row, up to this one"
        else:
            what = "the gradient's norm is" if all(finite) else "the loss is"
            what = f"{what} not finite"
        said = ", ".join(f"{name} {value:.4g}" for name, value in zip(names, terms, strict=True))
        files = "; ".join(", ".join(each) for each in batch["files"])
        lower = " or --precision bf16 or fp32," if self.precision == "fp16" else ""
        raise DivergedError(
            f"step {step}: {what} ({said}, gradient norm {norm:.4g}). The step moved no weight, "
            f"and nothing of it is saved. Try a lower learning rate,{lower} or --clip-grad-norm 1, "
            f"from a checkpoint before it was too high. The batch{self._write(step, batch, device)}"
            f" is of these files: {files}"
        )

    def _write(self, step: int, batch: dict, device: torch.device) -> str:
        """Keeps the batch as it was read, and as the network saw it; returns what to say of it."""
        if not self.folder:
            return ""
        path, number = self.folder / "bad-batch.pt", 2
        while path.exists():
            path, number = self.folder / f"bad-batch-{number}.pt", number + 1
        try:
            seen = zip(("src", "bgr", "true_pha", "true_fgr"), augment(batch, device), strict=True)
            content = {"step": step, "batch": batch, **{name: value.cpu() for name, value in seen}}
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, lambda file: torch.save(content, file), size_of(content))
        except (OSError, RuntimeError, MemoryError) as error:
            return f", which could not be kept ({error}),"
        return f", kept in {path},"
