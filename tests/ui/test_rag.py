"""What the tuning notebook shows: chunks with the evidence on them, configurations to click, and each question by mode."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.retrieval.words_embedder import WordsEmbedder
from tests.tuning.test_tune import CORPUS, SPACE, questions
from workbench import api
from workbench.errors import NotFoundError
from workbench.retrieval.chunking import ChunkerSettings, chunk_document
from workbench.retrieval.embedding import register_embedder
from workbench.retrieval.index import Index
from workbench.retrieval.metrics import hit_at_k
from workbench.retrieval.types import Chunk, Document, Question, Span
from workbench.tuning.tune import TuneResult, tune
from workbench.ui import charts, rag, rag_found
from workbench.ui.rag_modes import DEPTH, MODES, Drill, find, picked_question

DOCUMENT = Document("keys", "One <b>key</b> is here. Another key is there. A third key is gone.")
NOWHERE = Question("z1", "zyzzyva quokka", None)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> api.Workspace:
    folder = tmp_path_factory.mktemp("rag")
    (folder / "workbench.toml").write_text('format_version = 1\nmodel = "nowhere"\n')
    register_embedder("words", lambda name: WordsEmbedder())
    return api.open(folder)


@pytest.fixture(scope="module")
def result(workspace: api.Workspace) -> TuneResult:
    return tune(workspace.layout, CORPUS, questions(0, 12), questions(12, 24), SPACE, show_progress=False)


@pytest.fixture(scope="module")
def drill(workspace: api.Workspace, result: TuneResult) -> Drill:
    return Drill(workspace, CORPUS, result, [*questions(0, 12), NOWHERE])


def test_chunks_stand_on_the_text_with_the_evidence_that_they_cut() -> None:
    chunks = [Chunk("keys", 0, 0, 30, DOCUMENT.text[:30]), Chunk("keys", 1, 30, 66, DOCUMENT.text[30:66])]
    whole, cut = Span("keys", 4, 14), Span("keys", 24, 40)
    shown = rag.chunk_view(DOCUMENT, chunks, [whole, cut, Span("other", 0, 5)]).text
    assert "<b>2 chunks</b> of keys, 30 to 36 characters" in shown
    assert "1 of 2 cut in two" in shown
    assert "&lt;b&gt;key" in shown
    assert "<b>key" not in shown
    assert "none of 1 is cut" in rag.chunk_view(DOCUMENT, chunks, [whole]).text
    assert "keys has no chunks" in rag.chunk_view(DOCUMENT, []).text


def test_a_long_document_says_how_much_is_not_shown() -> None:
    document = Document("long", "word " * 50)
    chunks = chunk_document(document, ChunkerSettings(kind="fixed", size=10))
    assert "and 150 more characters" in rag.chunk_view(document, chunks, limit=100).text


spans = st.tuples(st.sampled_from("ab"), st.integers(0, 40), st.integers(1, 20)).map(
    lambda drawn: Span(drawn[0], drawn[1], drawn[1] + drawn[2])
)


@given(st.lists(spans, max_size=8), spans, st.integers(1, 8))
def test_a_mode_finds_evidence_where_the_measures_say_so(places: list[Span], span: Span, k: int) -> None:
    ranking = [Chunk(place.document, 0, place.start, place.end, "") for place in places]
    found = find(ranking, span)
    assert found.within(k) == (hit_at_k(ranking, Question("q", "", "a", (span,)), k) == 1.0)
    if found.cut is not None:
        rank, share = found.cut
        assert found.rank is None
        assert 0 < share < 0.5
        assert ranking[rank - 1].document == span.document


def test_each_mode_is_shown_as_a_search_of_that_mode_ranks_it(
    workspace: api.Workspace, result: TuneResult, drill: Drill
) -> None:
    for label in (result.baseline, result.leader):
        view = drill.at(label)
        configuration = result.trial(label).configuration
        [digest] = {
            index.digest for index in [Index.build(workspace.layout, CORPUS, configuration.recipe, show_progress=False)]
        }
        index = Index.open(workspace.layout, digest)
        for mode in MODES:
            hits = index.search("sleeps in place3", settings=configuration.search.with_(mode=mode, k=DEPTH))
            shown = view.found[mode]["q003"].chunks
            assert [chunk.id for chunk in shown] == [hit.chunk.id for hit in hits]


def test_questions_are_ordered_by_what_the_configuration_misses(result: TuneResult, drill: Drill) -> None:
    view = drill.at(result.leader)
    values = view.frame[result.measure].to_list()
    assert values[-1] is None
    assert values[:-1] == sorted(values[:-1])
    assert view.frame["id"].to_list()[-1] == NOWHERE.id
    assert view.frame["over baseline"].drop_nulls().len() == 12
    assert "Of 12 dev questions with evidence" in view.sentence
    assert list(view.names().values()) == view.frame["id"].to_list()
    mean = result.trial(result.leader).values[result.measure]
    assert view.frame[result.measure].mean() == pytest.approx(mean, abs=1e-3)


def test_a_question_shows_its_evidence_and_who_missed_it(result: TuneResult, drill: Drill) -> None:
    view = drill.at(result.leader)
    shown = str(rag_found.question_view(view, "q003"))
    assert "sleeps in place3" in shown
    assert "expected: place3" in shown
    assert "✓ rank 1" in shown
    assert all(mode in shown for mode in MODES)
    assert str(rag_found.mode_plot(view).to_json()).count("passages") > 0


def test_nothing_to_find_and_nothing_found_are_said(result: TuneResult, drill: Drill) -> None:
    view = drill.at(result.leader)
    shown = str(rag_found.question_view(view, NOWHERE.id))
    assert "The corpus does not answer this question" in shown
    assert "no word of the question is in the corpus" in shown
    assert "Tick a question" in str(rag_found.question_view(view, ""))
    assert "There is no dev question 'q999'" in str(rag_found.question_view(view, "q999"))


def test_questions_without_evidence_have_no_picture(workspace: api.Workspace, result: TuneResult) -> None:
    view = Drill(workspace, CORPUS, result, [NOWHERE]).at(result.leader)
    assert isinstance(rag_found.mode_plot(view), charts.Nothing)
    assert "None of the dev questions has evidence" in view.sentence


def test_a_configuration_that_was_not_tried_is_an_error(drill: Drill) -> None:
    with pytest.raises(NotFoundError, match="was not tried"):
        drill.at("auto-7 dense k5")


def test_the_question_that_was_looked_at_is_remembered(result: TuneResult, drill: Drill) -> None:
    view = drill.at(result.baseline)
    row = view.place_of("q007")
    drill.remember(view.frame[row : row + 1])
    assert drill.question == "q007"
    drill.remember(view.frame[:0])
    assert drill.question == "q007"
    assert drill.at(result.leader).place_of(drill.question) == drill.at(result.leader).frame["id"].to_list().index(
        "q007"
    )
    assert view.place_of("q999") == 0
    assert picked_question(None) == ""


def test_a_click_picks_a_configuration_and_the_leader_is_picked_first(result: TuneResult) -> None:
    spec = rag.configurations_plot(result).to_dict()
    [parameter] = spec["params"]
    assert parameter["name"] == rag.PICKED
    assert parameter["value"] == [{"configuration": result.leader}]
    assert parameter["views"] == ["points", "bars"]
    assert rag.picked_label({}, result) == result.leader
    assert rag.picked_label({"picked": {"configuration": [result.baseline]}}, result) == result.baseline
    assert rag.picked_label({"picked": {}}, result) == result.leader
    assert rag.picked_label({"picked": {"configuration": ["another"]}}, result, result.baseline) == result.baseline


def test_the_decision_and_what_it_rests_on_are_shown(result: TuneResult) -> None:
    assert result.sentence in str(rag.decision(result))
    assert "find the same for every question" in str(rag.decisive_questions(result))
    # Seconds are a score as well, and hardly ever the same twice.
    timed = dataclasses.replace(result, measure="latency")
    assert re.search(r"1 of \d+ questions that differ, by latency", str(rag.decisive_questions(timed, limit=1)))
    alone = dataclasses.replace(result, leader=result.baseline)
    assert "The baseline leads" in str(rag.decisive_questions(alone))
