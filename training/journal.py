"""What a run tells: TensorBoard, progress on the terminal, results.csv and preview.png.

It only ever adds to a log folder, and asks the device for a number only when one is due.
"""

import contextlib
import csv
import errno
import io
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch
from torch import Tensor
from torchvision.utils import make_grid
from tqdm import tqdm

from common.cli import tool
from common.files import rename_aside
from common.text import printable, tell
from training import provenance
from training.beside import CPU, Beside, all_given
from training.curves import draw_results
from training.pictures import as_bytes, batch_picture, preview
from training.tensorboard_log import TensorBoardLog
from training.wandb_log import WandbLog

if TYPE_CHECKING:
    from training.data import Data
    from training.run import Run
    from training.start import Start

SAMPLES_SHOWN = 5  # samples of a batch that go to TensorBoard
LINE_EVERY_S = 10  # between plain lines, where the output is no terminal


T = TypeVar("T")


class Sink(Protocol):
    """Where numbers, pictures (uint8, (3, H, W)) and texts of a step go, by tag."""

    def scalars(self, step: int, values: dict[str, float]) -> None: ...

    def images(self, step: int, images: dict[str, Tensor]) -> None: ...

    def text(self, step: int, tag: str, text: str) -> None: ...

    def close(self, failed: bool) -> None: ...


def open_journal(run: "Run", data: "Data", start: "Start") -> "Journal":
    """The journal of a run, which is closed with it, and which wandb gets, too, where that is asked
    for; beside it the run's provenance."""
    journal = Journal(
        run.log_folder if run.writes else None,
        run.step,
        data.last_step,
        run.options.batch_size,
        prefix="" if run.team.is_main else f"process {run.team.rank}: ",
        device=run.device,
        log_folder=run.log_folder,
        name=run.options.model_name,
    )
    run.enter(journal)
    if run.writes and run.options.log_to == "wandb":
        journal.sinks.append(WandbLog(run.recorded, journal.say))
    run.stop.defers = True  # not before: wandb may wait a minute for the network
    if run.writes:
        provenance.record(
            run.log_folder / "run.json", run.recorded, run.device, start, data.described
        )
        if start.transferred:
            journal.text(run.step, "transfer", start.transferred[0])
    return journal


