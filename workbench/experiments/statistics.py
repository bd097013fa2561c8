"""Paired statistics over arrays: tests, intervals and the correction for many comparisons.

Pure functions. A difference is always one number a row (variant minus baseline, repeats already averaged). Rows of one
cluster (a customer, a conversation) are resampled and flipped together. Where the data cannot say anything an interval
is None and a p-value is 1.0; neither is ever NaN.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]
Interval: TypeAlias = tuple[float, float]

# Below this many independent units the bootstrap distribution is too coarse, and Student's t is used instead.
FEWEST_UNITS = 10
# Above it, what resampling would estimate is computed from its expansion instead, which differs by less than the noise
# of the resamples and takes no time.
LARGE_UNITS = 1_000
_DEGENERATE = 1e-9


def z_value(level: float) -> float:
    """The two-sided normal quantile of `level`: 1.96 for 0.95."""
    # Of `special`, as in all that every comparison needs: importing `scipy.stats` takes a second.
    from scipy.special import ndtri

    return float(ndtri(0.5 + level / 2))


def wilson(k: float, n: float, level: float = 0.95) -> Interval:
    """Wilson's score interval for a proportion of `k` successes in `n` (Wilson 1927, JASA 22:209).

    `k` and `n` may be fractional (a mean score, an effective sample size). With `n` = 0 nothing is known: (0, 1).
    """
    if n <= 0:
        return 0.0, 1.0
    z2 = z_value(level) ** 2
    share = k / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (max(share * (1 - share), 0.0) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided p of the exact McNemar test on the discordant counts `b` and `c`; 1.0 where there are none."""
    from scipy.special import bdtr

    # Under one half the two tails are alike.
    return min(1.0, 2 * float(bdtr(min(b, c), b + c, 0.5)))


def newcombe_paired(both: int, first: int, second: int, neither: int, level: float = 0.95) -> Interval:
    """Interval for a difference of paired proportions, `(first - second) / n`.

    Method 10 of Newcombe (1998, Statistics in Medicine 17:2635): Wilson's intervals of the two proportions, combined
    by squares with a continuity-corrected correlation. It stays inside [-1, 1] and is not empty when no row differs.

    Args:
        both, first, second, neither: rows right under both, under the first only, under the second only, under none.
    """
    n = both + first + second + neither
    if n == 0:
        return -1.0, 1.0
    p1, p2 = (both + first) / n, (both + second) / n
    low1, high1 = wilson(both + first, n, level)
    low2, high2 = wilson(both + second, n, level)
    determinant = float(both * neither - first * second)
    if determinant > 0:
        determinant = max(determinant - n / 2, 0.0)
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    phi = determinant / math.sqrt(margins) if margins else 0.0
    return _square_and_add(p1, (low1, high1), p2, (low2, high2), phi)


def _square_and_add(p1: float, one: Interval, p2: float, two: Interval, correlation: float) -> Interval:
    """Interval of p1 - p2 from the intervals of both (MOVER; Zou and Donner 2008, Statistics in Medicine 27:1693)."""
    down1, up1, down2, up2 = p1 - one[0], one[1] - p1, p2 - two[0], two[1] - p2
    below = math.sqrt(max(down1**2 - 2 * correlation * down1 * up2 + up2**2, 0.0))
    above = math.sqrt(max(up1**2 - 2 * correlation * up1 * down2 + down2**2, 0.0))
    return max(-1.0, p1 - p2 - below), min(1.0, p1 - p2 + above)


def cluster_sums(values: npt.ArrayLike, clusters: Sequence[Hashable] | None = None) -> tuple[Array, Array]:
    """Sum and row count of each cluster, each of shape (clusters,); without `clusters` each row is its own."""
    data = np.asarray(values, dtype=np.float64).ravel()
    if clusters is None:
        return data, np.ones_like(data)
    if len(clusters) != len(data):
        raise ValueError(f"{len(data)} values but {len(clusters)} cluster labels")
    numbers: dict[Hashable, int] = {}
    codes = np.array([numbers.setdefault(label, len(numbers)) for label in clusters], dtype=np.intp)
    size = len(numbers)
    return np.bincount(codes, data, size).astype(np.float64), np.bincount(codes, minlength=size).astype(np.float64)


