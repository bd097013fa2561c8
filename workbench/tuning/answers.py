"""From a tuning to answers: its finalists answer the questions that they were tested on."""

from __future__ import annotations

import json
import re
from typing import Any

import polars as pl

from workbench.data.dataset import Dataset
from workbench.errors import NotFoundError, UsageError
from workbench.experiments.experiment import Experiment
from workbench.experiments.run import Run
from workbench.experiments.starting_point import answer_scorers
from workbench.pipeline.pipeline import Pipeline
from workbench.workspace import Layout


def answer_experiment(layout: Layout, run: Run, *, limit: int | None = None) -> Experiment:
    """The experiment whose variants are a tuning's pipelines, and whose rows are its test questions.

    It is one like any other: it can be planned, and its run compared, gated and promoted. The scorers are those of
    `answer_scorers` that the questions have something for.

    Args:
        run: the one that a tuning ended with. limit: ask so many of the questions, chosen by a hash of their ids.

    Raises:
        UsageError: the run is of no tuning, or the limit is below 1.
        NotFoundError: an index of it is no longer here.
    """
    pipelines = {name: Pipeline.model_validate(variant) for name, variant in run.manifest.variants.items()}
    tuned = all(scorer["config"].get("type") in ("retrieval", "latency") for scorer in run.manifest.scorers)
    if not tuned or any(pipeline.retrieval is None for pipeline in pipelines.values()):
        raise UsageError(f"run {run.id} is of no tuning", hint="Name a run that workbench index tune ended with.")
    if limit is not None and limit < 1:
        raise UsageError(f"a limit of {limit}", hint="Ask at least one question.")
    for name, pipeline in pipelines.items():
        assert pipeline.retrieval is not None
        try:
            pipeline.retrieval.open(layout)
        except NotFoundError as error:
            hint = "Tune again: what was embedded before is not embedded again."
            raise NotFoundError(f"{name}: {error.message}", hint=hint) from None
    dataset, scorers = _questions(run)
    return Experiment(
        name=f"{run.manifest.experiment}-answers",
        dataset=dataset.sample(limit) if limit is not None and limit < len(dataset) else dataset,
        variants=pipelines,
        scorers=tuple(scorers),
        layout=layout,
    )


def _questions(run: Run) -> tuple[Dataset, list[Any]]:
    """The run's questions as a data set, with the parts of the target that any of them has, and the scorers of these."""
    [baseline, *_] = run.manifest.variants
    calls = run.calls().filter(pl.col("variant") == baseline).sort("row_id")
    rows: list[dict[str, Any]] = []
    for id_, asked, target in calls.select("row_id", "input", "target").iter_rows():
        known = json.loads(target)
        if "quotes" not in known:
            raise UsageError(f"run {run.id} does not keep its evidence", hint="Tune again.")
        quotes = zip(known["evidence"], known["quotes"], strict=False)
        rows.append(
            {
                "id": id_,
                **json.loads(asked),
                "answer": known["answer"],
                "evidence": [{"document": span[0], "quote": quote} for span, quote in quotes],
                "answerable": known["answerable"],
            }
        )
    inputs = list(json.loads(calls["input"][0]))
    has = {name: any(row[name] for row in rows) for name in ("answer", "evidence")}
    target = [name for name in ("answer", "evidence") if has[name]]
    frame = pl.DataFrame(
        [{name: row[name] for name in ("id", *inputs, *target, "answerable")} for row in rows],
        infer_schema_length=None,
    )
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", run.manifest.experiment).lstrip("-._") or "tune"
    dataset = Dataset.from_frame(
        frame,
        name=f"{name}-questions",
        id="id",
        input=inputs,
        target=[*target, "answerable"],
        description=f"Test questions of the tuning {run.id}",
    )
    # An answer that is not known is not a question that has none.
    return dataset, answer_scorers(answers=has["answer"], evidence=has["evidence"], answerable="answerable")
