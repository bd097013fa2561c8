"""EventLog: rows recorded one at a time by any number of processes, each in journals of its own.

`record` checks and encodes a row and returns; a thread writes and syncs what was recorded every 50 ms. `flush` waits until all
of it would survive a power cut. A process that is killed loses at most what it recorded since the last of these.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from multiprocessing import util as multiprocessing_util
from pathlib import Path
from types import TracebackType
from typing import Any

from workbench.errors import EventsError, WorkbenchError, WorkbenchWarning
from workbench.events.encode import Encoder, encoder
from workbench.events.open_journal import OpenJournal
from workbench.events.schema import find_table

# What a kill may cost, against the price of a sync.
WRITE_SECONDS = 0.05
# From here on `record` waits for the disk.
PENDING_BYTES = 64 << 20
# A journal that grew to this is closed and another begun, so that what was compacted can go.
ROTATE_BYTES = 64 << 20
# Other processes read what is not compacted yet line by line.
COMPACT_BYTES = 8 << 20
_RETRY_SECONDS = 0.5


def utc_now() -> str:
    """The time, UTC without a zone, in microseconds."""
    return datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")


def journal_folder(folder: Path, table: str) -> Path:
    """Where the journals of a table lie, in the folder of the events."""
    return folder / "journals" / table


def _what(failure: OSError) -> str:
    return "its disk is full" if failure.errno in (errno.ENOSPC, errno.EDQUOT) else str(failure.strerror or failure)


class EventLog:
    """Where one process records events. Safe to use from several threads, and after a fork.

    Args:
        folder: of the events of a workspace.
        compact: called in a thread of its own whenever a journal has grown by `compact_bytes`.
        wait: once `pending_bytes` wait for the disk, `record` waits too; else it refuses.
    """

    def __init__(
        self,
        folder: Path,
        *,
        compact: Callable[[], object] | None = None,
        compact_bytes: int = COMPACT_BYTES,
        pending_bytes: int = PENDING_BYTES,
        wait: bool = True,
        now: Callable[[], str] = utc_now,
    ) -> None:
        self.folder = folder
        self._wait = wait
        self._compact, self._compact_bytes, self._limit, self._now = compact, compact_bytes, pending_bytes, now
        self._encoders: dict[str, Encoder] = {}
        self._reset()
        _logs.add(self)

    def _reset(self) -> None:
        """As new: nothing pending, no journal, no thread."""
        self._state = threading.Condition()
        self._lines: dict[str, list[bytes]] = {}
        # Taken by the thread and not on disk yet; left over where the disk refused.
        self._taken: dict[str, bytearray] = {}
        self._journals: dict[str, OpenJournal] = {}
        self._written: list[Path] = []
        self._since_compaction = 0
        self._waiting = 0
        self._recorded = self._durable = self._attempts = 0
        self._urgent = self._closed = False
        self._failure: OSError | None = None
        self._thread: threading.Thread | None = None
        self._compaction: threading.Thread | None = None

    def record(self, table: str, row: Mapping[str, Any]) -> None:
        """Record one row: see `schema.TABLES` for the columns; times are UTC; those not given are null.

        Raises:
            UsageError: an unknown table or column, or a value that does not fit.
            EventsError: the disk does not take what was recorded before; this row is then not recorded.
        """
        self._append(table, (self._encoder(table)(row),))

    def record_many(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Record rows, all of them or, where one does not fit, none; as `record`."""
        encode = self._encoder(table)
        self._append(table, [encode(row) for row in rows])

    def _encoder(self, table: str) -> Encoder:
        found = self._encoders.get(table)
        if found is None:
            found = self._encoders[table] = encoder(find_table(table), self._now)
        return found

    def _append(self, table: str, lines: Iterable[bytes]) -> None:
        with self._state:
            if self._closed:
                raise EventsError("this event log is closed", hint="Make another one.")
            while self._waiting >= self._limit and self._failure is None:
                if not self._wait:
                    raise EventsError(
                        f"events are not written to {self.folder} as fast as they come", hint="See to its disk."
                    )
                self._urgent = True
                self._state.notify_all()
                self._state.wait(1)
            if self._failure is not None:
                raise self._refusal(self._failure)
            idle = self._waiting == 0
            pending = self._lines.setdefault(table, [])
            for line in lines:
                pending.append(line)
                self._waiting += len(line)
                self._recorded += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="workbench-events", daemon=True)
                self._thread.start()
                # A child of multiprocessing leaves without running what atexit knows.
                multiprocessing_util.Finalize(None, _close, args=(weakref.ref(self),), exitpriority=10)
            elif idle:
                self._state.notify_all()

    def _refusal(self, failure: OSError) -> EventsError:
        waiting = self._recorded - self._durable
        return EventsError(
            f"events cannot be written to {self.folder}: {_what(failure)}; {waiting} rows wait in memory",
            hint="Make room; they are written as soon as there is some.",
        )

    def flush(self) -> None:
        """Wait until everything recorded so far would survive a power cut.

        Raises:
            EventsError: the disk does not take it; the rows stay in memory and are tried again.
        """
        with self._state:
            wanted, before = self._recorded, self._attempts
            while self._durable < wanted:
                if self._failure is not None and self._attempts > before:
                    raise self._refusal(self._failure)
                self._urgent = True
                self._state.notify_all()
                self._state.wait(1)

    def close(self) -> None:
        """Flush, and end the thread. Done at the end of the process for whoever forgets it.

        Raises:
            EventsError: as `flush`; the log stays open.
        """
        if self._closed:
            return
        self.flush()
        with self._state:
            self._closed = True
            self._state.notify_all()
        if self._thread is not None:
            self._thread.join()
        if self._compaction is not None:
            self._compaction.join()
        for journal in self._journals.values():
            journal.close()
        self._journals = {}

    def discard(self) -> None:
        """Close, and delete what it has written: for rows that are worth nothing in part. The caller holds the lock of
        compactions; what one has taken from the journals before stays in the days.
        """
        with self._state:
            self._closed = True
            self._state.notify_all()
        if self._thread is not None:
            self._thread.join()
        for journal in self._journals.values():
            journal.close()
        self._journals, self._taken, self._waiting = {}, {}, 0
        for path in self._written:
            path.unlink(missing_ok=True)

    def give_up(self) -> None:
        """Close at the end of the process, and say once on stderr how many rows the disk has not taken."""
        try:
            self.close()
        except EventsError:
            with self._state:
                self._closed = True
                self._state.notify_all()
            assert self._failure is not None
            lost = self._recorded - self._durable
            print(f"error: {lost} rows are lost: {self.folder}: {_what(self._failure)}", file=sys.stderr)

    def _work(self) -> None:
        while True:
            with self._state:
                self._state.wait_for(lambda: self._waiting or self._closed)
                if self._closed and not self._waiting:
                    return
                self._state.wait_for(
                    lambda: self._urgent or self._closed or self._waiting > self._limit // 8, WRITE_SECONDS
                )
                taken, self._lines = self._lines, {}
                recorded, size, self._urgent = self._recorded, self._waiting, False
            for table, lines in taken.items():
                self._taken.setdefault(table, bytearray()).extend(b"".join(lines))
            failure: OSError | None = None
            try:
                for table, pending in self._taken.items():
                    self._write(table, pending)
            except OSError as error:
                failure = error
            with self._state:
                self._failure = failure
                self._attempts += 1
                if failure is None:
                    self._waiting -= size
                    self._durable = recorded
                self._state.notify_all()
                if failure is not None:
                    if self._closed:
                        return
                    self._state.wait_for(lambda: self._urgent, _RETRY_SECONDS)

    def _write(self, table: str, pending: bytearray) -> None:
        journal = self._journals.get(table)
        if journal is None:
            journal = self._journals[table] = OpenJournal(journal_folder(self.folder, table), find_table(table))
            self._written.append(journal.path)
        before = journal.size
        journal.write(pending)
        self._since_compaction += journal.size - before
        if journal.size >= ROTATE_BYTES:
            self._journals.pop(table).close()
        if self._compact is not None and self._since_compaction >= self._compact_bytes:
            busy = self._compaction is not None and self._compaction.is_alive()
            if not busy:
                self._since_compaction = 0
                self._compaction = threading.Thread(
                    target=self._run_compaction, name="workbench-compaction", daemon=True
                )
                self._compaction.start()

    def _run_compaction(self) -> None:
        assert self._compact is not None
        try:
            self._compact()
        except (OSError, WorkbenchError) as error:
            # Nothing is lost: the rows stay in the journals, and the next compaction takes them.
            warnings.warn(f"a compaction in the background failed: {error}", WorkbenchWarning, stacklevel=2)

    def _after_fork(self) -> None:
        """In a child: what was pending is the parent's to write, and so are its journals."""
        for journal in self._journals.values():
            with contextlib.suppress(OSError):
                journal.close(inherited=True)
        closed = self._closed
        self._reset()
        self._closed = closed

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_logs: weakref.WeakSet[EventLog] = weakref.WeakSet()


def _close(log: weakref.ref[EventLog]) -> None:
    found = log()
    if found is not None:
        found.give_up()


def _close_all() -> None:
    for log in list(_logs):
        _close(weakref.ref(log))


def _forked() -> None:
    for log in list(_logs):
        log._after_fork()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
