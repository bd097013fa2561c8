"""What every kind of request to one server shares: the key, connections, a limit of how many are under way, and retries."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any

from workbench.errors import ModelError
from workbench.models.background_loop import BackgroundLoop, Running
from workbench.models.limiter import Gate, Limiter
from workbench.models.openai_client import Reader, ServerClient
from workbench.models.openai_wire import Outcome
from workbench.models.prices import is_loopback
from workbench.workspace import ServerSettings

LONGEST_BACKOFF_S = 30.0


class Sender:
    """Sends requests to one path of one server.

    Args:
        server: the server's name in `workbench.toml`.
        path: below the server's `base_url`, such as `/chat/completions`.
        backoff_s: the longest pause after a first failure; it doubles with each one up to 30 s.
        random: uniform in [0, 1).

    Raises:
        ModelError: the environment variable of the key is not set.
        MissingExtraError: aiohttp is not installed.
    """

    def __init__(
        self,
        server: str,
        settings: ServerSettings,
        path: str,
        *,
        backoff_s: float = 0.5,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.server, self.settings = server, settings
        self._path, self._backoff_s, self._random = path, backoff_s, random
        self.read_key()
        self._closed = False
        self._client = ServerClient(settings, path)
        self.gate = self._new_gate()
        self._background = BackgroundLoop(self._close_client, self._after_fork)

    def read_key(self) -> str | None:
        """The key, read anew for each call so that one set later counts; None where the server is asked without.

        Raises:
            ModelError: its variable is not set, or holds no key.
        """
        name = self.settings.key_env
        key = os.environ.get(name, "").strip() if name else ""
        if not key:
            if name is None or is_loopback(self.settings.base_url):
                return None
            raise ModelError(
                f"{self.server} asks for a key, and the environment variable {name} is not set",
                hint=f"Run: export {name}=… (the key)",
            )
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ModelError(f"the environment variable {name} holds no key", hint="A key is ASCII without spaces.")
        return key

    def check_open(self) -> None:
        """Nothing, unless it was closed.

        Raises:
            ModelError: it was.
        """
        if self._closed:
            raise ModelError("the engine was closed", hint="Ask for a new one.")

    def start(self, coroutine: Coroutine[Any, Any, None], on_end: Callable[[], object]) -> Running:
        """Run `coroutine` in the background; `on_end` is called there however it ends."""
        return self._background.start(coroutine, on_end)

    async def send(
        self, body: bytes, key: str | None, read: Reader, *, on_sent: Callable[[], object] = lambda: None
    ) -> tuple[Outcome, float, float]:
        """One attempt, as soon as there is room for it: what became of it, when it was sent, seconds it took.

        Args:
            on_sent: called when it leaves: from then on it may be billed, even if it is cancelled.

        Raises:
            RateLimitedError: the server refuses for too long, before or by this attempt, which then cost nothing.
        """
        number = await self.gate.enter()
        on_sent()
        sent = time.perf_counter()
        outcome = None
        try:
            outcome = await self._client.post(body, key, read)
            return outcome, sent, time.perf_counter() - sent
        finally:
            self._leave(number, outcome)

    def retries(self) -> Retries:
        """The rules for one request."""
        return Retries(self.settings, self._backoff_s, self._random)

    def denied(self, error: str) -> ModelError:
        """What to raise where the server does not take the key."""
        variable = self.settings.key_env
        return ModelError(
            f"{self.server} refuses the request: {error}",
            hint=f"Check the key in the environment variable {variable}."
            if variable
            else f"Name the variable that holds a key as key_env under [servers.{self.server}].",
        )

    def close(self) -> None:
        self._closed = True
        self._background.close()

    def _leave(self, number: int, outcome: Outcome | None) -> None:
        if outcome is not None and outcome.verdict == "answered":
            self.gate.succeeded(number)
        elif outcome is not None and outcome.verdict == "limited":
            self.gate.limited(number, outcome.retry_after_s)
        else:
            self.gate.failed()

    def _new_gate(self) -> Gate:
        limiter = Limiter(self.settings.concurrency, clock=time.monotonic, random=self._random)
        return Gate(limiter, patience_s=self.settings.patience_s)

    async def _close_client(self) -> None:
        await self._client.close()

    def _after_fork(self) -> object:
        abandoned = self._client.abandon()
        self._client, self.gate = ServerClient(self.settings, self._path), self._new_gate()
        return abandoned


class Retries:
    """How often, and after which pauses, one request is tried again."""

    def __init__(self, settings: ServerSettings, backoff_s: float, random: Callable[[], float]) -> None:
        self._settings, self._backoff_s, self._random = settings, backoff_s, random
        self._faults = 0
        self._limited_since: float | None = None

    def after(self, outcome: Outcome, sent: float, error: str) -> float | str:
        """Seconds to wait until the next attempt; or, where there is none, the error to give up with.

        Args:
            outcome: of an attempt that was not answered, and not denied.
            sent: when it was sent, by `time.perf_counter`.
            error: its error, without secrets.
        """
        if outcome.verdict == "refused":
            return error
        if outcome.verdict == "limited":
            self._limited_since = sent if self._limited_since is None else self._limited_since
            waited = time.perf_counter() - self._limited_since
            # How long to wait, the gate knows for all requests together.
            return f"rate limited for {waited:.0f} s: {error}" if waited > self._settings.patience_s else 0.0
        self._faults += 1
        if self._faults >= self._settings.tries:
            return error + (f" ({self._faults} tries)" if self._faults > 1 else "")
        pause: float = self._random() * min(LONGEST_BACKOFF_S, self._backoff_s * 2 ** min(self._faults - 1, 16))
        return max(pause, min(outcome.retry_after_s or 0.0, self._settings.patience_s))
