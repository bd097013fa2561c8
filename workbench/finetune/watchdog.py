"""The loss watchdog: a training that has gone wrong is stopped while its last good checkpoint is still good."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable

# Steps whose median counts as the loss of now.
WINDOW = 10
# A loss this many times the best, and this many nats a token above it, does not come back.
FACTOR = 3.0
MARGIN = 0.5


class Diverged(Exception):
    """Training went wrong at `step`, for `reason`."""

    def __init__(self, step: int, reason: str) -> None:
        super().__init__(f"step {step}: {reason}")
        self.step = step
        self.reason = reason


class Watchdog:
    """Looks at the loss of every step.

    Args:
        seen: losses of earlier steps, where a training goes on.
    """

    def __init__(self, seen: Iterable[float] = ()) -> None:
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._best = math.inf
        for loss in seen:
            self._add(loss)

    def check(self, step: int, loss: float) -> None:
        """Take in the loss of a step.

        Raises:
            Diverged: it is not a number, or the median of the last steps is far above the best there was.
        """
        if not math.isfinite(loss):
            raise Diverged(step, f"the loss is {loss}")
        median = self._add(loss)
        if median is not None and median > FACTOR * self._best and median > self._best + MARGIN:
            raise Diverged(step, f"the loss rose to {median:.3g}, from {self._best:.3g} at its best")

    def check_dev(self, step: int, loss: float) -> None:
        """Take in a loss on the dev split.

        Raises:
            Diverged: it is not a number.
        """
        if not math.isfinite(loss):
            raise Diverged(step, f"the dev loss is {loss}")

    def _add(self, loss: float) -> float | None:
        self._recent.append(loss)
        if len(self._recent) < WINDOW:
            return None
        median = statistics.median(self._recent)
        self._best = min(self._best, median)
        return median
