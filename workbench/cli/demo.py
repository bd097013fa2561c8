"""`workbench demo`: the main job, end to end, on the starter data and the starter model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo_command(
    limit: Annotated[
        int | None, typer.Option(min=2, help="Use this many rows of the test split instead of all.")
    ] = None,
    report: Annotated[Path, typer.Option(help="Where to write the HTML report.")] = Path("report.html"),
) -> None:
    """Compare two prompts on a real local model, decide, promote the winner, and ask it. Takes a few minutes."""
    from workbench.demo import run_demo

    run_demo(limit=limit, report=report)
