"""The arithmetic of the looks ahead, against plain computation and simulation."""

from __future__ import annotations

import math
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.analytics.spending import project_spending
from workbench.analytics.whatif import FEWEST_PAIRS, Pairs, Side, Sums, mix, pareto
from workbench.errors import UsageError
from workbench.experiments.statistics import cluster_sums, newcombe_paired, standard_error, wilson


def side(name: str, quality: npt.NDArray[np.float64], cost: npt.NDArray[np.float64], calls: int | None = None) -> Side:
    one = np.ones(len(quality)), np.ones(len(cost))
    return Side(name, calls or len(cost), Sums.of(quality, one[0]), Sums.of(cost, one[1]))


def test_sums_know_the_mean_and_its_error_with_inputs_as_units() -> None:
    rng = np.random.default_rng(1)
    clusters = rng.integers(0, 40, 300)
    values = rng.random(300) + clusters / 40
    totals, counts = cluster_sums(values, clusters.tolist())
    found = Sums.of(totals, counts)
    assert found.mean == pytest.approx(values.mean())
    assert found.error == pytest.approx(standard_error(totals, counts))
    half = Sums.of(totals[:20], counts[:20]) + Sums.of(totals[20:], counts[20:])
    assert half.error == pytest.approx(found.error)


@pytest.mark.parametrize(("right", "rows"), [(7, 10), (0, 12), (12, 12), (450, 500)])
def test_a_share_of_right_answers_has_wilsons_interval(right: int, rows: int) -> None:
    found = Sums.of([1.0] * right + [0.0] * (rows - right), np.ones(rows)).share()
    assert (found.low, found.high) == pytest.approx(wilson(right, rows))


def test_a_mean_of_one_unit_has_no_interval() -> None:
    found = Sums.of([0.5], [1]).amount()
    assert found.value == 0.5
    assert math.isnan(found.low)


def test_at_its_ends_a_mix_is_the_one_model_or_the_other() -> None:
    rng = np.random.default_rng(2)
    small = side("small", (rng.random(200) < 0.7).astype(float), rng.gamma(2, 0.001, 400))
    large = side("large", (rng.random(300) < 0.9).astype(float), rng.gamma(2, 0.02, 600))
    all_small, all_large = mix(1, small, large), mix(0, small, large)
    assert vars(all_small.quality) == pytest.approx(vars(small.quality.share()))
    assert vars(all_large.cost) == pytest.approx(vars(large.cost.amount()))
    assert all_small.now == pytest.approx(0.4)
    today = mix(0.4, small, large)
    assert vars(today.quality_change) == pytest.approx({"value": 0, "low": 0, "high": 0}, abs=1e-12)
    # More of the cheap one is cheaper, and never better.
    more = mix(0.6, small, large)
    assert more.cost_change.high < 0
    assert more.quality_change.value < 0


def test_enough_inputs_that_both_answered_are_used_alone() -> None:
    rng = np.random.default_rng(3)
    hard = rng.normal(size=FEWEST_PAIRS)
    first, second = (hard < 0.3).astype(float), (hard < 1.5).astype(float)
    sides = [side(name, rng.random(50).round(), rng.random(50)) for name in ("small", "large")]
    cost = Pairs.of(rng.random(FEWEST_PAIRS), rng.random(FEWEST_PAIRS) + 1)
    found = mix(0.6, sides[0], sides[1], (Pairs.of(first, second), cost))
    assert found.pairs == FEWEST_PAIRS
    assert found.quality.value == pytest.approx(0.6 * first.mean() + 0.4 * second.mean())
    few = (Pairs.of(first[:-1], second[:-1]), cost)
    assert mix(0.6, sides[0], sides[1], few).pairs == 0


def test_the_interval_of_a_paired_difference_is_near_newcombes() -> None:
    both, only_first, only_second, neither = 60, 8, 21, 11
    first = np.repeat([1.0, 1, 0, 0], [both, only_first, only_second, neither])
    second = np.repeat([1.0, 0, 1, 0], [both, only_first, only_second, neither])
    pairs = Pairs.of(first, second)
    zero = side("zero", np.zeros(5), np.ones(10_000), calls=1), side("other", np.zeros(5), np.ones(2), calls=10**9)
    found = mix(1, *zero, (pairs, pairs)).quality_change
    low, high = newcombe_paired(both, only_first, only_second, neither)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.012)


