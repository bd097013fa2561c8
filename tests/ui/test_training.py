"""The live display of a training: how far it is and how long it still takes, wherever it is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.finetune.small import make_layout, make_recipe
from workbench.errors import NotFoundError
from workbench.finetune.record import METRICS, training_of
from workbench.ui import training
from workbench.workspace import Layout


def metrics(steps: int, speed: float | None = 100.0) -> pl.DataFrame:
    """A training of 50 tokens a step."""
    rows = [
        {"step": n, "loss": 1 / n, "tokens": 50 * n, "tokens_per_s": speed, "memory_mb": 2048.0}
        for n in range(1, steps + 1)
    ]
    return pl.DataFrame([{**dict.fromkeys(METRICS), **row} for row in rows], schema=METRICS, orient="row")


def test_the_status_says_how_long_the_rest_takes() -> None:
    assert training.training_status(metrics(10), 50) == (
        "step 10 of 50 · loss 0.100 · 100 tokens/s · 2.0 GB · 20 s left"
    )
    assert training.training_status(metrics(10), 1210).endswith("· 10 min left")
    assert training.training_status(metrics(10), 100_010).endswith("· 13.9 h left")


@pytest.mark.parametrize(("speed", "steps"), [(None, 50), (100.0, None), (0.0, 50)])
def test_no_time_is_told_that_is_not_known(speed: float | None, steps: int | None) -> None:
    assert "left" not in training.training_status(metrics(3, speed), steps)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return make_layout(tmp_path_factory.mktemp("live") / "workspace")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What marimo was told to show, one after another."""
    marimo = pytest.importorskip("marimo")
    said: list[str] = []
    monkeypatch.setattr(training, "place", lambda: "marimo")
    monkeypatch.setattr("workbench.finetune.callbacks.WATCH_EVERY_S", 0.0)
    monkeypatch.setattr(marimo.output, "replace", lambda what: said.append(what.text))
    return said


def test_marimo_shows_a_bar_that_grows_and_the_time_left(layout: Layout, shown: list[str]) -> None:
    result = training.train_live(layout, make_recipe(layout))
    assert "Loading the model" in shown[0]
    fifth = next(text for text in shown if "step 5 of 12 · loss" in text)
    assert " left" in fifth
    assert "width:41.7%" in fifth
    assert " of 12" not in shown[-1]
    assert "width:100.0%" in shown[-1]
    assert result.steps == 12


def test_what_is_finished_is_shown_at_once_and_a_bound_is_part_of_what_it_is(layout: Layout, shown: list[str]) -> None:
    recipe = make_recipe(layout)
    first = training.train_live(layout, recipe, max_steps=4)
    assert "step 2 of 4" in shown[2]
    shown.clear()
    assert training.train_live(layout, recipe, max_steps=4).id == first.id
    assert len(shown) == 2
    assert training_of(layout, recipe.with_settings(max_steps=4)).id == first.id
    assert training_of(layout, recipe).id != first.id


def test_jupyter_draws_one_output_anew(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    display = pytest.importorskip("IPython.display")
    drawn: list[Any] = []

    class Handle:
        def update(self, what: Any) -> None:
            drawn.append(what)

    def show(what: Any, display_id: bool) -> Handle:
        drawn.append(what)
        return Handle()

    monkeypatch.setattr(training, "place", lambda: "jupyter")
    monkeypatch.setattr(display, "display", show)
    result = training.train_live(layout, make_recipe(layout, seed=1))
    bars = [what.data for what in drawn if hasattr(what, "data") and "<div" in str(what.data)]
    assert "Loading the model" in bars[0]
    assert f"dev loss {result.metrics['dev_loss'].drop_nulls()[-1]:.3f}" in bars[-1]
    assert hasattr(drawn[-1], "to_dict")


def test_a_recipe_of_a_model_that_is_not_here_has_no_training(layout: Layout, tmp_path: Path) -> None:
    recipe = make_recipe(layout)
    lost = type(recipe).model_validate({**recipe.model_dump(), "dataset": "nothing"})
    with pytest.raises(NotFoundError, match="nothing"):
        training_of(layout, lost)
