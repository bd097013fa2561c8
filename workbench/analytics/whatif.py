"""What it would be if two models shared the calls in another proportion.

Pure arithmetic on sums that SQL makes, so that a million calls are a handful of numbers here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.errors import UsageError
from workbench.experiments.statistics import Interval, wilson, z_value

if TYPE_CHECKING:
    import numpy.typing as npt

# From here on the inputs that both models answered speak for them all.
FEWEST_PAIRS = 30


@dataclass(frozen=True)
class Estimate:
    """A value and its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Sums:
    """What is known of a mean: sums over independent units (inputs), each with one call or several.

    Attributes:
        units: how many there are. rows: calls in all. total: sum of the values.
        squares: of the units' totals, summed. cross: totals times sizes. sizes: squared sizes.
    """

    units: int
    rows: float
    total: float
    squares: float
    cross: float
    sizes: float

    @classmethod
    def of(cls, totals: npt.ArrayLike, counts: npt.ArrayLike) -> Sums:
        """Of each unit's total and number of calls."""
        import numpy as np

        v, n = np.asarray(totals, float), np.asarray(counts, float)
        return cls(len(v), float(n.sum()), float(v.sum()), float(v @ v), float(v @ n), float(n @ n))

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(one + two for one, two in zip(vars(self).values(), vars(other).values(), strict=True)))

    @property
    def mean(self) -> float:
        return self.total / self.rows if self.rows else math.nan

    @property
    def error(self) -> float:
        """Standard error of the mean, with units as what is independent: as `statistics.standard_error`."""
        if self.units < 2:
            return math.nan
        residuals = self.squares - 2 * self.mean * self.cross + self.mean**2 * self.sizes
        return math.sqrt(self.units / (self.units - 1) * max(residuals, 0.0)) / self.rows

    def share(self, level: float = 0.95) -> Estimate:
        """The mean of values from 0 to 1, with Wilson's interval."""
        return _share(self.mean, self.error, self.units, level)

    def amount(self, level: float = 0.95) -> Estimate:
        """The mean of any values, with Student's interval; without one for a single unit."""
        return _amount(self.mean, self.error, self.units, level)


@dataclass(frozen=True)
class Pairs:
    """Values of two models on the inputs that both answered, an input's mean each.

    Attributes:
        first, second: means. var_first, var_second, covariance: over inputs (n - 1).
    """

    count: int
    first: float
    second: float
    var_first: float
    var_second: float
    covariance: float

    @classmethod
    def of(cls, first: npt.ArrayLike, second: npt.ArrayLike) -> Pairs:
        import numpy as np

        a, b = np.asarray(first, float), np.asarray(second, float)
        (one, both), (_, two) = np.cov(a, b)
        return cls(len(a), float(a.mean()), float(b.mean()), float(one), float(two), float(both))

    def mixed(self, share: float) -> tuple[float, float]:
        """Mean, and its standard error, where the first model answers `share` of the inputs."""
        rest = 1 - share
        spread = share**2 * self.var_first + rest**2 * self.var_second + 2 * share * rest * self.covariance
        return share * self.first + rest * self.second, math.sqrt(max(spread, 0.0) / self.count)

    @property
    def spread(self) -> float:
        """Variance of the differences."""
        return max(self.var_first + self.var_second - 2 * self.covariance, 0.0)


@dataclass(frozen=True)
class Side:
    """A model on the chosen calls.

    Attributes:
        calls: how many it answered.
        quality: of its scores, from 0 to 1. cost: dollars a call.
    """

    model: str
    calls: int
    quality: Sums
    cost: Sums


@dataclass(frozen=True)
class Mix:
    """What one share would be.

    Attributes:
        share: of the calls, to the first model. now: its share today.
        quality: a call's mean score. quality_change: against today's share.
        cost: dollars a call. cost_change: against today's share.
        pairs: inputs that both answered, on which this rests; 0 where it rests on the calls of each.
    """

    share: float
    now: float
    quality: Estimate
    quality_change: Estimate
    cost: Estimate
    cost_change: Estimate
    pairs: int


