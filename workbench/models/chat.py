"""Messages as the tokens that a model reads: one way for asking it and for training it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.models.engine import Message


def chat_text(tokenizer: Any, messages: Sequence[Message], *, answered: bool = False) -> str:
    """The conversation as text, by the tokenizer's chat template, or in a plain form where it has none.

    Args:
        answered: the last message is the answer; otherwise the text ends where the answer is to begin.
    """
    if tokenizer.chat_template is None:
        text = "\n".join(f"{message.role}: {message.content}" for message in messages)
        return text if answered else f"{text}\nassistant:"
    dumped = [{"role": message.role, "content": message.content} for message in messages]
    return str(tokenizer.apply_chat_template(dumped, tokenize=False, add_generation_prompt=not answered))


def chat_tokens(tokenizer: Any, messages: Sequence[Message], *, answered: bool = False) -> list[int]:
    """The tokens of `chat_text`."""
    # Rendered to text first: what tokenizing directly returns differs between versions of transformers.
    text = chat_text(tokenizer, messages, answered=answered)
    # A template writes the special tokens itself.
    return list(tokenizer.encode(text, add_special_tokens=tokenizer.chat_template is None))
