"""What a trainer is fed: the rows of both splits as tokens, in the form that its kind of training takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.data.dataset import Dataset
from workbench.errors import require
from workbench.finetune.examples import EncodedRow, encode
from workbench.finetune.pairs import EncodedPair, encode_pairs
from workbench.finetune.recipe import FinetuneRecipe
from workbench.models.decoding import end_tokens


@dataclass(frozen=True)
class Examples:
    """Both splits as the trainer takes them: packed where the recipe says so, the dev split in order of length.

    Attributes:
        train, dev: rows, each with `input_ids` and `labels` (-100 where nothing is learned), or for preferences with
            `prompt_ids`, `chosen_ids` and `rejected_ids`.
        too_long: id and length in tokens of train rows above the limit.
    """

    train: list[dict[str, Any]]
    dev: list[dict[str, Any]]
    too_long: tuple[tuple[str, int], ...]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each train row; of a pair, of both its sequences."""
        return [sum(map(len, sequences(row))) for row in self.train]


def make_examples(recipe: FinetuneRecipe, parts: Mapping[str, Dataset], model: Any, tokenizer: Any) -> Examples:
    """The examples of a training.

    Args:
        model: of which only the configuration counts: its context and the tokens that end a turn.

    Raises:
        DataError, PromptError, ModelError: a row cannot be learned from; see `encode` and `encode_pairs`.
    """
    context = getattr(model.config, "max_position_embeddings", None)
    ends = end_tokens(model, tokenizer)
    if recipe.kind == "dpo":
        train_pairs, dev_pairs = (
            encode_pairs(recipe, parts[name], tokenizer, ends=ends, context=context) for name in ("train", "dev")
        )
        rows, looks = ([_pair(pair) for pair in found.pairs] for found in (train_pairs, dev_pairs))
        return Examples(rows, _by_length(looks), tuple(train_pairs.too_long))
    train, dev = (encode(recipe, parts[name], tokenizer, ends=ends, context=context) for name in ("train", "dev"))
    rows, looks = ([_row(row, recipe) for row in found.rows] for found in (train, dev))
    if recipe.settings.packing:
        rows = _packed(rows, train.limit)
    return Examples(rows, _by_length(looks), tuple(train.too_long))


def sequences(row: Mapping[str, Any]) -> list[list[int]]:
    """The token sequences of a row that go through the model: one, or a chosen and a rejected one."""
    if "prompt_ids" not in row:
        return [row["input_ids"]]
    return [row["prompt_ids"] + row["chosen_ids"], row["prompt_ids"] + row["rejected_ids"]]


def labels(row: Mapping[str, Any]) -> list[list[int]]:
    """The same with -100 in the place of every token that is not learned."""
    if "prompt_ids" not in row:
        return [row["labels"]]
    unlearned = [-100] * len(row["prompt_ids"])
    return [unlearned + row["chosen_ids"], unlearned + row["rejected_ids"]]


def learned(row: Mapping[str, Any]) -> int:
    """How many tokens of a row are learned."""
    return sum(label != -100 for sequence in labels(row) for label in sequence)


def filled_up(rows: Sequence[dict[str, Any]], multiple: int) -> list[dict[str, Any]]:
    """The rows, and after them copies of which nothing counts, until their number is a multiple.

    With several processes the dev split is dealt out evenly; what is dealt twice must not count twice.
    """
    missing = -len(rows) % multiple
    shortest = rows[0]
    if "prompt_ids" in shortest:
        blank = {"prompt_ids": sequences(shortest)[0], "chosen_ids": [], "rejected_ids": []}
    else:
        blank = {"input_ids": shortest["input_ids"], "labels": [-100] * len(shortest["input_ids"])}
    return [*rows, *(dict(blank) for _ in range(missing))]


def as_dataset(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows in memory, in the form that trl's trainers take."""
    datasets = require("datasets", extra="finetune")
    return datasets.Dataset.from_list([dict(row) for row in rows])


def _row(row: EncodedRow, recipe: FinetuneRecipe) -> dict[str, Any]:
    marks = row.completion_mask if recipe.settings.completion_only else [1] * len(row.input_ids)
    kept = [token if mark else -100 for token, mark in zip(row.input_ids, marks, strict=True)]
    return {"input_ids": row.input_ids, "labels": kept}


def _pair(pair: EncodedPair) -> dict[str, Any]:
    return {"prompt_ids": pair.prompt_ids, "chosen_ids": pair.chosen_ids, "rejected_ids": pair.rejected_ids}


def _by_length(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: sum(map(len, sequences(row))))


def _packed(rows: list[dict[str, Any]], length: int) -> list[dict[str, Any]]:
    """Rows put together up to `length` tokens, none cut, each with the lengths of what is in it."""
    trl = require("trl", extra="finetune")
    packed: list[dict[str, Any]] = trl.pack_dataset(as_dataset(rows), length, "bfd").to_list()
    return packed
