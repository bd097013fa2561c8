"""`workbench apps` and `workbench access`: notebooks for a team, and who may see them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from workbench.cli.common import print_json
from workbench.workspace import Layout

access_app = typer.Typer(no_args_is_help=True, help="Keys that people sign in to apps with.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def apps_command(
    notebooks: Annotated[
        list[Path] | None, typer.Argument(help="marimo notebooks; those of notebooks/ by default.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="The port.")] = 8080,
    show_list: Annotated[bool, typer.Option("--list", help="List the apps and the roles they take instead.")] = False,
    as_json: Json = False,
) -> None:
    """Serve marimo notebooks as apps behind a sign-in. On this machine alone, the printed address signs you in."""
    from workbench.apps.listing import find_apps

    layout = Layout.find()
    apps = find_apps(layout, notebooks or ())
    if show_list:
        if as_json:
            print_json([{"app": a.slug, "title": a.title, "role": a.role, "summary": a.summary} for a in apps])
            return
        table = Table("app", "title", "role", "", box=None, pad_edge=False)
        for app in apps:
            table.add_row(app.slug, app.title, app.role, app.summary)
        Console().print(table)
        return
    from workbench.apps.server import serve_apps
    from workbench.serving.server import is_local, run

    served = serve_apps(layout, apps, local=is_local(host))
    where = f"http://{host}:{port}"
    typer.echo(f"{len(apps)} apps at {where}" + (f"/signin?token={served.token}" if served.token else ""))
    run(served.app, host, port)


@access_app.command("grant")
def grant(
    person: Annotated[str, typer.Argument(help="Whose key it is, such as ada or ada@example.org.")],
    role: Annotated[list[str], typer.Option(help="viewer, editor, admin, or a word of your own; may be repeated.")],
    tenant: Annotated[
        list[str] | None, typer.Option(help="Whose rows the person may see; may be repeated. All by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key and print it, once: only its digest is kept."""
    from workbench.state.keys import find_key
    from workbench.state.keys import grant as make

    url = Layout.find().state_url
    key = make(url, person, role, tenants=tenant)
    if as_json:
        found = find_key(url, key)
        print_json({"key": key, **(found.to_json() if found else {})})
    else:
        typer.echo(key)
        typer.echo(f"Give it to {person}; it is not shown again.", err=True)


@access_app.command("ls")
def ls(as_json: Json = False) -> None:
    """List the keys that were made: whose, for what, since when."""
    from workbench.state.keys import list_grants

    grants = list_grants(Layout.find().state_url)
    if as_json:
        print_json([grant.to_json() for grant in grants])
        return
    if not grants:
        typer.echo("No keys yet. Make one with: workbench access grant NAME --role viewer")
        return
    table = Table("key", "person", "roles", "tenants", "made (UTC)", "by", "revoked", box=None, pad_edge=False)
    for grant in grants:
        viewer = grant.viewer
        tenants = "all" if viewer.tenants is None else ", ".join(viewer.tenants)
        ended = (grant.revoked_at or "")[:19]
        roles = ", ".join(sorted(viewer.roles))
        table.add_row(grant.id, viewer.name, roles, tenants, grant.created_at[:19], grant.created_by, ended)
    Console().print(table)


@access_app.command("revoke")
def revoke(
    who: Annotated[str, typer.Argument(metavar="KEY|PERSON", help="A key's id, or a person for all keys they have.")],
    as_json: Json = False,
) -> None:
    """End a key, or all keys of a person. Open pages are closed within seconds."""
    from workbench.state.keys import revoke as end

    ended = end(Layout.find().state_url, who)
    if as_json:
        print_json({"revoked": ended})
    else:
        typer.echo(f"revoked {', '.join(ended)}")
