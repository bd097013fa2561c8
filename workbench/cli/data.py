"""`workbench data`: import, list, show, compare, split and curate data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from workbench.cli.common import print_json
from workbench.workspace import Layout

if TYPE_CHECKING:
    from workbench.data.dataset import Dataset

app = typer.Typer(no_args_is_help=True, help="Import, list, show, compare, split and curate data sets.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Reference = Annotated[str, typer.Argument(help="NAME, NAME@VERSION or NAME@DIGEST.")]


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
        print_json(_summary(dataset))
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
        print_json([vars(listing) for listing in listings])
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
        print_json({**summary, "versions": kept, "head": first})
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
        print_json(result.to_json())
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


@app.command("lineage")
def lineage_command(
    name: Annotated[
        str, typer.Argument(help="NAME (every version), NAME@VERSION or NAME@sha256:…, of a version or a part.")
    ],
    as_json: Json = False,
) -> None:
    """Show which trainings, runs, artifacts and aliases used a data set. Exits with 1 if an artifact cannot be read."""
    from workbench.api import Workspace

    found = Workspace(Layout.find()).lineage_of_dataset(name)
    if as_json:
        print_json(found.to_json())
    else:
        typer.echo(str(found))
    if found.damaged:
        raise typer.Exit(1)


@app.command("split")
def split_command(name: Reference, as_json: Json = False) -> None:
    """Count the rows of each split."""
    from workbench.data.store import open_dataset

    dataset = open_dataset(Layout.find(), name)
    splits = dataset.splits()
    if as_json:
        print_json({"name": dataset.name, "rows": len(dataset), "splits": splits})
        return
    table = Table("split", "rows", "share")
    for split, count in splits.items():
        table.add_row(escape(split), str(count), f"{count / len(dataset):.1%}")
    Console().print(table)


@app.command("curate")
def curate_command(
    name: Annotated[str, typer.Argument(help="The name of a data set.")],
    drop: Annotated[list[str] | None, typer.Option("--drop", help="A check that drops its rows (repeatable).")] = None,
    flag: Annotated[list[str] | None, typer.Option("--flag", help="A check that only reports (repeatable).")] = None,
    skip: Annotated[list[str] | None, typer.Option("--skip", help="A check to leave out (repeatable).")] = None,
    pii: Annotated[
        str | None, typer.Option("--pii", help="What to do with personal data: flag (default), mask, drop or skip.")
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option("--split", help="The splits, first the one whose rows go first (repeatable); default: by name."),
    ] = None,
    jaccard: Annotated[
        float | None, typer.Option("--jaccard", help="Shared words from which texts are near duplicates.")
    ] = None,
    cosine: Annotated[
        float | None, typer.Option("--cosine", help="Cosine from which texts are near duplicates.")
    ] = None,
    embedder: Annotated[str | None, typer.Option("--embedder", help="Which embedder compares meanings.")] = None,
    no_embedder: Annotated[bool, typer.Option("--no-embedder", help="Compare words only.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report only; change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Find duplicates, leaks between splits, personal data, outliers and doubtful labels; keep the result as a version.

    The checks: empty, personal-data, leakage, exact-duplicates, near-duplicates, length-outliers, label-noise,
    class-balance. Exact duplicates within a split and leaks are dropped unless told otherwise, the rest is reported.
    """
    from workbench.api import Workspace
    from workbench.curation.settings import make_settings
    from workbench.errors import UsageError

    if embedder is not None and no_embedder:
        raise UsageError("--embedder and --no-embedder exclude one another")
    options = {"personal_data": pii, "splits": split, "jaccard": jaccard, "cosine": cosine, "embedder": embedder}
    given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    if no_embedder:
        given["embedder"] = None
    settings = make_settings(drop or (), flag or (), skip or (), **given)
    made = Workspace(Layout.find()).curate(name, settings, dry_run=dry_run)
    report, versions = made.report, made.versions
    if as_json:
        shown = {
            "name": name,
            "before": report.before.model_dump(),
            "after": report.after.model_dump(),
            "versions": None if versions is None else {"before": versions[0], "after": versions[1]},
            "counts": report.counts(),
            "notes": [note.model_dump() for note in report.notes],
            "report": str(made.folder / "report.json"),
            "html": str(made.html),
        }
        print_json(shown)
        return
    console = Console()
    table = Table("check", "dropped", "masked", "flagged", "", title=escape(report.headline), title_justify="left")
    for check, *numbers, note in report.table():
        table.add_row(check, *map(str, numbers), escape(note))
    console.print(table)
    for part, rows in report.before.splits.items():
        left = report.after.splits.get(part, 0)
        console.print(f"{escape(part)}: {rows} rows" + (f" → {left}" if left != rows else ""), highlight=False)
    if versions is None:
        said = "Dry run: the data set is as it was."
    elif not report.changed:
        said = f"Nothing was changed: {name}@{versions[0]} stays as it is."
    else:
        said = f"{name} is now {name}@{versions[1]}; the rows before are kept as {name}@{versions[0]}."
    console.print(escape(said), highlight=False)
    console.print(f"Report: {escape(str(made.html))}", highlight=False, soft_wrap=True)


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
