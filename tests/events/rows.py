"""Rows as somebody who serves would record them."""

from __future__ import annotations

from typing import Any


def a_call(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "trace_id": f"trace-{number}",
        "tenant": "acme" if number % 2 else "globex",
        "model": "instant",
        "input": f'{{"text":"question {number}"}}',
        "output": "an answer",
        "cached": False,
        "tokens_in": 10,
        "tokens_out": 3,
        "latency_s": 0.25,
        "cost_usd": 0.001,
    } | changes
