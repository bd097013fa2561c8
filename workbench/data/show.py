"""How a data set shows itself: a small HTML table for notebooks, and the README card that an import writes."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from workbench.data.values import as_text
from workbench.files import short

if TYPE_CHECKING:
    from workbench.data.dataset import Dataset

CELL = 120
ROWS = 5


def clip(value: Any, limit: int = CELL) -> str:
    """A cell on one line of at most `limit` characters; empty for null."""
    text = "" if value is None else " ".join(as_text(value).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def html_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """An HTML table with every cell escaped and clipped."""
    head = "".join(f"<th style='text-align:left'>{escape(name)}</th>" for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{escape(clip(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def part_of(dataset: Dataset, column: str) -> str:
    """ "id", "input", "target", "group", "split" or nothing: the part a column plays."""
    spec = dataset.spec
    parts = {
        "id": ("id",),
        "target": spec.target,
        "group": (spec.group,),
        "split": (spec.split_column,),
        "input": spec.input,
    }
    return ", ".join(part for part, names in parts.items() if column in names)


def dataset_html(dataset: Dataset) -> str:
    """Name, size, digest and splits, and the first rows under their columns and the parts these play."""
    splits = ", ".join(f"{name} {count}" for name, count in dataset.splits().items())
    header = [
        f"{name} ({part})" if (part := part_of(dataset, name)) not in ("", name) else name for name in dataset.columns
    ]
    rows = [list(record.values()) for record in dataset.head(ROWS).records()]
    title = f"{dataset.name} · {dataset.split_name}" if dataset.split_name else dataset.name
    return (
        f"<div><b>{escape(title)}</b>: {len(dataset):,} rows, {short(dataset.digest)}, {escape(splits)}"
        f"{html_table(header, rows)}</div>"
    )


def card(dataset: Dataset) -> str:
    """A datasheet to fill in: what can be told from the rows is filled in already."""
    spec = dataset.spec
    columns = "\n".join(f"| `{name}` | {part_of(dataset, name) or 'not used'} |" for name in dataset.columns)
    splits = "\n".join(f"| {name} | {count} |" for name, count in dataset.splits().items())
    how = f"column `{spec.split_column}`" if spec.split_column else "hash of the " + ("group" if spec.group else "id")
    about = spec.description or "What is it for, and who made it?"
    return f"""# {spec.name}

{about}

{len(dataset)} rows.

| column | part |
|---|---|
{columns}

| split (by {how}) | rows |
|---|---|
{splits}

## Collection
Where do the rows come from, and when?

## Labels
Who gave the targets, by which rules?

## Personal data
Does any row hold some? On what grounds may it be used?

## Uses and limits
What is it good for, and what not? Under which licence?
"""
