"""Numbers that are no weights are refused, by who begins from a file and by who uses one."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model import MattingBase
from model.load import load_matting_base
from model.transfer import TransferError, transfer
from model.weights_file import WeightsFileError, read_weights
from tests.support.published import published_state
from training import checkpoint
from training.checkpoint import CheckpointError

STATE = published_state("mattingbase_mobilenetv2")
WEIGHT, VARIANCE = "decoder.conv2.weight", "aspp.convs.0.1.running_var"
COUNTER = "aspp.convs.0.1.num_batches_tracked"


def quantised(value: Tensor) -> Tensor:
    return torch.quantize_per_tensor(value, 0.1, 0, torch.qint8)


CASES: dict[str, tuple[str, Callable[[Tensor], Tensor], str]] = {
    "complex": (WEIGHT, lambda v: torch.complex(v, v), "complex64"),
    "complex, no imaginary part": (WEIGHT, lambda v: v.to(torch.complex128), "complex128"),
    "int8": (WEIGHT, lambda v: (100 * v).to(torch.int8), "int8"),
    "int64": (WEIGHT, lambda v: v.long(), "int64"),
    "bool": (WEIGHT, lambda v: v > 0, "bool"),
    "complex counter": (COUNTER, lambda v: v.to(torch.complex64), "complex64"),
    "nan": (WEIGHT, lambda v: v.clone().fill_(float("nan")), "not finite"),
    "one inf": (WEIGHT, lambda v: torch.where(v == v.max(), torch.inf, v), "not finite"),
    "too large": (WEIGHT, lambda v: v.double() * 1e300, "not finite"),
    "nan counter": (COUNTER, lambda v: v * torch.nan, "not finite"),
    "negative variance": (VARIANCE, lambda v: v - 10, "variances and hold values below 0"),
    "half of it": (VARIANCE, lambda v: (v - 10).half(), "variances and hold values below 0"),
    "sparse": (WEIGHT, lambda v: v.to_sparse(), "sparse"),
    "quantised": (WEIGHT, quantised, "quantised"),
    "meta": (WEIGHT, lambda v: v.to("meta"), "meta, without values"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_what_is_no_weight(tmp_path: Path, case: str) -> None:
    name, spoil, expected = CASES[case]
    state = STATE | {name: spoil(STATE[name])}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(WeightsFileError, match=expected) as refused:
        load_matting_base(tmp_path / "a.pth")
    assert name in str(refused.value) and "give " in str(refused.value)

    model = MattingBase("mobilenetv2")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises((WeightsFileError, CheckpointError), match=expected):  # continuing
        found = checkpoint.read_checkpoint(tmp_path / "a.pth")
        checkpoint.load_weights(model, found.path, found.weights, "mobilenetv2")
    if name.endswith("num_batches_tracked") and case != "nan counter":
        return  # which a transfer leaves as they are
    with pytest.raises((WeightsFileError, TransferError), match=expected):
        transfer(model, read_weights(tmp_path / "a.pth").state_dict)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("dtype", "said"), [(torch.float64, ""), (torch.bfloat16, ""), (torch.float8_e4m3fn, "float8")]
)
def test_other_floats_are_weights(tmp_path: Path, dtype: torch.dtype, said: str) -> None:
    """Eight bits are few: that is said."""
    state = {n: v.to(dtype) if v.is_floating_point() else v for n, v in STATE.items()}
    torch.save(state, tmp_path / "a.pth")
    notes: list[str] = []
    loaded = load_matting_base(tmp_path / "a.pth", notes.append).state_dict()
    assert all(
        torch.equal(loaded[name], value.to(loaded[name].dtype)) for name, value in state.items()
    )
    assert all(said in note for note in notes) and len(notes) == bool(said)


def test_one_number_read_again_and_again_takes_no_memory(tmp_path: Path) -> None:
    """A file of a kilobyte names a tensor of terabytes."""
    state = STATE | {"classifier.weight": torch.ones(1).expand(10**13)}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(WeightsFileError, match=r"1 foreign, such as classifier\.weight"):
        load_matting_base(tmp_path / "a.pth")
    report = transfer(MattingBase("mobilenetv2"), read_weights(tmp_path / "a.pth").state_dict)
    assert report.unused == ["classifier.weight"]
