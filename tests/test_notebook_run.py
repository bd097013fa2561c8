"""A Jupyter notebook with other parameters than its own."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from workbench.errors import UsageError, WorkbenchError
from workbench.notebook_run import parse_arguments, run_jupyter


def book(folder: Path, *sources: str, tagged: bool = True) -> Path:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    if tagged:
        cells[0].metadata["tags"] = ["parameters"]
    path = folder / "one.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


@pytest.mark.slow
def test_arguments_come_after_the_defaults(tmp_path: Path) -> None:
    path = book(tmp_path, "limit = 12\nname = 'mine'", "print(name, limit * 2)")
    written = nbformat.read(run_jupyter(path, ["--limit", "5"]), as_version=4)
    assert written.cells[2].outputs[0].text == "mine 10\n"
    assert len(nbformat.read(path, as_version=4).cells) == 2


@pytest.mark.slow
def test_a_failing_cell_is_named_and_the_outputs_are_kept(tmp_path: Path) -> None:
    path = book(tmp_path, "limit = 0", "print('before')", "1 / limit")
    with pytest.raises(WorkbenchError, match="ZeroDivisionError"):
        run_jupyter(path, [])
    assert nbformat.read(tmp_path / "one.executed.ipynb", as_version=4).cells[1].outputs[0].text == "before\n"


def test_an_unknown_parameter_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no parameter rows.*--limit"):
        run_jupyter(book(tmp_path, "limit = 12"), ["--rows", "5"])
    with pytest.raises(UsageError, match="takes no parameters"):
        run_jupyter(book(tmp_path, "limit = 12", tagged=False), ["--limit", "5"])
    assert not (tmp_path / "one.executed.ipynb").exists()


def test_values_are_literals_or_text() -> None:
    words = ["--limit", "5", "--name=mine", "--few-shot", "[1, 2]", "--note", "a b"]
    assert parse_arguments(words) == {"limit": 5, "name": "mine", "few_shot": [1, 2], "note": "a b"}
    for wrong in (["limit", "5"], ["--limit"]):
        with pytest.raises(UsageError):
            parse_arguments(wrong)
