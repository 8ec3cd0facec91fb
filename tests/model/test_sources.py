"""Every kind of source: recognised by its entries, all of it transferred, less refused."""

import itertools
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor
from torchvision.models import segmentation

from model import MattingBase
from model.download import WEIGHTS, torchvision_file
from model.sources import SOURCES, backbone_of, canonical, recognise
from model.transfer import TransferError, fold_rgb_stem, transfer
from model.weights_file import WeightsFileError
from tests.support.published import STATE_DICTS, published_state

TOTAL = {"resnet50": 374, "resnet101": 680, "mobilenetv2": 362}


def separable(listing: str) -> dict[str, Tensor]:
    """As VainF's convert_to_separable_conv leaves the classifier: every convolution that is wider
    than 1x1 becomes a depthwise `body.0` and a pointwise `body.1`, without biases."""
    state = {}
    for name, value in published_state(listing).items():
        if name.startswith("classifier.") and value.ndim == 4 and value.shape[2] > 1:
            stem = name.removesuffix("weight")
            state[stem + "body.0.weight"] = torch.ones(value.shape[1], 1, 3, 3)
            state[stem + "body.1.weight"] = torch.ones(*value.shape[:2], 1, 1)
        else:
            state[name] = value
    return state


def torchvision_deeplab(backbone: str) -> dict[str, Tensor]:
    make = getattr(segmentation, f"deeplabv3_{backbone}")
    return make(weights=None, weights_backbone=None, aux_loss=True).state_dict()


def classifier(name: str) -> dict[str, Tensor]:
    return getattr(torchvision.models, name)(weights=None).state_dict()


def matting(backbone: str, refiner: bool = False) -> dict[str, Tensor]:
    state = published_state(f"mattingbase_{backbone}")
    return state | ({"refiner.conv1.weight": torch.ones(24, 42, 3, 3)} if refiner else {})


def old_smp(listing: str) -> dict[str, Tensor]:
    return {
        name.replace("decoder.aspp.", "decoder.0."): value
        for name, value in published_state(listing).items()
    }


CASES = {
    "vainf": ("resnet50", lambda: published_state("vainf_deeplabv3_resnet50"), 353),
    "vainf 101": ("resnet101", lambda: published_state("vainf_deeplabv3_resnet101"), 659),
    "vainf m": ("mobilenetv2", lambda: published_state("vainf_deeplabv3_mobilenet"), 341),
    "vainf+": ("resnet50", lambda: published_state("vainf_deeplabv3plus_resnet50"), 353),
    "vainf+ 101": ("resnet101", lambda: published_state("vainf_deeplabv3plus_resnet101"), 659),
    "vainf+ m": ("mobilenetv2", lambda: published_state("vainf_deeplabv3plus_mobilenet"), 341),
    "separable": ("resnet50", lambda: separable("vainf_deeplabv3_resnet50"), 350),
    "separable 101": ("resnet101", lambda: separable("vainf_deeplabv3_resnet101"), 656),
    "separable m": ("mobilenetv2", lambda: separable("vainf_deeplabv3_mobilenet"), 338),
    "separable+": ("resnet50", lambda: separable("vainf_deeplabv3plus_resnet50"), 350),
    "separable+ m": ("mobilenetv2", lambda: separable("vainf_deeplabv3plus_mobilenet"), 338),
    "torchvision": ("resnet50", lambda: torchvision_deeplab("resnet50"), 353),
    "torchvision 101": ("resnet101", lambda: torchvision_deeplab("resnet101"), 659),
    "imagenet": ("resnet50", lambda: classifier("resnet50"), 317),
    "imagenet 101": ("resnet101", lambda: classifier("resnet101"), 623),
    "imagenet m": ("mobilenetv2", lambda: classifier("mobilenet_v2"), 305),
    "smp": ("resnet50", lambda: published_state("smp_deeplabv3_resnet50"), 353),
    "smp 101": ("resnet101", lambda: published_state("smp_deeplabv3_resnet101"), 659),
    "smp m": ("mobilenetv2", lambda: published_state("smp_deeplabv3_mobilenet_v2"), 336),
    "smp old": ("resnet50", lambda: old_smp("smp_deeplabv3_resnet50"), 353),
    "smp old m": ("mobilenetv2", lambda: old_smp("smp_deeplabv3_mobilenet_v2"), 336),
    "smp+": ("resnet50", lambda: published_state("smp_deeplabv3plus_resnet50"), 350),
    "smp+ m": ("mobilenetv2", lambda: published_state("smp_deeplabv3plus_mobilenet_v2"), 336),
    "matting": ("resnet50", lambda: matting("resnet50"), 374),
    "matting 101": ("resnet101", lambda: matting("resnet101"), 680),
    "refine m": ("mobilenetv2", lambda: matting("mobilenetv2", refiner=True), 362),
}


