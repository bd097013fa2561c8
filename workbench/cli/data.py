"""`workbench data`: import, list, show, compare and split data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from workbench.workspace import Layout

if TYPE_CHECKING:
    from workbench.data.dataset import Dataset

app = typer.Typer(no_args_is_help=True, help="Import, list, show, compare and split data sets.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Reference = Annotated[str, typer.Argument(help="NAME, NAME@VERSION or NAME@DIGEST.")]


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


@app.command("import")
def import_command(
    path: Annotated[
        Path, typer.Argument(help="A .jsonl, .csv, .tsv or .parquet file, or a Hugging Face or BEIR folder.")
    ],
    name: Annotated[str, typer.Option("--name", help="What to call it.")],
    input: Annotated[
        list[str] | None, typer.Option("--input", help="A column that prompts may use (repeatable).")
    ] = None,
    target: Annotated[list[str] | None, typer.Option("--target", help="A column of the answer (repeatable).")] = None,
    id: Annotated[str | None, typer.Option("--id", help="The column that names rows.")] = None,
    group: Annotated[str | None, typer.Option("--group", help="The column of groups that stay together.")] = None,
    split_column: Annotated[str | None, typer.Option("--split-column", help="The column of splits.")] = None,
    delimiter: Annotated[str | None, typer.Option("--delimiter", help="What separates CSV cells.")] = None,
    schema: Annotated[Path | None, typer.Option("--schema", help="A JSON Schema for the rows.")] = None,
    description: Annotated[str, typer.Option("--description", help="One sentence about it.")] = "",
    unlabelled: Annotated[bool, typer.Option("--unlabelled", help="Allow rows without a target.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the data set of that name.")] = False,
    as_json: Json = False,
) -> None:
    """Check a file and copy it into the workspace, whole or not at all."""
    from workbench.data.store import import_dataset

    dataset = import_dataset(
        Layout.find(),
        path,
        name,
        input=input,
        target=target,
        id=id,
        group=group,
        delimiter=delimiter,
        schema=schema,
        replace=replace,
        split_column=split_column,
        description=description,
        unlabelled=unlabelled,
    )
    if as_json:
        _print_json(_summary(dataset))
        return
    splits = ", ".join(f"{split} {count}" for split, count in dataset.splits().items())
    Console().print(f"[bold]{escape(name)}[/bold]: {len(dataset)} rows ({escape(splits)})", highlight=False)


@app.command("ls")
def ls_command(as_json: Json = False) -> None:
    """List the data sets of the workspace."""
    from workbench.data.store import list_datasets
    from workbench.files import short

    listings = list_datasets(Layout.find())
    if as_json:
        _print_json([vars(listing) for listing in listings])
        return
    table = Table("name", "rows", "splits", "digest", "version", "about")
    for found in listings:
        if found.error:
            table.add_row(escape(found.name), "", "", "", "", f"[red]{escape(found.error)}[/red]")
            continue
        splits = ", ".join(f"{split} {count}" for split, count in (found.splits or {}).items())
        version = "" if found.version is None else str(found.version)
        row = (found.name, str(found.rows), splits, short(found.digest or ""), version, found.description)
        table.add_row(*map(escape, row))
    Console().print(table)


@app.command("show")
def show_command(name: Reference, as_json: Json = False) -> None:
    """Show a data set's columns, splits, versions and first rows."""
    from workbench.data.show import clip
    from workbench.data.store import open_dataset, versions

    layout = Layout.find()
    dataset = open_dataset(layout, name)
    summary = _summary(dataset)
    kept = [
        {key: getattr(v, key) for key in ("version", "digest", "rows", "created_at")}
        for v in versions(layout, dataset.name)
    ]
    first = list(dataset.head(5).records())
    if as_json:
        _print_json({**summary, "versions": kept, "head": first})
        return
    console = Console()
    console.print(f"[bold]{escape(dataset.name)}[/bold]  {escape(dataset.spec.description)}", highlight=False)
    console.print(f"{len(dataset)} rows, {dataset.digest}", highlight=False)
    console.print("splits: " + escape(", ".join(f"{k} {n}" for k, n in dataset.splits().items())), highlight=False)
    if kept:
        text = ", ".join(f"{v['version']} ({v['rows']} rows, {v['created_at']})" for v in kept)
        console.print(f"versions: {text}", highlight=False)
    table = Table()
    for column in summary["columns"]:
        part = f"\n[dim]{column['part']}[/dim]" if column["part"] else ""
        table.add_column(escape(column["name"]) + part, overflow="fold")
    for record in first:
        table.add_row(*(escape(clip(value)) for value in record.values()))
    console.print(table)


@app.command("diff")
def diff_command(
    before: Annotated[str, typer.Argument(help="NAME[@VERSION] or a file.")],
    after: Annotated[str, typer.Argument(help="NAME[@VERSION] or a file.")],
    id: Annotated[str | None, typer.Option("--id", help="The column that names rows, in files.")] = None,
    as_json: Json = False,
) -> None:
    """Compare two data sets, two versions of one, or two files, row by row."""
    from workbench.data.diff import diff

    result = diff(_either(before, id), _either(after, id))
    if as_json:
        _print_json(result.to_json())
    else:
        Console().print(escape(str(result)), highlight=False, soft_wrap=True)


def _either(reference: str, id: str | None) -> Dataset:
    """A file where there is one of that name, else a data set of the workspace."""
    from workbench.data.dataset import Dataset
    from workbench.data.store import open_dataset

    path = Path(reference)
    if path.suffix and path.exists():
        return Dataset.read(path, id=id)
    return open_dataset(Layout.find(), reference)


@app.command("split")
def split_command(name: Reference, as_json: Json = False) -> None:
    """Count the rows of each split."""
    from workbench.data.store import open_dataset

    dataset = open_dataset(Layout.find(), name)
    splits = dataset.splits()
    if as_json:
        _print_json({"name": dataset.name, "rows": len(dataset), "splits": splits})
        return
    table = Table("split", "rows", "share")
    for split, count in splits.items():
        table.add_row(escape(split), str(count), f"{count / len(dataset):.1%}")
    Console().print(table)


def _summary(dataset: Dataset) -> dict[str, Any]:
    from workbench.data.show import part_of

    return {
        "name": dataset.name,
        "description": dataset.spec.description,
        "rows": len(dataset),
        "digest": dataset.digest,
        "splits": dataset.splits(),
        "columns": [{"name": column, "part": part_of(dataset, column)} for column in dataset.columns],
    }
