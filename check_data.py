"""Is this data set fit to train on? Looks at every picture and lists all that is wrong.

python check_data.py --dataset-dir DIR
python check_data.py --dataset-name videomatte240k --headers-only --json faults.json
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from common.choices import SPLITS
from common.cli import (
    MAX_BATCH,
    MAX_EPOCHS,
    MAX_PIXELS,
    MAX_WORKERS,
    Formatter,
    Parser,
    integer,
    size_said,
)
from common.files import check_apart, check_output, next_free, write_bytes
from common.script import run_script
from common.text import plural, printable, tell
from training.option_groups import (
    add_dataset_name,
    check_crop_size,
    check_dataset_name,
    default_workers,
)

if TYPE_CHECKING:
    import numpy as np

    from checking.faults import Fault, Group

DESCRIPTION = """\
Is this data set fit to train on? Looks at every picture and lists all that is wrong:

    python check_data.py --dataset-dir DIR

Errors (pictures without a partner, of unlike sizes, that cannot be read; alpha that is a colour
picture, or looks inverted; a file in both train and valid; folders that cannot be used; alpha
that is empty, full, of one grey, nowhere clear nor opaque, or binary in more than half of the
pairs) end it with status 1. Warnings (single such alphas, pictures smaller than the crop, the
same file again) do not.
"""
ERRORS_NAMED, WARNINGS_NAMED = 20, 5  # of a kind, on the terminal
ROWS_AT_MOST = 200  # of the contact sheet: up to twice as many are drawn, 0.8 MB each


def main(argv: list[str] | None = None) -> int:
    """Checks as the command line says. Returns the exit status: 0; 1 where the data set is not fit
    to train on; 2 where the input is at fault, with one line that says what; 128 + the signal's
    number where it was asked to stop."""
    return run_script(
        "check_data.py",
        parse_options,
        check,
        argv,
        when_memory_is_short=lambda _: "out of memory; type fewer --num-workers",
    )


def check(options: argparse.Namespace) -> int:
    """Checks, prints and writes. Raises the errors that are turned into a line."""
    from tqdm import tqdm

    from checking.faults import duplicates, errors_among
    from checking.look import CheckOptions, check_all, list_groups
    from dataset.folders import data_folders, places

    outputs = [path for path in (options.json, options.contact_sheet) if path]
    for path in outputs:
        check_output(path, options.overwrite)

    # ---- Look -----------------------------------------------------------------------------------

    folders = data_folders(options.dataset_name, options.dataset_dir, tell)
    check_apart(outputs, places(folders))
    groups, faults, counts = list_groups(folders, tell)
    print_counts(counts)
    check = CheckOptions(options.crop_size[1], options.headers_only)
    total = sum(len(group.pictures) for group in groups)
    with tqdm(total=total, unit="picture", disable=not sys.stderr.isatty(), leave=False) as bar:
        faults += check_all(groups, check, options.num_workers, bar.update)
    faults += duplicates(groups)
    errors = errors_among(faults, groups)

    # ---- Tell -----------------------------------------------------------------------------------

    print_sizes(groups)
    print_faults(faults, errors)
    print(verdict(faults, errors, options.headers_only))
    takes = what_it_takes(groups, options)
    if takes:
        print(said_of(takes, options))
    if options.json:
        write_json(options, counts, faults, errors, takes)
    if options.contact_sheet and any(group.paired for group in groups):
        write_contact_sheet(options, groups, faults)
    return 1 if errors else 0


# ------------------------------------------------------------------------------------------------
# Telling


def print_counts(counts: dict[str, int]) -> None:
    for split in SPLITS:
        mine = {name.split()[1]: count for name, count in counts.items() if name.startswith(split)}
        print(f"{split}: {', '.join(f'{n:,} {name}' for name, n in mine.items()) or 'nothing'}")


def print_sizes(groups: list["Group"]) -> None:
    for group in groups:
        known = group.sizes[group.sizes[:, 0] > 0]
        if len(known):
            short, long = known.min(axis=1), known.max(axis=1)
            what = "foregrounds" if group.paired else "backgrounds"
            print(
                f"{group.split} {what}: short sides {span(short)} pixels, long sides {span(long)}, "
                f"{size_said(int(group.bytes.sum()))}"
            )


def span(sides: "np.ndarray") -> str:
    low, high = int(sides.min()), int(sides.max())
    return str(low) if low == high else f"{low} to {high}"


def print_faults(faults: list["Fault"], errors: set[str]) -> None:
    """Errors first, in the order of KINDS; each kind with its first files."""
    from checking.faults import KINDS

    for kind in sorted(KINDS, key=lambda kind: kind not in errors):
        some = [fault for fault in faults if fault.kind == kind]
        if not some:
            continue
        most = " (more than half of them)" if kind in errors and not KINDS[kind].error else ""
        count = plural(len(some), "error" if kind in errors else "warning")
        print(f"\n{count}: {KINDS[kind].title}{most}")
        named = ERRORS_NAMED if kind in errors else WARNINGS_NAMED
        for fault in some[:named]:
            print(f"    {fault.split}: {printable(fault.what)}")
        if len(some) > named:
            print(f"    and {len(some) - named:,} more")
    if faults:
        print()


def verdict(faults: list["Fault"], errors: set[str], headers_only: bool) -> str:
    wrong = sum(fault.kind in errors for fault in faults)
    other = len(faults) - wrong
    what = f"{plural(wrong, 'error')}, {plural(other, 'warning')}"
    fit = "NOT fit to train on" if errors else "fit to train on"
    only = "; only headers were read: pixels and duplicates were not looked at"
    return f"{fit}: {what}{only if headers_only else ''}"


def what_it_takes(groups: list["Group"], options: argparse.Namespace) -> dict[str, int]:
    """Returns what training takes of the pictures that can be read: epochs, steps and bytes. A
    sample reads a foreground, its alpha and a background, at their mean size. Empty where there are
    no pairs or no backgrounds to train on."""
    train = {group.paired: group for group in groups if group.split == "train"}
    if len(train) < 2:
        return {}
    count = len(train[True].pictures)
    steps = -(-count // options.batch_size)  # the last batch is filled up
    each = sum(float(group.bytes.mean()) for group in train.values())
    return {
        "pictures": count,
        "backgrounds": len(train[False].pictures),
        "batch_size": options.batch_size,
        "epochs": options.epoch_end,
        "steps_per_epoch": steps,
        "steps": steps * options.epoch_end,
        "bytes_per_sample": round(each),
        "bytes_per_epoch": round(each * steps * options.batch_size),
        "bytes_on_disk": int(sum(group.bytes.sum() for group in groups)),
    }


def said_of(takes: dict[str, int], options: argparse.Namespace) -> str:
    low, high = options.crop_size
    return (
        f"training would take {takes['pictures']:,} foregrounds on {takes['backgrounds']:,} "
        f"backgrounds, in crops of {low} to {high} pixels: "
        f"{plural(takes['epochs'], 'epoch')} of {plural(takes['steps_per_epoch'], 'step')} "
        f"(batch size {takes['batch_size']}), {plural(takes['steps'], 'step')} in all; "
        f"{size_said(takes['bytes_per_epoch'])} read an epoch, "
        f"{size_said(takes['bytes_per_sample'])} a sample; "
        f"{size_said(takes['bytes_on_disk'])} on disk"
    )


# ------------------------------------------------------------------------------------------------
# Writing


def write(path: Path, content: bytes) -> None:
    write_bytes(path, content)
    print(f"wrote {printable(path)}")


def write_json(
    options: argparse.Namespace,
    counts: dict[str, int],
    faults: list["Fault"],
    errors: set[str],
    takes: dict[str, int],
) -> None:
    import json

    content = {
        "data_set": printable(options.dataset_dir or options.dataset_name),
        "headers_only": options.headers_only,
        "fit": not errors,
        "counts": counts,
        "takes": takes,
        "faults": [
            {
                "kind": fault.kind,
                "error": fault.kind in errors,
                "split": fault.split,
                "what": printable(fault.what),
            }
            for fault in faults
        ],
    }
    write(options.json, json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")


def write_contact_sheet(
    options: argparse.Namespace, groups: list["Group"], faults: list["Fault"]
) -> None:
    import io

    from checking.contact_sheet import choose_rows, contact_sheet

    rows = choose_rows(groups, faults, options.contact_rows)
    name = options.dataset_dir.resolve().name if options.dataset_dir else options.dataset_name
    out = io.BytesIO()
    contact_sheet(rows, printable(name)).save(out, "PNG")
    write(options.contact_sheet, out.getvalue())


# ------------------------------------------------------------------------------------------------
# Options


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    """The options of `argv` (None: of the command line). Wrong ones end the program with status 2
    and one line that says which."""
    parser = Parser("check_data.py", description=DESCRIPTION, formatter_class=Formatter)
    # fmt: off
    data = parser.add_argument_group("data")
    add_dataset_name(data)
    data.add_argument(
        "--dataset-dir", type=Path, metavar="DIR",
        help="instead: look at DIR/{train,valid}/{fgr,pha} and DIR/backgrounds/{train,valid}",
    )
    data.add_argument(
        "--headers-only", action="store_true",
        help="read no more than headers: names, sizes and kinds of pictures; not damage behind "
        "the header, what is in alphas, or duplicates",
    )
    data.add_argument(
        "--num-workers", type=integer(0, MAX_WORKERS), metavar="N",
        help="processes that read and decode pictures; 0: none, the program itself (default: one "
        "a core, at most 16)",
    )

    run = parser.add_argument_group("the training that it is for")
    run.add_argument(
        "--crop-size", type=integer(32, MAX_PIXELS), nargs=2, default=[256, 512],
        metavar=("MIN", "MAX"),
        help="sides of the training crops in pixels; a picture with a side below MAX is small",
    )
    run.add_argument(
        "--batch-size", type=integer(1, MAX_BATCH), default=8, metavar="N",
        help="samples a step, of all processes together",
    )
    run.add_argument(
        "--epoch-end", type=integer(1, MAX_EPOCHS), default=8, metavar="N",
        help="epochs",
    )

    out = parser.add_argument_group("output")
    out.add_argument("--json", type=Path, metavar="FILE", help="all that is wrong, and the counts")
    out.add_argument(
        "--contact-sheet", type=Path, metavar="FILE.png",
        help="where the picture of pairs goes (default: log/check_data/NAME.png, or -2, -3 where "
        "that is taken)",
    )
    out.add_argument(
        "--contact-rows", type=integer(0), default=12, metavar="N",
        help="pairs on it, and at most as many again that something is wrong with; 0: no picture",
    )
    out.add_argument("--overwrite", action="store_true", help="replace output files that exist")
    # fmt: on
    options = parser.parse_args(argv)
    _check(parser, options)
    return options


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """What goes with what; and where default files go."""
    check_crop_size(parser, options)
    check_dataset_name(parser, options)
    if options.num_workers is None:
        options.num_workers = default_workers()
    if options.contact_rows > ROWS_AT_MOST:
        parser.error(f"--contact-rows {options.contact_rows} is above {ROWS_AT_MOST}")
    if options.contact_sheet and not options.contact_rows:
        parser.error("--contact-rows 0 draws no --contact-sheet; leave one of them out")
    if options.contact_sheet and options.contact_sheet.suffix.lower() != ".png":
        parser.error(f"--contact-sheet {options.contact_sheet}: it is a PNG; type a name in .png")
    if options.contact_rows and not options.contact_sheet:
        given = options.dataset_dir
        name = given.resolve().name if given else options.dataset_name
        sheets = Path("log/check_data")
        options.contact_sheet = next_free(lambda number: sheets / f"{name}{number}.png")
    if options.json and options.json == options.contact_sheet:
        parser.error(f"two outputs would be the same file: {options.json}")


if __name__ == "__main__":
    sys.exit(main())
