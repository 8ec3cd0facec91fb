"""What a run tells: pictures beside the training, none lost, their errors told."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import save_image

from training import journal

NAMES = ("src", "bgr", "true_pha", "pred_pha", "true_fgr", "pred_fgr", "composite", "pred_err")
RESULTS = {"loss": 1.0, "mad": 2.0, "mse": 3.0, "grad": 4.0}


def pictures(count: int = 8, value: float | None = None) -> dict[str, torch.Tensor]:
    torch.manual_seed(count)
    channels = {name: 1 if name.endswith(("pha", "err")) else 3 for name in NAMES}
    made = {name: torch.rand(count, number, 12, 10) for name, number in channels.items()}
    return made if value is None else {n: torch.full_like(v, value) for n, v in made.items()}


class Held:
    """Holds the thread at its first picture until `go_on` is set, and notes what is written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
        self.go_on, self.came, self.seen, self.threads = threading.Event(), [], [], set()
        add_image = SummaryWriter.add_image

        def slow(writer: SummaryWriter, tag: str, image: torch.Tensor, step: int) -> None:
            self.came.append(step)
            assert self.go_on.wait(60)
            self.threads.add(threading.current_thread())
            self.seen.append((step, tag, image.clone()))
            if error:
                raise error
            add_image(writer, tag, image, step)

        monkeypatch.setattr(SummaryWriter, "add_image", slow)


def test_the_training_goes_on_and_no_picture_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)
    with journal.Journal(tmp_path, 0, 10, 8) as log:
        first = pictures(value=0.5)
        log.train_pictures(1, first)  # returns while the thread is held
        for batch in first.values():
            batch.zero_()
        second = threading.Thread(target=log.train_pictures, args=(2, pictures(value=1.0)))
        second.start()
        second.join(0.2)
        assert second.is_alive() and set(held.came) <= {1}  # one piece of work at a time
        held.go_on.set()
        second.join()
        log.validation(3, 0, RESULTS, pictures(value=0.0))
    assert [step for step, _, _ in held.seen] == [1] * 8 + [2] * 8 + [3] * 8
    assert threading.main_thread() not in held.threads
    for step, level in ((1, 128), (2, 255), (3, 0)):  # each of its moment
        assert all(int(image.max()) == level for at, _, image in held.seen if at == step)
    assert (tmp_path / "preview.png").exists()
    sides = {tuple(image.shape) for _, _, image in held.seen}
    assert sides == {(3, 12 + 4, 5 * (10 + 2) + 2)}  # a row of five samples


def test_the_preview_is_as_it_is_looked_at(tmp_path: Path) -> None:
    shown = pictures(6)
    with journal.Journal(tmp_path, 0, 10, 6) as log:
        log.validation(0, 0, RESULTS, shown)
    columns = [shown[n][:4].expand(-1, 3, -1, -1) for n in ("src", "true_pha", "pred_pha")]
    columns.append(shown["composite"][:4])
    tiles = torch.stack(columns, dim=1).flatten(0, 1)
    save_image(tiles, tmp_path / "as-floats.png", nrow=4, padding=4, pad_value=1.0)
    one, other = (Image.open(tmp_path / name) for name in ("preview.png", "as-floats.png"))
    assert one.size == other.size and one.tobytes() == other.tobytes()


LATER: list[Callable] = [
    lambda log: log.train_pictures(2, pictures()),
    lambda log: log.validation(2, 0, RESULTS, pictures()),
    lambda log: log.train_losses(2, {"alpha": torch.zeros(())}, {"aspp": 1.0}),
    lambda log: log.close(),
]


@pytest.mark.parametrize("later", LATER)
def test_an_error_of_the_thread_comes_to_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, later: Callable
) -> None:
    for error in (OSError(28, "No space left on device"), RuntimeError("of the thread")):
        held = Held(monkeypatch, error)
        log = journal.Journal(tmp_path, 0, 10, 8)
        log.train_pictures(1, pictures())
        held.go_on.set()
        log._beside.join()
        if isinstance(error, OSError):  # which ends no training
            later(log)
            assert "No space left on device" in capsys.readouterr().out
        else:
            with pytest.raises(RuntimeError, match="of the thread"):
                later(log)
        monkeypatch.undo()


def test_what_ends_the_run_is_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    held = Held(monkeypatch, RuntimeError("of the thread"))
    held.go_on.set()
    with pytest.raises(ValueError, match="of the run"), journal.Journal(tmp_path, 0, 10, 8) as log:
        log.train_pictures(1, pictures())
        raise ValueError("of the run")
    told = capsys.readouterr().out
    assert "the last pictures could not be written (of the thread)" in told


def test_a_second_ctrl_c_waits_for_no_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)
    with pytest.raises(KeyboardInterrupt), journal.Journal(tmp_path, 0, 10, 8) as log:
        log.train_pictures(1, pictures())
        raise KeyboardInterrupt
    assert not held.seen
    held.go_on.set()
    log._beside.join()
