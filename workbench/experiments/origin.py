"""Where a run comes from: what its manifest records of the place, the code and the moment that made it."""

from __future__ import annotations

import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workbench import surroundings
from workbench.files import digest_bytes


def now() -> str:
    """The time as ISO 8601 UTC, with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def new_run_id(digest: str, at: str) -> str:
    """An id that sorts by time and begins alike for runs of one experiment."""
    moment = at[:19].replace("-", "").replace(":", "").replace("T", "-")
    return f"{moment}-{digest[7:13]}-{uuid.uuid4().hex[:4]}"


def trace_id(run_id: str, variant: str, row_id: str, repeat: int) -> str:
    """The id of one call, 32 hexadecimal digits: the same whenever it is asked again."""
    return digest_bytes(f"{run_id}\n{variant}\n{row_id}\n{repeat}".encode())[7:39]


def origin(root: Path, notebook: str | Path | None = None) -> dict[str, Any]:
    """Notebook, commit, command and environment, as fields of a `RunManifest`.

    Args:
        root: of the workspace; the notebook's path is relative to it where it lies inside.
        notebook: the one that runs, where the front end does not say.
    """
    git, book = surroundings.git_state(root), surroundings.notebook(notebook)
    return {
        "notebook": name_in(root, book.path) if book else None,
        "notebook_digest": book.digest if book else None,
        "git_commit": git.commit if git else None,
        "git_dirty": git.dirty if git else None,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv else [],
        "environment": surroundings.environment(),
    }


def name_in(root: Path, path: str | Path) -> str:
    """What a file is called in the workspace at `root`: its path there, or only its name where it lies outside."""
    resolved = Path(path).resolve()
    return resolved.relative_to(root).as_posix() if resolved.is_relative_to(root) else resolved.name
