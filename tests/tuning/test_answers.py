"""From a tuning to answers: the finalists answer the questions that they were tested on, as an experiment like any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.experiments.test_grounded import words
from tests.instant import InstantEngine
from tests.retrieval.words_embedder import WordsEmbedder
from tests.tuning.test_tune import CORPUS, SPACE, questions
from workbench import api
from workbench.cli.main import app
from workbench.errors import NotFoundError, UsageError
from workbench.experiments.run import Run
from workbench.experiments.scorers import grounded
from workbench.models.engine import Generation
from workbench.pipeline import retrieval
from workbench.pipeline.pipeline import Pipeline
from workbench.pipeline.prompt import Prompt
from workbench.retrieval.corpus import Corpus, python_reference
from workbench.retrieval.embedding import register_embedder
from workbench.retrieval.index import list_indexes
from workbench.retrieval.questions import load_questions
from workbench.retrieval.types import Document, Question
from workbench.tuning.answers import answer_experiment
from workbench.tuning.record import ANSWER_PROMPT
from workbench.tuning.space import TuneSpace
from workbench.tuning.tune import tune

ROOT = Path(__file__).parents[2]


@pytest.fixture
def workspace(tmp_path: Path, instant: InstantEngine, monkeypatch: pytest.MonkeyPatch) -> api.Workspace:
    (tmp_path / "workbench.toml").write_text('format_version = 1\nmodel = "instant"\n')
    register_embedder("words", lambda name: WordsEmbedder())
    monkeypatch.setattr(grounded, "overlap_support", words)
    monkeypatch.setenv("WORKBENCH_WORKSPACE", str(tmp_path))
    return api.open(tmp_path)


def tuned(workspace: api.Workspace, test: list[Question], corpus: Corpus = CORPUS) -> Run:
    return tune(workspace.layout, corpus, questions(0, 20), test, SPACE, name="animals", show_progress=False).run


def test_the_finalists_answer_the_questions_they_were_tested_on(
    workspace: api.Workspace, instant: InstantEngine
) -> None:
    test = [*questions(20, 50), Question("q900", "what is the price of place900")]
    run = tuned(workspace, test)
    answers = workspace.answers(run, show_progress=False)
    assert answers.complete
    assert answers.manifest.experiment == "animals-answers"
    assert list(answers.manifest.variants) == list(run.manifest.variants)
    assert answers.manifest.pipeline_digests == run.manifest.pipeline_digests
    assert set(answers.calls()["row_id"]) == {question.id for question in test}
    by_scorer = {
        scorer: dict(part.select("row_id", "value").iter_rows())
        for (scorer,), part in answers.scores().partition_by("scorer", as_dict=True).items()
    }
    # The engine says the question's last word, which is the answer.
    assert by_scorer["token_f1"]["q030"] == by_scorer["exact_match"]["q030"] == 1.0
    assert by_scorer["evidence_recall"]["q030"] == 1.0
    # To the question without an answer it should have said nothing; that is for one scorer to say.
    assert by_scorer["abstention"]["q900"] == 0.0
    assert all(by_scorer[name]["q900"] is None for name in ("token_f1", "exact_match", "evidence_recall"))
    # The run is one like any other, and is found again.
    assert answers.compare().primary == "token_f1"
    assert workspace.gate(answers, variant=list(answers.manifest.variants)[1]) is not None
    asked = instant.asked
    assert workspace.answers(run, show_progress=False).id == answers.id
    assert instant.asked == asked


def test_a_limit_asks_some_of_them_and_the_command_does_the_same(workspace: api.Workspace) -> None:
    run = tuned(workspace, questions(20, 60))
    found = CliRunner().invoke(app, ["index", "answer", run.id, "--limit", "7", "--json"])
    assert found.exit_code == 0, found.output
    said = json.loads(found.output)
    answers = workspace.run(said["run_id"])
    assert (answers.manifest.rows, said["failed"]) == (7, 0)
    assert said["comparison"]["primary"] == "token_f1"
    assert answer_experiment(workspace.layout, run, limit=7).digest == answers.manifest.experiment_digest
    shown = CliRunner().invoke(app, ["index", "answer", run.id, "--limit", "7"])
    assert f"run {answers.id}" in shown.output
    # Answers cannot be asked of a run of answers.
    refused = CliRunner().invoke(app, ["index", "answer", answers.id])
    assert isinstance(refused.exception, UsageError)
    assert "is of no tuning" in str(refused.exception)
    with pytest.raises(UsageError, match="at least one"):
        answer_experiment(workspace.layout, run, limit=0)


def test_questions_with_judged_documents_only_are_scored_by_what_they_have(workspace: api.Workspace) -> None:
    dev = [Question(f"d{n}", f"place{n}", documents={CORPUS.documents[n].id: 1}) for n in range(20)]
    test = [Question(f"t{n}", f"place{n}", documents={CORPUS.documents[n].id: 1}) for n in range(20, 40)]
    run = tune(workspace.layout, CORPUS, dev, test, SPACE, show_progress=False).run
    experiment = answer_experiment(workspace.layout, run)
    names = [scorer.name for scorer in experiment.scorers]
    assert names == ["groundedness", "citations", "abstention", "latency", "tokens"]
    scores = experiment.run(show_progress=False).scores()
    assert set(scores.filter(scorer="abstention")["value"]) == {1.0}


def test_evidence_in_a_document_that_the_corpus_lacks_is_not_looked_for(workspace: api.Workspace) -> None:
    run = tuned(workspace, questions(20, 30))
    smaller = Corpus("fewer", (*CORPUS.documents[:25], Document("else", "Something else.")))
    part = tune(
        workspace.layout, smaller, questions(0, 20), questions(20, 30), SPACE, name="fewer", show_progress=False
    ).run
    targets = [row.target for row in answer_experiment(workspace.layout, part).rows]
    assert sorted(len(target["evidence"]) for target in targets) == [0] * 5 + [1] * 5
    quotes = [row.target["evidence"][0]["quote"] for row in answer_experiment(workspace.layout, run).rows]
    assert quotes == [f"It sleeps in place{number}" for number in range(20, 30)]


def test_an_index_that_is_gone_is_named(workspace: api.Workspace) -> None:
    run = tuned(workspace, questions(20, 30))
    for index in list_indexes(workspace.layout):
        for path in sorted(index.folder.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        index.folder.rmdir()
    retrieval._open.clear()
    with pytest.raises(NotFoundError, match=r"no index .*Tune again"):
        answer_experiment(workspace.layout, run)


def test_the_prompt_that_comes_with_a_workspace_is_the_one_that_tuning_uses() -> None:
    shipped = Prompt.from_file(ROOT / "prompts" / "reference-answers.md")
    assert shipped.digest == Prompt.from_text(ANSWER_PROMPT).digest


@pytest.mark.slow
@pytest.mark.model
def test_the_starter_model_answers_from_what_a_tuning_found(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    (tmp_path / "workbench.toml").write_text("format_version = 1\n")
    workspace = api.open(tmp_path)
    topics = ("assert", "break", "continue", "del", "global", "pass", "raise", "return")
    corpus = Corpus("topics", tuple(python_reference().get(topic) for topic in topics))
    found = load_questions(api.open(ROOT).dataset("python-reference-qa"), corpus)
    workspace = api.open(tmp_path)
    asked = [question for question in found if question.answerable]
    space = TuneSpace(modes=("sparse", "dense"), ks=(1,))
    short = Pipeline(
        model=workspace.model, prompt=Prompt.from_text(ANSWER_PROMPT), generation=Generation(max_new_tokens=12)
    )
    run = tune(workspace.layout, corpus, asked[:6], asked[6:14], space, pipeline=short, show_progress=False).run
    answers = workspace.answers(run, limit=2, show_progress=False)
    assert answers.failed == 0
    assert len(answers.calls()) == 2 * len(run.manifest.variants)
    assert any(answers.scores().filter(scorer="token_f1")["value"])
