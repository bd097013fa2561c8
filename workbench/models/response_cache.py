"""Response cache: answers that were given before, so that an unchanged question costs neither time nor money again.

One SQLite file a workspace, in WAL mode, so that any number of processes share it. It is only a cache: an entry that is
damaged is a miss, a damaged file is set aside, and one that cannot be written switches itself off; none ends a run.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from workbench.errors import WorkbenchWarning
from workbench.files import canonical_json, digest_bytes
from workbench.models.budget import Budget
from workbench.models.engine import Completion, Engine, Message, ModelInfo, Request
from workbench.workspace import Layout

FORMAT = 1
# Answers are written in one transaction at least this often.
WRITE_ROWS = 64
WRITE_SECONDS = 1.0
_LOOK_UP = 400


class ResponseCache:
    """The answers kept in one file.

    Args:
        most_bytes: when the file passes this size, the oldest entries go.
    """

    def __init__(self, path: Path, *, most_bytes: int = 1 << 30) -> None:
        self.path = path
        self.most_bytes = most_bytes
        self._off = False
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    def get(self, keys: Sequence[str]) -> dict[str, Completion]:
        """The intact entries among `keys`."""
        found: dict[str, Completion] = {}

        def look_up(connection: sqlite3.Connection) -> None:
            for start in range(0, len(keys), _LOOK_UP):
                part = keys[start : start + _LOOK_UP]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, crc, body FROM responses WHERE key IN ({marks})"
                for key, crc, body in connection.execute(query, part):
                    completion = _intact(key, crc, body)
                    if completion is not None:
                        found[key] = completion

        if self.path.exists():
            self._do(look_up)
        return found

    def put(self, entries: Iterable[tuple[str, Completion]]) -> None:
        """Keep answers, in one transaction. Errors are never kept."""
        rows: list[tuple[str, float, int, bytes]] = []
        for key, completion in entries:
            if completion.error_kind is None and completion.text is not None:
                body = canonical_json(vars(completion))
                rows.append((key, time.time(), _checksum(key, body), body))
        if rows:
            self._do(
                lambda connection: connection.executemany("INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?)", rows)
            )

    def trim(self) -> None:
        """Drop the oldest quarter of the entries where the file is larger than it may be."""
        if not self.path.exists() or self.path.stat().st_size <= self.most_bytes:
            return
        self._do(
            lambda connection: connection.execute(
                "DELETE FROM responses WHERE key IN (SELECT key FROM responses ORDER BY created "
                "LIMIT (SELECT count(*) / 4 + 1 FROM responses))"
            )
        )
        self._do(lambda connection: connection.execute("VACUUM"), transaction=False)

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            self._disconnect()

    def _do(self, work: Callable[[sqlite3.Connection], object], *, transaction: bool = True) -> None:
        """Work on the file; a fault of it switches the cache off or sets the file aside."""
        with self._lock:
            if self._off:
                return
            try:
                self._connection = self._connection or self._connect()
                if transaction:
                    with self._connection:
                        work(self._connection)
                else:
                    work(self._connection)
            except sqlite3.Error as error:
                self._disconnect()
                self._give_up(error)

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # The lock keeps threads apart; a generator may be closed in another one than it ran in.
        connection = sqlite3.connect(self.path, timeout=30, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            # What a power cut takes from a cache is only asked again.
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS responses "
                "(key TEXT PRIMARY KEY, created REAL NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL) WITHOUT ROWID"
            )
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _give_up(self, error: sqlite3.Error) -> None:
        """Set a damaged file aside and go on with a new one; otherwise (full disk, no permission) go on without a cache."""
        damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
        if damaged and self.path.exists():
            aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
            os.replace(self.path, aside)
            for suffix in ("-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
            warnings.warn(
                f"the response cache was damaged and lies in {aside} now; a new one begins",
                WorkbenchWarning,
                stacklevel=3,
            )
        else:
            self._off = True
            warnings.warn(f"the response cache {self.path} is off for now: {error}", WorkbenchWarning, stacklevel=3)


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
    return digest_bytes(
        canonical_json(
            {
                "format": FORMAT,
                "model": [info.digest, info.provider, info.device, info.dtype, info.quantization],
                "messages": [[message.role, message.content] for message in request.messages],
                "generation": request.generation.model_dump(mode="json", exclude_none=True),
                "schema": request.response_schema,
                "seed_key": request.seed_key,
            }
        )
    )


def _checksum(key: str, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(key.encode()))


def _intact(key: str, crc: int, body: bytes) -> Completion | None:
    """The entry, or None where its bytes are not those that were written, or are of another time's form."""
    try:
        return Completion(**json.loads(body)) if _checksum(key, body) == crc else None
    except (TypeError, ValueError):
        return None
