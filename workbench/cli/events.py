"""`workbench events`: compact the files of the events, check them, and make their manifests again."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from workbench.cli.common import current_workspace, print_json

events_app = typer.Typer(no_args_is_help=True, help="Calls, scores, feedback and reviews on disk.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@events_app.command("compact")
def compact(as_json: Json = False) -> None:
    """Copy rows of journals and runs into Parquet files by day, and make one file of the small ones of a day."""
    from workbench.analytics.open import open_events

    events = open_events(current_workspace())
    done = events.compact(few=1)
    if as_json:
        print_json({name: asdict(found) for name, found in done.items()})
        return
    for name, found in done.items():
        files = f"{found.written} files written, {found.replaced} replaced"
        damage = f", {found.aside} damaged files set aside" if found.aside else ""
        damage += f", {found.damaged_lines} damaged lines set aside" if found.damaged_lines else ""
        typer.echo(f"{name}: {found.rows} rows taken in, {files}{damage}")


@events_app.command("check")
def check(as_json: Json = False) -> None:
    """Read every file whole, and set damaged ones aside. Exits with 1 where there are any, or some lie aside from earlier."""
    from workbench.analytics.open import open_events

    found = open_events(current_workspace()).set_aside()
    if as_json:
        print_json({"ok": not found, "problems": [{"path": path, "what": what} for path, what in found.items()]})
    else:
        for path, what in found.items():
            typer.echo(f"DAMAGED  {path} {what}")
        typer.echo("damaged" if found else "sound")
    if found:
        raise typer.Exit(1)


@events_app.command("rebuild")
def rebuild(as_json: Json = False) -> None:
    """Make manifests again that are gone, damaged or older than their files. Exits with 1 where rows are missing."""
    from workbench.analytics.open import open_events

    found = open_events(current_workspace()).rebuild()
    lacking = any(one.missing or one.aside for one in found.values())
    if as_json:
        print_json({"ok": not lacking, **{name: asdict(one) for name, one in found.items()}})
    else:
        for name, one in found.items():
            made = (
                "sound, left as it is"
                if one.files is None
                else f"made again, of {one.files} files with {one.rows} rows"
            )
            typer.echo(f"{name}: {made}")
            for file in one.missing:
                typer.echo(f"GONE     {name}/{file}, with its rows")
            for file in one.aside:
                typer.echo(f"ASIDE    aside/{file}: nothing says what it is, or it cannot be read")
    if lacking:
        raise typer.Exit(1)
