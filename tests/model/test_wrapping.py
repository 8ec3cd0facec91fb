"""Weights are found under any key and behind any prefix; of several sets the right one, or none."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from model import MattingBase
from model.load import load_matting_base
from model.sources import canonical, prefixes
from model.transfer import transfer
from model.weights_file import WeightsFileError, read_weights
from model.wrapping import AmbiguousError, find_weights
from tests.support.published import published_state
from training import checkpoint
from training.checkpoint import CheckpointError

STATE = published_state("mattingbase_mobilenetv2")
OTHER = {name: value + 1 for name, value in STATE.items()}
CLASSIFIER = {n.removeprefix("backbone."): v for n, v in STATE.items() if "backbone." in n}
DEEPLAB = published_state("vainf_deeplabv3_mobilenet")
ADAM = {"state": {0: {"exp_avg": torch.ones(9)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}


def behind(prefix: str, state: dict[str, Tensor] = STATE) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize(
    "keys",
    [
        *[
            [key]
            for key in (
                "model_state_dict",
                "net",
                "network",
                "params",
                "params_ema",
                "ema",
                "generator",
                "weights",
                "anything at all",
                7,
            )
        ],
        ["ema", "module"],
        ["a", 0, "b"],
        [1],
        ["models", "matting", "state_dict"],
    ],
)
@pytest.mark.parametrize("state", [STATE, DEEPLAB])
def test_under_any_key(keys: list[str | int], state: dict[str, Tensor]) -> None:
    content: object = dict(state)
    for key in reversed(keys):
        if isinstance(key, int) and key < 3:
            content = [{"lr": torch.ones(1)}] * key + [content]
        else:
            content = {"epoch": 3, "optimizer": ADAM, key: content, "best": torch.tensor(0.5)}
    found, others = find_weights(content)
    assert found and found.keys == tuple(keys) and not others
    assert same(found.entries, state)


@pytest.mark.parametrize(
    "prefix",
    [
        "net.",
        "network.",
        "model.",
        "net.0.",
        "module.net.0.",
        "_orig_mod.module.generator.",
        "pl_module.model.net._orig_mod.",
        "_fsdp_wrapped_module.",
        "student.model.",
    ],
)
def test_behind_any_prefix(tmp_path: Path, prefix: str) -> None:
    """As are losses and other networks beside it, which do not count."""
    more = {"criterion.weight": torch.ones(3), "discriminator.0.weight": torch.ones(3, 3)}
    torch.save({"state_dict": behind(prefix) | more}, tmp_path / "a.ckpt")
    said: list[str] = []
    loaded = load_matting_base(tmp_path / "a.ckpt", said.append).state_dict()
    assert same(loaded, STATE)
    assert len(said) == 1 and "2 entries beside the network are left out" in said[0]
    report = transfer(MattingBase("mobilenetv2"), behind(prefix, DEEPLAB) | more)
    assert len(report.matched) == 341 and set(more) <= set(report.unused)


def test_a_part_that_was_wrapped_by_itself() -> None:
    state = {
        name.replace("backbone.", "backbone._orig_mod.").replace("aspp.", "aspp.module."): value
        for name, value in STATE.items()
    }
    assert len(transfer(MattingBase("mobilenetv2"), state).matched) == 362


def test_each_part_in_a_dict_of_its_own(tmp_path: Path) -> None:
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in STATE.items():
        part, rest = name.split(".", 1)
        parts.setdefault(part, {})[rest] = value
    for content in (parts, {"epoch": 1, "model": parts}):
        torch.save(content, tmp_path / "a.pth")
        assert same(load_matting_base(tmp_path / "a.pth").state_dict(), STATE)


def test_an_averaged_model(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = MattingBase("mobilenetv2")
    model.load_state_dict(STATE)
    torch.save(AveragedModel(model).state_dict(), tmp_path / "swa.pth")
    assert same(load_matting_base(tmp_path / "swa.pth").state_dict(), STATE)
    counted = STATE | {"n_averaged": torch.tensor(3), "aspp.total_ops": torch.zeros(1)}
    torch.save(counted, tmp_path / "counted.pth")
    assert same(load_matting_base(tmp_path / "counted.pth").state_dict(), STATE)


@pytest.mark.parametrize(
    ("content", "taken"),
    [
        ({"model": OTHER, "ema": STATE}, "['ema']"),
        ({"params": OTHER, "params_ema": STATE}, "['params_ema']"),
        ({"net": OTHER, "ema": {"module": STATE}}, "['ema']['module']"),
        ({"old": OTHER, "state_dict": STATE}, "['state_dict']"),
        ({"a": {"state_dict": CLASSIFIER}, "b": STATE}, "['b']"),
        ({"a": behind("model.", OTHER) | behind("ema_model.")}, "['a'] ema_model.*"),
        ({"module_avg": behind("module."), "module": behind("module.", OTHER)}, "['module_avg']"),
    ],
)
def test_an_average_is_taken_and_the_choice_is_said(
    tmp_path: Path, content: dict, taken: str
) -> None:
    torch.save(content, tmp_path / "a.pth")
    said: list[str] = []
    assert same(load_matting_base(tmp_path / "a.pth", said.append).state_dict(), STATE)
    assert f"holds 2 sets of weights: {taken} is taken" in said[0]


def test_the_same_weights_twice_are_no_choice() -> None:
    copy = {name: value.clone() for name, value in STATE.items()}
    found, others = find_weights({"net": STATE, "best": copy})
    assert found and found.keys == ("net",) and not others


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"net_a": STATE, "net_b": OTHER}, r"\['net_a'\] and \['net_b'\].*torch\.load\(FILE\)\["),
        ({"x": behind("student.") | behind("teacher.", OTHER)}, r"student\.\* and .*teacher\.\*"),
    ],
)
def test_two_sets_of_which_none_is_meant(tmp_path: Path, content: dict, named: str) -> None:
    with pytest.raises(AmbiguousError, match=named):
        find_weights(content)
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(WeightsFileError, match=r"a\.pth holds 2 sets of weights"):
        read_weights(tmp_path / "a.pth")


@pytest.mark.parametrize("backbone", ["resnet50", "resnet101", "mobilenetv2"])
def test_a_file_that_lacks_a_part_is_not_taken_for_its_backbone(backbone: str) -> None:
    state = published_state(f"mattingbase_{backbone}")
    assert prefixes(state) == [""]
    assert prefixes(n for n in state if not n.startswith("decoder.conv4")) == []


def test_a_classifier_within_another_program_s_network(tmp_path: Path) -> None:
    import torchvision

    state = torchvision.models.mobilenet_v2(weights=None).state_dict()
    content = {"state_dict": behind("encoder_q.", state) | behind("encoder_k.", state)}
    content["state_dict"]["queue"] = torch.ones(128, 9)
    torch.save(content, tmp_path / "moco.pth.tar")
    read = read_weights(tmp_path / "moco.pth.tar")
    assert len(transfer(MattingBase("mobilenetv2"), read.state_dict).matched) == 305


def test_content_that_holds_itself_ends() -> None:
    content: dict = {"a": [], "net": STATE}
    content["a"] += [content, content, {"b": content}]
    found, _ = find_weights(content)
    assert found and same(found.entries, STATE)


def test_a_file_with_a_refiner_is_not_continued_without_it(tmp_path: Path) -> None:
    state = STATE | {"refiner.conv1.weight": torch.ones(24, 42, 3, 3)}
    for wrap in (lambda: state, lambda: {"model": behind("module.", state)}):
        with pytest.raises(CheckpointError, match=r"refine\.pth .* type train_refine\.py"):
            _continues(tmp_path, wrap)


def _continues(folder: Path, make: Callable[[], dict]) -> None:
    torch.save(make(), folder / "refine.pth")
    found = checkpoint.read_checkpoint(folder / "refine.pth")
    assert found.state is None
    model = MattingBase("mobilenetv2")
    checkpoint.load_weights(model, found.path, found.weights, "mobilenetv2")
    assert same(model.state_dict(), STATE)


@pytest.mark.parametrize(
    ("listing", "prefix"),
    [
        ("vainf_deeplabv3_mobilenet", "model.backbone."),
        ("vainf_deeplabv3plus_mobilenet", "backbone.body."),
        ("vainf_deeplabv3_resnet50", "model.backbone."),
        ("smp_deeplabv3_resnet50", "encoder.model."),
    ],
)
def test_a_prefix_of_the_backbone_alone(tmp_path: Path, listing: str, prefix: str) -> None:
    state = published_state(listing)
    moved = {re.sub(r"^(backbone|encoder)\.", prefix, name): value for name, value in state.items()}
    torch.save({"state_dict": moved}, tmp_path / "a.pth")
    found = [
        transfer(MattingBase("resnet50" if "resnet" in listing else "mobilenetv2"), each)
        for each in (state, read_weights(tmp_path / "a.pth").state_dict)
    ]
    assert found[0].source == found[1].source and found[0].matched == found[1].matched


@pytest.mark.parametrize("prefix", ["", "backbone.", "model.backbone."])
def test_a_part_of_a_backbone_is_not_taken_for_it(prefix: str) -> None:
    """A ResNet152, most of which is in its third layer, is none of ours."""
    names = [f"{prefix}layer{k}.0.conv3.weight" for k in (1, 2, 4)]
    names += [f"{prefix}layer3.{block}.conv3.weight" for block in range(36)]
    names += [f"{prefix}layer1.0.conv1.weight"]
    names += [f"classifier.0.convs.{branch}.0.weight" for branch in range(5)]
    assert set(canonical(names).values()) >= {f"{prefix}layer3.35.conv3.weight"}
