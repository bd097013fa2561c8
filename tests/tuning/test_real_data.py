"""The tuner from end to end on public questions: evidence given by its place, and SQuAD's paragraphs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.retrieval.real_data import real_data
from workbench import api
from workbench.retrieval.chunking import ChunkerSettings
from workbench.retrieval.corpus import Corpus, open_corpus, read_corpus
from workbench.retrieval.question_set import QuestionSet
from workbench.retrieval.questions import read_question_file
from workbench.tuning.answers import answer_experiment
from workbench.tuning.space import TuneSpace
from workbench.tuning.tune import TuneResult, halves, tune

pytestmark = [pytest.mark.slow, pytest.mark.model]


def tuned(folder: Path, corpus: Corpus, questions: QuestionSet, space: TuneSpace) -> TuneResult:
    """The answering model is not here: searching needs none."""
    pytest.importorskip("sentence_transformers")
    (folder / "workbench.toml").write_text('format_version = 1\nmodel = "nowhere"\n')
    dev, test = halves(questions.questions)
    result = tune(api.open(folder).layout, corpus, dev, test, space, show_progress=False)
    run = result.run
    assert [trial.questions for trial in result.trials] == [len(dev)] * len(space.configurations())
    assert run.complete
    assert run.failed == 0
    assert set(run.calls()["row_id"]) == {question.id for question in test}
    assert run.scores().filter(scorer="ndcg_at_k")["value"].null_count() == 0
    assert result.comparison is not None
    assert result.won == (result.decision is not None and result.decision.outcome == "better")
    return result


def test_evidence_by_place_decides_how_to_cut(tmp_path: Path) -> None:
    folder = real_data("chunking_eval")
    corpora = ("state_of_the_union", "wikitexts", "chatlogs")
    corpus = read_corpus(folder, include=[f"{name}.md" for name in corpora])
    questions = read_question_file(folder / "questions_df.csv", corpus)
    assert (len(corpus), len(questions)) == (3, 276)
    space = TuneSpace(
        chunkers=(ChunkerSettings(kind="fixed", size=200), ChunkerSettings(kind="recursive", size=200)),
        modes=("dense", "sparse", "hybrid"),
    )
    result = tuned(tmp_path, corpus, questions, space)
    assert result.trial(result.leader).values["recall_at_k"] > 0.6  # type: ignore[operator]
    rows = answer_experiment(api.open(tmp_path).layout, result.run).rows
    texts = {document.id: document.text for document in corpus}
    for row in rows:
        assert row.target["evidence"]
        assert all(quote["quote"] in texts[quote["document"]] for quote in row.target["evidence"])


def test_squads_paragraphs_are_searched_by_their_questions(tmp_path: Path) -> None:
    path = real_data("xquad_en", "xquad.en.json")
    corpus = open_corpus(path)
    questions = read_question_file(path, corpus)
    assert (len(corpus), len(questions)) == (240, 1190)
    space = TuneSpace(chunkers=(ChunkerSettings(size=384),), modes=("dense", "sparse", "hybrid"))
    result = tuned(tmp_path, corpus, questions, space)
    assert result.trial(result.leader).values["hit_at_k"] > 0.9  # type: ignore[operator]
    asked = {qa["id"]: qa for a in json.loads(path.read_text())["data"] for p in a["paragraphs"] for qa in p["qas"]}
    for row in answer_experiment(api.open(tmp_path).layout, result.run).rows:
        assert row.target["answer"] == asked[row.id]["answers"][0]["text"]
