"""Journal: rows appended to a JSON Lines file, each with a checksum, that survive a kill or a power cut."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable
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


def _line(record: dict[str, Any]) -> bytes:
    body = canonical_json(record)
    return canonical_json({"crc": zlib.crc32(body), "record": record}) + b"\n"


def read_journal(path: Path) -> JournalContent:
    """Read every intact record. A missing file is an empty journal; damage is counted, never raised or hidden."""
    data = path.read_bytes() if path.exists() else b""
    end = data.rfind(b"\n") + 1
    records: list[dict[str, Any]] = []
    damaged: list[int] = []
    for number, line in enumerate(data[:end].splitlines(), 1):
        try:
            entry = json.loads(line)
            if zlib.crc32(canonical_json(entry["record"])) != entry["crc"]:
                raise ValueError("checksum")
            records.append(entry["record"])
        except (ValueError, KeyError, TypeError, RecursionError):
            damaged.append(number)
    return JournalContent(tuple(records), tuple(damaged), len(data) - end)


class JournalWriter:
    """Appends records. Opening cuts off a torn last line; `flush` makes what was appended survive a power cut."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        self._file = path.open("ab")
        torn = read_journal(path).torn
        if torn:
            self._file.truncate(path.stat().st_size - torn)
        if new:
            fsync_directory(path.parent)

    def append(self, records: Iterable[dict[str, Any]]) -> None:
        self._file.write(b"".join(map(_line, records)))

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
