"""The built-in data set: in the layout that is read, the same for all, and never in the way."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.processes import deferred_signals
from dataset.demo import (
    COUNTS,
    LARGE,
    OBJECT_KINDS,
    SIZES,
    draw_figure,
    draw_object,
    make_demo,
)
from dataset.pictures import find_backgrounds, find_pairs
from tests.support import ROOT

FEW = {"train": 3, "valid": 1, "backgrounds_train": 2, "backgrounds_valid": 1}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "demo"
    make_demo(folder, say=lambda _: None, workers=1, counts=FEW)
    return folder


def test_it_is_read_like_any_other(demo: Path) -> None:
    assert len(find_pairs(demo / "train/fgr", demo / "train/pha")) == 3
    assert len(find_pairs(demo / "valid/fgr", demo / "valid/pha")) == 1
    assert len(find_backgrounds(demo / "backgrounds/train")) == 2
    for path in demo.rglob("*.jpg"):
        width, height = Image.open(path).size
        assert width * height >= 640 * 360 and min(width, height) >= 360


def test_as_many_as_promised() -> None:
    assert COUNTS["train"] >= 200 and COUNTS["valid"] >= 20
    assert COUNTS["backgrounds_train"] >= 100 and COUNTS["backgrounds_valid"] >= 20


def test_a_larger_one_has_other_sizes_alone(tmp_path: Path) -> None:
    counts = {"train": 0, "valid": 1, "backgrounds_train": 0, "backgrounds_valid": 1}
    make_demo(tmp_path / "large", say=lambda _: None, workers=1, **(LARGE | {"counts": counts}))
    doubled = {(2 * width, 2 * height) for width, height in SIZES}
    sizes = [Image.open(path).size for path in (tmp_path / "large").rglob("*.*g")]
    assert len(sizes) == 3 and set(sizes) <= doubled
    assert json.loads((tmp_path / "large/demo.json").read_text())["scale"] == 2


def test_alpha_is_soft_and_neither_empty_nor_full(demo: Path) -> None:
    for path in demo.rglob("pha/*.png"):
        alpha = np.asarray(Image.open(path)) / 255
        assert 0.02 < alpha.mean() < 0.9
        soft = (alpha > 0.02) & (alpha < 0.98)
        assert soft.sum() > 0.02 * (alpha > 0.02).sum()


def test_no_two_pictures_are_alike(demo: Path) -> None:
    pictures = [data for name, data in contents(demo).items() if not name.endswith("json")]
    assert len(set(pictures)) == len(pictures) == 11


def test_the_same_bytes_from_several_processes(demo: Path, tmp_path: Path) -> None:
    make_demo(tmp_path / "demo", say=lambda _: None, workers=2, counts=FEW)
    assert contents(tmp_path / "demo") == contents(demo)


def test_a_finished_set_is_taken_as_it_is(demo: Path) -> None:
    before = contents(demo)
    said = []
    make_demo(demo, say=said.append)
    assert said == [] and contents(demo) == before


@pytest.mark.parametrize("spoil", ["foreign", "incomplete", "older"])
def test_what_is_there_already_is_never_touched(demo: Path, tmp_path: Path, spoil: str) -> None:
    folder = tmp_path / "demo"
    folder.mkdir()
    if spoil == "foreign":
        (folder / "mine.jpg").write_bytes(b"mine")
    else:
        record = json.loads((demo / "demo.json").read_text())
        record["version"] -= spoil == "older"
        (folder / "demo.json").write_text(json.dumps(record))
    before = contents(folder)
    with pytest.raises(ValueError, match="move or delete it"):
        make_demo(folder, counts=FEW)
    assert contents(folder) == before


def test_a_drawing_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dataset.demo.draw_background", fail)
    with pytest.raises(KeyboardInterrupt):
        make_demo(tmp_path / "demo", say=lambda _: None, workers=1, counts=FEW)
    assert list(tmp_path.iterdir()) == []


def test_figures_and_objects_stand_free(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for _ in range(3):
        fgr, pha = draw_figure(rng, 200, 160)
        assert (fgr.mode, pha.mode, fgr.size, pha.size) == ("RGB", "L", (200, 160), (200, 160))
    kinds = set()
    for _ in range(12):
        kind, fgr, pha = draw_object(rng, 120, 90)
        kinds.add(kind)
        assert fgr.size == pha.size == (120, 90)
        assert np.asarray(pha).max() > 200
    assert len(kinds) > 3 and kinds <= set(OBJECT_KINDS)


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no signal masks here")
def test_a_process_that_starts_gets_no_ctrl_c() -> None:
    blocked = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    command = [sys.executable, "-c", blocked]
    with pytest.raises(KeyboardInterrupt), deferred_signals(signal.SIGINT):
        signal.raise_signal(signal.SIGINT)
        within = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    after = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert (within, after) == ("True\n", "False\n")


def test_ctrl_c_that_another_thread_gets_waits_for_the_start_of_a_process_too() -> None:
    over = threading.Event()
    other = threading.Thread(target=over.wait)
    other.start()
    done = []
    try:
        with pytest.raises(KeyboardInterrupt), deferred_signals(signal.SIGINT):
            os.kill(os.getpid(), signal.SIGINT)  # blocked in this thread alone
            time.sleep(0.1)
            done.append(True)
    finally:
        over.set()
        other.join()
    assert done


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_while_it_draws_ends_it_and_its_processes(tmp_path: Path, times: int) -> None:
    draw = "from dataset.demo import make_demo; make_demo('demo', workers=2)"
    process = subprocess.Popen(
        [sys.executable, "-c", draw],
        cwd=tmp_path,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    while not list(tmp_path.rglob("*.jpg")):
        assert process.poll() is None
        time.sleep(0.05)
    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to all of them
        time.sleep(0.2)
    try:
        process.communicate(timeout=60)  # which waits for all that hold its output
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGINT
    assert times > 1 or not list(tmp_path.iterdir())
