"""Tuning: the leader is chosen on some questions and must win on others, by the statistics of every run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from tests.retrieval.counting_embedder import CountingEmbedder
from tests.retrieval.test_index import corpus
from tests.retrieval.words_embedder import WordsEmbedder
from workbench import api
from workbench.errors import UsageError
from workbench.experiments.spec import ExperimentSpec, read_spec
from workbench.pipeline import retrieval
from workbench.registry import names
from workbench.registry.artifact import Artifact
from workbench.registry.build import CHUNKS, INDEX, build, evaluated_pipeline, part_files
from workbench.registry.oci import OciLayout
from workbench.retrieval.chunking import ChunkerSettings
from workbench.retrieval.copies import settled, with_copies
from workbench.retrieval.embedding import register_embedder
from workbench.retrieval.index import list_indexes
from workbench.retrieval.search_settings import SearchSettings
from workbench.retrieval.sparse import SparseSettings
from workbench.retrieval.types import Chunk, Document, Question, Span
from workbench.tuning.search import Strategy, halving, search
from workbench.tuning.space import Configuration, TuneSpace, default_space, read_space
from workbench.tuning.tune import halves, tune

SPACE = TuneSpace(
    chunkers=tuple(ChunkerSettings(kind="recursive", size=size) for size in (12, 40)),
    embedders=("words",),
    modes=("dense", "sparse", "hybrid"),
    dense_weights=(0.3, 0.7),
    ks=(3,),
)
CORPUS = corpus(160)


def questions(first: int, last: int) -> list[Question]:
    """Where does number n sleep; the evidence is its second sentence."""
    found = []
    for number in range(first, last):
        document = CORPUS.documents[number]
        quote = f"It sleeps in place{number}"
        start = document.text.index(quote)
        span = Span(document.id, start, start + len(quote))
        found.append(Question(f"q{number:03}", f"sleeps in place{number}", f"place{number}", (span,)))
    return found


@pytest.fixture
def workspace(tmp_path: Path) -> api.Workspace:
    (tmp_path / "workbench.toml").write_text('format_version = 1\nmodel = "nowhere"\n')
    register_embedder("words", lambda name: WordsEmbedder())
    return api.open(tmp_path)


def test_a_leader_that_wins_on_unseen_questions_is_called_better(workspace: api.Workspace) -> None:
    result = tune(
        workspace.layout, CORPUS, questions(0, 60), questions(60, 140), SPACE, name="animals", show_progress=False
    )
    assert len(result.trials) == len(SPACE.configurations()) == 8
    values = [trial.values["ndcg_at_k"] for trial in result.trials]
    assert values == sorted(values, reverse=True)  # type: ignore[type-var]
    assert any(trial.pareto for trial in result.trials)
    assert len(list_indexes(workspace.layout)) == 2
    assert result.run.manifest.rows == 80
    assert set(result.run.calls()["row_id"]) == {question.id for question in questions(60, 140)}
    assert result.comparison is not None
    assert result.comparison.baseline == result.baseline
    if result.leader == result.baseline:
        assert result.decision is None
    else:
        assert result.decision is not None
        assert result.won == (result.decision.outcome == "better")
    assert result.sentence in str(result)
    # The same run is there for every other command.
    assert workspace.run(result.run.id).compare().primary == "ndcg_at_k"


def test_configurations_that_are_alike_are_not_told_apart(workspace: api.Workspace) -> None:
    alike = TuneSpace(
        chunkers=(ChunkerSettings(kind="recursive", size=40),),
        embedders=("words",),
        modes=("hybrid",),
        dense_weights=(0.5, 0.51),
    )
    result = tune(workspace.layout, CORPUS, questions(0, 20), questions(20, 60), alike, show_progress=False)
    assert not result.won
    if result.decision is not None:
        assert result.decision.outcome == "inconclusive"
        assert "the baseline stays" in result.sentence


def test_embedders_are_compared_like_any_other_setting(workspace: api.Workspace) -> None:
    # The second sees hashes of whole texts: it finds nothing that the first does not.
    register_embedder("models/blind", lambda name: CountingEmbedder())
    space = TuneSpace(
        chunkers=(ChunkerSettings(kind="recursive", size=40),),
        embedders=("models/blind", "words"),
        modes=("dense", "sparse", "hybrid"),
        ks=(3,),
    )
    labels = [configuration.label for configuration in space.configurations()]
    assert labels == [
        "recursive-40 blind dense k3",
        "recursive-40 sparse k3",
        "recursive-40 blind hybrid-rrf60-0.5 k3",
        "recursive-40 words dense k3",
        "recursive-40 words hybrid-rrf60-0.5 k3",
    ]
    result = tune(workspace.layout, CORPUS, questions(0, 40), questions(40, 120), space, show_progress=False)
    quality = {trial.label: trial.values["ndcg_at_k"] or 0.0 for trial in result.trials}
    assert quality["recursive-40 words dense k3"] > quality["recursive-40 blind dense k3"] + 0.2
    assert result.baseline == "recursive-40 blind dense k3"
    assert result.won
    # Each variant searches an index of its own embedder.
    built = {index.digest: index.manifest.embedder for index in list_indexes(workspace.layout)}
    for label, variant in result.run.manifest.variants.items():
        embedder = built[variant["retrieval"]["index"]]
        assert embedder.rsplit("/", 1)[-1] in label or "sparse" in label


def test_unlike_configurations_have_unlike_names() -> None:
    space = TuneSpace(
        chunkers=(
            ChunkerSettings(size=90),
            ChunkerSettings(size=90, unit="characters"),
            ChunkerSettings(size=90, overlap=9),
            ChunkerSettings(kind="semantic", size=90),
            ChunkerSettings(kind="semantic", size=90, percentile=80, minimum=5),
        ),
        embedders=("words", "models/blind"),
        sparse=(SparseSettings(), SparseSettings(k1=1.2, stopwords=True), SparseSettings(language=None)),
        fusions=("rrf", "weighted"),
        mmr=(None, 0.5),
        ks=(3, 60),
        candidates=80,
    )
    configurations = space.configurations()
    assert len({configuration.label for configuration in configurations}) == len(configurations)
    assert len({configuration.digest for configuration in configurations}) == len(configurations)
    words_alone = [c for c in configurations if (c.search.mode, c.search.mmr, c.search.k) == ("sparse", None, 3)]
    # Three chunkers that ask no embedder, two that ask either; three ways to score words.
    assert len(words_alone) == (3 + 2 * 2) * 3
    assert "auto-90c sparse-k1=1.2-stopwords=True-of80 k3" in {c.label for c in configurations}
    with pytest.raises(ValidationError, match="two of them are called 'small'"):
        TuneSpace(embedders=("mine/small", "theirs/small/"))


@pytest.mark.parametrize("strategy", ["grid", "halving", "optuna"])
def test_every_strategy_ends_with_a_decision(workspace: api.Workspace, strategy: Strategy) -> None:
    result = tune(
        workspace.layout,
        CORPUS,
        questions(0, 80),
        questions(80, 140),
        SPACE,
        strategy=strategy,
        trials=6,
        show_progress=False,
    )
    assert result.run.complete
    assert result.trials[0].questions == 80
    assert result.trial(result.baseline)
    # Who fell out after a few questions is not on the front, however well these went.
    assert any(trial.pareto for trial in result.trials)
    assert all(trial.questions == 80 for trial in result.trials if trial.pareto)
    assert len(result.trials) == len(SPACE.configurations()) if strategy != "optuna" else len(result.trials) <= 7


def test_what_selection_saw_is_never_tested_on(workspace: api.Workspace) -> None:
    with pytest.raises(UsageError, match="in dev and in test"):
        tune(workspace.layout, CORPUS, questions(0, 10), questions(9, 20), SPACE, show_progress=False)
    with pytest.raises(UsageError, match="no measure"):
        tune(workspace.layout, CORPUS, questions(0, 5), questions(5, 9), SPACE, measure="bleu", show_progress=False)
    dev, test = halves(questions(0, 100))
    assert not {question.id for question in dev} & {question.id for question in test}
    assert 30 < len(dev) < 70
    assert halves(questions(0, 50))[0] == [question for question in dev if question.id < "q050"]


def test_an_artifact_carries_its_index(workspace: api.Workspace) -> None:
    result = tune(workspace.layout, CORPUS, questions(0, 30), questions(30, 60), SPACE, show_progress=False)
    variant = next(iter(result.run.manifest.variants))
    pipeline = evaluated_pipeline(result.run.manifest, variant)
    digest = build(
        OciLayout(workspace.layout.blobs),
        result.run,
        variant,
        baseline=None,
        comparison=None,
        decision=None,
        gate={},
        parts=part_files(workspace.layout, pipeline),
    )
    version = names.register(workspace.layout, "animals", digest, run_id=result.run.id, variant=variant, decision=None)
    artifact = Artifact.open(workspace.layout, f"animals@{version}")
    assert {INDEX, CHUNKS} <= set(artifact.layers)
    for index in list_indexes(workspace.layout):
        for path in sorted(index.folder.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        index.folder.rmdir()
    loaded = artifact.pipeline()
    assert loaded.retrieval is not None
    retrieval._open.clear()
    [passages] = loaded.retrieval.passages([{"question": "sleeps in place7"}], workspace.layout)
    assert any("place7" in passage.text for passage in passages)


def test_halving_ends_with_the_best_and_asks_less() -> None:
    configurations = default_space().configurations()
    quality = {configuration.digest: place / 100 for place, configuration in enumerate(configurations)}
    asked: list[int] = []

    def judge(configuration: Configuration, count: int) -> float:
        asked.append(count)
        return quality[configuration.digest]

    found = halving(configurations, judge, 240)
    assert found[0][0] == configurations[-1]
    assert found[0][2] == 240
    assert len(found) == len(configurations)
    assert sum(asked) < 240 * len(configurations) / 2


def test_optuna_finds_a_good_one_in_a_large_space() -> None:
    pytest.importorskip("optuna")
    space = TuneSpace(
        chunkers=tuple(ChunkerSettings(size=size) for size in range(50, 450, 50)),
        modes=("dense", "sparse", "hybrid"),
        fusions=("rrf", "weighted"),
        dense_weights=tuple(weight / 10 for weight in range(1, 10)),
        ks=(3, 5, 10),
    )
    configurations = space.configurations()
    assert len(configurations) > 300
    weights = {True: 1.0, False: 0.0}

    def judge(configuration: Configuration, count: int) -> float:
        search_ = configuration.search
        near = 1 - abs(search_.dense_weight - 0.6) - abs(configuration.recipe.chunker.size - 200) / 400
        return near + weights[search_.mode == "hybrid"]

    found = search(space, judge, 50, trials=60, seed=3)
    assert 50 < len(found) <= 60
    best = max(judge(configuration, 50) for configuration in configurations)
    assert found[0][1] >= best - 0.3


def test_a_space_is_read_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("chunkers: [{kind: fixed, size: 90}]\nmodes: [dense]\nks: [4, 8]\n")
    assert [configuration.label for configuration in read_space(path).configurations()] == [
        "fixed-90 minilm dense k4",
        "fixed-90 minilm dense k8",
    ]
    path.write_text("chunkers: [{kind: fixd}]\n")
    with pytest.raises(UsageError, match=r"chunkers\.0\.kind"):
        read_space(path)


def test_the_space_and_the_experiment_of_the_guide_are_some() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "retrieval.md").read_text("utf-8")
    space, experiment = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL))
    assert len(TuneSpace.model_validate(space).configurations()) == 20
    spec = ExperimentSpec.model_validate(experiment)
    shipped = read_spec(Path(__file__).parents[2] / "experiments" / "reference-answers.yaml")
    assert [variant.retrieval for variant in spec.variants.values()] == [
        variant.retrieval for variant in shipped.variants.values()
    ]


def test_evidence_that_stands_twice_may_be_found_in_either_place() -> None:
    one, two = (
        Document("one", "Before. The key is under the mat. After."),
        Document("two", "The key is\nunder the mat."),
    )
    span = Span("one", 8, 33)
    [question] = with_copies([Question("q", "where is the key", "mat", (span,))], [one, two])
    assert question.copies == {span: (Span("two", 0, 25),)}
    found = Chunk("two", 0, 0, 25, two.text)
    assert settled([found], question).evidence == (Span("two", 0, 25),)
    assert settled([Chunk("one", 0, 0, 40, one.text)], question).evidence == (span,)
    assert SearchSettings(k=2).with_(k=3).k == 3
