"""Weights, videos, profiles and machines of people's own, as they met them (../shared/cases): what
their command lines give. Data sets of this kind: tests/dataset/test_cases_of_data.py."""

import runpy
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import predict
from model import MattingBase
from tests.support import CASES, ROOT
from tests.support.predicting import save_weights
from tests.support.running import has_little_shm

pytestmark = [
    pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases beside this clone"),
    pytest.mark.published,
]


def own_words(case: str) -> list[str]:
    """The command that the case's run.sh gives train_base.py, with this Python."""
    words = shlex.split((CASES / case / "run.sh").read_text(), comments=True)
    words = words[words.index("train_base.py") :]
    words = words[: words.index("&")] if "&" in words else words
    words[0] = str(ROOT / words[0])
    words[words.index("--dataset-dir") + 1] = str(CASES / case / "data")
    return [sys.executable, *words]


def run_case(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """run.py, in this process; the current folder stands for the program's."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    runpy.run_path(str(CASES / case / "run.py"))


def test_weights_are_found_in_whatever_they_are_wrapped(
    here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_case("weights_wrappings", monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11 and all(line.endswith(" ok") for line in lines), lines


def test_videos_keep_their_shape_and_are_named_where_they_are_not_read(
    here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av")
    (here / "checkpoint/base0").mkdir(parents=True)
    save_weights(here / "checkpoint/base0/best.pth")
    run_case("videos", monkeypatch)
    said = capsys.readouterr()
    clip, hlg, mts, *_ = said.out.split("== ")[1:]
    assert all("4 frame" in each for each in (clip, hlg, mts))
    assert "hlg.mp4 is HLG, BT.2020" in hlg
    many, com_bgr = said.err.splitlines()
    assert "no picture in many; there are 1 .mp4" in many and "ffmpeg -i" in many
    assert "hlg.mp4 is a video, not a picture" in com_bgr
    assert "sar (Fraction(4, 3), 2, 2) -> (Fraction(4, 3), 1, 1)" in said.out
    assert "hlg (None, 9, 18) -> (None, 1, 1)" in said.out


def test_a_profile_s_colours_are_those_that_a_viewer_shows(here: Path) -> None:
    torch.manual_seed(0)
    state = MattingBase("mobilenetv2").state_dict()
    for name in ("weight", "bias"):
        state[f"decoder.conv4.{name}"].zero_()  # so that fgr is src
    torch.save(state, "weights.pth")
    case = CASES / "icc_profile_dropped"
    words = ["--model-checkpoint", "weights.pth", "--src", case / "src.jpg", "--bgr"]
    words += [case / "bgr.jpg", "--output", "out", "--type", "com", "fgr"]
    assert predict.main([str(word) for word in [*words, "--device", "cpu", "--size", 64]]) == 0
    for kind in ("com", "fgr"):
        picture = Image.open(f"out/{kind}/src.png")
        assert "icc_profile" not in picture.info
        colours = np.asarray(picture)[..., :3].reshape(-1, 3).astype(int)
        assert np.abs(colours - (252, 0, 6)).max() <= 3  # 230 40 40 by its profile; in sRGB


@pytest.mark.slow
def test_a_terminal_s_end_saves_the_step(here: Path) -> None:
    process = subprocess.Popen(
        own_words("sighup"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        while not (line := process.stdout.readline()).startswith("step "):
            assert line, process.stderr.read()
        process.send_signal(signal.SIGHUP)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGHUP
    assert err.splitlines()[-1].startswith("stopped; to continue: ")
    assert list(here.glob("checkpoint/case/*.pth")) and list(here.glob("checkpoint/case/*.state.*"))


@pytest.mark.slow
def test_a_container_s_dev_shm_is_enough(here: Path) -> None:
    done = has_little_shm(shlex.join(own_words("shm_hang")), "64k")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "step 2/2" in done.stdout and "--shm-size" in done.stdout
