"""Sequential statistics: against a closed form, and against simulation with a look after every row."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import betaln

from workbench.errors import ComparisonError, UsageError
from workbench.experiments.sequential import (
    PRIOR,
    anytime_p,
    beta_prior,
    confidence_sequence,
    e_process,
    expected_rows,
    one_sided_limits,
    stopping_look,
)
from workbench.experiments.statistics import mcnemar_exact, wilson

Array = npt.NDArray[np.float64]
REJECTS = np.log(20)
diffs_of = st.lists(st.floats(-1, 1), min_size=1, max_size=60)


def binary(runs: int, rows: int, discordance: float, difference: float = 0.0, seed: int = 0) -> Array:
    """Differences of paired binary scores, of shape (runs, rows)."""
    shares = [(discordance + difference) / 2, (discordance - difference) / 2, 1 - discordance]
    return np.random.default_rng(seed).choice([1.0, -1.0, 0.0], p=shares, size=(runs, rows))


def skewed(runs: int, rows: int, seed: int = 0) -> Array:
    """Continuous differences with mean 0: often a small gain, rarely a large loss."""
    return 0.125 - np.random.default_rng(seed).beta(0.5, 3.5, size=(runs, rows))


def stops(experiments: Array) -> Array:
    """Rows until the first rejection, looking after every one; infinite where there is none."""
    over = np.array([e_process(diffs) >= REJECTS for diffs in experiments])
    return np.where(over.any(axis=1), over.argmax(axis=1) + 1.0, np.inf)


def test_with_a_uniform_prior_it_is_the_beta_binomial_likelihood_ratio() -> None:
    """½ ∫ (1 + λ)^b (1 - λ)^c dλ over -1..1 is 2^(b + c) B(b + 1, c + 1); ties bring nothing."""
    diffs = binary(1, 150, 0.4)[0]
    b, c = np.cumsum(diffs > 0), np.cumsum(diffs < 0)
    expected = (b + c) * np.log(2) + betaln(b + 1, c + 1)
    assert e_process(diffs, prior=beta_prior(1.0)) == pytest.approx(expected, abs=1e-9)


def test_the_default_prior_is_a_beta_density_on_either_side() -> None:
    """Against numerical integration of its density, for rows that no other test has in closed form."""
    diffs, mean = np.array([0.5, -0.2, 0.9, 0.4, -0.7, 0.3]), 0.1

    def wealth(stake: float) -> float:
        above = np.prod(1 + stake * (diffs - mean) / (1 + mean))
        below = np.prod(1 - stake * (diffs - mean) / (1 - mean))
        return float((above + below) / 2)

    expected = stats.beta(1, 1.5).expect(wealth)
    assert e_process(diffs, mean)[-1] == pytest.approx(np.log(expected), abs=1e-5)
    assert PRIOR.weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("discordance", [0.1, 0.3, 0.6])
def test_looking_after_every_row_rarely_stops_where_nothing_differs(discordance: float) -> None:
    runs = 2000
    false = int(np.isfinite(stops(binary(runs, 500, discordance))).sum())
    assert wilson(false, runs)[1] <= 0.05
    assert false > 0, "a test that never stops shows nothing"


def test_looking_at_skewed_continuous_differences_rarely_stops() -> None:
    runs = 2000
    assert wilson(int(np.isfinite(stops(skewed(runs, 500))).sum()), runs)[1] <= 0.05


def test_the_fixed_test_does_not_survive_these_looks() -> None:
    experiments = binary(100, 500, 0.3)
    b, c = np.cumsum(experiments > 0, axis=1), np.cumsum(experiments < 0, axis=1)
    looks = range(31, 500, 32)
    false = sum(any(mcnemar_exact(int(b[run, k]), int(c[run, k])) <= 0.05 for k in looks) for run in range(100))
    assert wilson(false, 100)[0] > 0.05


@pytest.mark.parametrize(("difference", "discordance"), [(0.1, 0.3), (-0.25, 0.6), (0.05, 0.1)])
def test_the_true_mean_is_never_left_out_at_any_time(difference: float, discordance: float) -> None:
    """The mean is in the confidence sequence for good exactly while its own e-value stays below 1 / alpha."""
    runs = 1500
    experiments = binary(runs, 400, discordance, difference, seed=1)
    missed = sum(bool((e_process(diffs, difference) >= REJECTS).any()) for diffs in experiments)
    assert wilson(missed, runs)[1] <= 0.05


def test_the_interval_covers_at_the_stop_that_was_chosen_by_looking() -> None:
    experiments = binary(300, 300, 0.3, 0.15, seed=2)
    ends = np.minimum(stops(experiments), 300).astype(int)
    intervals = [confidence_sequence(diffs[:end]) for diffs, end in zip(experiments, ends, strict=True)]
    missed = sum(not low <= 0.15 <= high for low, high in intervals)
    assert wilson(missed, 300)[0] <= 0.05
    assert np.mean([low > 0 for low, _ in intervals]) > 0.8, "most of them stop because 0 is excluded"


def test_a_large_difference_stops_early() -> None:
    found = stops(binary(1000, 500, 0.3, 0.2, seed=3))
    assert wilson(int(np.isfinite(found).sum()), 1000)[0] >= 0.9
    assert np.median(found) <= 100


def test_a_margin_is_kept_by_what_lies_on_it() -> None:
    """Rows whose true difference is exactly the margin are rarely called equivalent, those without one often are."""
    runs, margin = 150, 0.2

    def equivalent(experiments: Array) -> int:
        limits = [one_sided_limits(diffs) for diffs in experiments]
        return sum(-margin < low and high < margin for low, high in limits)

    assert wilson(equivalent(binary(runs, 200, 0.4, margin, seed=4)), runs)[0] <= 0.05
    assert wilson(equivalent(binary(runs, 200, 0.1, seed=5)), runs)[0] >= 0.8


@given(diffs_of, st.floats(-0.9, 0.9))
@settings(max_examples=50)
def test_the_order_of_rows_does_not_change_the_last_value_and_the_sign_does_not_matter(
    diffs: list[float], mean: float
) -> None:
    last = e_process(diffs, mean)[-1]
    assert e_process(diffs[::-1], mean)[-1] == pytest.approx(last, abs=1e-9)
    assert e_process([-d for d in diffs], -mean) == pytest.approx(e_process(diffs, mean), abs=1e-9)


@given(diffs_of)
@settings(max_examples=50)
def test_the_sample_mean_is_not_contradicted_by_all_rows_together(diffs: list[float]) -> None:
    mean = float(np.clip(np.mean(diffs), -0.999, 0.999))
    assert e_process(diffs, mean)[-1] <= 1e-9 or abs(np.mean(diffs)) > 0.999


@given(diffs_of, st.floats(-0.99, 0.99), st.floats(-0.99, 0.99))
@settings(max_examples=100)
def test_the_largest_log_value_is_convex_in_the_mean(diffs: list[float], one: float, two: float) -> None:
    """This is what makes the confidence sequence an interval."""
    first, middle, last = (e_process(diffs, mean).max() for mean in (one, (one + two) / 2, two))
    assert middle <= (first + last) / 2 + 1e-9


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]), min_size=2, max_size=80), st.floats(-0.95, 0.95))
@settings(max_examples=50)
def test_the_interval_holds_the_means_that_no_look_rejected(diffs: list[float], mean: float) -> None:
    low, high = confidence_sequence(diffs)
    largest = e_process(diffs, mean).max()
    if low + 1e-5 < mean < high - 1e-5:
        assert largest < REJECTS
    if not low - 1e-5 < mean < high + 1e-5:
        assert largest >= REJECTS


@given(st.integers(0, 1000), st.floats(-0.2, 0.2))
@settings(max_examples=20)
def test_the_interval_only_shrinks(seed: int, difference: float) -> None:
    diffs = binary(1, 200, 0.4, difference, seed)[0]
    pairs = [confidence_sequence(diffs[:rows]) for rows in (0, 1, 10, 50, 51, 200)]
    assert pairs[0] == (-1.0, 1.0)
    for (low, high), (later_low, later_high) in itertools.pairwise(pairs):
        assert low - 1e-5 <= later_low <= later_high <= high + 1e-5


def test_more_certainty_is_wider() -> None:
    diffs = binary(1, 200, 0.3, 0.1)[0]
    (low, high), (wide_low, wide_high) = confidence_sequence(diffs), confidence_sequence(diffs, level=0.99)
    assert wide_low < low < high < wide_high
    limits = one_sided_limits(diffs)
    assert low < limits[0] < limits[1] < high


def test_the_scale_is_taken_out() -> None:
    diffs = binary(1, 100, 0.4, 0.2)[0]
    low, high = confidence_sequence(diffs)
    assert confidence_sequence(2 * diffs, bound=2.0) == pytest.approx((2 * low, 2 * high))
    assert anytime_p(2 * diffs, bound=2.0) == pytest.approx(anytime_p(diffs))
    assert e_process(2 * diffs, 0.4, bound=2.0) == pytest.approx(e_process(diffs, 0.2))


def test_p_never_rises_while_rows_come_in() -> None:
    diffs = binary(1, 120, 0.4, 0.2)[0]
    ps = [anytime_p(diffs[:rows]) for rows in range(121)]
    assert ps[0] == 1.0
    assert all(later <= earlier for earlier, later in itertools.pairwise(ps))
    assert ps[-1] == pytest.approx(np.exp(-e_process(diffs).max()))


def test_rows_that_are_all_equal() -> None:
    assert anytime_p([0.0] * 50) == 1.0
    low, high = confidence_sequence([1.0] * 50)
    assert 0.75 < low < high == 1.0
    low, high = confidence_sequence([-1.0] * 50)
    assert -1.0 == low < high < -0.75
    low, high = confidence_sequence([0.0] * 500)
    assert -0.05 < low < 0 < high < 0.05


def test_rows_that_contradict_any_one_mean_leave_a_point() -> None:
    low, high = confidence_sequence([1.0] * 60 + [-1.0] * 60)
    assert low == high
    low_limit, high_limit = one_sided_limits([1.0] * 60 + [-1.0] * 60)
    assert low_limit > high_limit


def test_many_rows_stay_in_range() -> None:
    values = e_process(binary(1, 100_000, 0.5, 0.45)[0])
    assert np.isfinite(values).all()
    assert values[-1] > 10_000


@pytest.mark.parametrize("direction", ["max", "min"])
def test_a_look_knows_which_side_is_better(direction: str) -> None:
    more = stopping_look([1.0] * 20, direction=direction)  # type: ignore[arg-type]
    fewer = stopping_look([-1.0] * 20, direction=direction)  # type: ignore[arg-type]
    assert (more.verdict, fewer.verdict) == (("better", "worse") if direction == "max" else ("worse", "better"))
    assert more.interval[0] > 0 > fewer.interval[1]
    assert more.rows == 20
    assert more.p == pytest.approx(np.exp(-more.log_e))


def test_more_comparisons_ask_for_more_evidence() -> None:
    diffs = [1.0] * 9
    alone, among_ten = stopping_look(diffs), stopping_look(diffs, comparisons=10)
    assert alone.verdict == "better"
    assert among_ten.verdict is None
    assert among_ten.p == pytest.approx(10 * alone.p)
    assert among_ten.interval[0] < 0 < alone.interval[0]


def test_a_verdict_is_kept_when_later_rows_turn() -> None:
    """What an earlier row has settled holds at a later look: that is what valid at any time means."""
    assert stopping_look([1.0] * 9 + [-1.0] * 4).verdict == "better"


def test_no_difference_within_the_margin_is_equivalent() -> None:
    diffs = binary(1, 400, 0.1, seed=6)[0]
    assert stopping_look(diffs).verdict is None
    assert stopping_look(diffs, margin=0.1).verdict == "equivalent"
    assert stopping_look(diffs, margin=0.01).verdict is None
    assert stopping_look(diffs[:20], margin=0.1).verdict is None
    assert stopping_look([1.0] * 20, margin=0.9).verdict == "better"


def test_nothing_is_known_without_rows() -> None:
    look = stopping_look([], margin=0.1)
    assert (look.rows, look.verdict, look.log_e, look.p, look.interval) == (0, None, 0.0, 1.0, (-1.0, 1.0))
    assert e_process([]).shape == (0,)
    assert one_sided_limits([]) == (-1.0, 1.0)


@pytest.mark.parametrize("wrong", [[0.5, 1.5], [-1.01], [float("nan")], [0.0, float("inf")]])
def test_a_difference_outside_the_bound_is_refused(wrong: list[float]) -> None:
    for statistic in (e_process, anytime_p, confidence_sequence, one_sided_limits, stopping_look):
        with pytest.raises(ComparisonError, match=f"difference {len(wrong) - 1} is .* within ±1"):
            statistic(wrong)


def test_wrong_questions_are_refused() -> None:
    with pytest.raises(ComparisonError, match="bound"):
        anytime_p([0.1], bound=0.0)
    with pytest.raises(ComparisonError, match="a mean of 1 cannot be tested"):
        e_process([0.1], mean=1.0)
    with pytest.raises(UsageError, match="level"):
        confidence_sequence([0.1], level=1.0)
    with pytest.raises(UsageError, match="comparisons"):
        stopping_look([0.1], comparisons=0)
    with pytest.raises(UsageError, match="margin of 1 says nothing"):
        stopping_look([0.1], margin=1.0)
    with pytest.raises(UsageError, match="needs at least that discordance"):
        expected_rows(0.4, 0.3, 100)
    with pytest.raises(UsageError, match="must be at least 1"):
        expected_rows(0.1, 0.3, 0)


def test_the_expected_rows_are_what_looks_come_to() -> None:
    rows, every = 100, 20
    asked = []
    for diffs in binary(80, rows, 0.5, 0.4, seed=7):
        looks = (stopping_look(diffs[:end]) for end in range(every, rows + 1, every))
        asked.append(next((look.rows for look in looks if look.verdict), rows))
    mean, share = expected_rows(0.4, 0.5, rows, every=every)
    assert mean == pytest.approx(np.mean(asked), abs=5 * np.std(asked) / np.sqrt(80))
    assert share > 0.9
    none, never = expected_rows(0.0, 0.3, 70)
    assert none > 65
    assert never < 0.05
