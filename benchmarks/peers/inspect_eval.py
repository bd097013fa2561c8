"""inspect-ai on the runner's questions. Runs in its own environment: `inspect_eval.py ROWS CONNECTIONS [URL]`.

Without a URL its mock model answers; with one, its provider for OpenAI-compatible servers. Every sample counts that
completed with a right answer, for an evaluation can fail quietly. Set up for speed: no display, no live view.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from importlib.metadata import version
from typing import Any

from inspect_ai import Task  # type: ignore[import-not-found]
from inspect_ai import eval as evaluate
from inspect_ai.dataset import MemoryDataset, Sample  # type: ignore[import-not-found]
from inspect_ai.model import ModelOutput, ModelUsage, get_model  # type: ignore[import-not-found]
from inspect_ai.scorer import exact  # type: ignore[import-not-found]


def echo(messages: list[Any], *_: object) -> Any:
    """The last word of the question. The usage is given, as counting tokens would ask the network for a tokenizer."""
    output = ModelOutput.from_content("mockllm/model", messages[-1].text.split()[-1])
    output.usage = ModelUsage(input_tokens=5, output_tokens=1, total_tokens=6)
    return output


def measure(rows: int, connections: int, url: str | None, logs: str) -> tuple[int, float]:
    """Samples that completed with a right answer, and the seconds of `eval`."""
    samples = [Sample(id=f"q{n}", input=f"question {n} word{n}", target=f"word{n}") for n in range(rows)]
    if url is None:
        model = get_model("mockllm/model", custom_outputs=echo, memoize=False)
    else:
        model = get_model("openai-api/bench/echo", base_url=url, api_key="none", memoize=False)
    started = time.perf_counter()
    (log,) = evaluate(
        Task(dataset=MemoryDataset(samples), scorer=exact()),
        model=model,
        max_connections=connections,
        display="none",
        log_dir=logs,
        log_level="error",
        log_realtime=False,
        fail_on_error=False,
    )
    elapsed = time.perf_counter() - started
    right = sum(sample.error is None and sample.scores["exact"].value == "C" for sample in log.samples or ())
    return right, elapsed


def main(rows: int, connections: int, url: str | None) -> None:
    with tempfile.TemporaryDirectory() as logs:
        measure(10, connections, url, logs)
        completed, elapsed = measure(rows, connections, url, logs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    found = {name: version(name) for name in ("inspect-ai", "openai")}
    print(json.dumps({"completed": completed, "seconds": elapsed, "peak_memory": peak, "versions": found}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
