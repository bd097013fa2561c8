"""Budget: dollars that one run may spend, reserved before each call so that the limit holds with many calls at once."""

from __future__ import annotations

import math
import threading

from workbench.errors import UsageError


class Budget:
    """What may still be spent. Safe to use from several threads.

    A call reserves the most it can cost, and gives back what it did not use. So the sum of what is spent and what is
    reserved never passes the limit.

    Args:
        spent_usd: what the run has spent before.
    """

    def __init__(self, limit_usd: float, *, spent_usd: float = 0.0) -> None:
        if not (math.isfinite(limit_usd) and limit_usd >= 0):
            raise UsageError(f"a budget of {limit_usd} dollars", hint="Give a number of at least 0.")
        self.limit_usd = limit_usd
        self._spent = spent_usd
        self._reserved = 0.0
        self._lock = threading.Lock()

    @property
    def spent_usd(self) -> float:
        return self._spent

    @property
    def reserved_usd(self) -> float:
        """Held for calls under way; 0 where none is."""
        return self._reserved

    def reserve(self, usd: float) -> bool:
        """Hold `usd` for one call; false where that does not fit any more."""
        with self._lock:
            # Sums of small dollar amounts carry rounding errors of this order.
            if self._spent + self._reserved + usd > self.limit_usd * (1 + 1e-9):
                return False
            self._reserved += usd
            return True

    def settle(self, reserved_usd: float, spent_usd: float) -> None:
        """Book what a call cost in place of what was reserved for it."""
        with self._lock:
            self._reserved = max(0.0, self._reserved - reserved_usd)
            self._spent += spent_usd
