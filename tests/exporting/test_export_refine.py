"""Exported files of MattingRefine do what the network does, however many patches it chooses."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

import export
from common.choices import REFINED_OUTPUTS
from exporting import formats
from exporting.inference import RefineInference
from model import MattingRefine
from model.load import load_matting
from model.matting_base import Outputs
from model.refiner import cut_patches
from tests.support import scripts
from tests.support.published import published_state
from tests.support.refining import inputs, network, reference_weights

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")

error_of = partial(scripts.error_of, export.main)
CASES = {
    "sampling": {"refine_sample_pixels": 4423},
    "sampling, not preventing": {
        "refine_sample_pixels": 35_840,
        "refine_prevent_oversampling": False,
    },
    "thresholding, 1/8": {"refine_mode": "thresholding", "backbone_scale": 1 / 8},
    "nothing chosen": {"refine_mode": "thresholding", "refine_threshold": 1.0},
    "full": {"refine_mode": "full"},
}


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("refine") / "epoch-0.pth"
    torch.save(reference_weights("mobilenetv2", 3), path)
    return path


def run(checkpoint: Path, kind: str, output: Path, *more: object) -> None:
    argv = ["--model-checkpoint", checkpoint, "--format", kind, "--output", output, *more]
    assert export.main([str(word) for word in argv]) == 0


def made_of_differences(
    model: MattingRefine, src: Tensor, bgr: Tensor, hid: bool = True
) -> Outputs:
    """In place of the coarse network, which takes an exporter half a minute."""
    features = torch.cat([src, bgr], dim=1).repeat(1, 6, 1, 1)[:, :32]
    pha, err = src.mean(1, keepdim=True), (src - bgr).mean(1, keepdim=True)
    return Outputs(pha, bgr - src, err, features)


def in_onnxruntime(path: Path, src: Tensor, bgr: Tensor) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = session.run(None, {"src": src.numpy(), "bgr": bgr.numpy()})
    return {each.name: value for each, value in zip(session.get_outputs(), given, strict=True)}


def check_onnx(path: Path, model: MattingRefine) -> list[int]:
    """Compares at two sizes and a batch of 2; returns how many patches were refined."""
    counts = []
    for shape in ((2, 160, 224), (1, 301, 270)):
        src, bgr = inputs(*shape)
        given, expected = in_onnxruntime(path, src, bgr), model(src, bgr)
        assert tuple(given) == REFINED_OUTPUTS
        for name, value in given.items():
            np.testing.assert_allclose(
                value, getattr(expected, name).numpy(), atol=1e-4, err_msg=name
            )
        counts.append(int(given["ref_sm"].sum()))
    return counts


@pytest.mark.parametrize(
    "case",
    [c if c == "sampling" else pytest.param(c, marks=pytest.mark.slow) for c in CASES],
)
def test_onnx_chooses_and_refines_as_pytorch_does(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MattingRefine, "coarse", made_of_differences)
    monkeypatch.setattr(formats, "WIDE", 320)
    model, path = network(**CASES[case]), tmp_path / "matting.onnx"
    found = formats.export_onnx(model, path, "fp32", REFINED_OUTPUTS, {}, None)
    assert max(found.values()) < 1e-4
    counts = check_onnx(path, model)
    if case == "nothing chosen":
        assert counts == [0, 0]
    elif case == "full":
        assert counts == [2 * 40 * 56, 76 * 68]
    else:
        assert all(counts) and counts[0] != counts[1]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_onnx_of_the_whole_network(checkpoint: Path, tmp_path: Path, precision: str) -> None:
    path = tmp_path / "matting.onnx"
    run(checkpoint, "onnx", path, "--refine-pixels", 4423, "--precision", precision)
    said = {each.key: each.value for each in onnx.load(path).metadata_props}
    assert (said["network"], said["refine_sample_pixels"]) == ("MattingRefine", "4423")
    graph = onnx.load(path).graph
    for each in (*graph.input, *graph.output[:2]):
        dims = [dim.dim_param for dim in each.type.tensor_type.shape.dim]
        assert [dims[0], *dims[2:]] == ["batch", "height", "width"]
    if precision == "fp32":
        check_onnx(path, network(refine_sample_pixels=4423))


def test_torchscript_gives_the_same_and_can_be_set(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "matting.pt"
    published = ("--model-refine-patch-crop-method", "roi_align", "--model-refine-sample-pixels")
    run(checkpoint, "torchscript", path, *published, 4423)
    extra = {"metadata.json": ""}
    loaded = torch.jit.load(path, _extra_files=extra)
    assert json.loads(extra["metadata.json"])["network"] == "MattingRefine"
    assert loaded.state_dict().keys() == reference_weights("mobilenetv2", 3).keys()
    assert loaded.refine_sample_pixels == 4423 and loaded.refine_threshold == 0.1
    src, bgr = inputs(2, 163, 226)
    for settings in ({}, {"backbone_scale": 0.5}, CASES["thresholding, 1/8"]):
        for name, value in settings.items():
            setattr(loaded, name, value)
        model = network(**{"refine_sample_pixels": 4423, **settings})
        for ours, expected in zip(loaded(src, bgr), model(src, bgr), strict=True):
            torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    loaded.refine_mode, loaded.refine_prevent_oversampling = "sampling", False
    assert loaded(src, bgr)[5].sum() == 2 * (4423 // 16)


@pytest.mark.parametrize("kind", ["weights", "safetensors"])
def test_weights_keep_the_refiner(checkpoint: Path, tmp_path: Path, kind: str) -> None:
    run(checkpoint, kind, tmp_path / "out")
    weights = load_matting(tmp_path / "out").state_dict()
    expected = reference_weights("mobilenetv2", 3)
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


def test_half_precision_cuts_the_right_patches_beyond_column_1024() -> None:
    """A coordinate in fp16 has no fraction there, and no odd numbers beyond 2048."""
    width = 3840
    place = torch.arange(width)
    picture = torch.stack([place // 64, place % 64])[None, :, None].expand(1, 2, 8, width).half()
    every = torch.ones(1, 2, width // 4).nonzero()
    patches = cut_patches([picture], every, 4, 2)
    columns = (patches[:, 0] * 64.0 + patches[:, 1].float())[every[:, 1] == 0][:, 2]
    expected = torch.arange(0, width, 4)[:, None] + torch.arange(-2, 6)
    expected[(expected < 0) | (expected >= width)] = 0
    assert torch.equal(columns, expected.float())


@pytest.mark.slow
def test_half_precision_is_right_beyond_column_1024(checkpoint: Path, tmp_path: Path) -> None:
    run(checkpoint, "torchscript", tmp_path / "half.pt", "--precision", "fp16")
    src, bgr = inputs(1, 128, 3840)
    given = torch.jit.load(tmp_path / "half.pt")(src.half(), bgr.half())
    expected = network()(src, bgr, given[5] > 0)
    for name, value in zip(("pha", "fgr"), given, strict=False):
        off = (value.float() - getattr(expected, name)).abs()
        assert off.max() < 0.05 and off[..., 1024:].mean() < 1 / 255, name


def test_comparing_finds_another_choice_but_among_equals() -> None:
    model = network(refine_sample_pixels=4423)
    arguments = (REFINED_OUTPUTS, ((1, 160, 224),), "fp32", Path("file"))

    def refining(chosen_by: MattingRefine):
        return lambda src, bgr: model(src, bgr, chosen_by(src, bgr).ref_sm > 0)

    assert formats.compare(model, refining(model), *arguments)["ref_sm"] == 0
    one_less = network(refine_sample_pixels=4423 - 16)
    assert 0 <= formats.compare(model, refining(one_less), *arguments)["ref_sm"] < 1e-3
    with pytest.raises(formats.ExportError, match="ref_sm"):
        formats.compare(model, refining(network(refine_sample_pixels=2000)), *arguments)
    with pytest.raises(formats.ExportError, match="pha"):
        formats.compare(model, lambda *x: [y + 0.01 for y in model(*x)], *arguments)


def test_a_scale_that_onnx_would_round_otherwise_is_refused(tmp_path: Path) -> None:
    assert RefineInference(network(backbone_scale=0.3)).inexact_side() is None
    with pytest.raises(formats.ExportError, match="--backbone-scale"):
        model = network(backbone_scale=0.123456)
        formats.export_onnx(model, tmp_path / "out", "fp32", REFINED_OUTPUTS, {}, None)


def test_what_goes_with_another_network_is_one_line(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    base = tmp_path / "base.pth"
    torch.save(published_state("mattingbase_mobilenetv2"), base)
    words = ["--format", "torchscript", "--output", tmp_path / "out", "--model-checkpoint"]
    line = error_of(capsys, *words, base, "--refine-pixels", 4423)
    assert "base.pth" in line and "--refine-pixels" in line
    line = error_of(capsys, *words, checkpoint, "--simplified", "pha,fgr")
    assert "epoch-0.pth" in line and "--simplified" in line
    words[1] = "weights"
    assert "--refine-mode" in error_of(capsys, *words, checkpoint, "--refine-mode", "full")
    assert list(tmp_path.iterdir()) == [base]
