"""`workbench data` as a person types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from workbench.cli.data import app
from workbench.data.store import open_dataset, snapshot
from workbench.errors import DataError, UsageError
from workbench.workspace import Layout


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "workbench.toml").write_text("format_version = 1\n")
    (tmp_path / "my.csv").write_text("text,label\n" + "".join(f"message {i},{'ab'[i % 2]}\n" for i in range(10)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def said(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None:
        raise result.exception
    return result.stdout


def said_json(*arguments: str) -> Any:
    return json.loads(said(*arguments, "--json"))


IMPORT = ("import", "my.csv", "--name", "mine", "--input", "text", "--target", "label")


def test_from_a_file_to_its_splits(home: Path) -> None:
    assert "mine: 10 rows" in said(*IMPORT)
    (listed,) = said_json("ls")
    assert (listed["name"], listed["rows"], listed["version"]) == ("mine", 10, None)
    assert "mine" in said("ls")
    splits = said_json("split", "mine")
    assert splits["rows"] == 10
    assert sum(splits["splits"].values()) == 10
    assert "train" in said("split", "mine")


def test_show_says_which_column_plays_which_part(home: Path) -> None:
    said(*IMPORT)
    layout = Layout.find(home)
    snapshot(layout, open_dataset(layout, "mine"))
    shown = said_json("show", "mine")
    parts = [(column["name"], column["part"]) for column in shown["columns"]]
    assert parts == [("id", "id"), ("text", "input"), ("label", "target")]
    assert [version["version"] for version in shown["versions"]] == [1]
    assert len(shown["head"]) == 5
    assert "message 0" in said("show", "mine")
    assert said_json("show", "mine@1")["digest"] == shown["digest"]


def test_diff_of_versions_and_of_files(home: Path) -> None:
    said(*IMPORT)
    (home / "new.csv").write_text((home / "my.csv").read_text() + "one more,a\n")
    said("import", "new.csv", "--name", "mine", "--input", "text", "--target", "label", "--replace")
    assert said_json("diff", "mine@1", "mine")["counts"] == {"added": 1, "removed": 0, "changed": 0, "unchanged": 10}
    assert "1 added" in said("diff", "my.csv", "new.csv")


def test_markup_in_data_is_shown_as_it_is(home: Path) -> None:
    (home / "my.csv").write_text("text,label\n[red]alert[/red] [/],a\n")
    said(*IMPORT)
    assert "[red]alert[/red] [/]" in said("show", "mine")


def test_errors_rise_with_what_to_do(home: Path) -> None:
    said(*IMPORT)
    with pytest.raises(UsageError, match="--replace"):
        said(*IMPORT)
    (home / "my.csv").write_text("text,label\nfine,a\nbad\n")
    with pytest.raises(DataError, match=r"my\.csv:3: 1 cells where the header has 2"):
        said(*IMPORT, "--replace")
