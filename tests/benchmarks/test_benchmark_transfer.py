"""The experiment on transfer: its file is a published one, its arithmetic right, and it runs."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import transfer
from benchmarks.scenes import CLASSES, draw_scene, draw_scenes
from tests.support.published import STATE_DICTS


def test_its_deeplab_is_saved_under_the_published_names() -> None:
    ours = {n: list(v.shape) for n, v in transfer.DeepLab(21).published_state_dict().items()}
    assert ours == STATE_DICTS["vainf_deeplabv3_mobilenet"]


def test_scenes_are_labelled_where_things_are() -> None:
    seen = set()
    for number in range(12):
        scene, labels = draw_scene(number, 64)
        assert scene.shape == (64, 64, 3) and labels.shape == (64, 64)
        seen |= set(np.unique(labels))
    assert {0, 1} < seen and max(seen) < len(CLASSES)
    again, labels_again = draw_scenes(3, 2, 64, processes=1)
    assert np.array_equal(again[0], draw_scene(3, 64)[0])
    assert np.array_equal(labels_again[1], draw_scene(4, 64)[1])


def test_steps_to_a_goal() -> None:
    curve = np.array([100.0, 80, 40, 50, 10])
    assert transfer.steps_to(curve, 100, 20) == 0
    assert transfer.steps_to(curve, 60, 20) == 30
    assert transfer.steps_to(curve, 40, 20) == 40
    assert transfer.steps_to(curve, 9, 20) is None


def test_the_summary_compares_runs_of_one_seed() -> None:
    flat = {"scratch": [[90, 60, 30, 30], [90] * 4], "transfer": [[60, 30, 30, 30], [99] * 4]}
    assert transfer.smooth(flat["scratch"][0]).tolist() == [75, 60, 40, 30]
    scratch, ours = transfer.summarise({k: v[:1] for k, v in flat.items()}, every=10)
    assert scratch["steps_to_scratch"] == [30] and scratch["share_of_steps"] == 1
    assert ours["steps_to_scratch"] == [20] and ours["share_of_steps"] == pytest.approx(2 / 3)
    assert "| transfer | 30.0 (30.0 .. 30.0) | 20 | 0.67 |" in transfer.table([scratch, ours])
    _, ours = transfer.summarise(flat, every=10)
    assert ours["steps_to_scratch"] == [20, None] and ours["share_of_steps"] is None
    assert (ours["final_mad"], ours["final_mad_min"], ours["final_mad_max"]) == (64.5, 30, 99)
    assert "| 20, not reached | not reached |" in transfer.table([ours])


@pytest.mark.slow
def test_it_runs(here: Path) -> None:
    transfer.main(["--quick", "--device", "cpu", "--output", str(here), "--side", "64"])
    result = json.loads((here / "transfer.json").read_text())
    assert [row["start"] for row in result["rows"]] == list(transfer.STARTS)
    assert all(np.isfinite(result["curves"][start]).all() for start in transfer.STARTS)
    assert Image.open(here / "transfer.png").width > 500
    assert not list(here.glob("*.pth"))
    drawn = (here / "transfer.png").read_bytes()
    (here / "transfer.png").unlink()
    transfer.main(["--again", str(here / "transfer.json"), "--output", str(here)])
    assert (here / "transfer.png").read_bytes() == drawn
