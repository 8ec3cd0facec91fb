"""Each exported file does what the network does; one that does not is not kept."""

import json
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors
import torch
from safetensors.torch import load_file

import export
from common.choices import OUTPUTS
from exporting import formats as exporting
from exporting.inference import Inference
from model import MattingBase
from model.load import load_matting_base
from model.matting_base import ENCODERS
from model.mobilenet import MobileNetV2Encoder
from tests.support import ROOT, scripts
from tests.support.published import reference_entry
from training.saving import write_checkpoint

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning"),
    pytest.mark.usefixtures("tiny_network_throughout"),
]

error_of = partial(scripts.error_of, export.main)
SIZE = (3, 33, 47)  # batch, height, width; none of those that the export itself compares at

STATE = {
    "format": 2,
    "step": 1234,
    "steps_per_epoch": 300,
    "optimizer": {},
    "scaler": {},
    "data": {},
    "options": {"dataset_dir": "/home/somebody/pictures", "dataset_name": None},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as a run writes it, both files, with the reference's weights."""
    return checkpoint_of("mobilenetv2", tmp_path_factory.mktemp("trained") / "epoch-3.pth")


def checkpoint_of(backbone: str, path: Path) -> Path:
    shapes = {name: value.shape for name, value in MattingBase(backbone).state_dict().items()}
    write_checkpoint(path, {name: reference_entry(name, s) for name, s in shapes.items()}, STATE)
    return path


@pytest.fixture(scope="module")
def onnx_file(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "matting.onnx"
    run(trained, "onnx", path, "--licence", "CC BY 4.0")
    return path


def run(checkpoint: Path, kind: str, output: Path, *more: object, status: int = 0) -> None:
    argv = ["--model-checkpoint", checkpoint, "--format", kind, "--output", output, *more]
    assert export.main([str(word) for word in argv]) == status


def pictures(batch: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(11)
    src, bgr = torch.rand(2, batch, 3, height, width, generator=generator)
    return src, bgr


def expected(checkpoint: Path, src: torch.Tensor, bgr: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return dict(zip(OUTPUTS, load_matting_base(checkpoint)(src, bgr), strict=True))


def in_onnxruntime(path: Path, src: torch.Tensor, bgr: torch.Tensor) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = session.run(None, {"src": src.numpy(), "bgr": bgr.numpy()})
    return {each.name: value for each, value in zip(session.get_outputs(), given, strict=True)}


# ---- ONNX ---------------------------------------------------------------------------------------


def test_onnx_gives_what_pytorch_gives_at_another_size(trained: Path, onnx_file: Path) -> None:
    src, bgr = pictures(*SIZE)
    given, wanted = in_onnxruntime(onnx_file, src, bgr), expected(trained, src, bgr)
    assert list(given) == list(OUTPUTS)
    for name, value in given.items():
        np.testing.assert_allclose(value, wanted[name].numpy(), atol=1e-3, err_msg=name)


def test_onnx_is_one_file_that_says_what_it_is(onnx_file: Path) -> None:
    assert [path.name for path in onnx_file.parent.iterdir()] == ["matting.onnx"]
    network = onnx.load(onnx_file)
    assert [(each.domain, each.version) for each in network.opset_import] == [("", 18)]
    assert {each.key: each.value for each in network.metadata_props} == {
        "network": "MattingBase",
        "backbone": "mobilenetv2",
        "precision": "fp32",
        "step": "1234",
        "dataset": "pictures",
        "licence": "CC BY 4.0",
    }
    sizes = {
        each.name: [dim.dim_param or dim.dim_value for dim in each.type.tensor_type.shape.dim]
        for each in (*network.graph.input, *network.graph.output)
    }
    channels = {"src": 3, "bgr": 3, "pha": 1, "fgr": 3, "err": 1, "hid": 32}
    assert sizes == {name: ["batch", c, "height", "width"] for name, c in channels.items()}


def test_onnx_holds_no_paths_of_this_machine(onnx_file: Path) -> None:
    content = onnx_file.read_bytes()
    for word in (str(ROOT), "site-packages", "stack_trace", "somebody"):
        assert word.encode() not in content, word


def test_an_onnx_file_that_differs_is_not_kept(
    trained: Path,
    onnx_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = onnx.load(onnx_file)
    last = next(each for each in wrong.graph.initializer if each.name == "decoder.conv4.bias")
    values = onnx.numpy_helper.to_array(last) + np.float32(0.002)
    last.CopyFrom(onnx.numpy_helper.from_array(values, last.name))
    monkeypatch.setattr(exporting, "_onnx_model", lambda *_: wrong)
    old = tmp_path / "old.onnx"
    old.write_bytes(b"what was there before")
    words = ["--model-checkpoint", trained, "--format", "onnx", "--output"]
    line = error_of(capsys, *words, tmp_path / "new.onnx")
    assert "new.onnx is not written: its pha" in line and " 0.002" in line
    assert "old.onnx is not written" in error_of(capsys, *words, old, "--overwrite")
    assert [path.name for path in tmp_path.iterdir()] == ["old.onnx"]
    assert old.read_bytes() == b"what was there before"


@pytest.mark.slow
def test_onnx_of_one_size_takes_that_alone(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "fixed.onnx"
    run(trained, "onnx", path, "--size", 64, 80, "--simplified", "fgr,pha")
    src, bgr = pictures(1, 64, 80)
    given, wanted = in_onnxruntime(path, src, bgr), expected(trained, src, bgr)
    assert list(given) == ["fgr", "pha"]
    for name, value in given.items():
        np.testing.assert_allclose(value, wanted[name].numpy(), atol=1e-3)
    with pytest.raises(Exception, match="INVALID_ARGUMENT"):
        in_onnxruntime(path, *pictures(1, 64, 96))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "precision"), [("mobilenetv2", "fp32"), ("resnet50", "fp32"), ("resnet50", "fp16")]
)
def test_published_networks_as_onnx_and_torchscript(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone: str, precision: str
) -> None:
    monkeypatch.setitem(ENCODERS, "mobilenetv2", MobileNetV2Encoder)
    checkpoint = checkpoint_of(backbone, tmp_path / "epoch-3.pth")
    half = precision == "fp16"
    for shape in ((1, 90, 130), SIZE):
        src, bgr = pictures(*shape)
        wanted = expected(checkpoint, src, bgr)
        src, bgr = (src.half(), bgr.half()) if half else (src, bgr)
        for kind in ("onnx", "torchscript"):
            path = tmp_path / f"matting.{kind}"
            if not path.exists():
                run(checkpoint, kind, path, "--precision", precision, "--simplified", "pha,fgr")
            if kind == "onnx":
                given = list(in_onnxruntime(path, src, bgr).values())
            else:
                given = [value.numpy() for value in torch.jit.load(path)(src, bgr)]
            assert len(given) == 2
            for name, value in zip(("pha", "fgr"), given, strict=True):
                assert value.dtype == (np.float16 if half else np.float32)
                difference = np.abs(value.astype(np.float32) - wanted[name].numpy())
                assert difference.max() < (0.02 if half else 1e-3), (kind, name)


# ---- TorchScript, safetensors, weights ----------------------------------------------------------


def test_torchscript_gives_what_pytorch_gives_at_another_size(
    trained: Path, tmp_path: Path
) -> None:
    run(trained, "torchscript", tmp_path / "all.pt")
    run(trained, "torchscript", tmp_path / "two.pt", "--simplified", "pha,fgr")
    extra = {"metadata.json": ""}
    everything = torch.jit.load(tmp_path / "all.pt", _extra_files=extra)
    assert json.loads(extra["metadata.json"])["step"] == "1234"
    src, bgr = pictures(*SIZE)
    wanted = expected(trained, src, bgr)
    for name, value in zip(OUTPUTS, everything(src, bgr), strict=True):
        torch.testing.assert_close(value, wanted[name], atol=1e-5, rtol=0)
    two = torch.jit.load(tmp_path / "two.pt")
    assert two.state_dict()["decoder.conv4.weight"].shape == (4, 54, 3, 3)
    assert everything.state_dict().keys() == wanted_names()
    for name, value in zip(("pha", "fgr"), two(src, bgr), strict=True):
        torch.testing.assert_close(value, wanted[name], atol=1e-5, rtol=0)


def wanted_names() -> set[str]:
    return set(MattingBase("mobilenetv2").state_dict())


def test_safetensors_holds_every_entry_and_says_what_it_is(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "matting.safetensors"
    run(trained, "safetensors", path)
    weights = torch.load(trained, weights_only=True)
    read = load_file(path)
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[name], value) for name, value in weights.items())
    with safetensors.safe_open(path, "pt") as file:
        said = file.metadata()
    assert "licence of the data they were trained on" in said.pop("licence")
    assert said == {
        "format": "pt",
        "network": "MattingBase",
        "backbone": "mobilenetv2",
        "precision": "fp32",
        "step": "1234",
        "dataset": "pictures",
    }
    # What a file of ours says is carried on into the next format.
    run(path, "torchscript", tmp_path / "again.pt", "--licence", "MIT")
    extra = {"metadata.json": ""}
    torch.jit.load(tmp_path / "again.pt", _extra_files=extra)
    again = json.loads(extra["metadata.json"])
    assert (again["step"], again["dataset"], again["licence"]) == ("1234", "pictures", "MIT")


def test_weights_are_a_file_like_a_checkpoints(trained: Path, tmp_path: Path) -> None:
    run(trained.with_name("epoch-3.state.pth"), "weights", tmp_path / "weights.pth")
    assert (tmp_path / "weights.pth").read_bytes()[-64:] == trained.read_bytes()[-64:]
    read = torch.load(tmp_path / "weights.pth", weights_only=True)
    weights = torch.load(trained, weights_only=True)
    assert list(read) == list(weights)
    assert all(torch.equal(read[name], value) for name, value in weights.items())


@pytest.mark.parametrize("kind", ["safetensors", "weights"])
def test_half_the_precision_takes_half_the_room_and_loads(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    model = MattingBase("mobilenetv2").eval()
    torch.save(model.state_dict(), tmp_path / "full.pth")
    run(tmp_path / "full.pth", kind, tmp_path / "half", "--precision", "fp16")
    ratio = (tmp_path / "half").stat().st_size / (tmp_path / "full.pth").stat().st_size
    assert 0.49 < ratio < 0.52
    read = load_matting_base(tmp_path / "half")
    for name, value in model.state_dict().items():
        kept = value.half().float() if value.is_floating_point() else value
        assert torch.equal(read.state_dict()[name], kept)


def test_too_much_is_lost_in_fp16(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    weights = torch.load(trained, weights_only=True)
    weights["decoder.conv4.weight"] *= 50  # and with it what fp16 rounds off before
    torch.save(weights, tmp_path / "steep.pth")
    words = ["--model-checkpoint", tmp_path / "steep.pth"]
    words += ["--precision", "fp16", "--output", tmp_path / "out"]
    for kind in ("torchscript", "weights"):
        line = error_of(capsys, *words, "--format", kind)
        assert "out is not written: its " in line and "needs --precision fp32" in line
    weights["decoder.conv4.bias"][0] = 1e6
    torch.save(weights, tmp_path / "large.pth")
    words[1] = tmp_path / "large.pth"
    line = error_of(capsys, *words, "--format", "weights")
    assert "1 entries hold values beyond fp16's 65504, such as decoder.conv4.bias" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large.pth", "steep.pth"]


def test_comparing_finds_what_differs_in_any_way(trained: Path) -> None:
    model = load_matting_base(trained)
    good = Inference(model, ("pha",))
    arguments = (("pha",), ((1, 64, 64),), "fp32", Path("file"))
    assert exporting.compare(model, good, *arguments)["pha"] < 1e-5
    # In fp16 a grey level on average, and more at a pixel.
    raised = [
        lambda src, bgr, by=by: [good(src.float(), bgr.float())[0] + by] for by in (3e-3, 8e-3)
    ]
    assert exporting.compare(model, raised[0], *arguments[:2], "fp16", Path("file"))["pha"] > 2e-3
    with pytest.raises(exporting.ExportError, match=r"by 0\.008, 0\.008 on average"):
        exporting.compare(model, raised[1], *arguments[:2], "fp16", Path("file"))
    with pytest.raises(exporting.ExportError, match="pha would differ from PyTorch's by nan"):
        exporting.compare(model, lambda *x: [good(*x)[0] * float("nan")], *arguments)
    with pytest.raises(exporting.ExportError, match=r"outputs of \[\(1, 1, 64, 63\)\]"):
        exporting.compare(model, lambda *x: [good(*x)[0][..., 1:]], *arguments)


# ---- Wrong input --------------------------------------------------------------------------------


def test_wrong_input_is_one_line(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    words = ["--model-checkpoint", trained, "--output", output, "--format"]
    assert "goes with --format onnx" in error_of(capsys, *words, "torchscript", "--size", 64, 64)
    assert "goes with" in error_of(capsys, *words, "weights", "--simplified", "pha")
    assert "'pha,alpha' is not a choice" in error_of(
        capsys, *words, "onnx", "--simplified", "pha,alpha"
    )
    assert "below 32" in error_of(capsys, *words, "onnx", "--size", 16, 64)
    assert "--licence has no place" in error_of(capsys, *words, "weights", "--licence", "MIT")
    words[1] = tmp_path / "missing.pth"
    assert "there is no file" in error_of(capsys, *words, "weights")
    words[1] = trained
    for name, found in (
        ("", "is a folder"),
        ("nowhere/out", "there is no folder"),
        ("epoch-9.state.pth", "ends as a checkpoint's state does"),
    ):
        words[3] = tmp_path / name
        assert found in error_of(capsys, *words, "weights")
    words[3] = trained
    assert "is the checkpoint itself" in error_of(capsys, *words, "weights", "--overwrite")
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxruntime" else name)
    words[3] = output
    line = error_of(capsys, *words, "onnx")
    assert "needs onnxruntime, not installed" in line
    assert "pip install onnx onnxscript onnxruntime" in line
    assert list(tmp_path.iterdir()) == []


def test_what_exists_is_replaced_only_when_told(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    output = tmp_path / "out.safetensors"
    output.write_bytes(b"old")
    words = ["--model-checkpoint", trained, "--format", "safetensors", "--output"]
    assert "out.safetensors exists" in error_of(capsys, *words, output)
    assert output.read_bytes() == b"old"
    run(trained, "safetensors", output, "--overwrite")
    assert load_file(output).keys() == wanted_names()
    other = checkpoint_of("mobilenetv2", tmp_path / "epoch-0.pth")
    before = other.read_bytes()
    line = error_of(capsys, *words, other, "--overwrite")
    assert "epoch-0.pth is a checkpoint" in line and other.read_bytes() == before


def test_a_state_of_other_weights_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    state = trained.with_name("epoch-3.state.pth")
    (tmp_path / state.name).write_bytes(state.read_bytes())
    torch.save(MattingBase("mobilenetv2").state_dict(), tmp_path / "epoch-3.pth")
    words = ["--format", "weights", "--output", tmp_path / "out"]
    line = error_of(capsys, "--model-checkpoint", tmp_path / "epoch-3.pth", *words)
    assert "does not belong to these weights" in line and not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_quietly(
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    def interrupted(*_: object) -> None:
        signal.raise_signal(number)

    monkeypatch.setattr(exporting, "compare", interrupted)
    run(trained, "torchscript", tmp_path / "out", status=128 + number)
    assert capsys.readouterr().err == "stopped; nothing was written\n"
    assert list(tmp_path.iterdir()) == []


def test_options_need_no_torch() -> None:
    code = "import export, sys; export.parse_options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_inference_is_mattingbase_and_leaves_it_alone(trained: Path) -> None:
    model = load_matting_base(trained)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    src, bgr = pictures(*SIZE)
    with torch.no_grad():
        wanted = dict(zip(OUTPUTS, model(src, bgr), strict=True))
        for outputs in (OUTPUTS, ("pha", "fgr"), ("hid", "err"), ("fgr",)):
            given = Inference(model, outputs)(src, bgr)
            for name, value in zip(outputs, given, strict=True):
                torch.testing.assert_close(value, wanted[name], atol=1e-5, rtol=0)
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(parameter.requires_grad for parameter in model.parameters())
