"""The statistics against published values, scipy, statsmodels and simulation."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from workbench.experiments import statistics
from workbench.experiments.statistics import (
    bounded_interval,
    cluster_sums,
    holm,
    mcnemar_exact,
    newcombe_paired,
    paired_bootstrap_t,
    permutation_p,
    standard_error,
    wilson,
)

counts = st.integers(0, 60)


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (1, 1), (480, 1000)])
def test_wilson_agrees_with_scipy(k: int, n: int) -> None:
    expected = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_knows_nothing_without_rows() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@given(counts, counts)
@settings(max_examples=60)
def test_mcnemar_agrees_with_statsmodels(b: int, c: int) -> None:
    from statsmodels.stats.contingency_tables import mcnemar

    expected = mcnemar([[5, b], [c, 5]], exact=True).pvalue if b + c else 1.0
    assert mcnemar_exact(b, c) == pytest.approx(min(1.0, expected))


def test_newcombe_gives_the_published_interval() -> None:
    """Airway hyper-responsiveness, Fagerland, Lydersen and Laake (2014, Statistics in Medicine 33:2850), table III."""
    assert newcombe_paired(1, 1, 7, 12) == pytest.approx((-0.507, -0.026), abs=5e-4)


@given(counts, counts, counts, counts)
def test_newcombe_mirrors_and_contains_the_estimate(both: int, first: int, second: int, neither: int) -> None:
    low, high = newcombe_paired(both, first, second, neither)
    mirrored = newcombe_paired(both, second, first, neither)
    n = both + first + second + neither
    assert -1 <= low <= high <= 1
    assert (low, high) == pytest.approx((-mirrored[1], -mirrored[0]))
    assert n == 0 or low - 1e-9 <= (first - second) / n <= high + 1e-9


@pytest.mark.parametrize("shares", [(0.5, 0.1, 0.06, 0.34), (0.9, 0.05, 0.01, 0.04), (0.3, 0.2, 0.2, 0.3)])
def test_newcombe_covers_the_truth(shares: tuple[float, float, float, float]) -> None:
    tables = np.random.default_rng(2).multinomial(60, shares, size=600)
    intervals = [newcombe_paired(*(int(cell) for cell in table)) for table in tables]
    truth = shares[1] - shares[2]
    assert covered(intervals, truth) >= least_coverage(600)


def test_no_row_differs_and_still_the_interval_has_a_width() -> None:
    low, high = newcombe_paired(50, 0, 0, 0)
    assert low < -0.05
    assert high > 0.05


def test_the_bootstrap_is_close_to_student_on_normal_differences() -> None:
    diffs = np.random.default_rng(3).normal(0.4, 1, 400)
    expected = stats.ttest_1samp(diffs, 0).confidence_interval(0.95)
    assert paired_bootstrap_t(diffs) == pytest.approx((expected.low, expected.high), abs=0.01)


def test_few_rows_get_students_t() -> None:
    diffs = [0.1, 0.4, 0.2, 0.3]
    expected = stats.ttest_1samp(diffs, 0).confidence_interval(0.95)
    assert paired_bootstrap_t(diffs) == pytest.approx((expected.low, expected.high))


def test_too_little_data_has_no_interval() -> None:
    assert paired_bootstrap_t([]) is None
    assert paired_bootstrap_t([0.3]) is None
    assert paired_bootstrap_t([0.3, 0.1, 0.2], clusters=["a", "a", "a"]) is None
    assert bounded_interval([]) is None


def test_equal_differences_are_certain_only_where_the_scale_is_unknown() -> None:
    assert paired_bootstrap_t([400.0] * 20) == (400.0, 400.0)
    interval = paired_bootstrap_t([0.0] * 50, bound=1.0)
    assert interval == pytest.approx((-wilson(0, 50)[1], wilson(0, 50)[1]))


def test_the_bootstrap_is_skewed_like_the_data() -> None:
    """Student's symmetric interval misses a skewed mean from below; the studentized one reaches further up."""
    diffs = np.random.default_rng(4).lognormal(0, 1, 60)
    found = paired_bootstrap_t(diffs)
    assert found is not None
    assert found[1] - diffs.mean() > diffs.mean() - found[0]


@pytest.mark.parametrize(("gain", "loss"), [(0.02, 0.01), (0.1, 0.02), (0.3, 0.2)])
def test_sparse_differences_are_covered(gain: float, loss: float) -> None:
    rng = np.random.default_rng(5)
    found = []
    for seed in range(250):
        diffs = rng.choice([1.0, -1.0, 0.0], p=[gain, loss, 1 - gain - loss], size=100)
        found.append(paired_bootstrap_t(diffs, n_resamples=499, seed=seed, bound=1.0))
    assert covered([pair for pair in found if pair], gain - loss) >= least_coverage(250)


