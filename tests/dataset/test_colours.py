"""Colour profiles: what is shown is what is trained on and predicted, and outputs are sRGB."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

import predict
from common.errors import DataError
from dataset.pictures import decode, open_picture
from prediction.frames import read_rgb
from tests.support.predicting import save_weights, scene, words
from tests.support.profiles import (
    ADOBE_RGB,
    DISPLAY_P3,
    SRGB,
    SRGB_CURVE,
    cmyk_profile,
    grey_profile,
    rgb_profile,
)

WIDE = {
    "Display P3": rgb_profile(DISPLAY_P3, SRGB_CURVE),
    "Adobe RGB": rgb_profile(ADOBE_RGB, 2.19921875),
}
OF_SRGB = {
    "written by us": rgb_profile(SRGB, SRGB_CURVE),
    "of Little CMS": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
}


def linear(values: np.ndarray) -> np.ndarray:
    return np.where(values > 0.04045, ((values + 0.055) / 1.055) ** 2.4, values / 12.92)


def as_srgb(pixels: np.ndarray, primaries: tuple, gamma: float | None) -> np.ndarray:
    """By the definition: linear light, XYZ, linear light of sRGB, curve."""
    values = linear(pixels / 255) if gamma is None else (pixels / 255) ** gamma
    matrix = np.linalg.inv(np.array(SRGB).T) @ np.array(primaries).T
    light = (values @ matrix.T).clip(0, 1)
    curved = np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light)
    return curved * 255


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", WIDE)
def test_wide_gamuts_become_srgb(tmp_path: Path, name: str, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=WIDE[name])
    primaries, gamma = (DISPLAY_P3, None) if name == "Display P3" else (ADOBE_RGB, 2.19921875)
    expected = as_srgb(pixels, primaries, gamma)
    assert np.abs(read_rgb(tmp_path / "a.png") - expected).max() < 2
    assert np.abs(pixels - expected).max() > 50


@pytest.mark.parametrize("name", OF_SRGB)
def test_srgb_under_any_name_keeps_its_bits(tmp_path: Path, name: str, pixels: np.ndarray) -> None:
    for ending, how in (("png", {}), ("jpg", {"quality": 95})):
        Image.fromarray(pixels).save(tmp_path / f"plain.{ending}", **how)
        path = tmp_path / f"a.{ending}"
        Image.fromarray(pixels).save(path, icc_profile=OF_SRGB[name], **how)
        assert np.array_equal(read_rgb(path), read_rgb(tmp_path / f"plain.{ending}"))


@pytest.mark.parametrize("size", [(40, 60), (10, 15)])
def test_training_reads_what_prediction_reads(
    tmp_path: Path, size: tuple[int, int], pixels: np.ndarray
) -> None:
    """In full, and where a JPEG is decoded smaller."""
    flat = np.broadcast_to(np.uint8([200, 60, 30]), pixels.shape)
    Image.fromarray(flat).save(tmp_path / "a.jpg", icc_profile=WIDE["Display P3"], quality=100)
    matrix = np.array([[60 / size[1], 0, 0], [0, 40 / size[0], 0]])
    found, _ = decode(open_picture(tmp_path / "a.jpg"), "RGB", size, matrix)
    assert np.abs(found.reshape(-1, 3).mean(0) - read_rgb(tmp_path / "a.jpg")[0, 0]).max() < 1
    assert found.reshape(-1, 3).mean(0)[0] > 210


def test_alpha_is_no_colour(tmp_path: Path, pixels: np.ndarray) -> None:
    rgba = np.concatenate([pixels, pixels[..., :1]], axis=2)
    Image.fromarray(rgba).save(tmp_path / "a.png", icc_profile=WIDE["Adobe RGB"])
    found, _ = decode(open_picture(tmp_path / "a.png"), "RGBA", (40, 60), np.eye(3)[:2])
    assert np.array_equal(found[..., 3], rgba[..., 3])
    assert np.abs(found[..., :3].astype(int) - pixels).max() > 50
    for name, mode, profile in (
        ("grey", "L", grey_profile(1.0)),
        ("colour", "RGB", WIDE["Adobe RGB"]),
    ):
        path = tmp_path / f"{name}.png"
        Image.fromarray(pixels).convert("L").convert(mode).save(path, icc_profile=profile)
        found, _ = decode(open_picture(path), "L", (40, 60), np.eye(3)[:2])
        assert np.array_equal(found[..., 0], np.asarray(Image.fromarray(pixels).convert("L")))


def test_grey_and_palettes(tmp_path: Path, pixels: np.ndarray) -> None:
    grey = pixels[..., 0]
    expected = as_srgb(np.repeat(grey[..., None], 3, 2), SRGB, 1.8)
    for name, picture in (
        ("8.png", Image.fromarray(grey)),
        ("16.png", Image.fromarray(grey.astype(np.uint16) * 257)),
    ):
        picture.save(tmp_path / name, icc_profile=grey_profile(1.8))
        assert np.abs(read_rgb(tmp_path / name) - expected).max() < 2
    flat = Image.new("RGB", (8, 8), (200, 60, 30))
    flat.save(tmp_path / "rgb.png", icc_profile=WIDE["Adobe RGB"])
    flat.quantize(4).save(tmp_path / "p.png", icc_profile=WIDE["Adobe RGB"])
    assert np.array_equal(read_rgb(tmp_path / "rgb.png"), read_rgb(tmp_path / "p.png"))


def test_profiles_that_cannot_be_used_are_passed_over(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "a.png"
    for bad in (b"nonsense", WIDE["Adobe RGB"][:200], grey_profile(1.0), cmyk_profile()):
        Image.fromarray(pixels).save(path, icc_profile=bad)
        assert np.array_equal(read_rgb(path), pixels)


def test_inks_are_taken_with_a_profile_alone(tmp_path: Path) -> None:
    profile = cmyk_profile()
    for inks, colour in (
        ((0, 0, 0, 0), (255, 255, 255)),
        ((255, 0, 0, 0), (0, 164, 216)),  # Lab 62 -31 -48 is out of sRGB: the red is cut off
        ((0, 0, 0, 255), (28, 28, 28)),  # Lab 10 0 0
    ):
        path = tmp_path / "a.jpg"
        Image.new("CMYK", (32, 32), inks).save(path, icc_profile=profile, quality=100)
        assert np.abs(read_rgb(path)[0, 0].astype(int) - colour).max() <= 12
        small, _ = decode(open_picture(path), "RGB", (8, 8), np.array([[4.0, 0, 0], [0, 4, 0]]))
        assert small.shape == (8, 8, 3) and np.abs(small - colour).max() <= 12
    for bad in (b"", b"nonsense", profile[:300], WIDE["Adobe RGB"]):
        Image.new("CMYK", (8, 8)).save(path, icc_profile=bad)
        with pytest.raises(DataError, match=re.escape("CMYK, without a colour profile that can")):
            read_rgb(path)


def test_what_predict_writes_is_srgb(tmp_path: Path) -> None:
    """Of a picture in Display P3 the same outputs as of its colours in sRGB, and no profile."""
    weights = save_weights(tmp_path / "weights.pth")
    for number, picture in enumerate(scene(1)):
        for folder, profile in (("p3", WIDE["Display P3"]), ("srgb", None)):
            (tmp_path / folder).mkdir(exist_ok=True)
            path = tmp_path / folder / ("src", "bgr")[number]
            if profile is None:
                shown = as_srgb(np.asarray(picture), DISPLAY_P3, None).round().astype(np.uint8)
                picture = Image.fromarray(shown)
            picture.save(path.with_suffix(".png"), icc_profile=profile)
    for folder in ("p3", "srgb"):
        argv = words(weights, tmp_path / folder, "--type", "fgr", "com")
        argv[3], argv[5] = (str(tmp_path / folder / f"{name}.png") for name in ("src", "bgr"))
        assert predict.main(argv) == 0
    for kind in ("fgr", "com"):
        one, other = (
            Image.open(tmp_path / folder / "out" / kind / "src.png") for folder in ("p3", "srgb")
        )
        assert "icc_profile" not in one.info
        assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).max() <= 3
