"""`workbench artifact push` and `pull`: artifacts to and from an OCI registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.common import print_json
from workbench.cli.registry import Json, Reference, artifact_app
from workbench.html import counted
from workbench.workspace import Layout

if TYPE_CHECKING:
    from workbench.registry.remote import Moved

Insecure = Annotated[
    bool, typer.Option("--insecure", help="Plain http to another machine; to this one it is always spoken.")
]


@artifact_app.command("push")
def push(
    artifact: Reference,
    target: Annotated[str, typer.Argument(metavar="REGISTRY/REPOSITORY[:TAG]", help="Where to; the tag is latest.")],
    insecure: Insecure = False,
    as_json: Json = False,
) -> None:
    """Copy an artifact, with its signatures and attestations, to an OCI registry. What is there is not sent again."""
    from workbench.registry import remote

    done = remote.push(Layout.find(), artifact, target, insecure=insecure, show_progress=not as_json)
    if as_json:
        print_json(done.to_json())
        return
    typer.echo(f"{done.artifact.name}@{done.artifact.version} is {done.reference}  {done.artifact.digest}")
    typer.echo(_told("sent", done))


@artifact_app.command("pull")
def pull(
    source: Annotated[
        str, typer.Argument(metavar="REGISTRY/REPOSITORY[:TAG|@sha256:…]", help="Where from; the tag is latest.")
    ],
    name: Annotated[
        str | None, typer.Option(help="Register it under this name; the last part of the repository by default.")
    ] = None,
    insecure: Insecure = False,
    as_json: Json = False,
) -> None:
    """Copy an artifact from an OCI registry and register it as a version. Exits with 1 if a byte differs."""
    from workbench.registry import remote

    done = remote.pull(Layout.find(), source, name=name, insecure=insecure, show_progress=not as_json)
    if as_json:
        print_json(done.to_json())
        return
    typer.echo(f"{done.artifact.name}@{done.artifact.version} is {done.reference}  {done.artifact.digest}")
    typer.echo(_told("fetched", done))


def _told(verb: str, done: Moved) -> str:
    count = len(done.referrers)
    along = f"; {counted(count, 'manifest')} came along" if count else ""
    return f"{verb} {done.blobs_moved} of {counted(done.blobs, 'blob')}, {counted(done.bytes_moved, 'byte')}{along}"
