"""A small workspace and an engine that answers at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from tests.ending import end
from tests.instant import InstantEngine
from tests.workspaces import make_workspace
from workbench import api
from workbench.errors import ModelError
from workbench.models.engines import register_engine
from workbench.models.store import STARTER, find_model, share_cores

share_cores()

# How long an example takes says what else the machine does.
settings.register_profile("workbench", deadline=None)
settings.load_profile("workbench")


def pytest_sessionfinish() -> None:
    end()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("model") is not None:
        try:
            find_model(STARTER)
        except ModelError as error:
            pytest.skip(str(error))


@pytest.fixture
def instant() -> InstantEngine:
    engine = InstantEngine()
    register_engine("instant", lambda name, quantization: engine)
    return engine


@pytest.fixture
def workspace(tmp_path: Path, instant: InstantEngine) -> api.Workspace:
    return make_workspace(tmp_path / "workspace")
