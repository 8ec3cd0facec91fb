"""predict.py with a MattingRefine: used as what it is, at the picture's own size."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import predict
from model import MattingRefine
from predict import Matter, RefineSettings
from prediction.frames import read_rgb
from tests.null_gpu import needs_null_gpu, run_script
from tests.support import DATA, scripts
from tests.support.predicting import error_of, files, save_weights, scene
from tests.support.refining import inputs, network, reference_weights

CASES = [
    pytest.param(listing, name, case, id=f"{listing.stem}-{name}")
    for listing in sorted(DATA.glob("refine/mattingrefine_*.json"))
    for name, case in json.loads(listing.read_text()).items()
    if case["refine_prevent_oversampling"] is not False
]
TYPES = ["pha", "fgr", "com", "err", "ref"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "refine.pth"
    torch.save(reference_weights("mobilenetv2", 3), path)
    return path


def pictures(folder: Path, *sizes: tuple[int, int]) -> Path:
    """src/ and bgr/ with a picture of each (width, height), named by its number."""
    for number, size in enumerate(sizes):
        for kind, picture in zip(("src", "bgr"), scene(number, size), strict=True):
            (folder / kind).mkdir(exist_ok=True)
            picture.save(folder / kind / f"{number}.png")
    return folder


def words(weights: Path, folder: Path, *more: object) -> list[str]:
    argv = ["--model-checkpoint", weights, "--src", folder / "src", "--bgr", folder / "bgr"]
    return [str(word) for word in [*argv, "--output", folder / "out", "--device", "cpu", *more]]


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        pixels = np.asarray(picture).astype(int)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def as_bytes(picture: torch.Tensor) -> np.ndarray:
    """(C, H, W), 0..1, as a picture of 8 bits has it."""
    return (picture.float() * 255).round().permute(1, 2, 0).numpy().astype(int)


# ---- Values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("listing", "name", "case"), CASES)
def test_values_are_those_of_the_published_network(listing: Path, name: str, case: dict) -> None:
    reference = np.load(listing.with_suffix(".npz"))
    settings = RefineSettings(
        case["backbone_scale"],
        case["refine_mode"],
        case["refine_sample_pixels"],
        case["refine_threshold"] if case["refine_threshold"] is not None else 0.7,
    )
    matter = Matter(network(case["refine_kernel_size"]), "cpu", settings=settings)
    found = matter(
        *inputs(case["batch"], case["height"], case["width"]), ["pha", "fgr", "ref", "com"]
    )
    seen = slice(case["offset"], None, case["stride"])
    for kind in ("pha", "fgr"):
        ours = found[kind][..., seen, seen].numpy()
        np.testing.assert_allclose(ours, reference[f"{name}.{kind}"], atol=1e-4, rtol=0)
    expected = reference[f"{name}.ref_sm"].repeat(4, axis=2).repeat(4, axis=3)
    np.testing.assert_array_equal(found["ref"].numpy(), expected)
    assert torch.equal(found["com"], torch.cat([found["fgr"], found["pha"]], dim=1))


@pytest.mark.parametrize("mode", ["sampling", "thresholding", "full"])
def test_what_is_written_is_what_the_network_gives(
    weights: Path, tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prediction.predictor.BAND_PIXELS", 226 * 7)  # several, of uneven rows
    folder = pictures(tmp_path, (226, 163), (160, 224))
    more = ["--refine-mode", mode, "--refine-pixels", 4423, "--refine-threshold", 0.18]
    more += ["--backbone-scale", "1/4", "--type", *TYPES]
    assert predict.main(words(weights, folder, *more)) == 0
    model = network(refine_mode=mode, refine_sample_pixels=4423, refine_threshold=0.18)
    for number in range(2):
        src, bgr = (
            torch.from_numpy(read_rgb(folder / kind / f"{number}.png")).permute(2, 0, 1)[None] / 255
            for kind in ("src", "bgr")
        )
        with torch.no_grad():
            expected = model(src, bgr)
        height, width = src.shape[2:]
        whole = (expected.ref_sm.shape[2] * 4, expected.ref_sm.shape[3] * 4)
        err = torch.nn.functional.interpolate(expected.err_sm, whole, mode="bilinear")
        ref = torch.nn.functional.interpolate(expected.ref_sm, whole, mode="nearest")
        for kind, values in (
            ("pha", expected.pha),
            ("fgr", expected.fgr),
            ("com", torch.cat([expected.fgr, expected.pha], dim=1)),
            ("err", err[..., :height, :width]),
            ("ref", ref[..., :height, :width]),
        ):
            written = read(folder / f"out/{kind}/{number}.png")
            at_most = 0 if kind == "ref" else 1  # values in the middle may be rounded either way
            assert np.abs(written - as_bytes(values[0])).max() <= at_most, (number, kind)
        assert set(np.unique(read(folder / f"out/ref/{number}.png"))) <= {0, 255}


@pytest.mark.parametrize(
    ("size", "scale"),
    [
        ((4, 4), None),
        ((5, 3), None),
        ((1, 1), None),
        ((300, 9), None),
        ((33, 9), "1/8"),
        ((4, 70), "1/50"),
    ],
)
def test_any_size_of_picture(
    weights: Path, tmp_path: Path, size: tuple[int, int], scale: str | None
) -> None:
    folder = pictures(tmp_path, size)
    more = ["--backbone-scale", scale] if scale else []
    assert predict.main(words(weights, folder, "--type", *TYPES, *more)) == 0
    for kind in TYPES:
        assert read(folder / f"out/{kind}/0.png").shape[:2] == size[::-1]


def test_what_was_refined_is_no_matte(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    import evaluate

    folder = pictures(tmp_path, (60, 44))
    assert predict.main(words(weights, folder, "--type", "pha", "ref")) == 0
    capsys.readouterr()
    said = scripts.error_of(
        evaluate.main, capsys, "--pred-dir", folder / "out/ref", "--true-dir", folder / "src"
    )
    assert f"type --pred-dir {folder / 'out/pha'}" in said and "refined" in said


def test_a_picture_in_a_batch_is_as_by_itself(weights: Path) -> None:
    matter = Matter(weights, "cpu", settings=RefineSettings(1 / 4, refine_sample_pixels=4423))
    src, bgr = inputs(2)
    behind = torch.rand(2, 3, 160, 224)
    together = matter(src, bgr, TYPES, behind)
    one_for_all = matter(src, bgr[:1], TYPES, behind[:1])
    for number in range(2):
        alone = matter(src[number][None], bgr[number][None], TYPES, behind[number][None])
        shared = matter(src[number][None], bgr[:1], TYPES, behind[:1])
        for kind in TYPES:
            assert torch.equal(together[kind][number], alone[kind][0])
            assert torch.equal(one_for_all[kind][number], shared[kind][0])


def test_half_precision_gives_nearly_the_same(weights: Path) -> None:
    settings = RefineSettings(1 / 4, "full")
    expected = Matter(weights, "cpu", settings=settings)(*inputs(), ["pha", "fgr"])
    found = Matter(weights, "cpu", "bf16", settings=settings)(*inputs(), ["pha", "fgr"])
    for kind, values in found.items():
        assert values.dtype == torch.float32
        assert (values - expected[kind]).abs().mean() < 0.02


# ---- Settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "scale", "pixels"),
    [
        ((1080, 1920), 1 / 4, 80_000),
        ((1920, 1080), 1 / 4, 80_000),
        ((2160, 3840), 1 / 8, 320_000),
        ((1440, 2560), 1 / 4, 142_222),
        ((480, 640), 1 / 2, 80_000),
        ((4320, 7680), 1 / 8, 1_280_000),
        ((1, 1), 1 / 2, 80_000),
    ],
)
def test_settings_suit_the_pictures_size(size: tuple, scale: float, pixels: int) -> None:
    filled = RefineSettings().for_size(size)
    assert (filled.backbone_scale, filled.refine_sample_pixels) == (scale, pixels)
    model = MattingRefine("mobilenetv2")
    RefineSettings(refine_mode="full", refine_threshold=0.2).set_on(model, size)
    assert (model.backbone_scale, model.refine_sample_pixels) == (scale, pixels)
    assert (model.refine_mode, model.refine_threshold) == ("full", 0.2)


@pytest.mark.parametrize("settings", [{"backbone_scale": 0.6}, {"refine_mode": "sample"}])
def test_wrong_settings_are_named(settings: dict) -> None:
    with pytest.raises(ValueError, match=str(next(iter(settings.values())))):
        RefineSettings(**settings)


def test_settings_and_files_are_said(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prediction.refining.TRAINED_SIDE", 40)
    folder = pictures(tmp_path, (80, 60), (84, 60), (160, 120))
    assert predict.main(words(weights, folder, "--refine-pixels", 1600, "--type", "pha")) == 0
    said = capsys.readouterr().out.strip().splitlines()
    notes = [line for line in said if line.startswith("note: ")]
    assert len(notes) == 2  # one a scale
    assert "80x60: backbone at 1/2, 40x30; up to 1,600 pixels" in notes[0]
    assert "160x120: backbone at 1/4, 40x30;" in notes[1]
    assert said[-1].startswith("3 image(s) in ") and f"wrote {folder}/out/pha" in said[-1]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (RefineSettings(0.3, "full"), ["at 0.3, 576x324", "all"]),
        (
            RefineSettings(1 / 3, "thresholding", refine_threshold=0.5),
            ["1/3, 640x360", "above 0.5"],
        ),
    ],
)
def test_other_settings_are_said(settings: RefineSettings, words: list[str]) -> None:
    assert all(word in settings.said((1080, 1920)) for word in words)


@pytest.mark.parametrize(
    ("more", "unused"),
    [
        (["--refine-threshold", 0.1], ["--refine-threshold"]),
        (["--refine-mode", "full", "--refine-pixels", 16], ["--refine-pixels"]),
        (["--refine-mode", "thresholding", "--refine-threshold", 0.1], []),
        (["--refine-pixels", 16, "--backbone-scale", "1/2"], []),
    ],
)
def test_options_of_another_mode_are_said(
    weights: Path, tmp_path: Path, more: list, unused: list[str], capsys: pytest.CaptureFixture
) -> None:
    assert predict.main(words(weights, pictures(tmp_path, (80, 60)), *more)) == 0
    said = re.findall(r"note: (--\S+) is not used", capsys.readouterr().out)
    assert said == unused


@pytest.mark.parametrize(("threshold", "refined"), [(1, False), (0, True)])
def test_pictures_that_nothing_is_refined_of_are_counted(
    weights: Path, tmp_path: Path, threshold: int, refined: bool, capsys: pytest.CaptureFixture
) -> None:
    more = ["--refine-mode", "thresholding", "--refine-threshold", threshold, "--type", "ref"]
    folder = pictures(tmp_path, (80, 60), (64, 64))
    assert predict.main(words(weights, folder, *more)) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "nothing was refined" in line]
    assert ["2 images" in line and "--refine-threshold" in line for line in said] == (
        [] if refined else [True]
    )


def test_the_coarse_size_that_is_said_is_the_networks() -> None:
    settings, size = RefineSettings(1 / 4), (1081, 1922)
    height, width = network(backbone_scale=1 / 4)(*inputs(1, 81, 122)).pha_sm.shape[2:]
    assert f"{width}x{height};" in settings.said((81, 122))
    assert "1922x1081: backbone at 1/4, 481x271;" in settings.said(size)


def test_published_command_lines_are_taken(weights: Path, tmp_path: Path) -> None:
    """Of inference_images.py, as its documentation has it, but for the device."""
    folder = pictures(tmp_path, (224, 160))
    published = [
        *("--model-type", "mattingrefine", "--model-backbone", "mobilenetv2"),
        *("--model-backbone-scale", "0.25", "--model-refine-mode", "sampling"),
        *("--model-refine-sample-pixels", "4423", "--model-checkpoint", str(weights)),
        *("--model-refine-threshold", "0.7", "--model-refine-kernel-size", "3"),
        *("--images-src", f"{folder}/src", "--images-bgr", f"{folder}/bgr"),
        *("--output-dir", f"{folder}/out", "--output-types", "com", "pha", "fgr", "err", "ref"),
        *("--device", "cpu", "--num-workers", "0", "-y"),
    ]
    assert predict.main(published) == 0 and predict.main(published) == 0
    assert files(folder / "out") == [
        f"{kind}/0.png" for kind in ("com", "err", "fgr", "pha", "ref")
    ]
    assert (read(folder / "out/ref/0.png") > 0).sum() == 4423 // 16 * 16


# ---- What does not go together ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--refine-mode", "full"], ["--refine-mode", "MattingBase"]),
        (["--backbone-scale", "0.25"], ["--backbone-scale", "MattingBase"]),
        (["--model-refine-sample-pixels", "9"], ["--refine-pixels", "MattingBase"]),
        (["--refine-threshold", "0"], ["--refine-threshold", "MattingBase"]),
        (["--model-type", "mattingrefine"], ["--model-type mattingrefine", "MattingBase"]),
        (["--type", "ref"], ["--type ref", "--type pha"]),
        (["--type", "fgr", "ref"], ["--type ref", "--type fgr"]),
        (["--model-backbone", "resnet50"], ["--model-backbone mobilenetv2"]),
    ],
)
def test_with_the_base_network(
    tmp_path: Path, more: list[str], named: list[str], capsys: pytest.CaptureFixture
) -> None:
    folder, base = pictures(tmp_path, (60, 44)), save_weights(tmp_path / "base.pth")
    said = error_of(capsys, *words(base, folder, *more))
    assert all(word in said for word in [str(base), *named])
    assert not (folder / "out").exists() or not files(folder / "out")


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--size", "64"], ["--size", "--backbone-scale", "--model-type mattingbase"]),
        (["--upsample", "bilinear"], ["--upsample", "--model-type mattingbase"]),
        (["--model-refine-kernel-size", "1"], ["--model-refine-kernel-size 3"]),
        (
            ["--model-type", "mattingbase", "--type", "ref"],
            ["--type ref", "leave out --model-type mattingbase"],
        ),
        (
            ["--model-type", "mattingbase", "--refine-mode", "full"],
            ["--model-type", "--refine-mode"],
        ),
        (["--backbone-scale", "0.6"], ["--backbone-scale", "0.6", "1/2"]),
        (["--refine-threshold", "2"], ["threshold", "2"]),
        (["--refine-pixels", "-1"], ["pixels", "-1"]),
    ],
)
def test_with_a_refiner(
    weights: Path, tmp_path: Path, more: list[str], named: list[str], capsys: pytest.CaptureFixture
) -> None:
    folder = pictures(tmp_path, (60, 44))
    said = error_of(capsys, *words(weights, folder, *more))
    assert all(word in said for word in named)


def test_the_base_alone_of_a_file_with_a_refiner(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = pictures(tmp_path, (60, 44))
    base = {n: v for n, v in torch.load(weights).items() if not n.startswith("refiner.")}
    torch.save(base, tmp_path / "base.pth")
    more = ["--model-type", "mattingbase", "--size", 48, "--upsample", "guided"]
    assert predict.main(words(weights, folder, *more)) == 0
    assert "refiner, 20 entries, is left out" in capsys.readouterr().out
    written = read(folder / "out/pha/0.png")
    assert predict.main(words(tmp_path / "base.pth", folder, "--size", 48, "--overwrite")) == 0
    assert np.array_equal(written, read(folder / "out/pha/0.png"))


def test_matter_asks_a_base_network_for_no_ref(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ref"):
        Matter(save_weights(tmp_path / "base.pth"), "cpu")(*inputs(), ["ref"])


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ([], ["--batch-size 1", "--refine-pixels", "--backbone-scale"]),
        (["--refine-mode", "full"], ["--refine-mode sampling"]),
    ],
)
def test_short_of_memory(
    weights: Path,
    tmp_path: Path,
    more: list[str],
    named: list[str],
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_room(*_arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(MattingRefine, "forward", no_room)
    said = error_of(capsys, *words(weights, pictures(tmp_path, (60, 44)), *more))
    assert all(word in said for word in ["out of memory", *named])
    assert "--size" not in said


# ---- Elsewhere ----------------------------------------------------------------------------------


@needs_null_gpu
def test_on_a_gpu_in_half_precision(weights: Path, tmp_path: Path) -> None:
    folder = pictures(tmp_path, (226, 163), (226, 163), (60, 44))
    argv = words(weights, folder, "--type", *TYPES)
    argv[argv.index("cpu")] = "cuda"
    done = run_script(["predict.py", *argv], Path(predict.__file__).parent)
    assert done.returncode == 0, done.stderr
    assert len(files(folder / "out")) == 15
    assert read(folder / "out/ref/0.png").shape[:2] == (163, 226)


def test_a_video(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    av = pytest.importorskip("av")
    folder = pictures(tmp_path, (162, 120))
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 162, 120, "yuv420p"
        for number in range(5):
            frame = av.VideoFrame.from_image(scene(number, (162, 120))[0])
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    argv = words(weights, folder, "--type", "pha", "ref", "--batch-size", 2)
    argv[3], argv[5] = str(tmp_path / "clip.mp4"), str(folder / "bgr/0.png")
    assert predict.main(argv) == 0
    for kind in ("pha", "ref"):
        with av.open(str(folder / f"out/{kind}/clip.mp4")) as container:
            frames = list(container.decode(video=0))
        assert len(frames) == 5 and (frames[0].width, frames[0].height) == (162, 120)
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("5 frame(s) in ") and str(folder / "out/ref/clip.mp4") in last
