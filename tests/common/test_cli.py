"""Command lines: a mistake is one line that names the option meant; a printed command works."""

import importlib
import math
import os
import shlex
import sys
from pathlib import Path

import pytest
import torch

from common import cli
from common.errors import OptionError
from tests.support import ROOT
from training import options, resolve
from training.team import Team

SCRIPTS = ("train_base", "train_refine", "evaluate", "predict", "export", "check_data", "pack_data")


def line_of(capsys: pytest.CaptureFixture, script: str, *words: str) -> str:
    """The one line that a script says of these words, in place of a usage of forty."""
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(script).main(list(words))
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_mistyped_option_is_one_line_in_every_script(
    here: Path, capsys: pytest.CaptureFixture, script: str
) -> None:
    line = line_of(capsys, script, "--no-such-thing", "3")
    assert line == (
        f"{script}.py: error: there is no option --no-such-thing; --help lists the options"
    )
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("script", "words", "meant"),
    [
        ("train_base", ["--batchsize", "4"], "--batch-size"),
        ("train_base", ["--batch_size=4"], "--batch-size"),
        ("train_base", ["--batch", "4"], "--batch-size"),
        ("train_base", ["\N{EM DASH}batch-size", "4"], "--batch-size"),
        ("train_base", ["-batch-size", "4"], "--batch-size"),
        ("train_base", ["--Dataset-Dir", "x"], "--dataset-dir"),
        ("train_base", ["dataset-dir", "x"], "--dataset-dir"),
        ("predict", ["--model-chekpoint", "x"], "--model-checkpoint"),  # others are missing, too
        ("export", ["--fromat", "onnx"], "--format"),
        ("check_data", ["--header-only"], "--headers-only"),
        ("evaluate", ["--true_dir", "x"], "--true-dir"),
        ("pack_data", ["a", "b", "--shard_size", "3"], "--shard-size"),
    ],
)
def test_the_option_that_was_meant_is_named(
    capsys: pytest.CaptureFixture, script: str, words: list[str], meant: str
) -> None:
    assert line_of(capsys, script, *words).endswith(
        f"did you mean {meant}? --help lists the options"
    )


def test_values_that_look_like_options_are_left_alone() -> None:
    parser = cli.Parser("x")
    parser.add_argument("--number", type=float)
    parser.add_argument("--text", nargs="*")
    parser.add_argument("rest", nargs="*")
    found = parser.parse_args(["--number", "-1.5", "--text", "-a b", "--", "--more"])
    assert (found.number, found.text, found.rest) == (-1.5, ["-a b"], ["--more"])


