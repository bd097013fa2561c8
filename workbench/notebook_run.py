"""Run a Jupyter notebook with other parameters than those written in it."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workbench.errors import UsageError, WorkbenchError, require
from workbench.surroundings import ARGUMENTS_VARIABLE, NOTEBOOK_VARIABLE

TAG = "parameters"


def run_jupyter(path: Path, arguments: Sequence[str], *, timeout_s: int = 3600) -> Path:
    """Execute a notebook and write it, with its outputs, beside it as `NAME.executed.ipynb`.

    Its cell with the tag `parameters` assigns the defaults; the arguments (`--limit 5`) are assigned in a cell put after
    it, as papermill does.

    Returns: the path of the executed notebook; it is written where a cell fails, too.

    Raises:
        UsageError: an argument that the parameters cell does not assign, or no such cell.
        WorkbenchError: a cell failed.
        MissingExtraError: nbclient is not installed.
    """
    nbclient = require("nbclient", extra="jupyter")
    nbformat = require("nbformat", extra="jupyter")
    book = nbformat.read(path, as_version=4)
    given = parse_arguments(arguments)
    if given:
        place, known = _parameters(book, path)
        if unknown := sorted(set(given) - set(known)):
            raise UsageError(
                f"{path} has no parameter {unknown[0]}", hint=f"It has: {', '.join(f'--{name}' for name in known)}."
            )
        source = "\n".join(f"{name} = {value!r}" for name, value in given.items())
        book.cells.insert(place + 1, nbformat.v4.new_code_cell(source, metadata={"tags": ["injected-parameters"]}))
    target = path.with_name(f"{path.stem}.executed.ipynb")
    client = nbclient.NotebookClient(
        book, timeout=timeout_s, kernel_name="python3", resources={"metadata": {"path": str(path.parent.resolve())}}
    )
    try:
        # The kernel tells its runs by these which notebook made them, and how it is made to do so again.
        told = {NOTEBOOK_VARIABLE: str(path.resolve()), ARGUMENTS_VARIABLE: json.dumps(list(arguments))}
        client.execute(env={**os.environ, **told})
    except nbclient.exceptions.CellExecutionError as error:
        last = str(error).strip().splitlines()[-1]
        raise WorkbenchError(f"{path} failed: {last}", hint=f"The outputs up to there are in {target}.") from None
    finally:
        nbformat.write(book, target)
    return target


def parse_arguments(arguments: Sequence[str]) -> dict[str, Any]:
    """`--limit 5 --name=mine` as `{"limit": 5, "name": "mine"}`; a value that is no Python literal is text.

    Raises:
        UsageError: a word that is no `--name`, or a name without a value.
    """
    found: dict[str, Any] = {}
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise UsageError(f"{word!r} is no parameter", hint="Write: -- --name value")
        name, equals, text = word[2:].partition("=")
        if not equals:
            if not words:
                raise UsageError(f"--{name} has no value", hint=f"Write: -- --{name} value")
            text = words.pop(0)
        try:
            found[name.replace("-", "_")] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            found[name.replace("-", "_")] = text
    return found


def _parameters(book: Any, path: Path) -> tuple[int, list[str]]:
    """Where the parameters cell is, and the names it assigns."""
    for place, cell in enumerate(book.cells):
        if cell.cell_type == "code" and TAG in cell.metadata.get("tags", []):
            names = [
                target.id
                for statement in ast.parse(cell.source).body
                if isinstance(statement, ast.Assign)
                for target in statement.targets
                if isinstance(target, ast.Name)
            ]
            return place, names
    raise UsageError(f"{path} takes no parameters", hint=f"Give the cell that assigns the defaults the tag {TAG!r}.")
