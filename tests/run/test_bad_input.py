"""Wrong input stops the run before training: one clear line, status 2, nothing written over."""

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import train_base
from tests.support import scripts
from tests.support.drawn import make_data
from tests.support.published import published_file
from training import resolve
from training.options import parse_base_options
from training.team import Team


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return make_data(tmp_path / "own")


def error_of(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    argv = ["--model-backbone", "mobilenetv2", "--model-name", "run", "--crop-size", 32, 32]
    argv += ["--batch-size", 2, "--num-workers", 0, "--device", "cpu", "--max-steps", 1]
    line = scripts.error_of(train_base.main, capsys, *argv, *arguments)
    assert not Path("checkpoint/run").exists()
    return line


def test_checkpoints(own: Path, here: Path, capsys: pytest.CaptureFixture) -> None:
    data = ["--dataset-dir", own]
    for flag in ("--model-pretrain-initialization", "--model-last-checkpoint"):
        assert "there is no file missing.pth" in error_of(capsys, *data, flag, "missing.pth")
        Path("broken.pth").write_bytes(b"nothing of the kind")
        assert "broken.pth" in error_of(capsys, *data, flag, "broken.pth")
    published_file(here / "resnet101.pth", "vainf_deeplabv3_resnet101")
    line = error_of(capsys, *data, "--model-pretrain-initialization", "resnet101.pth")
    assert "resnet101.pth: " in line and "type --model-backbone resnet101" in line
    line = error_of(capsys, *data, "--model-last-checkpoint", "resnet101.pth")
    assert "type --model-pretrain-initialization instead" in line


def test_weights_of_another_backbone(own: Path, here: Path, capsys: pytest.CaptureFixture) -> None:
    from model import MattingBase

    torch.save(MattingBase("resnet50").state_dict(), "resnet50.pth")
    line = error_of(capsys, "--dataset-dir", own, "--model-last-checkpoint", "resnet50.pth")
    assert "its backbone is resnet50: type --model-backbone resnet50" in line


def test_a_state_file_of_another_program(
    own: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    from model import MattingBase

    torch.save(MattingBase("mobilenetv2").state_dict(), "epoch-0.pth")
    torch.save({"step": 3}, "epoch-0.state.pth")
    line = error_of(capsys, "--dataset-dir", own, "--model-last-checkpoint", "epoch-0.pth")
    assert "epoch-0.state.pth is no state file" in line


def test_folders(own: Path, here: Path, capsys: pytest.CaptureFixture) -> None:
    assert "there is no folder missing" in error_of(capsys, "--dataset-dir", "missing")
    line = error_of(capsys, "--dataset-name", "adobe")
    assert "there is no folder PATH_TO/AdobeImageMatting" in line and "data_path.py" in line
    shutil.rmtree(own / "backgrounds/train")
    (own / "backgrounds/train").mkdir()
    line = error_of(capsys, "--dataset-dir", own)
    assert "no picture" in line and "backgrounds/train" in line
    shutil.rmtree(own / "train/pha")
    assert "there is no folder" in error_of(capsys, "--dataset-dir", own)


def test_pairs(own: Path, here: Path, capsys: pytest.CaptureFixture) -> None:
    alpha = own / "valid/pha/clip0/0000.png"
    Image.new("L", (10, 10)).save(alpha)
    assert "(10x10)" in error_of(capsys, "--dataset-dir", own)
    alpha.unlink()
    line = error_of(capsys, "--dataset-dir", own)
    assert "1 picture(s) without a partner" in line and "valid/fgr/clip0/0000.jpg" in line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model-backbone", "resnet18"], "invalid choice: 'resnet18'"),
        (["--batch-size", "1"], "batch norm needs at least two samples"),
        (["--batch-size", "two"], "'two'"),
        (["--crop-size", "64", "32"], "type --crop-size 32 64"),
        (["--crop-size", "16", "64"], "16 is below 32"),
        (["--epoch-start", "8"], "not before --epoch-end 8"),
        (["--dataset-name", "coco"], "invalid choice: 'coco'"),
        (["--dataset-name", "backgrounds"], "no foregrounds"),
        (["--model-name", "../../elsewhere"], "must be a name below"),
        (["--lr-aspp", "nan"], "no positive number"),
        (["--model-pretrain-stem", "rgb"], "goes with --model-pretrain-initialization FILE"),
        (["--model-pretrain-partial"], "goes with --model-pretrain-initialization FILE"),
        (["--precision", "fp16"], "type bf16 or fp32"),
        (["--device", "abacus"], "--device abacus cannot be used"),
        (["--device", "meta"], "neither cpu nor cuda"),
        (["--seed", "99999999999999999999"], "not between 0 and 2^63 - 1"),
        (["--unknown"], "--unknown"),
    ],
)
def test_options(
    here: Path, capsys: pytest.CaptureFixture, arguments: list[str], expected: str
) -> None:
    assert expected in error_of(capsys, *arguments)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_cannot_be_decoded_ends_the_run_by_its_name(
    own: Path, here: Path, capsys: pytest.CaptureFixture, workers: int
) -> None:
    path = own / "train/fgr/clip1/0003.jpg"
    path.write_bytes(path.read_bytes()[:-200])  # its header is whole
    argv = ["--dataset-dir", own, "--model-backbone", "mobilenetv2", "--crop-size", 32, 32]
    argv += ["--batch-size", 6, "--num-workers", workers, "--device", "cpu"]
    assert train_base.main([str(word) for word in argv]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith(f"train_base.py: error: {path} cannot be decoded")


def test_a_background_that_is_no_picture(
    own: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    (own / "backgrounds/train/1.jpg").write_text("hello")
    assert "1.jpg cannot be decoded" in error_of(capsys, "--dataset-dir", own)
    (own / "backgrounds/train/1.jpg").unlink()
    (own / "backgrounds/train/1.jpg").symlink_to("nothing")
    assert "1.jpg is a link" in error_of(capsys, "--dataset-dir", own)


def test_an_entry_that_lacks_a_split(
    here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from data_path import DATA_PATH

    monkeypatch.setitem(DATA_PATH, "adobe", {"train": {"fgr": "somewhere"}})
    assert "no 'train' with 'fgr' and 'pha'" in error_of(capsys, "--dataset-name", "adobe")


def test_folders_that_cannot_be_written(
    own: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    Path("log").write_text("a file")
    assert "log/run cannot be made: log is a file" in error_of(capsys, "--dataset-dir", own)


def test_weights_that_were_replaced_beside_their_state(
    own: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    argv = ["--dataset-dir", own, "--model-backbone", "mobilenetv2", "--crop-size", 32, 32]
    argv += ["--batch-size", 2, "--num-workers", 0, "--max-steps", 1, "--model-name", "old"]
    assert train_base.main([str(word) for word in argv]) == 0
    path = Path("checkpoint/old/epoch-0-iter-1.pth")
    weights = torch.load(path, weights_only=True)
    weights["decoder.conv4.bias"][0] += 1
    torch.save(weights, path)
    line = error_of(capsys, "--dataset-dir", own, "--model-last-checkpoint", path)
    assert "epoch-0-iter-1.state.pth does not belong" in line


def test_published_command_lines_are_taken() -> None:
    typed = """--dataset-name videomatte240k --model-backbone resnet50 --model-name NAME
        --model-pretrain-initialization pretraining/best_deeplabv3_resnet50_voc_os16.pth
        --model-last-checkpoint checkpoint/NAME/epoch-3.pth --batch-size 8 --num-workers 16
        --epoch-start 4 --epoch-end 8 --log-train-loss-interval 10
        --log-train-images-interval 2000 --log-valid-interval 5000 --checkpoint-interval 5000"""
    options = parse_base_options(typed.split())
    assert (options.model_name, options.epoch_start, options.num_workers) == ("NAME", 4, 16)
    assert options.model_last_checkpoint == Path("checkpoint/NAME/epoch-3.pth")


def test_defaults() -> None:
    options = parse_base_options([])
    assert options.dataset_name == "demo"
    assert options.model_name == "mattingbase-resnet50-demo"
    assert (options.batch_size, options.epoch_start, options.epoch_end) == (8, 0, 8)
    intervals = (
        options.log_train_loss_interval,
        options.log_train_images_interval,
        options.log_valid_interval,
        options.checkpoint_interval,
    )
    assert intervals == (10, 2000, 5000, 5000)
    assert options.crop_size == [256, 512]
    assert resolve.share_of_batch(options, Team()) == 8
    assert not resolve.choose_sync_batchnorm(options, Team())


@pytest.mark.parametrize(
    ("device", "cores", "local_size", "workers"),
    [
        ("cpu", 6, 1, 0),
        ("cuda", 6, 1, 6),
        ("cuda", 6, 2, 3),
        ("cuda", 2, 4, 1),
        ("cuda", 64, 1, 16),
    ],
)
def test_workers_are_one_a_core_beside_a_gpu_and_none_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, device: str, cores: int, local_size: int, workers: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _process: range(cores))
    monkeypatch.setattr(resolve, "choose_device", lambda *_asked: torch.device(device))
    options = parse_base_options([])
    settings = resolve.resolve_options(options, Team(size=local_size, local_size=local_size))
    assert settings.num_workers == workers and options == parse_base_options([])


@pytest.mark.parametrize(("scale", "factor"), [("none", 1), ("linear", 4), ("sqrt", 2)])
def test_learning_rates_follow_the_batch_if_asked_to(scale: str, factor: float) -> None:
    options = parse_base_options(["--batch-size", "32", "--lr-scale", scale])
    assert options.lr_backbone == pytest.approx(1e-4 * factor)
    assert options.lr_aspp == options.lr_decoder == pytest.approx(5e-4 * factor)


@pytest.mark.parametrize("script", ["train_base", "train_refine"])
def test_help_needs_nothing_heavy(script: str) -> None:
    import subprocess
    import sys

    code = (
        f"import sys, {script} as script\n"
        "try: script.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'kornia', 'numpy', 'PIL', 'tensorboard'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    folder = Path(train_base.__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=True
    )
    own = {
        "train_base": ["(default: 8)", "(default: 256 512)", "best_deeplabv3_resnet50"],
        "train_refine": ["(default: 80000)", "(default: 1024 2048)", "mattingbase-resnet50"],
    }
    for word in ("--model-pretrain-initialization", *own[script]):
        assert word in done.stdout
    assert "None)" not in done.stdout and "False)" not in done.stdout