SLOW = {"vainf+ 101", "separable 101", "torchvision 101", "imagenet 101", "smp 101", "matting 101"}


@pytest.mark.parametrize(  # resnet101 is resnet50 with more blocks
    "case",
    [pytest.param(each, marks=pytest.mark.slow) if each in SLOW else each for each in CASES],
)
def test_all_of_a_source_arrives(case: str) -> None:
    backbone, make, expected = CASES[case]
    state = make()
    model = MattingBase(backbone)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = transfer(model, state)
    after = model.state_dict()
    assert (len(report.matched), len(after)) == (expected, TOTAL[backbone])
    source = recognise(canonical(state).values())
    assert report.source == source.name
    origin = {source.rename(short): name for name, short in canonical(state).items()}
    for name in report.matched:
        assert torch.equal(after[name], state[origin[name]]), name
    for name in [*report.missing, *report.mismatched]:
        assert torch.equal(after[name], before[name]), name
    used = {origin[name] for name in [*report.matched, *report.mismatched]}
    assert used | set(report.unused) == set(state) and not used & set(report.unused)


def test_every_row_of_the_table_is_met() -> None:
    with torch.device("meta"):  # the names are enough
        met = {recognise(canonical(make())).name for _, make, _ in CASES.values()}
    assert met == {source.name for source in SOURCES}


@pytest.mark.parametrize(
    "prefix", [*("module.", "_orig_mod.", "model."), "module._orig_mod.", "model.module."]
)
def test_prefixes_are_taken_off(prefix: str) -> None:
    for case in ("vainf m", "imagenet m", "smp m", "refine m"):
        backbone, make, expected = CASES[case]
        state = {prefix + name: value for name, value in make().items()}
        state["criterion.weight"] = torch.ones(21)  # Lightning keeps the loss's beside the model
        report = transfer(MattingBase(backbone), state)
        assert len(report.matched) == expected
        assert "criterion.weight" in report.unused


def test_high_level_features_numbered_from_0() -> None:
    state = {}
    for name, value in published_state("vainf_deeplabv3_mobilenet").items():
        parts = name.split(".")
        if parts[1] == "high_level_features":
            parts[2] = str(int(parts[2]) - 4)
        state[".".join(parts)] = value
    assert "backbone.high_level_features.0.conv.0.0.weight" in state
    model = MattingBase("mobilenetv2")
    assert len(transfer(model, state).matched) == 341
    assert torch.equal(
        model.state_dict()["backbone.features.17.conv.2.weight"],
        state["backbone.high_level_features.13.conv.2.weight"],
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_stored_halves_are_converted(dtype: torch.dtype) -> None:
    state = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in published_state("vainf_deeplabv3_mobilenet").items()
    }
    model = MattingBase("mobilenetv2")
    report = transfer(model, state)
    assert report.converted == [str(dtype).removeprefix("torch.")]
    assert report.converted[0] in report.table()
    name = "aspp.project.0.weight"
    after = model.state_dict()[name]
    assert after.dtype == torch.float32
    assert torch.equal(after, state["classifier.classifier.0.project.0.weight"].float())


def test_a_file_that_lacks_what_its_kind_fills_is_refused() -> None:
    state = published_state("vainf_deeplabv3_mobilenet")
    del state["classifier.classifier.0.project.0.weight"]
    name = "backbone.high_level_features.9.conv.2.weight"
    state[name] = state[name][:5]
    model = MattingBase("mobilenetv2")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(TransferError) as refused:
        transfer(model, state)
    message = str(refused.value)
    assert "2 entries" in message and "aspp.project.0.weight" in message
    assert "backbone.features.9.conv.2.weight is 5x384x1x1 there and 64x384x1x1 here" in message
    assert "--model-pretrain-partial" in message
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    report = transfer(model, state, partial=True)
    assert report.lacking == ["backbone.features.9.conv.2.weight", "aspp.project.0.weight"]
    assert len(report.matched) == 339
    assert "warning: 2 entries" in report.table()


