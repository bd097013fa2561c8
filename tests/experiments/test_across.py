"""Two runs compared: only rows that both asked alike are paired, the rest is counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.instant import InstantEngine
from tests.workspaces import make_experiment, make_workspace
from workbench import api
from workbench.data.store import import_dataset
from workbench.errors import ComparisonError
from workbench.experiments import scorers
from workbench.experiments.run import Run


def rerun(workspace: api.Workspace, **changes: object) -> Run:
    experiment = make_experiment(workspace)
    arguments = {
        "dataset": experiment.dataset,
        "variants": experiment.variants,
        "scorers": [scorers.exact()],
        **changes,
    }
    return workspace.experiment("again", **arguments).run()  # type: ignore[arg-type]


def test_another_version_of_the_data_pairs_the_rows_that_stayed(workspace: api.Workspace) -> None:
    before = rerun(workspace)
    source = workspace.root / "questions.jsonl"
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    rows[3]["text"] += "!"
    rows[4]["label"] = "another"
    kept = [*rows[:30], {"id": "new", "text": "question new", "label": "new"}]
    source.write_text("".join(json.dumps(row) + "\n" for row in kept))
    arguments = {"input": ("text",), "target": ("label",), "id": "id"}
    import_dataset(workspace.layout, source, name="questions", replace=True, **arguments)  # type: ignore[arg-type]
    after = rerun(workspace, dataset=workspace.dataset("questions"))
    found = after.compare_with(before, variant="loud", earlier_variant="quiet")
    shared = found.shared
    assert (shared.paired, shared.changed, shared.only_before, shared.only_after) == (28, 2, 10, 1)
    assert not shared.same_dataset
    assert found.comparison.row("loud").n == 28
    assert "28 rows are paired, 2 changed since" in str(found)


def test_the_same_variant_months_apart_is_told_apart_by_its_run(workspace: api.Workspace) -> None:
    before, after = rerun(workspace), make_experiment(workspace).run(fresh=True)
    found = after.compare_with(before, variant="loud")
    [variant] = found.comparison.variants
    assert after.id in variant
    assert found.comparison.row(variant).difference == 0
    assert found.shared.dropped_scorers == ("latency",)


def test_what_cannot_be_compared_says_so(workspace: api.Workspace, tmp_path: Path, instant: InstantEngine) -> None:
    run = rerun(workspace)
    other = make_workspace(tmp_path / "other", rows=2)
    (other.root / "questions.jsonl").write_text('{"id": "x", "text": "a b", "label": "b"}\n')
    import_dataset(other.layout, other.root / "questions.jsonl", name="x", input=("text",), target=("label",), id="id")
    with pytest.raises(ComparisonError, match="no row in common"):
        rerun(other, dataset=other.dataset("x")).compare_with(run, variant="loud")
    with pytest.raises(ComparisonError, match="no variant 'soft'"):
        run.compare_with(run, variant="soft")
    with pytest.raises(ComparisonError, match="Say which"):
        run.compare_with(run)
    with pytest.raises(ComparisonError, match="no scorer in common"):
        rerun(workspace, scorers=[scorers.normalized()]).compare_with(run, variant="loud")
