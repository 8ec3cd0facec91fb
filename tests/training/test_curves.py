"""results.png shows what results.csv says, of a run as it went in the end."""

import builtins
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from training import journal
from training.curves import draw_results, read_results

HEAD = "start,step,epoch,loss,alpha,mad,grad\n"


def test_a_later_start_replaces_what_it_has_come_to_again(tmp_path: Path) -> None:
    table = tmp_path / "results.csv"
    table.write_text(
        HEAD + "a,0,0,3,1,300,30\na,10,0,2,1,200,20\na,20,1,9,1,900,90\na,30,1,9,1,900,90\n"
        "b,20,1,1,1,100,10\nb,30,1,0.5,1,50,5\n"
    )
    curves = read_results(table)
    assert curves["mad"] == [(0, 300), (10, 200), (20, 100), (30, 50)]
    # One that went on from step 10: what an earlier one found behind it is of another run.
    with table.open("a") as file:
        file.write("c,15,1,1,1,150,10\n")
    assert read_results(table)["mad"] == [(0, 300), (10, 200), (15, 150)]


def test_what_is_no_number_is_passed_over(tmp_path: Path) -> None:
    table = tmp_path / "results.csv"
    table.write_text(HEAD + "a,0,0,3,1,300,30\na,10,0,nan?,1,200,20\n\nrubbish\na,20,0,1,1,100,10")
    curves = read_results(table)
    assert curves["loss"] == [(0, 3), (20, 1)] and curves["grad"] == [(0, 30), (10, 20), (20, 10)]
    assert curves["mad"] == [(0, 300), (10, 200), (20, 100)]


def test_a_row_that_was_cut_short_replaces_nothing(tmp_path: Path) -> None:
    table = tmp_path / "results.csv"
    cut = ["b", "b,", "b,2", "b,20,0,1,1,9"]  # of b,20,0,1,1,90,9
    for end in cut:
        table.write_text(HEAD + f"a,0,0,3,1,300,30\na,10,0,2,1,200,20\n{end}\r\nc,30,0,1,1,100,10")
        assert read_results(table)["mad"] == [(0, 300), (10, 200), (30, 100)], end


