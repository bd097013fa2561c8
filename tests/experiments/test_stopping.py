"""Early stopping: a run ends when its decision is certain, and its numbers hold all the same."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.instant import InstantEngine
from tests.workspaces import make_experiment, make_workspace
from workbench import api
from workbench.errors import UsageError
from workbench.experiments import scorers
from workbench.experiments.stopping import EarlyStopping

ROWS = 600
RULE = EarlyStopping(every=20)


@pytest.fixture
def large(tmp_path: Path, instant: InstantEngine) -> api.Workspace:
    return make_workspace(tmp_path / "large", rows=ROWS)


def test_a_clear_difference_stops_early_and_is_decided(large: api.Workspace, instant: InstantEngine) -> None:
    run = make_experiment(large).run(stop_early=RULE)
    assert run.complete
    assert run.manifest.stopped_rows is not None
    assert run.manifest.stopped_rows % RULE.every == 0
    assert instant.asked == run.expected == len(run.calls()) == 2 * run.manifest.stopped_rows < 2 * ROWS
    # Four of five targets are in small letters, and the variant shouts.
    decision = run.compare().decision("loud")
    assert decision.outcome == "worse"
    row = run.compare().row("loud")
    assert row.method == "betting test and confidence sequence, valid at any time"
    assert row.low is not None
    assert row.high is not None
    assert row.low <= -0.6 <= row.high < 0
    assert run.compare().row("loud", "latency").p is None
    assert "loud is worse" in str(run.compare())
    assert make_experiment(large).run(stop_early=RULE).id == run.id


def test_no_difference_runs_to_the_end(large: api.Workspace) -> None:
    experiment = make_experiment(large)
    quiet = experiment.variants["quiet"]
    same = large.experiment(
        "same",
        dataset=experiment.dataset,
        variants={"a": quiet, "b": quiet},
        scorers=[scorers.exact()],
    ).run(stop_early=True)
    assert (same.manifest.stopped_rows, len(same.calls())) == (None, 2 * ROWS)
    assert same.compare().decision("b").outcome == "inconclusive"
    within = large.experiment(
        "same", dataset=experiment.dataset, variants={"a": quiet, "b": quiet}, scorers=[scorers.exact()]
    ).run(stop_early=EarlyStopping(margin=0.1))
    assert within.manifest.stopped_rows is not None
    assert within.compare(margin=0.1).decision("b").outcome == "equivalent"


def test_an_interrupted_run_stops_where_an_uninterrupted_one_does(
    tmp_path: Path, large: api.Workspace, instant: InstantEngine
) -> None:
    whole = make_experiment(large).run(stop_early=RULE)
    other = make_workspace(tmp_path / "other", rows=ROWS)
    instant.breaking = 7
    first = make_experiment(other).run(stop_early=RULE)
    instant.breaking = None
    again = make_experiment(other).run(stop_early=RULE)
    assert again.id == first.id
    assert again.complete
    assert again.failed == 0
    assert set(whole.calls()["row_id"]) <= set(again.calls()["row_id"])
    assert again.compare().decision("loud").outcome == "worse"


def test_the_order_is_the_seeds_and_not_the_files() -> None:
    ids = [f"q{n}" for n in range(50)]
    shuffled = random.Random(3).sample(ids, len(ids))
    assert EarlyStopping(seed=1).order(ids) == EarlyStopping(seed=1).order(shuffled)
    assert EarlyStopping(seed=1).order(ids) != EarlyStopping(seed=2).order(ids)


def test_what_cannot_stop_early_says_why(large: api.Workspace) -> None:
    experiment = make_experiment(large)
    slow = large.experiment(
        "slow", dataset=experiment.dataset, variants=experiment.variants, scorers=[scorers.latency()]
    )
    with pytest.raises(UsageError, match="latency has none"):
        slow.run(stop_early=True)
    alone = large.experiment(
        "one", dataset=experiment.dataset, variants={"a": experiment.variants["quiet"]}, scorers=[scorers.exact()]
    )
    with pytest.raises(UsageError, match="there is one"):
        alone.run(stop_early=True)
