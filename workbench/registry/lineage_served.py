"""What was asked of artifacts once they were served, from the events of the workspace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench import access
from workbench.errors import WorkbenchError
from workbench.events.log import journal_folder
from workbench.events.manifest import manifest_path
from workbench.events.parquet import UNREADABLE
from workbench.events.store import Events
from workbench.workspace import Layout

if TYPE_CHECKING:
    from datetime import date

_ASKED = (
    "select artifact, alias, count(*) as calls, count(error_kind) as errors, min(day) as first, max(day) as last "
    "from calls where source = 'served' and artifact is not null group by all order by calls desc, alias"
)


@dataclass(frozen=True)
class ServedCalls:
    """Questions that one version of an artifact was served to.

    Attributes:
        errors: how many of the calls got no valid answer.
        first: the day of the first one, and last: of the last one, UTC.
        by_alias: calls by the alias that was served; those of servers that named a version are not in it.
    """

    calls: int
    errors: int
    first: date
    last: date
    by_alias: Mapping[str, int]

    def facts(self) -> dict[str, Any]:
        days = {"first": str(self.first), "last": str(self.last)}
        return {"calls": self.calls, "errors": self.errors, **days, "by_alias": dict(self.by_alias)}

    def __str__(self) -> str:
        return f"{self.told}, last {self.last}"

    @property
    def told(self) -> str:
        return f"{self.calls:,} {'call' if self.calls == 1 else 'calls'}"


def served_calls(layout: Layout) -> tuple[dict[str, ServedCalls], dict[str, str]]:
    """Served calls by `NAME@VERSION`, of the tenants that whoever acts may see; and what could not be read, by where.

    Nothing is raised for damage: what is readable is counted.
    """
    # Rows of runs are not asked for, so their folders are not looked at.
    events = Events(layout.events)
    if not (manifest_path(events.folder, "calls").exists() or journal_folder(events.folder, "calls").is_dir()):
        return {}, {}
    try:
        rows = events.sql(_ASKED, tenants=access.current().tenants)
    except (WorkbenchError, OSError, *UNREADABLE) as error:
        return {}, {"events": f"served calls: {error.message if isinstance(error, WorkbenchError) else error}"}
    found = {
        str(key[0]): ServedCalls(
            int(part["calls"].sum()),
            int(part["errors"].sum()),
            part["first"].min(),  # type: ignore[arg-type]
            part["last"].max(),  # type: ignore[arg-type]
            {alias: calls for alias, calls in part.select("alias", "calls").iter_rows() if alias is not None},
        )
        for key, part in rows.partition_by("artifact", as_dict=True, maintain_order=True).items()
    }
    return found, {path: f"served calls: {path} {what}" for path, what in events.problems.items()}
