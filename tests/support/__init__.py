"""What tests share. Here: where things lie."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests/data"
SHARED = ROOT.parent / "shared"  # beside some clones; tests that need it skip without
CASES = SHARED / "cases"
PHOTOS = DATA / "real"  # its README says whose
on_photos = pytest.mark.parametrize(
    "photos",
    [
        pytest.param(PHOTOS, id="own"),
        pytest.param(
            SHARED / "real",
            id="shared",
            marks=pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared beside this clone"),
        ),
    ],
)
