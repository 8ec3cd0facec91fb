"""The experiment on the refiner: what it compares is of one network, and it runs."""

import json
import math
from pathlib import Path

import pytest
import torch

from benchmarks import refine_helps
from common.errors import UserError
from model import MattingBase, MattingRefine
from tests.support.drawn import make_data


def test_three_ways_of_one_network() -> None:
    torch.manual_seed(0)
    model = MattingRefine("mobilenetv2", refine_sample_pixels=3200).train()
    src, bgr = torch.rand(2, 3, 128, 192), torch.rand(2, 3, 128, 192)
    with torch.no_grad():
        model.decoder.conv4.bias[0] = 0.5  # an alpha that is not clamped everywhere
        enlarged, filtered, refined = refine_helps.of_both(model)(src, bgr).values()
        assert model.training
        outputs = model.eval()(src, bgr)
    assert enlarged.shape == filtered.shape == refined.shape == (2, 1, 128, 192)
    assert torch.equal(refined, outputs.pha)
    unrefined = outputs.ref_sm.repeat_interleave(4, 2).repeat_interleave(4, 3) == 0
    assert unrefined.any() and torch.equal(refined[unrefined], enlarged[unrefined])
    assert not torch.equal(filtered, enlarged)


def test_the_table_is_of_all_seeds() -> None:
    def values(grad: float) -> dict:
        ways = (*refine_helps.OF_BASE, *refine_helps.OF_BOTH)
        return {way: {"mad": 2 * grad, "grad": grad} for way in ways}

    runs = [[{"step": 5, **values(grad)}] for grad in (1.0, 2.0, 4.0)]
    table = refine_helps.summary({"base": values(3.0), "runs": runs})
    assert table.count("\n") == 1 + len(refine_helps.OF_BASE) + len(refine_helps.OF_BOTH)
    assert "| 5 | refined alpha | 4.00 (2.00 .. 8.00) | 2.00 (1.00 .. 4.00) |" in table
    assert "| 0 | base network, guided filter | 6.00 | 3.00 |" in table


def test_a_base_network_that_is_not_there_is_named(here: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.pth"):
        refine_helps.main(["--base", "nowhere.pth", "--dataset-dir", "DIR"])


@pytest.mark.slow
def test_it_runs(here: Path) -> None:
    data = make_data(here / "data", train=4, valid=2)
    torch.save(MattingBase("mobilenetv2").state_dict(), "base.pth")
    words = ["--quick", "--device", "cpu", "--base", "base.pth", "--dataset-dir", str(data)]
    refine_helps.main([*words, "--json", "found.json"])
    found = json.loads(Path("found.json").read_text())
    assert [[each["step"] for each in run] for run in found["runs"]] == [[1, 2], [1, 2]]
    figures = [run[-1][way][name] for run in found["runs"] for way in refine_helps.OF_BOTH
               for name in refine_helps.FIGURES]  # fmt: skip
    assert all(map(math.isfinite, figures)) and found["held_out"] == 2
