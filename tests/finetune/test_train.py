"""Training from a recipe to a published adapter, and everything that can go wrong on the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.finetune.small import COLOURS, make_layout, make_recipe
from workbench.data.store import open_dataset
from workbench.errors import (
    DataError,
    NotFoundError,
    OutOfMemoryError,
    RunError,
    UsageError,
    WorkbenchWarning,
)
from workbench.finetune.build import load_base, with_adapter
from workbench.finetune.examples import encode
from workbench.finetune.loss import completion_loss
from workbench.finetune.order import look_every, steps_of, training_order
from workbench.finetune.recipe import FinetuneRecipe, TrainSettings, read_recipe
from workbench.finetune.record import list_trainings, training_frame
from workbench.finetune.train import TrainResult, train
from workbench.finetune.trainer import TrainerParts
from workbench.finetune.watchdog import WINDOW, Diverged, Watchdog
from workbench.models.store import STARTER
from workbench.ui.charts import Nothing
from workbench.ui.training import loss_chart, train_live, training_status
from workbench.workspace import Layout

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return make_layout(tmp_path_factory.mktemp("train") / "workspace")


@pytest.fixture(scope="module")
def result(layout: Layout) -> TrainResult:
    return train(layout, make_recipe(layout), show_progress=False)


def test_a_training_lowers_the_loss_and_publishes_its_best_checkpoint(layout: Layout, result: TrainResult) -> None:
    looks = result.metrics.filter(pl.col("dev_loss").is_not_null())
    assert looks["step"].to_list() == [3, 6, 9, 12]
    assert looks["dev_loss"][-1] < looks["dev_loss"][0]
    assert result.dev_loss == looks["dev_loss"].min()
    assert result.best_step == looks.row(looks["dev_loss"].arg_min() or 0, named=True)["step"]
    assert (result.stopped, result.steps, result.micro_batch) == ("steps", 12, 4)
    manifest = result.adapter.manifest
    assert (manifest.name, manifest.rank, manifest.alpha, manifest.modules) == ("colours", 4, 8, 14)
    assert manifest.metrics["dev_loss"] == result.dev_loss
    assert (result.adapter.path / "adapter_model.safetensors").is_file()
    assert "dev loss" in str(result)


def test_metrics_and_record_are_in_the_events_store(layout: Layout, result: TrainResult) -> None:
    frame = training_frame(layout, result.id[:6])
    assert frame.equals(result.metrics)
    assert frame["step"].to_list() == list(range(1, 13))
    assert frame["learning_rate"].max() == pytest.approx(5e-3)
    assert frame["tokens"].is_sorted()
    assert frame["tokens_per_s"].min() > 0  # type: ignore[operator]
    [record] = list_trainings(layout)
    assert (record.adapter, record.train_rows, record.dev_rows) == (result.adapter.digest, 48, 12)
    with pytest.raises(NotFoundError, match="no training"):
        training_frame(layout, "nothing")


def test_the_seed_decides_the_weights(layout: Layout, tmp_path: Path, result: TrainResult) -> None:
    recipe = make_recipe(layout)
    again = train(layout, recipe, resume=False, show_progress=False)
    other = train(layout, recipe.with_settings(seed=1), show_progress=False)
    assert again.adapter.digest == result.adapter.digest
    assert other.adapter.digest != result.adapter.digest
    assert other.id != result.id


def test_whoever_watches_sees_the_curve_grow(layout: Layout) -> None:
    frames: list[pl.DataFrame] = []
    train(layout, make_recipe(layout, seed=2), show_progress=False, watch=frames.append)
    assert len(frames[0]) < len(frames[-1]) == 12
    assert isinstance(loss_chart(frames[0].clear()), Nothing)
    drawn = loss_chart(frames[-1]).to_dict()
    assert (
        "best on dev" in drawn["title"]["text"] if isinstance(drawn["title"], dict) else "best on dev" in drawn["title"]
    )
    assert "step 12 of 20 · loss" in training_status(frames[-1], 20)
    assert training_status(frames[0].clear()) == "starting"


def test_marimo_shows_the_curve_while_it_grows(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    marimo = pytest.importorskip("marimo")
    shown: list[str] = []
    monkeypatch.setattr("workbench.ui.training.place", lambda: "marimo")
    monkeypatch.setattr(marimo.output, "replace", lambda what: shown.append(what.text))
    result = train_live(layout, make_recipe(layout, seed=3), show_progress=False)
    assert len(shown) >= 2
    assert "step 12 · loss" in shown[-1]
    assert result.steps == 12


def changed(recipe: FinetuneRecipe, **fields: Any) -> FinetuneRecipe:
    return FinetuneRecipe(**{name: getattr(recipe, name) for name in FinetuneRecipe.model_fields} | fields)


def _batch(layout: Layout, recipe: FinetuneRecipe) -> tuple[Any, dict[str, Any]]:
    """A model whose adapter has an effect, and a padded batch of five rows."""
    import torch

    model, tokenizer, *_ = load_base(recipe, "cpu")
    rows = encode(recipe, open_dataset(layout, "colours").split("train"), tokenizer).rows[:5]
    model = with_adapter(model, recipe)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "lora_B" in name:
                weights.normal_(std=0.05)
    width = max(len(row.input_ids) for row in rows)
    lists: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
    for row in rows:
        padding = width - len(row.input_ids)
        labels = [token if mark else -100 for token, mark in zip(row.input_ids, row.completion_mask, strict=True)]
        lists["input_ids"].append(row.input_ids + [0] * padding)
        lists["attention_mask"].append([1] * len(row.input_ids) + [0] * padding)
        lists["labels"].append(labels + [-100] * padding)
    return model, {name: torch.tensor(values) for name, values in lists.items()}


@pytest.mark.parametrize("share", [False, True])
def test_the_loss_and_its_gradients_are_those_of_the_plain_computation(layout: Layout, share: bool) -> None:
    import torch

    model, batch = _batch(layout, make_recipe(layout))
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    plain = model(**batch).loss
    expected = torch.autograd.grad(plain, weights)
    found = completion_loss(model, batch, share=share)
    assert found is not None
    total, count = found[0].sum(), found[1].sum()
    assert int(count) == int((batch["labels"][:, 1:] != -100).sum())
    assert float((total / count).detach()) == pytest.approx(float(plain.detach()), rel=1e-5)
    for got, wanted in zip(torch.autograd.grad(total / count, weights), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-5 * float(wanted.abs().max()) + 1e-9)


def test_a_shared_beginning_goes_through_the_model_once(layout: Layout) -> None:
    model, batch = _batch(layout, make_recipe(layout))
    widths: list[tuple[int, int]] = []
    base = model.get_base_model()
    hook = base.model.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    completion_loss(model, batch, share=True)
    hook.remove()
    rows, tokens = batch["input_ids"].shape
    [(one, shared), (all_rows, rest)] = widths
    assert (one, all_rows, shared + rest) == (1, rows, tokens)
    assert shared >= len("Name the colour.")


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=40),
    batch=st.integers(1, 9),
    steps=st.integers(1, 30),
    seed=st.integers(0, 5),
)
def test_every_row_is_trained_on_equally_often(lengths: list[int], batch: int, steps: int, seed: int) -> None:
    order = training_order(lengths, batch, steps, seed)
    assert len(order) == steps * batch
    counts = [order.count(row) for row in range(len(lengths))]
    assert max(counts) - min(counts) <= 1
    assert max(lengths[row] for row in order) == lengths[order[0]]
    assert training_order(lengths, batch, steps, seed) == order


def test_rows_of_like_length_share_a_batch() -> None:
    import random

    chance = random.Random(0)
    lengths = [chance.randint(10, 400) for _ in range(400)]
    order = training_order(lengths, 8, 50, seed=0)
    batches = [[lengths[row] for row in order[start : start + 8]] for start in range(0, 400, 8)]
    padded = sum(8 * max(batch) for batch in batches)
    assert sum(lengths) / padded > 0.95
    assert [max(batch) for batch in batches] != sorted((max(batch) for batch in batches), reverse=True)


def test_steps_are_whole_batches_of_the_passes() -> None:
    assert steps_of(48, 4, 2.0) == 24
    assert steps_of(197, 8, 2.0) == 50
    assert steps_of(3, 8, 1.0) == 1
    assert steps_of(48, 4, 2.0, max_steps=5) == 5


@given(st.integers(1, 5000))
def test_looks_at_the_dev_split_are_about_eight(steps: int) -> None:
    looks = -(-steps // look_every(steps))
    assert min(steps, 5) <= looks <= 10
    assert look_every(steps, 7) == 7


def _losses(monkeypatch: pytest.MonkeyPatch, change: Callable[[int, Any], Any]) -> None:
    """Let training see other losses than it has: `change` gets the step under way and the loss."""
    original = TrainerParts.compute_loss

    def changed(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss = original(self, model, inputs, *args, **kwargs)
        return change(self.state.global_step + 1, loss) if model.training else loss

    monkeypatch.setattr(TrainerParts, "compute_loss", changed)


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_training_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    layout = make_layout(tmp_path / "workspace")
    _losses(monkeypatch, lambda step, loss: loss * factor if step == 8 else loss)
    with pytest.warns(WorkbenchWarning, match=r"stopped at step 8: the loss is (nan|inf); the checkpoint of step 6"):
        result = train(layout, make_recipe(layout), show_progress=False)
    assert result.stopped.startswith("went wrong at step 8")
    assert (result.best_step, result.steps) == (6, 6)
    # It would go wrong again: the result is kept like any other.
    assert train(layout, make_recipe(layout)).adapter.digest == result.adapter.digest


def test_training_that_goes_wrong_at_once_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = make_layout(tmp_path / "workspace")
    _losses(monkeypatch, lambda step, loss: loss * float("nan"))
    with pytest.raises(RunError, match=r"went wrong at step 1, before its first checkpoint.*Lower learning_rate"):
        train(layout, make_recipe(layout), show_progress=False)


def test_the_watchdog_sees_a_loss_that_rises_and_stays() -> None:
    watchdog = Watchdog([2.0 - step / 10 for step in range(15)])
    watchdog.check(16, 9.0)  # one outlier
    for step in range(17, 16 + WINDOW // 2):
        watchdog.check(step, 5.0)
    with pytest.raises(Diverged, match="the loss rose to 5, from"):
        watchdog.check(99, 5.0)


@given(st.lists(st.floats(0.001, 0.4), min_size=WINDOW, max_size=40))
def test_the_watchdog_lets_small_losses_jump(losses: list[float]) -> None:
    watchdog = Watchdog()
    for step, loss in enumerate(losses):
        watchdog.check(step, loss)


def test_patience_ends_training_and_the_best_checkpoint_is_kept(layout: Layout) -> None:
    # With steps of nothing the dev loss never gets better than at the first look.
    recipe = make_recipe(layout, learning_rate=1e-30, patience=2, eval_every=2)
    result = train(layout, recipe, show_progress=False)
    assert (result.stopped, result.best_step, result.steps) == ("patience", 2, 6)
    assert train(layout, recipe).stopped == "patience"
    assert "the dev loss got no better" in str(result)


def _memory_for(monkeypatch: pytest.MonkeyPatch, rows: int, *, from_step: int = 0) -> None:
    """Let a batch of more rows than these not fit, once so many steps are done."""
    import torch

    original = TrainerParts.compute_loss

    def limited(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if len(inputs["input_ids"]) > rows and self.state.global_step >= from_step:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(TrainerParts, "compute_loss", limited)


def test_what_does_not_fit_memory_goes_in_smaller_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: Layout, result: TrainResult
) -> None:
    here = make_layout(tmp_path / "workspace")
    _memory_for(monkeypatch, 1, from_step=7)
    with pytest.warns(
        WorkbenchWarning, match=r"for (4 rows at once: .* with 2, 2 times|2 rows at once: .* with 1, 4 times)"
    ):
        pieces = train(here, make_recipe(here), show_progress=False)
    assert (pieces.micro_batch, pieces.steps) == (1, 12)
    # The same rows make a step, and their tokens count the same.
    assert pieces.metrics["tokens"].equals(result.metrics["tokens"])
    assert pieces.metrics["loss"].to_list() == pytest.approx(result.metrics["loss"].to_list(), rel=1e-3)


def test_one_row_that_does_not_fit_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = make_layout(tmp_path / "workspace")
    _memory_for(monkeypatch, 0)
    with pytest.warns(WorkbenchWarning), pytest.raises(OutOfMemoryError, match=r"train on one row.*Lower max_length"):
        train(layout, make_recipe(layout), show_progress=False)


@pytest.mark.parametrize(
    "settings",
    [
        {"packing": True, "max_length": 256},
        {"completion_only": False},
        {"gradient_checkpointing": True},
        {"micro_batch": 1},
        {"target_modules": ("q_proj", "v_proj")},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_every_setting_trains(tmp_path: Path, settings: dict[str, Any]) -> None:
    layout = make_layout(tmp_path / "workspace")
    result = train(layout, make_recipe(layout, max_steps=6, **settings), show_progress=False)
    looks = result.metrics["dev_loss"].drop_nulls()
    assert looks[-1] < looks[0]


def test_rows_in_a_pack_do_not_see_one_another(layout: Layout) -> None:
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from workbench.finetune.inputs import _packed
    from workbench.finetune.quiet import quiet

    model, batch = _batch(layout, make_recipe(layout))
    found = completion_loss(model, batch, share=False)
    assert found is not None
    lengths = batch["attention_mask"].sum(dim=1)
    rows = [
        {"input_ids": batch["input_ids"][row, :length].tolist(), "labels": batch["labels"][row, :length].tolist()}
        for row, length in enumerate(lengths)
    ]
    with quiet():
        packs = _packed(rows, 200)
    assert len(packs) < len(rows)
    assert sorted(length for pack in packs for length in pack["seq_lengths"]) == sorted(lengths.tolist())
    inputs = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(packs)
    packed = completion_loss(model, inputs, share=True)
    assert packed is not None
    torch.testing.assert_close(packed[0].sum(), found[0].sum(), rtol=1e-4, atol=1e-4)


def test_rows_that_are_too_long_are_counted(tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "workspace")
    result = train(layout, make_recipe(layout, max_length=46, max_steps=3), show_progress=False)
    assert result.too_long
    assert all(tokens > 46 for _, tokens in result.too_long)
    assert f"{len(result.too_long)} rows were too long" in str(result)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"train": "nothing"}, NotFoundError, "no split 'nothing'"),
        ({"dataset": "nothing"}, NotFoundError, "nothing"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused_before_a_model_is_loaded(
    layout: Layout, change: dict[str, Any], error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.finetune.train.load_base", None)
    recipe = changed(make_recipe(layout), **change)
    with pytest.raises(error, match=message):
        train(layout, recipe, show_progress=False)


def test_modules_that_the_model_does_not_have_are_named(tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "workspace")
    with pytest.raises(UsageError, match=r"target_modules .*'nothing'.* names no module"):
        train(layout, make_recipe(layout, target_modules=("nothing",)), show_progress=False)


def test_one_class_is_refused(tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "workspace", target=lambda n: "red")
    with pytest.raises(DataError, match="nothing to learn"):
        train(layout, make_recipe(layout), show_progress=False)


def test_changed_rows_are_another_training(tmp_path: Path) -> None:
    first, second = make_layout(tmp_path / "a"), make_layout(tmp_path / "b", target=lambda n: COLOURS[-(n % 3)])
    ids = {train(layout, make_recipe(layout, max_steps=1), show_progress=False).id for layout in (first, second)}
    assert len(ids) == 2


def test_settings_that_change_make_another_recipe(layout: Layout) -> None:
    recipe = make_recipe(layout)
    assert recipe.with_settings(seed=7).digest != recipe.digest
    assert recipe.with_settings().digest == recipe.digest
    thorough = changed(recipe, settings=TrainSettings()).with_settings(preset="thorough")
    assert (thorough.settings.rank, thorough.settings.patience) == (32, 4)
    assert recipe.with_settings(preset="thorough").settings.batch_size == recipe.settings.batch_size


def test_the_shipped_recipe_reads() -> None:
    recipe = read_recipe(Layout.find(ROOT), ROOT / "adapters" / "triage.yaml")
    assert (recipe.name, recipe.model, recipe.settings.rank) == ("triage", STARTER, 16)


@pytest.mark.slow
@pytest.mark.model
def test_a_few_steps_teach_the_starter_model(tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "workspace")
    recipe = changed(make_recipe(layout, max_steps=12, eval_every=6, learning_rate=5e-4), model=STARTER)
    result = train(layout, recipe, show_progress=False)
    losses = result.metrics["loss"].to_list()
    assert sum(losses[-3:]) < sum(losses[:3]) / 2
    assert result.adapter.manifest.base == STARTER
    assert json.loads((result.adapter.path / "adapter_config.json").read_text())["r"] == 4
