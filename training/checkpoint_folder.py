"""The folder of a run's checkpoints: which there are, the newest intact one, and which of them go.

checkpointer.py says when; saving.py writes the files; checkpoint.py reads them.
"""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from common.files import rename_aside
from common.text import tell
from model.weights_file import WeightsFileError, read_weights
from training import locks
from training.checkpoint import (
    Checkpoint,
    CheckpointError,
    checkpoint_name,
    load_state,
    progress_at,
    progress_in,
    progress_of,
    state_path,
)

BEST_WEIGHTS = "best.pth"  # the weights of the best validation so far
REPLACED = "replaced"  # the folder in which --overwrite keeps old checkpoints until a new one is


class CheckpointFolder:
    """The checkpoints in a folder: which there are, which is to be continued, which of them go.

    It renames and removes files whose names are a checkpoint's, and `best.pth`; no others.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best = path / BEST_WEIGHTS
        self._replaced = path / REPLACED

    def path_after(self, step: int, steps_per_epoch: int) -> Path:
        """The weights file of the state after `step` completed steps."""
        return self.path / checkpoint_name(step, steps_per_epoch)

    def checkpoints(self) -> list[Path]:
        """The weights files, oldest first by epoch and step (not by name or date)."""
        if not self.path.is_dir():
            return []
        found = [path for path in self.path.iterdir() if progress_of(path.name)]
        return sorted(found, key=lambda path: progress_in(path.name))

    def has(self, path: Path) -> bool:
        """Whether `path` is one of the checkpoints."""
        return path.resolve() in [each.resolve() for each in self.checkpoints()]

    def ahead(self, step: int, steps_per_epoch: int) -> list[Path]:
        """The checkpoints of more than `step` completed steps, as their names say it."""
        here = progress_at(step, steps_per_epoch)
        return [path for path in self.checkpoints() if progress_in(path.name) > here]

    def newest_intact(self, set_aside: bool) -> Checkpoint | None:
        """The newest checkpoint whose files are intact and belong together; None where there is
        none at all. Where no intact one has a state, intact weights whose state is damaged.
        Says which are passed over and why; set_aside: renames these, so that what comes in their
        place is not mistaken for them. Raises CheckpointError where none is intact."""
        spare = None  # the newest weights that are intact, while their state is not
        passed: list[Path] = []
        found = self.checkpoints()
        if not found:
            return None
        chosen = None
        for path in reversed(found):
            try:
                weights = read_weights(path).state_dict
            except WeightsFileError as error:
                tell(f"passed over: {error}")
                passed += [path, state_path(path)]
                continue
            try:
                state = load_state(path, weights)
            except (WeightsFileError, CheckpointError) as error:
                tell(f"passed over: {error}")
                passed += [path, state_path(path)]
                spare = spare or Checkpoint(path, weights, None)
                continue
            if state is not None or spare is None:
                chosen = Checkpoint(path, weights, state)
            break
        chosen = chosen or spare
        if chosen is None:
            raise CheckpointError(
                f"no checkpoint in {self.path} is intact; see above. Give another one by its path, "
                "or move them away to start afresh"
            )
        # Only now that there is one to continue: else a second try would take the folder for empty.
        for path in passed if set_aside else ():
            if path != chosen.path:
                rename_aside(path)
        return chosen

    def prune(self, keep: int) -> None:
        """Leaves the `keep` newest checkpoints that have a state file, and of the older ones the
        weights at the ends of epochs. Older states go, without their weights too, as a run that is
        killed between the two files leaves one. Weights without a state file, which may be of
        another program, are nobody's to remove."""
        ours = [path for path in self.checkpoints() if state_path(path).exists()]
        if len(ours) <= keep:
            return
        for path in ours[:-keep]:
            if progress_in(path.name).step != float("inf"):
                path.unlink()
        oldest_kept = progress_in(ours[-keep].name)
        for state in self.path.glob("epoch-*.state.pth"):
            progress = progress_of(state.name.replace(".state.pth", ".pth"))
            if progress and progress < oldest_kept:
                state.unlink()

    def put_aside(self, weights: Sequence[Path]) -> None:
        """Moves checkpoints, both files of each, into a folder beside them, where no start finds
        them: a run that is killed now is not continued from one of these."""
        for path in weights:
            self._replaced.mkdir(exist_ok=True)
            for file in (path, state_path(path)):
                if file.exists():
                    file.replace(self._replaced / file.name)

    def remove_replaced(self) -> list[str]:
        """Removes what put_aside has moved; returns the names of the weights files."""
        replaced = CheckpointFolder(self._replaced)
        names = [path.name for path in replaced.checkpoints()]
        names += [replaced.best.name] if replaced.best.exists() else []
        shutil.rmtree(self._replaced, ignore_errors=True)
        return names

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Holds the folder for this run, as locks.hold does, and removes what a killed one left
        half written. Raises CheckpointError where another run holds it."""
        try:
            with locks.hold(self.path):
                for path in self.path.glob("*.pth.partial-*"):
                    path.unlink()
                    tell(f"removed {path}, which a killed run left half written")
                yield
        except locks.HeldError:
            raise CheckpointError(
                f"another run is alive in {self.path}; wait for its end, or choose another "
                "--model-name"
            ) from None
