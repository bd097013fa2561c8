"""From a run on disk to a Comparison: 200,000 calls of two variants, three scorers; against pandas, scipy and statsmodels.

The run's Parquet files have the schema that `Run` writes; the values are drawn, as no engine is measured here. Each
measure is a fresh process, in which imports count apart.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import harness
from benchmarks.harness import PEERS, Part

if TYPE_CHECKING:
    import polars as pl

GOAL_S = 2.0
# So few rows are resampled by us too; what takes longest is then not the reading.
FEW_ROWS = 5_000
# Resamples that the peer draws, for intervals and for p. For all rows a tenth of the workbench's defaults, for few as many:
# with as many for 100,000 rows it takes five minutes.
PEER_DRAWS, PEER_DRAWS_FEW, NO_DRAWS = (499, 999), (4999, 9999), (0, 0)
VARIANTS = ("base", "other")


def write_run(folder: Path, rows: int) -> None:
    """A finished run of two variants with a binary, a continuous and a resource scorer, as `Run.compact` leaves it."""
    import polars as pl

    from workbench import surroundings
    from workbench.experiments import scorers
    from workbench.experiments.records import Call, RunManifest, Score, schema_of
    from workbench.experiments.run import Run
    from workbench.experiments.scorers.base import Scorer
    from workbench.models.engine import ModelInfo
    from workbench.pipeline.pipeline import Pipeline
    from workbench.pipeline.prompt import Prompt

    chosen: list[Scorer] = [scorers.exact(), scorers.token_f1(), scorers.latency()]
    pipelines = {name: Pipeline(model="drawn", prompt=Prompt.from_text(f"{name}: {{{{ text }}}}")) for name in VARIANTS}
    digests = {name: pipeline.digest for name, pipeline in pipelines.items()}
    model = ModelInfo("drawn", "sha256:" + "0" * 64, "drawn", "cpu", "none", "none").to_dict()
    manifest = RunManifest(
        run_id=folder.name,
        experiment="benchmark",
        experiment_digest="sha256:" + "a" * 64,
        dataset="drawn",
        dataset_digest="sha256:" + "b" * 64,
        split="test",
        rows=rows,
        repeats=1,
        variants={name: pipeline.model_dump(mode="json") for name, pipeline in pipelines.items()},
        pipeline_digests=digests,
        scorers=[
            {
                "name": scorer.name,
                "digest": scorer.digest,
                "kind": scorer.kind,
                "direction": scorer.direction,
                "on_error": scorer.on_error,
                "config": scorer.config(),
            }
            for scorer in chosen
        ],
        primary=chosen[0].name,
        models=dict.fromkeys(VARIANTS, model),
        command=[],
        started_at="2026-01-01T00:00:00.000000+00:00",
        finished_at="2026-01-01T01:00:00.000000+00:00",
        environment=surroundings.environment(),
    )
    # Words in place of numbers, so that ids and texts cost what they cost in a real run.
    keys = pl.DataFrame({"variant": VARIANTS}).join(
        pl.select(_text("q", pl.int_range(rows).cast(pl.String).str.zfill(6)).alias("row_id")), how="cross"
    )
    keys = keys.with_columns(pl.lit(folder.name).alias("run_id"), pl.lit(0, pl.Int64).alias("repeat"))
    values = _values(rows, [scorer.name for scorer in chosen])
    calls = keys.with_columns(
        pl.lit("benchmark").alias("experiment"),
        _text(pl.col("variant"), pl.col("row_id")).hash().cast(pl.String).alias("trace_id"),
        pl.col("variant").replace_strict(digests).alias("pipeline_digest"),
        pl.col("variant").replace_strict(digests).alias("prompt_digest"),
        pl.lit(model["name"]).alias("model"),
        pl.lit(model["digest"]).alias("model_digest"),
        _text('{"text":"question ', pl.col("row_id"), ' of a customer who waits for an answer"}').alias("input"),
        _text("answer to ", pl.col("row_id")).alias("output"),
        _text('"answer to ', pl.col("row_id"), '"').alias("result"),
        _text('"answer to ', pl.col("row_id"), '"').alias("target"),
        pl.lit("stop").alias("finish_reason"),
        pl.lit(False).alias("cached"),
        *(pl.lit(count, pl.Int64).alias(name) for name, count in (("tokens_in", 400), ("tokens_out", 20))),
        values[chosen[2].name].alias("latency_s"),
        *(pl.lit(0.0).alias(name) for name in ("queue_s", "ttft_s", "cost_usd")),
        pl.lit(manifest.started_at).alias("started_at"),
    )
    scores = pl.concat(
        keys.with_columns(
            pl.lit(scorer.name).alias("scorer"),
            pl.lit(scorer.digest).alias("scorer_digest"),
            values[scorer.name].alias("value"),
        )
        for scorer in chosen
    ).sort("variant", "row_id", "repeat", maintain_order=True)
    folder.mkdir(parents=True)
    for name, frame, schema in (("calls", calls, schema_of(Call)), ("scores", scores, schema_of(Score))):
        absent = [pl.lit(None, kind).alias(column) for column, kind in schema.items() if column not in frame.columns]
        whole = frame.with_columns(absent).select(list(schema)).cast(pl.Schema(schema))
        whole.write_parquet(folder / f"{name}.parquet", compression="zstd", statistics=True)
    Run(folder, manifest).save_manifest()


def _text(*parts: str | pl.Expr) -> pl.Expr:
    """Text and columns, joined."""
    import polars as pl

    return pl.concat_str(pl.lit(part) if isinstance(part, str) else part for part in parts)


def _values(rows: int, names: Sequence[str]) -> dict[str, pl.Series]:
    """Scores of both variants, one after the other; the second is a little better, a little slower, and correlated."""
    import numpy as np
    import polars as pl

    rng = np.random.default_rng(0)
    hard = rng.normal(size=rows)
    noise = [rng.normal(size=rows) for _ in VARIANTS]
    skill = [0.2, 0.23]
    right = np.concatenate([(hard + level + other > 0) for level, other in zip(skill, noise, strict=True)])
    f1 = np.concatenate([1 / (1 + np.exp(-(hard + level + other))) for level, other in zip(skill, noise, strict=True)])
    latency = np.concatenate([rng.lognormal(level, 0.4, rows) for level in skill])
    found = (right.astype(np.float64), f1, latency)
    return {name: pl.Series(values) for name, values in zip(names, found, strict=True)}


def child(folder: Path, profile: int) -> None:
    """Compare in this process and print the seconds of imports, reading and all of `compare`, and the decision's numbers."""
    started = time.perf_counter()
    import workbench.experiments.compare
    from workbench.experiments.run import Run

    imported = time.perf_counter() - started
    if profile:
        import cProfile
        import pstats

        with cProfile.Profile() as profiler:
            Run(folder).compare()
        pstats.Stats(profiler).sort_stats("tottime").print_stats(profile)
        return
    started = time.perf_counter()
    run = Run(folder)
    scores, calls = run.scores(), run.calls()
    read = time.perf_counter() - started
    comparison = workbench.experiments.compare.compare(scores, calls, run.manifest)
    whole = time.perf_counter() - started
    print(
        json.dumps(
            {
                "imports": imported,
                "read": read,
                "compare": whole - read,
                "whole": whole,
                "peak_memory": harness.peak_memory(),
                "differences": {row.scorer: [row.difference, row.low, row.high, row.p] for row in comparison.rows},
            }
        )
    )


