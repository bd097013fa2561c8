"""A promoted artifact with a stand-in for its model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registry.conftest import write_run
from tests.serving.answering import Parrot
from workbench.models.engines import register_engine
from workbench.registry.artifact import Artifact
from workbench.registry.promote import promote
from workbench.serving.served import Served, serve_artifact
from workbench.workspace import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "workbench.toml").write_text('name = "test"\n')
    return Layout.find(tmp_path)


@pytest.fixture
def parrot() -> Iterator[Parrot]:
    engine = Parrot()
    register_engine("tiny", lambda name, quantization: engine)
    yield engine
    engine.close()


@pytest.fixture
def artifact(layout: Layout, parrot: Parrot) -> Artifact:
    answers = {"base": [True] * 20 + [False] * 40, "few": [True] * 50 + [False] * 10}
    return promote(layout, write_run(layout, answers), "greet", "few", alias="prod")


@pytest.fixture
def served(artifact: Artifact, layout: Layout) -> Served:
    return serve_artifact(artifact, layout)
