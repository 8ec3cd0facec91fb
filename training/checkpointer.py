"""When a checkpoint is saved, and when another goes for it.

checkpoint_folder.py knows which there are; saving.py writes them.
"""

from collections.abc import Callable

from common.errors import DataError
from common.files import rename_aside
from training import checkpoint
from training.data import Data
from training.journal import Journal
from training.next_steps import next_steps
from training.run import Run, TrainingState
from training.saving import Saver
from training.start import Start
from training.team import ElsewhereError


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
        # One that is continued from elsewhere has its best weights there.
        own = start.source is not None and run.checkpoints.has(start.source)
        self._best_is_ours = bool(start.best) and own

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
        folder, epoch_steps = run.checkpoints, self._data.epoch_steps
        path, best = folder.path_after(step, epoch_steps) if is_due else None, folder.best
        replaced, self._to_replace = self._to_replace, ()
        folder.put_aside(replaced)
        if is_best and not self._best_is_ours:
            rename_aside(best)  # of a start that is not continued
        self._best_is_ours = self._best_is_ours or is_best

        def after_write() -> None:
            if path:
                run.stop.newest_checkpoint = path
            if not run.options.dry_run:
                self._journal.say(f"saved {path or best}")
            if replaced:  # only now, when there is something in their place
                removed = ", ".join(folder.remove_replaced())
                self._journal.say(f"removed {removed} of an earlier run (--overwrite)")
            folder.prune(run.options.checkpoint_keep)

        kept = checkpoint.training_state(
            step,
            epoch_steps,
            run.recorded,
            self._data.described,
            state.optimizer,
            state.scaler,
            state.best,
        )
        weights = state.model.state_dict()
        self._saver.save(path, weights, kept, after_write, best if is_best else None)

    def finish(self) -> None:
        """Is called after the last step. Saves it where the run was asked to stop at a step that is
        not due, and returns when all is on disk, in every process. Raises what went wrong in a
        write, and Stopped. Leaves the journal what it says at its end."""
        if self._run.stop.number:
            self._save_last()
        self._run.team.run_on_all(self._saver.wait)
        self._run.stop.check()
        run, folder = self._run, self._run.checkpoints
        if run.writes:
            has_best = self._best_is_ours and folder.best.exists()
            self._journal.last_lines = next_steps(
                run.options,
                run.log_folder,
                folder.best if has_best else None,
                folder.path_after(run.step, self._data.epoch_steps),
                self._state.best,
            )

    def _save_last(self) -> None:
        step = self._run.step
        if step > self._first_step and step != self._saved_step:
            self.save(step)

    def read_back(self, step: int) -> None:
        """Loads what a dry run saved after `step`, as one that continues does."""
        if not self._run.team.is_main:
            return
        path = self._run.checkpoints.path_after(step, self._data.epoch_steps)
        saved, backbone = checkpoint.read_checkpoint(path), self._run.options.model_backbone
        checkpoint.load_weights(self._state.model, path, saved.weights, backbone)
