"""A chart is built once for the same numbers, however many sessions show it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from workbench.ui.shared import MOST, shared


def test_equal_values_are_built_once_and_others_anew() -> None:
    built = []

    @shared
    def chart(rows: list[dict[str, float]], *, title: str = "") -> list[object]:
        built.append(title)
        return [rows, title]

    first = chart([{"x": 1.0}], title="a")
    assert chart([{"x": 1.0}], title="a") is first
    assert chart([{"x": 1}], title="a") is not first
    assert chart([{"x": 1.0}], title="b") != first
    assert len(built) == 3


def test_sessions_that_come_at_once_wait_for_the_one_that_builds() -> None:
    built, go = [], threading.Barrier(8)

    @shared
    def chart(n: int) -> object:
        built.append(n)
        return object()

    def session(_: int) -> object:
        go.wait(10)
        return chart(1)

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(session, range(8)))) == 1
    assert built == [1]


def test_an_error_is_not_kept_and_old_charts_go() -> None:
    calls = []

    @shared
    def chart(n: int) -> int:
        calls.append(n)
        if len(calls) == 1:
            raise ValueError("no")
        return n

    with pytest.raises(ValueError, match="no"):
        chart(0)
    assert chart(0) == 0
    for n in range(1, MOST + 1):
        chart(n)
    assert chart(0) == 0
    assert calls.count(0) == 3
