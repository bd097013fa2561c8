"""The call that both sides record: the columns of `calls` that somebody who serves fills in."""

from __future__ import annotations

from typing import Any


def one_call(number: int) -> dict[str, Any]:
    """Row `number`: about 700 bytes as JSON."""
    return {
        "trace_id": f"{number:032x}",
        "experiment": "production",
        "variant": "prod",
        "row_id": f"r{number}",
        "repeat": 0,
        "tenant": f"tenant-{number % 20}",
        "git_commit": "88be132c",
        "pipeline_digest": "sha256:" + "a" * 64,
        "prompt_digest": "sha256:" + "b" * 64,
        "model": "smollm2-135m",
        "model_digest": "sha256:" + "c" * 64,
        "input": f'{{"text":"My card was charged twice #{number}"}}',
        "output": "billing",
        "result": '"billing"',
        "finish_reason": "stop",
        "cached": False,
        "tokens_in": 120,
        "tokens_out": 3,
        "queue_s": 0.001,
        "ttft_s": 0.1,
        "latency_s": 0.25,
        "cost_usd": 0.0001,
    }
