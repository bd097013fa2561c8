"""A notebook that is broken must fail its check. The project's own are checked by `make test`."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from workbench.errors import NotFoundError
from workbench.notebook_check import check_notebook, find_notebooks

MARIMO = """
import marimo

app = marimo.App()


@app.cell
def _():
    {body}
    return


if __name__ == "__main__":
    app.run()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("body", "passes"), [("print(1 + 1)", True), ("print(1 / 0)", False)])
def test_a_marimo_notebook_must_run_to_its_end(tmp_path: Path, body: str, passes: bool) -> None:
    notebook = tmp_path / "one.py"
    notebook.write_text(MARIMO.format(body=body))
    ran = {result.check: result.passed for result in check_notebook(notebook)}
    assert ran["runs to its end"] is passes


@pytest.mark.slow
@pytest.mark.parametrize(("stored", "passes"), [("2\n", True), ("3\n", False)])
def test_a_jupyter_notebook_must_print_what_it_holds(tmp_path: Path, stored: str, passes: bool) -> None:
    output = nbformat.v4.new_output("stream", name="stdout", text=stored)
    cell = nbformat.v4.new_code_cell(
        "print(1 + 1)", execution_count=1, outputs=[output], metadata={"tags": ["nbval-check-output"]}
    )
    book = nbformat.v4.new_notebook(cells=[cell])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, tmp_path / "one.ipynb")
    [result] = check_notebook(tmp_path / "one.ipynb")
    assert result.passed is passes
    assert bool(result.output) is not passes


def test_no_notebook_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no notebook"):
        find_notebooks([tmp_path])
