"""Comparisons and decisions on runs whose scores are known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from workbench.errors import ComparisonError, UsageError
from workbench.experiments import scorers
from workbench.experiments.compare import Comparison, Decision, compare
from workbench.experiments.records import Call, RunManifest, Score, frame
from workbench.experiments.statistics import mcnemar_exact, newcombe_paired, permutation_p, wilson
from workbench.files import canonical_json

Values = Mapping[str, Sequence[float | None]]


def manifest(used: Sequence[scorers.BaseScorer], variants: Sequence[str], repeats: int = 1) -> RunManifest:
    return RunManifest(
        run_id="run-1",
        experiment="triage",
        experiment_digest="sha256:e",
        dataset="tickets",
        dataset_digest="sha256:d",
        split="test",
        rows=0,
        repeats=repeats,
        variants={name: {} for name in variants},
        pipeline_digests={name: f"sha256:{name}" for name in variants},
        scorers=[
            {
                "name": scorer.name,
                "digest": scorer.digest,
                "kind": scorer.kind,
                "direction": scorer.direction,
                "on_error": scorer.on_error,
                "config": scorer.config(),
            }
            for scorer in used
        ],
        primary=used[0].name,
        models={},
        command=[],
        started_at="2025-01-01T00:00:00Z",
        environment={},
    )


def record(kind: type[Any], **values: Any) -> Any:
    """A record with what is not given at its type's zero."""
    zeros = {"int": 0, "float": 0.0, "bool": False, "str": ""}
    return kind(**{f.name: values.get(f.name, zeros.get(str(f.type))) for f in fields(kind)})


def run(
    values: Mapping[str, Values],
    used: Sequence[scorers.BaseScorer],
    *,
    groups: Sequence[str] | None = None,
    repeats: int = 1,
    errors: Mapping[tuple[str, int], str] | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame, RunManifest]:
    """Scores, calls and manifest of a run: `values` by scorer and variant, a number for each row (and each repeat)."""
    digests = {scorer.name: scorer.digest for scorer in used}
    calls: list[Call] = []
    scored: list[Score] = []
    variants = list(next(iter(values.values())))
    for variant in variants:
        for place in range(len(next(iter(values.values()))[variant])):
            row, repeat = divmod(place, repeats)
            key = {"run_id": "run-1", "variant": variant, "row_id": f"r{row:03}", "repeat": repeat}
            calls.append(
                record(
                    Call,
                    **key,
                    input=f'{{"text":"message {row}"}}',
                    target='"bug"',
                    output=f"{variant} says {row}",
                    result='"bug"',
                    group=groups[row] if groups else None,
                    error_kind=(errors or {}).get((variant, row)),
                )
            )
            for name, by_variant in values.items():
                scored.append(
                    record(Score, **key, scorer=name, scorer_digest=digests[name], value=by_variant[variant][place])
                )
    return frame(scored, Score), frame(calls, Call), manifest(used, variants, repeats)


EXACT = [scorers.exact()]
F1 = [scorers.token_f1()]


def binary(both: int, fixed: int, broke: int, neither: int) -> dict[str, list[float]]:
    """Scores of base and new with the four counts of a paired table."""
    return {
        "base": [1.0] * both + [0.0] * fixed + [1.0] * broke + [0.0] * neither,
        "new": [1.0] * both + [1.0] * fixed + [0.0] * broke + [0.0] * neither,
    }


def test_binary_scores_are_judged_by_mcnemar_and_newcombe() -> None:
    row = compare(*run({"exact": binary(80, 30, 10, 40)}, EXACT)).row("new")
    assert (row.kind, row.n, row.fixed, row.broke, row.clusters) == ("binary", 160, 30, 10, None)
    assert (row.baseline_mean, row.variant_mean) == (90 / 160, 110 / 160)
    assert row.difference == pytest.approx(20 / 160)
    assert (row.low, row.high) == newcombe_paired(80, 30, 10, 40)
    assert row.p == row.p_holm == mcnemar_exact(30, 10)
    assert row.baseline_interval == wilson(90, 160)
    assert row.variant_interval == wilson(110, 160)
    assert row.discordance == 40 / 160


def test_better_worse_and_over_which_baseline() -> None:
    data = run({"exact": binary(80, 30, 10, 40)}, EXACT)
    better = compare(*data).decision("new", over="base")
    assert better.outcome == "better"
    assert better.rows_needed is None
    assert better.sentence == (
        "new is better than base on exact: 68.8% against 56.2% (difference +12.5 points, 95% interval +4.8 to +19.9, "
        "adjusted p = 0.002, 160 rows)."
    )
    assert compare(*data, baseline="new").decision("base").outcome == "worse"
    with pytest.raises(ComparisonError, match=r"over base, not new. Run: run.compare\(baseline='new'\)"):
        compare(*data).decision("new", over="new")