def test_where_no_pair_differs_the_change_is_still_not_certain() -> None:
    same = Pairs.of(np.ones(FEWEST_PAIRS), np.ones(FEWEST_PAIRS))
    sides = [side(name, np.ones(40), np.ones(40)) for name in ("small", "large")]
    found = mix(0.9, sides[0], sides[1], (same, same)).quality_change
    assert found.low < 0 < found.high
    with pytest.raises(UsageError, match=r"a share of 1\.5"):
        mix(1.5, sides[0], sides[1])
    with pytest.raises(UsageError, match="few scored calls"):
        mix(0.5, Side("new", 3, Sums.of([1.0], [1]), sides[0].cost), sides[1])


@pytest.mark.slow
@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_intervals_hold_the_truth_as_often_as_they_say(paired: bool, share: float) -> None:
    rng = np.random.default_rng(4)
    quality, cost = (0.78, 0.94), (0.001, 0.02)
    true_quality = share * quality[0] + (1 - share) * quality[1]
    true_cost = share * cost[0] + (1 - share) * cost[1]
    held = {"quality": 0, "quality_change": 0, "cost": 0, "cost_change": 0}
    times, rows, now = 1500, 120, 0.3
    truth = {
        "quality": true_quality,
        "cost": true_cost,
        "quality_change": (share - now) * (quality[0] - quality[1]),
        "cost_change": (share - now) * (cost[0] - cost[1]),
    }
    for _ in range(times):
        # Right where both models draw the same luck: the answers of a pair go together.
        luck = rng.random(rows)
        right = [(luck if paired else rng.random(rows)) < share_right for share_right in quality]
        spent = [rng.gamma(4, mean / 4, rows) for mean in cost]
        sides = [side(str(n), right[n].astype(float), spent[n], calls=[3, 7][n]) for n in (0, 1)]
        pairs = (Pairs.of(right[0], right[1]), Pairs.of(spent[0], spent[1])) if paired else None
        found = mix(share, sides[0], sides[1], pairs)
        for name, value in truth.items():
            one = getattr(found, name)
            held[name] += one.low <= value <= one.high
    for name, count in held.items():
        assert 0.93 <= count / times <= 0.985, (name, count / times)


@pytest.mark.slow
def test_the_band_of_a_month_holds_its_end_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    week = np.array([10, 11, 10.5, 10, 9, 3, 2.5])
    today, until = date(2026, 6, 11), date(2026, 6, 30)
    held, times = 0, 1500
    for _ in range(times):
        days = {
            today + timedelta(days=n): week[(today + timedelta(days=n)).weekday()] * rng.gamma(30, 1 / 30)
            for n in range(-28, 20)
        }
        spent = {day: value for day, value in days.items() if day < today}
        found = project_spending(spent, today, until)
        assert found is not None
        truth = sum(value for day, value in days.items() if day >= today)
        held += found[-1][1].low <= truth <= found[-1][1].high
    assert 0.87 <= held / times <= 0.95


def test_few_days_are_projected_by_their_mean_and_fewer_not_at_all() -> None:
    today = date(2026, 6, 11)
    spent = {today - timedelta(days=4): 2.0, today - timedelta(days=2): 4.0, today: 99.0}
    found = project_spending(spent, today, today + timedelta(days=1))
    assert found is not None
    # Days without spending count; today's, which is not over, does not.
    assert [one.value for _, one in found] == pytest.approx([1.5, 3.0])
    assert [day for day, _ in found] == [today, today + timedelta(days=1)]
    rest = project_spending(spent, today, today + timedelta(days=1), left=0.25)
    assert rest is not None
    assert [one.value for _, one in rest] == pytest.approx([0.375, 1.875])
    assert rest[0][1].high < found[0][1].high
    assert project_spending({today - timedelta(days=2): 1.0}, today, today) is None
    assert project_spending({}, today, today) is None


points = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12)


@given(points)
def test_the_front_is_what_nothing_beats(found: list[tuple[int, int]]) -> None:
    front = [point for point, on in zip(found, pareto(found), strict=True) if on]
    assert bool(front) is bool(found)
    for cost, quality in found:
        assert any(one <= cost and two >= quality for one, two in front)
    for cost, quality in front:
        assert not any(one < cost and two >= quality for one, two in found)
