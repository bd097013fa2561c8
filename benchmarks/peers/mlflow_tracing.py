"""mlflow tracing on the events' calls. Runs in its own environment: `mlflow_tracing.py CALLS FOLDER`.

Traces are exported in the background, as its guide advises for production, to a SQLite store. What it costs to record a call
is timed in one burst, and then all traces are searched for.
"""

from __future__ import annotations

import importlib
import json
import os
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "true")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

# It is of its own environment; and as this file is run by its path, its folder is where it finds what both sides record.
mlflow: Any = importlib.import_module("mlflow")
one_call: Callable[[int], dict[str, Any]] = importlib.import_module("one_call").one_call


def record(row: dict[str, Any]) -> None:
    """One call: its texts as inputs and outputs, the tenant as a tag, by which traces are searched, the rest as attributes."""
    with mlflow.start_span(name="call", span_type="LLM") as span:
        span.set_inputs(row["input"])
        span.set_outputs(row["output"])
        span.set_attributes({name: value for name, value in row.items() if name not in ("input", "output", "tenant")})
        mlflow.update_current_trace(tags={"tenant": row["tenant"]})


def main(calls: int, folder: str) -> None:
    path = Path(folder, "mlflow.db")
    mlflow.set_tracking_uri(f"sqlite:///{path}")
    experiment = mlflow.create_experiment("benchmark", artifact_location=folder)
    mlflow.set_experiment(experiment_id=experiment)
    record(one_call(0))
    mlflow.flush_trace_async_logging()
    times = []
    for number in range(calls):
        row = one_call(number)
        started = time.perf_counter()
        record(row)
        times.append(time.perf_counter() - started)
    started = time.perf_counter()
    mlflow.flush_trace_async_logging()
    drained = time.perf_counter() - started
    with sqlite3.connect(path) as connection:
        [[stored]] = connection.execute("select count(*) from trace_info")
    started = time.perf_counter()
    found = mlflow.search_traces(locations=[experiment], max_results=calls + 1)
    load_s = time.perf_counter() - started
    print(
        json.dumps(
            {
                "p50_us": statistics.median(times) * 1e6,
                "recorded": calls + 1,
                "stored": stored,
                "drained_s": drained,
                "loaded": len(found),
                "load_s": load_s,
                "versions": {"mlflow": version("mlflow")},
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
