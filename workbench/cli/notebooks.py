"""`workbench notebooks`: check every notebook, for people and for CI."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from workbench.errors import WorkbenchError
from workbench.workspace import Layout

notebooks_app = typer.Typer(no_args_is_help=True, help="Notebooks: check that they run.")


@notebooks_app.callback()
def _group() -> None:
    """Keeps `check` a command of its own."""


@notebooks_app.command("check")
def check(
    paths: Annotated[list[Path] | None, typer.Argument(help="Files or folders; notebooks/ by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check notebooks: `marimo check --strict` and a full execution, nbval for Jupyter. Exits with 1 where one fails."""
    from workbench.notebook_check import check_notebook, find_notebooks

    console = Console(highlight=False, soft_wrap=True)
    results = []
    for notebook in find_notebooks(paths or [Layout.find().notebooks]):
        for result in check_notebook(notebook):
            results.append(result)
            if not as_json:
                mark = "[green]ok[/]    " if result.passed else "[red]failed[/]"
                console.print(f"{mark}  {result.notebook}  {result.check}  [dim]{result.seconds:.0f} s[/]")
                if result.output:
                    console.print(result.output, markup=False)
    if as_json:
        typer.echo(json.dumps([asdict(result) for result in results], indent=2))
    failed = [result for result in results if not result.passed]
    if failed:
        raise WorkbenchError(f"{len(failed)} of {len(results)} checks failed", hint="The output above says where.")
