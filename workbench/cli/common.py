"""What the command modules share."""

from __future__ import annotations

import json
from typing import Any

import typer

from workbench.workspace import Layout, use


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def current_workspace() -> Layout:
    """The workspace that the command runs in, which the rest of the process then takes for the current one.

    Raises:
        WorkspaceError: there is none; the hint says how to make one.
    """
    layout = Layout.find()
    use(layout)
    return layout
