"""A server of chat completions that answers with the question's last word after a delay. Prints its address, then serves."""

from __future__ import annotations

import asyncio
import json
import socket
import sys

from aiohttp import web


def main(delay: float) -> None:
    """Serve on a free port of this machine until the process is ended."""

    async def complete(request: web.Request) -> web.Response:
        body = await request.json()
        await asyncio.sleep(delay)
        answer = {
            "id": "bench",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": last_word(body["messages"][-1]["content"])},
                }
            ],
            "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6},
        }
        return web.Response(body=json.dumps(answer).encode(), content_type="application/json")

    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", flush=True)
    web.run_app(app, sock=listener, print=None, access_log=None)


def last_word(content: str | list[dict[str, str]]) -> str:
    """Clients send a message as text or as a list of parts."""
    text = content if isinstance(content, str) else content[-1]["text"]
    return text.split()[-1]


if __name__ == "__main__":
    main(float(sys.argv[1]))
