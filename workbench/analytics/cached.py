"""Results of queries, kept for every session of this process for as long as the events they come from stay as they are.

A query is asked once, however many sessions want it at the same moment; the others wait for its rows. What a result was made
of is looked at before it is asked, so that rows that arrive meanwhile can only be in it too early, never be missed for good.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench import access
from workbench.analytics.open import open_events
from workbench.events.log import journal_folder
from workbench.events.manifest import manifest_path
from workbench.events.schema import TABLES
from workbench.events.tail import list_journals

if TYPE_CHECKING:
    import polars as pl

    from workbench.events.store import Events
    from workbench.workspace import Layout

# Of all results together. One that takes more than a quarter is given back and not kept.
MOST_BYTES = 256 << 20
# What the store looks like is trusted for a second, or for longer where looking takes long: a twentieth of the time at most.
FRESH_S = 1.0
_LOOKING_SHARE = 20


@dataclass(frozen=True)
class _Kept:
    fingerprint: Hashable
    rows: pl.DataFrame
    size: int


class Results:
    """Rows of queries by workspace, query, parameters and tenants. Safe to use from several threads.

    A query that asks for the time (`now()`) or for chance is kept like any other: pass times as parameters, rounded.

    Args:
        most_bytes: of all results that are kept.
        fresh_s: how long what the store looks like is trusted; with 0 it is looked at every time.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        *,
        most_bytes: int = MOST_BYTES,
        fresh_s: float = FRESH_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most_bytes, self.fresh_s = most_bytes, fresh_s
        self._clock = clock
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._size = 0
        self._flights: dict[Hashable, Future[pl.DataFrame]] = {}
        # Until when it is trusted, and what it looks like.
        self._looks: dict[Hashable, tuple[float, Mapping[str, Hashable]]] = {}
        self._lock, self._looking = threading.Lock(), threading.Lock()

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self._size

    def sql(
        self,
        layout: Layout,
        query: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        tenants: Sequence[str] | None,
    ) -> pl.DataFrame:
        """The rows of one SELECT, as `Events.sql`; those that are kept where the events are as they were.

        Args:
            tenants: only rows of these; None asks for all.

        Raises:
            UsageError, DataError: as `Events.sql`; an error is not kept.
        """
        events = open_events(layout)
        allowed = None if tenants is None else tuple(sorted(set(tenants)))
        key = (str(layout.runs), layout.state_url, query, _hashable(dict(parameters or {})), allowed)
        fingerprint = self.fingerprint(layout, events, query)
        return self._once(key, fingerprint, lambda: events.sql(query, parameters, tenants=allowed)).clone()

    def clear(self) -> None:
        """Keep nothing, and look at the store anew."""
        with self._lock:
            self._kept.clear()
            self._size = 0
        with self._looking:
            self._looks.clear()

    def fingerprint(self, layout: Layout, events: Events, query: str) -> Hashable:
        """What everything that a query reads looks like: it changes when rows come or go."""
        key = str(layout.runs), layout.state_url
        with self._looking:
            until, looks = self._looks.get(key, (0.0, {}))
            began = self._clock()
            if not looks or began >= until:
                looks = _looks(events, layout.runs)
                took = self._clock() - began
                trusted = max(self.fresh_s, took * _LOOKING_SHARE) if self.fresh_s else 0.0
                self._looks[key] = began + took + trusted, looks
        names = [name for name in events.names if re.search(rf"\b{name}\b", query, re.IGNORECASE)] or events.names
        found = tuple(looks[name] for name in names if name in looks)
        # The state store may be a database elsewhere, which has no face to look at; its few rows say it themselves.
        if "artifacts" in names and "artifacts" in events.views:
            found += (hash(events.frame("artifacts").collect().write_ndjson()),)
        return found

    def _once(self, key: Hashable, fingerprint: Hashable, make: Callable[[], pl.DataFrame]) -> pl.DataFrame:
        while True:
            mine: Future[pl.DataFrame] = Future()
            with self._lock:
                kept = self._kept.get(key)
                if kept is not None and kept.fingerprint == fingerprint:
                    self._kept.move_to_end(key)
                    return kept.rows
                flight = self._flights.setdefault((key, fingerprint), mine)
            if flight is mine:
                return self._fly(key, fingerprint, mine, make)
            # Whoever asked was interrupted: that is not an answer, so it is asked again.
            if (error := flight.exception()) is None or isinstance(error, Exception):
                return flight.result()

    def _fly(
        self, key: Hashable, fingerprint: Hashable, own: Future[pl.DataFrame], make: Callable[[], pl.DataFrame]
    ) -> pl.DataFrame:
        try:
            rows = make()
        except BaseException as error:
            with self._lock:
                del self._flights[key, fingerprint]
            own.set_exception(error)
            raise
        with self._lock:
            self._keep(key, _Kept(fingerprint, rows, int(rows.estimated_size()) + 1000))
            del self._flights[key, fingerprint]
        own.set_result(rows)
        return rows

    def _keep(self, key: Hashable, kept: _Kept) -> None:
        if (old := self._kept.pop(key, None)) is not None:
            self._size -= old.size
        if kept.size > self.most_bytes // 4:
            return
        self._kept[key] = kept
        self._size += kept.size
        while self._size > self.most_bytes:
            _, gone = self._kept.popitem(last=False)
            self._size -= gone.size


results = Results()


def cached_sql(layout: Layout, query: str, **parameters: Any) -> pl.DataFrame:
    """The rows of one SELECT that whoever acts now may see; kept for all sessions of this process.

    `runs` and `artifacts` are no views of somebody who is restricted to tenants.

    Args:
        parameters: values for `$name` in the query.

    Raises:
        AccessDenied: this process serves apps to others, and nobody is known here.
        UsageError, DataError: as `Events.sql`.
    """
    return results.sql(layout, query, parameters, tenants=access.current().tenants)


def _looks(events: Events, runs: Path) -> dict[str, Hashable]:
    """By view, what the files look like that its rows are in."""
    sources = {source.name: hash(frozenset(source.identities().items())) for source in events.sources}
    found: dict[str, Hashable] = {}
    for name in TABLES:
        journals = tuple((path.name, _look(path)) for path in list_journals(journal_folder(events.folder, name)))
        own = tuple(sources[source.name] for source in events.sources if name in source.tables)
        found[name] = _look(manifest_path(events.folder, name)), journals, own
    manifests: frozenset[tuple[str, Hashable]] = frozenset()
    if runs.is_dir():
        with os.scandir(runs) as entries:
            manifests = frozenset((entry.name, _look(Path(entry.path, "run.json"))) for entry in entries)
    found["runs"] = hash(manifests), found["calls"]
    return found


def _look(path: Path) -> Hashable:
    try:
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns


def _hashable(value: Any) -> Hashable:
    if isinstance(value, Mapping):
        return tuple(sorted((str(name), _hashable(one)) for name, one in value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(_hashable(one) for one in value)
    # 1, 1.0 and True are equal, and not the same to SQL.
    found: Hashable = (type(value).__name__, value)
    return found