class Journal:
    """The log of one start of a run.

    folder: log/NAME; None keeps nothing on disk. first_step: completed when this start begins;
    what an earlier start wrote to TensorBoard beyond it is marked as replaced. last_step: the
    last one of the run. batch_size: for the speed. The rows of results.csv say which start they
    are of; none is ever removed. prefix: of all lines that are said; with one, the process is not
    the first of the run, and tells nothing but what it is asked to say. device: of the pictures.
    log_folder: log/NAME all the same, for the picture of a dry run. sinks: who else gets what
    TensorBoard gets is appended to them. name: of the run, for results.png. last_lines: what is
    said behind all else when it is closed.

    Pictures are encoded, which takes seconds of a core, in a thread: one piece of work at a time,
    the next waits for it, and none is left out.
    """

    def __init__(
        self,
        folder: Path | None,
        first_step: int,
        last_step: int,
        batch_size: int,
        prefix: str = "",
        device: torch.device = CPU,
        log_folder: Path = Path("log"),
        name: str = "",
    ) -> None:
        self.folder, self.log_folder, self._name = folder, log_folder, name
        self.last_lines: list[str] = []
        self._device, self._beside = device, Beside("pictures", device)
        self.batch_size = batch_size
        self.last_step = last_step
        self.sinks: list[Sink] = []
        self._silent = bool(prefix)
        terminal = sys.stderr.isatty() and not self._silent
        self.bar = tqdm(
            initial=first_step, total=last_step, unit="step", disable=not terminal, leave=False
        )
        self.say = partial(_say, tqdm.write if terminal else tell, prefix)
        self._start = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._results: list[tuple[int, dict[str, float]]] = []
        self._started = time.perf_counter()
        self._first_step = first_step
        self._last_line = 0.0
        self._waited = 0.0
        self._since_step = first_step
        self._since = self._started
        self._hook = threading.excepthook
        if folder:
            threading.excepthook = partial(_leave_to_writer, self._hook)
            with self._log():
                self.sinks.append(TensorBoardLog(folder, first_step))

    @contextlib.contextmanager
    def _log(self) -> Iterator[None]:
        """Goes around what is written: a log that cannot be written ends no training."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            self.say(f"{self.folder} cannot be written ({reason}); the run goes on without a log")
            self.folder = None
            self.sinks = [sink for sink in self.sinks if not isinstance(sink, TensorBoardLog)]

    def watch(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches, one a step, measuring how long each was waited for."""
        iterator = iter(batches)
        while True:
            asked = time.perf_counter()
            batch = next(iterator, None)
            if batch is None:
                return
            self._waited += time.perf_counter() - asked
            yield batch
            self.bar.update()

    def train_losses(
        self, step: int, terms: dict[str, Tensor], rates: dict[str, float], **numbers: float
    ) -> None:
        """The loss of this step, the learning rates, the speed since the last call, and other
        numbers of the run. Waits for the device."""
        values = {name: value.item() for name, value in terms.items()}
        loss = sum(values.values())
        now = time.perf_counter()
        seconds = now - self._since
        speed = (step - self._since_step) * self.batch_size / seconds
        waiting = self._waited / seconds
        self._since, self._since_step, self._waited = now, step, 0.0

        self._scalars(
            step,
            train={"loss": loss, **values},
            learning_rate=rates,
            run={"images_per_s": speed, "waiting_share": waiting, **numbers},
        )
        self.bar.set_postfix_str(f"loss {loss:.4f}, {speed:.1f} images/s")
        due = now - self._last_line >= LINE_EVERY_S or step >= self.last_step
        if self.bar.disable and not self._silent and due:
            self._last_line = now
            left = (now - self._started) / (step - self._first_step) * (self.last_step - step)
            self.say(
                f"step {step}/{self.last_step}  loss {loss:.4f}  {speed:.1f} images/s  "
                f"waiting for data {waiting:.0%}  {_duration(left)} left"
            )

    def train_pictures(self, step: int, images: dict[str, Tensor]) -> None:
        self._pictures(step, "train", images)

    def batch_picture(self, images: dict[str, Tensor]) -> None:
        """Writes the augmented batch of a dry run to log/NAME/batch.png."""
        if self._silent:
            return
        self.log_folder.mkdir(parents=True, exist_ok=True)
        path = self.log_folder / "batch.png"
        batch_picture(path, images)
        tell(f"dry run: every part works; look at {path}")

    def validation(
        self, step: int, epoch: int, results: dict[str, float], images: dict[str, Tensor]
    ) -> None:
        """A line, a row of results.csv, TensorBoard, and preview.png."""
        if self._silent:
            return
        mad, mse, grad = (figure_said(results, name) for name in ("mad", "mse", "grad"))
        self.say(
            f"validation at step {step}: loss {results['loss']:.4f}  "
            f"MAD {mad}  MSE {mse}  (x1000)  Grad {grad}"
        )
        self._results.append((step, results))
        self._scalars(step, valid=results)
        with self._log():
            if self.folder:
                self._beside.wait()  # it reads the table, too
                row: dict[str, float | str] = {
                    "start": self._start,
                    "step": step,
                    "epoch": epoch,
                    "conn": "",
                    **results,
                }
                _append_row(self.folder / "results.csv", row)
        self._pictures(step, "valid", images, self._draw)
        # Validating is not training: it counts neither as speed nor as waiting.
        self._since, self._since_step, self._waited = time.perf_counter(), step, 0.0

    def _draw(self, folder: Path, images: dict[str, Tensor]) -> None:
        preview(folder / "preview.png", images)
        try:
            draw_results(folder / "results.csv", folder / "results.png", self._name)
        except Exception as error:  # of whatever kind: a picture is no reason to end a training
            self.say(f"results.png could not be drawn ({error})")

    def text(self, step: int, tag: str, text: str) -> None:
        with self._log():
            for sink in self.sinks:
                sink.text(step, tag, text)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        self.close(kind)

    def close(self, kind: type[BaseException] | None = None) -> None:
        """Ends with what the run has changed. kind: of what ends it, if something does. Waits for
        the last pictures, but not where a second Ctrl-C asks to end at once."""
        self.bar.close()
        failed = True
        try:
            self._end(kind)
            failed = kind is not None
        finally:
            for sink in list(self.sinks):
                with self._log():
                    sink.close(failed)
            threading.excepthook = self._hook

    def _end(self, kind: type[BaseException] | None) -> None:
        if kind is None:
            with self._log():
                self._beside.wait()
        elif not issubclass(kind, KeyboardInterrupt):
            try:
                self._beside.wait()
            except Exception as error:  # beside what ends the run
                self.say(f"the last pictures could not be written ({error})")
        if len(self._results) > 1:
            (first, before), (last, after) = self._results[0], self._results[-1]
            for name in ("mad", "mse"):
                print(
                    f"validation {name.upper()} {before[name]:.2f} -> {after[name]:.2f}  (x1000), "
                    f"from step {first} to step {last}"
                )
        if self._results and self.folder:
            drawn = [self.folder / name for name in ("preview.png", "results.png")]
            shown = " and ".join(str(path) for path in drawn if path.exists())
            look = f"look at {shown}; " if shown else ""
            print(f"{look}curves: {tool('tensorboard', 'tensorboard.main')} --logdir log")
        for line in self.last_lines:
            tell(line)

    def _scalars(self, step: int, **groups: dict[str, float]) -> None:
        with self._log():
            self._beside.check()
            values = {
                f"{group}/{name}": value
                for group, numbers in groups.items()
                for name, value in numbers.items()
            }
            for sink in self.sinks:
                sink.scalars(step, values)

    def _pictures(
        self,
        step: int,
        group: str,
        images: dict[str, Tensor],
        then: Callable[[Path, dict[str, Tensor]], None] = lambda _folder, _shown: None,
    ) -> None:
        """The first samples of each batch to the sinks, and `then` what they are wanted for in the
        log folder, with these as bytes on the host."""
        with self._log():
            self._beside.wait()
            sinks, folder = self.sinks, self.folder
            if not sinks:
                return
            shown_as_bytes = {
                name: as_bytes(batch[:SAMPLES_SHOWN]) for name, batch in images.items()
            }
            copied = all_given(self._device)

            def write() -> None:
                copied()
                images = {
                    f"{group}/{name}": make_grid(batch, nrow=SAMPLES_SHOWN)
                    for name, batch in shown_as_bytes.items()
                }
                for sink in sinks:
                    sink.images(step, images)
                if folder:
                    then(folder, shown_as_bytes)

            self._beside.begin(write)


