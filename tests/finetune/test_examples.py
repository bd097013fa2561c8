"""What is trained on: the question exactly as the engine asks it, and the answer up to its end-of-turn token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.finetune.small import COLOURS, ROWS, make_layout, make_recipe, model_of
from workbench import api
from workbench.data.dataset import Dataset
from workbench.data.store import open_dataset
from workbench.errors import DataError, ModelError
from workbench.finetune.examples import check_classes, encode
from workbench.finetune.recipe import FinetuneRecipe
from workbench.models.engine import Message
from workbench.models.store import STARTER, find_model
from workbench.models.transformers_engine import TransformersEngine
from workbench.pipeline.prompt import Prompt, output_text
from workbench.workspace import Layout

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return make_layout(tmp_path_factory.mktemp("examples") / "workspace")


@pytest.fixture(scope="module")
def engine(layout: Layout) -> TransformersEngine:
    return TransformersEngine.load(str(model_of(layout.root)), device="cpu")


@pytest.fixture
def train(layout: Layout) -> Dataset:
    return open_dataset(layout, "colours").split("train")


@pytest.fixture
def recipe(layout: Layout) -> FinetuneRecipe:
    return make_recipe(layout)


def test_the_question_is_what_the_engine_asks_and_the_answer_ends_its_turn(
    engine: TransformersEngine, recipe: FinetuneRecipe, train: Dataset
) -> None:
    encoded = encode(recipe, train, engine.tokenizer)
    assert len(encoded.rows) == ROWS * 4 // 5
    assert not encoded.too_long
    for row, source in zip(encoded.rows, train.rows(), strict=True):
        asked = engine._encode(recipe.prompt.render(source.inputs))
        assert row.id == source.id
        assert row.input_ids[: len(asked)] == asked
        assert row.completion_mask == [0] * len(asked) + [1] * (len(row.input_ids) - len(asked))
        assert engine.tokenizer.decode(row.input_ids[len(asked) :]) == source.target + "<|end|>"


def test_few_shot_examples_are_part_of_the_question(
    engine: TransformersEngine, recipe: FinetuneRecipe, train: Dataset
) -> None:
    shots = recipe.model_copy(update={"prompt": recipe.prompt.with_examples(train.rows()[:2])})
    for row in encode(shots, train.head(3), engine.tokenizer).rows:
        learned = [token for token, mark in zip(row.input_ids, row.completion_mask, strict=True) if mark]
        assert engine.tokenizer.decode(learned).removesuffix("<|end|>") in COLOURS


def test_without_a_chat_template_the_answer_follows_the_plain_form(
    layout: Layout, recipe: FinetuneRecipe, train: Dataset
) -> None:
    plain = TransformersEngine.load(str(model_of(layout.root)), device="cpu")
    plain.tokenizer.chat_template = None
    [row] = encode(recipe, train.head(1), plain.tokenizer).rows
    asked = plain._encode(recipe.prompt.render(train.rows()[0].inputs))
    assert row.input_ids[: len(asked)] == asked
    assert plain.tokenizer.decode(row.input_ids[len(asked) :]) == f" {train.rows()[0].target}<|end|>"


def with_template(layout: Layout, template: str) -> Any:
    tokenizer = TransformersEngine.load(str(model_of(layout.root)), device="cpu").tokenizer
    tokenizer.chat_template = template
    return tokenizer


def test_only_what_the_template_marks_as_generated_is_learned(
    layout: Layout, recipe: FinetuneRecipe, train: Dataset
) -> None:
    tokenizer = with_template(
        layout,
        "{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>thought {% generation %}{{ m.content }}"
        "{% endgeneration %}<|end|>\n{% else %}<|user|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}",
    )
    [row] = encode(recipe, train.head(1), tokenizer).rows
    learned = [token for token, mark in zip(row.input_ids, row.completion_mask, strict=True) if mark]
    assert tokenizer.decode(learned) == f"{train.rows()[0].target}<|end|>"
    assert tokenizer.decode(row.input_ids).endswith("<|end|>")


def test_a_template_that_rewrites_the_question_is_refused(
    layout: Layout, recipe: FinetuneRecipe, train: Dataset
) -> None:
    tokenizer = with_template(
        layout, "{{ messages | length }}{% for m in messages %}{{ m.content }}<|end|>{% endfor %}"
    )
    with pytest.raises(ModelError, match="does not continue the question"):
        encode(recipe, train, tokenizer)


def test_rows_above_the_limit_are_dropped_and_listed(
    engine: TransformersEngine, recipe: FinetuneRecipe, train: Dataset
) -> None:
    lengths = {row.id: len(row.input_ids) for row in encode(recipe, train, engine.tokenizer).rows}
    limit = sorted(lengths.values())[len(lengths) // 2]
    encoded = encode(recipe.with_settings(max_length=limit), train, engine.tokenizer)
    assert dict(encoded.too_long) == {id: length for id, length in lengths.items() if length > limit}
    assert {row.id for row in encoded.rows} == set(lengths) - {id for id, _ in encoded.too_long}
    # The model's own context counts like max_length.
    assert encode(recipe, train, engine.tokenizer, context=limit) == encoded


def test_a_cut_row_keeps_its_answer(engine: TransformersEngine, recipe: FinetuneRecipe, train: Dataset) -> None:
    whole = {row.id: row for row in encode(recipe, train, engine.tokenizer).rows}
    cut = encode(recipe.with_settings(max_length=40, too_long="truncate"), train, engine.tokenizer)
    assert len(cut.rows) == len(whole)
    assert cut.too_long
    for row in cut.rows:
        assert row.input_ids == whole[row.id].input_ids[-40:]
        assert sum(row.completion_mask) == sum(whole[row.id].completion_mask)


def test_rows_that_are_too_long_can_be_refused(
    engine: TransformersEngine, recipe: FinetuneRecipe, train: Dataset
) -> None:
    with pytest.raises(DataError, match=r"more than 40 tokens: 'r2' \(\d+\).* and \d+ more.*raise max_length"):
        encode(recipe.with_settings(max_length=40, too_long="refuse"), train, engine.tokenizer)


def test_a_split_without_a_row_that_fits_is_refused(
    engine: TransformersEngine, recipe: FinetuneRecipe, train: Dataset
) -> None:
    with pytest.raises(DataError, match="no row of at most 8 tokens; the shortest has"):
        encode(recipe.with_settings(max_length=8), train, engine.tokenizer)


def test_an_empty_split_is_refused(engine: TransformersEngine, recipe: FinetuneRecipe, train: Dataset) -> None:
    with pytest.raises(DataError, match="is empty"):
        encode(recipe, train.head(0), engine.tokenizer)


def test_a_row_without_a_target_is_named(engine: TransformersEngine, recipe: FinetuneRecipe) -> None:
    rows = Dataset.from_frame(
        _frame([{"id": "a", "text": "x", "label": "red"}, {"id": "b", "text": "y", "label": None}]),
        target="label",
        unlabelled=True,
    )
    with pytest.raises(DataError, match="row 'b' has no target"):
        encode(recipe, rows, engine.tokenizer)


def test_a_train_split_of_one_class_is_refused(train: Dataset) -> None:
    check_classes(train)
    one = train.take([row.id for row in train.rows() if row.target == "red"])
    with pytest.raises(DataError, match=r"every row .* has the target 'red'"):
        check_classes(one)


@pytest.mark.model
def test_the_starter_model_learns_its_answers_up_to_im_end() -> None:
    tickets = api.open(ROOT).dataset("support-tickets").split("dev").head(20)
    tokenizer = _starter_tokenizer()
    prompt = Prompt.from_file(ROOT / "prompts" / "triage.md")
    recipe = FinetuneRecipe(name="triage", dataset="support-tickets", model=STARTER, prompt=prompt)
    for row, source in zip(encode(recipe, tickets, tokenizer).rows, tickets.rows(), strict=True):
        asked = tokenizer.apply_chat_template(
            [message.model_dump() for message in prompt.render(source.inputs)],
            tokenize=False,
            add_generation_prompt=True,
        )
        assert tokenizer.decode(row.input_ids[: row.prompt_length]) == asked
        assert tokenizer.decode(row.input_ids[row.prompt_length :]) == output_text(source.target) + "<|im_end|>"


def test_an_answer_that_would_melt_into_the_question_stays_apart(layout: Layout, recipe: FinetuneRecipe) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {letter: n for n, letter in enumerate("abcdefghijklmnopqrstuvwxyz:N.C")}
    merges = [("N", "N")]
    vocabulary |= {"NN": len(vocabulary), "<|end|>": len(vocabulary) + 1}
    plain = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    plain.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    plain.decoder = decoders.Fuse()
    plain.add_special_tokens(["<|end|>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<|end|>", clean_up_tokenization_spaces=False)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}:N{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}assistant:N{% endif %}"
    )
    rows = Dataset.from_frame(_frame([{"id": "a", "text": "x", "label": "Nred"}]), target="label")
    asked = recipe.model_copy(update={"prompt": Prompt.from_text("{{ text }}")})
    [row] = encode(asked, rows, tokenizer).rows
    learned = [token for token, mark in zip(row.input_ids, row.completion_mask, strict=True) if mark]
    assert tokenizer.convert_ids_to_tokens(learned) == ["N", "r", "e", "d", "<|end|>"]
    question = [Message(role="user", content="x")]
    text = tokenizer.apply_chat_template(
        [message.model_dump() for message in question], tokenize=False, add_generation_prompt=True
    )
    assert row.input_ids[: row.prompt_length] == tokenizer.encode(text, add_special_tokens=False)


def _frame(rows: list[dict[str, Any]]) -> Any:
    import polars as pl

    return pl.DataFrame(rows)


def _starter_tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(find_model(STARTER).path, local_files_only=True)