def test_less_is_better_where_the_scorer_says_so() -> None:
    rng = np.random.default_rng(0)
    slow = rng.lognormal(0, 0.3, 60)
    comparison = compare(*run({"latency": {"base": list(slow), "new": list(slow * 0.5)}}, [scorers.latency()]))
    decision = comparison.decision("new")
    assert decision.outcome == "better"
    assert decision.difference is not None
    assert decision.difference < 0
    assert " s against " in decision.sentence


def test_too_little_evidence_is_inconclusive_and_says_how_much_would_do() -> None:
    decision = compare(*run({"exact": binary(20, 6, 3, 11)}, EXACT)).decision("new")
    assert decision.outcome == "inconclusive"
    assert decision.rows_needed is not None
    assert decision.rows_needed > 40
    assert f"About {decision.rows_needed:,} rows" in decision.sentence


def test_no_difference_at_all_names_no_number_of_rows() -> None:
    decision = compare(*run({"exact": binary(20, 0, 0, 20)}, EXACT)).decision("new")
    assert (decision.outcome, decision.difference, decision.p_holm) == ("inconclusive", 0, 1)
    assert decision.rows_needed is None
    assert "no number of rows can be named" in decision.sentence


def test_equivalence_needs_a_margin_and_an_interval_within_it() -> None:
    data = run({"exact": binary(300, 8, 8, 84)}, EXACT)
    assert compare(*data).decision("new").outcome == "inconclusive"
    assert compare(*data).decision("new").non_inferior is None
    wide = compare(*data, margin=0.05).decision("new")
    assert (wide.outcome, wide.non_inferior, wide.margin) == ("equivalent", True, 0.05)
    assert "within 5.0 points" in wide.sentence
    narrow = compare(*data, margin={"exact": 0.01}).decision("new")
    assert (narrow.outcome, narrow.non_inferior) == ("inconclusive", False)


def test_non_inferior_though_not_equivalent() -> None:
    decision = compare(*run({"exact": binary(100, 14, 6, 80)}, EXACT), margin=0.05).decision("new")
    assert (decision.outcome, decision.non_inferior) == ("inconclusive", True)
    assert "new is not worse by more than 5.0 points" in decision.sentence


def test_a_winner_within_the_margin_is_said_to_be_one() -> None:
    decision = compare(*run({"exact": binary(300, 20, 2, 78)}, EXACT), margin=0.2).decision("new")
    assert decision.outcome == "better"
    assert decision.sentence.endswith("The difference lies within the margin of 20.0 points.")


def test_rows_that_one_side_lacks_are_counted_and_left_out() -> None:
    base: list[float | None] = [1.0, 0.0, 1.0, None, 1.0, 0.0]
    new: list[float | None] = [1.0, 1.0, None, None, 1.0, 1.0]
    failures = {("new", 2): "engine", ("base", 3): "timeout", ("new", 4): "invalid_output"}
    scores, calls, found = run({"exact": {"base": base, "new": new}}, EXACT, errors=failures)
    gone = (pl.col("variant") == "new") & (pl.col("row_id") == "r005")
    row = compare(scores.filter(~gone), calls, found).row("new")
    assert (row.n, row.unpaired) == (3, 3)
    assert (row.errors, row.invalid) == ((1, 1), (1, 0))
    assert row.baseline_mean == pytest.approx(2 / 3), "of the paired rows"
    assert row.variant_mean == 1.0


def test_nothing_scored_is_unknown_not_zero() -> None:
    comparison = compare(*run({"exact": {"base": [None] * 4, "new": [1.0] * 4}}, EXACT), margin=0.1)
    row, decision = comparison.row("new"), comparison.decision("new")
    assert (row.n, row.unpaired) == (0, 4)
    assert (row.baseline_mean, row.variant_mean, row.p, row.p_holm) == (None, None, None, None)
    assert (decision.outcome, decision.difference, decision.non_inferior) == ("inconclusive", None, False)
    assert "no row that both have a score for" in decision.sentence
    json.dumps(comparison.to_json(), allow_nan=False)


def test_one_row_decides_nothing() -> None:
    for used in (EXACT, F1):
        decision = compare(*run({used[0].name: {"base": [0.0], "new": [1.0]}}, used)).decision("new")
        assert (decision.outcome, decision.p_holm) == ("inconclusive", 1.0)


