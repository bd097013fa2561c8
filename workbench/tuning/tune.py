"""`tune`: from a corpus and questions to an index that won on evidence, or to the sentence that none did.

Configurations are chosen on the `dev` questions. The best few and the baseline then answer the `test` questions, which
took no part in the choice, through the same `Index.search` that a pipeline uses; the run of these is compared by the
statistics of every other run, corrected over the finalists.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.errors import UsageError
from workbench.experiments.compare import compare
from workbench.experiments.comparison import Comparison
from workbench.experiments.decision import Decision
from workbench.experiments.run import Run
from workbench.files import digest_json
from workbench.pipeline.pipeline import Pipeline
from workbench.progress import progress as progress_bar
from workbench.retrieval import dense
from workbench.retrieval.copies import with_copies
from workbench.retrieval.index import Index, describe
from workbench.retrieval.search_settings import SearchSettings
from workbench.retrieval.types import Question
from workbench.tuning.evaluate import MEASURES, Evaluator, Judged, mean
from workbench.tuning.record import record
from workbench.tuning.search import GRID, Strategy, search
from workbench.tuning.space import Configuration, TuneSpace, default_space
from workbench.workspace import Layout

if TYPE_CHECKING:
    from workbench.retrieval.corpus import Corpus

# Questions that each configuration's latency is measured with.
TIMED = 20
EF_SEARCH = (50, 100, 200, 400)


@dataclass(frozen=True)
class Trial:
    """One configuration as it did on the dev questions.

    Attributes:
        values: mean of each measure. questions: how many it was judged on.
        p50_ms, p95_ms: of a query, its embedding included; None where it was not measured.
        build_s: seconds to chunk, embed and publish, 0 where that was done before. megabytes: of the index on disk.
        pareto: no other configuration is both better and faster.
    """

    configuration: Configuration
    values: Mapping[str, float | None]
    questions: int
    p50_ms: float | None
    p95_ms: float | None
    build_s: float
    megabytes: float
    pareto: bool = False

    @property
    def label(self) -> str:
        return self.configuration.label


@dataclass(frozen=True)
class TuneResult:
    """What a tuning found.

    Attributes:
        trials: every configuration, best first. leader: the first of them.
        run: the finalists and the baseline on the test questions.
        decision: the leader against the baseline there; None where the leader is the baseline.
    """

    measure: str
    trials: tuple[Trial, ...]
    baseline: str
    leader: str
    run: Run
    comparison: Comparison | None
    decision: Decision | None

    def frame(self) -> pl.DataFrame:
        """One row a configuration."""
        return pl.DataFrame(
            [
                {
                    "configuration": trial.label,
                    **{name: trial.values.get(name) for name in MEASURES},
                    "p50_ms": trial.p50_ms,
                    "p95_ms": trial.p95_ms,
                    "build_s": trial.build_s,
                    "megabytes": trial.megabytes,
                    "questions": trial.questions,
                    "pareto": trial.pareto,
                }
                for trial in self.trials
            ],
            infer_schema_length=None,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "measure": self.measure,
            "baseline": self.baseline,
            "leader": self.leader,
            "won": self.won,
            "sentence": self.sentence,
            "run_id": self.run.id,
            "decision": self.decision.to_json() if self.decision else None,
            "trials": self.frame().to_dicts(),
        }

    def trial(self, label: str) -> Trial:
        return next(trial for trial in self.trials if trial.label == label)

    @property
    def won(self) -> bool:
        """Whether the leader is better than the baseline on questions that did not choose it."""
        return self.decision is not None and self.decision.outcome == "better"

    @property
    def sentence(self) -> str:
        """The outcome in words."""
        if self.decision is None:
            return (
                f"The baseline, {self.baseline}, is the best of {len(self.trials)} configurations on the dev questions."
            )
        if self.won:
            return str(self.decision)
        return f"{self.decision} The leader is not significantly better, so the baseline stays."

    def __str__(self) -> str:
        best = [trial for trial in self.trials if trial.pareto][:8]
        width = max(len(trial.label) for trial in best) if best else 0
        lines = [f"{'on the Pareto front':<{width}}  {self.measure:>9}  {'p50':>9}"]
        for trial in best:
            value, p50 = trial.values.get(self.measure), trial.p50_ms
            shown = "–" if value is None else f"{value:.3f}"
            lines.append(f"{trial.label:<{width}}  {shown:>9}  {'–' if p50 is None else f'{p50:.1f} ms':>9}")
        return "\n".join([*lines, "", self.sentence])

    def _repr_html_(self) -> str:
        from workbench.html import callout, frame_table

        tint = "ok" if self.won else "warn"
        return callout(self.sentence, tint) + frame_table(self.frame().head(12))  # type: ignore[arg-type]


def tune(
    layout: Layout,
    corpus: Corpus,
    dev: Sequence[Question],
    test: Sequence[Question],
    space: TuneSpace | None = None,
    *,
    name: str = "",
    baseline: Configuration | None = None,
    measure: str = "ndcg_at_k",
    strategy: Strategy = "auto",
    trials: int = GRID,
    finalists: int = 3,
    pipeline: Pipeline | None = None,
    seed: int = 0,
    show_progress: bool = True,
) -> TuneResult:
    """Search the space, and decide between its leader and the baseline.

    Args:
        dev: questions that configurations are chosen on. test: those the decision rests on; none may be in both.
        baseline: default: the first configuration of the space.
        measure: what is maximized, one of `MEASURES`.
        finalists: how many of the best are tried on the test questions.
        pipeline: what the variants of the run are made of; its retrieval is set to each finalist. Default: a prompt that
            answers from the passages and cites them, for the workspace's model.

    Raises:
        UsageError: no questions, a question in both parts, or an unknown measure.
    """
    if measure not in MEASURES:
        raise UsageError(f"there is no measure {measure!r}", hint=f"Known: {', '.join(MEASURES)}.")
    if shared := {question.id for question in dev} & {question.id for question in test}:
        raise UsageError(
            f"{len(shared)} questions are in dev and in test, such as {min(shared)}",
            hint="Choose on some questions and test on others.",
        )
    if not any(question.answerable for question in dev) or not any(question.answerable for question in test):
        raise UsageError("dev and test each need a question with evidence", hint="Check the split names.")
    dev, test = (with_copies(part, corpus.documents) for part in (dev, test))
    space = space or default_space()
    configurations = space.configurations()
    base = baseline or configurations[0]
    evaluator = Evaluator(layout, corpus, depth=max(200, space.candidates), show_progress=show_progress)
    order = [question for question in dev if question.answerable]
    random.Random(seed).shuffle(order)
    judged: dict[tuple[str, int], list[Judged]] = {}
    built: dict[str, float] = {}
    most = len(configurations) if strategy in ("grid", "halving") else min(len(configurations), trials)
    with progress_bar(most, "Tuning", show=show_progress) as bar:

        def judge(configuration: Configuration, count: int) -> float | None:
            started = time.perf_counter()
            evaluator.index(configuration.recipe)
            built.setdefault(configuration.recipe.digest, time.perf_counter() - started)
            key = (configuration.digest, count)
            if key not in judged:
                judged[key] = evaluator.judge(configuration, order[:count])
            bar.update(min(len(judged), most), configuration.label)
            return mean(judged[key], measure)

        found = search(space, judge, len(order), strategy=strategy, trials=trials, seed=seed)
        if base.label not in {configuration.label for configuration, _, _ in found}:
            found.append((base, judge(base, len(order)) or 0.0, len(order)))
    timed = [question.text for question in order[:TIMED]]
    rows = [
        _trial(evaluator, configuration, judged[configuration.digest, count], count, timed, built)
        for configuration, _, count in found
    ]
    marked = _with_front(rows, measure)
    leader = marked[0].configuration
    chosen = [trial.configuration for trial in marked[: max(1, finalists)] if trial.label != base.label]
    tuned = [tune_graph(evaluator, configuration) for configuration in [base, *chosen]]
    run = record(layout, evaluator, tuned, test, name or f"tune-{corpus.name}", pipeline, measure, show_progress)
    comparison = compare(run.scores(), run.calls(), run.manifest) if len(tuned) > 1 else None
    decision = None
    if comparison is not None and leader.label != base.label:
        decision = comparison.decision(leader.label)
    return TuneResult(measure, marked, base.label, leader.label, run, comparison, decision)


def halves(questions: Sequence[Question]) -> tuple[list[Question], list[Question]]:
    """Questions in two halves by a hash of their ids, for sets that name no splits: adding one moves no other."""
    dev: list[Question] = []
    test: list[Question] = []
    for question in questions:
        (dev if int(digest_json(["half", question.id])[7:15], 16) % 2 else test).append(question)
    return dev, test


def tune_graph(evaluator: Evaluator, configuration: Configuration) -> Configuration:
    """The configuration with the smallest graph search that finds 0.99 of what exact search does, where one is faster.

    Quality was judged by exact search; a graph may only take its place where it changes next to nothing. Where the index has
    no use for a graph, there is nothing to tune.
    """
    recipe = configuration.recipe
    index = evaluator.index(recipe)
    if recipe.ann != "auto" or configuration.search.mode == "sparse" or index.manifest.chunks < dense.EXACT_BELOW:
        return configuration
    for ef_search in EF_SEARCH:
        hnsw = recipe.hnsw.model_copy(update={"ef_search": ef_search})
        tried = recipe.model_copy(update={"hnsw": hnsw})
        choice = dense.choose(index.vectors, tried, dense.graph_folder(index.folder, hnsw))
        if choice.chosen == "hnsw":
            return configuration.model_copy(update={"recipe": tried})
        if choice.hnsw_ms is None:
            break
    return configuration


def _trial(
    evaluator: Evaluator,
    configuration: Configuration,
    judged: Sequence[Judged],
    count: int,
    timed: Sequence[str],
    built: Mapping[str, float],
) -> Trial:
    index = evaluator.index(configuration.recipe)
    served = evaluator.served(configuration.recipe)
    seconds = pl.Series(_latency(served, timed, configuration.search), dtype=pl.Float64) * 1000
    return Trial(
        configuration,
        {name: mean(judged, name) for name in MEASURES},
        count,
        seconds.median() if len(seconds) else None,  # type: ignore[arg-type]
        seconds.quantile(0.95) if len(seconds) else None,
        built.get(configuration.recipe.digest, 0.0),
        float(describe(index)["megabytes"]),
    )


def _latency(index: Index, queries: Sequence[str], settings: SearchSettings) -> list[float]:
    """Seconds of each query, asked one by one after one to warm up."""
    if queries:
        index.search(queries[0], settings=settings)
    seconds = []
    for query in queries:
        started = time.perf_counter()
        index.search(query, settings=settings)
        seconds.append(time.perf_counter() - started)
    return seconds


def _with_front(trials: Sequence[Trial], measure: str) -> tuple[Trial, ...]:
    """The trials, those on the Pareto front of the measure and the median latency marked.

    Means over fewer questions than the leader's are no match for it: such trials are not on the front.
    """
    asked = max(trial.questions for trial in trials)
    whole = [trial for trial in trials if trial.questions == asked]

    def beaten(trial: Trial) -> bool:
        mine, time_ = trial.values.get(measure) or 0.0, trial.p50_ms or 0.0
        return any(
            (other.values.get(measure) or 0.0) >= mine
            and (other.p50_ms or 0.0) <= time_
            and ((other.values.get(measure) or 0.0) > mine or (other.p50_ms or 0.0) < time_)
            for other in whole
        )

    return tuple(dataclasses.replace(trial, pareto=trial.questions == asked and not beaten(trial)) for trial in trials)
