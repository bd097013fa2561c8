"""A real chat server on a free port, in a thread, which behaves as badly as a test asks it to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Behaviour = Callable[["ChatServer", web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]


@dataclass
class ChatServer:
    """What a test sets (`behaviour`) and what it looks at afterwards.

    Attributes:
        bodies: every request received, parsed, in order.
        headers: their headers.
        answered: how many chat completions were sent.
        most_at_once: the largest number of requests that were under way together.
    """

    behaviour: Behaviour
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    answered: int = 0
    most_at_once: int = 0
    _at_once: int = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.paths.append(request.raw_path)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return await self.behaviour(self, request, body)
        finally:
            self._at_once -= 1


def ok(delay: float = 0.0, tokens: int | None = 3, **changes: Any) -> Behaviour:
    """Answers with the last word of the question; `tokens` None leaves the usage out."""

    async def behave(server: ChatServer, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        await asyncio.sleep(delay)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": body["messages"][-1]["content"].split()[-1]},
            "finish_reason": "stop",
        }
        reply: dict[str, Any] = {"object": "chat.completion", "choices": [choice | changes]}
        if tokens is not None:
            reply["usage"] = {"prompt_tokens": 10, "completion_tokens": tokens}
        server.answered += 1
        return web.json_response(reply)

    return behave


def status(code: int, error: Any = None, headers: dict[str, str] | None = None) -> Behaviour:
    """Answers with an error."""

    async def behave(server: ChatServer, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return web.json_response({"error": error or {"message": "no", "code": None}}, status=code, headers=headers)

    return behave


def text(content: str, code: int = 200) -> Behaviour:
    """Answers with something that is no chat completion."""

    async def behave(server: ChatServer, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return web.Response(text=content, status=code)

    return behave


async def hang(server: ChatServer, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    await asyncio.sleep(3600)
    raise AssertionError("nobody waits that long")


async def drop(server: ChatServer, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """Breaks off in the middle of the answer."""
    response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"choices": [{"mess')
    assert request.transport is not None
    request.transport.close()
    return response


async def echo_key(server: ChatServer, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """Puts the key into its error, as careless servers do."""
    said = f"I cannot serve {request.headers.get('Authorization')}"
    return web.json_response({"error": {"message": said, "code": "odd"}}, status=400)


def first(count: int, before: Behaviour, after: Behaviour) -> Behaviour:
    """`before` for the first `count` requests, then `after`."""

    async def behave(server: ChatServer, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return await (before if len(server.bodies) <= count else after)(server, request, body)

    return behave


def by_word(**behaviours: Behaviour) -> Behaviour:
    """By the last word of the question; `other` where none fits."""

    async def behave(server: ChatServer, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        word = body["messages"][-1]["content"].split()[-1]
        return await behaviours.get(word, behaviours.get("other", ok()))(server, request, body)

    return behave


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[ChatServer]:
    """A server that runs while the block does."""
    server = ChatServer(behaviour)
    loop = asyncio.new_event_loop()
    ready, ended = threading.Event(), asyncio.Event()

    async def run() -> None:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_post("/{path:.*}", server.handle)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        server.url = f"http://{host}:{port}/v1"
        ready.set()
        await ended.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(30)
        loop.close()
