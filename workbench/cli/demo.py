"""`workbench demo`: the main job, end to end, on the starter data and the starter model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workbench.errors import UsageError


def demo_command(
    limit: Annotated[
        int | None, typer.Option(min=2, help="Use this many rows of the test split instead of all.")
    ] = None,
    report: Annotated[Path, typer.Option(help="Where to write the HTML report.")] = Path("report.html"),
    history: Annotated[
        bool,
        typer.Option(
            "--history", help="Instead, record 90 days of made-up calls, marked as synthetic, to try the apps on."
        ),
    ] = False,
    remove_history: Annotated[
        bool, typer.Option("--remove-history", help="Take the made-up calls out again, and nothing else.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the two about the history.")] = False,
) -> None:
    """Compare two prompts on a real local model, decide, promote the winner, and ask it. Takes a few minutes."""
    if history and remove_history:
        raise UsageError("--history and --remove-history exclude each other")
    if as_json and not (history or remove_history):
        raise UsageError("--json goes with --history or --remove-history")
    if history or remove_history:
        from workbench.demo import change_history

        change_history(remove=remove_history, as_json=as_json)
        return
    from workbench.demo import run_demo

    run_demo(limit=limit, report=report)
