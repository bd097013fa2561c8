"""Every benchmark runs, measures what it says, and reports in one form. How fast anything is, is for `make bench`."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from benchmarks import __main__ as everything
from benchmarks import engine, finetune, harness, import_time, results, runner, texts

KEYS = {"name", "ours", "peer", "ratio", "goal", "met", "versions", "machine"}
NOT_BENCHMARKS = {"__init__", "__main__", "dev_loss", "harness", "texts"}


def measured(name: str, *arguments: str) -> dict[str, Any]:
    """What `python -m benchmarks.NAME --json` prints: one JSON object and nothing else."""
    result = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--json", *arguments],
        cwd=harness.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    assert found.keys() >= KEYS
    assert found["name"] == name
    assert isinstance(found["met"], bool)
    assert {"cpu", "cores", "memory_gib", "os"} <= found["machine"].keys()
    return found


def result_of(name: str, met: bool) -> dict[str, Any]:
    part = {"name": "a part", "ours": 1.0, "peer": 2.0, "ratio": 2.0, "unit": "s", "goal": "at least 3×", "met": met}
    return (
        part
        | {"name": name, "parts": [part, {"name": "explains", "ours": 0.5}], "notes": [], "runs": {}}
        | {
            "versions": {"python": "3.11"},
            "machine": {"cpu": "one"},
        }
    )


def test_every_module_is_run_by_make_bench_and_described() -> None:
    modules = {path.stem for path in (harness.ROOT / "benchmarks").glob("*.py")} - NOT_BENCHMARKS
    assert modules == set(everything.NAMES)
    for name in modules:
        assert callable(importlib.import_module(f"benchmarks.{name}").main)
    assert re.search(r"^bench:.*\n\t.*-m benchmarks$", (harness.ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    readme = (harness.ROOT / "benchmarks" / "README.md").read_text("utf-8")
    assert all(f"| `{name}` |" in readme for name in modules)


@pytest.mark.parametrize(("met", "status"), [(True, 0), (False, 1)])
def test_all_of_them_run_and_a_missed_goal_is_an_exit_status(
    met: bool, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[Sequence[str | Path]] = []

    def run_child(command: Sequence[str | Path], *, timeout: float) -> dict[str, Any]:
        commands.append(command)
        return result_of(str(command[2]).removeprefix("benchmarks."), met or "runner" not in str(command[2]))

    monkeypatch.setattr(harness, "run_child", run_child)
    assert everything.main([]) == status
    assert [str(command[2]) for command in commands] == [f"benchmarks.{name}" for name in everything.NAMES]
    table = capsys.readouterr().out.rpartition("\n\n")[2]
    assert all(re.search(rf"^{name} ", table, re.MULTILINE) for name in everything.NAMES)
    assert "explains" not in table
    assert ("NO" in table) is not met


def test_a_benchmark_that_fails_is_a_missed_goal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_child(command: Sequence[str | Path], *, timeout: float) -> dict[str, Any]:
        raise harness.BenchmarkError("run make bench-setup")

    monkeypatch.setattr(harness, "run_child", run_child)
    assert everything.main(["runner", "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out) == []
    assert "runner was not measured: run make bench-setup" in captured.err


def test_a_report_is_json_or_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    for json_output in (True, False):
        harness.report(
            "sorting",
            ours=2.0,
            peer=1234.5,
            ratio=617.25,
            goal="at least 5×",
            met=True,
            unit="s",
            parts=[harness.Part(name="reading", ours=0.0123456)],
            json_output=json_output,
            packages=["pydantic", "no-such-package"],
            peer_versions={"peer": "1.2"},
            notes=["half of the rows"],
        )
    first, _, table = capsys.readouterr().out.partition("\n")
    found = json.loads(first)
    assert found.keys() >= KEYS
    assert found["ratio"] == 617.25
    assert found["versions"].keys() == {"python", "pydantic", "peer"}
    assert re.search(r"^sorting +2 +1,234 +s +617× +yes +at least 5×$", table, re.MULTILINE)
    assert re.search(r"^reading +0\.0123$", table, re.MULTILINE)
    assert "- half of the rows" in table


def test_a_median_is_of_repeated_measures() -> None:
    values = iter([3.0, 1.0, 2.0])
    assert harness.median_of(lambda: next(values), 3) == 2.0
    assert next(values, None) is None


def test_a_peer_that_is_not_installed_says_what_to_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(harness, "BENCH", tmp_path)
    with pytest.raises(harness.BenchmarkError, match="run make bench-setup"):
        harness.peer_python("inspect")


# The command is part of the message, so what it writes is put together only when it runs.
@pytest.mark.parametrize(
    "program", ["print('what ' + 'it wrote')", "print('{}'); raise SystemExit('what ' + 'it wrote')"]
)
def test_a_child_that_fails_is_an_error_with_what_it_wrote(program: str) -> None:
    with pytest.raises(harness.BenchmarkError, match="what it wrote"):
        harness.run_child([sys.executable, "-c", program])


def test_a_peer_with_an_environment_of_its_own_has_pinned_requirements() -> None:
    files = list(harness.PEERS.glob("requirements-*.txt"))
    assert files
    for path in files:
        lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]
        assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line) for line in lines), path


def test_import_time_takes_the_bare_interpreter_off() -> None:
    found = measured("import_time", "--repeats", "2")
    middle = {name: median(values) for name, values in found["runs"].items()}
    assert all(len(values) == 2 for values in found["runs"].values())
    assert found["ours"] == pytest.approx(middle["ours"] - middle["bare"])
    assert found["peer"] == pytest.approx(middle["peer"] - middle["bare"])
    assert found["met"] == (found["ours"] <= import_time.GOAL_S)


def test_the_costliest_imports_are_those_of_the_program() -> None:
    found = import_time.costliest("import json, decimal", most=3)
    assert len(found) == 3
    assert [took for _, took in found] == sorted((took for _, took in found), reverse=True)
    assert "site" not in dict(found)


def test_the_runner_answers_every_row_of_the_instant_engine() -> None:
    found = harness.run_child([sys.executable, "-m", "benchmarks.runner", "--child", "--rows", "150"])
    assert found["completed"] == 150
    assert found["peak_memory"] > 2**20


@pytest.mark.slow
def test_the_runner_and_bare_aiohttp_ask_the_same_server() -> None:
    with harness.serving([sys.executable, harness.PEERS / "server.py", "0.001"]) as url:
        ours = harness.run_child([sys.executable, "-m", "benchmarks.runner", "--child", "--rows", "100", "--url", url])
        raw = harness.run_child([sys.executable, harness.PEERS / "raw_aiohttp.py", url, "100", "8"])
    assert ours["completed"] == raw["completed"] == 100


def test_memory_and_speed_are_better_above_one() -> None:
    ours = [{"rate": 100.0, "peak_memory": 50 * 2**20}]
    peer = [{"rate": 5.0, "peak_memory": 200 * 2**20}]
    fast, small = runner.speed("fast", ours, peer, 20), runner.memory("small", ours, peer)
    assert (fast["ratio"], fast["met"]) == (20, True)
    assert (small["ratio"], small["met"]) == (4, True)
    assert not runner.speed("slow", peer, ours, 1)["met"]
    assert not runner.memory("large", peer, ours)["met"]


@pytest.mark.slow
def test_results_compares_what_the_peer_compares() -> None:
    found = measured("results", "--rows", "300", "--few-rows", "60", "--repeats", "1")
    assert {"reading", "comparing"} <= {part["name"] for part in found["parts"]}
    assert found["ratio"] == pytest.approx(found["peer"] / found["ours"])
    assert found["met"] == (found["ours"] < results.GOAL_S)


@pytest.mark.slow
def test_a_sweep_tunes_every_configuration_and_counts_the_loop_for_each() -> None:
    found = measured("sweep", "--characters", "40000")
    [alone] = found["parts"]
    assert found["ours"] == alone["ours"]
    [loop] = found["runs"].values()
    assert found["peer"] == pytest.approx(16 * sum(loop))
    assert found["notes"][0].startswith("48 configurations")


@pytest.mark.slow
def test_a_search_is_asked_of_both_and_chroma_must_find_the_nearest() -> None:
    pytest.importorskip("chromadb")
    found = measured("search", "--chunks", "400")
    assert [part["name"] for part in found["parts"]] == ["400 chunks, dense", "400 chunks, sparse"]
    assert any("with ef_search=" in note for note in found["notes"])
    assert found["met"] == (found["ours"] <= found["peer"])


def test_edited_texts_are_distinct_and_mostly_the_same() -> None:
    given = ["the otter swims in a river of stones", "---", "a badger digs under the old oak tree"]
    found = texts.edited(given, 12, seed=1)
    assert found[:3] == given
    assert len(set(found)) == 12
    for copy in found[3:]:
        assert any(len(set(copy.split()) & set(source.split())) >= 4 for source in given)


def test_a_peer_that_finds_another_difference_is_an_error() -> None:
    results.check_same({"exact": [0.25, 0.1, 0.4, 0.03]}, {"exact": [0.25, 0.2, 0.3, 0.02]})
    with pytest.raises(harness.BenchmarkError, match="exact"):
        results.check_same({"exact": [0.25, 0.1, 0.4, 0.03]}, {"exact": [0.26, 0.2, 0.3, 0.02]})


def test_the_drawn_run_is_one_that_a_run_can_read(tmp_path: Path) -> None:
    from workbench.experiments.run import Run

    results.write_run(tmp_path / "drawn", 40)
    run = Run(tmp_path / "drawn")
    assert run.complete
    assert run.scores().height == 2 * 40 * 3
    comparison = run.compare()
    assert [row.scorer for row in comparison.rows] == ["exact", "token_f1", "latency"]
    assert [row.kind for row in comparison.rows] == ["binary", "continuous", "continuous"]
    assert [row.family for row in comparison.rows] == ["quality", "quality", "resource"]
    assert {row.n for row in comparison.rows} == {40}


def test_rows_for_the_peer_are_spread_over_all() -> None:
    assert engine.spread(range(100), 4) == [0, 25, 50, 75]
    assert engine.spread("ab", 5) == ["a", "b"]


def test_the_shared_prefix_is_counted_in_tokens() -> None:
    assert engine.common_prefix([[1, 2, 3, 4], [1, 2, 9], [1, 2, 3]]) == 2
    assert engine.common_prefix([[1, 2], [1, 2]]) == 2
    assert engine.common_prefix([[5], [6]]) == 0


@pytest.mark.slow
@pytest.mark.model
def test_the_engine_benchmark_checks_prefix_and_outputs() -> None:
    found = measured("engine", "--rows", "3", "--peer-rows", "3", "--same-rows", "2")
    speed, same = found["parts"]
    assert found["ratio"] == speed["ratio"]
    assert 0 <= same["ours"] <= 1
    assert all(len(values) == 2 for values in found["runs"].values())
    prefixes = [int(count) for count in re.findall(r"(\d+) tokens", found["notes"][0])]
    assert len(prefixes) == 2
    assert all(count >= engine.FEWEST_PREFIX for count in prefixes)


def training(rate: float, loss: float) -> list[dict[str, Any]]:
    return [{"rate": rate, "loss": loss, "peak_memory": 2**30}]


def test_a_training_must_be_faster_and_no_worse() -> None:
    peer, tight = training(100, 0.5), training(200, 0.5)
    for rate, loss, met in ((151, 0.5, [True, True]), (151, 0.51, [True, False]), (149, 0.4, [False, True])):
        parts = finetune.compared({"ours": training(rate, loss), "tight": tight, "peer": peer})
        assert [part["met"] for part in parts if "goal" in part] == met
        assert parts[0]["ratio"] == pytest.approx(rate / 100)
        assert parts[1]["ratio"] == pytest.approx(0.5 / loss)


def test_a_step_is_timed_after_the_first_and_the_plan_held_against_the_peak() -> None:
    parts = finetune.by_quantization({"nf4": {"seconds": [9.0, 2.0, 4.0], "told": 3 * 2**20, "peak_memory": 4 * 2**20}})
    assert [part["ours"] for part in parts] == [3.0, 4.0, 3.0, 0.75]
    assert not any("goal" in part for part in parts)


@pytest.mark.slow
@pytest.mark.model
def test_the_finetune_benchmark_trains_both_on_the_same_tokens(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    losses = []
    for name in ("ours", "peer"):
        folder = tmp_path / name
        folder.mkdir()
        finetune.make_workspace(folder, 8, 2)
        found = finetune.in_child(name, folder, 2)
        assert (found["steps"], found["tokens"]) == (2, 3652)
        assert found["seconds"] > 0
        losses.append(finetune.in_child("loss", folder, 1, "--adapter", found["adapter"]))
    assert losses[0]["learned"] == losses[1]["learned"] > 0
    assert all(0 < loss["loss"] < 5 for loss in losses)


@pytest.mark.slow
@pytest.mark.model
def test_what_the_plan_tells_is_held_against_the_process_that_trains(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    finetune.make_workspace(tmp_path, 8, 2)
    found = finetune.in_child("int8", tmp_path, 2)
    assert len(found["seconds"]) == 2
    assert found["parts"]["peak"] * finetune.MB == pytest.approx(found["told"], rel=1e-3)
    assert found["told"] == pytest.approx(found["peak_memory"], rel=0.25)


def test_the_registry_benchmark_measures_what_it_made() -> None:
    found = measured("registry", "--versions", "50", "--megabytes", "1", "--rows", "60", "--repeats", "1")
    assert [part["name"] for part in found["parts"]] == [
        "verify",
        "resolve an alias, median",
        "list 50 versions",
        "promote 120 calls, without the gate",
        "roll back",
    ]
    assert found["met"] == all(part["met"] for part in found["parts"])
    assert found["ratio"] == pytest.approx(found["ours"] / found["peer"])


def test_the_events_benchmark_asks_what_it_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    sizes = ["--rows", "20000", "--burst", "100", "--written", "800", "--repeats", "1"]
    found = measured("events", *sizes, "--no-peer")
    assert found["parts"]
    assert all(part["ours"] >= 0 for part in found["parts"])


@pytest.mark.slow
def test_the_apps_benchmark_sees_what_viewers_see() -> None:
    pytest.importorskip("marimo")
    found = measured("apps", "--viewers", "2", "--within", "1")
    named = {part["name"]: part["ours"] for part in found["parts"]}
    assert 0 < named["first paint of one viewer alone"] <= named["first paint after the start"]
    assert named["memory with all of them"] > 50
