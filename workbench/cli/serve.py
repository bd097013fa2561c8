"""`workbench serve` and `workbench artifact bundle`: an artifact over HTTP, here or anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.common import print_json
from workbench.cli.registry import Json, Reference, artifact_app
from workbench.workspace import Layout


def serve_command(
    artifact: Annotated[
        str, typer.Argument(metavar="ARTIFACT|DIR", help="NAME, NAME@3, NAME@ALIAS, or the folder of a bundle.")
    ],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="The port.")] = 8000,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that one question may take.")] = 60.0,
    waiting: Annotated[int, typer.Option(min=1, help="Questions that may wait; one more is turned away.")] = 256,
    open_to_all: Annotated[
        bool, typer.Option("--open", help="Ask for no key although other machines can reach it.")
    ] = False,
    work: Annotated[
        Path | None, typer.Option(help="Where a bundle's index and adapter are unpacked; in the cache by default.")
    ] = None,
) -> None:
    """Answer with an artifact over HTTP: POST /v1/answer. With WORKBENCH_API_KEY set, requests must show that key."""
    from workbench.registry.artifact import Artifact
    from workbench.serving.app import make_app
    from workbench.serving.served import is_bundle, open_bundle, serve_artifact
    from workbench.serving.server import api_key, run

    key = api_key(host, open_to_all=open_to_all)
    if is_bundle(Path(artifact)):
        found, layout = open_bundle(Path(artifact), work)
    else:
        layout = Layout.find()
        found = Artifact.open(layout, artifact)
    served = serve_artifact(found, layout)
    app = make_app(served, api_key=key, timeout_s=timeout, waiting=waiting)
    typer.echo(f"{served.label} ({served.engine.info.name}) answers at http://{host}:{port}/v1/answer")
    run(app, host, port)


@artifact_app.command("bundle")
def bundle(
    artifact: Reference,
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    with_model: Annotated[
        bool, typer.Option("--with-model", help="Put the model's weights into it, for a machine without network.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a folder that runs without this workspace: pip install -r requirements.lock, then workbench serve ."""
    from workbench.registry.artifact import Artifact
    from workbench.serving.bundle import make_bundle

    layout = Layout.find()
    found = Artifact.open(layout, artifact)
    made = make_bundle(found, layout.settings, out, with_model=with_model)
    if as_json:
        print_json(made.to_json())
        return
    typer.echo(f"{found.name}@{found.version} is in {made.folder}  {made.digest}")
    typer.echo(f"{made.files} files, {made.size:,} bytes; {made.packages} packages; {made.rows} rows to smoke-test")
    typer.echo(f"Next: cd {made.folder} && cat README.md")
