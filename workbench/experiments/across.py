"""Compare variants of two runs: the same pipeline months apart, or on another version of its data set.

Only rows that both runs asked with the same inputs and the same target are paired; the rest is counted by reason. Only
scorers of the same digest are compared. What is left becomes one comparison by the same statistics as within a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.errors import ComparisonError
from workbench.experiments.compare import compare
from workbench.experiments.comparison import Comparison

if TYPE_CHECKING:
    from workbench.experiments.run import Run


@dataclass(frozen=True)
class Shared:
    """How the rows of two runs fit together.

    Attributes:
        paired: rows with the same id, inputs and target in both.
        changed: rows of the same id whose inputs or target differ.
        only_before, only_after: rows that the other run does not have.
        same_dataset: whether both ran on the same version of the data set.
        scorers: compared; dropped_scorers: those that only one run has, or that have changed since.
    """

    paired: int
    changed: int
    only_before: int
    only_after: int
    same_dataset: bool
    scorers: tuple[str, ...]
    dropped_scorers: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{self.paired} rows are paired"
        parts = [
            (self.changed, "changed since"),
            (self.only_before, "only in the earlier run"),
            (self.only_after, "only in the later run"),
        ]
        text += "".join(f", {count} {what}" for count, what in parts if count)
        if self.dropped_scorers:
            text += f"; not compared, since the scorer differs: {', '.join(self.dropped_scorers)}"
        return text + "."


@dataclass(frozen=True)
class AcrossRuns:
    """A comparison over two runs, and what of them it rests on."""

    comparison: Comparison
    shared: Shared

    def __str__(self) -> str:
        return f"{self.shared}\n{self.comparison}"

    def _repr_html_(self) -> str:
        from workbench.html import callout

        return callout(str(self.shared), "info") + self.comparison._repr_html_()


def compare_runs(
    before: Run, after: Run, *, variant: str | None = None, before_variant: str | None = None, **options: Any
) -> AcrossRuns:
    """A variant of the run `after` against one of the run `before`, which is the baseline.

    Args:
        variant: of `after`; may be left out where it has one variant, or where one name is in both.
        before_variant: of `before`; by default the variant of the same name.
        options: `level`, `margin` and `seed` of `compare`.

    Raises:
        ComparisonError: no such variant, no row in common, or no scorer in common.
    """
    new = _variant(after, variant or before_variant, before)
    old = _variant(before, before_variant or new, after)
    # The two sides may have the same name, and are then told apart by their run.
    names = (old, new) if old != new else (f"{old} ({before.id})", f"{new} ({after.id})")
    calls = [_side(run.calls(), which, name) for run, which, name in ((before, old, names[0]), (after, new, names[1]))]
    ids, shared = _shared_rows(calls[0], calls[1])
    scorers, dropped = _shared_scorers(before, after)
    if not ids:
        raise ComparisonError("the runs have no row in common", hint="Compare runs on versions of one data set.")
    if not scorers:
        raise ComparisonError("the runs have no scorer in common", hint="Run one of them again with the same scorers.")
    if before.manifest.early_stopping != after.manifest.early_stopping:
        raise ComparisonError("one of the runs could stop early, the other not", hint="Run both under the same rule.")
    scores = [
        _side(run.scores(), which, name).filter(pl.col("scorer").is_in(scorers))
        for run, which, name in ((before, old, names[0]), (after, new, names[1]))
    ]
    manifest = after.manifest.model_copy(
        update={
            "run_id": f"{before.id}+{after.id}",
            "variants": {
                names[0]: before.manifest.variants[old],
                names[1]: after.manifest.variants[new],
            },
            "pipeline_digests": {
                names[0]: before.manifest.pipeline_digests[old],
                names[1]: after.manifest.pipeline_digests[new],
            },
            "scorers": [entry for entry in after.manifest.scorers if entry["name"] in scorers],
            "primary": after.manifest.primary if after.manifest.primary in scorers else scorers[0],
        }
    )
    comparison = compare(
        pl.concat(scores).filter(pl.col("row_id").is_in(ids)),
        pl.concat(calls).filter(pl.col("row_id").is_in(ids)),
        manifest,
        baseline=names[0],
        **options,
    )
    same = before.manifest.dataset_digest == after.manifest.dataset_digest
    return AcrossRuns(comparison, Shared(*shared, same, tuple(scorers), tuple(dropped)))


def _variant(run: Run, name: str | None, other: Run) -> str:
    names = list(run.manifest.variants)
    if name is None:
        both = [found for found in names if found in other.manifest.variants]
        if len(names) != 1 and len(both) != 1:
            raise ComparisonError(f"run {run.id} has the variants {', '.join(names)}", hint="Say which: variant='…'.")
        return names[0] if len(names) == 1 else both[0]
    if name not in names:
        raise ComparisonError(f"run {run.id} has no variant {name!r}", hint=f"It has: {', '.join(names)}.")
    return name


def _side(rows: pl.DataFrame, variant: str, name: str) -> pl.DataFrame:
    return rows.filter(pl.col("variant") == variant).with_columns(pl.lit(name).alias("variant"))


def _shared_rows(before: pl.DataFrame, after: pl.DataFrame) -> tuple[list[str], tuple[int, int, int, int]]:
    """Ids of the rows that both asked alike; the numbers of paired and changed ones, and of those only one has."""
    content = ["row_id", "input", "target"]
    old, new = (side.select(content).unique("row_id") for side in (before, after))
    both = old.join(new, on="row_id", how="inner", suffix="_new")
    alike = both.filter(
        pl.col("input").eq_missing(pl.col("input_new")) & pl.col("target").eq_missing(pl.col("target_new"))
    )
    return alike.get_column("row_id").sort().to_list(), (
        len(alike),
        len(both) - len(alike),
        len(old) - len(both),
        len(new) - len(both),
    )


def _shared_scorers(before: Run, after: Run) -> tuple[list[str], list[str]]:
    old, new = ({entry["name"]: entry["digest"] for entry in run.manifest.scorers} for run in (before, after))
    names = list(dict.fromkeys([*new, *old]))
    return [n for n in names if old.get(n) == new.get(n)], [n for n in names if old.get(n) != new.get(n)]