def test_old_files_without_batch_counters_are_whole() -> None:
    state = {n: v for n, v in classifier("resnet50").items() if "num_batches" not in n}
    report = transfer(MattingBase("resnet50"), state)
    assert len(report.matched) == 317 - 53 and not report.lacking


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    for name in ("classifier.classifier.0.project.1.running_var", "classifier.classifier.4.bias"):
        state = published_state("vainf_deeplabv3_mobilenet")
        state[name][3] = value
        with pytest.raises(TransferError, match=f"1 entries .* not finite: {name}"):
            transfer(MattingBase("mobilenetv2"), state, partial=True)
    state = published_state("vainf_deeplabv3_mobilenet")
    state["classifier.classifier.4.bias"] = torch.full((21,), 1e300, dtype=torch.float64)
    with pytest.raises(TransferError, match="not finite"):  # as float32 it is infinite
        transfer(MattingBase("mobilenetv2"), state)


def test_layers_that_ours_has_not_mean_another_network() -> None:
    state = classifier("mobilenet_v2")
    state["features.5.conv.1.se.weight"] = torch.ones(192, 48, 1, 1)
    with pytest.raises(TransferError, match=r"1 of its entries are layers .*conv\.1\.se\.weight"):
        transfer(MattingBase("mobilenetv2"), state)
    report = transfer(MattingBase("mobilenetv2"), state, partial=True)
    assert report.foreign == ["features.5.conv.1.se.weight"] and len(report.matched) == 305
    assert "warning: 1 of them are layers" in report.table()


def test_whole_numbers_are_no_weights() -> None:
    state = published_state("vainf_deeplabv3_mobilenet")
    name = "classifier.classifier.0.project.0.weight"
    state[name] = state[name].mul(100).to(torch.int8)
    with pytest.raises(TransferError, match=r"1 entries .*aspp\.project\.0\.weight"):
        transfer(MattingBase("mobilenetv2"), state)


def test_other_backbones_are_told_apart() -> None:
    resnet50 = MattingBase("resnet50")
    for name in ("resnet18", "resnet34", "resnet152"):
        state = classifier(name)
        short = canonical(state)
        source = recognise(short.values())
        assert backbone_of(source.rename(now) for now in short.values()) is None
        with pytest.raises(TransferError, match="none of resnet50, resnet101, mobilenetv2"):
            transfer(resnet50, state)
    with pytest.raises(TransferError, match=r"layer1\.0\.conv1\.weight is 128x64x1x1"):
        transfer(resnet50, classifier("wide_resnet50_2"))
    for name in ("vgg11", "mobilenet_v3_small"):
        with pytest.raises(TransferError, match="of no known layout"):
            transfer(MattingBase("mobilenetv2"), classifier(name))


# ---- The first convolution ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "side"),
    [pytest.param("torchvision", 608, marks=pytest.mark.slow), ("imagenet m", 576)],
)
def test_the_folded_stem_sees_src_as_the_source_did(case: str, side: int) -> None:
    torch.manual_seed(0)
    backbone, make, expected = CASES[case]
    state = make()
    for name, value in state.items():
        if name.endswith("running_mean"):
            value.normal_(0, 0.1)
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    model = MattingBase(backbone).eval()
    report = transfer(model, state, stem="rgb")
    assert len(report.matched) == expected and len(report.folded) == 1
    assert "bgr half zero" in report.table()

    source = MattingBase(
        backbone
    ).eval()  # the same encoder with the source's own first convolution
    transfer(source, state)
    stem = report.folded[0]
    convolution = source.get_submodule(stem.removesuffix(".weight"))
    original = state[stem if stem in state else stem.removeprefix("backbone.")]
    convolution.weight = torch.nn.Parameter(original)
    convolution.in_channels = 3

    src, bgr, other = torch.rand(3, 1, 3, side, side)
    mean, deviation = (torch.tensor(v)[:, None, None] for v in SOURCES[2].normalisation)
    with torch.no_grad():
        ours = model.backbone(torch.cat([src, bgr], dim=1))
        anything = model.backbone(torch.cat([src, other], dim=1))
        theirs = source.backbone((src - mean) / deviation)
    # How far, in pixels, the border reaches into the features at 1/2, 1/4, 1/8 and 1/16.
    for features, same, expected, reach in zip(
        ours[1:], anything[1:], theirs[1:], (8, 40, 104, 272), strict=True
    ):
        assert torch.equal(features, same)
        cut = reach * features.shape[2] // side
        middle = (..., slice(cut, -cut), slice(cut, -cut))
        assert features[middle].numel() > 0
        scale = expected[middle].abs().max()
        assert (features[middle] - expected[middle]).abs().max() <= 1e-4 * scale


