"""Journal: rows appended to a JSON Lines file, each with a checksum, that survive a kill or a power cut."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from workbench.files import canonical_json, fsync_directory


@dataclass(frozen=True)
class JournalContent:
    """What a journal holds.

    Attributes:
        records: the intact records, in order.
        damaged: 1-based numbers of lines whose checksum or JSON is wrong.
        torn: bytes after the last complete line, left by a write that was cut off.
    """

    records: tuple[dict[str, Any], ...]
    damaged: tuple[int, ...]
    torn: int


_OPEN, _RECORD = b'{"crc":', b',"record":'


def line_of(body: bytes) -> bytes:
    """The line that holds a record's JSON; the checksum is that of its bytes as they stand."""
    return b'{"crc":%d,"record":%b}\n' % (zlib.crc32(body), body)


def body_of(line: bytes) -> bytes | None:
    """A record's JSON out of its line, without the end of line; None where the form or the checksum is wrong."""
    comma = line.find(b",", 7, 20)
    if comma < 0 or not line.startswith(_OPEN) or not line.startswith(_RECORD, comma) or line[-1:] != b"}":
        return None
    body, checksum = line[comma + len(_RECORD) : -1], line[len(_OPEN) : comma]
    return body if checksum.isdigit() and zlib.crc32(body) == int(checksum) else None


def iterate_journal(path: Path) -> Iterator[dict[str, Any] | None]:
    """The records of a journal, one at a time; None for a line that is damaged. A torn last line is left out.

    A missing file is an empty journal.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield _record(line)


def _record(line: bytes) -> dict[str, Any] | None:
    body = body_of(line[:-1])
    if body is None:
        return None
    try:
        record = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def read_journal(path: Path) -> JournalContent:
    """Read every intact record. A missing file is an empty journal; damage is counted, never raised or hidden."""
    lines = list(iterate_journal(path))
    records = tuple(record for record in lines if record is not None)
    damaged = tuple(number for number, record in enumerate(lines, 1) if record is None)
    return JournalContent(records, damaged, _torn(path))


def _torn(path: Path) -> int:
    """Bytes after the last complete line."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        tail, place = b"", size
        while place > 0 and b"\n" not in tail:
            step = min(place, 1 << 16)
            place -= step
            file.seek(place)
            tail = file.read(step) + tail
    return len(tail) - tail.rfind(b"\n") - 1


class JournalWriter:
    """Appends records. Opening cuts off a torn last line; `flush` makes what was appended survive a power cut."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        self._file = path.open("ab")
        torn = _torn(path)
        if torn:
            self._file.truncate(path.stat().st_size - torn)
        if new:
            fsync_directory(path.parent)

    def append(self, records: Iterable[dict[str, Any]]) -> None:
        self._file.write(b"".join(line_of(canonical_json(record)) for record in records))

    def flush(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self.flush()
        self._file.close()

    def __enter__(self) -> JournalWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
