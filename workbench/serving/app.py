"""The HTTP face of an artifact: one question a request, errors as JSON, probes for whoever runs it."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from workbench.errors import EventsError, WorkbenchError, require
from workbench.files import canonical_json
from workbench.pipeline.pipeline import Answer
from workbench.serving.batches import Batches, Busy
from workbench.serving.recording import MOST, Feedback, Question, Recording
from workbench.serving.served import Served

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

MAX_BODY = 1 << 20
# Errors of an answer, by what the client can do about them.
_STATUS = {"prompt": 422, "too_long": 422, "timeout": 504, "budget": 429, "out_of_memory": 503}


def make_app(
    served: Served,
    *,
    api_key: str | None = None,
    timeout_s: float = 60.0,
    max_body: int = MAX_BODY,
    waiting: int = 256,
    recording: Recording | None = None,
) -> Starlette:
    """An ASGI application that answers with an artifact.

    `POST /v1/answer` takes `{"inputs": {…}}` and gives `{"value": …}` with its tokens and times. `POST /v1/feedback` takes
    what somebody says of an answer. `GET /` says which artifact this is; `/healthz` and `/readyz` are for probes and need
    no key.

    Args:
        api_key: what a request must show as `Authorization: Bearer …`; None asks for nothing.
        timeout_s: seconds after which a question is answered with 504.
        max_body: bytes of a request's body.
        waiting: questions that may wait; one more is answered with 503.
        recording: where questions, answers and feedback are recorded; closed at the end. None records nothing.

    Raises:
        MissingExtraError: starlette is not installed.
    """
    require("starlette", extra="serve")
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    batches = Batches(served.pipeline, served.engine, at_once=1 if served.in_process else 32, waiting=waiting)
    about = describe(served)
    ready = False

    def failure(
        status: int, kind: str, message: str, headers: dict[str, str] | None = None, trace_id: str | None = None
    ) -> Response:
        said: dict[str, Any] = {"error": {"kind": kind, "message": message}}
        return JSONResponse(said if trace_id is None else {**said, "trace_id": trace_id}, status, headers=headers)

    def unanswered(
        asked: Question, status: int, kind: str, message: str, headers: dict[str, str] | None = None
    ) -> Response:
        if recording is not None:
            recording.failed(asked, kind, message)
        return failure(status, kind, message, headers, asked.trace_id)

    def refused(request: Request) -> Response | None:
        if api_key is None:
            return None
        given = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
        if hmac.compare_digest(given, api_key.encode()):
            return None
        return failure(401, "unauthorized", "show the key: Authorization: Bearer …", {"WWW-Authenticate": "Bearer"})

    async def body_of(request: Request) -> bytes | Response:
        if (refusal := refused(request)) is not None:
            return refusal
        if (read := await _body(request, max_body)) is None:
            return failure(413, "too_large", f"the body is larger than {max_body:,} bytes", {"Connection": "close"})
        return read

    async def root(request: Request) -> Response:
        if (refusal := refused(request)) is not None:
            return refusal
        state = "off" if recording is None else await asyncio.to_thread(recording.state)
        return JSONResponse({**about, "recording": state})

    async def healthy(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def is_ready(request: Request) -> Response:
        status = "ready" if ready else "not ready"
        return JSONResponse({"status": status, "artifact": served.label}, 200 if ready else 503)

    async def answer(request: Request) -> Response:
        if not isinstance(read := await body_of(request), bytes):
            return read
        try:
            body = json.loads(read, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            return failure(400, "malformed", f"the body is no JSON: {error}")
        inputs = body.get("inputs") if isinstance(body, dict) else None
        if not isinstance(inputs, dict) or not set(body) <= {"inputs", "seed_key", "tenant"}:
            wanted = 'send {"inputs": {"NAME": "VALUE"}}, and nothing beside it but seed_key and tenant'
            return failure(400, "malformed", wanted)
        tenant = body.get("tenant")
        if tenant is not None and not (isinstance(tenant, str) and len(tenant) <= MOST):
            return failure(422, "tenant", f"tenant is a text of at most {MOST} characters")
        if (wrong := served.missing(inputs)) is not None:
            return failure(422, "prompt", wrong)
        asked = Question(inputs, tenant)
        try:
            async with asyncio.timeout(timeout_s):
                found, waited_s = await batches.ask(inputs, seed_key=str(body.get("seed_key", "0")))
        except Busy as error:
            return unanswered(asked, 503, "busy", str(error), {"Retry-After": "1"})
        except TimeoutError:
            return unanswered(asked, 504, "timeout", f"no answer within {timeout_s:g} s")
        except WorkbenchError as error:
            return unanswered(asked, 503, "engine", str(error))
        except Exception as error:
            return unanswered(asked, 500, "engine", f"{type(error).__name__}: {error}")
        response: Response | None = None
        if found.error_kind is None:
            try:
                response = JSONResponse({**answered(found), "artifact": served.label, "trace_id": asked.trace_id})
            except (TypeError, ValueError) as error:
                wrong = f"the value cannot be sent as JSON: {error}"
                found = replace(found, value=None, error_kind="invalid_output", error=wrong)
        if recording is not None:
            recording.answered(asked, found, waited_s)
        if response is None:
            kind = found.error_kind or "invalid_output"
            response = failure(_STATUS.get(kind, 502), kind, found.error or "no valid answer", trace_id=asked.trace_id)
        return response

    async def feedback(request: Request) -> Response:
        if not isinstance(read := await body_of(request), bytes):
            return read
        if recording is None:
            return failure(404, "recording", "this server records nothing")
        try:
            recording.feedback(Feedback.model_validate_json(read))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            if first["type"] == "json_invalid":
                return failure(400, "malformed", f"the body is no JSON: {first['msg']}")
            return failure(422, "feedback", ": ".join([*map(str, first["loc"]), first["msg"]]))
        except EventsError as error:
            return failure(503, "recording", str(error), {"Retry-After": "5"})
        return JSONResponse({"recorded": True}, 202)

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return failure(error.status_code, "http", str(error.detail), dict(error.headers or {}))

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        nonlocal ready
        ready = True
        yield
        ready = False
        batches.close()
        if recording is not None:
            recording.close()

    return Starlette(
        routes=[
            Route("/", root),
            Route("/healthz", healthy),
            Route("/readyz", is_ready),
            Route("/v1/answer", answer, methods=["POST"]),
            Route("/v1/feedback", feedback, methods=["POST"]),
        ],
        exception_handlers={HTTPException: http_error},
        lifespan=lifespan,
    )


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


async def _body(request: Request, most: int) -> bytes | None:
    """The body of a request; None where it is larger than that, of which no more is read."""
    read = bytearray()
    async for chunk in request.stream():
        read += chunk
        if len(read) > most:
            return None
    return bytes(read)


def describe(served: Served) -> dict[str, Any]:
    """What `GET /` says."""
    decision = served.artifact.decision
    example = json.dumps({"inputs": dict.fromkeys(served.variables, "…")}, ensure_ascii=False)
    return {
        "artifact": served.label,
        "digest": served.artifact.digest,
        "model": served.engine.info.to_dict(),
        "decision": decision["sentence"] if decision else None,
        "inputs": list(served.variables),
        "try": f"curl -H 'Content-Type: application/json' -d '{example}' …/v1/answer",
    }


def answered(answer: Answer) -> dict[str, Any]:
    """An answer as the response has it."""
    done = answer.completion
    said: dict[str, Any] = {
        "value": json.loads(canonical_json(answer.value)),
        "finish_reason": done.finish_reason,
        "usage": {"tokens_in": done.tokens_in, "tokens_out": done.tokens_out, "cost_usd": done.cost_usd},
        "latency_s": round(done.queue_s + done.latency_s, 4),
    }
    if answer.passages is not None:
        said["passages"] = [passage.id for passage in answer.passages]
    return said
