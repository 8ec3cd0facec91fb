"""Files of others: what is read, whatever it is wrapped in, and what is refused with what words."""

import argparse
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from model.weights_file import WeightsFileError, read_file, read_weights

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.count": torch.tensor(3)}


def repack(source: Path, target: Path, old: bytes = b"", new: bytes = b"", **how: int) -> Path:
    """A copy of an archive of torch.save with something replaced in its pickle."""
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target, "w", **how) as after:
        for entry in before.namelist():
            content = before.read(entry)
            if entry.endswith("data.pkl") and old:
                assert old in content
                content = content.replace(old, new)
            after.writestr(entry, content)
    return target


@pytest.mark.parametrize("zip_format", [True, False])
@pytest.mark.parametrize("wrapper", ["", "model_state", "state_dict", "model", "state_dict_ema"])
def test_state_dicts_are_found_in_both_formats(
    tmp_path: Path, wrapper: str, zip_format: bool
) -> None:
    content = {"epoch": 3, wrapper: STATE, "lr": [0.1]} if wrapper else STATE
    path = tmp_path / "file.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zip_format)
    weights = read_weights(path)
    assert weights.wrapper == wrapper
    assert list(weights.state_dict) == list(STATE)
    assert all(torch.equal(weights.state_dict[name], STATE[name]) for name in STATE)


def test_averaged_weights_come_before_the_last_ones(tmp_path: Path) -> None:
    averaged = {name: value + 1 for name, value in STATE.items()}
    torch.save({"state_dict": STATE, "state_dict_ema": averaged}, tmp_path / "file.pth")
    weights = read_weights(tmp_path / "file.pth")
    assert weights.wrapper == "state_dict_ema"
    assert torch.equal(weights.state_dict["a.weight"], averaged["a.weight"])


def test_a_tensor_beside_the_wrapper_does_not_hide_it(tmp_path: Path) -> None:
    content = {"epoch": 9, "state_dict": STATE, "best_acc1": torch.tensor(71.0)}
    torch.save(content, tmp_path / "file.pth")
    assert list(read_weights(tmp_path / "file.pth").state_dict) == list(STATE)


def test_odd_contents_are_left_out(tmp_path: Path) -> None:
    content = {**STATE, 0: torch.ones(1), "meta": torch.ones(2, device="meta")}
    content["sparse"] = torch.eye(2).to_sparse()
    content["model"] = content
    torch.save(content, tmp_path / "file.pth")
    assert list(read_weights(tmp_path / "file.pth").state_dict) == list(STATE)


def test_a_numpy_scalar_must_be_a_number(tmp_path: Path) -> None:
    """Else a file of a kilobyte could ask for gigabytes."""
    torch.save({"a": np.float64(0.5)}, tmp_path / "file.pth")
    whole = (tmp_path / "file.pth").read_bytes()
    assert b"f8" in whole
    path = repack(tmp_path / "file.pth", tmp_path / "huge.pth", b"f8", b"V300000000")
    with pytest.raises(WeightsFileError):
        read_file(path)


def test_safetensors(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "weights.bin")  # known by its content, not by its name
    read = read_weights(tmp_path / "weights.bin").state_dict
    assert all(torch.equal(read[name], STATE[name]) for name in STATE)
    whole = (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "weights.bin").write_bytes(whole[:-3])
    with pytest.raises(WeightsFileError, match="cannot be read as safetensors"):
        read_weights(tmp_path / "weights.bin")


def test_what_torchvisions_training_script_saves(tmp_path: Path) -> None:
    arguments = argparse.Namespace(lr=0.02, data_path="/data", weights=None)
    content = {"model": STATE, "optimizer": {}, "lr_scheduler": {}, "epoch": 9, "args": arguments}
    torch.save(content, tmp_path / "model_9.pth")
    assert read_file(tmp_path / "model_9.pth")["args"] == arguments
    assert read_weights(tmp_path / "model_9.pth").wrapper == "model"


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_numpy_scalars_of_both_numpys(tmp_path: Path, module: bytes) -> None:
    torch.save({"model_state": STATE, "best_score": np.float64(0.5)}, tmp_path / "file.pth")
    written = np.float64(0.5).__reduce__()[0].__module__.encode()
    path = repack(
        tmp_path / "file.pth", tmp_path / "other.pth", b"c" + written + b"\n", b"c" + module + b"\n"
    )
    assert read_file(path)["best_score"] == 0.5
    assert list(read_weights(path).state_dict) == list(STATE)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_no_code_of_a_file_is_run(tmp_path: Path, form: str) -> None:
    class Payload:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "was-run",))

    path = tmp_path / "payload.pth"
    if form == "pickle":
        path.write_bytes(pickle.dumps(Payload(), protocol=2))
    else:
        content = {"model_state": STATE, "extra": Payload()}
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(WeightsFileError) as refused:
        read_file(path)
    if form != "pickle":
        assert "could run code" in str(refused.value)
        assert "pathlib" in str(refused.value) or "getattr" in str(refused.value)
    assert not (tmp_path / "was-run").exists()
    pickle.loads(pickle.dumps(Payload()))  # the payload itself does work
    assert (tmp_path / "was-run").exists()


