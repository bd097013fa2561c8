"""Events: the dashboard's questions over ten million calls, and recording one call at a time.

The calls are made once, 200 days of them, and kept in the cache folder; they lie as compaction leaves them. Recording is
measured against mlflow tracing, whose traces are exported in the background to SQLite, in a burst of the same calls.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import PEERS, Part
from benchmarks.peers.one_call import one_call

ROWS, DAYS, FIRST = 10_000_000, 200, date(2026, 1, 1)
PROCESSES, BURST = 8, 2000
QUERY_S, FRAME_TIMES, RECORD_US, ROWS_PER_S, TIMES = 1.0, 2.0, 100.0, 20_000, 10.0

LAST = FIRST + timedelta(days=DAYS - 1)
MONTH = LAST - timedelta(days=29)
# What a dashboard asks.
QUERIES = {
    "cost, calls and p95 latency by day and model, 30 days": f"""
        select day, model, count(*) as calls, sum(cost_usd) as cost, quantile_cont(latency_s, 0.95) as p95
        from calls where day >= date '{MONTH}' group by all order by all""",
    "totals by tenant, all days": """
        select tenant, count(*) as calls, sum(cost_usd) as cost, sum(tokens_in + tokens_out) as tokens
        from calls group by all order by cost desc""",
    "cost and errors by model and variant, all days": """
        select model, variant, count(*) as calls, avg(cost_usd) as cost, avg((error_kind is null)::int) as answered
        from calls group by all order by all""",
    "latest 100 failed calls": """
        select started_at, tenant, model, error_kind, error, input from calls
        where error_kind is not null order by started_at desc limit 100""",
    "budget burn-down of a month": f"""
        select day, sum(sum(cost_usd)) over (order by day) as spent
        from calls where day >= date '{MONTH}' group by day order by day""",
}

# One day of made-up calls; short texts, as of triage.
MADE = """
    with base as (
        select i, hash(i) as a, hash(i + 77) as b, hash(i + 991) as c from range({low}, {high}) as numbers(i)
    )
    select
        'production' as experiment, case when b % 20 = 0 then 'canary' else 'prod' end as variant, 'r' || i as row_id,
        0::bigint as repeat, md5(i::varchar) as trace_id, 'tenant-' || sqrt(c % 400)::int as tenant,
        '88be132c' as git_commit, 'sha256:' || md5((b % 5)::varchar) || md5('p') as pipeline_digest,
        'sha256:' || md5((b % 7)::varchar) || md5('q') as prompt_digest,
        ['smollm2-135m', 'qwen-7b', 'llama-8b', 'mistral-7b', 'gpt-small', 'gpt-large'][1 + (b % 6)::int] as model,
        'sha256:' || md5((b % 6)::varchar) || md5('m') as model_digest,
        '{{"text":"' || ['My card was charged twice', 'Where is my order', 'How do I reset the password',
            'Cancel my subscription', 'The app crashes on start'][1 + (c % 5)::int] || ' #' || a % 100000 || '"}}' as input,
        case when a % 50 > 0 then ['billing', 'shipping', 'account', 'cancel', 'bug'][1 + (c % 5)::int] end as output,
        case when a % 50 > 0 then 'stop' end as finish_reason,
        case when a % 50 = 0 then ['timeout', 'engine', 'budget'][1 + (b % 3)::int] end as error_kind,
        case when a % 50 = 0 then 'no answer in 30 s' end as error, c % 4 = 0 as cached,
        (80 + a % 700)::bigint as tokens_in, (1 + b % 120)::bigint as tokens_out,
        (a % 1000) / 1e5 as queue_s, (b % 1000) / 5e3 as ttft_s, 0.1 + (c % 100000) / 5e4 as latency_s,
        round((80 + a % 700) * 2e-7 * (1 + b % 6) + (1 + b % 120) * 8e-7, 8) as cost_usd,
        timestamp '{day}' + to_microseconds(((a >> 8) % 86400000000)::bigint) as started_at, 'synthetic' as source
    from base
