"""`workbench index tune` and `answer`, from a file in SQuAD's form to compared answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.experiments.test_grounded import words
from tests.instant import InstantEngine
from tests.retrieval.words_embedder import WordsEmbedder
from workbench.cli.main import app
from workbench.errors import DataError, NotFoundError, UsageError
from workbench.experiments.scorers import grounded
from workbench.retrieval.embedding import register_embedder


@pytest.fixture
def here(tmp_path: Path, instant: InstantEngine, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "workbench.toml").write_text('format_version = 1\nmodel = "instant"\n')
    (tmp_path / "space.yaml").write_text("embedders: [words]\nmodes: [sparse, dense]\nks: [2]\n")
    paragraphs = []
    for n in range(40):
        text = f"The otter number {n} eats well. It sleeps in place{n} at night."
        answer = {"text": f"place{n}", "answer_start": text.index("place")}
        asked = {"id": f"q{n}", "question": f"Where does number {n} sleep, place{n}", "answers": [answer]}
        paragraphs.append({"context": text, "qas": [asked]})
    (tmp_path / "otters.json").write_text(json.dumps({"data": [{"title": "Otters", "paragraphs": paragraphs}]}))
    register_embedder("words", lambda name: WordsEmbedder())
    monkeypatch.setattr(grounded, "overlap_support", words)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(*arguments: str) -> Any:
    found = CliRunner().invoke(app, ["index", *arguments, "--json"])
    if found.exception is not None:
        raise found.exception
    return json.loads(found.output)


def test_two_commands_lead_from_a_file_to_compared_answers(here: Path) -> None:
    tuned = said("tune", "--corpus", "otters.json", "--questions", "otters.json", "--space", "space.yaml")
    assert tuned["baseline"] == "auto-200 sparse k2"
    assert {trial["questions"] for trial in tuned["trials"]} == {tuned["trials"][0]["questions"]}
    answered = said("answer", tuned["run_id"])
    assert answered["failed"] == 0
    [baseline] = [row for row in answered["summary"] if row["variant"] == tuned["baseline"]]
    assert baseline["token_f1"] == baseline["exact_match"] == baseline["evidence_recall"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("tune", "--corpus", "otters.json"), UsageError, "no questions given"),
        (("tune", "--corpus", "texts", "--questions", "otters.json"), DataError, "no document 'Otters/000'"),
        (("tune", "--corpus", "otters.json", "--questions", "absent.csv"), DataError, "absent.csv"),
        (("answer", "20260101-000000-nothing"), NotFoundError, "no run"),
        (("answer", "latest"), NotFoundError, "no run"),
    ],
)
def test_what_cannot_be_is_said(here: Path, arguments: tuple[str, ...], error: type[Exception], message: str) -> None:
    (here / "texts").mkdir()
    (here / "texts" / "a.md").write_text("Something.")
    with pytest.raises(error, match=message):
        said(*arguments)