def clustered(rng: np.random.Generator, effect: float = 0.0) -> tuple[np.ndarray, list[int]]:
    """25 customers with 4 rows each, whose differences share most of their variance."""
    shared = np.repeat(rng.normal(effect, 0.3, 25), 4)
    return shared + rng.normal(0, 0.3, 100), [row // 4 for row in range(100)]


def test_clusters_are_covered_and_a_a_is_rarely_called_different() -> None:
    rng, runs = np.random.default_rng(6), 300
    intervals, false_alarms, naive = [], 0, 0
    for seed in range(runs):
        diffs, clusters = clustered(rng)
        intervals.append(paired_bootstrap_t(diffs, clusters, n_resamples=499, seed=seed))
        false_alarms += permutation_p(diffs, clusters, seed, n_resamples=499) <= 0.05
        naive += permutation_p(diffs, None, seed, n_resamples=499) <= 0.05
    assert covered([pair for pair in intervals if pair], 0.0) >= least_coverage(runs)
    assert false_alarms <= most_alarms(runs)
    assert naive > most_alarms(runs), "rows taken for independent must fail this test, or it shows nothing"


def test_the_standard_error_of_single_rows_is_the_usual_one() -> None:
    diffs = np.random.default_rng(7).normal(size=30)
    assert standard_error(*cluster_sums(diffs)) == pytest.approx(stats.sem(diffs))


def test_cluster_labels_must_fit() -> None:
    with pytest.raises(ValueError, match="3 values but 2 cluster labels"):
        cluster_sums([1, 2, 3], ["a", "b"])


@given(st.lists(st.integers(-4, 4), min_size=2, max_size=9))
@settings(max_examples=60)
def test_the_permutation_test_enumerates_all_signs(diffs: list[int]) -> None:
    """Against the definition: twice the smaller tail over all 2^n sign patterns."""
    moved = np.array([d for d in diffs if d], dtype=float)
    signs = np.array(np.meshgrid(*[[-1, 1]] * len(moved))).reshape(len(moved), -1) if len(moved) else np.ones((0, 1))
    sums = moved @ signs
    tail = min((sums >= moved.sum()).mean(), (sums <= moved.sum()).mean())
    assert permutation_p(diffs) == pytest.approx(min(1.0, 2 * tail))


@given(st.lists(st.integers(0, 3), min_size=3, max_size=40), st.integers(0, 5))
@settings(max_examples=40)
def test_the_permutation_test_of_wins_and_losses_is_mcnemar(wins: list[int], losses: int) -> None:
    """On ±1 differences flipping signs is tossing a coin for each: the exact McNemar test."""
    b = sum(win > 0 for win in wins[:10])
    c = min(losses, 3)
    diffs = [1.0] * b + [-1.0] * c + [0.0] * 5
    assert permutation_p(diffs) == pytest.approx(mcnemar_exact(b, c))


def test_flipping_the_sides_mirrors_everything() -> None:
    diffs, clusters = clustered(np.random.default_rng(8), effect=0.1)
    low, high = paired_bootstrap_t(diffs, clusters) or (0.0, 0.0)
    assert paired_bootstrap_t(-diffs, clusters) == pytest.approx((-high, -low), abs=1e-3)
    assert permutation_p(-diffs, clusters) == pytest.approx(permutation_p(diffs, clusters), abs=0.02)


def test_ties_alone_are_no_evidence() -> None:
    assert permutation_p([0.0] * 30) == 1.0
    assert permutation_p([]) == 1.0
    assert mcnemar_exact(0, 0) == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
@settings(max_examples=60)
def test_holm_agrees_with_statsmodels(ps: list[float]) -> None:
    from statsmodels.stats.multitest import multipletests

    with mock.patch("gc.collect"):
        expected = multipletests(ps, method="holm")[1]
    assert holm(ps) == pytest.approx(expected)


def test_holm_of_nothing() -> None:
    assert holm([]) == []


def covered(intervals: list[tuple[float, float]], truth: float) -> float:
    return float(np.mean([low - 1e-12 <= truth <= high + 1e-12 for low, high in intervals]))


def least_coverage(runs: int) -> float:
    """What a method of at least 94% coverage stays above, but once in a thousand simulations."""
    return float(stats.binom.ppf(0.001, runs, 0.94)) / runs


def most_alarms(runs: int) -> int:
    """What a test of size 5% stays below, but once in a thousand simulations."""
    return int(stats.binom.ppf(0.999, runs, 0.05))


@pytest.mark.parametrize("skewed", [False, True])
def test_for_many_units_the_expansion_is_what_resampling_gives(monkeypatch: pytest.MonkeyPatch, skewed: bool) -> None:
    rng = np.random.default_rng(11)
    n = statistics.LARGE_UNITS + 1
    diffs = (
        (rng.exponential(size=n) ** 2 - 1.9) if skewed else rng.choice([-1.0, 0.0, 1.0], size=n, p=[0.14, 0.7, 0.16])
    )
    quick = statistics.paired_bootstrap_t(diffs), statistics.permutation_p(diffs)
    monkeypatch.setattr(statistics, "LARGE_UNITS", 10 * n)
    slow = statistics.paired_bootstrap_t(diffs), statistics.permutation_p(diffs)
    width = diffs.std() / n**0.5
    assert quick[0] == pytest.approx(slow[0], abs=0.1 * width)
    assert quick[1] == pytest.approx(slow[1], abs=0.02)