def standard_error(sums: Array, sizes: Array) -> float:
    """Standard error of the mean over rows, `sums.sum() / sizes.sum()`, with clusters as the independent units.

    The linearized variance of a ratio of totals (Cochran 1977, Sampling Techniques, 3rd edition, 6.4); with clusters of
    one row it is the usual s / sqrt(n). NaN for fewer than two clusters.
    """
    units = len(sums)
    if units < 2:
        return math.nan
    residuals = sums - sums.sum() / sizes.sum() * sizes
    return float(np.sqrt(units / (units - 1) * (residuals**2).sum()) / sizes.sum())


def paired_bootstrap_t(
    diffs: npt.ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
    n_resamples: int = 4999,
    seed: int = 0,
    bound: float | None = None,
) -> Interval | None:
    """Studentized (bootstrap-t) interval of the mean difference (Efron and Tibshirani 1993, chapter 12.5).

    Whole clusters are resampled; with more than `LARGE_UNITS` of them the quantiles are those of the bootstrap's Edgeworth
    expansion. The bootstrap needs variation: with fewer than `FEWEST_UNITS` clusters, or where so
    many differences are equal that a tail of the resamples has none, the interval is Student's t instead. For
    differences known to lie within ±`bound` it is `bounded_interval`, as soon as fewer than `FEWEST_UNITS` clusters
    differ from the common value: the bootstrap then covers 91% where it claims 95% (simulated: 200 rows, 6 differ).

    Returns: None for fewer than two independent units, which say nothing about their spread.
    """
    sums, sizes = cluster_sums(diffs, clusters)
    units = len(sums)
    if units < 2:
        return None
    mean, error = float(sums.sum() / sizes.sum()), standard_error(sums, sizes)
    scale = float(np.abs(sums).max()) / float(sizes.sum())
    centred = sums - float(np.median(sums / sizes)) * sizes
    unusual = int((np.abs(centred) > _DEGENERATE * float(np.abs(sums).max(initial=0.0))).sum())
    if bound is not None and unusual < FEWEST_UNITS:
        return bounded_interval(diffs, bound, clusters, level)
    if error <= _DEGENERATE * scale:
        return mean, mean
    limits: Interval | None = None
    if units > LARGE_UNITS:
        lower, upper = _expanded(sums, sizes, mean, level)
        limits = mean - upper * error, mean - lower * error
    elif units >= FEWEST_UNITS:
        ratios = _studentized(sums, sizes, mean, error, n_resamples, seed)
        alpha = 1 - level
        lower, upper = map(float, np.quantile(ratios, [alpha / 2, 1 - alpha / 2], method="inverted_cdf"))
        if math.isfinite(lower) and math.isfinite(upper):
            limits = mean - upper * error, mean - lower * error
    if limits is None:
        from scipy.special import stdtrit

        half = float(stdtrit(units - 1, 0.5 + level / 2)) * error
        limits = mean - half, mean + half
    return limits if bound is None else (max(limits[0], -bound), min(limits[1], bound))


def _expanded(sums: Array, sizes: Array, mean: float, level: float) -> tuple[float, float]:
    """Quantiles of the studentized mean, to the order of its skewness (Hall 1992, The Bootstrap and Edgeworth Expansion, 3.5)."""
    residuals = sums - mean * sizes
    skewness = float((residuals**3).mean() / (residuals**2).mean() ** 1.5)
    z = z_value(level)
    shift = skewness * (2 * z * z + 1) / (6 * math.sqrt(len(sums)))
    return -z - shift, z - shift


