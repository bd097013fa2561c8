"""OpenAI's chat completions on the wire: the body of a request, and what a server's reply means."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from workbench.models.engine import FinishReason, Message, Request
from workbench.workspace import ServerSettings

LONGEST_ERROR = 300
SCHEMA_NAME = "answer"

_TOO_LONG = re.compile(
    r"context[ _-]?(length|window|size)|maximum context|prompt is too long|too many (input |prompt )?tokens",
    re.IGNORECASE,
)
_BEARER = re.compile(r"Bearer\s+[^\s\"',;]+", re.IGNORECASE)
_LOOKS_LIKE_KEY = re.compile(r"\bsk-[A-Za-z0-9_*-]{4,}")

# What a reply tells the engine to do: take the answer, try again after a pause for everyone, try again, give this
# request up, or give up altogether.
Verdict = Literal["answered", "limited", "again", "refused", "denied"]


@dataclass(frozen=True)
class TokenCounts:
    """Tokens as the server counts them; `cached` of the prompt's tokens came from its cache."""

    tokens_in: int
    tokens_out: int
    cached: int = 0


@dataclass(frozen=True)
class Outcome:
    """What became of one attempt.

    Attributes:
        may_cost: the attempt may have been billed, though no token counts came back.
        vectors: the answer of a server that was asked for embeddings, an array (texts, dimensions).
    """

    verdict: Verdict
    text: str | None = None
    finish_reason: FinishReason | None = None
    usage: TokenCounts | None = None
    kind: str = "engine"
    error: str = ""
    retry_after_s: float | None = None
    may_cost: bool = False
    vectors: Any = None


def encode_request(model: str, server: ServerSettings, request: Request) -> bytes:
    """The JSON body for one request."""
    generation = request.generation
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
        "temperature": generation.temperature,
        server.max_tokens_field: generation.max_new_tokens,
    }
    if generation.top_p < 1:
        body["top_p"] = generation.top_p
    if generation.top_k:
        body["top_k"] = generation.top_k
    if generation.stop:
        body["stop"] = list(generation.stop)
    if generation.temperature > 0:
        digest = hashlib.sha256(f"{generation.seed}:{request.seed_key}".encode()).digest()
        # 31 bits: some servers keep a seed in a 32-bit integer, others in a double.
        body["seed"] = int.from_bytes(digest[:8], "big") & 0x7FFFFFFF
    if (schema := sent_schema(server, request)) is not None:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": SCHEMA_NAME, "strict": _is_closed(schema), "schema": schema},
        }
    kept = {name: value for name, value in body.items() if name not in server.omit}
    return json.dumps(kept, separators=(",", ":")).encode("ascii")


def sent_schema(server: ServerSettings, request: Request) -> dict[str, Any] | None:
    """The schema that goes with the request; None where there is none or the server is not to be told."""
    return request.response_schema if server.structured and request.generation.constrain else None


def most_tokens_in(server: ServerSettings, request: Request) -> int:
    """An upper bound of the prompt's tokens: no token is shorter than a byte, and 16 a message for the template."""
    schema = sent_schema(server, request)
    return sum(len(message.content.encode("utf-8", "surrogatepass")) + 16 for message in request.messages) + (
        len(json.dumps(schema)) if schema is not None else 0
    )


def estimate_tokens(messages: Sequence[Message]) -> int:
    """About how many tokens a prompt takes: a quarter of its bytes, and 4 a message."""
    return sum(text_tokens(message.content) + 4 for message in messages)


def text_tokens(text: str) -> int:
    """About how many tokens a text takes: a quarter of its bytes, rounded up."""
    return math.ceil(len(text.encode("utf-8", "surrogatepass")) / 4)


