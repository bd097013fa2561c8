"""Preferences: pairs as tokens, the loss, and a training that comes to prefer what reviewers chose."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.finetune.small import COLOURS, PROMPT, make_layout, make_recipe, model_of
from workbench.data.dataset import Dataset
from workbench.data.store import import_dataset, open_dataset
from workbench.errors import DataError, ModelError, NotFoundError
from workbench.finetune.build import load_base, start_of, with_adapter
from workbench.finetune.inputs import as_dataset, filled_up, learned, make_examples, sequences
from workbench.finetune.memory import estimate_memory
from workbench.finetune.pairs import encode_pairs
from workbench.finetune.plan import plan
from workbench.finetune.preference import dpo_trainer
from workbench.finetune.quiet import quiet
from workbench.finetune.recipe import FinetuneRecipe, TrainSettings, read_recipe
from workbench.finetune.train import train
from workbench.finetune.trainer import TrainerParts, common_arguments
from workbench.models.store import STARTER
from workbench.pipeline.prompt import Prompt
from workbench.workspace import Layout


def rows(count: int = 40) -> list[dict[str, Any]]:
    return [
        {
            "id": f"p{n}",
            "text": f"{COLOURS[n % 3][::-1]} {'x' * (n * 7 % 23)}",
            "chosen": COLOURS[n % 3],
            "rejected": COLOURS[(n + 1 + n % 2) % 3] + "?" * (n % 4),
            "part": "dev" if n % 5 == 4 else "train",
        }
        for n in range(count)
    ]


def add_pairs(layout: Layout, lines: list[dict[str, Any]], name: str = "pairs", **fields: Any) -> None:
    source = layout.root / f"{name}.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    fields = {"input": ("text",), "target": ("chosen", "rejected")} | fields
    import_dataset(layout, source, name=name, id="id", split_column="part", **fields)


def dpo(layout: Layout, dataset: str = "pairs", adapter: str | None = None, **settings: Any) -> FinetuneRecipe:
    recipe = make_recipe(layout, beta=0.5, **settings)
    fields = {name: getattr(recipe, name) for name in FinetuneRecipe.model_fields}
    return FinetuneRecipe(**fields | {"name": "preferred", "kind": "dpo", "dataset": dataset, "adapter": adapter})


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = make_layout(tmp_path_factory.mktemp("preference") / "workspace")
    add_pairs(layout, rows())
    return layout


def _split(layout: Layout, name: str = "train", dataset: str = "pairs") -> Dataset:
    return open_dataset(layout, dataset).split(name)


def test_a_pair_is_one_question_and_two_answers_that_end(layout: Layout) -> None:
    recipe = dpo(layout)
    _, tokenizer, *_ = load_base(recipe, "cpu")
    part = _split(layout)
    found = encode_pairs(recipe, part, tokenizer)
    assert len(found.pairs) == len(part)
    assert not found.too_long
    for pair, row in zip(found.pairs, part.rows(), strict=True):
        assert pair.id == row.id
        assert row.inputs["text"] in tokenizer.decode(pair.prompt_ids)
        for tokens, name in ((pair.chosen_ids, "chosen"), (pair.rejected_ids, "rejected")):
            assert tokens[-1] == tokenizer.eos_token_id
            assert tokenizer.decode(tokens[:-1]).strip() == row.target[name]


def test_both_answers_may_be_inputs_too(layout: Layout) -> None:
    add_pairs(layout, rows(), "unplaced", input=(), target=())
    recipe = dpo(layout)
    _, tokenizer, *_ = load_base(recipe, "cpu")
    expected = encode_pairs(recipe, _split(layout), tokenizer)
    assert encode_pairs(recipe, _split(layout, dataset="unplaced"), tokenizer) == expected


def test_pairs_that_are_too_long_are_dropped_or_cut_at_the_question(layout: Layout) -> None:
    recipe = dpo(layout, max_length=46)
    _, tokenizer, *_ = load_base(recipe, "cpu")
    whole = encode_pairs(dpo(layout), _split(layout), tokenizer).pairs
    dropped = encode_pairs(recipe, _split(layout), tokenizer)
    long = [pair for pair in whole if pair.longest > 46]
    assert 0 < len(long) < len(whole)
    assert dropped.too_long == [(pair.id, pair.longest) for pair in long]
    assert dropped.pairs == [pair for pair in whole if pair.longest <= 46]
    cut = encode_pairs(dpo(layout, max_length=46, too_long="truncate"), _split(layout), tokenizer).pairs
    assert max(pair.longest for pair in cut) == 46
    assert [pair.chosen_ids for pair in cut] == [pair.chosen_ids for pair in whole]
    with pytest.raises(DataError, match="more than 46 tokens"):
        encode_pairs(dpo(layout, max_length=46, too_long="refuse"), _split(layout), tokenizer)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rejected": None}, "row 'p1' has nothing in the column 'rejected'"),
        ({"rejected": "green"}, "row 'p1' has the same answer as chosen and as rejected"),
    ],
)
def test_a_row_that_says_nothing_is_named(layout: Layout, change: dict[str, Any], said: str) -> None:
    lines = rows()
    lines[1] |= change
    name = f"broken-{change['rejected']}"
    add_pairs(layout, lines, name, unlabelled=True)
    with pytest.raises(DataError, match=said):
        plan(layout, dpo(layout, name), pilot=False)


def test_a_data_set_without_pairs_is_refused(layout: Layout) -> None:
    with pytest.raises(DataError, match="nothing in the column 'chosen'"):
        train(layout, dpo(layout, "colours"), show_progress=False)


def test_preferences_are_learned_in_smaller_steps_unless_the_file_says_how_large(layout: Layout) -> None:
    fields = {"name": "n", "dataset": "d", "model": "m", "prompt": Prompt.from_text(PROMPT)}
    learning = FinetuneRecipe(**fields, settings={"preset": "balanced"})
    preferring = FinetuneRecipe(**fields, kind="dpo", settings={"preset": "balanced"})
    assert preferring.settings.learning_rate == pytest.approx(learning.settings.learning_rate / 10)
    other = preferring.with_settings(preset="quick")
    assert other.settings == FinetuneRecipe(**fields, kind="dpo", settings={"preset": "quick"}).settings
    given = FinetuneRecipe(**fields, kind="dpo", settings={"learning_rate": 0.01})
    assert given.settings.learning_rate == 0.01
    assert given.with_settings(preset="balanced").settings.learning_rate == 0.01
    assert given.with_settings(max_steps=3).settings.learning_rate == 0.01
    with pytest.raises(ValueError, match="pairs are not packed"):
        FinetuneRecipe(**fields, kind="dpo", settings=TrainSettings(packing=True))


def _trainer(layout: Layout, recipe: FinetuneRecipe, folder: Path) -> tuple[Any, Any]:
    import torch

    model, tokenizer, *_ = load_base(recipe, "cpu")
    parts = {"train": _split(layout), "dev": _split(layout, "dev")}
    examples = make_examples(recipe, parts, model, tokenizer)
    model = with_adapter(model, recipe)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "lora_B" in name:
                weights.normal_(std=0.1)
    trainer = dpo_trainer(
        recipe.settings,
        common_arguments(recipe.settings, folder, "cpu", 4, 3),
        fresh=True,
        model=model,
        train_dataset=as_dataset(examples.train),
        eval_dataset=as_dataset(examples.dev),
        processing_class=tokenizer,
    )
    trainer.order = list(range(len(examples.train)))
    return trainer, trainer.data_collator(examples.train[:4])


@pytest.mark.parametrize("share", [False, True])
def test_the_loss_and_its_gradients_are_those_of_trl(layout: Layout, tmp_path: Path, share: bool) -> None:
    import torch

    with quiet():
        trainer, batch = _trainer(layout, dpo(layout), tmp_path)
        trainer.share = share
        weights = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
        plain = super(TrainerParts, trainer).compute_loss(trainer.model, batch)
        expected = torch.autograd.grad(plain, weights)
        ours = trainer.compute_loss(trainer.model, batch)
        loss = float(plain.detach())
        assert float(ours.detach()) == pytest.approx(loss, rel=1e-4)
        assert abs(loss - math.log(2)) > 1e-3
        for got, wanted in zip(torch.autograd.grad(ours, weights), expected, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()) + 1e-8)
        accuracy = trainer._metrics["train"]["rewards/accuracies"][-1]
        with torch.no_grad():
            pairs, total, preferred = trainer.measure(batch)
        assert (pairs, total / pairs, preferred / pairs) == (4, pytest.approx(loss, rel=1e-4), accuracy)


def test_rows_that_only_fill_up_count_for_nothing(layout: Layout) -> None:
    recipe = dpo(layout)
    model, tokenizer, *_ = load_base(recipe, "cpu")
    parts = {"train": _split(layout), "dev": _split(layout, "dev")}
    for kind in (recipe, make_recipe(layout)):
        of = parts if kind.kind == "dpo" else {name: _split(layout, name, "colours") for name in parts}
        dev = make_examples(kind, of, model, tokenizer).dev
        filled = filled_up(dev, len(dev) + 3)
        assert filled[: len(dev)] == dev
        assert len(filled) == len(dev) + 3
        assert [learned(row) for row in filled[len(dev) :]] == [0, 0, 0]
        assert filled_up(dev, len(dev)) == dev


def test_a_training_comes_to_prefer_what_was_chosen(layout: Layout) -> None:
    result = train(layout, dpo(layout, max_steps=24, eval_every=8), show_progress=False)
    looks = result.metrics.filter(pl.col("dev_loss").is_not_null())
    assert looks["dev_loss"][-1] < 0.8 * math.log(2)
    assert looks["dev_accuracy"][-1] > 0.8
    assert result.metrics["loss"][0] == pytest.approx(math.log(2), abs=1e-4)
    assert result.adapter.manifest.name == "preferred"
    weights = (result.adapter.path / "adapter_model.safetensors").read_bytes()
    assert b".ref." not in weights[:100_000]
    assert train(layout, dpo(layout, max_steps=24, eval_every=8), show_progress=False).adapter == result.adapter


def test_a_killed_training_of_preferences_ends_at_the_same_weights(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workbench.finetune.preference import PreferenceParts

    recipe = dpo(layout, max_steps=6, eval_every=2)
    expected = train(layout, recipe, show_progress=False).adapter
    calls = 0
    original = PreferenceParts.compute_loss

    def dying(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(PreferenceParts, "compute_loss", dying)
        with pytest.raises(KeyboardInterrupt):
            train(layout, recipe, resume=False, show_progress=False)
    again = train(layout, recipe, show_progress=False)
    assert again.adapter.manifest.files == expected.manifest.files


def test_activation_checkpointing_changes_no_loss(layout: Layout) -> None:
    plain, checkpointed = (
        train(layout, dpo(layout, max_steps=4, eval_every=4, gradient_checkpointing=on), show_progress=False)
        for on in (False, True)
    )
    assert checkpointed.metrics["loss"].to_list() == pytest.approx(plain.metrics["loss"].to_list(), rel=1e-3)
    assert checkpointed.dev_loss == pytest.approx(plain.dev_loss, rel=1e-3)


def test_preferences_can_start_from_an_adapter_and_depart_from_it(layout: Layout, tmp_path: Path) -> None:
    import safetensors.torch

    tuned = train(layout, make_recipe(layout), show_progress=False).adapter
    recipe = dpo(layout, adapter=tuned.digest, rank=2, max_steps=6, eval_every=6)
    assert plan(layout, recipe, show_progress=False).pilot is not None
    result = train(layout, recipe, show_progress=False)
    assert result.metrics["loss"][0] == pytest.approx(math.log(2), abs=1e-4)
    assert result.adapter.manifest.rank == tuned.manifest.rank == 4
    before, after = (
        safetensors.torch.load_file(found.path / "adapter_model.safetensors") for found in (tuned, result.adapter)
    )
    assert before.keys() == after.keys()
    moved = max(float((before[name] - after[name]).abs().max()) for name in before)
    assert 0 < moved < 0.05
    file = tmp_path / "preferred.yaml"
    (tmp_path / "prompt.md").write_text(PROMPT)
    file.write_text(
        f"name: preferred\nkind: dpo\ndataset: pairs\nmodel: {model_of(layout.root)}\nprompt: prompt.md\nadapter: colours\n"
    )
    assert read_recipe(layout, file).adapter == tuned.digest
    file.write_text(file.read_text().replace("adapter: colours", "adapter: nobody"))
    with pytest.raises(NotFoundError, match="nobody"):
        read_recipe(layout, file)


def test_an_adapter_of_another_base_is_no_place_to_start(layout: Layout, tmp_path: Path) -> None:
    other = make_layout(tmp_path / "workspace", seed=5)
    add_pairs(other, rows())
    tuned = train(other, make_recipe(other, max_steps=1), show_progress=False).adapter
    target = layout.adapters / tuned.path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    tuned.path.rename(target)
    with pytest.raises(ModelError, match="was trained on"):
        start_of(layout, dpo(layout, adapter=tuned.digest))


def test_a_plan_counts_both_answers_of_a_pair(layout: Layout) -> None:
    recipe = dpo(layout, max_steps=2, eval_every=1)
    model, tokenizer, *_ = load_base(recipe, "cpu")
    parts = {"train": _split(layout), "dev": _split(layout, "dev")}
    examples = make_examples(recipe, parts, model, tokenizer)
    found = plan(layout, recipe)
    assert (found.train_rows, found.dev_rows) == (32, 8)
    assert found.tokens <= 2 * 4 * max(examples.lengths)
    assert found.pilot is not None
    one = examples.train[0]
    assert [len(tokens) for tokens in sequences(one)] == [
        len(one["prompt_ids"]) + len(one[name]) for name in ("chosen_ids", "rejected_ids")
    ]
    pair = estimate_memory(recipe, examples.train[:4])
    half = estimate_memory(recipe, examples.train[:2])
    assert pair.activations > half.activations


@pytest.mark.slow
@pytest.mark.model
def test_a_few_steps_move_the_starter_model(layout: Layout) -> None:
    recipe = dpo(layout, max_steps=10, eval_every=5, learning_rate=2e-4)
    fields = {name: getattr(recipe, name) for name in FinetuneRecipe.model_fields}
    result = train(layout, FinetuneRecipe(**fields | {"model": STARTER}), show_progress=False)
    assert result.metrics["loss"][0] == pytest.approx(math.log(2), abs=1e-3)
    assert result.dev_loss < 0.5 * math.log(2)
    assert result.metrics["dev_accuracy"].drop_nulls()[-1] > 0.8