def check_same(ours: dict[str, list[float]], peer: dict[str, list[float]]) -> None:
    """The peer must have found the same differences, or one of the two measured something else.

    Raises:
        BenchmarkError: a difference is another.
    """
    for name, (difference, *_) in ours.items():
        if abs(difference - peer[name][0]) > 1e-9:
            raise harness.BenchmarkError(f"{name}: we find {difference}, the peer {peer[name][0]}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="rows of each of the two variants")
    parser.add_argument(
        "--few-rows", type=int, default=FEW_ROWS, help="rows of a run that is small enough to be resampled"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer-repeats", type=int, default=1)
    parser.add_argument("--profile", type=int, default=0, metavar="N", help="print the N costliest functions instead")
    parser.add_argument("--child", type=Path, metavar="FOLDER", help="compare one run in this process")
    options = parser.parse_args(arguments)
    if options.child:
        child(options.child, options.profile)
        return
    with tempfile.TemporaryDirectory() as parent:
        folder, small = Path(parent, "run"), Path(parent, "small")
        write_run(folder, options.rows)
        if options.profile:
            child(folder, options.profile)
            return
        write_run(small, options.few_rows)
        ours = [harness.run_child(_ours(folder)) for _ in range(options.repeats)]
        drawn = [harness.run_child(_ours(small)) for _ in range(options.repeats)]
        peer = [harness.run_child(_peer(folder, PEER_DRAWS)) for _ in range(options.peer_repeats)]
        by_t = [harness.run_child(_peer(folder, NO_DRAWS)) for _ in range(options.repeats)]
        peer_drawn = [harness.run_child(_peer(small, PEER_DRAWS_FEW)) for _ in range(options.peer_repeats)]
    for mine, other in ((ours, peer), (ours, by_t), (drawn, peer_drawn)):
        check_same(mine[0]["differences"], other[0]["differences"])
    whole, theirs = _middle(ours, "whole"), _middle(peer, "whole")
    parts = [
        Part(name="imports, not counted", ours=_middle(ours, "imports"), peer=_middle(peer, "imports"), unit="s"),
        Part(name="reading", ours=_middle(ours, "read"), peer=_middle(peer, "read"), unit="s"),
        Part(name="comparing", ours=_middle(ours, "compare"), peer=_middle(peer, "compare"), unit="s"),
        Part(
            name="against paired t tests",
            ours=whole,
            peer=_middle(by_t, "whole"),
            ratio=_middle(by_t, "whole") / whole,
            unit="s",
        ),
        Part(
            name=f"{options.few_rows} rows a variant",
            ours=_middle(drawn, "whole"),
            peer=_middle(peer_drawn, "whole"),
            ratio=_middle(peer_drawn, "whole") / _middle(drawn, "whole"),
            unit="s",
        ),
        Part(
            name="peak memory",
            ours=_middle(ours, "peak_memory") / 2**20,
            peer=_middle(peer, "peak_memory") / 2**20,
            unit="MiB",
        ),
    ]
    harness.report(
        "results",
        ours=whole,
        peer=theirs,
        ratio=theirs / whole,
        goal=f"under {GOAL_S:g} s",
        met=whole < GOAL_S,
        unit="s",
        parts=parts,
        json_output=options.json,
        packages=["llmops-workbench", "polars", "numpy", "scipy", "statsmodels", "pandas"],
        runs={"ours, s": [run["whole"] for run in ours], "peer, s": [run["whole"] for run in peer]},
        notes=[
            f"{options.rows} rows × {len(VARIANTS)} variants × 3 scorers, fresh processes",
            "peer: pandas, statsmodels' exact McNemar test, scipy's percentile bootstrap and permutation test",
            f"the peer draws {PEER_DRAWS[0]} and {PEER_DRAWS[1]} resamples of all rows, where ours takes expansions",
            f"with {options.few_rows} rows a variant ours resamples too, and both draw 4,999 and 9,999 times",
            "the peer gives fewer numbers: no intervals of the means, no counts of failures",
        ],
    )


def _ours(folder: Path) -> list[str | Path]:
    return [sys.executable, "-m", "benchmarks.results", "--child", folder]


def _peer(folder: Path, draws: tuple[int, int]) -> list[str | Path]:
    return [sys.executable, PEERS / "plain_statistics.py", folder, *VARIANTS, *map(str, draws)]


def _middle(results: Sequence[dict[str, Any]], key: str) -> float:
    return float(statistics.median(result[key] for result in results))


if __name__ == "__main__":
    main()
