"""Agreement of a judge with labels that people gave: how far the judge can be trusted, before a decision rests on it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from workbench.errors import UsageError
from workbench.experiments import statistics

if TYPE_CHECKING:
    import polars as pl

    from workbench.experiments.scorers.base import ScoreInput, Scorer
    from workbench.experiments.statistics import Interval

Mark: TypeAlias = float | str

# A table of more classes than this is not printed: such marks are measurements, and read better as a bias.
MOST_SHOWN = 12


@dataclass(frozen=True)
class Agreement:
    """How far judged marks and labels agree.

    Attributes:
        n: rows with both a mark and a label. missing: rows that lack one or both; nothing below counts them.
        agreed: rows on which mark and label are equal.
        agreement: `agreed / n`, with Wilson's interval; None where n is 0.
        kappa: Cohen's kappa, 1 for perfect agreement and 0 for what chance alone would give (Cohen 1960, Educational and
            Psychological Measurement 20:37). Its interval is that of its large-sample standard error (Fleiss, Cohen and
            Everitt 1969, Psychological Bulletin 72:323) on Fisher's z scale, which covers better than the plain one and
            stays within -1..1; below 50 rows it is a rough one. None where not defined or not known: `reason` says why.
        ordinal: kappa's disagreements are weighted by their squared size (Cohen 1968, Psychological Bulletin 70:213).
        bias: mean mark minus mean label, in the unit of the marks; None where they are text.
        classes: every mark and label that occurs, in order.
        counts: rows by label (outer) and judged mark (inner), in the order of `classes`.
    """

    n: int
    missing: int
    agreed: int
    agreement: float | None
    agreement_interval: Interval | None
    kappa: float | None
    kappa_interval: Interval | None
    ordinal: bool
    level: float
    reason: str | None
    bias: float | None
    classes: tuple[Mark, ...]
    counts: tuple[tuple[int, ...], ...]

    def confusion(self) -> pl.DataFrame:
        """One row a label, one column a judged mark (`judged …`), holding numbers of rows."""
        import polars as pl

        names = [_text(mark) for mark in self.classes]
        columns = list(zip(*self.counts, strict=True))
        judged = {f"judged {name}": list(column) for name, column in zip(names, columns, strict=True)}
        return pl.DataFrame({"label": names, **judged}, schema_overrides={"label": pl.String})

    def _figures(self) -> list[tuple[str, str]]:
        rows = f"{self.n}" + (f" ({self.missing} more lack a mark or a label)" if self.missing else "")
        figures = [("rows", rows)]
        if self.agreement is not None:
            figures.append(("agreement", f"{self.agreement:.1%}" + _between(self.agreement_interval, ".1%")))
        name = "quadratic kappa" if self.ordinal else "Cohen's kappa"
        kappa = "not defined" if self.kappa is None else f"{self.kappa:.2f}" + _between(self.kappa_interval, ".2f")
        figures.append((name, f"{kappa}; {self.reason}" if self.reason else kappa))
        if self.bias is not None:
            figures.append(("bias", f"{self.bias:+.3g}"))
        return figures

    def __str__(self) -> str:
        lines = [f"{name:<16} {text}" for name, text in self._figures()]
        if 0 < len(self.classes) <= MOST_SHOWN:
            frame = self.confusion()
            cells = [frame.columns, *([str(cell) for cell in row] for row in frame.rows())]
            columns = [[cell.ljust(max(map(len, column))) for cell in column] for column in zip(*cells, strict=True)]
            lines += ["", *("  ".join(row).rstrip() for row in zip(*columns, strict=True))]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from workbench.html import frame_table, table

        shown = table(["judge and labels", f"interval at {self.level:.0%}"], self._figures())
        return shown + (frame_table(self.confusion()) if 0 < len(self.classes) <= MOST_SHOWN else "")


def agreement(
    judged: Sequence[Mark | None],
    labels: Sequence[Mark | None],
    *,
    ordinal: bool = False,
    level: float = 0.95,
) -> Agreement:
    """How far `judged` agrees with `labels`, pair by pair. None and NaN are missing.

    Args:
        ordinal: marks are numbers on a scale, and to be off by two is four times as bad as by one.
        level: of the intervals.

    Raises:
        UsageError: lists of unlike length, text on one side and numbers on the other, text with `ordinal`, or a level
            outside 0.5..1.
    """
    if len(judged) != len(labels):
        raise UsageError(f"{len(judged)} judged marks but {len(labels)} labels", hint="Give one label a row.")
    if not 0.5 < level < 1:
        raise UsageError(f"level {level} must lie between 0.5 and 1", hint="Use 0.95 for 95% intervals")
    pairs = [(one, other) for one, other in zip(map(_mark, judged), map(_mark, labels), strict=True)]
    both = [(one, other) for one, other in pairs if one is not None and other is not None]
    texts = {isinstance(mark, str) for pair in both for mark in pair}
    if len(texts) > 1:
        raise UsageError("some marks are numbers and some are text", hint="Give judged marks and labels alike.")
    if ordinal and True in texts:
        raise UsageError("marks in text have no order", hint="Give numbers, or leave ordinal off.")
    n = len(both)
    classes = tuple(sorted({mark for pair in both for mark in pair}))
    tally = Counter((label, mark) for mark, label in both)
    counts = tuple(tuple(tally[label, mark] for mark in classes) for label in classes)
    agreed = sum(one == other for one, other in both)
    kappa, interval, reason = _kappa(classes, counts, ordinal, level)
    return Agreement(
        n=n,
        missing=len(pairs) - n,
        agreed=agreed,
        agreement=agreed / n if n else None,
        agreement_interval=statistics.wilson(agreed, n, level) if n else None,
        kappa=kappa,
        kappa_interval=interval,
        ordinal=ordinal,
        level=level,
        reason=reason,
        bias=None if not n or True in texts else sum(float(one) - float(other) for one, other in both) / n,
        classes=classes,
        counts=counts,
    )


def judge_agreement(
    scorer: Scorer,
    items: Sequence[ScoreInput],
    labels: Sequence[Mark | None],
    *,
    ordinal: bool | None = None,
    level: float = 0.95,
) -> Agreement:
    """How far a judge agrees with people's labels of the same answers. The judge is asked once for all of them.

    Labels in numbers are compared with its values, labels in text with its labels. Answers that failed and answers on which
    the judge failed are missing: the judge has said nothing of them.

    Args:
        ordinal: as in `agreement`; None means yes for numbers by a scorer that is not binary.

    Raises:
        UsageError: see `agreement`.
        ModelError: the judge's model is not here.
    """
    if len(items) != len(labels):
        raise UsageError(f"{len(items)} answers but {len(labels)} labels", hint="Give one label a row.")
    named = any(isinstance(label, str) for label in labels)
    judged: list[Mark | None] = [
        None if item.error_kind is not None or score.value is None else score.label if named else score.value
        for item, score in zip(items, scorer.score_all(items), strict=True)
    ]
    weighted = not named and scorer.kind == "continuous" if ordinal is None else ordinal
    return agreement(judged, labels, ordinal=weighted, level=level)


def _kappa(
    classes: tuple[Mark, ...], counts: tuple[tuple[int, ...], ...], ordinal: bool, level: float
) -> tuple[float | None, Interval | None, str | None]:
    """Kappa, its interval, and why one of them is None."""
    import numpy as np
    from statsmodels.stats.inter_rater import cohens_kappa

    table = np.asarray(counts, dtype=float)
    if table.sum() < 2:
        return None, None, "fewer than two rows"
    if len(classes) < 2:
        return None, None, f"every mark and label is {_text(classes[0])}: chance alone would agree"
    # Divisions by a variance of 0 concern a test that is not used here.
    with np.errstate(all="ignore"):
        # By the marks themselves and not their places: with 1, 2 and 5 used, 2 is nearer to 1 than to 5.
        found = cohens_kappa(table, weights=np.asarray(classes, dtype=float), wt="quadratic") if ordinal else None
        found = cohens_kappa(table) if found is None else found
    kappa, variance = float(found.kappa), float(found.var_kappa)
    # Where nothing varies the large-sample error is 0, which would be an interval of certainty.
    if not math.isfinite(variance) or variance < 1e-12 or abs(kappa) >= 1:
        perfect = table.trace() == table.sum()
        return (
            kappa,
            None,
            "no interval, as " + ("mark and label never differ" if perfect else "the marks vary too little"),
        )
    centre, half = math.atanh(kappa), statistics.z_value(level) * math.sqrt(variance) / (1 - kappa**2)
    return kappa, (math.tanh(centre - half), math.tanh(centre + half)), None


def _mark(value: Mark | None) -> Mark | None:
    """A mark as text or a finite float; None where it is missing."""
    if value is None or isinstance(value, str):
        return value
    number = float(value)
    if math.isinf(number):
        raise UsageError(f"a mark of {number} is no number to compare")
    return None if math.isnan(number) else number


def _text(mark: Mark) -> str:
    return mark if isinstance(mark, str) else str(int(mark)) if mark.is_integer() else repr(mark)


def _between(interval: Interval | None, form: str) -> str:
    return "" if interval is None else f" ({interval[0]:{form}} to {interval[1]:{form}})"
