"""The file under the caches: many may open it at the same moment."""

from __future__ import annotations

import sqlite3
import threading
import warnings
from contextlib import closing
from pathlib import Path

import pytest

from workbench.errors import WorkbenchWarning
from workbench.models import sqlite_cache
from workbench.models.sqlite_cache import SqliteCache


def _open(path: Path) -> SqliteCache:
    return SqliteCache(path, table="things", title="cache of things", most_bytes=1 << 30)


def test_many_that_begin_a_file_at_once_all_write_to_it(tmp_path: Path) -> None:
    for number in range(20):
        path = tmp_path / f"{number}.sqlite"
        caches = [_open(path) for _ in range(6)]
        ready = threading.Barrier(len(caches))

        def work(place: int, caches: list[SqliteCache] = caches, ready: threading.Barrier = ready) -> None:
            ready.wait()
            caches[place].put([(f"key {place}", b"value")])

        threads = [threading.Thread(target=work, args=(place,)) for place in range(len(caches))]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert [str(warning.message) for warning in caught] == []
        assert len(caches[0].get([f"key {place}" for place in range(len(caches))])) == len(caches)
        for cache in caches:
            cache.close()


def test_a_file_that_stays_locked_switches_the_cache_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_cache, "PATIENCE_S", 0.05)
    cache = _open(tmp_path / "locked.sqlite")
    with closing(sqlite3.connect(tmp_path / "locked.sqlite", isolation_level=None)) as other:
        other.execute("CREATE TABLE held (n)")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.warns(WorkbenchWarning, match="off for now: database is locked"):
            cache.put([("key", b"value")])
    assert cache.get(["key"]) == {}


def test_bytes_come_back_as_they_were(tmp_path: Path) -> None:
    cache = _open(tmp_path / "below" / "cache.sqlite")
    entries = {"a": b"", "b": bytes(range(256)), "ü": b"\0" * 10_000}
    assert cache.get(list(entries)) == {}
    cache.put(entries.items())
    cache.put([])
    cache.close()
    assert cache.get([*entries, "c"]) == entries
    cache.put([("a", b"new")])
    assert cache.get(["a"]) == {"a": b"new"}
    cache.close()
