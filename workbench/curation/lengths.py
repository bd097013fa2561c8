"""Lengths: texts that are far shorter or longer than the others."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Of a normal distribution, so that scores are in standard deviations.
_MAD = 0.6744897501960817
_MEAN_DEVIATION = 0.7978845608028654


def centre_and_spread(values: NDArray[np.float64]) -> tuple[float, float]:
    """The median, and MAD / 0.6745 (Iglewicz and Hoaglin 1993): a standard deviation that outliers do not move.

    Where more than half of the values are equal the MAD is 0, and the mean absolute deviation / 0.7979 takes its place.
    """
    middle = float(np.median(values))
    deviations = np.abs(values - middle)
    return middle, float(np.median(deviations)) / _MAD or float(deviations.mean()) / _MEAN_DEVIATION


def length_scores(texts: Sequence[str]) -> NDArray[np.float64]:
    """The robust z-score of the logarithm of each text's length in characters; shape (n,), all zero where they are alike."""
    logs = _logs(texts)
    middle, spread = centre_and_spread(logs)
    return (logs - middle) / spread if spread else np.zeros_like(logs)


def length_limits(texts: Sequence[str], z: float) -> tuple[float, float]:
    """The lengths, in characters, below and above which a text is an outlier."""
    middle, spread = centre_and_spread(_logs(texts))
    return math.exp(middle - z * spread), math.exp(middle + z * spread)


def _logs(texts: Sequence[str]) -> NDArray[np.float64]:
    lengths = np.array([max(1, len(text)) for text in texts], np.float64)
    return np.log(lengths)
