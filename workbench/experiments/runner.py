"""Runner: answers what a run still lacks, journals each answer with its scores, and compacts the run when it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.data.row import Row
from workbench.errors import OutOfMemoryError
from workbench.events.journal import JournalWriter
from workbench.experiments.origin import now, trace_id
from workbench.experiments.records import CALL_KEY, Call, Score
from workbench.experiments.run import Run, journal_entry, late_entry
from workbench.experiments.scorers.base import PairScorer, ScoreInput, Scorer, ScoreValue
from workbench.experiments.stopping import Watch
from workbench.files import canonical_json
from workbench.models.asking import asking
from workbench.models.engine import Completion, Engine
from workbench.pipeline.pipeline import Answer, Pipeline
from workbench.progress import Progress

if TYPE_CHECKING:
    from workbench.experiments.experiment import Experiment

# Rows are made durable at least this often: what a power cut can cost, against the price of an fsync.
FLUSH_SECONDS = 0.5
FLUSH_ROWS = 64

Job = tuple[str, Row, int]


def execute(
    experiment: Experiment,
    run: Run,
    engines: Mapping[str, Engine],
    *,
    progress: Progress,
    clock: Callable[[], str] = now,
    monotonic: Callable[[], float] = time.monotonic,
) -> None:
    """Answer every row that `run` does not hold yet, or holds only as an accident. The caller holds the run's lock.

    Interrupting at any point loses at most the answers that were still being generated.
    """
    run.forget_rows()
    answered = run.answered()
    rows = experiment.rows
    watch = experiment.watch(run.manifest.early_stopping)
    portion = len(rows)
    if watch is not None:
        place = {row_id: n for n, row_id in enumerate(watch.rule.order(row.id for row in rows))}
        rows = sorted(rows, key=lambda row: place[row.id])
        portion = watch.rule.every
        _fill(watch, run)
    stopped: int | None = None
    # Rows that an earlier attempt asked are used, whatever they say.
    asked_before = {row_id for _, row_id, _ in answered}
    known = max((number for number, row in enumerate(rows, 1) if row.id in asked_before), default=0)
    with JournalWriter(run.journal) as journal:
        recorder = _Recorder(experiment, run, journal, progress, watch, clock, monotonic, len(answered))
        progress.update(len(answered))
        for start in range(0, len(rows), portion):
            part = rows[start : start + portion]
            for variant, pipeline in experiment.variants.items():
                jobs = [
                    (variant, row, repeat)
                    for repeat in range(experiment.repeats)
                    for row in part
                    if (variant, row.id, repeat) not in answered
                ]
                if jobs:
                    recorder.ask(pipeline, engines[variant], jobs)
            asked = start + len(part)
            if watch is not None and known <= asked < len(rows) and watch.decided([row.id for row in rows[:asked]]):
                stopped = asked
                break
        if any(isinstance(scorer, PairScorer) for scorer in experiment.scorers):
            run.forget_rows()
            recorder.score_pairs()
    run.forget_rows()
    run.manifest = run.manifest.model_copy(update={"stopped_rows": stopped})
    if len(run.calls()) == run.expected:
        run.compact(clock())


def _fill(watch: Watch, run: Run) -> None:
    """Tell the watch what an interrupted run has scored already."""
    known = run.scores().filter(pl.col("scorer") == watch.scorer.name)
    for variant, row_id, repeat, value in known.select(*CALL_KEY, "value").iter_rows():
        watch.add(variant, row_id, repeat, value)


class _Recorder:
    """Asks, scores and journals; rows are written out in portions."""

    def __init__(
        self,
        experiment: Experiment,
        run: Run,
        journal: JournalWriter,
        progress: Progress,
        watch: Watch | None,
        clock: Callable[[], str],
        monotonic: Callable[[], float],
        done: int,
    ) -> None:
        self.experiment = experiment
        self.run = run
        self.journal = journal
        self.progress = progress
        self.watch = watch
        self.clock = clock
        self.monotonic = monotonic
        self.done = done
        self.scorers = [scorer for scorer in experiment.scorers if not isinstance(scorer, PairScorer)]
        self.named = [(scorer.name, scorer.digest) for scorer in self.scorers]

    def ask(self, pipeline: Pipeline, engine: Engine, jobs: Sequence[Job]) -> None:
        """Answer questions to one variant; those answered are recorded whatever ends this early."""
        pending: list[tuple[Job, Answer]] = []
        flushed = self.monotonic()
        try:
            for job, answer in _answers(pipeline, engine, jobs):
                pending.append((job, answer))
                self.done += 1
                self.progress.update(self.done, job[0])
                if len(pending) >= FLUSH_ROWS or self.monotonic() - flushed >= FLUSH_SECONDS:
                    ready, pending = pending, []
                    self.record(pipeline, ready)
                    flushed = self.monotonic()
        finally:
            self.record(pipeline, pending)

    def record(self, pipeline: Pipeline, answered: Sequence[tuple[Job, Answer]]) -> None:
        if not answered:
            return
        at = self.clock()
        digests = pipeline.digest, pipeline.prompt.digest
        values = score_answers(self.scorers, answered)
        entries = []
        for (job, answer), found in zip(answered, values, strict=True):
            call = _call(self.run, digests, job, answer, at)
            scores = [
                self._score(call.variant, call.row_id, call.repeat, name, digest, value)
                for (name, digest), value in zip(self.named, found, strict=True)
            ]
            entries.append(journal_entry(call, scores))
            if self.watch is not None:
                for score in scores:
                    if score.scorer == self.watch.scorer.name:
                        self.watch.add(*job_key(job), score.value)
        self.journal.append(entries)
        self.journal.flush()

    def score_pairs(self) -> None:
        """Score pairs of answers that have not been scored yet: every variant against the baseline, row by row."""
        calls = {call[:3]: call for call in self.run.calls().select(*CALL_KEY, *_PAIRED).iter_rows()}
        rows = {row.id: row for row in self.experiment.rows}
        baseline, *others = self.experiment.variants
        for scorer in self.experiment.scorers:
            if not isinstance(scorer, PairScorer):
                continue
            known = set(self.run.scores().filter(pl.col("scorer") == scorer.name).select(CALL_KEY).iter_rows())
            wanted = [
                (variant, row_id, repeat)
                for variant, row_id, repeat in calls
                if variant in others
                and (baseline, row_id, repeat) in calls
                and not {(variant, row_id, repeat), (baseline, row_id, repeat)} <= known
            ]
            for start in range(0, len(wanted), FLUSH_ROWS):
                part = wanted[start : start + FLUSH_ROWS]
                pairs = [
                    (
                        _stored_input(rows[row_id], calls[baseline, row_id, repeat]),
                        _stored_input(rows[row_id], calls[variant, row_id, repeat]),
                    )
                    for variant, row_id, repeat in part
                ]
                scores = []
                for (variant, row_id, repeat), value in zip(part, scorer.score_pairs(pairs), strict=True):
                    scores.append(self._score(variant, row_id, repeat, scorer.name, scorer.digest, value))
                    # Half a point is the baseline against itself, so that a difference is a win rate minus one half.
                    own = ScoreValue(0.5, label="baseline")
                    scores.append(self._score(baseline, row_id, repeat, scorer.name, scorer.digest, own))
                self.journal.append([late_entry(scores)])
                self.journal.flush()

    def _score(self, variant: str, row_id: str, repeat: int, scorer: str, digest: str, value: ScoreValue) -> Score:
        return Score(self.run.id, variant, row_id, repeat, scorer, digest, value.value, value.label, value.explanation)


def job_key(job: Job) -> tuple[str, str, int]:
    """Variant, row id and repeat: what identifies the call."""
    return job[0], job[1].id, job[2]


def _answers(pipeline: Pipeline, engine: Engine, jobs: Sequence[Job]) -> Iterator[tuple[Job, Answer]]:
    """Answers as they come. An engine that breaks down turns what is left into rows that say so."""
    left = dict(enumerate(jobs))
    rules = asking()
    try:
        keys = [f"{row.id}:{repeat}" for _, row, repeat in jobs]
        inputs = [row.inputs for _, row, _ in jobs]
        for index, answer in pipeline.answers(rules.through(engine), inputs, seed_keys=keys, budget=rules.budget):
            yield left.pop(index), answer
    except OutOfMemoryError as error:
        yield from ((job, _failed(pipeline, "out_of_memory", error)) for job in left.values())
    except Exception as error:
        # Whatever a model library raises must end as rows with a kind, so that nothing already answered is lost.
        yield from ((job, _failed(pipeline, "engine", error)) for job in left.values())


def _failed(pipeline: Pipeline, kind: str, error: Exception) -> Answer:
    return pipeline.finish(Completion(text=None, error_kind=kind, error=f"{type(error).__name__}: {error}"))


def score_answers(scorers: Sequence[Scorer], answered: Sequence[tuple[Job, Answer]]) -> list[tuple[ScoreValue, ...]]:
    """Score values by answer, in the order of `scorers`."""
    items = [
        ScoreInput(
            row_id=row.id,
            inputs=row.inputs,
            target=row.target,
            result=answer.value,
            output=answer.completion.text,
            error_kind=answer.error_kind,
            latency_s=answer.completion.latency_s,
            tokens_in=answer.completion.tokens_in,
            tokens_out=answer.completion.tokens_out,
            cost_usd=answer.completion.cost_usd,
            cached=answer.completion.cached,
            passages=tuple((passage.id, passage.text) for passage in answer.passages or ()),
        )
        for (_, row, _), answer in answered
    ]
    columns = [scorer.score_all(items) for scorer in scorers]
    return [tuple(column[place] for column in columns) for place in range(len(items))]


# What a pair scorer is told of a stored call, after its key.
_PAIRED = ("result", "output", "error_kind")


def _stored_input(row: Row, call: tuple[Any, ...]) -> ScoreInput:
    """A call read back from the run, as a scorer sees it."""
    import json

    result, output, error_kind = call[3:]
    return ScoreInput(
        row_id=row.id,
        inputs=row.inputs,
        target=row.target,
        result=None if result is None else json.loads(result),
        output=output,
        error_kind=error_kind,
    )


def _call(run: Run, digests: tuple[str, str], job: Job, answer: Answer, at: str) -> Call:
    variant, row, repeat = job
    manifest, completion = run.manifest, answer.completion
    model = manifest.models[variant]
    return Call(
        run_id=run.id,
        experiment=manifest.experiment,
        variant=variant,
        row_id=row.id,
        repeat=repeat,
        trace_id=trace_id(run.id, variant, row.id, repeat),
        tenant=None,
        notebook=manifest.notebook_digest,
        git_commit=manifest.git_commit,
        pipeline_digest=digests[0],
        prompt_digest=digests[1],
        model=model["name"],
        model_digest=model["digest"],
        input=canonical_json(dict(row.inputs)).decode(),
        output=completion.text,
        result=None if answer.error_kind else canonical_json(answer.value).decode(),
        target=None if row.target is None else canonical_json(row.target).decode(),
        passages=None if answer.passages is None else canonical_json([found.id for found in answer.passages]).decode(),
        group=row.group,
        finish_reason=completion.finish_reason,
        error_kind=answer.error_kind,
        error=answer.error,
        logprob=completion.logprob,
        cached=completion.cached,
        tokens_in=completion.tokens_in,
        tokens_out=completion.tokens_out,
        queue_s=completion.queue_s,
        ttft_s=completion.ttft_s,
        latency_s=completion.latency_s,
        cost_usd=completion.cost_usd,
        started_at=at,
    )
