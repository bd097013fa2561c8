"""Embeddings of a model on a server that speaks OpenAI's API, many batches at once."""

from __future__ import annotations

import asyncio
import queue
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from workbench.errors import ModelError
from workbench.files import digest_json
from workbench.models.embeddings_wire import encode_embeddings, read_embeddings
from workbench.models.limiter import RateLimitedError
from workbench.models.openai_sender import Sender
from workbench.models.openai_wire import TokenCounts, one_line, redact, text_tokens
from workbench.models.prices import find_price
from workbench.retrieval.embedding import Kind
from workbench.workspace import ServerSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from workbench.progress import Progress

# What every server takes in one request: text-embeddings-inference refuses more texts unless it is told otherwise.
BATCH_TEXTS = 32
# OpenAI refuses requests of more than 300,000 tokens.
BATCH_TOKENS = 100_000
# Leaving early waits no longer than this for requests to be cancelled.
STOPPING_S = 5.0

# The places of the texts, their vectors, and the tokens that they took.
Batch = tuple[Sequence[int], Any, int]


class OpenAIEmbedder:
    """A model of a remote server. Questions and passages are sent alike, for the API does not tell them apart.

    The digest is that of the names of server and model, as for engines: what answers under these names cannot be verified.

    Args:
        server: the server's name in `workbench.toml`.
        model: what the server calls the model.

    Attributes:
        tokens: sent so far, as the server counts them; estimated where it does not say.

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
        self.name = f"{server}:{model}"
        self.digest = digest_json({"server": server, "model": model})
        self.max_tokens: int | None = None
        self.tokenizer: Any = None
        self.tokens = 0
        self._model, self._settings = model, settings
        self._sender = Sender(server, settings, "/embeddings", backoff_s=backoff_s, random=random)
        self._price = find_price(settings, model)
        self._dimensions: int | None = None
        self._lock = threading.Lock()

    @property
    def dimensions(self) -> int:
        """Length of a vector, learnt from the first answer; where there was none, the server is asked."""
        if self._dimensions is None:
            self.encode(["dimensions"])
        assert self._dimensions is not None
        return self._dimensions

    @property
    def cost_usd(self) -> float | None:
        """Dollars for the tokens sent so far; None where the price is not known."""
        return None if self._price is None else self._price(TokenCounts(self.tokens, 0))

    def encode(
        self, texts: Sequence[str], *, kind: Kind = "passage", progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """The vectors of `texts`, float32 (n, dimensions), of unit length.

        Raises:
            ModelError: the server refuses the key or a batch (for a text that is too long, say), or does not answer; or its
                vectors have another length than before. Nothing is returned of the rest then.
        """
        import numpy as np

        self._sender.check_open()
        if not texts:
            return np.empty((0, self.dimensions), np.float32)
        batches = list(_batches(texts))
        results: queue.SimpleQueue[Batch | Exception | None] = queue.SimpleQueue()
        running = self._sender.start(self._run(texts, batches, results), on_end=lambda: results.put(None))
        found: NDArray[np.float32] | None = None
        done = 0
        try:
            for _ in batches:
                result = results.get()
                if result is None:
                    raise ModelError("the embedder was closed", hint="Ask for a new one.")
                if isinstance(result, Exception):
                    raise result
                places, vectors, tokens = result
                self._note(vectors.shape[1], tokens)
                if found is None:
                    found = np.empty((len(texts), vectors.shape[1]), np.float32)
                found[places] = vectors
                done += len(places)
                if progress is not None:
                    progress.update(done)
        finally:
            running.stop(STOPPING_S)
        assert found is not None
        return found

    def close(self) -> None:
        self._sender.close()

    def __repr__(self) -> str:
        return f"OpenAIEmbedder({self.name!r})"

    def _note(self, dimensions: int, tokens: int) -> None:
        with self._lock:
            if self._dimensions not in (None, dimensions):
                raise ModelError(
                    f"{self.name} gives vectors of {dimensions} numbers, and gave {self._dimensions} before",
                    hint="Ask the server's operator whether the model was changed.",
                )
            self._dimensions = dimensions
            self.tokens += tokens

    async def _run(
        self, texts: Sequence[str], batches: Sequence[Sequence[int]], results: queue.SimpleQueue[Any]
    ) -> None:
        pending = iter(batches)
        try:
            key = self._sender.read_key()

            async def work() -> None:
                for places in pending:
                    vectors, tokens = await self._ask([texts[place] for place in places], key)
                    results.put((places, vectors, tokens))

            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._settings.concurrency, len(batches))):
                    group.create_task(work())
        except ExceptionGroup as errors:
            results.put(errors.exceptions[0])
        except ModelError as error:
            results.put(error)

    async def _ask(self, texts: Sequence[str], key: str | None) -> tuple[Any, int]:
        retries = self._sender.retries()
        body, read = encode_embeddings(self._model, self._settings, texts), read_embeddings(len(texts))
        while True:
            try:
                outcome, sent, _ = await self._sender.send(body, key, read)
            except RateLimitedError as error:
                raise ModelError(
                    f"{self.name}: rate limited: {error}, longer than patience_s allows",
                    hint="What was embedded before is kept. Go on later, or raise patience_s.",
                ) from None
            if outcome.verdict == "answered":
                usage = outcome.usage
                return outcome.vectors, usage.tokens_in if usage else sum(map(text_tokens, texts))
            error_text = one_line(redact(outcome.error, key))
            if outcome.verdict == "denied":
                raise self._sender.denied(error_text)
            pause = retries.after(outcome, sent, error_text)
            if isinstance(pause, str):
                longest = max(map(text_tokens, texts))
                raise ModelError(
                    f"{self.name}: {pause}",
                    hint=f"Take smaller chunks: the longest text here has about {longest:,} tokens."
                    if outcome.kind == "too_long"
                    else f"See [servers.{self._sender.server}] in workbench.toml, and whether the server embeds.",
                )
            await asyncio.sleep(pause)


def _batches(texts: Sequence[str]) -> Iterator[list[int]]:
    """The places of the texts, so many together as go into one request."""
    batch: list[int] = []
    tokens = 0
    for place, text in enumerate(texts):
        size = text_tokens(text)
        if batch and (len(batch) == BATCH_TEXTS or tokens + size > BATCH_TOKENS):
            yield batch
            batch, tokens = [], 0
        batch.append(place)
        tokens += size
    if batch:
        yield batch