def mix(
    share: float,
    first: Side,
    second: Side,
    pairs: tuple[Pairs, Pairs] | None = None,
    *,
    level: float = 0.95,
) -> Mix:
    """Quality and cost if `first` took `share` of the calls of these two models, and `second` the rest.

    Calls are taken to be exchangeable: a call that goes to the other model is answered as well, and costs as much, as those
    that it answered so far. Where at least `FEWEST_PAIRS` inputs were answered by both, these alone are used: they need that
    they stand for the others, but not that each model had calls of the same kind. Intervals of independent means are
    combined by the method of variance estimates recovery (Zou and Donner 2008, Statistics in Medicine 27:1693); that of a
    paired difference of shares is Agresti and Min's (2005, Statistics in Medicine 24:729).

    Args:
        pairs: of quality and of cost.

    Raises:
        UsageError: a share that is none, or a model without scores or costs.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"a share of {share}", hint="Give one from 0 to 1.")
    for side in (first, second):
        if side.quality.units < 2 or side.cost.units < 2:
            raise UsageError(f"{side.model} has too few scored calls here", hint="Choose another model or scorer.")
    now = first.calls / (first.calls + second.calls)
    moved = share - now
    if pairs is not None and pairs[0].count >= FEWEST_PAIRS:
        quality, cost = pairs
        mean, error = quality.mixed(share)
        paid, paid_error = cost.mixed(share)
        by_call = Estimate(cost.first - cost.second, *_around(cost.first - cost.second, cost.spread, cost.count, level))
        return Mix(
            share,
            now,
            _share(mean, error, quality.count, level),
            _scaled(_difference(quality, level), moved),
            _amount(paid, paid_error, cost.count, level),
            _scaled(by_call, moved),
            quality.count,
        )
    one, two = first.quality.share(level), second.quality.share(level)
    paid_one, paid_two = first.cost.amount(level), second.cost.amount(level)
    return Mix(
        share,
        now,
        _combined(share, one, 1 - share, two),
        _combined(moved, one, -moved, two),
        _combined(share, paid_one, 1 - share, paid_two),
        _combined(moved, paid_one, -moved, paid_two),
        0,
    )


def _share(mean: float, error: float, units: int, level: float) -> Estimate:
    """By Wilson, with as many independent rows as give this standard error."""
    spread = mean * (1 - mean)
    # Of shares without any spread, such as all right, all that is known is how many units there are.
    rows = spread / error**2 * units / (units - 1) if error > 0 and spread > 0 else float(units)
    # A rounding error below 0 or above 1 is none.
    mean = min(max(mean, 0.0), 1.0)
    return Estimate(mean, *wilson(mean * max(rows, 1.0), max(rows, 1.0), level))


def _amount(mean: float, error: float, units: int, level: float) -> Estimate:
    if units < 2:
        return Estimate(mean, math.nan, math.nan)
    half = t_value(units - 1, level) * error
    return Estimate(mean, mean - half, mean + half)


def _around(mean: float, variance: float, count: int, level: float) -> Interval:
    half = t_value(count - 1, level) * math.sqrt(variance / count)
    return mean - half, mean + half


def _difference(pairs: Pairs, level: float) -> Estimate:
    """Of two paired shares. Half a pair more in each of the four cells keeps an interval where no pair differs."""
    value, count = pairs.first - pairs.second, pairs.count + 2
    squares = (pairs.count - 1) * pairs.spread + pairs.count * value**2 + 1
    centre = pairs.count * value / count
    half = z_value(level) * math.sqrt(max(squares / count - centre**2, 0.0) / count)
    return Estimate(value, max(-1.0, min(centre - half, value)), min(1.0, max(centre + half, value)))


def _scaled(estimate: Estimate, by: float) -> Estimate:
    low, high = sorted((estimate.low * by, estimate.high * by))
    return Estimate(estimate.value * by, low, high)


def _combined(a: float, one: Estimate, b: float, two: Estimate) -> Estimate:
    """a · one + b · two, of independent estimates."""
    first, second = _scaled(one, a), _scaled(two, b)
    value = first.value + second.value
    low = math.hypot(first.value - first.low, second.value - second.low)
    high = math.hypot(first.high - first.value, second.high - second.value)
    return Estimate(value, value - low, value + high)


def t_value(degrees: float, level: float) -> float:
    """The two-sided quantile of Student's distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.5 + level / 2))


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which points (cost, quality) no other one beats: none costs as little and is better, nor is as good and costs less."""
    return [
        not any(
            cost <= own_cost and quality >= own_quality and (cost < own_cost or quality > own_quality)
            for cost, quality in points
        )
        for own_cost, own_quality in points
    ]
