"""`workbench sql`: ask the events of the workspace."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.cli.common import current_workspace
from workbench.errors import UsageError

SHOWN_ROWS = 50


def sql_command(
    query: Annotated[str, typer.Argument(help="One SELECT over calls, scores, runs, feedback, reviews and artifacts.")],
    parameter: Annotated[
        list[str] | None, typer.Option("--param", "-p", help="A value for $NAME in the query, as NAME=VALUE.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array of objects.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    export: Annotated[Path | None, typer.Option(help="Write to a file: .csv, .parquet or .xlsx.")] = None,
) -> None:
    """Ask the events of the workspace by SQL."""
    from workbench.analytics.open import open_events

    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other")
    rows = open_events(current_workspace()).sql(query, _parameters(parameter or []))
    if export is not None:
        from workbench.analytics.export import export as write

        count = write(rows, export)
        typer.echo(json.dumps({"rows": count, "path": str(export)}) if as_json else f"{count} rows in {export}")
    elif as_json:
        typer.echo(json.dumps(_plain(rows.to_dicts()), indent=2, ensure_ascii=False, allow_nan=False, default=str))
    elif as_csv:
        from workbench.analytics.export import flat

        typer.echo(flat(rows).write_csv(), nl=False)
    else:
        _show(rows)


def _plain(value: Any) -> Any:
    """As JSON has it: bytes are hexadecimal digits, and what is not a finite number is null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.hex() if isinstance(value, bytes) else value


def _parameters(given: list[str]) -> dict[str, str]:
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"--param {text}", hint="Write NAME=VALUE.")
        found[name] = value
    return found


def _show(rows: object) -> None:
    import polars as pl

    assert isinstance(rows, pl.DataFrame)
    with pl.Config(
        tbl_rows=SHOWN_ROWS,
        tbl_cols=-1,
        tbl_hide_column_data_types=True,
        tbl_hide_dataframe_shape=True,
        tbl_formatting="NOTHING",
        fmt_str_lengths=60,
        tbl_width_chars=240,
    ):
        typer.echo(str(rows))
    more = f", the first {SHOWN_ROWS // 2} and the last shown" if len(rows) > SHOWN_ROWS else ""
    typer.echo(f"{len(rows)} {'row' if len(rows) == 1 else 'rows'}{more}")
