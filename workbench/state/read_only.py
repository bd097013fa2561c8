"""An SQLite database in a folder that may not be written, as on a medium, in a backup or of another user.

In WAL mode SQLite makes files beside the database even to read it, unless it is told that nobody writes.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path


def is_read_only(path: Path) -> bool:
    """Whether the folder that a file is in, or would be in, is there and may not be written by this process."""
    effective = os.access in os.supports_effective_ids
    return path.parent.is_dir() and not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=effective)


def connect(path: Path) -> sqlite3.Connection:
    """A connection that only reads and makes no file.

    It reads along with a process that may write. Where there is none it takes the file for one that nobody changes.

    Raises:
        sqlite3.OperationalError: it cannot be opened, or its last changes were never taken into the file.
    """
    uri, log = path.absolute().as_uri(), path.with_name(f"{path.name}-wal")
    # Whoever may write may begin between the first try and the look at the log.
    for _ in range(2):
        connection = sqlite3.connect(f"{uri}?mode=ro", uri=True, check_same_thread=False)
        try:
            connection.execute("PRAGMA schema_version").close()
            return connection
        except sqlite3.OperationalError:
            connection.close()
        if not log.is_file() or not log.stat().st_size:
            return sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True, check_same_thread=False)
    raise sqlite3.OperationalError(f"its last changes are in {log.name}, which takes a process that may write here")
