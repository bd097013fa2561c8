"""The difference of two artifacts."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest

from tests.registry.conftest import CLEAR, MakeRun, pipelines
from workbench.experiments.run import Run
from workbench.models.engine import Generation
from workbench.pipeline.steps import Python, Strip
from workbench.registry.artifact import Artifact
from workbench.registry.diff import diff
from workbench.registry.policy import DecisionPolicy, Policy
from workbench.registry.promote import promote
from workbench.workspace import Layout


@pytest.fixture
def two(layout: Layout, make_run: MakeRun) -> tuple[Artifact, Artifact]:
    """The second has another prompt, setting, Python step and library than the first."""
    first = promote(layout, make_run(), "greet", "few")
    variants = pipelines()
    variants["few"] = variants["few"].with_(
        prompt=variants["base"].prompt,
        generation=Generation(max_new_tokens=8),
        postprocess=(Strip(), Python(name="shout", source="def postprocess(value):\n    return value.upper() + '!'\n")),
    )
    environment = {"python": "3.11.7", "platform": "Linux", "polars": "2.2.0"}
    run = make_run(
        {"base": CLEAR["base"], "few": [True] * 55 + [False] * 5},
        run_id="run-2",
        variants=variants,
        changes={"environment": environment},
    )
    return first, promote(layout, run, "greet", "few")


def test_every_kind_of_change_is_shown(two: tuple[Artifact, Artifact]) -> None:
    found = diff(*two)
    assert found
    assert "-Be brief and right." in found.prompt
    assert "+Be brief." in found.prompt
    assert found.settings == {"generation.max_new_tokens": (64, 8)}
    assert "+    return value.upper() + '!'" in found.files["postprocess/shout.py"]
    assert found.environment == {"polars": ("2.1.0", "2.2.0"), "jinja2": ("3.1.6", None)}
    assert found.evidence["run"] == ("run-1", "run-2")
    assert found.evidence["mean exact"] == (pytest.approx(50 / 60), pytest.approx(55 / 60))
    text = str(found)
    assert text.startswith("greet@1 → greet@2\n")
    assert "generation.max_new_tokens: 64 → 8" in text
    assert "jinja2: 3.1.6 → none" in text
    assert json.loads(json.dumps(found.to_json()))["settings"] == {
        "generation.max_new_tokens": {"before": 64, "after": 8}
    }
    assert "mean exact" in found._repr_html_()


def test_rows_that_got_better_and_worse_are_told(layout: Layout, make_run: MakeRun) -> None:
    first = promote(layout, make_run(), "greet", "few")
    # Of the 50 rows that were right two are wrong now, and of the 10 that were wrong seven are right.
    answers = [False, False, *[True] * 55, False, False, False]
    second = promote(layout, make_run({"base": CLEAR["base"], "few": answers}, run_id="run-2"), "greet", "few")
    found = diff(first, second)
    assert (found.shared, found.fixed, found.broken) == (60, 7, 2)
    assert [row.row_id for row in found.rows[:3]] == ["row-000", "row-001", "row-050"]
    assert str(found.rows[0]) == "WORSE  row-000: 'YES' → 'NO'"
    assert "rows: of 60 that both were asked, 7 got better and 2 got worse" in str(found)
    assert found.to_json()["rows"]["changed"][2] == {
        "row_id": "row-050",
        "before": 0.0,
        "after": 1.0,
        "output_before": "NO",
        "output_after": "YES",
    }
    assert "7 got better" in found._repr_html_()


def test_rows_that_are_scored_on_one_side_only_are_told_apart(layout: Layout, make_run: MakeRun) -> None:
    """An error without a score is not a row that got worse, and it is not left out."""

    def without(*rows: str, run_id: str) -> Artifact:
        def edit(call: dict[str, Any]) -> dict[str, Any]:
            gone = call["variant"] == "few" and call["row_id"] in rows
            return {**call, "output": None, "error_kind": "failed", "error": "out of memory"} if gone else call

        run = make_run(run_id=run_id, edit=edit)
        gone = (pl.col("variant") == "few") & pl.col("row_id").is_in(rows)
        scores = run.scores().with_columns(value=pl.when(gone).then(None).otherwise("value"))
        scores.write_parquet(run.folder / "scores.parquet")
        return promote(layout, Run(run.folder), "greet", "few", policy=Policy(decision=DecisionPolicy(minimum="none")))

    found = diff(without("row-003", run_id="run-1"), without("row-000", "row-055", run_id="run-2"))
    assert (found.shared, found.rows) == (60, ())
    assert [row.row_id for row in found.no_longer_scored] == ["row-000", "row-055"]
    assert [row.row_id for row in found.newly_scored] == ["row-003"]
    text = str(found)
    assert "got worse; 2 are no longer scored; 1 is newly scored" in text
    assert "NO LONGER SCORED row-000: 'YES' → 'out of memory'" in text
    assert "newly scored row-003: 'out of memory' → 'YES'" in text
    told = found.to_json()["rows"]
    assert [row["row_id"] for row in told["no_longer_scored"]] == ["row-000", "row-055"]
    assert told["newly_scored"][0]["output_after"] == "YES"
    assert "not scored: out of memory" in found._repr_html_()


def test_an_artifact_does_not_differ_from_itself(two: tuple[Artifact, Artifact]) -> None:
    found = diff(two[0], two[0])
    assert not found
    assert str(found) == "greet@1 → greet@1: the same pipeline"


def test_text_of_a_prompt_is_escaped_in_a_notebook(layout: Layout, make_run: MakeRun) -> None:
    variants = pipelines()
    first = promote(layout, make_run(), "greet", "few")
    messages = [{"role": "user", "content": "<script>alert(1)</script> {{ text }}"}]
    variants["few"] = variants["few"].with_(prompt=type(variants["few"].prompt).from_messages(messages))
    second = promote(layout, make_run(run_id="run-2", variants=variants), "greet", "few")
    shown = diff(first, second)._repr_html_()
    assert "&lt;script&gt;" in shown
    assert "<script>" not in shown
