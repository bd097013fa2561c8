"""The runner: questions per second and peak memory of `Experiment.run`, journal, scores and Parquet included.

Against inspect-ai with an engine that answers at once, and against inspect-ai and bare aiohttp with a local server that
answers after 50 ms over 64 connections. Every measure is a process of its own, ours and the peers' in turn.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import harness
from benchmarks.harness import PEERS, Part

if TYPE_CHECKING:
    from workbench.experiments.experiment import Experiment
    from workbench.models.budget import Budget
    from workbench.models.engine import Completion, Message, ModelInfo, Request

DELAY, CONNECTIONS = 0.05, 64
AGAINST_INSPECT, AGAINST_INSPECT_HTTP, AGAINST_RAW, MEMORY = 40, 15, 0.85, 2
MODEL = {"instant": "instant", "http": "bench:echo"}


class InstantEngine:
    """Answers with the question's last word."""

    @property
    def info(self) -> ModelInfo:
        from workbench.models.engine import ModelInfo

        return ModelInfo("instant", "sha256:" + "1" * 64, "benchmark", "cpu", "none", "none")

    def generate(
        self, requests: Sequence[Request], *, budget: Budget | None = None
    ) -> Iterator[tuple[int, Completion]]:
        from workbench.models.engine import Completion

        for index, request in enumerate(requests):
            answer = request.messages[-1].content.split()[-1]
            yield index, Completion(text=answer, finish_reason="stop", tokens_in=5, tokens_out=1)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content.split()) for message in messages)

    def close(self) -> None:
        """Nothing is held."""


def make_experiment(folder: Path, rows: int, model: str, url: str | None) -> Experiment:
    """An experiment of one variant and one scorer in a new workspace."""
    from workbench import api
    from workbench.data.store import import_dataset
    from workbench.experiments import scorers
    from workbench.pipeline.pipeline import Pipeline
    from workbench.pipeline.prompt import Prompt

    folder.mkdir()
    server = f'[servers.bench]\nbase_url = "{url}"\n' if url else ""
    (folder / "workbench.toml").write_text(f'format_version = 1\nmodel = "{model}"\n{server}')
    source = folder / "questions.jsonl"
    source.write_text(
        "".join(
            json.dumps({"id": f"q{n}", "text": f"question {n} word{n}", "label": f"word{n}"}) + "\n"
            for n in range(rows)
        )
    )
    workspace = api.open(folder)
    import_dataset(workspace.layout, source, name="questions", input=("text",), target=("label",), id="id")
    return workspace.experiment(
        "benchmark",
        dataset=workspace.dataset("questions"),
        variants={"echo": Pipeline(model=model, prompt=Prompt.from_text("{{ text }}"))},
        scorers=[scorers.exact()],
    )


def child(rows: int, url: str | None) -> None:
    """Measure one run in this process, after a short one as warm-up, and print what it took."""
    from workbench.models.engines import register_engine

    register_engine("instant", lambda name, quantization: InstantEngine())
    model = MODEL["http" if url else "instant"]
    with tempfile.TemporaryDirectory() as folder:
        make_experiment(Path(folder, "warm-up"), 10, model, url).run(show_progress=False)
        experiment = make_experiment(Path(folder, "workspace"), rows, model, url)
        found: list[Any] = []
        elapsed = harness.seconds(lambda: found.append(experiment.run(show_progress=False)))
        peak = harness.peak_memory()
        right = int(found[0].scores().get_column("value").sum())
    print(json.dumps({"completed": right, "seconds": elapsed, "peak_memory": peak}))