def test_repeats_are_not_more_rows() -> None:
    """Asking five times each gives the same answers five times: no more evidence than asking once."""
    once = binary(20, 9, 2, 9)
    asked = {name: [score for score in column for _ in range(5)] for name, column in once.items()}
    row = compare(*run({"exact": asked}, EXACT, repeats=5)).row("new")
    diffs = np.array(once["new"]) - np.array(once["base"])
    assert (row.n, row.kind, row.fixed) == (40, "continuous", None)
    assert row.p == pytest.approx(permutation_p(diffs))
    assert row.p == pytest.approx(mcnemar_exact(9, 2)), "signs of single rows are coin tosses either way"


def test_rows_of_a_group_stand_or_fall_together() -> None:
    """Ten customers with eight rows each, one of whom likes the new prompt: 8 rows fixed, one independent change."""
    scores = binary(40, 8, 0, 32)
    alone = compare(*run({"exact": scores}, EXACT))
    grouped = compare(*run({"exact": scores}, EXACT, groups=[f"customer {row // 8}" for row in range(80)]))
    assert alone.decision("new").outcome == "better"
    assert grouped.decision("new").outcome == "inconclusive"
    row = grouped.row("new")
    assert (row.kind, row.clusters, row.fixed, row.p) == ("continuous", 10, 8, 1.0)
    assert "whole groups" in row.method
    assert "80 rows in 10 groups" in grouped.decision("new").sentence


def test_groups_of_one_row_are_no_groups() -> None:
    data = binary(40, 8, 2, 30)
    single = compare(*run({"exact": data}, EXACT, groups=[str(row) for row in range(80)])).row("new")
    assert single == compare(*run({"exact": data}, EXACT)).row("new")


def test_holm_covers_all_variants_and_quality_scorers_but_no_resource() -> None:
    rng = np.random.default_rng(1)
    used = [scorers.exact(), scorers.token_f1(), scorers.latency()]
    names = ("base", "a", "b")
    values: dict[str, Values] = {
        "exact": {name: list((rng.random(60) < 0.5 + 0.1 * i).astype(float)) for i, name in enumerate(names)},
        "token_f1": {name: list(rng.random(60)) for name in names},
        "latency": {name: list(rng.lognormal(0.2 * i, 0.1, 60)) for i, name in enumerate(names)},
    }
    comparison = compare(*run(values, used))
    quality = [row for row in comparison.rows if row.family == "quality"]
    resource = [row for row in comparison.rows if row.family == "resource"]
    assert [(row.variant, row.scorer) for row in comparison.rows[:3]] == [
        ("a", "exact"),
        ("a", "token_f1"),
        ("a", "latency"),
    ]
    assert (len(quality), len(resource)) == (4, 2)
    for family in (quality, resource):
        smallest = min(family, key=lambda row: row.p or 0)
        assert smallest.p is not None
        assert smallest.p_holm == pytest.approx(min(1.0, len(family) * smallest.p))


def test_a_sure_winner_alone_is_not_sure_among_many() -> None:
    """p = 0.039 of one comparison; with nine others that show nothing it is no longer evidence."""
    names = ["base", *(f"v{i}" for i in range(10))]
    columns = {name: binary(30, 0, 0, 30)["base"] for name in names} | {"v0": binary(30, 8, 1, 21)["new"]}
    columns["base"] = binary(30, 8, 1, 21)["base"]
    columns |= {f"v{i}": columns["base"] for i in range(1, 10)}
    many = compare(*run({"exact": columns}, EXACT))
    few = compare(*run({"exact": {"base": columns["base"], "v0": columns["v0"]}}, EXACT))
    assert few.decision("v0").outcome == "better"
    assert many.decision("v0").outcome == "inconclusive"
    needed, alone = many.decision("v0").rows_needed, few.row("v0").n
    assert needed is not None
    assert needed > alone


def test_a_a_runs_are_rarely_called_different() -> None:
    rng, runs, alarms = np.random.default_rng(2), 100, 0
    for _ in range(runs):
        hard = rng.random(40)
        columns = {name: list((rng.random(40) < hard).astype(float)) for name in ("base", "same", "again")}
        comparison = compare(*run({"exact": columns}, EXACT))
        alarms += any(comparison.decision(name).outcome != "inconclusive" for name in comparison.variants)
    assert alarms <= stats.binom.ppf(0.999, runs, 0.05)


