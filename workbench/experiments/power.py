"""Power of a paired comparison: what a number of rows can show, and how many rows an effect needs.

Binary scorers are judged by the exact McNemar test, so its exact unconditional power is computed; continuous ones by a
paired t-test's power, which the permutation test and the bootstrap come close to. `Plan` is what an experiment answers
before anything is spent.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from workbench.errors import UsageError

Kind = Literal["binary", "continuous"]

# Beyond this many rows an answer is of no use to anyone.
MOST_ROWS = 10_000_000
# Up to here the exact power is summed; beyond, Connor's approximation is as good (the test shows it at 2,000 rows).
_EXACT_ROWS = 20_000


def mcnemar_power(n: int, difference: float, discordance: float, level: float = 0.95) -> float:
    """Probability that the exact McNemar test rejects, in 0..1.

    Exact and unconditional: the number of discordant rows is binomial(n, discordance), and of these the variant wins a
    binomial share of (discordance + |difference|) / (2 · discordance).

    Args:
        difference: variant minus baseline, as proportions; at most `discordance` in size.
        discordance: share of rows on which exactly one of the two is right.
    """
    from scipy.stats import binom

    if n < 1 or discordance <= 0:
        return 0.0
    share = min(1.0, (discordance + abs(difference)) / (2 * discordance))
    low, high = int(binom.ppf(1e-9, n, discordance)), int(binom.ppf(1 - 1e-9, n, discordance))
    counts = np.arange(max(1, low), high + 1)
    # The largest x with P(X <= x) <= alpha / 2 under one half; -1 where no result is extreme enough.
    critical = binom.ppf((1 - level) / 2, counts, 0.5)
    critical = np.where(binom.cdf(critical, counts, 0.5) > (1 - level) / 2 * (1 + 1e-12), critical - 1, critical)
    rejects = binom.cdf(critical, counts, share) + binom.sf(counts - critical - 1, counts, share)
    return float(min(1.0, (binom.pmf(counts, n, discordance) * np.where(critical >= 0, rejects, 0.0)).sum()))


def connor_power(n: int, difference: float, discordance: float, level: float = 0.95) -> float:
    """Normal approximation of `mcnemar_power`, with its arguments (Connor 1987, Biometrics 43:207)."""
    from scipy.stats import norm

    if n < 1 or discordance <= 0:
        return 0.0
    delta = abs(difference)
    spread = math.sqrt(max(discordance - delta**2, 0.0))
    shift = delta * math.sqrt(n) - float(norm.ppf(0.5 + level / 2)) * math.sqrt(discordance)
    return float(norm.cdf(shift / spread)) if spread > 0 else float(shift > 0)


def paired_power(n: int, difference: float, sd: float, level: float = 0.95) -> float:
    """Power of the two-sided paired t-test on `n` differences with standard deviation `sd` (statsmodels' `TTestPower`).

    0 where the sign-flip test has too few sign patterns to reject at all (2 / 2^n above alpha).
    """
    from statsmodels.stats.power import TTestPower

    if n < fewest_rows(level) or difference == 0:
        return 0.0
    if sd <= 0:
        return 1.0
    power = float(TTestPower().power(abs(difference) / sd, n, 1 - level))
    # The noncentral t of a huge effect underflows to NaN.
    return 1.0 if math.isnan(power) else power


def fewest_rows(level: float = 0.95) -> int:
    """The fewest independent rows with which the sign-flip or exact McNemar test can reject: 6 at 0.95."""
    return max(2, math.ceil(math.log2(2 / (1 - level)) - 1e-9))


def smallest_difference(
    n: int,
    kind: Kind,
    *,
    discordance: float | None = None,
    sd: float | None = None,
    level: float = 0.95,
    power: float = 0.8,
    comparisons: int = 1,
    design_effect: float = 1.0,
) -> float | None:
    """The smallest true difference that `n` rows show with probability `power`; None where no size can show any.

    Args:
        discordance: for a binary scorer, the share of rows on which the variants are expected to differ. A difference
            above it implies at least that much discordance, which is then assumed.
        sd: for a continuous scorer, the standard deviation of a row's difference, in the scorer's unit.
        comparisons: how many are judged together; each then gets (1 - level) / comparisons, which Holm's procedure
            gives the first of them, so the answer holds for the hardest case.
        design_effect: variance of the mean relative to independent rows; above 1 where rows come in clusters.
    """
    alpha = _checked(level, power, comparisons, design_effect)
    rows = int(n / design_effect)
    if kind == "binary":
        share = _needed(discordance, "discordance")
        return _bisect(lambda d: _binary_power(rows, d, max(share, d), 1 - alpha), power, 1.0)
    spread = _needed(sd, "sd")
    if rows < fewest_rows(1 - alpha):
        return None
    if spread == 0:
        return 0.0
    return _bisect(lambda d: paired_power(rows, d, spread, 1 - alpha), power, spread * 1000)


def rows_needed(
    difference: float,
    kind: Kind,
    *,
    discordance: float | None = None,
    sd: float | None = None,
    level: float = 0.95,
    power: float = 0.8,
    comparisons: int = 1,
    design_effect: float = 1.0,
) -> int | None:
    """Rows with which a true `difference` is shown with probability `power`; arguments as in `smallest_difference`.

    Returns: None for a difference of 0, and where it would take more than ten million rows.
    """
    alpha = _checked(level, power, comparisons, design_effect)
    if difference == 0:
        return None
    share = max(_needed(discordance, "discordance"), abs(difference)) if kind == "binary" else _needed(sd, "sd")

    def enough(rows: int) -> bool:
        if kind == "binary":
            return _binary_power(rows, difference, share, 1 - alpha) >= power
        return paired_power(rows, difference, share, 1 - alpha) >= power

    high = fewest_rows(1 - alpha)
    while not enough(high):
        high *= 2
        if high > MOST_ROWS:
            return None
    low = high // 2
    # The exact test's power is a saw-tooth in n; bisection lands on one of its first crossings.
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return math.ceil(high * design_effect)


def _binary_power(n: int, difference: float, discordance: float, level: float) -> float:
    choose = mcnemar_power if n <= _EXACT_ROWS else connor_power
    return choose(n, difference, discordance, level)


def _bisect(power_of: Callable[[float], float], power: float, top: float) -> float | None:
    if power_of(top) < power:
        return None
    low, high = 0.0, top
    while high - low > 1e-6 * max(high, 1e-12):
        middle = (low + high) / 2
        low, high = (low, middle) if power_of(middle) >= power else (middle, high)
    return high


def _checked(level: float, power: float, comparisons: int, design_effect: float) -> float:
    """Alpha of one comparison."""
    if not 0 < level < 1 or not 0 < power < 1:
        raise UsageError(f"level {level} and power {power} must lie between 0 and 1")
    if comparisons < 1 or not design_effect > 0:
        raise UsageError(f"comparisons ({comparisons}) must be at least 1, design_effect ({design_effect}) positive")
    return (1 - level) / comparisons


def _needed(value: float | None, name: str) -> float:
    if value is None or not math.isfinite(value) or value < 0 or (name == "discordance" and value > 1):
        raise UsageError(f"{name} must be given as a {'share of rows' if name == 'discordance' else 'number >= 0'}")
    return value


@dataclass(frozen=True)
class Plan:
    """What an experiment would take, and what it could show.

    Attributes:
        calls, tokens_in, tokens_out: totals over variants, rows and repeats.
        minutes, cost_usd: expected, from the pilot's pace and the model's prices.
        rows: independent rows; clusters: independent groups of them, None where the data set names no group.
        smallest_difference: by scorer, in its own unit (binary: a difference of proportions); None where this size can
            show none.
        assumptions: sentences saying what the numbers rest on.
    """

    calls: int
    tokens_in: int
    tokens_out: int
    minutes: float
    cost_usd: float
    rows: int
    clusters: int | None
    smallest_difference: Mapping[str, float | None]
    assumptions: tuple[str, ...] = ()

    def lines(self) -> list[tuple[str, str]]:
        """Label and text of each line, for any display."""
        rows = f"{self.rows:,}" + (f" in {self.clusters:,} groups" if self.clusters is not None else "")
        found = [
            ("rows", rows),
            ("calls", f"{self.calls:,}"),
            ("tokens", f"{self.tokens_in:,} in, {self.tokens_out:,} out"),
            ("time", f"{self.minutes:.1f} min" if self.minutes >= 1 else f"{60 * self.minutes:.0f} s"),
            ("cost", f"${self.cost_usd:,.4f}" if 0 < self.cost_usd < 0.01 else f"${self.cost_usd:,.2f}"),
        ]
        for scorer, value in self.smallest_difference.items():
            found.append((f"smallest {scorer} difference", "none: too few rows" if value is None else f"{value:.3g}"))
        return found

    def __str__(self) -> str:
        width = max(len(label) for label, _ in self.lines())
        text = [f"{label:<{width}}  {value}" for label, value in self.lines()]
        return "\n".join(text + [f"- {sentence}" for sentence in self.assumptions])

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th style="text-align:left">{html.escape(label)}</th>'
            f'<td style="text-align:left">{html.escape(value)}</td></tr>'
            for label, value in self.lines()
        )
        notes = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in self.assumptions)
        return f"<table>{rows}</table>" + (f"<ul>{notes}</ul>" if notes else "")
