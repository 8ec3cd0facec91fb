"""What the benchmarks compute from what they measured."""

import json
from pathlib import Path

import torch

from benchmarks import common, refine, run, step

WHAT = {"warm_up": 2, "steps": 3}


def test_a_new_shape_is_charged_with_what_it_takes_longer() -> None:
    small, large = (64, 64), (64, 96)
    sizes = [small, small, large, small, large, small]
    ends = [10.0, 11, 16, 17, 18, 19]  # the third step, of a shape not seen before, takes 5 seconds
    assert run.new_shapes(ends, sizes, WHAT) == {
        "new_shapes": 1,
        "new_shape_s": 4.0,
        "new_shapes_share": 4 / 7,  # of steps 3 to 5, the measured ones
    }


def test_one_shape_costs_nothing_more() -> None:
    found = run.new_shapes([1.0, 2, 5, 6, 7], [(64, 64)] * 5, WHAT)
    assert found == {"new_shapes": 0, "new_shape_s": 0.0, "new_shapes_share": 0.0}


def test_pictures_of_any_size_are_views_of_one_memory() -> None:
    values = torch.arange(2 * 3 * 8 * 8.0)
    for layout in (torch.contiguous_format, torch.channels_last):
        pictures = step.pictures(values, (2, 3, 4, 6), layout)
        assert pictures.shape == (2, 3, 4, 6)
        assert pictures.is_contiguous(memory_format=layout)
        assert pictures.data_ptr() == values.data_ptr()


def test_a_gpu_gets_few_cases_unless_all_are_asked_for() -> None:
    device = torch.device("cuda")
    few, every = list(step.cases(device, False)), list(step.cases(device, False, every=True))
    assert len(few) <= 6 and len(every) == len(set(every)) == 54
    # A run's crops are those of the recipe.
    assert all(of["crop"] == [256, 512] for of in run.cases(device, quick=False))


def test_quick_replaces_no_measured_figures(tmp_path: Path) -> None:
    path = tmp_path / "step.json"
    for quick, kept in ((True, True), (True, True), (False, False), (True, False)):
        common.write(path, {"quick": quick})
        assert json.loads(path.read_text()) == {"quick": kept}


def test_a_refiner_is_compared_within_its_turn() -> None:
    refined, whole = refine.way_of(1 / 4, 80_000), refine.FULL
    cases = [
        {"backbone": "resnet50", "size": "HD", "way": way, "seconds": seconds, "mb": [1.0] * 3}
        for way, seconds in ((refined, [1.0, 2.0, 9.0]), (whole, [20.0, 20.0, 30.0]))
    ]
    assert refine.bar(cases) == 0.1
    assert refine.bar(cases[:1]) is None
    _, rows = refine.report([*cases, {"backbone": "resnet50", "size": "4K", "way": whole}])
    assert rows[0][2:] == ["1/4 + 80,000 pixels", "2.00 (1.00 .. 9.00)", "1"]
    assert rows[2][3] == "not measured"
