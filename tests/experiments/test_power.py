"""Power: against simulation, statsmodels and the tests that it speaks for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from workbench.errors import UsageError
from workbench.experiments.power import (
    Plan,
    connor_power,
    fewest_rows,
    mcnemar_power,
    paired_power,
    rows_needed,
    smallest_difference,
)
from workbench.experiments.statistics import mcnemar_exact, permutation_p


@pytest.mark.parametrize(("n", "difference", "discordance"), [(200, 0.1, 0.2), (60, 0.15, 0.4), (25, 0.4, 0.4)])
def test_mcnemars_power_is_how_often_it_rejects(n: int, difference: float, discordance: float) -> None:
    runs = 1500
    shares = [(discordance + difference) / 2, (discordance - difference) / 2, 1 - discordance]
    tables = np.random.default_rng(1).multinomial(n, shares, size=runs)
    rejected = sum(mcnemar_exact(int(b), int(c)) <= 0.05 for b, c, _ in tables)
    claimed = mcnemar_power(n, difference, discordance)
    assert stats.binomtest(rejected, runs, claimed).pvalue > 1e-4


def test_without_a_difference_the_exact_test_keeps_its_level() -> None:
    assert mcnemar_power(300, 0.0, 0.3) <= 0.05


def test_connors_approximation_comes_close_for_many_rows() -> None:
    assert connor_power(2000, 0.03, 0.2) == pytest.approx(mcnemar_power(2000, 0.03, 0.2), abs=0.015)
    assert connor_power(20_000, 0.01, 0.2) == pytest.approx(mcnemar_power(20_000, 0.01, 0.2), abs=0.005)


def test_the_t_tests_power_holds_for_the_permutation_test() -> None:
    runs, n = 300, 40
    rng = np.random.default_rng(2)
    rejected = sum(permutation_p(rng.normal(0.45, 1, n), seed=seed, n_resamples=799) <= 0.05 for seed in range(runs))
    assert stats.binomtest(rejected, runs, paired_power(n, 0.45, 1.0)).pvalue > 1e-4


def test_rows_needed_agrees_with_statsmodels() -> None:
    from statsmodels.stats.power import TTestPower

    expected = TTestPower().solve_power(effect_size=0.25, alpha=0.05, power=0.8)
    assert rows_needed(0.05, "continuous", sd=0.2) == int(np.ceil(expected))


@given(st.integers(20, 400), st.floats(0.02, 0.6))
@settings(max_examples=25)
def test_the_smallest_difference_just_has_the_power(n: int, discordance: float) -> None:
    found = smallest_difference(n, "binary", discordance=discordance)
    assert found is not None
    assert mcnemar_power(n, found, max(discordance, found)) >= 0.8
    smaller = found * 0.99
    assert mcnemar_power(n, smaller, max(discordance, smaller)) < 0.8


def test_rows_and_difference_are_two_readings_of_one_curve() -> None:
    shown = smallest_difference(150, "continuous", sd=0.3)
    assert shown is not None
    assert rows_needed(shown, "continuous", sd=0.3) == 150


def test_more_comparisons_and_clusters_need_more() -> None:
    one = rows_needed(0.1, "binary", discordance=0.2)
    many = rows_needed(0.1, "binary", discordance=0.2, comparisons=6)
    grouped = rows_needed(0.1, "binary", discordance=0.2, design_effect=2.0)
    assert one is not None
    assert many is not None
    assert one < many
    assert grouped == 2 * one
    alone = smallest_difference(100, "continuous", sd=1.0)
    together = smallest_difference(100, "continuous", sd=1.0, design_effect=2.0)
    assert alone is not None
    assert together is not None
    assert alone < together


def test_the_fewest_rows_are_those_that_both_tests_can_reject_with() -> None:
    n = fewest_rows()
    assert n == 6
    assert mcnemar_exact(n, 0) <= 0.05 < mcnemar_exact(n - 1, 0)
    assert permutation_p([1.0] * n) <= 0.05 < permutation_p([1.0] * (n - 1))


def test_five_rows_can_show_nothing() -> None:
    assert smallest_difference(5, "binary", discordance=0.5) is None
    assert smallest_difference(5, "continuous", sd=1.0) is None
    assert smallest_difference(0, "binary", discordance=0.5) is None


def test_no_difference_needs_no_number() -> None:
    assert rows_needed(0.0, "binary", discordance=0.2) is None
    assert rows_needed(0.0, "continuous", sd=1.0) is None
    assert rows_needed(1e-6, "binary", discordance=0.5) is None, "more than ten million rows"


def test_rows_that_never_vary() -> None:
    assert smallest_difference(50, "continuous", sd=0.0) == 0.0
    assert rows_needed(0.2, "continuous", sd=0.0) == 6


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        ("binary", {}, "discordance must be given"),
        ("continuous", {"discordance": 0.1}, "sd must be given"),
        ("binary", {"discordance": 1.5}, "discordance"),
        ("binary", {"discordance": 0.2, "level": 1.0}, "level"),
        ("binary", {"discordance": 0.2, "comparisons": 0}, "comparisons"),
    ],
)
def test_a_question_without_its_numbers_is_refused(kind: str, given: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        smallest_difference(100, kind, **given)  # type: ignore[arg-type]


def test_a_plan_shows_itself() -> None:
    plan = Plan(
        calls=336,
        tokens_in=145_000,
        tokens_out=5_000,
        minutes=1.25,
        cost_usd=0.0,
        rows=168,
        clusters=40,
        smallest_difference={"intent": 0.0912, "<b>": None},
        assumptions=("20% of rows differ, as in the pilot.",),
    )
    text = str(plan)
    assert "168 in 40 groups" in text
    assert "145,000 in, 5,000 out" in text
    assert "1.2 min" in text
    assert "0.0912" in text
    assert "none: too few rows" in text
    assert "- 20% of rows differ" in text
    assert "&lt;b&gt;" in plan._repr_html_()
    assert "<b>" not in plan._repr_html_()
