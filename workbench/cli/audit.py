"""`workbench audit`: the chain of everything that was done to names, versions and aliases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.common import current_workspace, print_json

audit_app = typer.Typer(no_args_is_help=True, help="The audit: who moved what, when, in a chain that cannot be edited.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@audit_app.command("verify")
def verify(
    head: Annotated[
        str | None, typer.Option(help="A digest that an earlier call told; without it a cut-off end may go unnoticed.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find lines that were changed, removed, added or moved. Exits with 1 where there are any."""
    from workbench.registry.audit import verify_audit

    found = verify_audit(current_workspace(), head)
    if as_json:
        print_json({"ok": found.ok, "lines": found.count, "head": found.head, "faults": list(found.faults)})
    else:
        for fault in found.faults:
            typer.echo(f"FAULT  {fault}")
        typer.echo(f"{found.count} lines, {'sound' if found.ok else 'NOT sound'}; head {found.head}")
    if not found.ok:
        raise typer.Exit(1)


@audit_app.command("export")
def export(
    out: Annotated[Path, typer.Argument(help="A file to write, JSON Lines.")],
    as_json: Json = False,
) -> None:
    """Write every line as JSON Lines."""
    from workbench.registry.audit import export_audit

    count = export_audit(current_workspace(), out)
    if as_json:
        print_json({"lines": count, "path": str(out)})
    else:
        typer.echo(f"{count} lines in {out}")
