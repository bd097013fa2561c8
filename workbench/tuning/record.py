"""The run that a tuning ends with: configurations as pipelines, test questions as rows, searches as calls."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from workbench.errors import ModelError
from workbench.events.journal import JournalWriter
from workbench.experiments.origin import new_run_id, now, origin, trace_id
from workbench.experiments.records import Call, RunManifest, Score
from workbench.experiments.run import Run, journal_entry
from workbench.experiments.starting_point import NEW_TOKENS
from workbench.files import canonical_json, digest_json
from workbench.models.engine import Generation
from workbench.pipeline.pipeline import Pipeline
from workbench.pipeline.prompt import Prompt
from workbench.pipeline.retrieval import Retrieval
from workbench.progress import progress as progress_bar
from workbench.retrieval import metrics
from workbench.retrieval.copies import settled
from workbench.retrieval.index import Index
from workbench.retrieval.types import Question
from workbench.tuning.evaluate import MEASURES, Evaluator
from workbench.tuning.space import Configuration
from workbench.workspace import Layout

ANSWER_PROMPT = """\
---
variables: [passages, question]
---
## system
Answer the question from the passages, in one or two sentences. Cite each passage you use by its number, like [1].
If the passages do not hold the answer, say: The passages do not say.

## user
{{ passages }}

Question: {{ question }}
"""


def record(
    layout: Layout,
    evaluator: Evaluator,
    configurations: Sequence[Configuration],
    questions: Sequence[Question],
    name: str,
    pipeline: Pipeline | None,
    measure: str,
    show_progress: bool = True,
) -> Run:
    """A run whose variants are pipelines with these configurations, and whose calls are searches.

    The first is the baseline. A call's `output` is the ids that were found, its latency that of the search.
    """
    pipeline = pipeline or Pipeline(
        model=layout.settings.model,
        prompt=Prompt.from_text(ANSWER_PROMPT),
        generation=Generation(max_new_tokens=NEW_TOKENS),
    )
    indexes = [evaluator.served(configuration.recipe) for configuration in configurations]
    variants = {
        configuration.label: pipeline.with_(
            retrieval=Retrieval(
                index=index.digest,
                query=pipeline.retrieval.query if pipeline.retrieval else "question",
                search=configuration.search,
            )
        )
        for configuration, index in zip(configurations, indexes, strict=True)
    }
    manifest = _manifest(layout, evaluator, name, variants, questions, measure)
    run = Run(layout.runs / manifest.run_id, manifest)
    with run.lock(), progress_bar(len(variants) * len(questions), "Test questions", show=show_progress) as bar:
        run.save_manifest()
        with JournalWriter(run.journal) as journal:
            done = 0
            for (label, variant), index in zip(variants.items(), indexes, strict=True):
                for question in questions:
                    journal.append([_entry(run, label, variant, index, question, evaluator.texts)])
                    done += 1
                    bar.update(done, label)
                journal.flush()
        run.forget_rows()
        run.compact(now())
    return run


def _entry(
    run: Run, label: str, pipeline: Pipeline, index: Index, question: Question, texts: Mapping[str, str]
) -> dict[str, Any]:
    assert pipeline.retrieval is not None
    manifest = run.manifest
    started = time.perf_counter()
    hits = index.search(question.text, settings=pipeline.retrieval.search)
    seconds = time.perf_counter() - started
    chunks = [hit.chunk for hit in hits]
    question = settled(chunks, question)
    ids = json.dumps([chunk.id for chunk in chunks])
    known = bool(question.evidence) and all(span.document in texts for span in question.evidence)
    k = pipeline.retrieval.search.k
    values = metrics.measures(chunks, question, k, texts if known else None)
    target = {
        "answer": question.answer,
        "evidence": [[span.document, span.start, span.end] for span in question.evidence],
        "documents": dict(question.documents),
        # What `answers` asks the scorers to look for: the corpus is not kept with the run.
        "quotes": [texts[span.document][span.start : span.end] for span in question.evidence] if known else [],
        "answerable": question.answerable,
    }
    call = Call(
        run_id=run.id,
        experiment=manifest.experiment,
        variant=label,
        row_id=question.id,
        repeat=0,
        trace_id=trace_id(run.id, label, question.id, 0),
        tenant=None,
        notebook=manifest.notebook_digest,
        git_commit=manifest.git_commit,
        pipeline_digest=pipeline.digest,
        prompt_digest=pipeline.prompt.digest,
        model=manifest.models[label]["name"],
        model_digest=manifest.models[label]["digest"],
        input=canonical_json({pipeline.retrieval.query: question.text}).decode(),
        output=ids,
        result=ids,
        target=canonical_json(target).decode(),
        group=None,
        finish_reason=None,
        error_kind=None,
        error=None,
        logprob=None,
        cached=False,
        tokens_in=0,
        tokens_out=0,
        queue_s=0.0,
        ttft_s=seconds,
        latency_s=seconds,
        cost_usd=0.0,
        started_at=now(),
        passages=ids,
    )
    scores = [
        Score(run.id, label, question.id, 0, entry["name"], entry["digest"], value, None, None)
        for entry in manifest.scorers
        for value in [seconds if entry["name"] == "latency" else values.get(entry["name"])]
    ]
    return journal_entry(call, scores)


def _manifest(
    layout: Layout,
    evaluator: Evaluator,
    name: str,
    variants: Mapping[str, Pipeline],
    questions: Sequence[Question],
    measure: str,
) -> RunManifest:
    at = now()
    asked = [[question.id, question.text, question.answer] for question in questions]
    names = [measure, *(other for other in MEASURES if other != measure)]
    return RunManifest(
        run_id=new_run_id(digest_json(name), at),
        experiment=name,
        experiment_digest=digest_json([name, {key: value.digest for key, value in variants.items()}, asked]),
        dataset=f"questions on {evaluator.corpus.name}",
        dataset_digest=digest_json([evaluator.corpus.digest, asked]),
        split="test",
        rows=len(questions),
        repeats=1,
        variants={key: value.model_dump(mode="json") for key, value in variants.items()},
        pipeline_digests={key: value.digest for key, value in variants.items()},
        scorers=[
            *(
                {
                    **_described(other, "continuous", "max"),
                    "bounds": [0.0, 1.0],
                    # The decision is corrected over the finalists, not over other views of the same ranking.
                    "family": "quality" if other == measure else "secondary",
                }
                for other in names
            ),
            {**_described("latency", "continuous", "min"), "bounds": None},
        ],
        primary=measure,
        models={key: _model(value, layout) for key, value in variants.items()},
        started_at=at,
        **origin(layout.root),
    )


def _described(name: str, kind: str, direction: str) -> dict[str, Any]:
    config = {"type": "latency"} if name == "latency" else {"type": "retrieval", "measure": name}
    return {
        "name": name,
        "digest": digest_json([config, 1]),
        "kind": kind,
        "direction": direction,
        "on_error": "exclude",
        "config": config,
    }


def _model(pipeline: Pipeline, layout: Layout) -> dict[str, str]:
    """The answering model, which a search does not need: where it is not here, it is named without a digest."""
    try:
        return pipeline.engine(layout.settings).info.to_dict()
    except ModelError:
        return {
            "name": pipeline.model,
            "digest": "",
            "provider": "",
            "device": "",
            "dtype": "",
            "quantization": pipeline.generation.quantization,
        }
