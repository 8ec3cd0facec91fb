"""What goes wrong around a run: files of another run, bad pictures, dead workers, no memory."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_data
from PIL import Image
from test_training import ROOT, run, weights

from dataset.folders import data_folders, describe, open_half
from dataset.images import DataError, decode, find_pictures, open_picture
from dataset.matting import LeftOut, MattingDataset
from dataset.sampler import SampleKey
from model import MattingBase
from training import checkpoint, saving, start
from training.options import parse_options
from training.update import loss_scaler

AUTO = ["--model-last-checkpoint", "auto"]


def error_of(capsys: pytest.CaptureFixture) -> str:
    lines = capsys.readouterr().err.splitlines()
    return [line for line in lines if line.startswith("train_base.py: error: ")][-1]


def test_a_checkpoint_of_another_run_is_refused_with_each_difference(
    data: Path, tmp_path: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    run(data, "--max-steps", 1)
    larger = make_data(tmp_path / "larger", train=7)
    other = ["--seed", 3, "--batch-size", 2, "--crop-size", 32, 96, "--dataset-pairing", "zip"]
    run(larger, *other, *AUTO, status=2)
    error = error_of(capsys)
    for difference in (
        "--seed was 0 and is 3",
        "--batch-size was 4 and is 2",
        "--crop-size was 32 64 and is 32 96",
        "--dataset-pairing was random and is zip",
        "the data to train on were 6 foregrounds and 6 backgrounds (fingerprint of their names ",
        " and are 7 foregrounds and 7 backgrounds",
        "add --resume-anyway",
    ):
        assert difference in error
    run(data, *AUTO, backbone="resnet50", status=2)
    assert "--model-backbone was mobilenetv2 and is resnet50" in error_of(capsys)
    run(data, *AUTO, "--resume-anyway", backbone="resnet50", status=2)  # nothing helps there
    assert "its backbone is mobilenetv2: type --model-backbone" in error_of(capsys)
    run(larger, *other, *AUTO, "--resume-anyway", "--max-steps", 5)
    told = capsys.readouterr().out
    assert told.count("(--resume-anyway)") == 5
    assert "continuing checkpoint/run/epoch-0-iter-1.pth at step" in told


def test_the_same_data_elsewhere_are_the_same(
    data: Path, tmp_path: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    run(data, "--max-steps", 1)
    moved = make_data(tmp_path / "moved")
    os.remove(moved / "backgrounds/valid/1.jpg")  # which changes no training
    run(moved, *AUTO, "--max-steps", 2)
    told = capsys.readouterr().out
    assert "note: the data to valid" in told and "--dataset-dir" not in told
    # One name that changes is another data set, though their number is the same.
    names = describe(*open_half(data_folders("", moved, print), "train"))
    for kind, ending in (("fgr", "jpg"), ("pha", "png")):
        path = moved / "train" / kind / f"clip0/0000.{ending}"
        path.rename(path.with_name(f"renamed.{ending}"))
    renamed = describe(*open_half(data_folders("", moved, print), "train"))
    assert {**names, "fingerprint": ""} == {**renamed, "fingerprint": ""}
    assert names["fingerprint"] != renamed["fingerprint"]


@pytest.fixture
def spoilt(tmp_path: Path) -> Path:
    """A background that is none, a foreground cut short, an alpha of another size."""
    own = make_data(tmp_path / "own", train=6)
    path = own / "train/fgr/clip1/0003.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    Image.new("L", (10, 10)).save(own / "train/pha/clip0/0004.png")
    (own / "backgrounds/train/1.jpg").write_text("hello")
    return own


def test_a_bad_picture_is_replaced_by_the_next_foreground(spoilt: Path) -> None:
    halves = open_half(data_folders("", spoilt, print), "train", stop=False)
    with pytest.raises(DataError, match="unlike sizes"):
        open_half(data_folders("", spoilt, print), "train")
    samples = MattingDataset(*halves, seed=1, skip=True)
    names = [Path(samples.foregrounds.paths(index)[0]).name for index in range(6)]
    bad = names.index("0003.jpg")
    plain, replaced = (samples[SampleKey(2, i, 0, (32, 32))] for i in ((bad + 1) % 6, bad))
    assert replaced["files"] == plain["files"]
    assert (replaced["bgr"] == plain["bgr"]).all()
    assert plain["faults"] == [] and "0003.jpg cannot be decoded" in replaced["faults"][0]
    assert isinstance(MattingDataset(*halves)[SampleKey(2, bad, 0, (32, 32))], DataError)


def test_skipping_counts_says_each_once_and_has_a_limit() -> None:
    said = []
    left_out = LeftOut(300, said.append)
    left_out.note(["a.jpg is bad", "b.jpg is bad"])
    left_out.note(["a.jpg is bad"])
    left_out.note(["c.jpg is bad"])
    assert said == [f"left out (bad picture {n}): {name}.jpg is bad" for n, name in
                    enumerate("abc", 1)]  # fmt: skip
    assert left_out.samples == 4
    with pytest.raises(DataError, match="4 pictures were left out, which is more than 1 % of 300"):
        left_out.note(["d.jpg is bad"])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_goes_on_without_a_bad_picture(
    tmp_path: Path, here: Path, capsys: pytest.CaptureFixture, workers: int
) -> None:
    own = make_data(tmp_path / "own")
    path = own / "train/fgr/clip1/0003.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    run(own, "--max-steps", 4, status=2)
    skip = ["--on-bad-image", "skip", "--num-workers", workers, "--overwrite"]
    run(own, "--max-steps", 4, *skip)
    told = capsys.readouterr().out
    assert told.count("left out (bad picture 1)") == 1
    # Once in each of two epochs, and once more where it fills an epoch's last batch.
    assert re.search("1 bad pictures left out, in [234] samples", told)
    (own / "train/fgr/clip1/0001.jpg").write_bytes(b"")
    run(own, "--max-steps", 8, *skip, status=2)
    assert "more than 1 % of 6" in error_of(capsys)


def test_modes_that_do_not_belong(tmp_path: Path) -> None:
    for name, mode, wanted in (
        ("cmyk.jpg", "CMYK", "RGB"),
        ("own-alpha.png", "RGBA", "L"),
        ("grey-alpha.png", "LA", "L"),
    ):
        Image.new(mode, (8, 8)).save(tmp_path / name)
        with pytest.raises(DataError, match=f"{name} cannot be taken as .* its mode is {mode}"):
            decode(open_picture(tmp_path / name), wanted, (8, 8), np.eye(3)[:2])


def test_pictures_that_are_too_large(tmp_path: Path) -> None:
    Image.new("1", (20_000, 5_001)).save(tmp_path / "large.png")
    Image.new("1", (20_000, 5_000)).save(tmp_path / "just.png")
    with pytest.raises(DataError, match="20000x5001, more than 100 million pixels"):
        open_picture(tmp_path / "large.png")
    open_picture(tmp_path / "just.png").close()


def test_other_formats_are_not_decoded(tmp_path: Path) -> None:
    for form in ("GIF", "BMP", "TIFF", "WEBP"):
        Image.new("RGB", (8, 8)).save(tmp_path / "a.png", format=form)
        with pytest.raises(DataError, match="cannot be decoded as JPEG or PNG"):
            open_picture(tmp_path / "a.png")


def test_links_that_lead_back_do_not_hang_the_scan(tmp_path: Path) -> None:
    for folder in ("a", "b", "a/deep"):
        (tmp_path / folder).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / folder / "1.png")
    (tmp_path / "a/deep/up").symlink_to(tmp_path)
    (tmp_path / "a/over").symlink_to("../b")
    (tmp_path / "b/over").symlink_to("../a")
    (tmp_path / "b/self").symlink_to(".")
    (tmp_path / "b/loop").symlink_to("loop")
    found = find_pictures(tmp_path)
    assert found == [
        "a/1.png", "a/deep/1.png", "a/over/1.png",
        "b/1.png", "b/over/1.png", "b/over/deep/1.png",
    ]  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_is_named_and_nothing_is_lost(
    data: Path,
    here: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    from training.update import Update

    watch = Update.watch

    def killing(self: Update, step: int, *rest: object) -> None:
        watch(self, step, *rest)
        if step == 3:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, number)

    monkeypatch.setattr(Update, "watch", killing)
    run(data, "--num-workers", 2, "--checkpoint-interval", 1000, status=2)
    error = error_of(capsys)
    assert f"a process that reads pictures was killed by {number.name}" in error
    assert "fewer --num-workers" in error
    newest = checkpoint.find_checkpoints(Path("checkpoint/run"))[-1]
    state = checkpoint.load_state(newest)
    assert state["step"] >= 3  # what was read already was trained on
    monkeypatch.undo()
    monkeypatch.chdir(here)
    run(data, "--max-steps", state["step"] + 1, *AUTO)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        "too much for any machine",
    ],
)
def test_out_of_memory(
    data: Path,
    here: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception | str,
) -> None:
    from training.update import Update

    backward, calls = Update.backward, []

    def short(self: Update, *arguments: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            if isinstance(error, str):
                torch.empty(2**60)
            raise error
        backward(self, *arguments)

    monkeypatch.setattr(Update, "backward", short)
    run(data, "--max-steps", 4, "--crop-size", 64, 64, status=2)
    told = error_of(capsys)
    assert "this machine is out of memory: this process's peak was " in told
    assert "at a crop of 64x64 with --batch-size 4. Type a smaller --batch-size" in told
    assert checkpoint.read_checkpoint(Path("checkpoint/run/epoch-0.pth")).state["step"] == 2


def test_other_errors_are_not_taken_for_want_of_memory(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.update import Update

    def wrong(*_arguments: object) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Update, "backward", wrong)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        run(data, "--max-steps", 1, "--num-workers", 2)
    assert not multiprocessing.active_children()  # which would keep the program from ending


def test_every_start_is_recorded(data: Path, here: Path, capsys: pytest.CaptureFixture) -> None:
    run(data, "--max-steps", 1, "--seed", 5)
    run(data, "--max-steps", 2, "--seed", 5, *AUTO)
    first, second = json.loads(Path("log/run/run.json").read_text())
    assert (first["start"], first["from"], first["steps_done"]) == ("scratch", None, 0)
    assert second["start"] == "resume" and second["steps_done"] == 1
    assert second["from"] == "checkpoint/run/epoch-0-iter-1.pth"
    assert first["options"]["seed"] == 5 and first["options"]["precision"] == "fp32"
    assert first["options"]["lr_aspp"] == 5e-4
    assert first["versions"]["torch"] == torch.__version__.split("+")[0] or (
        first["versions"]["torch"] == torch.__version__
    )
    assert "CPU" in first["device"]
    halves = {half: open_half(data_folders("", data, print), half) for half in ("train", "valid")}
    assert first["data"] == {half: describe(*each) for half, each in halves.items()}
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    assert (first["commit"] or "").startswith(commit)

    Path("log/run/run.json").write_text("[{")
    run(data, "--max-steps", 3, "--seed", 5, *AUTO)
    assert "run.json cannot be read" in capsys.readouterr().out
    assert Path("log/run/run.json.set-aside").read_text() == "[{"
    assert len(json.loads(Path("log/run/run.json").read_text())) == 1


def test_the_transfer_is_recorded(data: Path, here: Path) -> None:
    run(data, "--max-steps", 1)
    initial = ["--model-pretrain-initialization", "checkpoint/run/epoch-0-iter-1.pth"]
    run(data, "--max-steps", 1, *initial, "--model-name", "next")
    (entry,) = json.loads(Path("log/next/run.json").read_text())
    assert (entry["start"], entry["from"]) == ("transfer", initial[1])
    assert entry["transfer"]["modules"]["total"]["entries"] == 362
    assert len(entry["transfer"]["sha256"]) == 64


def test_deterministic_algorithms_are_asked_for(data: Path, here: Path) -> None:
    run(data, "--max-steps", 1)
    code = (
        "import torch, train_base, sys; torch.set_num_threads(1); "
        "assert train_base.main(sys.argv[1:]) == 0; "
        "assert torch.are_deterministic_algorithms_enabled(); "
        "assert not torch.backends.cudnn.benchmark"
    )
    words = ["--dataset-dir", data, "--model-backbone", "mobilenetv2", "--model-name", "same"]
    words += ["--crop-size", 32, 64, "--batch-size", 4, "--num-workers", 0, "--max-steps", 1]
    subprocess.run(
        [sys.executable, "-c", code, *map(str, words), "--device", "cpu", "--deterministic"],
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    one, other = (weights(f"checkpoint/{name}/epoch-0-iter-1.pth") for name in ("run", "same"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_that_fails_leaves_no_empty_folder(
    data: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    run(data, "--model-pretrain-initialization", data / "train/pha/clip0/0000.png", status=2)
    assert not Path("checkpoint/run").exists()


def test_a_signal_while_workers_are_started_ends_the_program(data: Path, here: Path) -> None:
    """A program of its own, since what is tried is whether it ends."""
    code = (
        "import os, signal, sys, torch, train_base\n"
        "from multiprocessing.process import BaseProcess\n"
        "start, calls = BaseProcess.start, []\n"
        "def asking(self):\n"
        "    start(self)\n"
        "    calls.append(1)\n"
        "    if len(calls) == 2: os.kill(os.getpid(), signal.SIGTERM)\n"
        "BaseProcess.start = asking\n"
        "sys.exit(train_base.main(sys.argv[1:]))"
    )
    words = ["--dataset-dir", data, "--model-backbone", "mobilenetv2", "--model-name", "run"]
    words += ["--crop-size", 32, 64, "--batch-size", 4, "--num-workers", 3, "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONUNBUFFERED", None)
    with open("output.txt", "w") as output:  # both streams into one file, as a cluster has it
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, *map(str, words)],
            env=environment, stdout=output, stderr=output, timeout=120,
        )  # fmt: skip
    told = Path("output.txt").read_text()
    assert done.returncode == 128 + signal.SIGTERM, told
    assert told.strip().splitlines()[-1].startswith("stopped; "), told
    assert "Exception ignored" not in told


def test_an_error_of_ours_in_a_worker_is_not_taken_for_its_death(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(_samples: list) -> None:
        raise RuntimeError("stack expects each tensor to be equal size")

    monkeypatch.setattr("dataset.matting.collate", wrong)
    with pytest.raises(RuntimeError, match="equal size"):
        run(data, "--max-steps", 1, "--num-workers", 1)


def test_one_bad_background_of_few_is_skipped(tmp_path: Path) -> None:
    own = make_data(tmp_path / "own")
    for number in range(2, 6):
        (own / f"backgrounds/train/{number}.jpg").unlink()
    (own / "backgrounds/train/1.jpg").write_bytes(b"")
    halves = open_half(data_folders("", own, print), "train", stop=False)
    samples = MattingDataset(*halves, skip=True)
    for epoch in range(5):
        read = [samples[SampleKey(epoch, index, 0, (32, 32))] for index in range(6)]
        assert not [sample for sample in read if isinstance(sample, DataError)]
        assert {fault for sample in read for fault in sample["faults"]} <= {
            f"{own}/backgrounds/train/1.jpg cannot be decoded as JPEG or PNG (is empty); replace "
            "or remove it, or type --on-bad-image skip"
        }


def test_folders_that_all_link_to_each_other_are_refused(tmp_path: Path) -> None:
    for name in "abcdefgh":
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / name / "1.png")
        for other in "abcdefgh":
            (tmp_path / name / f"to-{other}").symlink_to(tmp_path / other)
    with pytest.raises(DataError, match="is a link behind 3 others"):
        find_pictures(tmp_path)


def test_a_pipe_is_no_picture_and_damaged_exif_no_reason(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    Image.new("RGB", (6, 4)).save(tmp_path / "a.png", exif=b"Exif\x00\x00no such thing")
    assert find_pictures(tmp_path) == ["a.png"]
    picture = open_picture(tmp_path / "a.png")
    assert decode(picture, "RGB", (4, 6), np.eye(3)[:2])[0].shape == (4, 6, 3)


def test_a_log_that_cannot_be_written_ends_no_training(
    data: Path, here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.journal._append_row", full)
    run(data, "--max-steps", 2)
    assert capsys.readouterr().out.count("log/run cannot be written ([Errno 28] No space") == 1
    assert Path("checkpoint/run/epoch-0.pth").exists()


def test_a_row_is_there_as_a_whole(tmp_path: Path) -> None:
    from training.journal import _append_row

    path = tmp_path / "results.csv"
    _append_row(path, {"step": 1, "mad": 0.5})
    path.write_bytes(path.read_bytes() + b"2,0.")  # cut short by a crash
    _append_row(path, {"step": 3, "mad": 0.7})
    assert path.read_bytes() == b"step,mad\r\n1,0.5\r\n2,0.\r\n3,0.7\r\n"


def test_moments_come_back_in_the_layout_of_their_weights(data: Path, here: Path) -> None:
    """A checkpoint of a CPU continues on a GPU, whose weights lie otherwise in memory."""
    run(data, "--max-steps", 2)
    options = parse_options(["--model-backbone", "mobilenetv2", "--model-last-checkpoint", "auto"])
    options.precision = "fp32"
    options.resume_anyway = True
    found = checkpoint.read_checkpoint(Path("checkpoint/run/epoch-0.pth"))
    model = MattingBase("mobilenetv2").to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(start.parameter_groups(model, options), fused=True)
    scaler = loss_scaler(torch.device("cpu"), "fp32")
    assert start.resume(found, model, optimizer, scaler, options, found.state["data"], 2) == 2
    saved = found.state["optimizer"]["state"]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    assert any(not parameter.is_contiguous() for parameter in parameters)
    for number, parameter in enumerate(parameters):
        moment = optimizer.state[parameter]["exp_avg"]
        assert moment.stride() == parameter.stride()
        assert torch.equal(moment, saved[number]["exp_avg"])
    saving.write_checkpoint(Path("1.pth"), model.state_dict(), found.state)
    written = checkpoint.read_checkpoint(Path("1.pth")).weights
    assert all(value.is_contiguous() for value in written.values())