def read_reply(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    read_answer: Callable[[bytes], Outcome] | None = None,
    now: datetime | None = None,
) -> Outcome:
    """What a complete reply means. Its error text may still hold secrets; see `redact`.

    Args:
        read_answer: for the body of a success; None takes it for a chat completion.
    """
    if 200 <= status < 300:
        return (read_answer or _read_answer)(body)
    code, message = read_error(body)
    error = f"HTTP {status}: {message}" if message else f"HTTP {status}"
    retry_after_s = read_retry_after(headers, now or datetime.now(UTC))
    if status in (401, 403):
        return Outcome("denied", error=error)
    if status == 429 and code != "insufficient_quota":
        return Outcome("limited", error=error, retry_after_s=retry_after_s)
    if status in (503, 529) and retry_after_s is not None:
        return Outcome("limited", error=error, retry_after_s=retry_after_s)
    if status in (408, 409) or status >= 500:
        return Outcome("again", error=error, retry_after_s=retry_after_s)
    if 300 <= status < 400:
        return Outcome("refused", error=f"{error}; the server answers elsewhere: correct base_url")
    too_long = status in (400, 413, 422) and (code == "context_length_exceeded" or _TOO_LONG.search(message))
    return Outcome("refused", error=error, kind="too_long" if too_long else "engine")


def read_retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that a reply asks to wait (RFC 9110, 10.2.3: seconds or a date; OpenAI's `retry-after-ms`), at least 0."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        try:
            seconds = float(text) * unit
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    try:
        date = parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds())


def redact(text: str, key: str | None) -> str:
    """`text` without the key and without anything that looks like one."""
    if key:
        text = text.replace(key, "[key]")
    return _LOOKS_LIKE_KEY.sub("[key]", _BEARER.sub("Bearer [key]", text))


def one_line(text: str) -> str:
    """The text on one line, cut to a length that fits a table."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_ERROR else line[: LONGEST_ERROR - 1] + "…"


def _read_answer(body: bytes) -> Outcome:
    try:
        data = json.loads(body)
        usage = _read_usage(data)
        choice = data["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason")
        text = _text(message)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        # A server that is restarting, or a proxy in front of it, answers like this; so it is tried again.
        return Outcome("again", error=f"the reply is not a chat completion: {read_error(body)[1]}", may_cost=True)
    if reason == "content_filter":
        return Outcome("refused", usage=usage, error="the server's content filter cut the answer", may_cost=True)
    return Outcome("answered", text, "length" if reason == "length" else "stop", usage, may_cost=True)


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if content is None:
        # A refusal is what the model says; reasoning that used up the length leaves nothing.
        content = message.get("refusal") or ""
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part.get("type") == "text")
    if not isinstance(content, str):
        raise TypeError("content is no text")
    return content


def _read_usage(data: Mapping[str, Any]) -> TokenCounts | None:
    usage = data.get("usage")
    if not isinstance(usage, dict):
        return None
    tokens_in, tokens_out = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    if tokens_in is None or tokens_out is None:
        return None
    cached = _count((usage.get("prompt_tokens_details") or {}).get("cached_tokens")) or 0
    return TokenCounts(tokens_in, tokens_out, min(cached, tokens_in))


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def read_error(body: bytes) -> tuple[str, str]:
    """Code and message of an error reply; servers differ in where they put them."""
    text = body[:20_000].decode("utf-8", "replace")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        # A page of HTML from a proxy: its tags say nothing.
        return "", re.sub(r"<[^>]*>", " ", text)
    error = data.get("error", data) if isinstance(data, dict) else data
    if not isinstance(error, dict):
        return "", str(error)
    message = error.get("message") or error.get("detail") or json.dumps(error)
    return str(error.get("code") or error.get("type") or ""), str(message)


def _is_closed(schema: Any) -> bool:
    """Whether OpenAI's strict mode takes the schema: every object names all its fields as required and allows no others."""
    if isinstance(schema, list):
        return all(_is_closed(item) for item in schema)
    if not isinstance(schema, dict):
        return True
    if "properties" in schema or schema.get("type") == "object":
        fields = schema.get("properties", {})
        if schema.get("additionalProperties") is not False or set(schema.get("required", ())) != set(fields):
            return False
    return all(_is_closed(value) for value in schema.values())