def test_a_stem_of_six_channels_comes_whole() -> None:
    state = matting("mobilenetv2")
    model = MattingBase("mobilenetv2")
    report = transfer(model, state, stem="rgb")
    assert len(report.matched) == 362 and report.folded == []
    name = "backbone.features.0.0.weight"
    assert torch.equal(model.state_dict()[name], state[name])


def test_a_stem_that_is_not_there_cannot_be_folded() -> None:
    state = published_state("vainf_deeplabv3_mobilenet")
    del state["backbone.low_level_features.0.0.weight"]
    with pytest.raises(TransferError, match="leave out --model-pretrain-stem rgb"):
        transfer(MattingBase("mobilenetv2"), state, stem="rgb")


@pytest.mark.parametrize("kernel", [1, 5])
def test_a_stem_of_another_kernel_cannot_be_folded(kernel: int) -> None:
    state = published_state("vainf_deeplabv3_mobilenet")
    state["backbone.low_level_features.0.0.weight"] = torch.ones(32, 3, kernel, kernel)
    model = MattingBase("mobilenetv2")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(TransferError, match="no first convolution like ours"):
        transfer(model, state, stem="rgb")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_folding_is_exact_in_one_convolution(dtype: torch.dtype) -> None:
    weight, running_mean = torch.randn(4, 3, 3, 3).to(dtype), torch.randn(4).to(dtype)
    mean, deviation = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    x = torch.rand(1, 3, 9, 9)
    normal = (x - torch.tensor(mean)[:, None, None]) / torch.tensor(deviation)[:, None, None]
    expected = torch.nn.functional.conv2d(normal, weight.float())
    expected = expected - running_mean.float()[:, None, None]
    folded, shifted = fold_rgb_stem(weight, running_mean, mean, deviation)
    both = torch.cat([x, torch.rand_like(x)], dim=1)
    result = torch.nn.functional.conv2d(both, folded) - shifted[:, None, None]
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


# ---- torchvision's own download -----------------------------------------------------------------


def test_torchvisions_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    names = {"resnet50": "deeplabv3_resnet50_coco", "resnet101": "deeplabv3_resnet101_coco"}
    names["mobilenetv2"] = "mobilenet_v2"
    for backbone, name in names.items():
        cached = tmp_path / "hub/checkpoints" / WEIGHTS[backbone].url.rsplit("/", 1)[1]
        assert cached.name.startswith(name)
        cached.parent.mkdir(parents=True, exist_ok=True)
        cached.touch()
        assert torchvision_file(backbone) == cached


def test_without_network_and_cache_it_is_said_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(WeightsFileError) as refused:
        torchvision_file("resnet50")
    url = WEIGHTS["resnet50"].url
    place = tmp_path / "hub/checkpoints" / url.rsplit("/", 1)[1]
    assert f"download {url} elsewhere and put it at {place}" in str(refused.value)


def test_shapes_of_the_listings_and_of_torchvision_agree() -> None:
    """Guards the made-up files: the published ResNet50 has torchvision's entries."""
    ours = {n: list(v.shape) for n, v in torchvision_deeplab("resnet50").items()}
    for name, shape in itertools.islice(STATE_DICTS["vainf_deeplabv3_resnet50"].items(), 318):
        assert ours[name] == shape