def test_the_same_scores_give_the_same_bytes_in_any_order() -> None:
    rng = np.random.default_rng(3)
    scores, calls, found = run({"token_f1": {"base": list(rng.random(30)), "new": list(rng.random(30))}}, F1)
    one = compare(scores, calls, found)
    two = compare(scores.reverse(), calls.sample(fraction=1, shuffle=True, seed=1), found)
    assert canonical_json(one.to_json()) == canonical_json(two.to_json())
    other = scores.with_columns(pl.when(pl.col("row_id") == "r000").then(0.5).otherwise("value").alias("value"))
    assert compare(other, calls, found).evidence != one.evidence


def test_a_journey_through_json() -> None:
    comparison = compare(*run({"exact": binary(20, 9, 2, 9)}, EXACT), margin=0.1)
    read = Comparison.from_json(json.loads(json.dumps(comparison.to_json())))
    assert read == comparison
    decision = read.decision("new")
    assert decision == comparison.decision("new")
    assert Decision.from_json(json.loads(json.dumps(decision.to_json()))) == decision
    with pytest.raises(ComparisonError, match="holds no rows"):
        read.disagreements("new")
    with pytest.raises(ComparisonError, match="format 2"):
        Comparison.from_json(comparison.to_json() | {"format_version": 2})
    with pytest.raises(ComparisonError, match="malformed"):
        Comparison.from_json(comparison.to_json() | {"rows": [{"variant": "new"}]})


def test_disagreements_show_both_answers_and_what_broke_first() -> None:
    found = compare(*run({"exact": binary(1, 2, 1, 1)}, EXACT)).disagreements("new")
    assert found.get_column("row_id").to_list() == ["r003", "r001", "r002"]
    assert found.get_column("change").to_list() == ["broke", "fixed", "fixed"]
    assert found.row(0, named=True) == {
        "row_id": "r003",
        "change": "broke",
        "input": '{"text":"message 3"}',
        "target": '"bug"',
        "baseline_output": "base says 3",
        "baseline_result": '"bug"',
        "variant_output": "new says 3",
        "variant_result": '"bug"',
        "baseline_value": 1.0,
        "variant_value": 0.0,
    }


def test_more_seconds_are_for_the_worse() -> None:
    taken = {"latency": {"base": [1.0, 1.0], "new": [2.0, 0.5]}}
    found = compare(*run(taken, [scorers.latency()])).disagreements("new")
    assert dict(zip(found["row_id"], found["change"], strict=True)) == {"r000": "broke", "r001": "fixed"}


def test_it_shows_itself() -> None:
    comparison = compare(*run({"exact": {"<base>": [0.0] * 8, "new": [1.0] * 8}}, EXACT))
    text, page = str(comparison), comparison._repr_html_()
    assert "8/0" in text
    assert "+100.0" in text
    assert text.endswith(comparison.decision("new").sentence)
    assert "<base>" not in page
    assert "&lt;base&gt;" in page
    table = comparison.table()
    assert table.select("variant", "scorer", "n", "fixed", "outcome").row(0) == ("new", "exact", 8, 8, "better")
    assert table.schema["p_holm"] == pl.Float64


def test_names_that_are_not_there() -> None:
    data = run({"exact": binary(4, 1, 1, 4)}, EXACT)
    comparison = compare(*data)
    with pytest.raises(ComparisonError, match=r"no variant 'old'\. Compared: new"):
        comparison.decision("old")
    with pytest.raises(ComparisonError, match="base is the baseline"):
        comparison.decision("base")
    with pytest.raises(ComparisonError, match=r"no scorer 'bleu'\. Compared: exact"):
        comparison.decision("new", scorer="bleu")
    with pytest.raises(ComparisonError, match=r"no variant 'old'\. The run has: base, new"):
        compare(*data, baseline="old")


@pytest.mark.parametrize("options", [{"level": 95}, {"level": 0.5}, {"margin": 0}, {"margin": {"bleu": 0.1}}])
def test_settings_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        compare(*run({"exact": binary(4, 1, 1, 4)}, EXACT), **options)


def test_runs_that_cannot_be_compared() -> None:
    scores, calls, found = run({"exact": binary(4, 1, 1, 4)}, EXACT)
    with pytest.raises(ComparisonError, match="one variant"):
        compare(*run({"exact": {"base": [1.0]}}, EXACT))
    with pytest.raises(ComparisonError, match="scored twice"):
        compare(pl.concat([scores, scores.head(1)]), calls, found)
    mixed = scores.with_columns(
        pl.when(pl.col("variant") == "new").then(pl.lit("sha256:x")).otherwise("scorer_digest").alias("scorer_digest")
    )
    with pytest.raises(ComparisonError, match="unlike versions"):
        compare(mixed, calls, found)
