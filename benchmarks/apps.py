"""`workbench apps` with many viewers: how long until each sees the page, and what memory the server takes.

Every viewer signs in, opens the cost and quality app over the websocket that a browser uses, and stays until all have it: they
come within ten seconds, and then all at the same moment. First paint is when the headline numbers have come; done is when
every cell has. The server runs in a process of its own, on the 90 days that `workbench demo --history` writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import Part

PAINT_GOAL_S, MEMORY_GOAL_MIB = 2.0, 1024
APP = "cost_quality"
# What the cell with the headline numbers shows, and no other.
HEADLINE = "95% answered within"


def make_workspace(folder: Path) -> None:
    """A new workspace with 90 days of synthetic calls."""
    for words in (["init", str(folder)], ["demo", "--history"]):
        where = folder if folder.is_dir() else folder.parent
        subprocess.run([sys.executable, "-m", "workbench", *words], cwd=where, check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[str, int]]:
    """The apps of a workspace, served: their address and the process.

    Raises:
        BenchmarkError: the server does not come up.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "workbench", "apps", f"notebooks/{APP}.py", "--port", str(port)]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(300):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                time.sleep(0.1)
            else:
                raise harness.BenchmarkError("the server did not come up")
            yield f"http://127.0.0.1:{port}", server.pid
        finally:
            server.send_signal(signal.SIGINT)
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()


def make_key(folder: Path) -> str:
    """A viewer's key."""
    command = [sys.executable, "-m", "workbench", "access", "grant", "viewer", "--role", "viewer"]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


async def view(
    base: str, key: str, number: int, leaving: asyncio.Barrier, after_s: float = 0.0
) -> tuple[float, float, int]:
    """Open the page as a browser does, and stay until all leave.

    Returns: seconds to its first paint and until it is done, and the cells that failed.
    """
    import aiohttp

    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        async with session.post(f"{base}/signin", data={"key": key, "next": "/healthz"}) as answer:
            answer.raise_for_status()
        await asyncio.sleep(after_s)
        begun = time.perf_counter()
        async with session.get(f"{base}/{APP}/") as answer:
            answer.raise_for_status()
            await answer.read()
        painted, failed, ended, waiting = 0.0, 0, False, set[str]()
        address = f"{base}/{APP}/ws?session_id=s_{number:06}"
        async with session.ws_connect(address, max_msg_size=0) as page:
            async for message in page:
                data: dict[str, Any] = json.loads(message.data)["data"]
                if data.get("op") == "cell-op":
                    output, cell = data.get("output") or {}, str(data["cell_id"])
                    failed += output.get("channel") == "marimo-error"
                    if not painted and HEADLINE in str(output.get("data")):
                        painted = time.perf_counter() - begun
                    if data.get("status") is not None:
                        waiting = waiting - {cell} if data["status"] == "idle" else waiting | {cell}
                ended |= data.get("op") == "completed-run"
                if ended and painted and not waiting:
                    break
            done = time.perf_counter() - begun
            await leaving.wait()
    return painted, done, failed


async def viewing(
    base: str, key: str, viewers: int, first: int, pid: int, within_s: float = 0.0
) -> tuple[list[tuple[float, float, int]], float]:
    """What each viewer saw, and the server's memory in MiB while all of them are there."""
    leaving = asyncio.Barrier(viewers + 1)
    tasks = [
        asyncio.create_task(view(base, key, first + number, leaving, within_s * number / viewers))
        for number in range(viewers)
    ]
    while leaving.n_waiting < viewers and not any(task.done() for task in tasks):
        await asyncio.sleep(0.05)
    held = resident_mib(pid)
    if leaving.n_waiting == viewers:
        await leaving.wait()
    return list(await asyncio.gather(*tasks)), held


def resident_mib(pid: int) -> float:
    """Memory that a process holds now, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise harness.BenchmarkError(f"process {pid} is gone")


def _late(views: Sequence[tuple[float, float, int]]) -> float:
    """The 95th percentile of the first paints: the smallest that so many are not above."""
    painted = sorted(paint for paint, *_ in views)
    return painted[math.ceil(0.95 * len(painted)) - 1]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--viewers", type=int, default=30, help="who open the page")
    parser.add_argument("--within", type=float, default=10.0, help="seconds in which they come, first")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "workspace"
        make_workspace(folder)
        key = make_key(folder)
        with serving(folder) as (base, pid):
            # The first page imports what all others find imported.
            cold, _ = asyncio.run(viewing(base, key, 1, 0, pid))
            alone, before = asyncio.run(viewing(base, key, 1, 1, pid))
            came = asyncio.run(viewing(base, key, options.viewers, 100, pid, options.within))
            at_once = asyncio.run(viewing(base, key, options.viewers, 200, pid))
    if failed := sum(found[2] for views, _ in ((cold, 0), (alone, 0), came, at_once) for found in views):
        raise harness.BenchmarkError(f"{failed} cells failed")
    late, memory = _late(came[0]), at_once[1]
    parts = [
        Part(
            name=f"first paint, 95th percentile of {options.viewers} within {options.within:g} s", ours=late, unit="s"
        ),
        Part(name="memory with all of them", ours=memory, unit="MiB"),
        Part(name="all cells, median", ours=statistics.median(found[1] for found in came[0]), unit="s"),
        Part(name=f"first paint, 95th percentile of {options.viewers} at once", ours=_late(at_once[0]), unit="s"),
        Part(name="first paint, median of them", ours=statistics.median(found[0] for found in at_once[0]), unit="s"),
        Part(name="first paint of one viewer alone", ours=alone[0][0], unit="s"),
        Part(name="first paint after the start", ours=cold[0][0], unit="s"),
        Part(name="memory with one viewer", ours=before, unit="MiB"),
    ]
    goals = [
        (f"at most {PAINT_GOAL_S:g} s", late <= PAINT_GOAL_S),
        (f"at most {MEMORY_GOAL_MIB} MiB", memory <= MEMORY_GOAL_MIB),
    ]
    parts[:2] = [part | Part(goal=goal, met=met) for part, (goal, met) in zip(parts[:2], goals, strict=True)]
    harness.report(
        "apps",
        ours=late,
        peer=None,
        ratio=None,
        goal="; ".join(goal for goal, _ in goals),
        met=all(met for _, met in goals),
        unit="s",
        parts=parts,
        json_output=options.json,
        packages=["llmops-workbench", "marimo", "starlette", "uvicorn"],
        runs={"first paint, s": sorted(found[0] for found in came[0])},
        notes=["the viewers run on the same cores as the server"],
    )


if __name__ == "__main__":
    main()
