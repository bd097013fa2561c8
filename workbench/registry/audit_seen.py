"""What an earlier look at the audit saw, in a file of the workspace: a head kept elsewhere than in the database.

The file is behind the audit most of the time, since others add lines and only `verify_audit` writes it. It is a fault
where the line that it names is gone.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from workbench.files import canonical_json, write_atomic
from workbench.state.audit import FIRST
from workbench.state.db import database_path, shown
from workbench.workspace import Layout

_FILE = "audit-seen.json"


@dataclass(frozen=True)
class Seen:
    """What was seen of the audit in one database.

    Attributes:
        path: the file. database: what the audit is in, as the file names it.
        heads: of every database that was looked at, how many lines it had, and the digest of the last.
    """

    path: Path
    database: str
    heads: dict[str, tuple[int, str]]

    @classmethod
    def of(cls, layout: Layout) -> Seen:
        """What the workspace keeps; nothing where it was never looked at, or the file cannot be read."""
        path = layout.root / ".workbench" / _FILE
        heads: dict[str, tuple[int, str]] = {}
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            kept = json.loads(path.read_bytes())["databases"]
            heads = {str(name): (int(one["lines"]), str(one["head"])) for name, one in kept.items()}
        return cls(path, _database(layout), heads)

    def faults(self, digests: Collection[str]) -> Iterator[str]:
        """A sentence where the line that was last is none of these."""
        count, head = self.heads.get(self.database, (0, FIRST))
        if head != FIRST and head not in digests:
            yield (
                f"an earlier `audit verify` saw {count} lines here, and the last of them is gone; if an older copy of the "
                f"database was put back on purpose, remove {self.path}"
            )

    def keep(self, count: int, head: str) -> None:
        """Keep what was found sound. Where the workspace cannot be written to, nothing is kept."""
        if self.heads.get(self.database) == (count, head) or head == FIRST:
            return
        found = {**self.heads, self.database: (count, head)}
        said = {name: {"lines": lines, "head": last} for name, (lines, last) in found.items()}
        with contextlib.suppress(OSError):
            write_atomic(self.path, canonical_json({"format_version": 1, "databases": said}))


def _database(layout: Layout) -> str:
    """A file by its place in the workspace, which may move as a whole."""
    path = database_path(layout.state_url)
    if path is not None and path.is_relative_to(layout.root):
        return str(path.relative_to(layout.root))
    return shown(layout.state_url)
