"""A small engine that answers at once, by keyword, for tests of what lies around a model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from workbench.models.budget import Budget
from workbench.models.engine import Completion, Message, ModelInfo, Request

INFO = ModelInfo("instant", "sha256:" + "1" * 64, "test", "cpu", "none", "none")


@dataclass
class InstantEngine:
    """Answers with the last word of the question, in capitals where the prompt has a system message.

    Attributes:
        delay: seconds a row.
        failing: questions that end as an error row, by a word in them; emptied by the test to let them pass.
        breaking: raise after this many answers; None never does.
    """

    delay: float = 0.0
    failing: set[str] = field(default_factory=set)
    breaking: int | None = None
    asked: int = 0

    @property
    def info(self) -> ModelInfo:
        return INFO

    def generate(
        self, requests: Sequence[Request], *, budget: Budget | None = None
    ) -> Iterator[tuple[int, Completion]]:
        # Backwards, because an engine may answer in any order.
        for count, index in enumerate(reversed(range(len(requests)))):
            if self.breaking is not None and count >= self.breaking:
                raise RuntimeError("the engine broke")
            time.sleep(self.delay)
            self.asked += 1
            messages = requests[index].messages
            question = messages[-1].content
            if any(word in question for word in self.failing):
                yield index, Completion(text=None, error_kind="engine", error="no answer")
                continue
            answer = question.split()[-1]
            loud = messages[0].role == "system"
            yield (
                index,
                Completion(text=answer.upper() if loud else answer, finish_reason="stop", tokens_in=5, tokens_out=1),
            )

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content.split()) for message in messages)

    def close(self) -> None:
        self.delay = 0.0
