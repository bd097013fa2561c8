"""`workbench finetune`: plan and run a fine-tuning, look at the adapters that came out, merge and export them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from workbench.cli.common import current_workspace, print_json
from workbench.finetune.formats import Dtype, Format, GgufType

if TYPE_CHECKING:
    from workbench.finetune.recipe import FinetuneRecipe
    from workbench.finetune.train import TrainResult
    from workbench.models.adapters import AdapterFolder
    from workbench.pipeline.prompt import Prompt
    from workbench.workspace import Layout

finetune_app = typer.Typer(no_args_is_help=True, help="Fine-tuning: plan and run it; list, merge and export adapters.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="A fine-tuning in YAML.")]
Name = Annotated[str, typer.Argument(help="An adapter by name, or a beginning of its digest.")]
Base = Annotated[str | None, typer.Option(help="The base model, where it is not called what the adapter says.")]
Asked = Annotated[str | None, typer.Option("--dataset", help="Data set to ask instead of the recipe's.")]
Split = Annotated[str | None, typer.Option(help="Split to ask instead of the recipe's dev split.")]
PromptFile = Annotated[Path | None, typer.Option("--prompt", help="Prompt file instead of the recipe's prompt.")]
Precision = Annotated[
    Dtype | None, typer.Option(help="Type of merged weights; by default bf16 if that keeps the answers, else fp16.")
]


@finetune_app.command("plan")
def plan_command(
    file: File,
    pilot: Annotated[
        bool, typer.Option("--pilot/--no-pilot", help="Time two steps of the training; without it no time is told.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Say what a fine-tuning takes: examples, tokens, steps, memory by part, time and disk. Exit code 1 if it does not fit."""
    from workbench.finetune.plan import plan
    from workbench.finetune.recipe import read_recipe

    layout = current_workspace()
    found = plan(layout, read_recipe(layout, file), pilot=pilot, show_progress=not as_json)
    if as_json:
        print_json(found.to_json())
    else:
        typer.echo(str(found))
    if not found.fits:
        raise typer.Exit(1)


