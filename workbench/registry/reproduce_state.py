"""What was saved under a name when a run began, for the workspace in which its notebook runs again: prompts and artifacts."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Any

from sqlalchemy import select

from workbench.errors import NotFoundError
from workbench.registry.names import alias_at
from workbench.state.db import Alias, ArtifactVersion, Base, PromptTag, PromptVersion, reading, writing
from workbench.workspace import Layout


def copy_names(scratch: Layout, layout: Layout, before: str) -> bool:
    """Copy the names that were there at a time (ISO 8601): prompts with their tags, and artifacts with each alias where it
    pointed then. Whether there are artifacts, whose blobs are then needed too."""
    moment = datetime.fromisoformat(before)
    with reading(layout.state_url) as session:
        prompts, tags, versions, aliases = (
            [_fields(row) for row in session.scalars(select(table))]
            for table in (PromptVersion, PromptTag, ArtifactVersion, Alias)
        )
    prompts = [row for row in prompts if datetime.fromisoformat(row["created_at"]) <= moment]
    versions = [row for row in versions if datetime.fromisoformat(row["created_at"]) <= moment]
    known = {(row["name"], row["version"]) for row in prompts}
    tags = [row for row in tags if _key(row) in known and datetime.fromisoformat(row["at"]) <= moment]
    known = {_key(row) for row in versions}
    pointing = []
    for row in aliases:
        with suppress(NotFoundError):
            move = alias_at(layout, row["name"], row["alias"], moment)
            if (row["name"], move.to_version) in known:
                pointing.append({**row, "version": move.to_version, "moved_at": move.at})
    if prompts or versions:
        with writing(scratch.state_url) as session:
            for table, rows in (
                (PromptVersion, prompts),
                (ArtifactVersion, versions),
                (PromptTag, tags),
                (Alias, pointing),
            ):
                session.add_all([table(**row) for row in rows])
                session.flush()  # what the next ones refer to must be there
    return bool(versions)


def _fields(row: Base) -> dict[str, Any]:
    return {column.name: getattr(row, column.name) for column in row.__table__.columns}


def _key(row: dict[str, Any]) -> tuple[str, int]:
    return row["name"], row["version"]
