"""Files that are no weights are named as what they are, with what to do; none is waited for."""

import gzip
import io
import json
import lzma
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
import export
import predict
import train_base
from model.weights_file import WeightsFileError, read_file, read_weights
from tests.support.drawn import backdrop, make_data


def saved() -> bytes:
    file = io.BytesIO()
    torch.save({"a.weight": torch.ones(3)}, file)
    return file.getvalue()


def zipped(**content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, each in content.items():
            archive.writestr(name.replace("__", "/").replace("_DOT_", "."), each)
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo("model.pth")
        info.size = len(saved())
        archive.addfile(info, io.BytesIO(saved()))
    return file.getvalue()


def plain(content: object, protocol: int = 4) -> bytes:
    return pickle.dumps(content, protocol)


def arrays() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.ones(3))
    return file.getvalue()


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (9, 9)).save(file, "PNG")
    return file.getvalue()


# An ONNX file by hand: ir_version 8, producer_name "pytorch".
ONNX = b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\xd5\x01" + bytes(200)
INDEX = {
    "metadata": {"total_size": 9},
    "weight_map": {"a.weight": "model-1-of-2.safetensors"},
}
CASES = {
    "a.pth.gz": (gzip.compress(saved()), r"packed with gzip; unpack it: gunzip"),
    "a.pth.xz": (lzma.compress(saved()), r"packed with xz; unpack it"),
    "a.pth.tar": (tarred(), r"is a tar archive; unpack it"),
    "a.zip": (zipped(data__epoch_DOT_pth=saved()), r"unpack it and give 'data/epoch\.pth'"),
    "a.npz": (arrays(), r"archive of NumPy arrays .*torch\.from_numpy"),
    "a.keras": (zipped(model_DOT_weights_DOT_h5=b"\x89HDF"), r"is a Keras model"),
    "a.onnx": (ONNX, r"is an ONNX model.*PyTorch file"),
    "renamed.pth": (ONNX, r"is an ONNX model"),
    "a.h5": (b"\x89HDF\r\n\x1a\n" + bytes(600), r"is an HDF5 file, as Keras and TensorFlow"),
    "a.tflite": (b"\x1c\0\0\0TFL3" + bytes(600), r"is a TensorFlow Lite model"),
    "model.ckpt.data-00000-of-00001": (os.urandom(600), r"part of a TensorFlow checkpoint"),
    "model.ckpt.index": (bytes(600) + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb", r"a TensorFlow che"),
    "a.gguf": (b"GGUF\x03" + bytes(600), r"is a GGUF file"),
    "a.png": (picture(), r"is a picture; give a weights file"),
    "pytorch_model.bin.index.json": (
        json.dumps({"weight_map": {"a": "x-1.bin", "b": "x-2.bin"}}).encode(),
        r"is an index of weights in 2 files \(x-1\.bin, x-2\.bin\); load each",
    ),
    "model.safetensors.index.json": (json.dumps(INDEX).encode(), r"give .*/model-1-of-2\.safe"),
    "config.json": (b'{"backbone": "resnet50"}', r"is a JSON file"),
    "list.json": (b"[1, 2]", r"is a JSON file"),
    "odd.json": (b'{"weight_map": [{}]}', r"is a JSON file"),
    "404.pth": (b"404: Not Found", r"is a text, .* it begins '404: Not Found'"),
    "error.pth": (b"<Error><Code>AccessDenied</Code></Error>", r"is a web page"),
    "drive.pth": (b"\n\n<!DOCTYPE html><title>Google Drive - Virus scan</title>", r"is a web page"),
    "README": ("# Weights\n\nUm sie zu laden, \u00f6ffne".encode() * 50, r"is a text"),
    "train.py": (b"import torch\n", r"begins 'import torch'"),
    "R-50.pkl": (
        plain({"model": {"a": np.ones(3)}, "__author__": "b"}),
        r"a plain pickle, .*numpy",
    ),
    "renamed.ckpt": (plain(["a"] * 40, 2), r"is a plain pickle, as detectron2"),
    "pointer.pth": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", r"git lfs pull"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_a_file_is_and_what_to_do(tmp_path: Path, name: str) -> None:
    content, expected = CASES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsFileError, match=expected) as refused:
        read_weights(tmp_path / name)
    assert str(refused.value).startswith(str(tmp_path / name))
    assert "\n" not in str(refused.value) and ";" in str(refused.value)


def test_what_is_typed_for_a_plain_pickle_works(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(plain({"model": {"a.weight": np.arange(3.0)}}))
    with pytest.raises(WeightsFileError) as refused:
        read_weights(tmp_path / "a.pkl")
    typed = str(refused.value).partition("make one: ")[2]
    names = {"FILE": tmp_path / "a.pkl", "NEW_FILE": tmp_path / "a.pth"}
    exec(typed, {"torch": torch, "numpy": np, **names})
    assert torch.equal(read_weights(tmp_path / "a.pth").state_dict["a.weight"], torch.arange(3.0))


@pytest.mark.parametrize("protocol", [2, 4])
def test_an_old_file_of_torch_that_is_cut_is_no_plain_pickle(tmp_path: Path, protocol: int) -> None:
    content = {"a.weight": torch.ones(300)}
    torch.save(
        content, tmp_path / "a.pth", pickle_protocol=protocol, _use_new_zipfile_serialization=False
    )
    (tmp_path / "a.pth").write_bytes((tmp_path / "a.pth").read_bytes()[:-600])
    with pytest.raises(WeightsFileError, match="cut short"):
        read_weights(tmp_path / "a.pth")


def test_torch_export_and_script(tmp_path: Path) -> None:
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),))
    torch.export.save(program, tmp_path / "a.pt2")
    with pytest.raises(WeightsFileError, match=r"exported program .*torch\.export\.load"):
        read_weights(tmp_path / "a.pt2")


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        ([], "such as epoch-0.pth"),
        (["epoch-1.pth", "epoch-1.state.pth", "events"], "such as epoch-1.pth"),
        (["config.json", "model.safetensors"], "such as model.safetensors"),
        (["saved_model.pb"], "of a TensorFlow model"),
        (["data.pkl", "version"], "was unpacked to a folder; .*zip -0 -r"),
        (["__0_0.distcp", ".metadata"], "dcp_to_torch"),
    ],
)
def test_folders(tmp_path: Path, inside: list[str], expected: str) -> None:
    for name in inside:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(WeightsFileError, match=expected):
        read_weights(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_pipes_and_devices_are_not_waited_for(here: Path, capsys: pytest.CaptureFixture) -> None:
    os.mkfifo("pipe.pth")
    held = os.open("pipe.pth", os.O_RDWR)  # so that reading it would give something, and fail
    os.write(held, b"x" * 600)
    data = str(make_data(here / "data", 2, 1))
    backdrop(40, 40, 0).save("a.jpg")
    out = ["--output", "out.onnx", "--format", "weights"]
    pictures = ["--src", "a.jpg", "--bgr", "a.jpg", "--output", "out"]
    try:
        for path in ("pipe.pth", "/dev/zero", "/dev/null", f"/dev/fd/{held}"):
            with pytest.raises(WeightsFileError, match="is no file"):
                read_file(path)
            train = ["--dataset-dir", data, "--num-workers", "0", "--batch-size", "2"]
            for main, words in (
                (train_base.main, [*train, "--model-last-checkpoint", path]),
                (train_base.main, [*train, "--model-pretrain-initialization", path]),
                (evaluate.main, ["--dataset-dir", data, "--model-checkpoint", path]),
                (predict.main, [*pictures, "--model-checkpoint", path]),
                (export.main, [*out, "--model-checkpoint", path]),
            ):
                assert main(words) == 2
                line = capsys.readouterr().err.splitlines()[-1]
                assert f"{path} is no file" in line
    finally:
        os.close(held)
    assert sorted(os.listdir()) == ["a.jpg", "data", "pipe.pth"]  # nothing was made
