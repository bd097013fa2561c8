"""Training examples: the tokens of a question as any pipeline asks it, and of the answer that is to be learned."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.data.dataset import Dataset
from workbench.data.store import open_dataset
from workbench.errors import DataError, ModelError
from workbench.finetune.recipe import FinetuneRecipe, TooLong
from workbench.models.chat import chat_text, chat_tokens
from workbench.models.engine import Message
from workbench.pipeline.prompt import output_text
from workbench.workspace import Layout

# Tokenizers without a limit say so with a number like 1e30.
_NO_LIMIT = 1 << 30
# Rows that a message names before it says "and more".
_NAMED = 3


@dataclass(frozen=True)
class EncodedRow:
    """One example.

    Attributes:
        input_ids: question and answer, the end-of-turn token last.
        completion_mask: 1 where a token is of the answer or ends it, else 0; as long as `input_ids`.
    """

    id: str
    input_ids: list[int]
    completion_mask: list[int]

    @property
    def prompt_length(self) -> int:
        """Tokens before the first one that is learned."""
        return self.completion_mask.index(1)


@dataclass(frozen=True)
class Encoded:
    """Examples of one split.

    Attributes:
        too_long: id and length in tokens of every row above the limit, whatever was done with it.
        limit: most tokens of a row.
    """

    rows: list[EncodedRow]
    too_long: list[tuple[str, int]] = field(default_factory=list)
    limit: int = _NO_LIMIT

    @property
    def tokens(self) -> int:
        """Tokens of all rows together, without padding."""
        return sum(len(row.input_ids) for row in self.rows)

    @property
    def learned(self) -> int:
        """Tokens of the answers."""
        return sum(sum(row.completion_mask) for row in self.rows)


def encode(
    recipe: FinetuneRecipe,
    part: Dataset,
    tokenizer: Any,
    *,
    ends: Collection[int] | None = None,
    context: int | None = None,
) -> Encoded:
    """The examples of a split, in storage order.

    The tokens of a question are exactly those that the engine feeds the model. The answer is what the tokenizer's chat
    template writes after them, up to and with the end-of-turn token; where the template marks what an assistant
    generates (`{% generation %}`), only that. A row longer than the recipe's `max_length` or the model's context is dropped;
    or the beginning of its question is cut off (`truncate`), the answer never; or nothing is trained (`refuse`).

    Args:
        ends: tokens with which the model ends a turn; the tokenizer's by default.
        context: most tokens that the model takes; the tokenizer's by default.

    Raises:
        DataError: the split is empty, a row has no target, every row is too long, or one is and the recipe refuses that.
        PromptError: a row lacks a variable of the prompt.
        ModelError: the chat template does not continue the question when it has the answer.
    """
    ends = set(ends) if ends else {tokenizer.eos_token_id}
    limit = limit_of(recipe, tokenizer, context)
    where = named_split(part)
    rows: list[EncodedRow] = []
    too_long: list[tuple[str, int]] = []
    for row in part.rows():
        if row.target is None or (isinstance(row.target, dict) and None in row.target.values()):
            raise DataError(
                f"{where}: row {row.id!r} has no target to learn", hint="Fill it in, or leave the row out of the split."
            )
        question = recipe.prompt.render(row.inputs)
        encoded = EncodedRow(row.id, *encode_turn(tokenizer, question, output_text(row.target), ends))
        if len(encoded.input_ids) > limit:
            too_long.append((row.id, len(encoded.input_ids)))
            cut = _cut(encoded, limit) if recipe.settings.too_long == "truncate" else None
            if cut is None:
                continue
            encoded = cut
        rows.append(encoded)
    check_lengths(len(rows), too_long, recipe.settings.too_long, limit, where)
    return Encoded(rows, too_long, limit)


def check_classes(part: Dataset) -> None:
    """Refuse a train split in which there is nothing to tell apart.

    Raises:
        DataError: all rows have the same target.
    """
    targets = {output_text(row.target) for row in part.rows()}
    if len(targets) == 1:
        raise DataError(
            f"every row of the split {part.split_name!r} of {part.name!r} has the target {targets.pop()[:80]!r}, "
            "so there is nothing to learn",
            hint="Add rows with other answers, or mend the column that holds them.",
        )


def limit_of(recipe: FinetuneRecipe, tokenizer: Any, context: int | None = None) -> int:
    """Most tokens of a row: the recipe's, or fewer where the model takes fewer."""
    return min(recipe.settings.max_length, context or _NO_LIMIT, getattr(tokenizer, "model_max_length", _NO_LIMIT))


