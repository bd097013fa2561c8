"""`workbench init`: a new workspace."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from workbench.init.init import init_workspace


def init_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is new, or holds no workspace yet.")],
    name: Annotated[str | None, typer.Option(help="Name of the workspace; the folder's name where not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a workspace: settings, starter data, prompts, a policy, notebooks and a CI workflow."""
    made = init_workspace(folder, name)
    if as_json:
        record = {"root": str(made.root), "name": made.name, "written": made.written, "kept": made.kept}
        typer.echo(json.dumps(record, indent=2))
        return
    typer.echo(f"Workspace {made.name} in {made.root}: {len(made.written)} files written")
    for path in made.kept:
        typer.echo(f"  kept as it was: {path}")
    typer.echo("Next:")
    if made.root != Path(os.getcwd()).resolve():
        typer.echo(f"  cd {folder}")
    typer.echo("  workbench demo")
    typer.echo("  marimo edit notebooks/prompt_ab.py")
    typer.echo("  workbench data import my.csv --name mine --input text --target label")
