"""`workbench doctor`: what runs here, and what to install for what does not."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from workbench.doctor import checks, healthy

COLOURS = {"ok": "green", "warn": "yellow", "missing": "yellow"}


def doctor_command(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Say what runs on this machine and what to install for what does not (exit code 1: something essential)."""
    results = checks()
    ok = healthy(results)
    if as_json:
        record = {"ok": ok, "checks": [dataclasses.asdict(check) for check in results]}
        typer.echo(json.dumps(record, indent=2))
    else:
        table = Table(box=None, show_header=False, pad_edge=False)
        for check in results:
            hint = f"\n[bold]{escape(check.hint)}[/]" if check.hint and check.status != "ok" else ""
            colour = "red" if check.essential and check.status == "missing" else COLOURS[check.status]
            table.add_row(escape(check.name), f"[{colour}]{check.status}[/]", escape(check.detail) + hint)
        console = Console()
        console.print(table)
        console.print("Everything essential is here." if ok else "Something essential is missing.")
    if not ok:
        raise typer.Exit(1)