"""


def make(folder: Path, rows: int) -> None:
    """Calls of 200 days as compaction leaves them, and `sorted.parquet` with all of them in one file."""
    import duckdb

    from workbench.events.manifest import Manifest, save_manifest
    from workbench.events.parquet import write_day
    from workbench.events.schema import CALLS

    a_day = rows // DAYS
    files = []
    with duckdb.connect() as connection:
        for n in range(DAYS):
            day = FIRST + timedelta(days=n)
            made = connection.sql(MADE.format(low=n * a_day, high=(n + 1) * a_day, day=day)).pl()
            files.append(write_day(folder, CALLS, str(day), CALLS.migrate(made.lazy(), CALLS.version).collect()))
        save_manifest(folder, Manifest(table="calls", files=tuple(files)))
        paths = [str(folder / "calls" / file.name) for file in files]
        connection.execute(
            "COPY (SELECT * FROM read_parquet($paths, hive_partitioning = false)) TO "
            f"'{folder / 'sorted.parquet'}' (FORMAT parquet, COMPRESSION zstd)",
            {"paths": paths},
        )


def stored(rows: int) -> Path:
    """The folder that holds so many calls; made if it is not there."""
    from workbench.files import publish_folder
    from workbench.workspace import cache_folder

    folder = cache_folder() / "benchmarks" / f"events-{rows}"
    if not folder.exists():
        print(f"making {rows:,} calls in {folder} …", file=sys.stderr)
        publish_folder(folder, lambda made: make(made, rows))
    return folder


def ask(folder: str, repeats: int) -> None:
    """Measure the questions in this process, each after one as warm-up; print seconds by question."""
    from workbench.events.store import Events

    events = Events(Path(folder))
    found: dict[str, Any] = {}
    for name, query in QUERIES.items():
        events.sql(query)
        found[name] = harness.measures(lambda query=query: harness.seconds(lambda: events.sql(query)), repeats)  # type: ignore[misc]
    found["rows"] = events.sql("select count(*) from calls").item()
    print(json.dumps({"seconds": found, "peak_memory": harness.peak_memory()}))


def group(folder: str, repeats: int) -> None:
    """Filter and group by `frame`, and by DuckDB on one sorted file, in turn; print the seconds of both."""
    import duckdb
    import polars as pl

    from workbench.events.store import Events

    events, connection = Events(Path(folder)), duckdb.connect()
    since = LAST - timedelta(days=89)
    query = f"""
        select model, count(*) as calls, sum(cost_usd) as cost from read_parquet('{folder}/sorted.parquet')
        where tenant = 'tenant-3' and started_at >= timestamp '{since}' group by model order by model"""

    def ours() -> pl.DataFrame:
        rows = events.frame("calls").filter(pl.col("tenant") == "tenant-3", pl.col("day") >= since)
        return (
            rows.group_by("model")
            .agg(pl.len().alias("calls"), pl.col("cost_usd").sum().alias("cost"))
            .sort("model")
            .collect()
        )

    def peer() -> pl.DataFrame:
        found: pl.DataFrame = connection.sql(query).pl()
        return found

    first, second = ours(), peer()
    if first.select("model", "calls").rows() != second.select("model", "calls").rows():
        raise harness.BenchmarkError("frame and DuckDB do not agree")
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(repeats):
        times["ours"].append(harness.seconds(ours))
        times["peer"].append(harness.seconds(peer))
    print(json.dumps(times))


def record(folder: str, rows: int) -> None:
    """Record a burst one by one; print the median microseconds of a call, and the seconds to load it all."""
    from workbench.events.store import Events

    events = Events(Path(folder))
    with events.log() as log:
        log.record("calls", one_call(0))
        log.flush()
        times = []
        for number in range(1, rows + 1):
            row = one_call(number)
            started = time.perf_counter()
            log.record("calls", row)
            times.append(time.perf_counter() - started)
        log.flush()
        loaded: list[int] = []
        load_s = harness.seconds(lambda: loaded.append(len(Events(Path(folder)).frame("calls").collect())))
    found = {"p50_us": statistics.median(times) * 1e6, "recorded": rows + 1, "loaded": loaded[0], "load_s": load_s}
    print(json.dumps(found))


def write(folder: str, first: int, rows: int) -> None:
    """One of several processes: record when a line comes in, and say when all of it is durable."""
    from workbench.events.store import Events

    made = [one_call(number) for number in range(first, first + rows)]
    with Events(Path(folder)).log() as log:
        print("ready", flush=True)
        sys.stdin.readline()
        for row in made:
            log.record("calls", row)
        log.flush()
        print("done", flush=True)


def together(rows: int) -> float:
    """Rows a second of 8 processes that record at once, until all of it is durable."""
    from workbench.events.store import Events

    harness.BENCH.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=harness.BENCH) as folder:
        each = rows // PROCESSES
        command = [sys.executable, "-m", "benchmarks.events", "--child", "write", folder]
        processes = [
            subprocess.Popen(
                [*command, str(n * each), str(each)],
                cwd=harness.ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for n in range(PROCESSES)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        started = time.perf_counter()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "done\n"
        elapsed = time.perf_counter() - started
        for process in processes:
            process.communicate()
        found = Events(Path(folder)).sql("select count(distinct trace_id), count(*) from calls").row(0)
        if found != (each * PROCESSES, each * PROCESSES):
            raise harness.BenchmarkError(f"{each * PROCESSES} rows were recorded, and {found} are there")
    return each * PROCESSES / elapsed


def _child(*arguments: object) -> Any:
    return harness.run_child([sys.executable, "-m", "benchmarks.events", "--child", *map(str, arguments)])


def _in_folder(work: Callable[[str], Any]) -> Any:
    harness.BENCH.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=harness.BENCH) as folder:
        return work(folder)


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="calls that the questions go over")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--burst", type=int, default=BURST, help="calls that are recorded one by one, here and by mlflow"
    )
    parser.add_argument("--written", type=int, default=200_000, help="calls that 8 processes record")
    parser.add_argument("--no-peer", action="store_true", help="without mlflow")
    parser.add_argument("--child", nargs="+", help="used by the benchmark itself")
    options = parser.parse_args()
    if options.child:
        name, folder, *numbers = options.child
        {"ask": ask, "group": group, "record": record, "write": write}[name](folder, *map(int, numbers))  # type: ignore[operator]
        return
    folder = stored(options.rows)
    asked = _child("ask", folder, options.repeats)
    grouped = _child("group", folder, options.repeats)
    ours = [_in_folder(lambda folder: _child("record", folder, options.burst)) for _ in range(3)]
    python = None if options.no_peer else harness.peer_python("mlflow")
    peer = python and _in_folder(
        lambda folder: harness.run_child([python, PEERS / "mlflow_tracing.py", str(options.burst), folder])
    )
    rates = harness.measures(lambda: together(options.written), 3)

    slowest = max(statistics.median(asked["seconds"][name]) for name in QUERIES)
    frame_ours, frame_peer = (statistics.median(grouped[side]) for side in ("ours", "peer"))
    p50, load = (statistics.median(found[key] for found in ours) for key in ("p50_us", "load_s"))
    lost = max(found["recorded"] - found["loaded"] for found in ours)
    rate = statistics.median(rates)
    record_ratio = peer["p50_us"] / p50 if peer else None
    # mlflow loads what it did not lose; so do we, which is all of it.
    load_ratio = peer["load_s"] / load if peer else None
    parts = [
        Part(
            name=name,
            ours=statistics.median(asked["seconds"][name]),
            unit="s",
            goal=f"at most {QUERY_S:g} s",
            met=statistics.median(asked["seconds"][name]) <= QUERY_S,
        )
        for name in QUERIES
    ]
    parts += [
        Part(
            name="frame: filter and group; raw DuckDB, one file",
            ours=frame_ours,
            peer=frame_peer,
            ratio=frame_peer / frame_ours,
            unit="s",
            goal=f"at least {1 / FRAME_TIMES:g}×",
            met=frame_ours <= FRAME_TIMES * frame_peer,
        ),
        Part(
            name="recording a call, p50; mlflow",
            ours=p50,
            peer=peer["p50_us"] if peer else None,
            ratio=record_ratio,
            unit="µs",
            goal=f"at most {RECORD_US:g} µs, at least {TIMES:g}×",
            met=p50 <= RECORD_US and (record_ratio is None or record_ratio >= TIMES),
        ),
        Part(
            name="loading the burst; mlflow",
            ours=load,
            peer=peer["load_s"] if peer else None,
            ratio=load_ratio,
            unit="s",
            goal=f"at least {TIMES:g}×",
            met=load_ratio is None or load_ratio >= TIMES,
        ),
        Part(
            name="calls of the burst that are lost; mlflow",
            ours=lost,
            peer=peer["recorded"] - peer["stored"] if peer else None,
            unit="calls",
            goal="none",
            met=lost == 0,
        ),
        Part(
            name="recording from 8 processes, durable",
            ours=rate,
            unit="rows/s",
            goal=f"at least {ROWS_PER_S:,}",
            met=rate >= ROWS_PER_S,
        ),
    ]
    harness.report(
        "events",
        ours=slowest,
        peer=None,
        ratio=None,
        goal=f"every question at most {QUERY_S:g} s, and as below",
        met=all(part["met"] for part in parts),
        unit="s",
        parts=parts,
        json_output=options.json,
        packages=["llmops-workbench", "duckdb", "polars", "pyarrow"],
        peer_versions=peer["versions"] if peer else None,
        runs={**{name: asked["seconds"][name] for name in QUERIES}, "8 processes, rows/s": rates}
        | {"frame, s": grouped["ours"], "raw DuckDB, s": grouped["peer"]},
        notes=[
            f"{asked['seconds']['rows']:,} calls of {DAYS} days, {asked['peak_memory'] / 2**20:,.0f} MiB of memory at most",
            f"a burst of {options.burst + 1} calls; mlflow's traces are exported in the background to SQLite",
        ],
    )


if __name__ == "__main__":
    main()