def test_paths(tmp_path: Path) -> None:
    with pytest.raises(WeightsFileError, match="there is no file"):
        read_file(tmp_path / "missing.pth")
    with pytest.raises(WeightsFileError, match="is a folder"):
        read_file(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"),
        (b"<?xml version='1.0'?><Error/>", "is a web page"),
        (b"\xef\xbb\xbf<!-- saved from --><html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"\x00\x01 not a checkpoint" * 100, "cannot be read as a PyTorch file"),
        (b"PK\x03\x04" + b"x" * 500, "cut short or damaged"),
    ],
)
def test_files_of_other_kinds(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsFileError, match=message):
        read_file(path)


@pytest.mark.parametrize("zip_format", [True, False])
def test_truncated_files(tmp_path: Path, zip_format: bool) -> None:
    path = tmp_path / "file.pth"
    torch.save({"a": torch.ones(100)}, path, _use_new_zipfile_serialization=zip_format)
    whole = path.read_bytes()
    lengths = range(1, len(whole), 1 if len(whole) < 2000 else 29)
    for length in lengths:
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsFileError, match="cut short"):
            read_file(path)


def test_flipped_bits_are_found(tmp_path: Path) -> None:
    """One of a hundred at a time; where it is in what nobody reads, the content is whole."""
    torch.save({"a": torch.arange(500.0)}, tmp_path / "file.pth")
    whole = (tmp_path / "file.pth").read_bytes()
    at = np.random.default_rng(0).integers(0, 8 * len(whole), 100)
    found = 0
    for bit in at.tolist():
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / "file.pth").write_bytes(damaged)
        try:
            content = read_file(tmp_path / "file.pth")
        except WeightsFileError:
            found += 1
        else:
            assert torch.equal(content["a"], torch.arange(500.0))
    assert found > 50


def test_a_compressed_archive_is_not_unpacked(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(4_000_000)}, tmp_path / "file.pth")
    path = repack(tmp_path / "file.pth", tmp_path / "bomb.pth", compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    with pytest.raises(WeightsFileError, match=r"is compressed .* 16,\d+,\d+ unpacked"):
        read_file(path)


def test_a_second_directory_is_not_believed(tmp_path: Path) -> None:
    """Python's zipfile looks right before the end, PyTorch where the end says."""
    torch.save({"a": torch.zeros(4_000_000)}, tmp_path / "file.pth")
    path = repack(tmp_path / "file.pth", tmp_path / "bomb.pth", compression=zipfile.ZIP_DEFLATED)
    packed = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        directory = packed[archive.start_dir : -22]
    harmless = directory.replace(b"\x08\x00", b"\x00\x00")
    path.write_bytes(packed[:-22] + harmless + packed[-22:])
    with pytest.raises(WeightsFileError, match=r"damaged|compressed"):
        read_file(path)


def test_other_archives(tmp_path: Path) -> None:
    path = tmp_path / "script.pth"
    traced = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))
    torch.jit.save(traced, path)
    with pytest.raises(WeightsFileError, match=r"TorchScript archive.*torch\.jit\.load"):
        read_file(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights.pth", b"inside")
    with pytest.raises(WeightsFileError, match=r"not one of torch\.save's; unpack it"):
        read_file(path)


@pytest.mark.parametrize(("content", "what"), [({"epoch": 3}, "the keys epoch"), ([1], "a list")])
def test_a_file_without_weights(tmp_path: Path, content: object, what: str) -> None:
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(WeightsFileError, match=f"{what} and no weights"):
        read_weights(tmp_path / "file.pth")


def test_the_checksum_is_that_of_the_file(tmp_path: Path) -> None:
    import hashlib

    torch.save(STATE, tmp_path / "file.pth")
    expected = hashlib.sha256((tmp_path / "file.pth").read_bytes()).hexdigest()
    assert read_weights(tmp_path / "file.pth").sha256() == expected
