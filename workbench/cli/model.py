"""`workbench model`: the models on this machine, and fetching more."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from workbench.errors import UsageError
from workbench.files import short
from workbench.models.store import STARTER, ModelFolder, find_model, list_models, verify_model
from workbench.workspace import cache_folder

model_app = typer.Typer(no_args_is_help=True, help="Models on this machine.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@model_app.command("ls")
def ls(as_json: Json = False) -> None:
    """List the models that can be used by name."""
    models = list_models()
    if as_json:
        typer.echo(json.dumps([_record(model) for model in models], indent=2))
        return
    table = Table("name", "kind", "digest", "size", "licence", "source", box=None, pad_edge=False)
    for model in models:
        name = f"{model.name}@{model.revision[:12]}" if model.revision else model.name
        size = f"{model.size / 1e6:.0f} MB"
        table.add_row(name, model.kind, short(model.digest), size, model.licence or "not stated", model.source)
    console = Console()
    console.print(table)
    if all(model.name != STARTER for model in models):
        console.print(f"The starter model is not here yet. Run: workbench model pull {STARTER}")


@model_app.command("pull")
def pull(
    name: Annotated[str, typer.Argument(help=f"{STARTER}, or ORG/NAME from the Hugging Face hub.")] = STARTER,
    revision: Annotated[str | None, typer.Option(help="The commit to fetch; needed for a model from the hub.")] = None,
    as_json: Json = False,
) -> None:
    """Fetch a model and keep it, with the digests of its files. Nothing to do where it is here already."""
    console = Console(stderr=True)

    def progress(line: str) -> None:
        console.print(line, highlight=False)

    if name == STARTER:
        if revision is not None:
            raise UsageError(f"{STARTER} has one revision, pinned in the workbench", hint="Leave --revision out.")
        from workbench.models.starter import fetch_starter

        model = fetch_starter(cache_folder(), progress)
    elif "/" in name:
        from workbench.models.hub import fetch_from_hub

        model = fetch_from_hub(name, revision, cache_folder(), progress)
    else:
        raise UsageError(f"there is no model {name!r} to pull", hint=f"Name {STARTER}, or ORG/NAME from the hub.")
    if as_json:
        typer.echo(json.dumps(_record(model), indent=2))
    else:
        typer.echo(f"{model.name}  {short(model.digest)}  {model.path}")


@model_app.command("show")
def show(
    name: str,
    verify: Annotated[bool, typer.Option("--verify", help="Hash every file again.")] = False,
    as_json: Json = False,
) -> None:
    """Show where a model lies, what it came from and the digest of each of its files."""
    model = find_model(name)
    if verify:
        verify_model(model)
    if as_json:
        typer.echo(json.dumps({**_record(model), "files": dict(model.files)}, indent=2))
        return
    lines = {**_record(model), **{file: digest + ("  ok" if verify else "") for file, digest in model.files.items()}}
    for key, value in lines.items():
        typer.echo(f"{key:<24} {'' if value is None else value}".rstrip())


def _record(model: ModelFolder) -> dict[str, Any]:
    return {
        "name": model.name,
        "kind": model.kind,
        "digest": model.digest,
        "source": model.source,
        "revision": model.revision,
        "licence": model.licence,
        "size_bytes": model.size,
        "path": str(model.path),
    }
