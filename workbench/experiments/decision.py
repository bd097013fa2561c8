"""Difference and Decision: what the numbers of one variant against the baseline are, and what they allow to be said."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeAlias

from workbench.experiments.power import MOST_ROWS, rows_needed
from workbench.html import counted

Outcome: TypeAlias = Literal["better", "worse", "equivalent", "inconclusive"]
Unit: TypeAlias = Literal["share", "s", "tokens", "usd", ""]

# How a run that could stop early was judged, and how many times the rows of a single look that takes at most (simulated;
# see docs/early-stopping.md).
ANYTIME = "betting test and confidence sequence, valid at any time"
ANYTIME_ROWS = 1.8


@dataclass(frozen=True)
class Difference:
    """One variant against the baseline on one scorer. All numbers are of the paired rows; None means unknown, never 0.

    Attributes:
        kind: how it was analysed: a binary scorer with repeats or clusters is analysed as "continuous".
        family: "quality", "secondary" (shown beside what decides) or "resource"; p-values are adjusted within each.
        unit: of the means: "share" (0..1, shown in per cent), "s", "tokens", "usd", or none.
        n: paired rows. unpaired: rows that either side lacks a score for.
        errors, invalid: rows with an accident (engine, time, memory), and with an answer that post-processing rejected,
            of the variant and of the baseline.
        difference: variant_mean - baseline_mean, with its interval `low`..`high` at `level`, not widened for the number
            of comparisons: that is what `p_holm` is for.
        tost_low, tost_high: the interval at 2 · level - 1 that equivalence is judged by; None without a margin.
        fixed, broke: rows that only the variant, and only the baseline, got right (binary scorers).
        sd: standard deviation of a row's difference, that of clusters included. discordance: share of rows that differ
            (binary analysis only).
    """

    variant: str
    baseline: str
    scorer: str
    kind: Literal["binary", "continuous"]
    direction: Literal["max", "min"]
    family: Literal["quality", "secondary", "resource"]
    unit: Unit
    n: int
    unpaired: int
    errors: tuple[int, int]
    invalid: tuple[int, int]
    baseline_mean: float | None
    variant_mean: float | None
    baseline_interval: tuple[float, float] | None
    variant_interval: tuple[float, float] | None
    difference: float | None
    low: float | None
    high: float | None
    tost_low: float | None
    tost_high: float | None
    p: float | None
    p_holm: float | None
    method: str
    fixed: int | None
    broke: int | None
    clusters: int | None
    margin: float | None
    sd: float | None
    discordance: float | None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Difference:
        """The inverse of `dataclasses.asdict` after a journey through JSON, where tuples became lists."""
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in data.items()}
        return cls(**values)


@dataclass(frozen=True)
class Decision:
    """What a comparison concludes about one variant on one scorer, and the numbers it rests on.

    Attributes:
        outcome: "better" or "worse" where the adjusted p and the interval both say so; "equivalent" where a margin was
            given and the interval lies within it; "inconclusive" otherwise.
        non_inferior: whether the variant is not worse by more than the margin; None without a margin.
        rows_needed: where inconclusive, rows that would show the observed difference with 80% power; None where it is 0
            or too small to be shown.
        evidence: digest of the scores that were compared.
    """

    outcome: Outcome
    variant: str
    baseline: str
    scorer: str
    difference: float | None
    low: float | None
    high: float | None
    p_holm: float | None
    n: int
    margin: float | None
    non_inferior: bool | None
    rows_needed: int | None
    sentence: str
    run_id: str
    evidence: str

    def to_json(self) -> dict[str, Any]:
        return {"format_version": 1, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Decision:
        return cls(**{field.name: data[field.name] for field in fields(cls)})

    def __str__(self) -> str:
        return self.sentence

    def _repr_html_(self) -> str:
        from workbench.html import callout

        tints: dict[Outcome, Literal["ok", "bad", "info", "warn"]] = {
            "better": "ok",
            "worse": "bad",
            "equivalent": "info",
            "inconclusive": "warn",
        }
        return callout(self.sentence, tints[self.outcome])


def decide(row: Difference, *, level: float, comparisons: int, run_id: str, evidence: str) -> Decision:
    """The decision on one difference.

    A winner needs `p_holm` <= 1 - level and an interval without 0. Equivalence is two one-sided tests (Schuirmann
    1987): the interval at 2 · level - 1 within ±margin; non-inferiority is its one side. Both are judged for each
    comparison on its own. A difference that is significant yet within the margin is called better or worse, not
    equivalent.

    Args:
        comparisons: size of the Holm family, for the number of rows needed.
    """
    non_inferior = equivalent = None
    if row.margin is not None:
        known = row.tost_low is not None and row.tost_high is not None
        above, below = known and row.tost_low > -row.margin, known and row.tost_high < row.margin  # type: ignore[operator]
        equivalent, non_inferior = above and below, above if row.direction == "max" else below
    outcome: Outcome = "inconclusive"
    if row.difference is not None and row.low is not None and row.high is not None and row.p_holm is not None:
        if row.p_holm <= 1 - level and (row.low > 0 or row.high < 0):
            outcome = "better" if (row.difference > 0) == (row.direction == "max") else "worse"
        elif equivalent:
            outcome = "equivalent"
    needed = _rows_needed(row, level, comparisons) if outcome == "inconclusive" else None
    return Decision(
        outcome=outcome,
        variant=row.variant,
        baseline=row.baseline,
        scorer=row.scorer,
        difference=row.difference,
        low=row.low,
        high=row.high,
        p_holm=row.p_holm,
        n=row.n,
        margin=row.margin,
        non_inferior=non_inferior,
        rows_needed=needed,
        sentence=_sentence(row, outcome, level, equivalent, non_inferior, needed),
        run_id=run_id,
        evidence=evidence,
    )


def _rows_needed(row: Difference, level: float, comparisons: int) -> int | None:
    if not row.difference or (row.discordance is None and row.sd is None):
        return None
    found = rows_needed(
        row.difference, row.kind, discordance=row.discordance, sd=row.sd, level=level, comparisons=comparisons
    )
    if found is not None and row.method == ANYTIME:
        found = math.ceil(found * ANYTIME_ROWS)
    # The observed effect may be larger than what these rows can show for want of enough of them.
    return None if found is None else max(found, row.n + 1)


def _sentence(
    row: Difference,
    outcome: Outcome,
    level: float,
    equivalent: bool | None,
    non_inferior: bool | None,
    needed: int | None,
) -> str:
    if row.n == 0 or row.difference is None:
        return (
            f"{row.variant} and {row.baseline} cannot be compared on {row.scorer}: "
            "there is no row that both have a score for."
        )
    means = f"{amount(row.variant_mean, row.unit)} against {amount(row.baseline_mean, row.unit)}"
    shown = [f"difference {amount(row.difference, row.unit, signed=True, points=True)}"]
    if row.low is not None and row.high is not None:
        limits = f"{amount(row.low, row.unit, signed=True)} to {amount(row.high, row.unit, signed=True)}"
        shown.append(f"{100 * level:g}% interval {limits}")
    if row.p_holm is not None:
        shown.append(f"adjusted p {p_text(row.p_holm)}")
    rows = counted(row.n, "row")
    shown.append(rows if row.clusters is None else f"{rows} in {row.clusters:,} groups")
    numbers = f"{means} ({', '.join(shown)})"
    margin = "" if row.margin is None else amount(row.margin, row.unit, points=True)
    if outcome in ("better", "worse"):
        tail = f" The difference lies within the margin of {margin}." if equivalent else ""
        return f"{row.variant} is {outcome} than {row.baseline} on {row.scorer}: {numbers}.{tail}"
    if outcome == "equivalent":
        return f"{row.variant} and {row.baseline} are equivalent on {row.scorer} within {margin}: {numbers}."
    start = f"{row.variant} and {row.baseline} cannot be told apart on {row.scorer}: {numbers}."
    if non_inferior:
        start += f" {row.variant} is not worse by more than {margin}."
    if row.difference == 0:
        return start + " No difference was seen, so no number of rows can be named."
    if needed is None:
        return start + f" Not even {MOST_ROWS:,} rows would be expected to show a difference of this size."
    return start + f" About {needed:,} rows would show a difference of this size with 80% power."


def amount(value: float | None, unit: Unit, *, signed: bool = False, points: bool = False) -> str:
    """A mean or a difference for people: shares in per cent, differences of shares in points."""
    if value is None or not math.isfinite(value):
        return "–"
    sign = "+" if signed else ""
    if unit == "share":
        text = f"{100 * value:{sign}.1f}"
        return f"{text} points" if points else text if signed else f"{text}%"
    if unit == "usd":
        return f"{'-' if value < 0 else sign}${abs(value):.3g}"
    number = f"{value:{sign},.0f}" if abs(value) >= 1000 else f"{value:{sign}.3g}"
    return f"{number} {unit}".rstrip()


def p_text(p: float) -> str:
    """`< 0.001`, or `= ` and three decimals."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"
