"""False claims and power of the decision: simulated experiments through the code that judges real ones.

A simulated experiment is two variants answering the same rows with a binary scorer: its scores, calls and manifest are
what a run stores, and its decision is that of `compare`. With early stopping the run's own `Watch` looks at every 16
rows, and `compare` judges the rows up to where it stopped. Without a true difference every "better" or "worse" is a
false claim; at the smallest difference that a plan names, the share of "better" must be the power that it promises.

It takes three minutes of one core, most of them for the looks.

    python -m benchmarks.statistics [--json]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import polars as pl

from benchmarks.harness import Part, parser, report
from workbench.experiments import scorers
from workbench.experiments.compare import compare
from workbench.experiments.decision import Outcome
from workbench.experiments.power import smallest_difference
from workbench.experiments.records import Call, RunManifest, Score, frame
from workbench.experiments.statistics import wilson
from workbench.experiments.stopping import EarlyStopping, Watch

Scores = npt.NDArray[np.float64]

EXPERIMENTS = 2001
ROWS = 200
DISCORDANCES = (0.1, 0.3, 0.6)
RULE = EarlyStopping(every=16)
POWER, NOMINAL = 0.8, 0.05
VARIANTS = ("baseline", "variant")
SCORER = scorers.exact()


@dataclass(frozen=True)
class Found:
    """Outcome of one simulated experiment and the rows that it took."""

    outcome: Outcome
    rows: int


def main(arguments: Sequence[str] | None = None) -> None:
    json_output = parser(__doc__).parse_args(arguments).json
    fixed, early = false_claims(None), false_claims(RULE)
    rate, peeking = claims(fixed), claims(early)
    difference = _planned()
    shown = simulate(EXPERIMENTS, difference, 0.3, None, seed=1)
    soon = simulate(EXPERIMENTS // 3, difference, 0.3, RULE, seed=1)
    power, power_early = better(shown), better(soon)
    parts: list[Part] = [
        _rate("A/A, early stopping", peeking, len(early)),
        *(_explained(f"A/A, {share:.0%} of rows differ", fixed[i::3]) for i, share in enumerate(DISCORDANCES)),
        *(_explained(f"A/A, {share:.0%}, early stopping", early[i::3]) for i, share in enumerate(DISCORDANCES)),
        Part(
            name=f"power at {difference:.3f}",
            ours=power,
            peer=POWER,
            ratio=power / POWER,
            unit="share",
            goal=f"within 3 points of the plan; {_interval(power, len(shown))}",
            met=abs(power - POWER) <= 0.03,
        ),
        Part(name="power, early stopping", ours=power_early, peer=power, unit="share"),
        Part(name="rows, early stopping", ours=float(np.mean([f.rows for f in soon])), peer=float(ROWS), unit="rows"),
    ]
    report(
        "statistics: A/A",
        ours=rate,
        peer=NOMINAL,
        ratio=rate / NOMINAL,
        goal=f"at most 5% false claims; {_interval(rate, len(fixed))}",
        met=rate <= NOMINAL and all(part.get("met", True) for part in parts),
        unit="share",
        parts=parts,
        json_output=json_output,
        packages=("llmops-workbench", "numpy", "polars", "scipy"),
        notes=(
            f"{EXPERIMENTS:,} experiments of {ROWS} rows, 10%, 30% and 60% of the rows differing in turn.",
            "The peer is the nominal rate (for power, the planned one): a ratio below 1 is good for A/A.",
            f"Early stopping looks every {RULE.every} rows; its power is of {len(soon):,} experiments.",
            f"The plan's smallest difference is for {POWER:.0%} power, {ROWS} rows and 30% of rows that differ.",
        ),
    )


def false_claims(rule: EarlyStopping | None) -> list[Found]:
    """Experiments without a difference, the discordances in turn."""
    each = EXPERIMENTS // len(DISCORDANCES)
    found = [simulate(each, 0.0, share, rule, seed=place) for place, share in enumerate(DISCORDANCES)]
    return [one for together in zip(*found, strict=True) for one in together]


def simulate(
    experiments: int, difference: float, discordance: float, rule: EarlyStopping | None, *, seed: int
) -> list[Found]:
    """Decisions of experiments whose true difference and share of differing rows are known."""
    rng = np.random.default_rng(seed)
    fixed, broke = (discordance + difference) / 2, (discordance - difference) / 2
    rest = 1 - discordance
    # Baseline and variant of a row: 0 0, 0 1 (fixed), 1 0 (broke), 1 1.
    cells = rng.choice(4, p=[0.4 * rest, fixed, broke, 0.6 * rest], size=(experiments, ROWS))
    return [judged(np.stack([table // 2, table % 2]).astype(np.float64), rule) for table in cells]


def judged(scores: Scores, rule: EarlyStopping | None) -> Found:
    """The decision on scores of shape (2, rows), by the workbench's own code."""
    rows = scores.shape[1]
    ids = [f"row-{place:04}" for place in range(rows)]
    if rule is not None:
        ids = rule.order(ids)
        watch = Watch(rule, VARIANTS, SCORER, (0.0, 1.0), 1)
        done = 0
        while done < rows:
            end = min(done + rule.every, rows)
            for place in range(done, end):
                for variant, values in zip(VARIANTS, scores, strict=True):
                    watch.add(variant, ids[place], 0, float(values[place]))
            done = end
            if watch.decided(ids[:done]):
                break
        ids, scores = ids[:done], scores[:, :done]
    asked = len(ids)
    table = _score_columns(tuple(ids)).with_columns(value=pl.Series(scores.ravel()))
    decision = compare(table, _calls(tuple(ids)), _manifest(rule)).decision("variant")
    return Found(decision.outcome, asked)