def _studentized(sums: Array, sizes: Array, mean: float, error: float, n_resamples: int, seed: int) -> Array:
    """(mean* - mean) / error* of each resample; infinite where a resample has no variation but another mean."""
    units = len(sums)
    residuals = sums - mean * sizes
    # A resample's mean and error are polynomials in these five sums, so that one matrix product gives all of them.
    features = np.column_stack([residuals, sizes, residuals**2, residuals * sizes, sizes**2])
    rng = np.random.default_rng(seed)
    chunk = max(1, 2_000_000 // units)
    ratios: list[Array] = []
    for start in range(0, n_resamples, chunk):
        rows = min(chunk, n_resamples - start)
        draws = rng.integers(0, units, size=(rows, units)) + np.arange(rows)[:, None] * units
        counts = np.bincount(draws.ravel(), minlength=rows * units).reshape(rows, units)
        total, size, square, cross, size_square = (counts @ features).T
        shift = total / size
        spread = np.maximum(square - 2 * shift * cross + shift**2 * size_square, 0.0)
        errors = np.sqrt(units / (units - 1) * spread) / size
        flat = errors <= 1e-6 * error
        ratio = np.divide(shift, errors, out=np.zeros_like(shift), where=~flat)
        moved = flat & (np.abs(shift) > 1e-6 * error)
        ratio[moved] = np.copysign(np.inf, shift[moved])
        ratios.append(ratio)
    return np.concatenate(ratios)


def bounded_interval(
    diffs: npt.ArrayLike, bound: float = 1.0, clusters: Sequence[Hashable] | None = None, level: float = 0.95
) -> Interval | None:
    """Interval of a mean of differences within ±`bound`, honest where few or none of them differ from zero.

    The mean is (mean gain) - (mean loss), each a mean of numbers in [0, 1]; such a mean varies at most as much as a
    proportion, so that Wilson's interval covers it. The two are combined as in `newcombe_paired`, with the correlation
    of two exclusive outcomes. Clusters count as M²/Σm² rows in all (Kish 1965), their effective number.
    """
    sums, sizes = cluster_sums(diffs, clusters)
    if len(sums) == 0:
        return None
    data = np.clip(np.asarray(diffs, dtype=np.float64).ravel() / bound, -1, 1)
    gain, loss = float(np.maximum(data, 0).mean()), float(np.maximum(-data, 0).mean())
    n = float(sizes.sum() ** 2 / (sizes**2).sum())
    room = (1 - gain) * (1 - loss)
    correlation = -math.sqrt(gain * loss / room) if room > 0 else 0.0
    low, high = _square_and_add(gain, wilson(gain * n, n, level), loss, wilson(loss * n, n, level), correlation)
    return bound * low, bound * high


def permutation_p(
    diffs: npt.ArrayLike, clusters: Sequence[Hashable] | None = None, seed: int = 0, n_resamples: int = 9999
) -> float:
    """Two-sided p of the sign-flip test that variant and baseline are exchangeable within each cluster.

    Whole clusters are flipped. All sign patterns are enumerated when there are no more than `n_resamples` of them,
    otherwise that many are drawn, and one is added to both counts, so that p is never 0 (Phipson and Smyth 2010). With
    more than `LARGE_UNITS` clusters that differ, the sum under random signs is normal to the order of 1/n (its odd moments
    vanish), and p is that of the normal distribution.
    """
    sums, _ = cluster_sums(diffs, clusters)
    # A cluster without a difference is the same under both signs: leaving it out changes no p-value and saves work.
    moved = sums[np.abs(sums) > _DEGENERATE * max(float(np.abs(sums).max(initial=0.0)), 1e-300)]
    if len(moved) < 2:
        return 1.0
    if len(moved) > LARGE_UNITS:
        return math.erfc(abs(float(moved.sum())) / math.sqrt(2 * float((moved**2).sum())))
    observed = abs(float(moved.sum())) * (1 - _DEGENERATE)
    if 2 ** len(moved) <= n_resamples:
        every = np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved)) & 1
        return float((np.abs(_flipped(every, moved)) >= observed).mean())
    rng = np.random.default_rng(seed)
    rows = max(1, 4_000_000 // len(moved))
    extreme = 0
    for start in range(0, n_resamples, rows):
        count = min(rows, n_resamples - start)
        # One random bit a sign: drawing whole numbers would cost most of the time.
        bits = np.unpackbits(np.frombuffer(rng.bytes(-(-count * len(moved) // 8)), dtype=np.uint8))
        patterns = bits[: count * len(moved)].reshape(count, len(moved))
        extreme += int((np.abs(_flipped(patterns, moved)) >= observed).sum())
    return (extreme + 1) / (n_resamples + 1)


def _flipped(patterns: npt.NDArray[Any], values: Array) -> Array:
    """The sum of `values` under each pattern of signs, where 1 keeps a value and 0 turns its sign."""
    return np.asarray(2 * (patterns.astype(np.float64) @ values) - values.sum(), dtype=np.float64)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values in the same order (Holm 1979); they control the chance of any false claim among them.

    The numbers are those of statsmodels' `multipletests`, which is not called because it collects garbage each time:
    a third of a second in a process that holds a model.
    """
    values = np.asarray(ps, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(p) for p in adjusted]
