"""Runs made of rows written down here: no model, no data set, the real folders and the real statistics."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from workbench.experiments.records import Call, RunManifest, Score, frame
from workbench.experiments.run import Run
from workbench.files import canonical_json, digest_json
from workbench.pipeline.pipeline import Pipeline
from workbench.pipeline.prompt import Prompt
from workbench.pipeline.steps import Python, Strip
from workbench.workspace import Layout

MODEL = {
    "name": "tiny",
    "digest": digest_json("the weights of tiny"),
    "provider": "test",
    "device": "cpu",
    "dtype": "float32",
    "quantization": "none",
}
SHOUT = "def postprocess(value):\n    return value.upper()\n"
STARTED = "2026-01-02T03:04:05.000000+00:00"

MakeRun: TypeAlias = Callable[..., Run]


def pipelines() -> dict[str, Pipeline]:
    """Two variants that differ in their prompt; both end in a Python step."""
    base = Pipeline(
        model="tiny",
        prompt=Prompt.from_text("## system\nBe brief.\n\n## user\n{{ text }}"),
        postprocess=(Strip(), Python(name="shout", source=SHOUT)),
    )
    better = base.with_(prompt=Prompt.from_text("## system\nBe brief and right.\n\n## user\n{{ text }}"))
    return {"base": base, "few": better}


def write_run(
    layout: Layout,
    answers: Mapping[str, Sequence[bool]],
    *,
    run_id: str = "run-1",
    variants: Mapping[str, Pipeline] | None = None,
    changes: Mapping[str, Any] | None = None,
    edit: Callable[[dict[str, Any]], dict[str, Any]] = lambda call: call,
) -> Run:
    """A run on disk in which row `i` of a variant is right where `answers[variant][i]` is true.

    `changes` replace fields of the manifest, `edit` changes the fields of each call.
    """
    given = dict(variants or pipelines())
    chosen = {name: given[name] for name in answers}
    calls, scores = [], []
    for variant, marks in answers.items():
        for row, right in enumerate(marks):
            call = edit(
                {
                    "run_id": run_id,
                    "experiment": "greet",
                    "variant": variant,
                    "row_id": f"row-{row:03}",
                    "repeat": 0,
                    "trace_id": f"{variant}-{row}",
                    "tenant": None,
                    "notebook": None,
                    "git_commit": "c0ffee",
                    "pipeline_digest": chosen[variant].digest,
                    "prompt_digest": chosen[variant].prompt.digest,
                    "model": "tiny",
                    "model_digest": MODEL["digest"],
                    "input": canonical_json({"text": f"message {row}"}).decode(),
                    "output": "YES" if right else "NO",
                    "result": '"YES"' if right else '"NO"',
                    "target": '"YES"',
                    "group": None,
                    "finish_reason": "stop",
                    "error_kind": None,
                    "error": None,
                    "logprob": -1.5,
                    "cached": False,
                    "tokens_in": 10,
                    "tokens_out": 2,
                    "queue_s": 0.0,
                    "ttft_s": 0.1,
                    "latency_s": 0.2 + row / 1000,
                    "cost_usd": 0.0,
                    "started_at": STARTED,
                }
            )
            calls.append(Call(**call))
            scores.append(
                Score(
                    run_id,
                    variant,
                    call["row_id"],
                    call["repeat"],
                    "exact",
                    digest_json("exact"),
                    float(right),
                    None,
                    None,
                )
            )
    fields: dict[str, Any] = {
        "run_id": run_id,
        "experiment": "greet",
        "experiment_digest": digest_json("greet"),
        "dataset": "greetings",
        "dataset_digest": digest_json("greetings"),
        "split": "test",
        "rows": max(len(marks) for marks in answers.values()),
        "repeats": 1,
        "variants": {name: pipeline.model_dump(mode="json") for name, pipeline in chosen.items()},
        "pipeline_digests": {name: pipeline.digest for name, pipeline in chosen.items()},
        "scorers": [
            {
                "name": "exact",
                "digest": digest_json("exact"),
                "kind": "binary",
                "direction": "max",
                "on_error": "fail",
                "config": {"type": "exact"},
            }
        ],
        "primary": "exact",
        "models": dict.fromkeys(chosen, MODEL),
        "notebook": "notebooks/greet.py",
        "notebook_digest": digest_json("notebook"),
        "git_commit": "c0ffee",
        "git_dirty": False,
        "command": ["workbench", "run", "greet.yaml"],
        "started_at": STARTED,
        "finished_at": "2026-01-02T03:05:05.000000+00:00",
        "environment": {"python": "3.11.7", "platform": "Linux", "polars": "2.1.0", "jinja2": "3.1.6"},
    }
    manifest = RunManifest(**{**fields, **(changes or {})})
    folder = layout.runs / run_id
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(manifest.model_dump(mode="json")))
    frame(calls, Call).write_parquet(folder / "calls.parquet")
    frame(scores, Score).write_parquet(folder / "scores.parquet")
    return Run(folder)


# Of 60 rows the baseline has 20 right and the other 50: a difference that no correction explains away.
CLEAR = {"base": [True] * 20 + [False] * 40, "few": [True] * 50 + [False] * 10}
# 30 right against 31: nothing can be said.
UNCLEAR = {"base": [True] * 30 + [False] * 30, "few": [True] * 31 + [False] * 29}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """An empty workspace."""
    (tmp_path / "workbench.toml").write_text('name = "test"\n')
    return Layout.find(tmp_path)


@pytest.fixture
def make_run(layout: Layout) -> MakeRun:
    """`write_run` in the workspace of this test."""

    def make(answers: Mapping[str, Sequence[bool]] = CLEAR, **options: Any) -> Run:
        return write_run(layout, answers, **options)

    return make