def claims(found: Sequence[Found]) -> float:
    """Share of experiments that called the variant better or worse."""
    return float(np.mean([one.outcome in ("better", "worse") for one in found]))


def better(found: Sequence[Found]) -> float:
    return float(np.mean([one.outcome == "better" for one in found]))


def _planned() -> float:
    found = smallest_difference(ROWS, "binary", discordance=0.3, power=POWER)
    assert found is not None
    return found


@cache
def _score_columns(ids: tuple[str, ...]) -> pl.DataFrame:
    constant = {"run_id": "run", "repeat": 0, "scorer": SCORER.name, "scorer_digest": SCORER.digest, "value": 0.0}
    rows = [constant | {"variant": variant, "row_id": row_id} for variant in VARIANTS for row_id in ids]
    return pl.DataFrame(rows, schema=frame([], Score).schema)


@cache
def _calls(ids: tuple[str, ...]) -> pl.DataFrame:
    rows = [{"variant": variant, "row_id": row_id, "repeat": 0} for variant in VARIANTS for row_id in ids]
    return pl.DataFrame(rows, schema=frame([], Call).schema)


@cache
def _manifest(rule: EarlyStopping | None) -> RunManifest:
    described = {
        "name": SCORER.name,
        "digest": SCORER.digest,
        "kind": SCORER.kind,
        "direction": SCORER.direction,
        "on_error": SCORER.on_error,
        "bounds": [0.0, 1.0],
        "config": SCORER.config(),
    }
    return RunManifest(
        run_id="run",
        experiment="simulated",
        experiment_digest="sha256:experiment",
        dataset="simulated",
        dataset_digest="sha256:dataset",
        split=None,
        rows=ROWS,
        repeats=1,
        variants={name: {} for name in VARIANTS},
        pipeline_digests={name: f"sha256:{name}" for name in VARIANTS},
        scorers=[described],
        primary=SCORER.name,
        models={},
        command=[],
        started_at="2025-01-01T00:00:00Z",
        environment={},
        early_stopping=rule,
    )


def _rate(name: str, rate: float, experiments: int) -> Part:
    return Part(
        name=name,
        ours=rate,
        peer=NOMINAL,
        ratio=rate / NOMINAL,
        unit="share",
        goal=f"at most 5% false claims; {_interval(rate, experiments)}",
        met=rate <= NOMINAL,
    )


def _explained(name: str, found: Sequence[Found]) -> Part:
    return Part(name=name, ours=claims(found), peer=NOMINAL, ratio=claims(found) / NOMINAL, unit="share")


def _interval(share: float, experiments: int) -> str:
    low, high = wilson(share * experiments, experiments)
    return f"95% interval {low:.1%} to {high:.1%}"


if __name__ == "__main__":
    main()
