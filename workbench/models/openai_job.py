"""One call of an engine that works in the background: what goes from the caller to the loop, and back."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import time
from collections.abc import Sequence

from workbench.errors import ModelError
from workbench.models.background_loop import Running
from workbench.models.budget import Budget
from workbench.models.engine import Completion, Request


class OverBudgetError(Exception):
    """The next attempt does not fit the budget."""


class Job:
    """One call of `generate`: what is asked, what was answered, and what the budget holds for it.

    Created in the caller's thread. The caller only uses `take`; the rest belongs to the loop.
    """

    def __init__(self, requests: Sequence[Request], key: str | None, budget: Budget | None, *, ahead: int) -> None:
        self.requests = requests
        self.key = key
        self.budget = budget
        self.started = time.perf_counter()
        self.pending = iter(range(len(requests)))
        self.results: queue.SimpleQueue[tuple[int, Completion] | Exception | None] = queue.SimpleQueue()
        self.stopped: str | None = None
        self._ahead = ahead
        self._room = asyncio.Event()
        self._settled = asyncio.Event()

    def take(self, running: Running) -> tuple[int, Completion]:
        """The next answer, waited for.

        Raises:
            ModelError: there will be none.
        """
        if not running.is_here:
            raise ModelError("this call was begun before the process forked", hint="Ask again in the new process.")
        result = self.results.get()
        if result is None:
            raise ModelError("the engine was closed", hint="Ask for a new one.")
        if isinstance(result, Exception):
            raise result
        if not self._room.is_set() and self.results.qsize() < self._ahead // 2:
            running.call(self._room.set)
        return result

    async def wait_for_room(self) -> None:
        """Go on at once unless the caller is far behind."""
        if self.results.qsize() >= self._ahead:
            self._room.clear()
            # Looked at again, for the caller may have taken the rest before it could see that someone waits.
            if self.results.qsize() >= self._ahead:
                await self._room.wait()

    async def reserve(self, usd: float) -> None:
        """Hold dollars for an attempt, waiting for others to settle where only their reservations stand in the way.

        Raises:
            OverBudgetError: it does not fit.
        """
        if self.budget is None or usd == 0:
            return
        while not self.budget.reserve(usd):
            # What is left of a sum when everything has been taken off again is a rounding error of this order.
            if self.budget.reserved_usd <= self.budget.limit_usd * 1e-9:
                raise OverBudgetError(
                    f"up to {usd:.6f} dollars more than the budget of {self.budget.limit_usd:g} holds; "
                    f"{self.budget.spent_usd:.6f} are spent"
                )
            self._settled.clear()
            # The time limit is for calls of other engines that share the budget.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await self._settled.wait()

    def settle(self, reserved_usd: float, spent_usd: float) -> None:
        if self.budget is not None and (reserved_usd or spent_usd):
            self.budget.settle(reserved_usd, spent_usd)
            self._settled.set()
