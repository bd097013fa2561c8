"""What a notebook's file says of itself: its settings and its cells. Nothing of it is run or imported."""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass, field
from typing import Any

from workbench.errors import DataError
from workbench.files import digest_bytes

# What Jupyter's front ends write into a notebook while people use it.
_TRANSIENT = ("ExecuteTime", "collapsed", "execution", "outputId", "papermill", "scrolled", "trusted")
_DECORATORS = ("cell", "function", "class_definition")


@dataclass(frozen=True)
class NotebookShape:
    """Settings and cells of a notebook.

    Attributes:
        app: of marimo, the arguments of `marimo.App`; of Jupyter, the name of the kernel.
        cells: in order, each with `name`, `config` and `digest` (marimo) or `type`, `id`, `tags` and `digest` (Jupyter).
    """

    app: dict[str, Any] = field(default_factory=dict)
    cells: list[dict[str, Any]] = field(default_factory=list)


def marimo_shape(source: str) -> NotebookShape | None:
    """Settings and cells of a marimo file; None for Python that is none. A digest covers a cell's code as it is written."""
    try:
        module = ast.parse(source)
    except (SyntaxError, ValueError):
        return None
    made = next((found for statement in module.body if (found := _app(statement)) is not None), None)
    if made is None:
        return None
    name, call = made
    lines = source.splitlines(keepends=True)
    cells = []
    for statement in module.body:
        about = _cell(statement, name)
        if about is not None:
            code = "".join(lines[statement.lineno - 1 : statement.end_lineno])
            cells.append({**about, "digest": digest_bytes(code.encode())})
    return NotebookShape(_keywords(call), cells)


def _app(statement: ast.stmt) -> tuple[str, ast.Call] | None:
    """Name and making of the app in `app = marimo.App(…)`."""
    if not (isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call)):
        return None
    [target, *_], made = statement.targets, statement.value.func
    is_app = isinstance(made, ast.Attribute) and made.attr == "App" and isinstance(made.value, ast.Name)
    return (target.id, statement.value) if is_app and isinstance(target, ast.Name) else None


def _cell(statement: ast.stmt, app: str) -> dict[str, Any] | None:
    if isinstance(statement, ast.With):
        setup = statement.items[0].context_expr
        call = setup if isinstance(setup, ast.Call) else None
        return (
            {"name": "setup", "config": _keywords(call)}
            if _of_app(call.func if call else setup, app, "setup")
            else None
        )
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        for decorator in statement.decorator_list:
            call = decorator if isinstance(decorator, ast.Call) else None
            if _of_app(call.func if call else decorator, app, *_DECORATORS):
                return {"name": statement.name, "config": _keywords(call)}
    return None


def _of_app(node: ast.expr, app: str, *names: str) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and node.attr in names
        and isinstance(node.value, ast.Name)
        and node.value.id == app
    )


def _keywords(call: ast.Call | None) -> dict[str, Any]:
    """Keyword arguments of a call; what is no literal, or no JSON, as it is written."""
    found = {}
    for keyword in call.keywords if call else ():
        try:
            value = ast.literal_eval(keyword.value)
            json.dumps(value, allow_nan=False)
        except (ValueError, TypeError):
            value = ast.unparse(keyword.value)
        found[keyword.arg or "**"] = value
    return found


def stripped_jupyter(data: bytes) -> tuple[bytes, NotebookShape]:
    """A Jupyter notebook without what running it wrote (outputs, counts, the state of widgets), and its shape.

    Equal notebooks give equal bytes.

    Raises:
        DataError: it is no Jupyter notebook.
    """
    try:
        book = json.loads(data)
        metadata, cells = dict(book.get("metadata", {})), [dict(cell) for cell in book["cells"]]
        kernel = dict(metadata.get("kernelspec", {}))
        shape = [_strip(cell) for cell in cells]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError("it is no Jupyter notebook", hint="Save it again as .ipynb.") from None
    kept = {name: metadata[name] for name in ("kernelspec",) if name in metadata}
    language = metadata.get("language_info")
    if isinstance(language, dict) and "name" in language:
        kept["language_info"] = {"name": language["name"]}
    text = json.dumps({**book, "cells": cells, "metadata": kept}, indent=1, sort_keys=True, ensure_ascii=False)
    return f"{text}\n".encode(), NotebookShape({"kernelspec": kernel["name"]} if "name" in kernel else {}, shape)


def _strip(cell: dict[str, Any]) -> dict[str, Any]:
    """Take from a cell what running it wrote; returns what the cell is."""
    if cell["cell_type"] == "code":
        cell |= {"outputs": [], "execution_count": None}
    metadata = {name: value for name, value in cell.get("metadata", {}).items() if name not in _TRANSIENT}
    cell["metadata"] = metadata
    about = {"type": cell["cell_type"], "id": cell.get("id"), "tags": list(metadata.get("tags", []))}
    return {**about, "digest": digest_bytes(cell_text(cell).encode())}


def cell_text(cell: dict[str, Any]) -> str:
    """The source of a Jupyter cell."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)
