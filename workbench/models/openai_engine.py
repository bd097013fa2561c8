"""Engine `openai`: any server that speaks OpenAI's chat completions, many requests at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import urlsplit

from workbench.errors import ModelError
from workbench.files import digest_json
from workbench.models.budget import Budget
from workbench.models.engine import Completion, Message, ModelInfo, Request, check_adapter
from workbench.models.limiter import Gate, RateLimitedError
from workbench.models.openai_job import Job, OverBudgetError
from workbench.models.openai_sender import Sender
from workbench.models.openai_wire import (
    Outcome,
    TokenCounts,
    encode_request,
    estimate_tokens,
    most_tokens_in,
    one_line,
    read_reply,
    redact,
    text_tokens,
)
from workbench.models.prices import find_price
from workbench.workspace import ServerSettings

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
        self._sender = Sender(server, settings, "/chat/completions", backoff_s=backoff_s, random=random)
        self._price = find_price(settings, model)

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def gate(self) -> Gate:
        """The queue for a place among the requests under way."""
        return self._sender.gate

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """An estimate, for the tokenizer is the server's: a quarter of the bytes, and 4 a message."""
        return estimate_tokens(messages)

    def close(self) -> None:
        self._sender.close()

    def generate(
        self, requests: Sequence[Request], *, budget: Budget | None = None
    ) -> Iterator[tuple[int, Completion]]:
        """Yield answers as they come. Answers are not streamed, so `ttft_s` is `latency_s`, that of the last attempt.

        `cost_usd` counts attempts that failed too. One that may have been billed though no usage came back (it timed out,
        broke off or was cancelled) counts with the most it can have cost. Where the server names no usage, tokens are
        estimates.

        Raises:
            ModelError: the server refuses the key, the engine was closed, a budget is given though the price is not
                known, `choices` are to be ranked, or an adapter is to answer.
        """
        self._sender.check_open()
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
        for adapter in {request.adapter for request in requests} - {None}:
            check_adapter(self, str(adapter))
        if not requests:
            return
        job = Job(requests, self._sender.read_key(), budget, ahead=max(FEWEST_AHEAD, 4 * self._settings.concurrency))
        running = self._sender.start(self._run(job), on_end=lambda: job.results.put(None))
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
        retries = self._sender.retries()
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
                raise self._sender.denied(error_text)
            pause = retries.after(outcome, sent, error_text)
            if isinstance(pause, str):
                return _failure(outcome.kind, pause, cost, outcome.usage)
            await asyncio.sleep(pause)

    async def _attempt(self, job: Job, request: Request, body: bytes) -> tuple[Outcome, float, float, float | None]:
        """One attempt: outcome, when it was sent, seconds it took, dollars it cost."""
        most = self._most(request)
        spent: float | None = 0.0

        def note_sent() -> None:
            # What is cancelled from here on may have been billed.
            nonlocal spent
            spent = most

        await job.reserve(most or 0.0)
        try:
            outcome, sent, latency = await self._sender.send(body, job.key, read_reply, on_sent=note_sent)
            spent = self._cost(outcome, most)
            return outcome, sent, latency, spent
        except RateLimitedError:
            spent = 0.0
            raise
        finally:
            job.settle(most or 0.0, spent or 0.0)

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