def named_split(part: Dataset) -> str:
    """A split as messages call it."""
    return f"the split {part.split_name!r} of {part.name!r}" if part.split_name else f"the data set {part.name!r}"


def check_lengths(rows: int, too_long: list[tuple[str, int]], policy: TooLong, limit: int, where: str) -> None:
    """Refuse a split without rows, or with rows too long where the recipe wants that refused.

    Args:
        rows: how many are left. too_long: id and length of those above the limit.

    Raises:
        DataError: says which it is, and names the rows.
    """
    if too_long and policy == "refuse":
        named = ", ".join(f"{name!r} ({tokens})" for name, tokens in too_long[:_NAMED])
        more = f" and {len(too_long) - _NAMED} more" if len(too_long) > _NAMED else ""
        raise DataError(
            f"{where} has rows of more than {limit} tokens: {named}{more}",
            hint="Shorten them, raise max_length, or set too_long to drop or truncate.",
        )
    if not rows and too_long:
        raise DataError(
            f"{where} has no row of at most {limit} tokens; the shortest has {min(tokens for _, tokens in too_long)}",
            hint="Raise max_length, shorten the prompt, or set too_long to truncate.",
        )
    if not rows:
        raise DataError(f"{where} is empty", hint="Name a split that has rows; see: workbench data show")


def _cut(row: EncodedRow, limit: int) -> EncodedRow | None:
    """The row without the beginning of its question; None where not even the answer fits."""
    excess = len(row.input_ids) - limit
    if excess >= row.prompt_length:
        return None
    return EncodedRow(row.id, row.input_ids[excess:], row.completion_mask[excess:])


def encode_turn(
    tokenizer: Any, question: Sequence[Message], answer: str, ends: set[int]
) -> tuple[list[int], list[int]]:
    """Tokens of a question with its answer up to and with the end of the turn, and 1 for each that is of the answer.

    Raises:
        ModelError: the chat template does not continue the question when it has the answer.
    """
    messages = [*question, Message(role="assistant", content=answer)]
    prompt = chat_tokens(tokenizer, question)
    whole = chat_tokens(tokenizer, messages, answered=True)
    if whole[: len(prompt)] != prompt:
        whole = _continued(tokenizer, question, messages, prompt)
    # Templates write a line break after the end of a turn, which the model never gets to write.
    last = max((place for place in range(len(prompt), len(whole)) if whole[place] in ends), default=None)
    whole = [*whole, tokenizer.eos_token_id] if last is None else whole[: last + 1]
    mask = [0] * len(prompt) + [1] * (len(whole) - len(prompt))
    marked = _marked(tokenizer, messages, whole)
    if marked is not None:
        mask = [place & mark for place, mark in zip(mask, marked, strict=True)]
        mask[-1] = 1
    return whole, mask


def _continued(
    tokenizer: Any, question: Sequence[Message], messages: Sequence[Message], prompt: list[int]
) -> list[int]:
    """Question and answer tokenized apart, as the model meets them: for answers that would melt into the question's end.

    Raises:
        ModelError: the template does not write the question the same way once it is answered.
    """
    asked, answered = chat_text(tokenizer, question), chat_text(tokenizer, messages, answered=True)
    if answered.startswith(asked):
        rest = list(tokenizer.encode(answered[len(asked) :], add_special_tokens=False))
        if tokenizer.decode(prompt + rest).endswith(answered[len(asked) :]):
            return prompt + rest
    raise ModelError(
        "the chat template does not continue the question when it has the answer, so training would not match asking",
        hint="Use a model whose template does, or mend chat_template in its tokenizer_config.json.",
    )


def _marked(tokenizer: Any, messages: Sequence[Message], whole: list[int]) -> list[int] | None:
    """What the template marks as generated, for the tokens of `whole`; None where it marks nothing."""
    if "generation" not in (tokenizer.chat_template or ""):
        return None
    dumped = [{"role": message.role, "content": message.content} for message in messages]
    found = tokenizer.apply_chat_template(dumped, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    mask = list(found["assistant_masks"])[: len(whole)]
    return mask if found["input_ids"][: len(whole)] == whole and any(mask) else None


def open_splits(layout: Layout, recipe: FinetuneRecipe) -> dict[str, Dataset]:
    """The recipe's splits as `train` and `dev`, of which there is something to learn.

    Raises:
        NotFoundError: no such data set or split.
        DataError: all rows of the train split have the same target.
    """
    dataset = open_dataset(layout, recipe.dataset)
    parts = {"train": dataset.split(recipe.train), "dev": dataset.split(recipe.dev)}
    if recipe.kind == "sft":
        check_classes(parts["train"])
    return parts
