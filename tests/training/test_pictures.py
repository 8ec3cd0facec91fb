"""What is shown of a batch: whole pictures small, and a zoomed edge where there is a refiner."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from model.matting_base import Outputs
from model.matting_refine import Refined, resize
from training import pictures as shown_pictures
from training.pictures import WHOLE_COLUMNS, ZOOM, ZOOMED_COLUMNS, edge_part, pictures, preview


def edge_at(rows: range, columns: range, size: tuple[int, int]) -> Tensor:
    """Two hard halves, and a place of half-transparent pixels: the most of an edge."""
    pha = torch.zeros(size)
    pha[:, size[1] // 2 :] = 1
    pha[rows.start : rows.stop, columns.start : columns.stop] = 0.5
    return pha[None]


def refined(pha: Tensor) -> tuple[tuple[Tensor, ...], Refined]:
    """Inputs and outputs of a network whose refined alpha is the true one."""
    fgr, (height, width) = pha.expand(-1, 3, -1, -1), pha.shape[2:]
    quarter = resize(pha, (height // 4, width // 4))
    outputs = Refined(pha, fgr, quarter, quarter.expand(-1, 3, -1, -1), quarter, quarter)
    return (fgr, 1 - fgr, pha, fgr), outputs


def test_the_first_stage_shows_what_it_has() -> None:
    pha = torch.rand(2, 1, 64, 96)
    fgr = pha.expand(-1, 3, -1, -1)
    shown = pictures((fgr, 1 - fgr, pha, fgr), Outputs(pha, fgr, pha, torch.rand(2, 32, 64, 96)))
    assert set(shown) == {
        "src",
        "bgr",
        "true_pha",
        "true_fgr",
        "composite",
        "pred_pha",
        "pred_fgr",
        "pred_err",
    }
    assert shown["src"] is fgr and torch.equal(shown["pred_err"], pha)
    behind = (1 - fgr).roll(1, 0)  # the next sample's
    torch.testing.assert_close(shown["composite"], fgr * pha + behind * (1 - pha))


def test_the_second_stage_shows_its_small_outputs_at_their_size() -> None:
    shown = pictures(*refined(torch.rand(2, 1, 64, 96)))
    for name in ("pred_pha_sm", "pred_err_sm", "pred_ref_sm"):
        assert shown[name].shape == (2, 1, 16, 24)
    assert set(ZOOMED_COLUMNS) < set(shown) and "pred_fgr_sm" not in shown


def test_the_edge_is_found_in_each_picture_and_shown_enlarged() -> None:
    size, places = (128, 192), [(range(40, 56), range(20, 44)), (range(112, 128), range(168, 192))]
    pha = torch.stack([edge_at(*place, size) for place in places])
    rows, columns = edge_part(pha)
    for number, (down, across) in enumerate(places):  # to a cell
        assert (
            abs(rows[number, 0] - down.start) <= 4 and abs(columns[number, 0] - across.start) <= 4
        )
    assert (rows.shape, columns.shape) == ((2, 128 // ZOOM), (2, 192 // ZOOM))
    assert rows.max() < 128 and columns.max() < 192
    inputs, outputs = refined(pha)
    shown = pictures(inputs, outputs)
    assert {tuple(shown[name].shape[2:]) for name in (*WHOLE_COLUMNS, *ZOOMED_COLUMNS)} == {size}
    assert torch.equal(shown["zoom_pred_pha"], shown["zoom_true_pha"])
    coarse = resize(outputs.pha_sm, size)
    for number in range(2):
        for name, whole in (("true_pha", pha), ("pred_pha_sm", coarse), ("src", inputs[0])):
            part = whole[number][:, rows[number]][:, :, columns[number]]
            part = part.repeat_interleave(ZOOM, 1).repeat_interleave(ZOOM, 2)
            assert torch.equal(shown[f"zoom_{name}"][number], part), name


@pytest.mark.parametrize("size", [(33, 40), (36, 32), (200, 33)])
def test_any_size_and_an_alpha_without_an_edge_have_a_part(size: tuple[int, int]) -> None:
    corner = torch.zeros(1, 1, *size)
    corner[..., -4:, -4:] = 0.5
    for pha in (torch.zeros(1, 1, *size), torch.ones(1, 1, *size), corner):
        for side, part in zip(size, edge_part(pha), strict=True):
            assert part.shape == (1, side // ZOOM) and 0 <= part.min() <= part.max() < side


def test_large_pictures_are_shown_small_and_zoomed_at_their_own_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shown_pictures, "MAX_SIDE", 64)
    size = (250, 130)
    pha = edge_at(range(100, 130), range(30, 45), size)[None]
    shown = pictures(*refined(pha))
    assert max(max(picture.shape[2:]) for picture in shown.values()) <= 64
    assert shown["src"].shape[2:] == shown["zoom_src"].shape[2:] == (63, 33)
    torch.testing.assert_close(shown["true_pha"].mean(), pha.mean(), atol=0.02, rtol=0)
    rows, columns = edge_part(pha)
    own = pha[0, 0, rows[0, 0], columns[0, 0]]
    assert shown["zoom_true_pha"][0, 0, 0, 0] == own


def test_the_preview_has_the_zoomed_parts_below_the_whole_ones(tmp_path: Path) -> None:
    levels = dict(zip((*WHOLE_COLUMNS, *ZOOMED_COLUMNS), range(10, 90, 10), strict=True))
    shown = {
        name: torch.full((3, 3 if name.endswith("src") else 1, 20, 30), level, dtype=torch.uint8)
        for name, level in levels.items()
    }
    preview(tmp_path / "preview.png", shown)
    picture = Image.open(tmp_path / "preview.png")
    assert picture.size == (4 + 4 * 34, 4 + 6 * 24)
    found = [[picture.getpixel((19 + 34 * x, 14 + 24 * y))[0] for x in range(4)] for y in range(6)]
    assert found == [[10, 20, 30, 40], [50, 60, 70, 80]] * 3
