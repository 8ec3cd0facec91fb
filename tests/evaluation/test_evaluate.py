"""evaluate.py as a user types it: folders of mattes, a checkpoint, wrong input, what is written."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.augmentation import augment
from dataset.folders import data_folders, open_split
from dataset.sample import collate
from evaluation import metrics
from evaluation.folders import follows, read_matte
from evaluation.network import Compositions, choose_backgrounds
from model import MattingBase
from prediction.frames import read_rgb
from tests.support.drawn import make_data
from tests.support.evaluating import (
    EXPECTED,
    FIXTURES,
    NAMES,
    error_of,
    matte,
    mattes,
    of_checkpoint,
    run,
)

# ------------------------------------------------------------------------------------------------
# Folders of mattes


@pytest.mark.parametrize("where", ["whole", "unknown"])
def test_published_figures_through_the_command_line(
    here: Path, capsys: pytest.CaptureFixture, where: str
) -> None:
    over = ["--trimap-dir", "trimap"] if where == "unknown" else []
    run(*mattes(here), *over, "--json", "out.json")
    content = json.loads(Path("out.json").read_text())
    images = {image["name"]: image for image in content["images"]}
    assert images.keys() == EXPECTED.keys()
    for name, expected in EXPECTED.items():
        for metric, value in expected.get(where, {}).items():
            assert images[name][metric] == pytest.approx(value, rel=1e-3), (name, metric)
    for metric in NAMES:
        values = [image[metric] for image in content["images"]]
        assert content["mean"][metric] == pytest.approx(np.mean(values))
    errors = [image["mad"] for image in content["images"]]
    assert errors == sorted(errors, reverse=True)
    with Path("out.csv").open(newline="") as file:
        rows = [
            {k: v if k == "name" else float(v) for k, v in row.items()}
            for row in csv.DictReader(file)
        ]
    assert rows == content["images"]
    said = capsys.readouterr().out
    assert f"over the {'whole image' if where == 'whole' else 'unknown region'}" in said
    assert f"{content['mean']['mad']:.4f}" in said and said.index("scale") < said.index("blur")


def test_a_derived_trimap(here: Path, capsys: pytest.CaptureFixture) -> None:
    run(*mattes(here, "blur", "noise"), "--unknown", "--json", "out.json")
    images = {i["name"]: i for i in json.loads(Path("out.json").read_text())["images"]}
    for name in images:
        pred, true = (read_matte(here / kind / f"{name}.png") for kind in ("pred", "true"))
        region = metrics.unknown_region(true)
        assert images[name]["sad"] == metrics.sad(pred, true, region).item()
    assert "over the unknown region" in capsys.readouterr().out


def test_an_image_with_an_empty_region_is_in_no_mean(
    here: Path, capsys: pytest.CaptureFixture
) -> None:
    options = [*mattes(here, "blur"), "--unknown", "--json", "out.json"]
    run(*options)
    alone = json.loads(Path("out.json").read_text())
    for kind in ("pred", "true"):
        matte(here / kind / "opaque.png", 1)
    run(*options, "--overwrite", "--report", "out.html")
    said = capsys.readouterr().out
    assert "1 image has no pixel" in said
    assert "left out of the means" in Path("out.html").read_text()
    both = json.loads(Path("out.json").read_text())
    assert both["mean"] == alone["mean"] and both["images"] == alone["images"]
    assert both["empty"] == ["opaque"] and "opaque" not in Path("out.csv").read_text()


def test_frames_with_an_empty_region_are_in_no_clip(here: Path) -> None:
    """Between all frames the change is wrong by 0.1; the third is opaque, true and predicted."""
    for number, value in ((1, 0.5), (2, 0.6), (3, 1)):
        matte(here / f"pred/a/{number}.png", value)
        matte(here / f"true/a/{number}.png", 0.5 if number < 3 else 1)
    for options in ([], ["--unknown"]):
        run(
            "--pred-dir",
            "pred",
            "--true-dir",
            "true",
            "--json",
            "out.json",
            "--overwrite",
            *options,
        )
        clips = json.loads(Path("out.json").read_text())["clips"]
        assert clips[0]["dtssd"] == pytest.approx(10, rel=0.1)


def test_where_no_image_has_an_unknown_pixel(here: Path, capsys: pytest.CaptureFixture) -> None:
    for kind in ("pred", "true"):
        Path(kind).mkdir()
        binary = np.zeros((40, 40), np.uint8)
        Image.fromarray(binary).save(f"{kind}/a.png")
        binary[:] = 255
        Image.fromarray(binary).save(f"{kind}/b.png")
    # of such true mattes nothing is measured at all
    assert "empty or full" in error_of(capsys, "--pred-dir", "pred", "--true-dir", "true")
    Path("trimap").mkdir()
    for name in "ab":
        half = np.zeros((40, 40), np.uint8)
        half[:, 20:] = 255
        Image.fromarray(half).save(f"true/{name}.png")
        Image.fromarray(half).save(f"trimap/{name}.png")
    options = ["--pred-dir", "pred", "--true-dir", "true", "--trimap-dir", "trimap"]
    assert "none of 2 images" in error_of(capsys, *options)


def test_all_16_bits_count_and_jpg_meets_png(here: Path) -> None:
    Path("pred").mkdir()
    Image.fromarray(np.full((8, 8), 100 * 257 + 3, dtype=np.uint16)).save("pred/a.png")
    matte(Path("true/a.png"), 100 / 255)
    matte(Path("pred/b.jpg"), 0.5)
    matte(Path("true/b.png"), 0.5)
    run("--pred-dir", "pred", "--true-dir", "true", "--json", "out.json")
    first, second = json.loads(Path("out.json").read_text())["images"]
    assert first["name"] == "a" and first["mad"] == pytest.approx(3 / 65535 * 1000, rel=1e-4)
    assert second["mad"] == 0


def test_what_has_no_partner_or_another_size_is_named(
    here: Path, capsys: pytest.CaptureFixture
) -> None:
    options = [*mattes(here, "blur", "noise", "holes"), "--json", "out.json"]
    Path("pred/noise.png").unlink()
    matte(Path("pred/more.png"), 1)
    matte(Path("pred/holes.png"), 1)
    line = error_of(capsys, *options)
    assert "noise.png has no partner in" in line and "more.png has no partner in" in line
    assert "true/holes.png (160x120)" in line and "pred/holes.png (8x8)" in line
    assert "--partial to measure the other 1" in line and not Path("out.json").exists()
    run(*options, "--partial")
    said = capsys.readouterr().out
    assert all(f"{name}.png" in said for name in ("noise", "more", "holes"))
    content = json.loads(Path("out.json").read_text())
    assert [image["name"] for image in content["images"]] == ["blur"]
    assert len(content["about"]["left out"]) == 3
    Path("trimap/blur.png").unlink()
    line = error_of(capsys, *options, "--partial", "--trimap-dir", "trimap", "--overwrite")
    assert "no pair of mattes" in line


def test_dtssd_of_clips(here: Path) -> None:
    """a changes by 0.2 and by 0.1 between its frames 9, 10 and 11, and has another at 13; b has one
    frame; pictures beside the folders are no clip."""
    values = {"a/9": 0.4, "a/10": 0.6, "a/11": 0.5, "a/13": 1, "b/1": 0.4, "1": 0.4, "2": 0.8}
    for name, value in values.items():
        matte(Path(f"pred/{name}.png"), value)
        matte(Path(f"true/{name}.png"), 0.4)
    run("--pred-dir", "pred", "--true-dir", "true", "--json", "out.json")
    content = json.loads(Path("out.json").read_text())
    assert content["clips"] == [{"name": "a", "dtssd": pytest.approx(15, rel=1e-2)}]
    assert content["mean"]["dtssd"] == content["clips"][0]["dtssd"]
    assert len(content["images"]) == len(values)


def test_photos_of_all_kinds(here: Path) -> None:
    grey = np.full((4, 4), 200 * 257, dtype=np.uint16)
    Image.fromarray(grey).save("a.png")
    Image.new("RGBA", (4, 4), (200, 200, 200, 0)).save("b.png")
    Image.new("P", (4, 4), 0).save("c.png")
    assert (read_rgb(Path("a.png")) == 200).all() and read_rgb(Path("a.png")).ndim == 3
    assert (read_rgb(Path("b.png")) == 200).all()
    assert read_rgb(Path("c.png")).shape == (4, 4, 3)


def test_which_frame_follows() -> None:
    assert follows("clip/0010", "clip/0009") and follows("a/b/x-2", "a/b/x-1")
    assert not follows("2", "1") and not follows("b/2", "a/1") and not follows("a/x3", "a/y2")
    assert not follows("a/3", "a/1") and not follows("a/b", "a/1")


def test_a_name_of_any_bytes(here: Path, capsys: pytest.CaptureFixture) -> None:
    for kind in ("pred", "true"):
        matte(Path(f"{kind}/a.png"), 0.5).rename(Path(kind) / "caf\udce9.png")
    matte(Path("pred/\udce8.png"), 0.5)
    options = ["--pred-dir", "pred", "--true-dir", "true", "--json", "out.json", "--partial"]
    run(*options, "--report", "out.html")
    assert "caf\\xe9" in capsys.readouterr().out
    assert json.loads(Path("out.json").read_text())["images"][0]["name"] == "caf\\xe9"


# ------------------------------------------------------------------------------------------------
# A checkpoint on a data set


def test_each_foreground_meets_each_background(checkpoint: Path, here: Path) -> None:
    data = make_data(here / "data", valid=3)
    run(*of_checkpoint(checkpoint, data), "--backgrounds", 2, "--json", "two.json")
    content = json.loads(Path("two.json").read_text())
    chosen = choose_backgrounds(3, 2, seed=0)
    fgr = ["clip0/0000", "clip1/0001", "clip0/0002"]
    names = {f"{one} on {other}" for one in fgr for other in chosen}
    assert {image["name"] for image in content["images"]} == names
    assert all({*NAMES, "fgr_mse"} < image.keys() for image in content["images"])
    # In other batches, with workers, the figures are the same.
    other = ["--batch-size", 2, "--num-workers", 1, "--backgrounds", 2, "--json", "again.json"]
    run(*of_checkpoint(checkpoint, data), *other)
    again = {i["name"]: i for i in json.loads(Path("again.json").read_text())["images"]}
    for image in content["images"]:
        assert all(again[image["name"]][n] == pytest.approx(image[n], rel=1e-4) for n in NAMES)
    assert len({image["mad"] for image in content["images"]}) == 6
    run(*of_checkpoint(checkpoint, data), "--foregrounds", 2, "--json", "few.json")
    assert len(json.loads(Path("few.json").read_text())["images"]) == 2 * 3


def test_figures_are_those_of_the_network(checkpoint: Path, data: Path, here: Path) -> None:
    run(*of_checkpoint(checkpoint, data), "--captured", "--json", "out.json")
    images = {i["name"]: i for i in json.loads(Path("out.json").read_text())["images"]}
    compositions = Compositions(
        *open_split(data_folders("", data, print), "valid"), [0, 1], seed=0, captured=True
    )
    key = compositions.keys(None, 64)[1]
    src, bgr, true_pha, true_fgr = augment(collate([compositions[key]]), torch.device("cpu"))
    model = MattingBase("mobilenetv2").eval()
    model.load_state_dict(torch.load(checkpoint, weights_only=True))
    with torch.inference_mode():
        pred_pha, pred_fgr, _, _ = model(src, bgr ** compositions.gamma_of(key))
    image = images[compositions.name(key)]
    assert image["mad"] == pytest.approx(metrics.mad(pred_pha, true_pha).item(), rel=1e-4)
    expected = metrics.fgr_mse(pred_fgr, true_fgr, true_pha).item()
    assert image["fgr_mse"] == pytest.approx(expected, rel=1e-4)


def test_a_captured_background_differs_and_is_fixed(data: Path) -> None:
    split = open_split(data_folders("", data, print), "valid")

    def sample(seed: int, captured: bool) -> tuple[torch.Tensor, torch.Tensor, list[tuple]]:
        compositions = Compositions(*split, [0, 1], seed, captured)
        keys = compositions.keys(None, 64)
        batch = collate([compositions[key] for key in keys])
        src, bgr, *_ = augment(batch, torch.device("cpu"))
        noise = batch["noise_seeds"][:, 1].tolist()
        return src, bgr, list(zip(noise, map(compositions.gamma_of, keys), strict=True))

    (src, bgr, drawn), (moved_src, moved, moved_drawn) = sample(0, False), sample(0, True)
    assert torch.allclose(src, moved_src, atol=1e-4)  # more of the picture was decoded
    assert drawn == [(0, 1.0)] * 4
    assert all(len(set(column)) == 4 for column in zip(*moved_drawn, strict=True))
    for one, other in zip(bgr, moved, strict=True):
        assert 0.005 < (one - other).abs().mean() < 0.2
    assert torch.equal(moved, sample(0, True)[1])
    assert not torch.equal(moved, sample(1, True)[1])


def test_weights_that_are_not_finite(data: Path, here: Path, capsys: pytest.CaptureFixture) -> None:
    state = MattingBase("mobilenetv2").state_dict()
    bias = state["decoder.conv4.bias"]
    torch.save(state | {"decoder.conv4.bias": bias * float("nan")}, "bad.pth")
    line = error_of(capsys, *of_checkpoint(Path("bad.pth"), data))
    assert "bad.pth holds no weights that compute: 1 entries" in line
    for layer in (1, 2, 3):  # finite, and no more so when one has multiplied another
        state[f"decoder.bn{layer}.weight"].fill_(3e38)
    torch.save(state, "bad.pth")
    line = error_of(capsys, *of_checkpoint(Path("bad.pth"), data))
    assert "0000 on 0: the prediction has values that are not finite" in line


# ------------------------------------------------------------------------------------------------
# What is written


def test_outputs_are_never_lost(
    checkpoint: Path, data: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    options = mattes(here, "blur")
    run(*options)
    assert "wrote" not in capsys.readouterr().out and not Path("log/evaluate").exists()
    for flag, name in (("--json", "a.json"), ("--csv", "a.csv"), ("--report", "a.html")):
        Path(name).write_text("mine")
        line = error_of(capsys, *options, flag, name)
        assert f"{name} exists" in line and "--overwrite" in line
        assert Path(name).read_text() == "mine"
        run(*options, flag, name, "--overwrite")
        assert Path(name).read_text() != "mine"
    assert "is a folder" in error_of(capsys, *options, "--json", "pred")
    assert "is a file" in error_of(capsys, *options, "--json", "a.csv/b.json")
    assert "the same file" in error_of(capsys, *options, "--json", "b.csv")

    for _ in range(2):
        run(*of_checkpoint(checkpoint, data))
    name = f"{checkpoint.parent.name}-epoch-0"
    written = {path.name for path in Path("log/evaluate").iterdir()}
    assert written == {f"{name}{n}.{kind}" for n in ("", "-2") for kind in ("json", "csv")}


def test_wrong_options(here: Path, capsys: pytest.CaptureFixture) -> None:
    assert "give either --model-checkpoint" in error_of(capsys)
    both = ["--model-checkpoint", "a.pth", "--pred-dir", "a", "--true-dir", "b"]
    assert "give either --model-checkpoint" in error_of(capsys, *both)
    assert "--true-dir DIR is missing" in error_of(capsys, "--pred-dir", "a")
    assert "--pred-dir DIR is missing" in error_of(capsys, "--true-dir", "a")
    folders = mattes(here, "blur")
    assert "--size goes with --model-checkpoint" in error_of(capsys, *folders, "--size", 64)
    model = ["--model-checkpoint", "a.pth"]
    assert "--partial goes with --pred-dir" in error_of(capsys, *model, "--partial")
    line = error_of(capsys, *folders, "--unknown", "--trimap-dir", "trimap")
    assert "type one of them" in line
    line = error_of(capsys, *model, "--dataset-name", "backgrounds")
    assert "choose another entry" in line


def test_wrong_input(
    checkpoint: Path, data: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    assert "missing.pth" in error_of(capsys, *of_checkpoint(Path("missing.pth"), data))
    Path("text.pth").write_text("no weights")
    assert "text.pth" in error_of(capsys, *of_checkpoint(Path("text.pth"), data))
    assert "nowhere" in error_of(capsys, *of_checkpoint(checkpoint, Path("nowhere")))
    folders = mattes(here, "blur", "noise")
    assert "nowhere" in error_of(capsys, *folders, "--trimap-dir", "nowhere")
    line = error_of(capsys, "--pred-dir", ".", "--true-dir", "true")
    assert "no matte below . has the name of one below true" in line
    Image.new("CMYK", (160, 120)).save("pred/blur.jpg")
    assert "1 name(s) twice, with two endings" in error_of(capsys, *folders)
    Path("pred/blur.png").unlink()
    assert "its mode is CMYK" in error_of(capsys, *folders)
    Path("pred/blur.jpg").unlink()
    whole = (FIXTURES / "blur_pred.png").read_bytes()
    Path("pred/blur.png").write_bytes(whole[: len(whole) // 2])
    line = error_of(capsys, *folders)
    assert "pred/blur.png cannot be decoded" in line and "--on-bad-image" not in line
    Path("pred/blur.png").write_bytes(b"no picture")
    line = error_of(capsys, *folders)
    assert "pred/blur.png cannot be decoded" in line and "--on-bad-image" not in line


def test_ctrl_c(here: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("evaluation.scores.measure", interrupted)
    run(*mattes(here, "blur"), "--json", "out.json", status=130)
    assert capsys.readouterr().err.strip() == "evaluate.py: stopped"
    assert not Path("out.json").exists()
