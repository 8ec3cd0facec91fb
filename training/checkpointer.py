"""When a checkpoint is saved, and what goes for it: the newest, the best, replaced and old ones.

saving.py writes it; checkpoint.py knows names, and what belongs to one run.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from common.errors import DataError
from common.files import rename_aside
from training import checkpoint
from training.data import Data
from training.journal import Journal
from training.run import Run, TrainingState
from training.saving import Saver
from training.start import Start
from training.team import ElsewhereError

REPLACED = "replaced"  # the folder in which --overwrite keeps old checkpoints until a new one is


class Checkpointer:
    """Saves the checkpoints of a run, within `with`. The main process alone writes.

    flush: called before a state is copied; it raises where the weights are no good. Left with an
    error of the data or of another process, it saves the step that was taken before it.
    """

    def __init__(
        self,
        run: Run,
        state: TrainingState,
        data: Data,
        start: Start,
        journal: Journal,
        flush: Callable[[], None],
    ) -> None:
        self._run, self._state, self._data = run, state, data
        self._journal, self._flush = journal, flush
        self._saver = Saver(run.device)
        self._first_step, self._to_replace = start.first_step, start.to_replace
        self._saved_step: int | None = None  # the newest one saved as a checkpoint of its own
        self._best_is_ours = bool(start.best)

    def __enter__(self) -> "Checkpointer":
        self._saver.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is not None and issubclass(kind, (DataError, ElsewhereError)):
                self._save_last()
        finally:
            self._saver.__exit__(kind, *error)

    def check(self) -> None:
        """Raises what went wrong in a write, if it has."""
        self._saver.check()

    def save(self, step: int, is_due: bool = True, is_best: bool = False) -> None:
        """Begins to save the state behind `step`: as a checkpoint where it is due, and where it is
        the first of a run that replaces others; as the best weights where it is the best."""
        self._flush()
        is_due = is_due or bool(self._to_replace)
        self._saved_step = step if is_due else self._saved_step
        run, state = self._run, self._state
        # A first write that has failed must not be taken for one of the checkpoints before it.
        if not run.team.is_main or self._saver.failed():
            return
        name = checkpoint.checkpoint_name(step, self._data.epoch_steps)
        path, best = run.folder / name if is_due else None, run.folder / checkpoint.BEST_WEIGHTS
        replaced, self._to_replace = self._to_replace, ()
        put_aside(replaced)
        if is_best and not self._best_is_ours:
            rename_aside(best)  # of a start that is not continued
        self._best_is_ours = bool(state.best)

        def then() -> None:
            if path:
                run.stop.saved = path
            if not run.options.dry_run:
                self._journal.say(f"saved {path or best}")
            if replaced:  # only now, when there is something in their place
                removed = ", ".join(remove_replaced(run.folder))
                self._journal.say(f"removed {removed} of an earlier run (--overwrite)")
            checkpoint.prune(run.folder, run.options.checkpoint_keep)

        kept = checkpoint.training_state(
            step,
            self._data.epoch_steps,
            run.settings,
            self._data.described,
            state.optimizer,
            state.scaler,
            state.best,
        )
        weights = state.model.state_dict()
        self._saver.save(path, weights, kept, then, best if is_best else None)

    def finish(self) -> None:
        """Behind the last step: saves it where the run was asked to stop at another than a due one,
        and returns when all is on disk, in every process. Raises what went wrong in a write, and
        Stopped."""
        if self._run.stop.number:
            self._save_last()
        self._run.team.run_on_all(self._saver.wait)
        self._run.stop.check()

    def _save_last(self) -> None:
        step = self._run.step
        if step > self._first_step and step != self._saved_step:
            self.save(step)

    def read_back(self, step: int) -> None:
        """Of a dry run: loads what was saved behind `step`, as one that continues does."""
        if not self._run.team.is_main:
            return
        path = self._run.folder / checkpoint.checkpoint_name(step, self._data.epoch_steps)
        saved, backbone = checkpoint.read_checkpoint(path), self._run.options.model_backbone
        checkpoint.load_weights(self._state.model, path, saved.weights, backbone)


def put_aside(paths: Sequence[Path]) -> None:
    """Moves checkpoints, both files of each, into a folder beside them, where no start finds them,
    so that a run which is killed now is not continued from one of these."""
    for path in paths:
        path.parent.joinpath(REPLACED).mkdir(exist_ok=True)
        for each in (path, checkpoint.state_path(path)):
            if each.exists():
                each.replace(each.parent / REPLACED / each.name)


def remove_replaced(folder: Path) -> list[str]:
    """Removes what put_aside has moved; returns the names of the checkpoints."""
    names = [path.name for path in checkpoint.find_checkpoints(folder / REPLACED)]
    best = checkpoint.BEST_WEIGHTS
    names += [best] if (folder / REPLACED / best).exists() else []
    shutil.rmtree(folder / REPLACED, ignore_errors=True)
    return names
