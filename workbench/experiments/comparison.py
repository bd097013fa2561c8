"""Comparison: every variant against the baseline on every scorer, and the ways to look at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import polars as pl

from workbench.errors import ComparisonError
from workbench.experiments.decision import Decision, Difference, amount, decide

_RESULT_COLUMNS = {
    "variant": pl.String,
    "baseline": pl.String,
    "scorer": pl.String,
    "n": pl.Int64,
    "unpaired": pl.Int64,
    "baseline_mean": pl.Float64,
    "variant_mean": pl.Float64,
    "difference": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "p": pl.Float64,
    "p_holm": pl.Float64,
    "fixed": pl.Int64,
    "broke": pl.Int64,
    "clusters": pl.Int64,
    "errors": pl.Int64,
    "baseline_errors": pl.Int64,
    "outcome": pl.String,
    "method": pl.String,
}


@dataclass(frozen=True)
class Comparison:
    """The differences of one run.

    Attributes:
        rows: one `Difference` a variant (but the baseline) and scorer, in the manifest's order.
        primary: the scorer that decides. level: of the intervals.
        evidence: digest of the scores, the run and its pipelines: what the numbers were computed from.
    """

    run_id: str
    experiment: str
    baseline: str
    primary: str
    level: float
    seed: int
    evidence: str
    rows: tuple[Difference, ...]
    scores: pl.DataFrame | None = field(default=None, repr=False, compare=False)
    calls: pl.DataFrame | None = field(default=None, repr=False, compare=False)

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants that were compared with the baseline, in order."""
        return tuple(dict.fromkeys(row.variant for row in self.rows))

    def row(self, variant: str, scorer: str | None = None) -> Difference:
        """The difference of one variant on one scorer (the primary one by default).

        Raises:
            ComparisonError: there is no such variant or scorer in it.
        """
        wanted = scorer or self.primary
        for found in self.rows:
            if found.variant == variant and found.scorer == wanted:
                return found
        if variant == self.baseline:
            raise ComparisonError(
                f"{variant} is the baseline of this comparison", hint="Compare over another variant: baseline=…"
            )
        if variant not in self.variants:
            raise ComparisonError(f"there is no variant {variant!r}", hint=f"Compared: {', '.join(self.variants)}")
        scorers = dict.fromkeys(found.scorer for found in self.rows)
        raise ComparisonError(f"there is no scorer {wanted!r}", hint=f"Compared: {', '.join(scorers)}")

    def decision(self, variant: str, over: str | None = None, scorer: str | None = None) -> Decision:
        """What may be said of `variant` against the baseline on `scorer` (the primary one by default).

        Raises:
            ComparisonError: unknown names, or `over` is not what this comparison compared with.
        """
        if over is not None and over != self.baseline:
            raise ComparisonError(
                f"this comparison is over {self.baseline}, not {over}", hint=f"Run: run.compare(baseline={over!r})"
            )
        row = self.row(variant, scorer)
        family = sum(other.family == row.family and other.p is not None for other in self.rows)
        return decide(row, level=self.level, comparisons=max(1, family), run_id=self.run_id, evidence=self.evidence)

    def table(self) -> pl.DataFrame:
        """One row a variant and scorer, numbers unrounded; `outcome` is that of `decision`."""
        records = [
            asdict(row)
            | {
                "errors": row.errors[0],
                "baseline_errors": row.errors[1],
                "outcome": self.decision(row.variant, scorer=row.scorer).outcome,
            }
            for row in self.rows
        ]
        return pl.DataFrame({name: [r[name] for r in records] for name in _RESULT_COLUMNS}, schema=_RESULT_COLUMNS)

    def disagreements(self, variant: str, scorer: str | None = None) -> pl.DataFrame:
        """Rows that variant and baseline score differently, what the variant broke first.

        Returns: row_id, change ("broke" or "fixed": for the worse or for the better), input, target, baseline_output,
            baseline_result, variant_output, variant_result (of the first repeat), baseline_value, variant_value (means
            over repeats).

        Raises:
            ComparisonError: unknown names, or a comparison read from JSON, which has no rows.
        """
        row = self.row(variant, scorer)
        if self.scores is None or self.calls is None:
            raise ComparisonError("this comparison holds no rows", hint="Compare the run again: run.compare()")
        values = self.scores.filter(pl.col("scorer") == row.scorer)
        answers = self.calls.sort("repeat").unique(["variant", "row_id"], keep="first", maintain_order=True)

        def side(name: str, prefix: str) -> pl.DataFrame:
            means = values.filter(pl.col("variant") == name).group_by("row_id").agg(pl.col("value").mean())
            texts = answers.filter(pl.col("variant") == name).select("row_id", "input", "target", "output", "result")
            kept = {column: f"{prefix}_{column}" for column in ("output", "result", "value")}
            return texts.join(means, on="row_id", how="inner").rename(kept)

        worse = pl.col("variant_value") < pl.col("baseline_value")
        both = side(self.baseline, "baseline").join(
            side(variant, "variant").drop("input", "target"), on="row_id", how="inner"
        )
        return (
            both.filter(pl.col("variant_value") != pl.col("baseline_value"))
            .with_columns(
                pl.when(worse if row.direction == "max" else ~worse)
                .then(pl.lit("broke"))
                .otherwise(pl.lit("fixed"))
                .alias("change")
            )
            .sort("change", "row_id")
            .select(
                "row_id",
                "change",
                "input",
                "target",
                "baseline_output",
                "baseline_result",
                "variant_output",
                "variant_result",
                "baseline_value",
                "variant_value",
            )
        )

    def to_json(self) -> dict[str, Any]:
        """Everything but the rows' texts, as JSON."""
        return {
            "format_version": 1,
            "run_id": self.run_id,
            "experiment": self.experiment,
            "baseline": self.baseline,
            "primary": self.primary,
            "level": self.level,
            "seed": self.seed,
            "evidence": self.evidence,
            "rows": [
                {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(row).items()}
                for row in self.rows
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Comparison:
        """The inverse of `to_json`; it decides as before but has no `disagreements`.

        Raises:
            ComparisonError: another format, or fields that are not those of a comparison.
        """
        if data.get("format_version") != 1:
            raise ComparisonError(f"a comparison of format {data.get('format_version')!r} cannot be read")
        try:
            rows = tuple(Difference.from_json(row) for row in data["rows"])
            return cls(
                **{key: value for key, value in data.items() if key not in ("format_version", "rows")}, rows=rows
            )
        except (KeyError, TypeError) as error:
            raise ComparisonError(f"the stored comparison is malformed: {error}") from None

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        """Headings and cells of the table that people see."""
        heads = ["variant", "scorer", "n", self.baseline, "variant mean", "difference", "interval"]
        heads += ["adjusted p", "fixed/broke", "errors", "outcome"]
        found = []
        for row in self.rows:
            low, high = amount(row.low, row.unit, signed=True), amount(row.high, row.unit, signed=True)
            found.append(
                [
                    row.variant,
                    row.scorer,
                    f"{row.n}" + (f" (+{row.unpaired} unpaired)" if row.unpaired else ""),
                    amount(row.baseline_mean, row.unit),
                    amount(row.variant_mean, row.unit),
                    amount(row.difference, row.unit, signed=True),
                    "–" if row.low is None else f"{low} to {high}",
                    "–" if row.p_holm is None else f"{row.p_holm:.3f}" if row.p_holm >= 0.001 else "<0.001",
                    "–" if row.fixed is None else f"{row.fixed}/{row.broke}",
                    f"{row.errors[0]} vs {row.errors[1]}" if any(row.errors) else "0",
                    self.decision(row.variant, scorer=row.scorer).outcome,
                ]
            )
        return heads, found

    def __str__(self) -> str:
        """A table for the terminal, 150 columns wide at most, and a sentence for each variant on the primary scorer."""
        from io import StringIO

        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        heads, rows = self._cells()
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for head in heads:
            table.add_column(Text(head), overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        stream = StringIO()
        Console(file=stream, width=150, color_system=None, force_terminal=False).print(table)
        lines = [line.rstrip() for line in stream.getvalue().splitlines() if line.strip()]
        return "\n".join(lines + [str(self.decision(variant)) for variant in self.variants])

    def _repr_html_(self) -> str:
        from workbench.html import table

        heads, rows = self._cells()
        # A decision escapes its sentence, the table its cells.
        return "".join(self.decision(name)._repr_html_() for name in self.variants) + table(heads, rows)
