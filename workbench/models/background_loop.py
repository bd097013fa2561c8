"""An event loop in a thread of its own, so that plain functions can use coroutines wherever they are called from."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import selectors
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any

# A program that ends waits no longer than this for open connections to be closed.
CLOSING_S = 2.0


class _Loop(asyncio.SelectorEventLoop):
    """Looks names up in daemon threads: those of an executor would keep a program alive until the resolver answers."""

    async def getaddrinfo(self, *args: Any, **options: Any) -> Any:
        found: asyncio.Future[Any] = self.create_future()

        def finish(result: Any, error: Exception | None) -> None:
            if found.done():
                return
            if error is None:
                found.set_result(result)
            else:
                found.set_exception(error)

        def look() -> None:
            result, error = None, None
            try:
                result = socket.getaddrinfo(*args, **options)
            except Exception as raised:
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                self.call_soon_threadsafe(finish, result, error)

        threading.Thread(target=look, name="workbench-resolver", daemon=True).start()
        return await found


class Running:
    """A coroutine that runs in a background loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, thread: threading.Thread, on_end: Callable[[], object]) -> None:
        self._loop = loop
        self._thread = thread
        self._on_end = on_end
        self._process = os.getpid()
        self._task: asyncio.Task[None] | None = None
        self._ended = threading.Event()

    @property
    def is_here(self) -> bool:
        """Whether it runs in this process: a fork leaves it behind in the parent."""
        return os.getpid() == self._process

    def begin(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._task = self._loop.create_task(coroutine)
        self._task.add_done_callback(self._end)

    def call(self, function: Callable[[], object]) -> None:
        """Call `function` in the loop soon; nothing happens where the loop has ended."""
        if self.is_here:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(function)

    def stop(self, wait_s: float) -> None:
        """Cancel the coroutine if it still runs, and wait until it has ended, but no longer than `wait_s`."""
        if not self.is_here:
            return
        self.call(lambda: self._task is not None and self._task.cancel())
        # The garbage collector may end a generator in any thread; in the loop's own, waiting would stop the loop.
        if threading.current_thread() is not self._thread:
            self._ended.wait(wait_s)

    def _end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # it reports its errors itself; this only marks them as seen
        self._ended.set()
        self._on_end()


class BackgroundLoop:
    """Runs coroutines in a daemon thread, which starts with the first one.

    Args:
        on_close: run in the loop before it ends, to free what belongs to it.
        on_fork: called in a forked child, where neither the thread nor what belongs to the loop can be used. What it
            returns is kept for good, so that no finalizer touches what the parent still uses.
    """

    def __init__(self, on_close: Callable[[], Coroutine[Any, Any, None]], on_fork: Callable[[], object]) -> None:
        self._on_close = on_close
        self._on_fork = on_fork
        self._lock = threading.Lock()
        self._selector: selectors.BaseSelector | None = None
        self._loop: _Loop | None = None
        self._thread: threading.Thread | None = None

    def start(self, coroutine: Coroutine[Any, Any, None], on_end: Callable[[], object]) -> Running:
        """Run `coroutine` as a task; `on_end` is called in the loop however it ends."""
        with self._lock:
            if self._loop is None or self._thread is None:
                self._selector = selectors.DefaultSelector()
                self._loop = _Loop(self._selector)
                self._thread = threading.Thread(target=self._loop.run_forever, name="workbench-requests", daemon=True)
                self._thread.start()
                # Held here until it is closed, so that a forgotten one is closed when the program ends.
                _open.add(self)
            running = Running(self._loop, self._thread, on_end)
            running.call(lambda: running.begin(coroutine))
        return running

    def close(self) -> None:
        """Cancel every task, free what belongs to the loop and end the thread. It may be called twice."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._selector = self._thread = None
            _open.discard(self)
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._finish(), loop)
        thread.join(CLOSING_S)
        if not thread.is_alive():
            loop.close()

    async def _finish(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        try:
            async with asyncio.timeout(CLOSING_S / 2):
                await asyncio.gather(*tasks, return_exceptions=True)
                await self._on_close()
        finally:
            asyncio.get_running_loop().stop()

    def after_fork(self) -> None:
        """Forget the parent's loop, in the child."""
        self._lock = threading.Lock()
        if self._loop is None or self._selector is None:
            return
        # The selector's kernel object is shared with the parent: unregistering a connection here would unregister it
        # there. So it is closed, and the loop kept from being collected.
        self._selector.close()
        _abandoned.append((self._loop, self._on_fork()))
        self._loop = self._selector = self._thread = None


_open: set[BackgroundLoop] = set()
_abandoned: list[object] = []


def _after_fork() -> None:
    for background in list(_open):
        background.after_fork()
    _open.clear()


def _close_all() -> None:
    for background in list(_open):
        background.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_close_all)
