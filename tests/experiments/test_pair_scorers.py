"""A scorer of pairs is asked when both answers are there, and its scores live and die with the calls they judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from tests.instant import InstantEngine
from tests.workspaces import ROWS, make_experiment
from workbench import api
from workbench.experiments import scorers
from workbench.experiments.experiment import Experiment
from workbench.experiments.scorers.base import BaseScorer, Kind, ScoreInput, ScoreValue


@dataclass(frozen=True, kw_only=True)
class Louder(BaseScorer):
    """The answer with more capitals wins."""

    type: ClassVar[str] = "louder"
    needs_target: ClassVar[bool] = False
    name: str = "louder"
    kind: Kind = "continuous"

    def measure(self, item: ScoreInput) -> ScoreValue:
        return ScoreValue(None)

    def score_pairs(self, pairs: Sequence[tuple[ScoreInput, ScoreInput]]) -> list[ScoreValue]:
        counts = [[sum(map(str.isupper, str(side.result))) for side in pair] for pair in pairs]
        return [ScoreValue(0.5 if old == new else float(new > old)) for old, new in counts]


def experiment(workspace: api.Workspace) -> Experiment:
    plain = make_experiment(workspace)
    return workspace.experiment(
        "pairs", dataset=plain.dataset, variants=plain.variants, scorers=[scorers.exact(), Louder()]
    )


def test_the_difference_is_a_win_rate_minus_one_half(workspace: api.Workspace) -> None:
    run = experiment(workspace).run()
    row = run.compare().row("loud", "louder")
    ties = sum(word == word.upper() for word in run.calls().filter(variant="quiet")["output"])
    assert (row.n, row.baseline_mean) == (ROWS, 0.5)
    assert row.difference == (ROWS - ties) / ROWS - 0.5 * (1 - ties / ROWS)
    assert len(run.scores()) == 2 * ROWS * 2


def test_a_pair_is_judged_again_when_one_side_is_asked_again(workspace: api.Workspace, instant: InstantEngine) -> None:
    instant.failing = {"word7"}
    run = experiment(workspace).run()
    assert run.failed == 2
    failed = run.scores().filter(scorer="louder", row_id="q7", variant="loud")
    assert failed["value"].to_list() == [0.5]
    instant.failing = set()
    again = experiment(workspace).run()
    assert (again.id, again.failed, len(again.scores())) == (run.id, 0, 2 * ROWS * 2)
    assert again.scores().filter(scorer="louder", row_id="q7", variant="loud")["value"].to_list() == [1.0]