@finetune_app.command("run")
def run_command(
    file: File,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew instead of going on from a checkpoint.")] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Try it even if the estimate says it cannot fit.")] = False,
    launch: Annotated[
        Path | None,
        typer.Option("--launch", metavar="FILE", help="Train in several processes, as this file of accelerate says."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train an adapter, going on where it stopped; what cannot fit is refused before it starts."""
    from workbench.finetune.memory import give_back_at_once
    from workbench.finetune.plan import plan
    from workbench.finetune.recipe import read_recipe
    from workbench.finetune.train import train

    layout = current_workspace()
    recipe = read_recipe(layout, file)
    if launch is not None:
        result = _launched(layout, recipe, launch, anyway=anyway, fresh=fresh, show_progress=not as_json)
    else:
        if anyway:
            give_back_at_once()
        else:
            plan(layout, recipe, pilot=False).prepare()
        result = train(layout, recipe, resume=not fresh, show_progress=not as_json)
    if as_json:
        print_json(_of_result(result))
        return
    typer.echo(str(result))
    rows = result.metrics.select("step", "loss", "dev_loss").rows()
    for step, loss, dev_loss in (row for row in rows if row[2] is not None):
        typer.echo(f"step {step:>5}  loss {'–' if loss is None else f'{loss:.4f}':>7}  dev loss {dev_loss:.4f}")
    typer.echo(f"adapter: {result.adapter.path}")
    typer.echo("use it:  " + _use(result.adapter))


@finetune_app.command("ls")
def ls(as_json: Json = False) -> None:
    """List adapters, the newest first, and trainings that have not ended."""
    from workbench.finetune.record import list_trainings
    from workbench.models.adapters import list_adapters

    layout = current_workspace()
    adapters = [_of_adapter(adapter) for adapter in list_adapters(layout)]
    open_ones = [
        {"id": record.id, "name": record.name, "step": record.step, "steps": record.steps, "begun": record.started_at}
        for record in list_trainings(layout)
        if record.adapter is None
    ]
    if as_json:
        print_json({"adapters": adapters, "trainings": open_ones})
        return
    table = Table("adapter", "digest", "base", "rank", "modules", "dev loss", "MB", box=None, pad_edge=False)
    for adapter in adapters:
        loss = adapter["metrics"].get("dev_loss")
        table.add_row(
            adapter["name"],
            adapter["digest"].removeprefix("sha256:")[:12],
            adapter["base"],
            str(adapter["rank"]),
            str(adapter["modules"]),
            "–" if loss is None else f"{loss:.4f}",
            str(adapter["megabytes"]),
        )
    Console().print(table)
    for training in open_ones:
        typer.echo(f"not ended: {training['name']} {training['id']}, begun {training['begun']}; run its file to go on")


@finetune_app.command("show")
def show(
    name: Name,
    as_json: Json = False,
) -> None:
    """Show what an adapter is and was trained on; its bytes are verified."""
    from workbench.models.adapters import find_adapter, verify_adapter

    adapter = find_adapter(current_workspace(), name)
    verify_adapter(adapter)
    facts = {**_of_adapter(adapter), "path": str(adapter.path), "use": _use(adapter)}
    if as_json:
        print_json(facts)
        return
    for key, value in facts.items():
        typer.echo(f"{key:<16} {json.dumps(value) if isinstance(value, (dict, list)) else value}")


@finetune_app.command("merge")
def merge_command(
    name: Name,
    out: Annotated[Path | None, typer.Option(help="Folder to make.")] = None,
    called: Annotated[
        str | None, typer.Option("--name", help="Instead: what the merged model is called on this machine.")
    ] = None,
    dtype: Precision = None,
    base: Base = None,
    dataset: Asked = None,
    split: Split = None,
    prompt: PromptFile = None,
    as_json: Json = False,
) -> None:
    """Merge an adapter into its 16-bit base, and keep the model if it gives the same answers to 99% of the dev rows."""
    from workbench.finetune.merge import merge

    result = merge(
        current_workspace(),
        name,
        out=out,
        name=called,
        dtype=dtype,
        base=base,
        dataset=dataset,
        split=split,
        prompt=_prompt(prompt),
        show_progress=not as_json,
    )
    model = called or str(result.model.path)
    if as_json:
        facts = {"adapter": result.adapter.digest, "path": str(result.model.path), "digest": result.model.digest}
        print_json({**facts, "dtype": result.dtype, "model": model, "agreement": result.agreement.to_json()})
        return
    typer.echo(str(result))
    typer.echo(f'use it:  Pipeline(model="{model}", …)')


@finetune_app.command("export")
def export_command(
    name: Name,
    out: Annotated[Path, typer.Option(help="Folder to make; with --format gguf the file.")],
    format: Annotated[Format, typer.Option(help="What to write.")] = "safetensors",
    adapter_only: Annotated[
        bool, typer.Option("--adapter-only", help="The adapter alone, as peft loads it, instead of a merged model.")
    ] = False,
    dtype: Precision = None,
    kind: Annotated[GgufType, typer.Option("--type", help="Type of the weights in a GGUF file.")] = "f16",
    base: Base = None,
    dataset: Asked = None,
    split: Split = None,
    prompt: PromptFile = None,
    as_json: Json = False,
) -> None:
    """Write an adapter for use elsewhere, and keep what was written if it gives the same answers to 99% of the dev rows."""
    from workbench.finetune.export import export

    result = export(
        current_workspace(),
        name,
        out=out,
        format=format,
        adapter_only=adapter_only,
        dtype=dtype,
        type=kind,
        base=base,
        dataset=dataset,
        split=split,
        prompt=_prompt(prompt),
        show_progress=not as_json,
    )
    if not as_json:
        typer.echo(str(result))
        return
    facts = {"adapter": result.adapter.digest, "path": str(result.path), "format": result.format}
    checked = result.agreement.to_json() if result.agreement else None
    print_json({**facts, "digest": result.digest, "bytes": result.size, "agreement": checked})


def _launched(
    layout: Layout, recipe: FinetuneRecipe, path: Path, *, anyway: bool, fresh: bool, show_progress: bool
) -> TrainResult:
    from workbench.finetune.launch import LaunchFile, launch
    from workbench.finetune.plan import plan
    from workbench.finetune.train import first_micro_batch

    file = LaunchFile.read(path)
    micro = first_micro_batch(recipe.settings, file.processes)
    if not anyway and not file.sharded:
        plan(layout, recipe.with_settings(micro_batch=micro), pilot=False).require_fit()
    return launch(layout, recipe, file, resume=not fresh, show_progress=show_progress)


def _prompt(file: Path | None) -> Prompt | None:
    from workbench.pipeline.prompt import Prompt

    return None if file is None else Prompt.from_file(file)


def _of_adapter(adapter: AdapterFolder) -> dict[str, Any]:
    fields = adapter.manifest.model_dump(mode="json", exclude={"format_version"})
    return {"name": fields.pop("name"), "digest": adapter.digest, **fields, "megabytes": round(adapter.size / 2**20, 1)}


def _of_result(result: TrainResult) -> dict[str, Any]:
    last = result.metrics["loss"].drop_nulls()
    return {
        "training": result.id,
        "adapter": _of_adapter(result.adapter),
        "path": str(result.adapter.path),
        "stopped": result.stopped,
        "steps": result.steps,
        "best_step": result.best_step,
        "loss": float(last[-1]) if len(last) else None,
        "dev_loss": result.dev_loss,
        "seconds": result.seconds,
        "tokens_per_s": result.tokens_per_s,
        "peak_mb": result.peak_mb,
        "micro_batch": result.micro_batch,
        "too_long": [list(entry) for entry in result.too_long],
    }


def _use(adapter: AdapterFolder) -> str:
    """How to use an adapter, in Python and in an experiment's YAML."""
    base, digest = adapter.manifest.base, adapter.digest
    return f'Pipeline(model="{base}", adapter="{digest}", …), or in an experiment: adapter: {adapter.manifest.name}'
