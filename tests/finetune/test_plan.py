"""A plan counts what training will do, and refuses what cannot fit with settings that would."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.finetune.small import make_layout, make_recipe
from workbench.errors import DataError, NotFoundError, OutOfMemoryError, RunError, UsageError
from workbench.finetune import plan as planning
from workbench.finetune import train
from workbench.finetune.memory import MemoryEstimate
from workbench.finetune.order import training_order
from workbench.finetune.plan import FinetunePlan, plan
from workbench.workspace import Layout


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return make_layout(tmp_path_factory.mktemp("plan") / "workspace")


@pytest.fixture(scope="module")
def made(layout: Layout) -> FinetunePlan:
    return plan(layout, make_recipe(layout), pilot=False)


def test_a_plan_counts_rows_steps_and_tokens(layout: Layout, made: FinetunePlan) -> None:
    assert (made.train_rows, made.dev_rows, made.too_long) == (48, 12, 0)
    assert (made.steps, made.evaluations, made.batch_size, made.micro_batch) == (12, 4, 4, 4)
    # A letter is a token, and so is the end of the turn: red, green or blue, each for a third of the rows.
    assert made.learned == 16 * (4 + 6 + 5)
    assert made.learned < made.tokens <= made.padded
    assert made.padded < 1.1 * made.tokens
    assert made.fits
    assert made.alternatives == ()
    assert made.pilot is None


def test_rows_above_the_limit_are_reported(layout: Layout) -> None:
    found = plan(layout, make_recipe(layout, max_length=45), pilot=False)
    assert found.too_long == found.dropped == 48 - found.train_rows > 0
    cut = plan(layout, make_recipe(layout, max_length=45, too_long="truncate"), pilot=False)
    assert (cut.too_long, cut.dropped, cut.train_rows) == (found.too_long, 0, 48)
    assert "above the limit" in str(found)


def test_a_plan_shows_itself(made: FinetunePlan) -> None:
    told = json.loads(json.dumps(made.to_json()))
    assert told["fits"]
    assert set(told["memory"]) == {*(field.name for field in dataclasses.fields(MemoryEstimate)), "peak"}
    for text in (str(made), made._repr_html_()):
        for part in ("48 train", "12 of 4 rows", "activations", "optimizer", "colours fits"):
            assert part in text
        assert "None" not in text


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch, made: FinetunePlan) -> float:
    """Enough for a little less than the activations of the whole batch."""
    free = made.memory.training - made.memory.activations / 4
    monkeypatch.setattr(planning, "available_mb", lambda device: free)
    return free


def test_what_cannot_fit_is_refused_with_settings_that_would(layout: Layout, little_memory: float) -> None:
    found = plan(layout, make_recipe(layout))
    assert not found.fits
    assert found.pilot is None
    assert found.alternatives
    assert found.alternatives[0].settings == {"micro_batch": 2}
    for alternative in found.alternatives:
        # Each is what planning with these settings says, and fits.
        assert alternative.memory.training <= little_memory
        again = plan(layout, make_recipe(layout, **alternative.settings), pilot=False)
        assert again.fits
        assert again.memory.training == pytest.approx(alternative.memory.training)
    with pytest.raises(OutOfMemoryError, match=r"colours does not fit.*would fit with micro_batch: 2 \("):
        found.require_fit()
    assert "would fit with" in str(found)
    assert "would fit with" in found._repr_html_()


def test_where_nothing_fits_it_says_so(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "available_mb", lambda device: 0.01)
    found = plan(layout, make_recipe(layout))
    assert found.alternatives == ()
    with pytest.raises(OutOfMemoryError, match="smaller model"):
        found.require_fit()


def test_a_disk_without_room_is_refused(made: FinetunePlan) -> None:
    tight = dataclasses.replace(made, free_disk_mb=made.disk_mb / 2)
    assert not tight.fits
    with pytest.raises(RunError, match=r"of disk.*Make room"):
        tight.require_fit()


def test_memory_is_handed_back_at_once_only_where_little_is_free(
    made: FinetunePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[bool] = []
    monkeypatch.setattr(planning, "give_back_at_once", lambda: called.append(True))
    roomy = dataclasses.replace(made, available_mb=made.memory.training * (planning.HELD + 1))
    roomy.prepare()
    assert not roomy.tight
    assert called == []
    assert "more is held on to for speed" in str(roomy)
    tight = dataclasses.replace(made, available_mb=made.memory.training * (planning.HELD - 1))
    tight.prepare()
    assert tight.tight
    assert called == [True]
    assert "handed back at once" in str(tight)
    assert not dataclasses.replace(tight, device="cuda").tight
    with pytest.raises(OutOfMemoryError):
        dataclasses.replace(made, available_mb=0.01).prepare()


def test_the_pilot_times_the_real_training_and_keeps_nothing(layout: Layout) -> None:
    found = plan(layout, make_recipe(layout), show_progress=False)
    assert found.pilot is not None
    assert found.pilot.steps == 3
    assert found.pilot.train_s == pytest.approx(found.tokens / found.pilot.tokens_per_s, rel=0.05)
    assert found.pilot.evaluation_s > 0
    assert "tokens/s in a pilot of 3 steps" in str(found)
    for folder in (layout.adapters, layout.finetunes, layout.trainings):
        assert not folder.exists()


def test_a_pilot_that_runs_out_of_memory_tells_no_time(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def fail(*arguments: Any) -> str:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(train.Session, "attempt", fail)
    with pytest.warns(UserWarning, match="memory ran out in the pilot"):
        assert plan(layout, make_recipe(layout)).pilot is None


def test_bad_input_is_refused_before_anything_is_loaded(layout: Layout) -> None:
    recipe = make_recipe(layout)
    with pytest.raises(NotFoundError):
        plan(layout, recipe.model_copy(update={"dataset": "nowhere"}))
    with pytest.raises(NotFoundError, match="no split 'nowhere'"):
        plan(layout, recipe.model_copy(update={"train": "nowhere"}))
    with pytest.raises(UsageError, match="names no module"):
        plan(layout, make_recipe(layout, target_modules=("no_such_proj",)))
    with pytest.raises(DataError, match="no row of at most 9 tokens"):
        plan(layout, make_recipe(layout, max_length=9))


def test_one_class_is_refused(tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "workspace", target=lambda n: "red")
    with pytest.raises(DataError, match="nothing to learn"):
        plan(layout, make_recipe(layout))


@given(st.lists(st.integers(1, 300), min_size=8, max_size=64), st.sampled_from([1, 2, 4, 8]), st.integers(1, 6))
def test_padding_never_takes_tokens_away_and_smaller_pieces_pad_less(
    lengths: list[int], micro: int, steps: int
) -> None:
    rows = [{"input_ids": [1] * lengths[row]} for row in training_order(lengths, 8, steps, 0)]
    tokens = sum(len(row["input_ids"]) for row in rows)
    padded = planning._padded(rows, micro)
    assert tokens <= padded <= planning._padded(rows, 8)
    assert planning._padded(rows, 1) == tokens


@given(st.integers(1, 12), st.integers(0, 12))
def test_the_settings_offered_are_the_first_that_fit(count: int, first: int) -> None:
    kind = [{"place": place} for place in range(count)]
    found = planning._first(kind, lambda settings: settings["place"] if settings["place"] >= first else None)
    assert found == (first if first < count else None)
