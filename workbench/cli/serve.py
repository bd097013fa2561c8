"""`workbench serve` and `workbench artifact bundle`: an artifact over HTTP, here or anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.common import print_json
from workbench.cli.registry import Json, Reference, artifact_app
from workbench.errors import UsageError
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
    no_record: Annotated[
        bool, typer.Option("--no-record", help="Record neither questions and answers nor feedback.")
    ] = False,
    record_to: Annotated[
        Path | None,
        typer.Option(help="A folder of events to record in, instead of the workspace's. A bundle records only there."),
    ] = None,
    no_content: Annotated[
        bool, typer.Option("--no-content", help="Record tokens, times and errors, but no inputs and no answers.")
    ] = False,
) -> None:
    """Answer with an artifact over HTTP: POST /v1/answer. With WORKBENCH_API_KEY set, requests must show that key."""
    from workbench.registry.artifact import Artifact
    from workbench.serving.app import make_app
    from workbench.serving.recording import Recording
    from workbench.serving.served import asked_alias, is_bundle, open_bundle, serve_artifact
    from workbench.serving.server import api_key, run

    if no_record and record_to is not None:
        raise UsageError("--no-record and --record-to exclude each other")
    key = api_key(host, open_to_all=open_to_all)
    bundled = is_bundle(Path(artifact))
    if bundled:
        found, layout = open_bundle(Path(artifact), work)
    else:
        layout = Layout.find()
        found = Artifact.open(layout, artifact)
    served = serve_artifact(found, layout)
    folder = record_to
    if folder is None and layout.settings.serve.record and not bundled:
        folder = layout.events
    recording = None
    if folder is not None and not no_record:
        alias = None if bundled else asked_alias(artifact)
        content = layout.settings.serve.content and not no_content
        recording = Recording(served, folder, alias=alias, content=content)
    app = make_app(served, api_key=key, timeout_s=timeout, waiting=waiting, recording=recording)
    typer.echo(f"{served.label} ({served.engine.info.name}) answers at http://{host}:{port}/v1/answer")
    kept = "questions and answers are" if recording and recording.content else "what is asked is, without its content,"
    typer.echo(f"{kept} recorded in {folder}" if recording else "nothing is recorded")
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
