"""Compare a run's variants row by row.

Repeats are averaged within a row first, so that asking twice does not count as two rows; rows are paired by id; rows of
one group stand or fall together. Binary scores of independent rows are judged by the exact McNemar test with Newcombe's
interval, everything else by a sign-flip permutation test with a studentized bootstrap interval.

The p-values of all variants and quality scorers are adjusted together (Holm); what an answer took (seconds, tokens,
dollars) is a family of its own, and so are measures shown beside the one that decides (`secondary`). Intervals are at
`level` each, not widened for the number of comparisons, so a winner needs both: an adjusted p of at most 1 - level and an
interval without 0.

A run that could stop early is judged by the test that its rule looks at, which holds at any time (`sequential`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from workbench.errors import ComparisonError, UsageError
from workbench.experiments import sequential, statistics
from workbench.experiments.comparison import Comparison
from workbench.experiments.decision import ANYTIME, Decision, Difference, Unit
from workbench.experiments.records import RETRIED_ERRORS
from workbench.experiments.scorers.resources import RESOURCE_TYPES
from workbench.experiments.stopping import EarlyStopping, bounds_of
from workbench.files import digest_json

if TYPE_CHECKING:
    from workbench.experiments.records import RunManifest
    from workbench.experiments.statistics import Array, Interval

__all__ = ["Comparison", "Decision", "Difference", "compare"]

_KEY = ["variant", "row_id", "repeat", "scorer"]
_UNITS: dict[str, Unit] = {
    "latency": "s",
    "tokens": "tokens",
    "cost": "usd",
    "json_fields": "share",
    "token_f1": "share",
    "pairwise": "share",
}


def compare(
    scores: pl.DataFrame,
    calls: pl.DataFrame,
    manifest: RunManifest,
    *,
    baseline: str | None = None,
    level: float = 0.95,
    margin: float | Mapping[str, float] | None = None,
    seed: int = 0,
) -> Comparison:
    """Every variant of a run against `baseline` (the first variant by default) on every scorer.

    Args:
        scores, calls: the run's rows, columns as in `Score` and `Call`.
        margin: the largest difference that does not matter, in the scorer's unit (a share: 0.05 for five points), by
            scorer; a number alone is that of the primary scorer.
        seed: of the bootstrap and of the permutations; the same seed gives the same numbers.

    Raises:
        ComparisonError: one variant only, an unknown baseline, scores given twice or by unlike versions of a scorer.
        UsageError: a level outside 0..1, a margin that is not positive or of an unknown scorer.
    """
    names = list(manifest.variants)
    base = names[0] if baseline is None else baseline
    _check(scores, manifest, base, level)
    margins = _margins(margin, manifest)
    means = scores.group_by("scorer", "variant", "row_id").agg(
        pl.col("value").fill_nan(None).mean(), pl.len().alias("repeats")
    )
    groups = _groups(calls)
    rows = [
        _difference(
            means.filter(pl.col("scorer") == entry["name"]),
            calls,
            groups,
            entry,
            variant,
            base,
            level=level,
            margin=margins.get(entry["name"]),
            seed=seed,
            stopping=manifest.early_stopping,
        )
        for variant in names
        if variant != base
        for entry in manifest.scorers
    ]
    return Comparison(
        run_id=manifest.run_id,
        experiment=manifest.experiment,
        baseline=base,
        primary=manifest.primary,
        level=level,
        seed=seed,
        evidence=_evidence(scores, manifest),
        rows=_adjusted(rows),
        scores=scores,
        calls=calls,
    )


def _check(scores: pl.DataFrame, manifest: RunManifest, baseline: str, level: float) -> None:
    if not 0.5 < level < 1:
        raise UsageError(f"level {level} must lie between 0.5 and 1", hint="Use 0.95 for 95% intervals")
    names = list(manifest.variants)
    if baseline not in names:
        raise ComparisonError(f"there is no variant {baseline!r}", hint=f"The run has: {', '.join(names)}")
    if len(names) < 2:
        raise ComparisonError("the run has one variant, and nothing to compare it with", hint="Add a second variant")
    if scores.select(_KEY).is_duplicated().any():
        raise ComparisonError("an answer was scored twice by one scorer", hint="Run the experiment again")
    versions = scores.group_by("scorer").agg(pl.col("scorer_digest").n_unique().alias("versions"))
    unlike = versions.filter(pl.col("versions") > 1).get_column("scorer").sort().to_list()
    if unlike:
        raise ComparisonError(
            f"the scores of {', '.join(unlike)} come from unlike versions of the scorer",
            hint="Run the experiment again, so that one version scores every row",
        )


def _margins(margin: float | Mapping[str, float] | None, manifest: RunManifest) -> dict[str, float]:
    given = {} if margin is None else dict(margin) if isinstance(margin, Mapping) else {manifest.primary: margin}
    known = [entry["name"] for entry in manifest.scorers]
    for name, value in given.items():
        if name not in known:
            raise UsageError(f"there is no scorer {name!r} to give a margin for", hint=f"Known: {', '.join(known)}")
        if not (math.isfinite(value) and value > 0):
            raise UsageError(f"the margin of {name} must be a positive number, not {value}")
    return {name: float(value) for name, value in given.items()}


def _groups(calls: pl.DataFrame) -> dict[str, str]:
    """Group of each row that has one."""
    named = calls.select("row_id", "group").drop_nulls().unique("row_id")
    return dict(named.iter_rows())


def _difference(
    means: pl.DataFrame,
    calls: pl.DataFrame,
    groups: Mapping[str, str],
    entry: Mapping[str, Any],
    variant: str,
    base: str,
    *,
    level: float,
    margin: float | None,
    seed: int,
    stopping: EarlyStopping | None,
) -> Difference:
    """One difference, its p-value not yet adjusted."""
    ours = means.filter(pl.col("variant") == variant)
    theirs = means.filter(pl.col("variant") == base)
    # Sorted, so that the seed's resamples do not depend on the order in which rows were answered.
    pairs = ours.join(theirs, on="row_id", how="inner", suffix="_base").drop_nulls(["value", "value_base"])
    pairs = pairs.sort("row_id")
    if stopping is not None:
        place = {row_id: number for number, row_id in enumerate(stopping.order(pairs.get_column("row_id")))}
        pairs = pairs.sort(pl.col("row_id").replace_strict(place, return_dtype=pl.Int64))
    new, old = pairs.get_column("value").to_numpy(), pairs.get_column("value_base").to_numpy()
    clusters = _clusters(pairs.get_column("row_id").to_list(), groups)
    kind_of = str(entry.get("config", {}).get("type", ""))
    resource = kind_of in RESOURCE_TYPES
    repeated = any((side.get_column("repeats").max() or 0) > 1 for side in (ours, theirs))  # type: ignore[operator]
    values = np.concatenate([new, old])
    counted = entry["kind"] == "binary" and not repeated and bool(np.isin(values, (0, 1)).all())
    binary = counted and clusters is None and stopping is None
    sides = calls.filter(pl.col("variant").is_in([variant, base]))
    found = _Analysis(new, old, clusters, level, seed)
    tost = 2 * level - 1
    if stopping is not None:
        numbers = found.anytime(bounds_of(entry), tost if margin is not None else None)
    elif binary:
        numbers = found.binary(tost if margin is not None else None)
    else:
        bound = None if resource else _bound(kind_of, values)
        numbers = found.continuous(tost if margin is not None else None, bound)
    accidents, invalid = list(RETRIED_ERRORS), ["invalid_output"]
    return Difference(
        variant=variant,
        baseline=base,
        scorer=str(entry["name"]),
        kind="binary" if binary else "continuous",
        direction=entry["direction"],
        family="resource" if resource else entry.get("family", "quality"),
        unit="share" if entry["kind"] == "binary" else _UNITS.get(kind_of, ""),
        n=len(new),
        fixed=int(((new == 1) & (old == 0)).sum()) if counted else None,
        broke=int(((new == 0) & (old == 1)).sum()) if counted else None,
        unpaired=pl.concat([side.get_column("row_id") for side in (sides, ours, theirs)]).n_unique() - len(new),
        errors=(_failed(sides, variant, accidents), _failed(sides, base, accidents)),
        invalid=(_failed(sides, variant, invalid), _failed(sides, base, invalid)),
        baseline_mean=float(old.mean()) if len(old) else None,
        variant_mean=float(new.mean()) if len(new) else None,
        clusters=None if clusters is None else len(set(clusters)),
        margin=margin,
        p_holm=None,
        **numbers,
    )


def _clusters(row_ids: Sequence[str], groups: Mapping[str, str]) -> list[Hashable] | None:
    """Cluster label of each row; None where every row stands alone."""
    if not groups:
        return None
    labels: list[Hashable] = [("group", groups[i]) if i in groups else ("row", i) for i in row_ids]
    return labels if len(set(labels)) < len(labels) else None


def _bound(kind_of: str, values: Array) -> float | None:
    """The largest size a difference can have, where the scale of the scores is known."""
    if kind_of == "embedding_similarity":
        return 2.0
    return 1.0 if bool(((values >= 0) & (values <= 1)).all()) else None


def _failed(calls: pl.DataFrame, variant: str, kinds: list[str]) -> int:
    """Rows of a variant with a failure of one of these kinds in any repeat."""
    of = calls.filter((pl.col("variant") == variant) & pl.col("error_kind").is_in(kinds))
    return of.get_column("row_id").n_unique()


@dataclasses.dataclass(frozen=True)
class _Analysis:
    """The statistics of paired scores, as fields of a `Difference`."""

    new: Array
    old: Array
    clusters: list[Hashable] | None
    level: float
    seed: int

    def binary(self, tost: float | None) -> dict[str, Any]:
        right, wrong = self.new == 1, self.new == 0
        fixed, broke = int((right & (self.old == 0)).sum()), int((wrong & (self.old == 1)).sum())
        both, neither = int((right & (self.old == 1)).sum()), int((wrong & (self.old == 0)).sum())
        n = len(self.new)

        def interval(level: float) -> Interval | None:
            return statistics.newcombe_paired(both, fixed, broke, neither, level) if n else None

        return self._fields(
            interval(self.level),
            None if tost is None else interval(tost),
            statistics.mcnemar_exact(fixed, broke) if n else None,
        ) | {
            "baseline_interval": statistics.wilson(both + broke, n, self.level) if n else None,
            "variant_interval": statistics.wilson(both + fixed, n, self.level) if n else None,
            "method": "exact McNemar test, Newcombe interval",
            "discordance": (fixed + broke) / n if n else None,
        }

    def anytime(self, bounds: tuple[float, float] | None, tost: float | None) -> dict[str, Any]:
        """Valid however often the run was looked at, and whenever it stopped; rows are in the order of asking."""
        diffs = self.new - self.old
        plain = {"baseline_interval": None, "variant_interval": None}
        if bounds is None or not len(diffs):
            method = "not tested: the run could stop early, and these scores have no limits"
            return self._fields(None, None, None) | plain | {"method": method}
        width = bounds[1] - bounds[0]

        # Each limit at the full level: what two one-sided tests ask for.
        one_sided = None if tost is None else sequential.one_sided_limits(diffs, level=self.level, bound=width)
        limits = sequential.confidence_sequence(diffs, level=self.level, bound=width)
        return self._fields(limits, one_sided, sequential.anytime_p(diffs, bound=width)) | plain | {"method": ANYTIME}

    def continuous(self, tost: float | None, bound: float | None) -> dict[str, Any]:
        diffs = self.new - self.old

        def interval(values: Array, level: float, limit: float | None) -> Interval | None:
            return statistics.paired_bootstrap_t(values, self.clusters, level, seed=self.seed, bound=limit)

        def mean(values: Array) -> Interval | None:
            found = interval(values, self.level, None if bound is None else 1.0)
            return found if found is None or bound != 1.0 else (max(found[0], 0.0), found[1])

        return self._fields(
            interval(diffs, self.level, bound),
            None if tost is None else interval(diffs, tost, bound),
            statistics.permutation_p(diffs, self.clusters, self.seed) if len(diffs) else None,
        ) | {
            "baseline_interval": mean(self.old),
            "variant_interval": mean(self.new),
            "method": "sign-flip permutation test, studentized bootstrap interval"
            + ("" if self.clusters is None else ", whole groups"),
        }

    def _fields(self, limits: Interval | None, tost: Interval | None, p: float | None) -> dict[str, Any]:
        n = len(self.new)
        error = statistics.standard_error(*statistics.cluster_sums(self.new - self.old, self.clusters))
        return {
            "difference": float((self.new - self.old).mean()) if n else None,
            "low": None if limits is None else limits[0],
            "high": None if limits is None else limits[1],
            "tost_low": None if tost is None else tost[0],
            "tost_high": None if tost is None else tost[1],
            "p": p,
            "discordance": None,
            # Of a row as it counts: with clusters, rows that go together count for less.
            "sd": None if math.isnan(error) else error * math.sqrt(n),
        }


def _adjusted(rows: list[Difference]) -> tuple[Difference, ...]:
    """The rows with Holm's p-values, the families apart."""
    found = list(rows)
    for family in ("quality", "secondary", "resource"):
        places = [place for place, row in enumerate(rows) if row.family == family and row.p is not None]
        adjusted = statistics.holm([rows[place].p or 0.0 for place in places])
        for place, p in zip(places, adjusted, strict=True):
            found[place] = dataclasses.replace(found[place], p_holm=p)
    return tuple(found)


def _evidence(scores: pl.DataFrame, manifest: RunManifest) -> str:
    """Digest of what was compared: the same scores of the same pipelines give the same one, in any order of rows."""
    rows = scores.select(*_KEY, "scorer_digest", pl.col("value").fill_nan(None)).sort(_KEY)
    found = hashlib.sha256()
    for name in (*_KEY, "scorer_digest", "value"):
        column = rows.get_column(name)
        if column.dtype == pl.String:
            # Lengths first, so that no two columns of texts run into the same bytes.
            found.update(column.str.len_bytes().cast(pl.Int64).to_numpy().astype("<i8").tobytes())
            found.update((column.str.join("").item() or "").encode())
        else:
            found.update(column.is_null().to_numpy().tobytes())
            found.update(column.fill_null(0).to_numpy().astype("<f8").tobytes())
    return digest_json(
        {
            "run_id": manifest.run_id,
            "dataset_digest": manifest.dataset_digest,
            "pipeline_digests": manifest.pipeline_digests,
            "scores": found.hexdigest(),
        }
    )
