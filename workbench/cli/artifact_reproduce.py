"""`workbench artifact reproduce`: whether the notebook of an artifact makes the same evidence again."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.cli.common import print_json
from workbench.cli.registry import Json, Reference, artifact_app
from workbench.workspace import Layout


@artifact_app.command("reproduce")
def reproduce(
    artifact: Reference,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="End the notebook after so long; never by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run an artifact's notebook again on the recorded rows. Exits with 1 where the decision is another.

    The notebook is code, and runs with your rights: verify who signed what you did not promote yourself.
    """
    from workbench.registry.reproduce import reproduce as run_again

    found = run_again(Layout.find(), artifact, timeout_s=timeout, show_progress=not as_json)
    if as_json:
        print_json(found.to_json())
    else:
        typer.echo(str(found))
    if not found.ok:
        raise typer.Exit(1)
