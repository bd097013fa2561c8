"""Statistics that stay valid under peeking: paired differences, looked at again and again, and stopping on what was seen.

Pure functions. A difference is one number a row (variant minus baseline, repeats already averaged), known to lie within
±`bound`; rows must be independent and come in an order that does not depend on their answers (a shuffle). Everything
rests on the betting martingale of Waudby-Smith and Ramdas (2024, JRSS-B 86:1). With differences x scaled to -1..1, the
hypothesis "the mean is m" is bet against with

    e_t(m) = ½ ∫ ∏ (1 + θ (x - m) / (1 + m)) dF(θ)  +  ½ ∫ ∏ (1 - θ (x - m) / (1 - m)) dF(θ),    0 < θ < 1,

a stake θ of the largest admissible bet on either side, mixed over a fixed prior F. Under the hypothesis the chance that
e_t(m) ever reaches 1/α is at most α (Ville's inequality; Ramdas, Grünwald, Vovk and Shafer 2023, Statistical Science
38:576), however often one looks. For paired binary scores and m = 0 it is a mixture likelihood ratio of the discordant
rows. Nothing is kept between looks: a look is computed from the rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from workbench.errors import ComparisonError, UsageError
from workbench.experiments.statistics import Array, Interval

Verdict: TypeAlias = Literal["better", "worse", "equivalent"]
Side: TypeAlias = Literal["above", "below"]

_BOTH: tuple[Side, ...] = ("above", "below")
# Logarithms are taken once a block of rows, in between wealth is multiplied: sixteen factors cannot leave the range.
_BLOCK = 16
_CHUNK = 128 * _BLOCK
# How close to ±bound a hypothesis on the mean can be tested, and how exactly the ends of an interval are found.
_EDGE = 1 - 1e-9
_TOLERANCE = 1e-6


class Prior(NamedTuple):
    """A discrete prior of stakes: `stakes` in 0..1 as shares of the largest admissible bet, `weights` that sum to 1.

    Validity does not depend on it, nor on how well it approximates a density; power does.
    """

    stakes: Array
    weights: Array


def beta_prior(shape: float, nodes: int = 32) -> Prior:
    """The density shape · (1 - θ)^(shape - 1), which is Beta(1, shape), at Gauss-Legendre nodes of its quantiles."""
    places, weights = np.polynomial.legendre.leggauss(nodes)
    return Prior(1 - (1 - (places + 1) / 2) ** (1 / shape), weights / 2)


# Of fourteen priors simulated over small and large differences this one is at most 15% behind the best of each in rows
# until a stop, and does not vanish at 0, which many rows need; docs/early-stopping.md has the numbers.
PRIOR = beta_prior(1.5)


@dataclass(frozen=True)
class Look:
    """What one look at the rows so far allows to be said; valid however many looks there were.

    Attributes:
        rows: paired rows that were looked at.
        verdict: None while the rows allow none, which means: go on.
        log_e: natural logarithm of the largest e-value so far against "no difference"; at least 0.
        p: anytime-valid p-value, times the number of comparisons; "better" or "worse" is p <= 1 - level.
        interval: confidence sequence of the mean difference at the level that holds for all comparisons together; it
            excludes 0 exactly where `p` says so.
    """

    rows: int
    verdict: Verdict | None
    log_e: float
    p: float
    interval: Interval


def e_process(diffs: npt.ArrayLike, mean: float = 0.0, bound: float = 1.0, *, prior: Prior = PRIOR) -> Array:
    """Natural logarithm of the e-value against "the mean difference is `mean`" after each row, of shape (rows,).

    Raises:
        ComparisonError: a difference that is not a number within ±bound, or a mean that is not strictly within it.
    """
    data = _scaled(diffs, bound)
    if not abs(mean) < bound:
        raise ComparisonError(f"a mean of {mean:g} cannot be tested: differences lie within ±{bound:g}")
    return _log_wealth(data, mean / bound, prior)


def anytime_p(diffs: npt.ArrayLike, bound: float = 1.0) -> float:
    """p-value of "no difference" that may be looked at after every row: 1 over the largest e-value so far, at most 1.

    Raises:
        ComparisonError: as `e_process`.
    """
    return math.exp(-_largest(_scaled(diffs, bound), 0.0))


def confidence_sequence(diffs: npt.ArrayLike, level: float = 0.95, bound: float = 1.0) -> Interval:
    """All means that no look so far has rejected: an interval that covers the mean at all times with chance `level`.

    The running intersection over every row. It is an interval: each factor of the e-value is log-convex in the mean,
    and so are products, mixtures and the largest over time; hence each end is one root, on a monotone side. Where
    nothing is left, which happens to at most 1 - level of all sequences, it is the mean that is contradicted least.

    Returns: (-bound, bound) without rows.

    Raises:
        ComparisonError: as `e_process`. UsageError: a level outside 0..1.
    """
    _check_level(level)
    low, high = _interval(_scaled(diffs, bound), math.log(1 / (1 - level)))
    return bound * low, bound * high


def one_sided_limits(diffs: npt.ArrayLike, level: float = 0.95, bound: float = 1.0) -> Interval:
    """A lower and an upper limit of the mean, each of which holds at all times with chance `level`; for equivalence.

    The lower one is of bets that the mean lies above, whose e-value falls with the mean; the upper one mirrors it. The
    mean lies between both with a chance of 2 · level - 1. Where early rows contradict late ones they can cross.

    Returns: (-bound, bound) without rows.

    Raises:
        ComparisonError: as `e_process`. UsageError: a level outside 0..1.
    """
    _check_level(level)
    data, needed = _scaled(diffs, bound), math.log(1 / (1 - level))
    return bound * _lower_limit(data, needed), -bound * _lower_limit(-data, needed)


def stopping_look(
    diffs: npt.ArrayLike,
    *,
    level: float = 0.95,
    comparisons: int = 1,
    margin: float | None = None,
    bound: float = 1.0,
    direction: Literal["max", "min"] = "max",
) -> Look:
    """Whether the rows so far settle a comparison.

    Args:
        comparisons: how many are judged together; each is held to (1 - level) / comparisons (Bonferroni), so that the
            chance of any false claim among them at any look is at most 1 - level.
        margin: the largest difference that does not matter. "Equivalent" is two one-sided tests, of mean >= margin and
            of mean <= -margin; a difference that is shown yet lies within the margin is "better" or "worse".
        direction: whether a larger score ("max") or a smaller one ("min") is better.

    Raises:
        ComparisonError: as `e_process`.
        UsageError: a level outside 0..1, no comparison, or a margin that is not between 0 and bound.
    """
    _check_level(level)
    if comparisons < 1:
        raise UsageError(f"comparisons ({comparisons}) must be at least 1")
    if margin is not None and not 0 < margin < bound:
        raise UsageError(f"a margin of {margin:g} says nothing: it must lie between 0 and {bound:g}")
    data = _scaled(diffs, bound)
    needed = math.log(comparisons / (1 - level))
    log_e = _largest(data, 0.0)
    low, high = _interval(data, needed)
    verdict: Verdict | None = None
    if log_e >= needed:
        verdict = "better" if (low + high > 0) == (direction == "max") else "worse"
    elif margin is not None:
        limit = margin / bound
        # The mirrored rows turn "at least margin" into "at most -margin".
        small = all(_largest(sign * data, -limit, ("above",)) >= needed for sign in (1, -1))
        verdict = "equivalent" if small else None
    p = min(1.0, comparisons * math.exp(-log_e))
    return Look(rows=len(data), verdict=verdict, log_e=log_e, p=p, interval=(bound * low, bound * high))


def expected_rows(
    difference: float,
    discordance: float,
    rows: int,
    *,
    every: int = 16,
    level: float = 0.95,
    comparisons: int = 1,
    runs: int = 500,
    seed: int = 0,
) -> tuple[float, float]:
    """How soon a binary comparison stops, by simulation: mean rows asked (of at most `rows`) and the share that stops.

    Args:
        difference: true difference of proportions. discordance: share of rows on which exactly one side is right.
        every: rows between looks.
        runs: simulated experiments; the mean's standard error is about half of `rows` / sqrt(runs) at most.

    Raises:
        UsageError: a difference larger than the discordance, or numbers that are not positive.
    """
    _check_level(level)
    if not abs(difference) <= discordance <= 1:
        raise UsageError(f"a difference of {difference:g} needs at least that discordance, and not {discordance:g}")
    if min(rows, every, comparisons, runs) < 1:
        raise UsageError("rows, every, comparisons and runs must be at least 1")
    shares = [(discordance + difference) / 2, (discordance - difference) / 2, 1 - discordance]
    rng = np.random.default_rng(seed)
    looks = np.unique(np.minimum(np.arange(every, rows + every, every), rows))
    needed = math.log(comparisons / (1 - level))
    asked, stopped = 0, 0
    for _ in range(runs):
        over = e_process(rng.choice([1.0, -1.0, 0.0], p=shares, size=rows)) >= needed
        # What was crossed between two looks counts at the next one, as in `stopping_look`.
        seen = np.maximum.accumulate(over)[looks - 1]
        asked += int(looks[int(seen.argmax())]) if seen.any() else rows
        stopped += bool(seen.any())
    return asked / runs, stopped / runs


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise UsageError(f"level {level} must lie between 0 and 1", hint="Use 0.95 for 95% intervals")


def _scaled(diffs: npt.ArrayLike, bound: float) -> Array:
    """The differences divided by the bound, within -1..1."""
    if not (math.isfinite(bound) and bound > 0):
        raise ComparisonError(f"the bound of differences must be a positive number, not {bound}")
    data = np.asarray(diffs, dtype=np.float64).ravel() / bound
    # NaN fails this too.
    wrong = ~(np.abs(data) <= 1 + 1e-9)
    if wrong.any():
        place = int(wrong.argmax())
        raise ComparisonError(
            f"difference {place} is {bound * data[place]:g}, which does not lie within ±{bound:g}",
            hint="Early stopping needs scores on a known scale; give the largest size a difference can have as bound",
        )
    return np.clip(data, -1.0, 1.0)


def _log_wealth(data: Array, mean: float, prior: Prior, sides: Sequence[Side] = _BOTH) -> Array:
    """Running log e-values, of shape (rows,), for data and mean in -1..1; bets that the mean lies above, below or both."""
    nodes = len(prior.stakes)
    wealth = np.log(np.tile(prior.weights, len(sides)) / len(sides))
    found = np.empty(len(data))
    for start in range(0, len(data), _CHUNK):
        rows = data[start : start + _CHUNK]
        padded = np.pad(rows, (0, -len(rows) % _BLOCK)).reshape(-1, _BLOCK).T[:, :, None]
        growth = np.empty((_BLOCK, padded.shape[1], nodes * len(sides)))
        for place, side in enumerate(sides):
            sign = 1 if side == "above" else -1
            # A stake θ turns 1 into 1 - θ + θ · (1 ± x) / (1 ± mean), which is exact also next to the edges.
            gain = (1 + sign * padded) / (1 + sign * mean)
            np.multiply(gain, prior.stakes, out=growth[:, :, place * nodes : (place + 1) * nodes])
        growth += np.tile(1 - prior.stakes, len(sides))
        # Row by row within all blocks at once; np.cumprod takes ten times as long.
        for row in range(1, _BLOCK):
            growth[row] *= growth[row - 1]
        block = np.log(growth[-1])
        before = wealth + np.cumsum(block, axis=0) - block
        top = before.max(axis=1, keepdims=True)
        mixed = np.matmul(growth.transpose(1, 0, 2), np.exp(before - top)[:, :, None])[:, :, 0]
        found[start : start + len(rows)] = (np.log(mixed) + top).ravel()[: len(rows)]
        wealth = before[-1] + block[-1]
    return found


def _largest(data: Array, mean: float, sides: Sequence[Side] = _BOTH) -> float:
    """The largest log e-value so far; 0, that of the start, at least."""
    return float(_log_wealth(data, mean, PRIOR, sides).max(initial=0.0))


def _interval(data: Array, needed: float) -> Interval:
    """Means in -1..1 whose log e-value has never reached `needed`."""
    from scipy.optimize import brentq, minimize_scalar

    if len(data) == 0:
        return -1.0, 1.0

    def excess(mean: float) -> float:
        return _largest(data, mean) - needed

    # At the sample mean the last e-value is at most 1, so only an earlier look can have rejected it.
    centre = float(np.clip(data.mean(), -_EDGE, _EDGE))
    if excess(centre) >= 0:
        best = minimize_scalar(excess, bounds=(-_EDGE, _EDGE), method="bounded", options={"xatol": _TOLERANCE})
        centre = float(best.x)
        if best.fun >= 0:
            return centre, centre
    # About the half-width to come; a narrow bracket saves passes over the rows.
    step = math.sqrt(2 * (needed + 2) * max(float(data.var()), 1 / len(data)) / len(data))

    def end(sign: int) -> float:
        inner, reach = centre, step
        while True:
            outer = float(np.clip(centre + sign * reach, -_EDGE, _EDGE))
            if excess(outer) >= 0:
                return float(brentq(excess, inner, outer, xtol=_TOLERANCE))
            if abs(outer) >= _EDGE:
                return float(sign)
            inner, reach = outer, 2 * reach

    return end(-1), end(1)


def _lower_limit(data: Array, needed: float) -> float:
    """The least mean in -1..1 against which bets that it lies above have never reached `needed`."""
    from scipy.optimize import brentq

    def excess(mean: float) -> float:
        return _largest(data, mean, ("above",)) - needed

    if excess(-_EDGE) < 0:
        return -1.0
    return 1.0 if excess(_EDGE) >= 0 else float(brentq(excess, -_EDGE, _EDGE, xtol=_TOLERANCE))
