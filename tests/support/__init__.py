"""What tests share. Here: where things lie."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests/data"
SHARED = ROOT.parent / "shared"  # beside some clones; tests that need it skip without
REAL = SHARED / "real"
CASES = SHARED / "cases"
