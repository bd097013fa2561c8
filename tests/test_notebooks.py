"""A notebook that is broken must fail its check. The project's own are checked by `make test`."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from workbench.errors import NotFoundError, UsageError
from workbench.notebook_check import check_arguments, check_notebook, find_notebooks

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


METADATA = """# /// script
# [tool.marimo.display]
# theme = "system"
#
# [tool.workbench]
# check = {check}
# ///
"""


def test_a_long_notebook_says_with_which_arguments_it_is_checked(tmp_path: Path) -> None:
    notebook = tmp_path / "one.py"
    notebook.write_text(METADATA.format(check='["--limit", "8"]') + MARIMO.format(body="pass"))
    assert check_arguments(notebook) == ["--limit", "8"]
    notebook.write_text(MARIMO.format(body="pass"))
    assert check_arguments(notebook) == []


@pytest.mark.parametrize(("check", "fault"), [("--limit 8", "no TOML"), ('"--limit 8"', "no list"), ("[8]", "no list")])
def test_arguments_that_are_no_list_of_text_are_refused(tmp_path: Path, check: str, fault: str) -> None:
    notebook = tmp_path / "one.py"
    notebook.write_text(METADATA.format(check=check) + MARIMO.format(body="pass"))
    with pytest.raises(UsageError, match=fault):
        check_arguments(notebook)


@pytest.mark.slow
def test_the_check_runs_a_notebook_with_its_arguments(tmp_path: Path) -> None:
    notebook = tmp_path / "one.py"
    body = 'import sys; assert sys.argv[1:] == ["--limit", "8"]'
    notebook.write_text(METADATA.format(check='["--limit", "8"]') + MARIMO.format(body=body))
    ran = {result.check: result.passed for result in check_notebook(notebook)}
    assert ran["runs to its end"]


def test_no_notebook_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no notebook"):
        find_notebooks([tmp_path])
