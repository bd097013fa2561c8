"""Many small runs, written directly: what an experiment each would leave."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from workbench.events.rows import Call, Score, schema_of
from workbench.experiments.records import RunManifest

MANIFEST = RunManifest(
    run_id="",
    experiment="many",
    experiment_digest="sha256:" + "a" * 64,
    dataset="questions",
    dataset_digest="sha256:" + "b" * 64,
    split=None,
    rows=2,
    repeats=1,
    variants={"base": {}},
    pipeline_digests={"base": "sha256:" + "c" * 64},
    scorers=[],
    primary="exact",
    models={"base": {"name": "instant", "digest": "sha256:" + "1" * 64}},
    command=[],
    started_at="",
    environment={},
)
# Stand for a run's id and time in the bytes of the files: as long as what they are replaced by.
ID, DAY = "run-00000", "2026-01-01"


def write_runs(folder: Path, count: int) -> None:
    """`count` finished runs of two calls each, over sixty days.

    The files of one run are written by Polars, without compression; those of the others are the same with another id and day.
    """
    folder.mkdir(parents=True)
    calls = [call(n) for n in range(2)]
    scores = [Score(ID, "base", f"q{n}", 0, "exact", "sha256:" + "d" * 64, float(n), None, None) for n in range(2)]
    files = {}
    for name, rows, record in (("calls", calls, Call), ("scores", scores, Score)):
        path = folder / f"{name}.parquet"
        frame = pl.DataFrame([vars(row) for row in rows], schema=schema_of(record), orient="row")
        frame.write_parquet(path, compression="uncompressed", use_pyarrow=False)
        files[f"{name}.parquet"] = path.read_bytes()
        path.unlink()
    manifest = MANIFEST.model_copy(
        update={"run_id": ID, "started_at": f"{DAY}T00:00:00", "finished_at": f"{DAY}T01:00:00"}
    )
    files["run.json"] = json.dumps(manifest.model_dump(mode="json")).encode()
    for n in range(count):
        name, day = f"run-{n:05d}", f"2026-{1 + n % 2:02d}-{1 + n % 28:02d}"
        (folder / name).mkdir()
        for file, content in files.items():
            changed = content.replace(ID.encode(), name.encode()).replace(DAY.encode(), day.encode())
            (folder / name / file).write_bytes(changed)


def call(number: int) -> Call:
    return Call(
        run_id=ID,
        experiment="many",
        variant="base",
        row_id=f"q{number}",
        repeat=0,
        trace_id=f"{ID}-{number}",
        tenant=None,
        notebook=None,
        git_commit=None,
        pipeline_digest="sha256:" + "c" * 64,
        prompt_digest="sha256:" + "e" * 64,
        model="instant",
        model_digest="sha256:" + "1" * 64,
        input="{}",
        output="yes",
        result='"yes"',
        target=None,
        group=None,
        finish_reason="stop",
        error_kind=None,
        error=None,
        logprob=None,
        cached=False,
        tokens_in=3,
        tokens_out=1,
        queue_s=0.0,
        ttft_s=0.0,
        latency_s=0.1,
        cost_usd=0.0,
        started_at=f"{DAY}T00:00:00.000000+00:00",
    )
