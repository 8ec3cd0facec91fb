"""The benchmarks run as written, and what they say is made of what they measured."""

import json
from pathlib import Path

import pytest

from benchmarks import common, export, filters, loader, refine, run, step

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return common.draw_data(tmp_path_factory.mktemp("drawn"), 4)


def test_the_loader(drawn: Path, tmp_path: Path) -> None:
    path = tmp_path / "loader.json"
    loader.main(["--quick", "--data", str(drawn), "--json", str(path)])
    figures = json.loads(path.read_text())
    ms = {name: of["median"] for name, of in figures["ms"].items()}
    assert 0 < ms["read"] < ms["decode_reduced"] < ms["decode"]
    least, most = (figures["worker_over_decode"][name] for name in ("least", "most"))
    assert least <= figures["worker_over_decode"]["median"] <= most
    assert figures["cpu_ms_per_sample"]["most"] <= 1.001 * (
        figures["ms"]["worker"]["most"] + figures["ms"]["device_part"]["most"]
    )
    # A photograph's three pictures, uint8, from a half to the whole of their pixels.
    assert 0.5e6 < figures["bytes_a_sample"] < 2 * 1920 * 1080 * 3.5
    assert set(figures["workers"]) >= {"1", "2"}


def test_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "step.json"
    monkeypatch.chdir(Path(step.__file__).parents[1])
    step.main(["--quick", "--json", str(path)])
    figures = json.loads(path.read_text())
    ratios = figures["over_plain"]["mobilenetv2"]["fp32"]["64"]["2"]
    assert ratios["plain"] == 1.0 and set(ratios) == {
        "plain",
        "foreach",
        "fused",
        "channels_last",
        "channels_last, fused",
        "program",
    }
    # Forward and backward of a network of some 1e9 multiplications at this size.
    assert 0 < figures["cases"][0]["teraflop_a_step"] < 1


def test_the_run(drawn: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    run.main(["--quick", "--data", str(drawn), "--json", str(path)])
    figures = json.loads(path.read_text())
    assert figures["loop_over_model"] > 0 and 0 <= figures["waiting_share"] <= 1
    assert figures["listing"][0]["foregrounds"] == figures["listing"][0]["names"] / 2
    assert figures["start_to_first_step_s"] > 0
    # Crops are drawn: of 9 sizes, the first of a run in 7 steps is not the only one.
    (of,) = figures["cases"]
    assert of["new_shapes"] > 0 and 0 <= of["new_shapes_share"] < 1
    assert not list(drawn.glob("many-*")) and not (drawn / "scratch").exists()


def test_pictures_have_the_size_of_photographs(drawn: Path) -> None:
    sizes = [path.stat().st_size for path in drawn.glob("train/fgr/*.jpg")]
    assert all(200_000 < size < 400_000 for size in sizes)


@pytest.mark.slow
def test_exported_formats(tmp_path: Path) -> None:
    export.main(["--quick", "--json", str(tmp_path / "export.json")])
    (case,) = json.loads((tmp_path / "export.json").read_text())["cases"]
    assert set(case["seconds"]) == set(case["times_as_fast"]) and len(case["seconds"]) == 5
    assert case["times_as_fast"]["PyTorch"] == 1.0
    for name, ratio in case["times_as_fast"].items():
        least, most = (case["seconds"][name][of] for of in ("least", "most"))
        plain = case["seconds"]["PyTorch"]
        assert plain["least"] / most <= ratio <= plain["most"] / least


def test_filters_have_the_values_of_kornia(tmp_path: Path) -> None:
    filters.main(["--quick", "--json", str(tmp_path / "filters.json")])
    for case in json.loads((tmp_path / "filters.json").read_text())["cases"]:
        # To the full size, kornia takes each fourth pixel of an alpha that it wants large.
        if "to the full size" not in case["filter"]:
            assert case["inside"] < 1e-4, case


def test_what_a_refiner_costs(tmp_path: Path) -> None:
    path = tmp_path / "refine.json"
    refine.main(["--quick", "--json", str(path)])
    cases = json.loads(path.read_text())["cases"]
    assert [case["way"] for case in cases] == refine.ways()
    # A process holds its libraries at least.
    assert all(case["seconds"][0] > 0 and case["mb"][0] > 200 for case in cases)
