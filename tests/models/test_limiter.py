"""The limit on requests under way, with a clock that only moves when the test says so."""

from __future__ import annotations

import asyncio
import time
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.models.limiter import Gate, Limiter, RateLimitedError


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def _limiter(clock: Clock, most: int = 64, random: float = 1.0) -> Limiter:
    return Limiter(most, clock=clock, random=lambda: random)


def _fill(limiter: Limiter) -> list[int]:
    sent = []
    while limiter.has_room:
        sent.append(limiter.send())
    return sent


def _round_trip(limiter: Limiter) -> None:
    """Every request under way is answered, each place taken again at once."""
    for number in _fill(limiter):
        limiter.succeeded(number)
        _fill(limiter)
    while limiter.under_way:
        limiter.failed()


def test_it_starts_at_eight_and_doubles_with_each_round_trip() -> None:
    limiter = _limiter(Clock())
    seen = []
    for _ in range(5):
        seen.append(int(limiter.limit))
        _round_trip(limiter)
    assert seen == [8, 16, 32, 64, 64]
    assert _limiter(Clock(), most=3).limit == 3


def test_it_does_not_grow_while_it_is_not_used() -> None:
    limiter = _limiter(Clock())
    for _ in range(100):
        limiter.succeeded(limiter.send())
    assert limiter.limit == 8


def test_a_rate_limit_halves_once_for_all_requests_sent_before_it() -> None:
    limiter = _limiter(Clock())
    _round_trip(limiter)
    sent = _fill(limiter)
    assert len(sent) == 16
    for number in sent:
        limiter.limited(number, 1.0)
    assert (limiter.limit, limiter.episodes) == (8, 1)
    for number in _fill(limiter):
        limiter.limited(number, 1.0)
    assert (limiter.limit, limiter.episodes) == (4, 2)


def test_after_a_rate_limit_it_grows_by_one_per_round_trip() -> None:
    limiter = _limiter(Clock())
    for number in _fill(limiter):
        limiter.limited(number, 0.0)
    assert limiter.limit == 4
    _round_trip(limiter)
    # 4 answers add 1/4 each of a limit that grows meanwhile: slightly less than 1 (RFC 5681, 3.1).
    assert 4.9 < limiter.limit < 5


def test_answers_to_requests_sent_before_a_rate_limit_neither_grow_nor_clear_anything() -> None:
    clock = Clock()
    limiter = _limiter(clock)
    sent = _fill(limiter)
    limiter.limited(sent[0], 0.0)
    clock.now += 3
    for number in sent[1:]:
        limiter.succeeded(number)
    assert limiter.limit == 4
    assert limiter.refused_s == 3
    limiter.succeeded(limiter.send())
    assert limiter.refused_s == 0


def test_sending_pauses_for_as_long_as_the_server_says() -> None:
    clock = Clock()
    limiter = _limiter(clock)
    sent = _fill(limiter)
    limiter.limited(sent[0], 7.0)
    limiter.limited(sent[1], 3.0)
    assert limiter.pause_s == 7
    limiter.limited(sent[2], 9.0)
    clock.now += 8.5
    assert limiter.pause_s == pytest.approx(0.5)
    clock.now += 1
    assert limiter.pause_s == 0


def test_without_retry_after_the_pause_doubles_up_to_a_minute_until_something_succeeds() -> None:
    clock = Clock()
    limiter = _limiter(clock)
    pauses = []
    for _ in range(9):
        limiter.limited(limiter.send(), None)
        pauses.append(round(limiter.pause_s))
        clock.now += limiter.pause_s
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    limiter.succeeded(limiter.send())
    limiter.limited(limiter.send(), None)
    assert limiter.pause_s == 1
    assert limiter.limit == 1
    half = _limiter(Clock(), random=0.5)
    half.limited(half.send(), None)
    assert half.pause_s == 0.5


@given(st.lists(st.sampled_from(["ok", "fail", "limited", "limited late"]), max_size=200), st.integers(1, 100))
def test_whatever_happens_the_limit_stays_between_one_and_the_most(events: list[str], most: int) -> None:
    clock = Clock()
    limiter = _limiter(clock, most)
    under_way: deque[int] = deque()
    for event in events:
        while limiter.has_room:
            under_way.append(limiter.send())
        number = under_way.popleft()
        if event == "ok":
            limiter.succeeded(number)
        elif event == "fail":
            limiter.failed()
        else:
            limiter.limited(number, 5.0 if event == "limited late" else None)
        clock.now += limiter.pause_s
        assert 1 <= limiter.limit <= most
        assert limiter.under_way == len(under_way)


def _gate(most: int, patience_s: float = 100.0) -> Gate:
    return Gate(Limiter(most, clock=time.monotonic, random=lambda: 0.0), patience_s=patience_s)


def test_the_gate_lets_in_no_more_than_the_limit_in_the_order_of_coming() -> None:
    async def main() -> list[int]:
        gate, order, inside = _gate(2), [], 0

        async def visit(name: int) -> None:
            nonlocal inside
            number = await gate.enter()
            inside += 1
            assert inside <= 2
            order.append(name)
            await asyncio.sleep(0)
            inside -= 1
            gate.succeeded(number)

        await asyncio.gather(*(visit(name) for name in range(20)))
        assert gate.limiter.under_way == 0
        return order

    assert asyncio.run(main()) == list(range(20))


def test_one_who_stops_waiting_leaves_the_place_to_the_next() -> None:
    async def main() -> None:
        gate = _gate(1)
        number = await gate.enter()
        impatient = asyncio.create_task(gate.enter())
        patient = asyncio.create_task(gate.enter())
        await asyncio.sleep(0)
        # Let in and cancelled in the same moment: the place must not be lost.
        gate.succeeded(number)
        impatient.cancel()
        assert await asyncio.wait_for(patient, 10) > number
        assert impatient.cancelled()
        assert gate.limiter.under_way == 1

    asyncio.run(main())


def test_those_who_wait_come_in_when_the_pause_is_over() -> None:
    async def main() -> None:
        gate = _gate(4)
        gate.limited(await gate.enter(), 0.05)
        assert len(await asyncio.wait_for(asyncio.gather(gate.enter(), gate.enter()), 10)) == 2

    asyncio.run(main())


def test_all_give_up_when_the_server_wants_a_longer_pause_than_one_is_willing_to_make() -> None:
    async def main() -> None:
        gate = _gate(2, patience_s=5.0)
        first, second = await gate.enter(), await gate.enter()
        waiting = asyncio.create_task(gate.enter())
        await asyncio.sleep(0)
        with pytest.raises(RateLimitedError, match="no request for 60 s"):
            gate.limited(first, 60.0)
        with pytest.raises(RateLimitedError, match="no request for 60 s"):
            await waiting
        with pytest.raises(RateLimitedError, match="no request for 60 s"):
            await gate.enter()
        gate.succeeded(second)
        assert gate.limiter.under_way == 0

    asyncio.run(main())


def test_all_give_up_when_the_server_has_refused_everything_for_too_long() -> None:
    clock = Clock()

    async def main() -> None:
        gate = Gate(Limiter(8, clock=clock, random=lambda: 0.0), patience_s=5.0)
        gate.limited(await gate.enter(), None)
        clock.now += 6
        number = await gate.enter()
        with pytest.raises(RateLimitedError, match="refused every request for 6 s"):
            gate.limited(number, None)
        # Those who come later begin anew.
        gate.limited(await gate.enter(), None)

    asyncio.run(main())
