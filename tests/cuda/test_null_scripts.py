"""Each script on a null GPU, in the ways that change what the host does for CUDA: status 0."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.null_gpu import needs_null_gpu, run_code, run_script
from tests.support import ROOT
from tests.support.predicting import save_weights, scene
from tests.support.published import published_file
from tests.support.running import AUTO, run
from training import checkpoint

pytestmark = needs_null_gpu

TRAIN = ["train_base.py", "--model-name", "run", "--max-steps", 2, "--batch-size", 4]
TRAIN += ["--crop-size", 64, 64, "--device", "cuda"]
MOBILENET, RESNET = (["--model-backbone", name] for name in ("mobilenetv2", "resnet50"))
SLOW = pytest.mark.slow
CLIPPED, PARTS, BF16 = ["--clip-grad-norm", 1], ["--accumulate", 2], ["--precision", "bf16"]


def succeeds(argv: list, folder: Path, **named: object) -> str:
    """What it says, without an error or a warning among it."""
    done = run_script(argv, folder, **named)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_weights(tmp_path_factory.mktemp("weights") / "weights.pth")


# ---- train_base.py ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        pytest.param([*RESNET, "--num-workers", 2, *CLIPPED], id="resnet50, workers, clipped"),
        pytest.param([*MOBILENET, *BF16, "--deterministic", *PARTS], id="bf16, deterministic"),
        pytest.param([*MOBILENET, "--precision", "fp32", "--num-workers", 2], id="fp32, workers"),
        pytest.param([*MOBILENET, *PARTS, *CLIPPED], id="parts, clipped", marks=SLOW),
        pytest.param([*MOBILENET, "--deterministic"], id="deterministic", marks=SLOW),
        pytest.param([*RESNET, *BF16, "--deterministic", *PARTS], id="resnet50, bf16", marks=SLOW),
    ],
)
def test_a_run_trains_validates_and_saves(data: Path, tmp_path: Path, words: list) -> None:
    precision = words[words.index("--precision") + 1] if "--precision" in words else "fp16"
    told = succeeds([*TRAIN, "--num-workers", 0, "--dataset-dir", data, *words], tmp_path)
    assert told.startswith(f"run: {words[1]}, {precision} on cuda:0\n")
    weights = torch.load(next(tmp_path.glob("checkpoint/run/epoch-[0-9].pth")), weights_only=True)
    assert {str(value.device) for value in weights.values()} == {"cpu"}
    assert {value.dtype for value in weights.values()} == {torch.float32, torch.int64}


@pytest.mark.parametrize(
    ("mode", "found"),
    [
        ("sampling", 5),
        ("sampling", 0),
        pytest.param("thresholding", 5, marks=SLOW),
        pytest.param("full", 0, marks=SLOW),
    ],
)
def test_the_second_stage_trains_and_saves(
    data: Path, tmp_path: Path, mode: str, found: int
) -> None:
    """found: patches that the device has chosen of each batch."""
    words = [*TRAIN[1:], *MOBILENET, *CLIPPED, "--num-workers", 0, "--dataset-dir", data]
    argv = ["train_refine.py", *words, "--model-refine-mode", mode]
    told = succeeds(argv, tmp_path, env={"NULL_CUDA_FOUND": str(found)})
    assert told.startswith("run: mobilenetv2, fp16 on cuda:0\n")
    weights = torch.load(next(tmp_path.glob("checkpoint/run/epoch-[0-9].pth")), weights_only=True)
    assert {str(value.device) for value in weights.values()} == {"cpu"}
    assert {value.dtype for value in weights.values()} == {torch.float32, torch.int64}


def test_a_dry_run(data: Path, tmp_path: Path) -> None:
    told = succeeds([*TRAIN, *MOBILENET, "--dataset-dir", data, "--dry-run"], tmp_path)
    assert "dry run: every part works" in told


def test_a_run_starts_with_a_transfer(data: Path, tmp_path: Path) -> None:
    path = published_file(tmp_path / "deeplab.pth", "vainf_deeplabv3_mobilenet")
    words = [*MOBILENET, "--dataset-dir", data, "--model-pretrain-initialization", path]
    told = succeeds([*TRAIN, *words, "--max-steps", 1], tmp_path)
    assert "start: from scratch" not in told and "start: " in told


def test_a_run_of_the_cpu_continues(data: Path, here: Path) -> None:
    run(data, "--max-steps", 1)
    words = [*MOBILENET, "--dataset-dir", data, "--crop-size", 32, 64]
    assert "at step 2" in succeeds([*TRAIN, *words, *AUTO], here)
    path = max(here.glob("checkpoint/run/epoch-*.state.pth"), key=lambda path: path.stat().st_mtime)
    groups = checkpoint.read_file(path)["optimizer"]["param_groups"]
    assert all(group["fused"] for group in groups)


# ---- The others ---------------------------------------------------------------------------------


def test_evaluate(data: Path, weights: Path, tmp_path: Path) -> None:
    argv = ["evaluate.py", "--dataset-dir", data, "--model-checkpoint", weights, "--size", 64]
    succeeds([*argv, "--device", "cuda", "--json", "scores.json"], tmp_path)
    assert (tmp_path / "scores.json").exists()


def test_predict_pictures(weights: Path, tmp_path: Path) -> None:
    for number in range(3):
        for kind, picture in zip(("src", "bgr"), scene(number), strict=True):
            (tmp_path / kind).mkdir(exist_ok=True)
            picture.save(tmp_path / kind / f"{number}.png")
    argv = ["predict.py", "--model-checkpoint", weights, "--src", "src", "--bgr", "bgr"]
    succeeds([*argv, "--output", "out", "--device", "cuda"], tmp_path)
    assert len(list((tmp_path / "out").rglob("*.png"))) >= 3


def test_predict_a_video(weights: Path, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for shade in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * shade, np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    Image.new("RGB", (64, 48)).save(tmp_path / "bgr.png")
    argv = ["predict.py", "--model-checkpoint", weights, "--src", "clip.mp4", "--bgr", "bgr.png"]
    succeeds([*argv, "--output", "out", "--device", "cuda"], tmp_path)
    assert list((tmp_path / "out").rglob("*.*"))


def test_export(weights: Path, tmp_path: Path) -> None:
    argv = ["export.py", "--model-checkpoint", weights, "--output", "network.safetensors"]
    succeeds([*argv, "--format", "safetensors", "--precision", "fp16"], tmp_path)


@SLOW
@pytest.mark.parametrize("name", ["step", "run"])
def test_a_benchmark(tmp_path: Path, name: str) -> None:
    argv = ["-m", f"benchmarks.{name}", "--device", "cuda", "--quick"]
    argv += ["--data", tmp_path / "data", "--json", tmp_path / "figures.json"]
    succeeds(argv, ROOT, timeout=600)
    assert (tmp_path / "figures.json").exists()


@SLOW
def test_the_benchmark_of_transfers() -> None:
    """But for what it writes: a file of numbers, which here are none."""
    source = """
import json
from benchmarks import transfer

written = []
transfer.write = lambda folder, result: written.append(len(result))
if __name__ == "__main__":  # for the processes that it starts
    transfer.main(["--device", "cuda", "--quick"])
    print(json.dumps({"written": written}))
"""
    assert run_code(source, ROOT, timeout=600)["written"]
