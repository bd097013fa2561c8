"""What one writes without a workbench: pair scores in pandas, test them with statsmodels and scipy.

`plain_statistics.py RUN_FOLDER BASELINE VARIANT BOOTSTRAP PERMUTATIONS`, on the scores of a run. With so many resamples, or
(0 and 0) by what many rows allow: the paired t test and its interval.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

started = time.perf_counter()
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from scipy.stats import bootstrap, permutation_test, ttest_rel  # noqa: E402
from statsmodels.stats.contingency_tables import mcnemar  # noqa: E402
from statsmodels.stats.multitest import multipletests  # noqa: E402

IMPORTS = time.perf_counter() - started
LEVEL = 0.95
# Numbers in memory at once; more is slower.
BATCH = 5_000_000


def resampled(new: Any, old: Any, draws: int, permutations: int) -> tuple[float, float, float]:
    """Interval and p of the mean difference, by percentile bootstrap and sign flips."""
    diffs = new - old
    batch = max(1, BATCH // len(diffs))
    limits = bootstrap(
        (diffs,), np.mean, n_resamples=draws, confidence_level=LEVEL, method="percentile", batch=batch, rng=0
    ).confidence_interval
    test = permutation_test(
        (diffs,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=permutations,
        batch=batch,
        rng=0,
    )
    return float(limits.low), float(limits.high), float(test.pvalue)


def by_t(new: Any, old: Any) -> tuple[float, float, float]:
    """Interval and p of the mean difference, by Student's t."""
    test = ttest_rel(new, old)
    limits = test.confidence_interval(LEVEL)
    return float(limits.low), float(limits.high), float(test.pvalue)


def compare(folder: Path, base: str, other: str, draws: int, permutations: int) -> dict[str, Any]:
    """Difference, interval and p of each scorer, and the seconds of reading and of all."""
    begun = time.perf_counter()
    scores = pd.read_parquet(folder / "scores.parquet", columns=["variant", "row_id", "scorer", "value"])
    read = time.perf_counter() - begun
    differences: dict[str, list[float]] = {}
    for name, group in scores.groupby("scorer"):
        wide = group.pivot(index="row_id", columns="variant", values="value").dropna()
        old, new = wide[base].to_numpy(), wide[other].to_numpy()
        low, high, p = resampled(new, old, draws, permutations) if draws else by_t(new, old)
        if np.isin(wide.to_numpy(), (0, 1)).all():
            p = float(mcnemar(pd.crosstab(new == 1, old == 1).to_numpy(), exact=True).pvalue)
        differences[str(name)] = [float((new - old).mean()), low, high, p]
    adjusted = multipletests([row[3] for row in differences.values()], method="holm")[1]
    whole = time.perf_counter() - begun
    return {
        "imports": IMPORTS,
        "read": read,
        "compare": whole - read,
        "whole": whole,
        "differences": differences,
        "adjusted": [float(p) for p in adjusted],
    }


if __name__ == "__main__":
    result = compare(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    unit = 1 if sys.platform == "darwin" else 1024
    print(json.dumps(result | {"peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}))
