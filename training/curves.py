"""Draws the validations of a run: results.csv becomes results.png, where matplotlib is installed.

It only reads the table that the journal has written, and opens no window.
"""

import csv
import os
from pathlib import Path

from common.files import write_atomically

REFINED, COARSE = (
    tuple(f"{term}_{size}" for term in ("alpha", "gradient", "foreground")) for size in ("lg", "sm")
)
PANELS = {  # title → columns, of those that the table has
    "loss": ("loss", "alpha", "gradient", "foreground", *REFINED, *COARSE, "error"),
    "MAD, MSE (x1000)": ("mad", "mse", "coarse_mad", "coarse_mse"),
    "Grad, Conn (/1000)": ("grad", "conn", "coarse_grad"),
}

HEADROOM = 0.12  # above the highest point, as a part of the axis
LEGEND_COLUMNS = 3
TITLE_AT_MOST = 80  # letters


def fine_of(name: str) -> str:
    """Names the curve of the refined alpha that belongs to a coarse one's, beside which it is drawn
    dashed."""
    return name.removeprefix("coarse_") if name not in COARSE else name.removesuffix("sm") + "lg"


def read_results(table: Path) -> dict[str, list[tuple[int, float]]]:
    """Each column's (step, value), in order. Of steps that a later start has come to again, what it
    found counts, and what an earlier start found behind the point where a later one took over does
    not. Rows that a crash has cut short are passed over, since the last number in them may be half
    of one: a step so halved would take the place of all behind it. So is what is no number."""
    kept: list[tuple[str, int, dict[str, str]]] = []
    with table.open(newline="", encoding="utf-8", errors="replace") as file:
        for row in csv.DictReader(file):
            if None in row.values():
                continue
            try:
                step = int(row["step"])
            except (KeyError, TypeError, ValueError):
                continue
            start = row.get("start") or ""
            kept = [of for of in kept if of[0] == start or of[1] < step]
            kept.append((start, step, row))
    curves: dict[str, list[tuple[int, float]]] = {}
    for _, step, row in kept:
        for name, value in row.items():
            try:
                curves.setdefault(name, []).append((step, float(value)))
            except (TypeError, ValueError):
                continue
    return {name: points for name, points in curves.items() if points}


def draw_results(table: Path, picture: Path, name: str = "") -> bool:
    """Draws `table` into `picture`, a PNG, which is replaced as a whole. name: of the run, as its
    title; letters that matplotlib's font may lack are escaped. Returns whether it was drawn: False
    where matplotlib is not installed, or the table has fewer than two rows, of which there is no
    curve. Raises OSError."""
    curves = read_results(table)
    if max(map(len, curves.values()), default=0) < 2:  # nor is a start kept waiting for matplotlib
        return False
    # A notebook names its own way of showing figures, and matplotlib refuses to be imported where
    # that is not installed. Nothing is shown here.
    shown_by = os.environ.pop("MPLBACKEND", None)
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import EngFormatter, MaxNLocator
    except ImportError:
        return False
    finally:
        if shown_by is not None:
            os.environ["MPLBACKEND"] = shown_by
    panels = {title: [name for name in names if name in curves] for title, names in PANELS.items()}
    panels = {title: names for title, names in panels.items() if names}
    if not panels:
        return False
    rows = max(-(-len(names) // LEGEND_COLUMNS) for names in panels.values())
    figure = Figure(figsize=(4.5 * len(panels), 3.8 + 0.22 * rows), layout="constrained")
    if name:
        shown = name if len(name) <= TITLE_AT_MOST else f"{name[:TITLE_AT_MOST]}..."
        shown = shown.encode("latin-1", "backslashreplace").decode("latin-1")
        figure.suptitle(shown, parse_math=False, fontweight="bold")
    for axes, (title, names) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        colours: dict[str, str] = {}
        for name in names:
            steps, values = zip(*curves[name], strict=True)
            (line,) = axes.plot(
                steps,
                values,
                marker=".",
                label=name,
                linewidth=2 if name == names[0] else 1,
                linestyle="--" if fine_of(name) in colours else "-",
                color=colours.get(fine_of(name)),
            )
            colours[name] = line.get_color()
        axes.update_datalim([(steps[0], 0)])  # so that the margin above is one of the whole height
        axes.margins(y=HEADROOM)
        axes.set(title=title, xlabel="step", ylim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 150k: long numbers would overlap
        axes.grid(alpha=0.3)
        axes.legend(  # below the axis, where there are no curves
            loc="upper center",
            bbox_to_anchor=(0.5, -0.17),
            ncols=min(len(names), LEGEND_COLUMNS),
            fontsize="small",
            frameon=False,
        )
    write_atomically(picture, lambda file: figure.savefig(file, format="png", dpi=110))
    return True