def numbers(script: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every option of a script that takes numbers, and how many."""
    parsers: list[cli.Parser] = []

    def seen(parser: cli.Parser, *_words: object) -> None:
        parsers.append(parser)
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(cli.Parser, "parse_args", seen)
        with pytest.raises(InterruptedError):
            importlib.import_module(script).main([])
    return [
        (action.option_strings[0], action.nargs or 1)  # type: ignore[misc]
        for action in parsers[0]._actions
        if action.type not in (None, Path)
    ]


@pytest.mark.parametrize("script", SCRIPTS)
def test_absurd_numbers_are_one_line_for_every_option(
    here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    asked = numbers(script, monkeypatch)
    assert len(asked) >= {"train_base": 18, "train_refine": 22, "evaluate": 6}.get(script, 1)
    for text in ("1e400", "-1", "nan", "1" * 5000, "", "\udcff", "0x10", "1.5.2"):
        for flag, count in asked:
            line = line_of(capsys, script, flag, *[text] * count)
            assert f" error: argument {flag}: " in line and len(line) < 200
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ["--batch-size", "1000000000"],
        ["--num-workers", "100000"],
        ["--crop-size", "32", "1000000"],
        ["--epoch-end", "10000000000"],
        ["--dist-timeout", "1000000000000"],
        ["--max-steps", "9" * 19],
        ["--lr-decoder", "1e30"],
    ],
)
def test_numbers_that_would_never_begin(capsys: pytest.CaptureFixture, words: list[str]) -> None:
    assert "the most allowed" in line_of(capsys, "train_base", *words)


def test_a_batch_beyond_all_memory_is_refused_before_it_is_read() -> None:
    asked = options.parse_base_options(["--batch-size", "65536", "--crop-size", "64", "16384"])
    with pytest.raises(OptionError, match=r"takes 703,\d+ GB for the pictures alone"):
        resolve.check_memory(65536, asked, torch.device("cpu"))
    asked = options.parse_base_options(["--batch-size", "65536"])
    resolve.check_memory(
        resolve.share_of_batch(options.parse_base_options([]), Team()), asked, torch.device("cpu")
    )


@pytest.mark.parametrize(
    "name",
    [
        "x\udcff",
        "a\nb",
        "a\x1b[31mb",
        ".",
        "..",
        "a/../b",
        "",
        " ",
        "/a",
        "-x",
        "a/-x",
        "a" * 256,
        "/".join(["a" * 200] * 6),
        "a\u2028b",
        "...",
    ],
)
def test_names_that_are_no_folder(here: Path, capsys: pytest.CaptureFixture, name: str) -> None:
    line = line_of(capsys, "train_base", f"--model-name={name}")
    assert "must be a name below checkpoint/ and log/" in line and line.isprintable()
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    "name", ["run 2", "a/b", "./a/", "\u00e9t\u00e9", "v1.2", "\u732b", "a" * 255]
)
def test_names_that_are(name: str) -> None:
    assert options.parse_base_options(["--model-name", name]).model_name == name


def test_a_data_set_in_an_odd_folder_gives_a_run_that_can_be_named(here: Path) -> None:
    for folder in ("a\udcffb", "a\nb", "x" * 250):
        assert not options.fault_of_name(
            options.parse_base_options(["--dataset-dir", folder]).model_name
        )


# ---- Lines to type ------------------------------------------------------------------------------


def program(folder: Path, name: str = "python") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).symlink_to(sys.executable)
    return folder / name


def test_the_python_that_runs_is_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, other = program(here / "venv/bin"), program(here / "other")
    monkeypatch.setattr(sys, "executable", str(own))
    monkeypatch.setenv("PATH", str(own.parent))
    assert cli.command("a.py", "b c") == "python a.py 'b c'"
    monkeypatch.setenv("PATH", str(other.parent))  # leads to the same file, in another environment
    assert cli.command("a.py") == "venv/bin/python a.py"
    monkeypatch.setenv("PATH", "")
    monkeypatch.chdir(here / "other")
    assert shlex.split(cli.command("a.py")) == [str(own), "a.py"]
    monkeypatch.chdir(own.parent)
    assert cli.command("a.py") == "./python a.py"
    monkeypatch.setattr(sys, "executable", "")
    assert cli.command("a.py") == "python a.py"


def test_the_torchrun_of_the_python_that_runs(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = program(here / "venv/bin")
    program(here / "other", "torchrun")
    monkeypatch.setattr(sys, "executable", str(own))
    monkeypatch.setenv("PATH", str(here / "other"))
    by_module = "venv/bin/python -m torch.distributed.run"
    assert cli.tool("torchrun", "torch.distributed.run") == by_module
    program(own.parent, "torchrun")
    monkeypatch.setenv("PATH", os.pathsep.join([str(own.parent), str(here / "other")]))
    assert cli.tool("torchrun", "torch.distributed.run") == "torchrun"


def test_windows_has_other_quotes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.os, "name", "nt")
    assert cli.quoted(["a.py", "C:\\my data\\x"]) == 'a.py "C:\\my data\\x"'


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0 bytes"),
        (9, "9 bytes"),
        (4_200, "4.20 kB"),
        (3.1e6, "3.10 MB"),
        (1.5e9, "1.50 GB"),
        (704e9, "704 GB"),
        (math.nan, "unknown"),
    ],
)
def test_sizes_say_something_however_small(size: float, expected: str) -> None:
    assert cli.size_said(size) == expected


def test_the_journal_names_no_picture_that_is_not_there(
    here: Path, capsys: pytest.CaptureFixture
) -> None:
    from training.journal import Journal

    journal = Journal(here / "log", 0, 1, 1)
    journal._results.append((0, {"mad": 1.0, "mse": 1.0}))  # and Ctrl-C came before the pictures
    journal.close()
    line = capsys.readouterr().out.splitlines()[-1]
    assert "look at" not in line and line.startswith("curves: ")


def test_a_script_is_found_from_where_one_types(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (here, ROOT.parent, ROOT):
        monkeypatch.chdir(folder)
        path = Path(cli.script("evaluate.py"))
        assert path.samefile(ROOT / "evaluate.py") and path.is_absolute() == (folder == here)
    assert cli.script("evaluate.py") == "evaluate.py"
