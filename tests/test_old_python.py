"""A Python that is too old is told so, by the few lines that it has to understand."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

SCRIPTS = ["train_base", "train_refine", "evaluate", "predict", "export", "check_data", "pack_data"]
OLD = [path for minor in range(6, 10) for path in Path("/").glob(f"usr/bin/python3.{minor}")]
OLD += sorted(Path.home().glob(".pyenv/versions/3.[6-9].*/bin/python"))


@pytest.mark.parametrize("name", [*SCRIPTS, "common/__init__"])
def test_an_old_python_can_read_it_up_to_the_refusal(name: str) -> None:
    text = (ROOT / f"{name}.py").read_text()
    ast.parse(text, feature_version=(3, 6))
    imports = [
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.parse(text).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    later = [each for each in imports if each.split(".")[0] not in sys.stdlib_module_names]
    assert not later or later[0].startswith("common")  # whose first lines refuse it


@pytest.mark.parametrize("script", SCRIPTS)
def test_it_is_one_line_and_status_2(script: str) -> None:
    as_old = "import runpy, sys; sys.version_info = (3, 9, 18); sys.argv = sys.argv[1:]; "
    as_old += "runpy.run_module(sys.argv[0], run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", as_old, script, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: this is Python 3.9.18 .* needs 3.10 or later; .*\n", done.stderr)


@pytest.mark.skipif(not OLD, reason="no old Python here")
@pytest.mark.parametrize("python", OLD, ids=str)
def test_real_ones(python: Path) -> None:
    for script in SCRIPTS:
        done = subprocess.run(
            [python, "-m", script, "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2 and "needs 3.10 or later" in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1


def test_what_is_written_for_users_agrees() -> None:
    oldest = re.search(
        r"OLDEST_PYTHON = \((\d+), (\d+)\)", (ROOT / "common/__init__.py").read_text()
    )
    version = ".".join(oldest.groups())
    assert f'requires-python = ">={version}"' in (ROOT / "pyproject.toml").read_text()
    assert f"Python {version} or later" in (ROOT / "README.md").read_text()