def test_it_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    table, picture = tmp_path / "results.csv", tmp_path / "results.png"
    table.write_text(HEAD)
    assert not draw_results(table, picture) and not picture.exists()
    table.write_text(HEAD + "a,0,0,3,1,300,30\na,10,0,2,1,200,20\n")
    assert draw_results(table, picture)
    one = Image.open(picture).convert("L")
    assert one.width > 1200 and one.getextrema()[0] < 100  # three panels, with something in them
    table.write_text(HEAD + "a,0,0,3,1,300,30\na,10,0,2,1,900,20\n")
    assert draw_results(table, picture)
    assert Image.open(picture).convert("L").tobytes() != one.tobytes()
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_it_is_drawn_where_a_notebook_has_set_how_figures_are_shown(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    table, picture = tmp_path / "results.csv", tmp_path / "results.png"
    table.write_text(HEAD + "a,0,0,3,1,300,30\na,10,0,2,1,200,20\n")
    program = (  # in a process of its own, since matplotlib looks when it is first imported
        "import os, sys; from pathlib import Path; from training.curves import draw_results; "
        "assert draw_results(*map(Path, sys.argv[1:])); print(os.environ['MPLBACKEND'])"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, str(table), str(picture)],
        env={**os.environ, "MPLBACKEND": "not_installed_here"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == ["not_installed_here"] and picture.exists()


def test_a_flat_curve_is_not_cut_at_the_top(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = pytest.importorskip("matplotlib.figure").Figure
    table, tops, save = tmp_path / "results.csv", [], figures.savefig

    def noting(figure: Any, *arguments: Any, **named: Any) -> None:
        tops.extend(axes.get_ylim() for axes in figure.axes)
        save(figure, *arguments, **named)

    monkeypatch.setattr(figures, "savefig", noting)
    table.write_text(HEAD + "a,0,0,3,1,300,30\na,10,0,2.999,1,299.9,29.99\n")
    assert draw_results(table, tmp_path / "results.png")
    for (bottom, top), value in zip(tops, (3, 300, 30), strict=True):
        assert bottom == 0 and 1.1 * value < top < 1.3 * value


@pytest.mark.parametrize("height", [3.0, 0.01])  # flat, and on the axis
def test_no_legend_lies_on_a_curve_and_the_run_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, height: float
) -> None:
    figures = pytest.importorskip("matplotlib.figure").Figure
    table, drawn, save = tmp_path / "results.csv", [], figures.savefig

    def noting(figure: Any, *arguments: Any, **named: Any) -> None:
        save(figure, *arguments, **named)
        drawn.append(figure)

    monkeypatch.setattr(figures, "savefig", noting)
    names = ["loss", *(f"{n}_{s}" for s in ("lg", "sm") for n in ("alpha", "gradient"))]
    names += ["error", "mad", "mse", "coarse_mad", "grad"]
    rows = [",".join(["a", str(s), "0", *[str(height)] * len(names)]) for s in range(0, 50, 10)]
    table.write_text("\n".join([",".join(["start", "step", "epoch", *names]), *rows, ""]))
    name = "group/a $x$ run \u4f60"
    assert draw_results(table, tmp_path / "results.png", name)
    (figure,) = drawn
    whole = figure.bbox
    for axes in figure.axes:
        legend, curves = axes.get_legend().get_window_extent(), axes.get_window_extent()
        assert not legend.overlaps(curves)
        assert not legend.overlaps(axes.xaxis.label.get_window_extent())
        assert whole.containsx(legend.x0) and whole.containsx(legend.x1)
        assert whole.containsy(legend.y0)
    assert figure.get_suptitle() == "group/a $x$ run \\u4f60"


def test_a_coarse_figure_is_dashed_beside_the_refined_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = pytest.importorskip("matplotlib.figure").Figure
    table, lines, save = tmp_path / "results.csv", {}, figures.savefig

    def noting(figure: Any, *arguments: Any, **named: Any) -> None:
        lines.update({line.get_label(): line for each in figure.axes for line in each.lines})
        save(figure, *arguments, **named)

    monkeypatch.setattr(figures, "savefig", noting)
    names = ["loss", "alpha_lg", "alpha_sm", "mad", "mse", "grad"]
    names += [f"coarse_{name}" for name in ("mad", "mse", "grad")]
    rows = [",".join(["a", str(step), "0", *(["1"] * len(names))]) for step in (0, 10)]
    table.write_text("\n".join([",".join(["start", "step", "epoch", *names]), *rows]))
    assert draw_results(table, tmp_path / "results.png")
    assert set(lines) == set(names)
    for coarse, fine in [("alpha_sm", "alpha_lg"), *((f"coarse_{n}", n) for n in names[3:6])]:
        assert lines[coarse].get_color() == lines[fine].get_color()
        assert (lines[coarse].get_linestyle(), lines[fine].get_linestyle()) == ("--", "-")
    assert lines["mad"].get_color() != lines["mse"].get_color()


def test_nothing_is_drawn_without_matplotlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = builtins.__import__

    def absent(name: str, *rest: object) -> object:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return found(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    (tmp_path / "results.csv").write_text(HEAD + "a,0,0,3,1,300,30\na,9,0,2,1,200,20\n")
    assert not draw_results(tmp_path / "results.csv", tmp_path / "results.png")
    assert not (tmp_path / "results.png").exists()


def test_a_picture_that_cannot_be_drawn_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fail(*_paths: Path) -> bool:
        raise RuntimeError("no fonts here")

    monkeypatch.setattr(journal, "draw_results", fail)
    names = ("src", "true_pha", "pred_pha", "composite")
    shown = {name: torch.zeros(1, 3, 8, 8) for name in names}
    results = {"loss": 1.0, "mad": 2.0, "mse": 3.0, "grad": 4.0}
    log = journal.Journal(tmp_path, 0, 10, 2)
    log.validation(0, 0, results, shown)
    log.validation(5, 0, results, shown)
    log.close()
    assert "results.png could not be drawn (no fonts here)" in capsys.readouterr().out
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 3
    assert (tmp_path / "preview.png").exists()
