"""What one writes without a workbench: pair scores in pandas, test them with statsmodels and scipy.

`plain_statistics.py RUN_FOLDER BASELINE VARIANT`, on the two Parquet files of a run.
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
from scipy.stats import bootstrap, permutation_test  # noqa: E402
from statsmodels.stats.contingency_tables import mcnemar  # noqa: E402
from statsmodels.stats.multitest import multipletests  # noqa: E402

IMPORTS = time.perf_counter() - started
# The numbers of the workbench's own defaults.
BOOTSTRAP, PERMUTATIONS, LEVEL = 4999, 9999, 0.95
# Numbers in memory at once; more is slower.
BATCH = 5_000_000


def compare(folder: Path, base: str, other: str) -> dict[str, Any]:
    """Difference, interval and p of each scorer, and the seconds of reading and of all."""
    begun = time.perf_counter()
    scores = pd.read_parquet(folder / "scores.parquet", columns=["variant", "row_id", "scorer", "value"])
    read = time.perf_counter() - begun
    differences: dict[str, list[float]] = {}
    for name, group in scores.groupby("scorer"):
        wide = group.pivot(index="row_id", columns="variant", values="value").dropna()
        old, new = wide[base].to_numpy(), wide[other].to_numpy()
        diffs = new - old
        batch = max(1, BATCH // len(diffs))
        if np.isin(wide.to_numpy(), (0, 1)).all():
            table = pd.crosstab(new == 1, old == 1).to_numpy()
            p = float(mcnemar(table, exact=True).pvalue)
        else:
            p = float(
                permutation_test(
                    (diffs,),
                    lambda x, axis: x.mean(axis=axis),
                    permutation_type="samples",
                    vectorized=True,
                    n_resamples=PERMUTATIONS,
                    batch=batch,
                    rng=0,
                ).pvalue
            )
        found = bootstrap(
            (diffs,), np.mean, n_resamples=BOOTSTRAP, confidence_level=LEVEL, method="percentile", batch=batch, rng=0
        ).confidence_interval
        differences[str(name)] = [float(diffs.mean()), float(found.low), float(found.high), p]
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
    result = compare(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
    unit = 1 if sys.platform == "darwin" else 1024
    print(json.dumps(result | {"peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}))
