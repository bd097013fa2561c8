"""Engine `openai`: any server that speaks OpenAI's chat completions, many requests at once."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import urlsplit

from workbench.errors import ModelError
from workbench.files import digest_json
from workbench.models.background_loop import BackgroundLoop
from workbench.models.budget import Budget
from workbench.models.engine import Completion, Message, ModelInfo, Request
from workbench.models.limiter import Gate, Limiter, RateLimitedError
from workbench.models.openai_client import ChatClient
from workbench.models.openai_job import Job, OverBudgetError
from workbench.models.openai_wire import (
    Outcome,
    TokenCounts,
    encode_request,
    estimate_tokens,
    most_tokens_in,
    one_line,
    redact,
    text_tokens,
)
from workbench.models.prices import find_price, is_loopback
from workbench.workspace import ServerSettings

LONGEST_BACKOFF_S = 30.0
# Closing a generator waits no longer than this for requests to be cancelled.
STOPPING_S = 5.0
# Answers that nobody has taken yet: beyond this no more are asked for, and paid for.
FEWEST_AHEAD = 256


class OpenAIEngine:
    """A model of a remote server.

    The digest in `info` is that of the names of server and model. What answers under these names cannot be verified, and
    may change from one day to the next.

    Args:
        server: the server's name in `workbench.toml`.
        model: what the server calls the model.
        backoff_s: the longest pause after a first failure; it doubles with each one up to 30 s.

    Raises:
        ModelError: the environment variable of the key is not set.
        MissingExtraError: aiohttp or genai-prices is not installed.
    """

    def __init__(
        self,
        server: str,
        model: str,
        settings: ServerSettings,
        *,
        backoff_s: float = 0.5,
        random: Callable[[], float] = random.random,
    ) -> None:
        if not model:
            raise ModelError(f"{server}: names no model", hint=f"Write {server}:MODEL, as the server calls the model.")
        parts = urlsplit(settings.base_url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        self._info = ModelInfo(
            name=f"{server}:{model}",
            digest=digest_json({"server": server, "model": model}),
            provider="openai",
            device=f"{parts.hostname}:{port}",
            dtype="remote",
            quantization="none",
        )
        self._server, self._model, self._settings = server, model, settings
        self._backoff_s, self._random = backoff_s, random
        self._read_key()
        self._price = find_price(settings, model)
        self._closed = False
        self._client = ChatClient(settings)
        self.gate = self._new_gate()
        self._background = BackgroundLoop(self._close_client, self._after_fork)

    @property
    def info(self) -> ModelInfo:
        return self._info

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """An estimate, for the tokenizer is the server's: a quarter of the bytes, and 4 a message."""
        return estimate_tokens(messages)

    def close(self) -> None:
        self._closed = True
        self._background.close()

    def generate(
        self, requests: Sequence[Request], *, budget: Budget | None = None
    ) -> Iterator[tuple[int, Completion]]:
        """Yield answers as they come. Answers are not streamed, so `ttft_s` is `latency_s`, that of the last attempt.

        `cost_usd` counts attempts that failed too. One that may have been billed though no usage came back (it timed out,
        broke off or was cancelled) counts with the most it can have cost. Where the server names no usage, tokens are
        estimates.

        Raises:
            ModelError: the server refuses the key, the engine was closed, a budget is given though the price is not
                known, or `choices` are to be ranked.
        """
        if self._closed:
            raise ModelError("the engine was closed", hint="Ask for a new one.")
        if budget is not None and self._price is None:
            raise ModelError(
                f"the price of {self._info.name} is not known, so no budget can be kept",
                hint=f"Set input_usd_per_mtok and output_usd_per_mtok under [servers.{self._server}] in workbench.toml.",
            )
        if any(request.generation.choices for request in requests):
            raise ModelError(
                f"{self._info.name} cannot rank choices: servers do not tell the probability of a given text",
                hint="Use a response_schema with an enum.",
            )
        if not requests:
            return
        job = Job(requests, self._read_key(), budget, ahead=max(FEWEST_AHEAD, 4 * self._settings.concurrency))
        running = self._background.start(self._run(job), on_end=lambda: job.results.put(None))
        try:
            for _ in requests:
                yield job.take(running)
        finally:
            running.stop(STOPPING_S)

    def __repr__(self) -> str:
        return f"OpenAIEngine({self._info.name!r}, device={self._info.device!r})"

    async def _run(self, job: Job) -> None:
        try:
            # So many workers, not a task for each request: memory stays bounded.
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._settings.concurrency, len(job.requests))):
                    group.create_task(self._work(job))
        except ExceptionGroup as errors:
            job.results.put(errors.exceptions[0])

    async def _work(self, job: Job) -> None:
        for index in job.pending:
            await job.wait_for_room()
            job.results.put((index, await self._ask(job, job.requests[index])))

    async def _ask(self, job: Job, request: Request) -> Completion:
        cost: float | None = 0.0
        faults = 0
        limited_since: float | None = None
        body = encode_request(self._model, self._settings, request)
        while True:
            if job.stopped:
                return _failure("engine", job.stopped, cost)
            try:
                outcome, sent, latency, spent = await self._attempt(job, request, body)
            except OverBudgetError as error:
                return _failure("budget", str(error), cost)
            except RateLimitedError as error:
                # Others would fare no better, and waiting for each of them would never end.
                job.stopped = f"rate limited: {error}, longer than patience_s allows"
                continue
            cost = None if cost is None or spent is None else cost + spent
            error_text = one_line(redact(outcome.error, job.key))
            if outcome.verdict == "answered":
                return self._completion(job, request, outcome, sent, latency, cost)
            if outcome.verdict == "denied":
                variable = self._settings.key_env
                raise ModelError(
                    f"{self._server} refuses the request: {error_text}",
                    hint=f"Check the key in the environment variable {variable}."
                    if variable
                    else f"Name the variable that holds a key as key_env under [servers.{self._server}].",
                )
            if outcome.verdict == "refused":
                return _failure(outcome.kind, error_text, cost, outcome.usage)
            if outcome.verdict == "limited":
                limited_since = sent if limited_since is None else limited_since
                if (waited := time.perf_counter() - limited_since) > self._settings.patience_s:
                    return _failure("engine", f"rate limited for {waited:.0f} s: {error_text}", cost)
                continue
            faults += 1
            if faults >= self._settings.tries:
                tries = f" ({faults} tries)" if faults > 1 else ""
                return _failure(outcome.kind, error_text + tries, cost)
            pause = self._random() * min(LONGEST_BACKOFF_S, self._backoff_s * 2 ** min(faults - 1, 16))
            await asyncio.sleep(max(pause, min(outcome.retry_after_s or 0.0, self._settings.patience_s)))

    async def _attempt(self, job: Job, request: Request, body: bytes) -> tuple[Outcome, float, float, float | None]:
        """One attempt: outcome, when it was sent, seconds it took, dollars it cost."""
        most = self._most(request)
        spent: float | None = 0.0
        await job.reserve(most or 0.0)
        try:
            number = await self.gate.enter()
            # What is cancelled from here on may have been billed.
            spent = most
            sent = time.perf_counter()
            outcome = None
            try:
                outcome = await self._client.post(body, job.key)
                latency = time.perf_counter() - sent
                spent = self._cost(outcome, most)
            finally:
                self._leave(number, outcome)
            return outcome, sent, latency, spent
        finally:
            job.settle(most or 0.0, spent or 0.0)

    def _leave(self, number: int, outcome: Outcome | None) -> None:
        if outcome is not None and outcome.verdict == "answered":
            self.gate.succeeded(number)
        elif outcome is not None and outcome.verdict == "limited":
            self.gate.limited(number, outcome.retry_after_s)
        else:
            self.gate.failed()

    def _completion(
        self, job: Job, request: Request, outcome: Outcome, sent: float, latency: float, cost: float | None
    ) -> Completion:
        text = outcome.text or ""
        # An answer keeps its words, but a server that sends the key back must not bring it into the records.
        text = text.replace(job.key, "[key]") if job.key else text
        usage = outcome.usage or TokenCounts(estimate_tokens(request.messages), text_tokens(text))
        return Completion(
            text=text,
            finish_reason=outcome.finish_reason,
            tokens_in=usage.tokens_in,
            tokens_out=usage.tokens_out,
            queue_s=sent - job.started,
            ttft_s=latency,
            latency_s=latency,
            cost_usd=cost,
        )

    def _most(self, request: Request) -> float | None:
        if self._price is None:
            return None
        return self._price(TokenCounts(most_tokens_in(self._settings, request), request.generation.max_new_tokens))

    def _cost(self, outcome: Outcome, most: float | None) -> float | None:
        if outcome.usage is None:
            return most if outcome.may_cost else 0.0
        return None if self._price is None else self._price(outcome.usage)

    def _read_key(self) -> str | None:
        """The key, read anew for each call so that one set later counts; None where the server is asked without."""
        name = self._settings.key_env
        key = os.environ.get(name, "").strip() if name else ""
        if not key:
            if name is None or is_loopback(self._settings.base_url):
                return None
            raise ModelError(
                f"{self._server} asks for a key, and the environment variable {name} is not set",
                hint=f"Run: export {name}=… (the key)",
            )
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ModelError(f"the environment variable {name} holds no key", hint="A key is ASCII without spaces.")
        return key

    def _new_gate(self) -> Gate:
        limiter = Limiter(self._settings.concurrency, clock=time.monotonic, random=self._random)
        return Gate(limiter, patience_s=self._settings.patience_s)

    async def _close_client(self) -> None:
        await self._client.close()

    def _after_fork(self) -> object:
        abandoned = self._client.abandon()
        self._client, self.gate = ChatClient(self._settings), self._new_gate()
        return abandoned


def _failure(kind: str, error: str, cost: float | None, usage: TokenCounts | None = None) -> Completion:
    usage = usage or TokenCounts(0, 0)
    return Completion(
        text=None,
        tokens_in=usage.tokens_in,
        tokens_out=usage.tokens_out,
        cost_usd=cost,
        error_kind=kind,
        error=error,
    )
