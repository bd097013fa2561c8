"""What changed from one artifact to another in the rows that both were asked."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from workbench.registry.artifact import Artifact


@dataclass(frozen=True)
class RowChange:
    """One row that two artifacts answer so that the primary scorer gives them different values.

    Attributes:
        before, after: the values, averaged over repeats; larger is better whatever the scorer's direction.
        output_before, output_after: the first repeat's answer as the model wrote it, or its error where it wrote none.
    """

    row_id: str
    before: float
    after: float
    output_before: str
    output_after: str

    def __str__(self) -> str:
        word = "better" if self.after > self.before else "WORSE"
        return f"{word:<6} {self.row_id}: {_brief(self.output_before)} → {_brief(self.output_after)}"


@dataclass(frozen=True)
class ScoredOnce:
    """One row that two artifacts were asked and that the primary scorer scores in one of them only.

    Attributes:
        scored: whether it is scored now, and was not before.
        output_before, output_after: the first repeat's answer as the model wrote it, or its error where it wrote none.
    """

    row_id: str
    scored: bool
    output_before: str
    output_after: str

    def __str__(self) -> str:
        word = "newly scored" if self.scored else "NO LONGER SCORED"
        return f"{word} {self.row_id}: {_brief(self.output_before)} → {_brief(self.output_after)}"


def rows_of(before: Artifact, after: Artifact) -> pl.DataFrame:
    """The rows that both were asked, with the value and the answer of each; a value is null where it is not scored."""
    sides = [_values(artifact) for artifact in (before, after)]
    return sides[0].join(sides[1], on="row_id", suffix="_after").sort("row_id")


def changed(rows: pl.DataFrame) -> tuple[RowChange, ...]:
    """Those of `rows_of` whose values differ, what broke first."""
    found = rows.filter(pl.col("value") != pl.col("value_after")).sort(
        pl.col("value_after") - pl.col("value"), "row_id"
    )
    chosen = found.select("row_id", "value", "value_after", "output", "output_after")
    return tuple(RowChange(*row) for row in chosen.iter_rows())


def scored_once(rows: pl.DataFrame, *, now: bool) -> tuple[ScoredOnce, ...]:
    """Those of `rows_of` that are scored `now` and were not before, or the other way round; by id."""
    has, lacks = ("value_after", "value") if now else ("value", "value_after")
    found = rows.filter(pl.col(has).is_not_null() & pl.col(lacks).is_null())
    chosen = found.select("row_id", pl.lit(now), "output", "output_after")
    return tuple(ScoredOnce(*row) for row in chosen.iter_rows())


def _values(artifact: Artifact) -> pl.DataFrame:
    """Of each row that was asked the primary scorer's value, larger being better, and the first answer or its error."""
    source, evidence = artifact.provenance, artifact.evidence()
    direction = next((s["direction"] for s in source["scorers"] if s["name"] == source["primary"]), "max")
    mine = pl.col("variant") == source["variant"]
    values = (
        evidence.scores.filter(mine & (pl.col("scorer") == source["primary"]))
        .group_by("row_id")
        .agg(pl.col("value").mean() * (1 if direction == "max" else -1))
    )
    said = pl.coalesce("output", "error", pl.lit("")).first().alias("output")
    answers = evidence.calls.filter(mine).sort("repeat").group_by("row_id").agg(said)
    return answers.join(values, on="row_id", how="left")


def _brief(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 40 else line[:39] + "…")
