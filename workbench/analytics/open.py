"""The events of a workspace, with its runs and artifacts."""

from __future__ import annotations

from pathlib import Path

from workbench.analytics.run_folders import RunFolders
from workbench.analytics.views import RunsView, artifacts_view
from workbench.events.store import Events
from workbench.workspace import Layout

_opened: dict[tuple[Path, str], Events] = {}


def open_events(layout: Layout) -> Events:
    """The events of a workspace; one object a process, as it keeps what it has read of journals."""
    key = layout.runs, layout.state_url
    events = _opened.get(key)
    if events is None:
        events = Events(layout.runs.parent, [RunFolders(layout.runs)])
        events.views |= {
            "runs": RunsView(layout.runs, lambda: events.frame("calls")),
            "artifacts": artifacts_view(layout),
        }
        _opened[key] = events
    return events
