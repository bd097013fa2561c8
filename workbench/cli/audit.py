"""`workbench audit`: the chain of everything that was done to names, versions and aliases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.common import current_workspace, print_json

audit_app = typer.Typer(no_args_is_help=True, help="The audit: who moved what, when, in a chain that shows edits.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@audit_app.command("verify")
def verify(
    head: Annotated[
        str | None,
        typer.Option(
            help="A digest that an earlier call told, kept where nobody can write who can write to the state."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Find lines that were changed, removed, added or moved, and versions, aliases and approvals that are not as they say.

    Exits with 1 where there are any. Whoever can rewrite the whole database is found by --head alone.
    """
    from workbench.registry.audit import verify_audit

    found = verify_audit(current_workspace(), head)
    if as_json:
        said = {"faults": list(found.faults), "notes": list(found.notes)}
        print_json({"ok": found.ok, "lines": found.count, "head": found.head, **said})
    else:
        for fault in found.faults:
            typer.echo(f"FAULT  {fault}")
        for note in found.notes:
            typer.echo(f"note   {note}")
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
