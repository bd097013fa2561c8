"""Runner: answers what a run still lacks, journals each answer with its scores, and compacts the run when it ends."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from workbench.data.row import Row
from workbench.errors import OutOfMemoryError
from workbench.events.journal import JournalWriter
from workbench.experiments.records import RETRIED_ERRORS, Call, Score
from workbench.experiments.run import Run, journal_entry
from workbench.experiments.scorers.base import ScoreInput, Scorer
from workbench.files import canonical_json, digest_json
from workbench.models.engine import Completion, Engine
from workbench.pipeline.pipeline import Answer, Pipeline
from workbench.progress import Progress

if TYPE_CHECKING:
    from workbench.experiments.experiment import Experiment

# Rows are made durable at least this often: what a power cut can cost, against the price of an fsync.
FLUSH_SECONDS = 0.5
FLUSH_ROWS = 64

Job = tuple[str, Row, int]


def now() -> str:
    """The time as ISO 8601 UTC, with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def execute(
    experiment: Experiment,
    run: Run,
    *,
    progress: Progress,
    clock: Callable[[], str] = now,
    monotonic: Callable[[], float] = time.monotonic,
) -> None:
    """Answer every row that `run` does not hold yet, or holds only as an accident. The caller holds the run's lock.

    Interrupting at any point loses at most the answers that were still being generated.
    """
    run.forget_rows()
    known = run.load()[0]
    todo = [job for job in experiment.jobs() if _wanted(known.get((job[0], job[1].id, job[2])))]
    done = run.expected - len(todo)
    progress.update(done)
    with JournalWriter(run.journal) as journal:
        for variant, pipeline in experiment.variants.items():
            jobs = [job for job in todo if job[0] == variant]
            if not jobs:
                continue
            pending: list[tuple[Job, Answer]] = []
            flushed = monotonic()
            for job, answer in _answers(pipeline, pipeline.engine(), jobs):
                pending.append((job, answer))
                done += 1
                progress.update(done, variant)
                if len(pending) >= FLUSH_ROWS or monotonic() - flushed >= FLUSH_SECONDS:
                    _record(experiment, run, pipeline, pending, journal, clock())
                    pending, flushed = [], monotonic()
            _record(experiment, run, pipeline, pending, journal, clock())
    run.forget_rows()
    if len(run.load()[0]) == run.expected:
        run.compact(clock())


def _wanted(call: Call | None) -> bool:
    return call is None or call.error_kind in RETRIED_ERRORS


def _answers(pipeline: Pipeline, engine: Engine, jobs: Sequence[Job]) -> Iterator[tuple[Job, Answer]]:
    """Answers as they come. An engine that breaks down turns what is left into rows that say so."""
    left = dict(enumerate(jobs))
    try:
        keys = [f"{row.id}:{repeat}" for _, row, repeat in jobs]
        for index, answer in pipeline.answers(engine, [row.inputs for _, row, _ in jobs], seed_keys=keys):
            yield left.pop(index), answer
    except OutOfMemoryError as error:
        yield from ((job, _failed(pipeline, "out_of_memory", error)) for job in left.values())
    except Exception as error:
        # Whatever a model library raises must end as rows with a kind, so that nothing already answered is lost.
        yield from ((job, _failed(pipeline, "engine", error)) for job in left.values())


def _failed(pipeline: Pipeline, kind: str, error: Exception) -> Answer:
    return pipeline.finish(Completion(text=None, error_kind=kind, error=f"{type(error).__name__}: {error}"))


def _record(
    experiment: Experiment,
    run: Run,
    pipeline: Pipeline,
    answered: Sequence[tuple[Job, Answer]],
    journal: JournalWriter,
    at: str,
) -> None:
    if not answered:
        return
    calls = [_call(run, pipeline, job, answer, at) for job, answer in answered]
    scores = score_answers(experiment.scorers, answered)
    journal.append(
        journal_entry(
            call,
            [
                Score(
                    run.id,
                    call.variant,
                    call.row_id,
                    call.repeat,
                    scorer.name,
                    scorer.digest,
                    s.value,
                    s.label,
                    s.explanation,
                )
                for scorer, s in zip(experiment.scorers, row_scores, strict=True)
            ],
        )
        for call, row_scores in zip(calls, scores, strict=True)
    )
    journal.flush()


def score_answers(scorers: Sequence[Scorer], answered: Sequence[tuple[Job, Answer]]) -> list[tuple[Any, ...]]:
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
        )
        for (_, row, _), answer in answered
    ]
    return list(zip(*(scorer.score_all(items) for scorer in scorers), strict=True))


def _call(run: Run, pipeline: Pipeline, job: Job, answer: Answer, at: str) -> Call:
    variant, row, repeat = job
    manifest, completion = run.manifest, answer.completion
    model = manifest.models[variant]
    return Call(
        run_id=run.id,
        experiment=manifest.experiment,
        variant=variant,
        row_id=row.id,
        repeat=repeat,
        trace_id=uuid.UUID(digest_json([run.id, variant, row.id, repeat])[7:39]).hex,
        tenant=None,
        notebook=manifest.notebook_digest,
        git_commit=manifest.git_commit,
        pipeline_digest=pipeline.digest,
        prompt_digest=pipeline.prompt.digest,
        model=model["name"],
        model_digest=model["digest"],
        input=canonical_json(dict(row.inputs)).decode(),
        output=completion.text,
        result=None if answer.error_kind else canonical_json(answer.value).decode(),
        target=None if row.target is None else canonical_json(row.target).decode(),
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
