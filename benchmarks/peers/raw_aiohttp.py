"""The most that a Python client can do: the same questions by bare aiohttp, nothing kept but a count of right answers."""

from __future__ import annotations

import asyncio
import json
import sys
import time

import aiohttp


async def ask_all(url: str, rows: int, connections: int) -> int:
    """How many of `rows` questions were answered with their last word, over so many connections."""
    right = 0
    numbers = iter(range(rows))
    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def worker() -> None:
            nonlocal right
            for number in numbers:
                messages = [{"role": "user", "content": f"question {number} word{number}"}]
                async with session.post(
                    f"{url}/chat/completions", json={"model": "echo", "messages": messages}
                ) as answer:
                    answer.raise_for_status()
                    body = await answer.json()
                right += body["choices"][0]["message"]["content"] == f"word{number}"

        await asyncio.gather(*(worker() for _ in range(connections)))
    return right


def main(url: str, rows: int, connections: int) -> None:
    asyncio.run(ask_all(url, 2 * connections, connections))
    started = time.perf_counter()
    right = asyncio.run(ask_all(url, rows, connections))
    print(json.dumps({"completed": right, "seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
