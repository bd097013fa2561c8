"""Response cache: answers that were given before, so that an unchanged question costs neither time nor money again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from workbench.files import canonical_json, digest_bytes
from workbench.models.budget import Budget
from workbench.models.engine import Completion, Engine, Message, ModelInfo, Request, check_adapter
from workbench.models.sqlite_cache import SqliteCache
from workbench.workspace import Layout

FORMAT = 1
# Answers are written in one transaction at least this often.
WRITE_ROWS = 64
WRITE_SECONDS = 1.0


class ResponseCache:
    """The answers kept in one file.

    Args:
        most_bytes: when the file passes this size, the oldest entries go.
    """

    def __init__(self, path: Path, *, most_bytes: int = 1 << 30) -> None:
        self._file = SqliteCache(path, table="responses", title="response cache", most_bytes=most_bytes)

    @property
    def path(self) -> Path:
        return self._file.path

    def get(self, keys: Sequence[str]) -> dict[str, Completion]:
        """The intact entries among `keys`."""
        found = {key: _completion(body) for key, body in self._file.get(keys).items()}
        return {key: completion for key, completion in found.items() if completion is not None}

    def put(self, entries: Iterable[tuple[str, Completion]]) -> None:
        """Keep answers, in one transaction. Errors are never kept."""
        self._file.put(
            (key, canonical_json(vars(completion)))
            for key, completion in entries
            if completion.error_kind is None and completion.text is not None
        )

    def trim(self) -> None:
        """Drop the oldest quarter of the entries where the file is larger than it may be."""
        self._file.trim()

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        self._file.close()


class CachedEngine:
    """An engine whose answers are looked up first.

    Args:
        read: whether kept answers are used; without it every question is asked, and the answers replace what was kept.
    """

    def __init__(self, engine: Engine, cache: ResponseCache, *, read: bool = True) -> None:
        self.engine = engine
        self.cache = cache
        self.read = read

    @property
    def info(self) -> ModelInfo:
        return self.engine.info

    def generate(
        self, requests: Sequence[Request], *, budget: Budget | None = None
    ) -> Iterator[tuple[int, Completion]]:
        """Kept answers first, marked `cached` and at no cost; then what the engine says to the rest."""
        keys = [request_key(self.info, request) for request in requests]
        kept = self.cache.get(keys) if self.read else {}
        missing: list[int] = []
        for index, key in enumerate(keys):
            if key in kept:
                yield index, replace(kept[key], cached=True, cost_usd=0.0, queue_s=0.0)
            else:
                missing.append(index)
        fresh: list[tuple[str, Completion]] = []
        written = time.monotonic()
        try:
            if missing:
                for place, completion in self.engine.generate([requests[i] for i in missing], budget=budget):
                    index = missing[place]
                    fresh.append((keys[index], completion))
                    if len(fresh) >= WRITE_ROWS or time.monotonic() - written >= WRITE_SECONDS:
                        self.cache.put(fresh)
                        fresh, written = [], time.monotonic()
                    yield index, completion
        finally:
            self.cache.put(fresh)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return self.engine.count_tokens(messages)

    def check_adapter(self, adapter: str) -> None:
        """As the engine says."""
        check_adapter(self.engine, adapter)

    def close(self) -> None:
        """The engine belongs to whoever made it, and stays."""


def response_cache(layout: Layout) -> ResponseCache | None:
    """The workspace's response cache; None where its settings turn it off."""
    settings = layout.settings.cache
    return ResponseCache(layout.responses, most_bytes=settings.max_mb << 20) if settings.responses else None


def request_key(info: ModelInfo, request: Request) -> str:
    """Digest of everything that decides the answer: the whole request, and the model and how it computes.

    The seed key (row and repeat) is part of it, so that repeats are asked anew and not copied from one another.
    """
    key: dict[str, Any] = {
        "format": FORMAT,
        "model": [info.digest, info.provider, info.device, info.dtype, info.quantization],
        "messages": [[message.role, message.content] for message in request.messages],
        "generation": request.generation.model_dump(mode="json", exclude_none=True),
        "schema": request.response_schema,
        "seed_key": request.seed_key,
    }
    # Left out where there is none, so that answers kept before there were adapters are still found.
    if request.adapter is not None:
        key["adapter"] = request.adapter
    return digest_bytes(canonical_json(key))


def _completion(body: bytes) -> Completion | None:
    """The answer, or None where the entry is of another time's form."""
    try:
        return Completion(**json.loads(body))
    except (TypeError, ValueError):
        return None