def figure_said(results: dict[str, float], name: str) -> str:
    """With that of the coarse alpha behind it, where there is one: `12.30 (coarse 15.10)`."""
    coarse = results.get(f"coarse_{name}")
    return f"{results[name]:.2f}" + (f" (coarse {coarse:.2f})" if coarse is not None else "")


def _append_row(path: Path, row: dict[str, float | str]) -> None:
    """A row is there as a whole or not at all; one that a crash has cut short is ended. A table of
    other columns, which another version has written, is renamed."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    if path.exists():
        with path.open(newline="", errors="replace") as file:
            head = next(csv.reader(file), [])
        if head and head != list(row):
            rename_aside(path)
    with path.open("a+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if not size:
            writer.writerow(row)
        else:
            file.seek(-1, os.SEEK_END)
            text.write("" if file.read(1) == b"\n" else "\r\n")
        writer.writerow(f"{v:.6g}" if isinstance(v, float) else v for v in row.values())
        content = text.getvalue().encode()
        try:
            if file.write(content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            file.truncate(size)
            raise


def _say(tell: Callable[[str], None], prefix: str, line: str) -> None:
    tell(prefix + printable(line))


def _leave_to_writer(
    hook: Callable[[threading.ExceptHookArgs], object], failed: threading.ExceptHookArgs
) -> None:
    """TensorBoard's thread raises what it could not write at the next call, too, which says it."""
    of_tensorboard = type(failed.thread).__module__.startswith("tensorboard")
    if not (of_tensorboard and issubclass(failed.exc_type, OSError)):
        hook(failed)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
