"""A journal that this process appends to."""

from __future__ import annotations

import os
import secrets
from datetime import UTC, datetime
from pathlib import Path

from workbench.events.schema import Table
from workbench.files import fsync_directory


class OpenJournal:
    """One file that this process appends to. It is locked while it is open: who can lock it knows that nobody writes it."""

    def __init__(self, folder: Path, table: Table) -> None:
        import fcntl

        folder.mkdir(parents=True, exist_ok=True)
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}-{secrets.token_hex(4)}.v{table.version}.jsonl"
        self.path = folder / name
        hidden = folder / f".{name}.tmp"
        self._descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o666)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        os.rename(hidden, self.path)
        fsync_directory(folder)
        self.size = 0

    def write(self, pending: bytearray) -> None:
        """Append, taking from `pending` what has arrived. After an error it goes on in the middle of a line."""
        while pending:
            written = os.write(self._descriptor, memoryview(pending)[: 1 << 20])
            del pending[:written]
            self.size += written
        os.fsync(self._descriptor)

    def close(self, *, inherited: bool = False) -> None:
        """Let go of it. The lock goes for every process that has it open, so one that inherited it only closes it."""
        import fcntl

        if not inherited:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)
