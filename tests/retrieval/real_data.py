"""Public data sets that are not part of the repository: tests that want them skip where they are absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def real_data(*parts: str) -> Path:
    """A file or folder of `WORKBENCH_TEST_DATA`, by default `../shared/data` beside the repository."""
    folder = Path(os.environ.get("WORKBENCH_TEST_DATA") or ROOT.parent / "shared" / "data")
    path = folder.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no {path}: set WORKBENCH_TEST_DATA to a folder that has {'/'.join(parts)}")
    return path
