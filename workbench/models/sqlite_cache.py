"""A file of things that can be made again: one SQLite file a workspace, in WAL mode, shared by any number of processes.

It is only a cache: an entry that is damaged is a miss, a damaged file is set aside, and one that cannot be written switches
itself off; none ends a run.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from workbench.errors import WorkbenchWarning

# How long one waits for others that write.
PATIENCE_S = 30.0
_LOOK_UP = 400


class SqliteCache:
    """Bytes by key, in one table of one file, each with a checksum.

    Args:
        table: a name, in small letters.
        title: what it is called in warnings, such as "response cache".
        most_bytes: when the file passes this size, `trim` drops the oldest entries.
    """

    def __init__(self, path: Path, *, table: str, title: str, most_bytes: int) -> None:
        self.path = path
        self.most_bytes = most_bytes
        self._table = table
        self._title = title
        self._off = False
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    def get(self, keys: Sequence[str]) -> dict[str, bytes]:
        """The intact entries among `keys`."""
        found: dict[str, bytes] = {}

        def look_up(connection: sqlite3.Connection) -> None:
            for start in range(0, len(keys), _LOOK_UP):
                part = keys[start : start + _LOOK_UP]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, crc, body FROM {self._table} WHERE key IN ({marks})"
                for key, crc, body in connection.execute(query, part):
                    if isinstance(body, bytes) and _checksum(key, body) == crc:
                        found[key] = body

        if self.path.exists():
            self._do(look_up)
        return found

    def put(self, entries: Iterable[tuple[str, bytes]]) -> None:
        """Keep entries, in one transaction."""
        now = time.time()
        rows = [(key, now, _checksum(key, body), body) for key, body in entries]
        if rows:
            query = f"INSERT OR REPLACE INTO {self._table} VALUES (?, ?, ?, ?)"
            self._do(lambda connection: connection.executemany(query, rows))

    def trim(self) -> None:
        """Drop the oldest quarter of the entries where the file is larger than it may be."""
        if not self.path.exists() or self.path.stat().st_size <= self.most_bytes:
            return
        self._do(
            lambda connection: connection.execute(
                f"DELETE FROM {self._table} WHERE key IN (SELECT key FROM {self._table} ORDER BY created "
                f"LIMIT (SELECT count(*) / 4 + 1 FROM {self._table}))"
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
            except (sqlite3.Error, OSError) as error:
                self._disconnect()
                self._give_up(error)

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # The lock keeps threads apart; a generator may be closed in another one than it ran in.
        connection = sqlite3.connect(self.path, timeout=PATIENCE_S, check_same_thread=False)
        try:
            _write_ahead(connection)
            # What a power cut takes from a cache is only made again.
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {self._table} "
                "(key TEXT PRIMARY KEY, created REAL NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL)"
            )
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _give_up(self, error: Exception) -> None:
        """Set a damaged file aside and go on with a new one; otherwise (full disk, no permission) go on without a cache."""
        damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
        if damaged and self.path.exists():
            aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
            os.replace(self.path, aside)
            for suffix in ("-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
            warnings.warn(
                f"the {self._title} was damaged and lies in {aside} now; a new one begins",
                WorkbenchWarning,
                stacklevel=4,
            )
        else:
            self._off = True
            warnings.warn(f"the {self._title} {self.path} is off for now: {error}", WorkbenchWarning, stacklevel=4)


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Turn WAL mode on. Of several that do so to a new file at once, SQLite refuses all but one without waiting."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
            time.sleep(0.01)


def _checksum(key: str, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(key.encode()))