def measure(rows: int, peer_rows: int, repeats: int, url: str | None) -> dict[str, list[dict[str, Any]]]:
    """`repeats` measures each of ours, inspect-ai and (with a server) bare aiohttp, in turn.

    Raises:
        BenchmarkError: one of them did not answer every question rightly.
    """
    python = harness.peer_python("inspect")
    flag, place = (["--url", url], [url]) if url else ([], [])
    commands: dict[str, tuple[int, list[str | Path]]] = {
        "ours": (rows, [sys.executable, "-m", "benchmarks.runner", "--child", "--rows", str(rows), *flag]),
    }
    if url:
        commands["raw"] = (rows, [sys.executable, PEERS / "raw_aiohttp.py", url, str(rows), str(CONNECTIONS)])
    commands["inspect"] = (peer_rows, [python, PEERS / "inspect_eval.py", str(peer_rows), str(CONNECTIONS), *place])
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, (expected, command) in commands.items():
            result = harness.run_child(command)
            if result["completed"] != expected:
                raise harness.BenchmarkError(f"{name}: {result['completed']} of {expected} answers are right")
            found[name].append(result | {"rate": expected / result["seconds"]})
    return found


def middle(results: Sequence[dict[str, Any]], key: str) -> float:
    return float(statistics.median(result[key] for result in results))


def speed(name: str, ours: Sequence[dict[str, Any]], peer: Sequence[dict[str, Any]], goal: float) -> Part:
    """Rows per second against a peer. The ratio is the median of those of each round, whose measures lie side by side."""
    mine, theirs = middle(ours, "rate"), middle(peer, "rate")
    ratio = float(statistics.median(a["rate"] / b["rate"] for a, b in zip(ours, peer, strict=True)))
    return Part(
        name=name, ours=mine, peer=theirs, unit="rows/s", ratio=ratio, goal=f"at least {goal:g}×", met=ratio >= goal
    )


def memory(name: str, ours: Sequence[dict[str, Any]], peer: Sequence[dict[str, Any]]) -> Part:
    """Peak memory against a peer's; the ratio is the peer's over ours."""
    mine, theirs = middle(ours, "peak_memory") / 2**20, middle(peer, "peak_memory") / 2**20
    return Part(
        name=name,
        ours=mine,
        peer=theirs,
        unit="MiB",
        ratio=theirs / mine,
        goal=f"at most 1/{MEMORY} of the peer",
        met=MEMORY * mine <= theirs,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--peer-rows", type=int, help="samples that inspect-ai is given; as many as rows by default")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--url", help="the server to ask (with --child)")
    parser.add_argument("--child", action="store_true", help="measure one run of ours in this process")
    options = parser.parse_args(arguments)
    if options.child:
        child(options.rows, options.url)
        return
    peer_rows = options.peer_rows or options.rows
    instant = measure(options.rows, peer_rows, options.repeats, None)
    with harness.serving([sys.executable, PEERS / "server.py", str(DELAY)]) as url:
        http = measure(options.rows, peer_rows, options.repeats, url)
    parts = [
        speed("instant engine, inspect-ai", instant["ours"], instant["inspect"], AGAINST_INSPECT),
        memory("instant engine, peak memory", instant["ours"], instant["inspect"]),
        speed("server, inspect-ai", http["ours"], http["inspect"], AGAINST_INSPECT_HTTP),
        speed("server, bare aiohttp", http["ours"], http["raw"], AGAINST_RAW),
        memory("server, peak memory", http["ours"], http["inspect"]),
    ]
    harness.report(
        "runner",
        ours=parts[0]["ours"],
        peer=parts[0]["peer"],
        ratio=parts[0]["ratio"],
        goal="every part",
        met=all(part["met"] for part in parts),
        unit="rows/s",
        parts=parts,
        json_output=options.json,
        packages=["llmops-workbench", "polars", "pydantic", "aiohttp"],
        peer_versions=instant["inspect"][0]["versions"],
        runs={
            f"{case}, {name}, s": [result["seconds"] for result in results]
            for case, found in (("instant", instant), ("server", http))
            for name, results in found.items()
        },
        notes=[
            f"ours and bare aiohttp: {options.rows} rows; inspect-ai: {peer_rows} samples",
            f"the server waits {DELAY * 1000:.0f} ms; {CONNECTIONS} connections each",
            "seconds are those of Experiment.run and of eval, after a warm-up and without imports; every answer was checked",
        ],
    )


if __name__ == "__main__":
    main()
