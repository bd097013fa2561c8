"""Preference pairs: the tokens of a question, of the answer that a reviewer preferred, and of the one that was rejected."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from workbench.data.dataset import Dataset
from workbench.data.row import Row
from workbench.errors import DataError
from workbench.finetune.examples import check_lengths, encode_turn, limit_of, named_split
from workbench.finetune.recipe import FinetuneRecipe
from workbench.pipeline.prompt import output_text

CHOSEN, REJECTED = "chosen", "rejected"


@dataclass(frozen=True)
class EncodedPair:
    """One pair. Each answer ends with the end-of-turn token."""

    id: str
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]

    @property
    def longest(self) -> int:
        """Tokens of the question with the longer of the answers."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))


@dataclass(frozen=True)
class EncodedPairs:
    """Pairs of one split.

    Attributes:
        too_long: id and length in tokens of every pair above the limit, whatever was done with it.
    """

    pairs: list[EncodedPair]
    too_long: list[tuple[str, int]] = field(default_factory=list)


def encode_pairs(
    recipe: FinetuneRecipe,
    part: Dataset,
    tokenizer: Any,
    *,
    ends: Collection[int] | None = None,
    context: int | None = None,
) -> EncodedPairs:
    """The pairs of a split, in storage order, from the columns `chosen` and `rejected`.

    Both columns may be of the target or of the input. Questions, answers, limits and what is done with pairs above them are
    those of `encode`.

    Raises:
        DataError: the split is empty, a row lacks one of the two or has the same text in both, or rows are too long.
        PromptError: a row lacks a variable of the prompt.
        ModelError: the chat template does not continue the question when it has the answer.
    """
    ends = set(ends) if ends else {tokenizer.eos_token_id}
    limit = limit_of(recipe, tokenizer, context)
    where = named_split(part)
    pairs: list[EncodedPair] = []
    too_long: list[tuple[str, int]] = []
    for row in part.rows():
        chosen, rejected = _answers(row, where)
        question = recipe.prompt.render(row.inputs)
        whole, mask = encode_turn(tokenizer, question, chosen, ends)
        other, other_mask = encode_turn(tokenizer, question, rejected, ends)
        start = min(mask.index(1), other_mask.index(1))
        pair = EncodedPair(row.id, whole[:start], whole[start:], other[start:])
        if pair.longest > limit:
            too_long.append((row.id, pair.longest))
            excess = pair.longest - limit
            if recipe.settings.too_long != "truncate" or excess >= start:
                continue
            pair = EncodedPair(row.id, pair.prompt_ids[excess:], pair.chosen_ids, pair.rejected_ids)
        pairs.append(pair)
    check_lengths(len(pairs), too_long, recipe.settings.too_long, limit, where)
    return EncodedPairs(pairs, too_long)


def _answers(row: Row, where: str) -> tuple[str, str]:
    target = row.target if isinstance(row.target, dict) else {}
    found = []
    for name in (CHOSEN, REJECTED):
        value = target.get(name, row.inputs.get(name))
        if value is None:
            raise DataError(
                f"{where}: row {row.id!r} has nothing in the column {name!r}",
                hint="Preferences are learned from the columns chosen and rejected; fill both in, or leave the row out.",
            )
        found.append(output_text(value))
    if found[0] == found[1]:
        raise DataError(
            f"{where}: row {row.id!r} has the same answer as chosen and as rejected",
            hint="Mend the row, or leave it out of the split.",
        )
    return found[0], found[1]
