"""benchmarks.gpu keeps what its parts find, however they end: here with parts of the test's own."""

import argparse
import contextlib
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_parts import common, findings, variants
from model import MattingBase, decoder
from tests.null_gpu import needs_null_gpu, run_script

CASE = '{"case": "a", "figures": {"ms": 1.5, "said": "x|y"}}'
# What a part's process does, FILE being where its findings go.
PROGRAMS = {
    "machine": 'say(\'{"case": "device", "figures": {"is": "none"}}\')',
    "waits": f"say('{CASE}'); print('first'); raise ValueError('what was wrong')",
    "step": f"say('{CASE}'); say('{{\"case\": \"cut')\nimport time\ntime.sleep(60)",
    "graph": 'say(\'{"not here": "no capture"}\')',
    "memory": f"say('{CASE}')",
}


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    def words_of(name: str, findings: Path, *_rest: object) -> list[str]:
        say = f"def say(line):\n    open({str(findings)!r}, 'a').write(line + '\\n')\n"
        return [sys.executable, "-c", say + PROGRAMS[name]]

    monkeypatch.setattr(gpu, "words_of", words_of)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def test_a_part_that_fails_or_hangs_stops_no_other(
    parts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gpu.PARTS, "step", replace(gpu.PARTS["step"], seconds=2))
    assert gpu.main(["--out", str(tmp_path), "--only", *list(PROGRAMS)[1:]]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert list(found) == list(PROGRAMS)  # in the order of their importance
    ends = {name: of["status"] for name, of in found.items()}
    assert ends == {
        "machine": "done",
        "waits": "failed: ValueError: what was wrong",
        "step": "not through after 2 s",
        "graph": "not possible here: no capture",
        "memory": "done",
    }
    # What was found before the end is kept; a line that was cut off is not.
    assert [len(found[name]["cases"]) for name in ("waits", "step", "memory")] == [1, 1, 1]
    text = (tmp_path / "gpu.md").read_text()
    assert "| a | 1.5 | x/y |" in text and "device none" in text
    assert "first" in (tmp_path / "gpu.log").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"gpu.json", "gpu.md", "gpu.log"}


def test_a_run_that_is_cut_off_keeps_what_it_had(
    parts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = gpu.group

    def cut_off(words: list[str], log: object) -> object:
        if "sleep" in words[-1]:
            raise SystemExit(143)
        return process(words, log)

    monkeypatch.setattr(gpu, "group", cut_off)
    with pytest.raises(SystemExit):
        gpu.main(["--out", str(tmp_path), "--only", "waits", "step", "memory"])
    found = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert [of["status"].split(":")[0] for of in found.values()] == ["done", "failed", "cut off"]


def test_what_a_part_has_started_ends_with_it(tmp_path: Path) -> None:
    child = (
        "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True)"
    )
    log = tmp_path / "log"
    with log.open("w") as file, gpu.group([sys.executable, "-c", child], file) as process:
        process.wait()
    number = int(log.read_text())
    until = time.monotonic() + 10
    while time.monotonic() < until and Path(f"/proc/{number}/cmdline").exists():
        if not Path(f"/proc/{number}/cmdline").read_bytes():  # gone, and not yet reaped
            break
        time.sleep(0.05)
    else:
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)


def test_each_part_is_a_function_and_all_fit_into_the_budget() -> None:
    from importlib import import_module

    for part in gpu.PARTS.values():
        module, name = part.where.split(".")
        assert callable(getattr(import_module(f"benchmarks.gpu_parts.{module}"), name))
    assert sum(part.seconds for part in gpu.PARTS.values()) <= gpu.BUDGET


def test_a_missing_package_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "benchmarks.gpu_parts.runs", None)
    file = tmp_path / "findings"
    options = argparse.Namespace(part="tests", findings=file, data=tmp_path, quick=True, until=0.0)
    assert gpu.within(options) == 0
    assert "benchmarks.gpu_parts.runs" in json.loads(file.read_text())["not here"]


def test_numbers_that_are_none_are_words(tmp_path: Path) -> None:
    found = findings.Findings(tmp_path / "findings", tmp_path, True, 1.0)
    found.case("a", some_ms=float("nan"), rows=[1.0, float("inf")])
    line = json.loads((tmp_path / "findings").read_text())
    assert line["figures"] == {"some ms": "nan", "rows": [1.0, "inf"]}


@pytest.mark.slow
@needs_null_gpu
@pytest.mark.parametrize("name", list(gpu.PARTS))
def test_a_part_runs(name: str, drawn: Path, tmp_path: Path) -> None:
    """Numbers mean nothing on the null GPU, and nothing can be captured there."""
    findings = tmp_path / "findings"
    words = ["-m", "benchmarks.gpu", "--quick", "--part", name, "--findings", str(findings)]
    words += ["--data", str(drawn), "--until", str(time.time() + 1000)]
    done = run_script(words, gpu.ROOT, memory=6e9, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in findings.read_text().splitlines()]
    assert lines and ("not here" in lines[-1]) == (name == "graph")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("drawn")


@pytest.mark.slow
@needs_null_gpu
def test_parts_run_from_the_command_line(drawn: Path, tmp_path: Path) -> None:
    words = ["-m", "benchmarks.gpu", "--quick", "--seconds", "4000", "--only", "data", "graph"]
    words += ["--out", str(tmp_path), "--data", str(drawn)]
    done = run_script(words, gpu.ROOT, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert {name: of["status"][:12] for name, of in parts.items()} == {
        "machine": "done",
        "data": "done",
        "graph": "not possible",
    }
    assert "device null GPU" in (tmp_path / "gpu.md").read_text()


def test_without_a_gpu_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(SystemExit) as ended:
        gpu.main(["--out", str(tmp_path / "out")])
    assert ended.value.code == 2 and not (tmp_path / "out").exists()
    assert "no CUDA device" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("name", list(variants.UNDONE))
def test_a_variant_computes_the_same(name: str) -> None:
    """On the CPU, in float32, where none of them is a matter of rounding alone."""
    training = object.__new__(common.Training)
    training.device, training.layout = torch.device("cpu"), torch.channels_last
    training.autocast = contextlib.nullcontext
    torch.manual_seed(0)
    training.model = MattingBase("mobilenetv2").train()  # in eval mode deep features hardly count
    training.model.seed_dropout([0, 1])
    src, bgr = torch.rand(2, 2, 3, 64, 64)
    join = decoder._join
    expected = training.forward(src, bgr)
    within = variants.UNDONE[name](training)
    with within():
        for one, other in zip(expected, training.forward(src, bgr), strict=True):
            torch.testing.assert_close(other, one, atol=1e-3, rtol=1e-3)
        assert (decoder._join is join) == (
            name not in ("joined in float32", "these undone together")
        )
    assert decoder._join is join
