"""How many requests may be under way at a server, learnt from its answers, and the queue for a place among them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

FIRST_LIMIT = 8
LONGEST_BACKOFF_S = 60.0


class RateLimitedError(Exception):
    """A server has been refusing for longer than one is willing to wait. Its text says for how long."""


class Limiter:
    """Additive increase, multiplicative decrease of the number of requests under way (as in TCP, RFC 5681).

    The limit starts at 8 and doubles per round trip until the first rate limit, then grows by 1 per round trip. It grows
    only while it is in use. A rate limit halves it, once for all requests that were sent before, and pauses sending until
    the server's Retry-After, or for an exponential backoff with full jitter where it names none.

    Args:
        most: the limit never passes this.
        clock: seconds, monotonic.
        random: uniform in [0, 1).
        backoff_s: the longest first pause without a Retry-After; it doubles with every episode up to 60 s.
    """

    def __init__(
        self, most: int, *, clock: Callable[[], float], random: Callable[[], float], backoff_s: float = 1.0
    ) -> None:
        self.most = most
        self.limit = float(min(FIRST_LIMIT, most))
        self.under_way = 0
        self.episodes = 0
        self._clock = clock
        self._random = random
        self._backoff_s = backoff_s
        self._slow_start = True
        self._sent = 0
        self._halved_at = 0
        self._without_success = 0
        self._paused_until = float("-inf")
        self._refused_since: float | None = None

    @property
    def pause_s(self) -> float:
        """Seconds until the next request may be sent."""
        return max(0.0, self._paused_until - self._clock())

    @property
    def refused_s(self) -> float:
        """Seconds since the first rate limit after the last success; 0 where there is none."""
        return 0.0 if self._refused_since is None else self._clock() - self._refused_since

    @property
    def has_room(self) -> bool:
        """Whether one more request may be under way, pauses aside."""
        return self.under_way < int(self.limit)

    def send(self) -> int:
        """Count a request that is sent now. Returns its number, to be given back with the answer."""
        self.under_way += 1
        self._sent += 1
        return self._sent

    def succeeded(self, number: int) -> None:
        """The request with this number was answered. One sent before the last rate limit changes nothing."""
        if number > self._halved_at:
            if not self.has_room and self.limit < self.most:
                self.limit = min(self.most, self.limit + (1 if self._slow_start else 1 / self.limit))
            self._without_success = 0
            self._refused_since = None
        self.under_way -= 1

    def failed(self) -> None:
        """A request ended in some other way, which says nothing about the limit."""
        self.under_way -= 1

    def limited(self, number: int, retry_after_s: float | None) -> None:
        """The request with this number was refused because of a rate limit."""
        self.under_way -= 1
        now = self._clock()
        if self._refused_since is None:
            self._refused_since = now
        new_episode = number > self._halved_at
        if new_episode:
            self._slow_start = False
            self._halved_at = self._sent
            self.limit = max(1.0, self.limit / 2)
            self.episodes += 1
            self._without_success += 1
        if retry_after_s is not None:
            self._paused_until = max(self._paused_until, now + retry_after_s)
        elif new_episode:
            longest = min(LONGEST_BACKOFF_S, self._backoff_s * 2 ** min(self._without_success - 1, 16))
            self._paused_until = max(self._paused_until, now + self._random() * longest)

    def forget_refusals(self) -> None:
        """Begin to count `refused_s` anew, for those who come after the ones that gave up."""
        self._refused_since = None


class Gate:
    """First come, first served queue for a place under a `Limiter`. It lives in one event loop.

    Args:
        patience_s: longest time, in seconds, for which a server may refuse everything before all who wait give up.
    """

    def __init__(self, limiter: Limiter, *, patience_s: float) -> None:
        self.limiter = limiter
        self._patience_s = patience_s
        self._waiting: deque[asyncio.Future[int]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def enter(self) -> int:
        """Wait for a place. Returns the request's number, for the way to leave: succeeded, failed or limited.

        Raises:
            RateLimitedError: the server refuses for too long.
        """
        if (pause := self.limiter.pause_s) > self._patience_s:
            raise RateLimitedError(f"the server wants no request for {pause:.0f} s")
        if not pause and not self._waiting and self.limiter.has_room:
            return self.limiter.send()
        place: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self._admit()
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.failed()
            raise

    def succeeded(self, number: int) -> None:
        self.limiter.succeeded(number)
        self._admit()

    def failed(self) -> None:
        self.limiter.failed()
        self._admit()

    def limited(self, number: int, retry_after_s: float | None) -> None:
        """Leave because of a rate limit.

        Raises:
            RateLimitedError: the server refuses for too long; those who wait get the same.
        """
        self.limiter.limited(number, retry_after_s)
        error = None
        if self.limiter.pause_s > self._patience_s:
            error = RateLimitedError(f"the server wants no request for {self.limiter.pause_s:.0f} s")
        elif self.limiter.refused_s > self._patience_s:
            error = RateLimitedError(f"the server has refused every request for {self.limiter.refused_s:.0f} s")
            self.limiter.forget_refusals()
        if error is None:
            self._admit()
            return
        waiting, self._waiting = self._waiting, deque()
        for place in waiting:
            if not place.done():
                place.set_exception(error)
        raise error

    def _admit(self) -> None:
        while self._waiting and self.limiter.has_room:
            if pause := self.limiter.pause_s:
                if self._timer is None:
                    self._timer = asyncio.get_running_loop().call_later(pause, self._resume)
                return
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(self.limiter.send())

    def _resume(self) -> None:
        self._timer = None
        self._admit()
