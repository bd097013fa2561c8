"""Artifacts whose model is a stand-in, ready to be asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.registry.conftest import MODEL
from workbench.models.budget import Budget
from workbench.models.engine import Completion, Message, ModelInfo, Request


@dataclass
class Parrot:
    """Answers with the question's last message. It writes down the sizes of its batches, and can be held up or fail.

    Attributes:
        provider: `transformers` is a model in this process.
        go: what it waits for before it answers.
    """

    provider: str = "transformers"
    batches: list[int] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)
    asked: threading.Event = field(default_factory=threading.Event)
    keys: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.go.set()

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(**{**MODEL, "provider": self.provider})

    def generate(
        self, requests: Sequence[Request], *, budget: Budget | None = None
    ) -> Iterator[tuple[int, Completion]]:
        self.batches.append(len(requests))
        self.keys += [request.seed_key for request in requests]
        self.asked.set()
        self.go.wait(30)
        for index, request in enumerate(requests):
            said = request.messages[-1].content
            if "crash" in said:
                raise RuntimeError("the model broke")
            if "slow" in said:
                yield index, Completion(None, error_kind="timeout", error="no answer in time")
            else:
                yield index, Completion(said, "stop", tokens_in=3, tokens_out=2, latency_s=0.25)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return 1

    def close(self) -> None:
        self.go.set()
