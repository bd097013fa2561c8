"""The embedder for servers, against a real one that answers, refuses, breaks off and lies."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from tests.models import openai_server as servers
from tests.models.openai_server import Behaviour, ChatServer, serving
from workbench.errors import ModelError
from workbench.files import digest_json
from workbench.retrieval.embedding import close_embedders, get_embedder
from workbench.retrieval.embedding_openai import BATCH_TEXTS, BATCH_TOKENS, OpenAIEmbedder
from workbench.workspace import ServerSettings, Settings

KEY = "k3y-Zx81-not-for-anyone"
Make = Callable[..., OpenAIEmbedder]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[OpenAIEmbedder] = []

    def build(server: ChatServer, **settings: Any) -> OpenAIEmbedder:
        embedder = OpenAIEmbedder("local", "m", ServerSettings(base_url=server.url, **settings), backoff_s=0.001)
        made.append(embedder)
        return embedder

    yield build
    for embedder in made:
        embedder.close()


def raw(text: str, dimensions: int = 6) -> np.ndarray:
    """What the server answers to a text: not of unit length."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    return (3 * np.random.default_rng(seed).normal(size=dimensions)).astype("<f4")


def unit(text: str, dimensions: int = 6) -> np.ndarray:
    found: np.ndarray = raw(text, dimensions) / np.linalg.norm(raw(text, dimensions))
    return found


def embed(
    *, numbers: bool = False, usage: bool = True, reverse: bool = False, dimensions: int = 6, **changes: Any
) -> Behaviour:
    """Answers with embeddings, in base64 or as numbers; `changes` replace fields of the reply."""

    async def behave(server: ChatServer, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        await asyncio.sleep(0.005)
        data = []
        for index, text in enumerate(body["input"]):
            vector = raw(text, dimensions)
            shown = vector.tolist() if numbers else base64.b64encode(vector.tobytes()).decode()
            data.append({"object": "embedding", "index": index, "embedding": shown})
        reply: dict[str, Any] = {"object": "list", "data": data[::-1] if reverse else data}
        if usage:
            reply["usage"] = {"prompt_tokens": 2 * len(data), "total_tokens": 2 * len(data)}
        server.answered += 1
        return web.json_response(reply | changes)

    return behave


def test_texts_are_sent_in_batches_and_come_back_in_order_of_unit_length(make: Make) -> None:
    texts = [f"text {number}" for number in range(10 * BATCH_TEXTS + 5)]
    with serving(embed(reverse=True)) as server:
        embedder = make(server, concurrency=4)
        found = embedder.encode(texts)
    assert found.dtype == np.float32
    assert found == pytest.approx(np.stack([unit(text) for text in texts]), abs=1e-6)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-6)
    assert sorted(len(body["input"]) for body in server.bodies) == [5, *[BATCH_TEXTS] * 10]
    assert 1 < server.most_at_once <= 4
    assert set(server.paths) == {"/v1/embeddings"}
    assert server.bodies[0]["model"] == "m"
    assert embedder.tokens == 2 * len(texts)
    assert embedder.cost_usd == 0


def test_numbers_are_read_like_base64(make: Make) -> None:
    with serving(embed(numbers=True, usage=False)) as server:
        embedder = make(server, omit=("encoding_format",))
        found = embedder.encode(["abcdefgh", "b"])
        assert "encoding_format" not in server.bodies[0]
        assert embedder.tokens == 2 + 1
    assert found == pytest.approx(np.stack([unit("abcdefgh"), unit("b")]), abs=1e-6)


def test_dimensions_are_learnt_from_the_first_answer(make: Make) -> None:
    with serving(embed(dimensions=9)) as server:
        embedder = make(server)
        assert embedder.encode(["a"]).shape == (1, 9)
        assert (embedder.dimensions, embedder.encode([]).shape) == (9, (0, 9))
        assert len(server.bodies) == 1
        other = make(server)
        assert other.dimensions == 9
        assert len(server.bodies) == 2


def test_an_empty_text_is_sent_as_a_space(make: Make) -> None:
    with serving(embed()) as server:
        assert make(server).encode(["", "a"])[0] == pytest.approx(unit(" "), abs=1e-6)
        assert server.bodies[0]["input"] == [" ", "a"]


def test_long_texts_get_smaller_batches(make: Make) -> None:
    long = "x" * (4 * BATCH_TOKENS)
    with serving(embed()) as server:
        make(server).encode(["a", long, long, "b"])
        assert sorted(len(body["input"]) for body in server.bodies) == [1, 1, 1, 1]


def test_its_digest_is_of_the_names(make: Make) -> None:
    with serving(embed()) as server:
        assert make(server).digest == digest_json({"server": "local", "model": "m"})


@pytest.mark.parametrize(
    "trouble",
    [
        servers.status(500),
        servers.status(429, headers={"retry-after-ms": "1"}),
        servers.status(503),
        servers.drop,
        servers.text("<html>a proxy</html>"),
        embed(data=[]),
        embed(data=[{"index": 0, "embedding": [1.0, "no"]}] * 3),
    ],
)
def test_trouble_that_passes_is_tried_again(trouble: Behaviour, make: Make) -> None:
    with serving(servers.first(1, trouble, embed())) as server:
        assert make(server).encode(["a", "b"]) == pytest.approx(np.stack([unit("a"), unit("b")]), abs=1e-6)
        assert len(server.bodies) == 2


@pytest.mark.parametrize(
    ("trouble", "settings", "message"),
    [
        (servers.status(500), {"tries": 3}, r"HTTP 500: no \(3 tries\)"),
        (servers.status(404), {}, "HTTP 404"),
        (servers.hang, {"timeout_s": 0.2, "tries": 1}, "no answer within"),
        (servers.status(429, headers={"retry-after": "100"}), {"patience_s": 1}, "rate limited"),
        (embed(data=[]), {"tries": 1}, "not 2 embeddings"),
        (embed(data=[{"index": n, "embedding": [0.0, 0.0]} for n in (0, 1)]), {}, "no direction"),
        (embed(data=[{"index": n, "embedding": [float(n), 1.0]} for n in (0, 1, 2)]), {"tries": 1}, "not 2 embeddings"),
        (embed(data=[{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0, 2.0]}]), {"tries": 1}, "not 2"),
    ],
)
def test_trouble_that_stays_is_an_error(trouble: Behaviour, settings: dict[str, Any], message: str, make: Make) -> None:
    with serving(trouble) as server, pytest.raises(ModelError, match=message):
        make(server, **settings).encode(["a", "b"])


def test_one_batch_that_fails_ends_the_rest(make: Make) -> None:
    async def refuse_bad(server: ChatServer, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return await (servers.status(400) if "bad" in body["input"] else embed())(server, request, body)

    texts = ["bad", *(f"text {number}" for number in range(100 * BATCH_TEXTS))]
    with serving(refuse_bad) as server:
        embedder = make(server, concurrency=2)
        with pytest.raises(ModelError, match="HTTP 400"):
            embedder.encode(texts)
        assert len(server.bodies) < 50
        assert len(embedder.encode(["good"])) == 1


def test_a_text_that_is_too_long_says_what_to_do(make: Make) -> None:
    error = {"message": "This model's maximum context length is 8192 tokens", "code": "context_length_exceeded"}
    with serving(servers.status(400, error)) as server, pytest.raises(ModelError, match="maximum context") as caught:
        make(server).encode(["a", "x" * 40_000])
    assert caught.value.hint is not None
    assert "10,000 tokens" in caught.value.hint


def test_the_key_is_sent_and_never_shown(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBED_KEY", KEY)
    with serving(servers.echo_key) as server:
        embedder = make(server, key_env="EMBED_KEY")
        with pytest.raises(ModelError) as caught:
            embedder.encode(["a"])
        assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in f"{caught.value} {embedder!r}"
    with serving(servers.status(401)) as server, pytest.raises(ModelError, match="refuses the request"):
        make(server, key_env="EMBED_KEY").encode(["a"])


def test_a_model_that_changes_its_dimensions_is_an_error(make: Make) -> None:
    with serving(servers.first(1, embed(dimensions=6), embed(dimensions=7))) as server:
        embedder = make(server)
        embedder.encode(["a"])
        with pytest.raises(ModelError, match="7 numbers, and gave 6"):
            embedder.encode(["b"])


def test_a_closed_embedder_says_so(make: Make) -> None:
    with serving(embed()) as server:
        embedder = make(server)
        embedder.close()
        with pytest.raises(ModelError, match="closed"):
            embedder.encode(["a"])


def test_progress_counts_texts(make: Make) -> None:
    class Told:
        done: list[int] = []  # noqa: RUF012

        def update(self, done: int, note: str = "") -> None:
            self.done.append(done)

    with serving(embed()) as server:
        make(server).encode(["a"] * (2 * BATCH_TEXTS + 1), progress=Told())
    assert Told.done == sorted(Told.done)
    assert Told.done[-1] == 2 * BATCH_TEXTS + 1


def test_it_works_under_a_running_event_loop(make: Make) -> None:
    with serving(embed()) as server:
        embedder = make(server)

        async def notebook_cell() -> np.ndarray:
            return embedder.encode(["a"])

        assert asyncio.run(notebook_cell()) == pytest.approx(unit("a")[None], abs=1e-6)


def test_an_embedder_is_kept_for_each_model_and_settings() -> None:
    settings = Settings(servers={"local": ServerSettings(base_url="http://localhost:8000/v1")})
    try:
        embedder = get_embedder("local:bge:v2", settings)
        assert isinstance(embedder, OpenAIEmbedder)
        assert embedder.name == "local:bge:v2"
        assert get_embedder("local:bge:v2", settings) is embedder
        assert get_embedder("local:other", settings) is not embedder
        with pytest.raises(ModelError, match="no server is called 'nowhere'"):
            get_embedder("nowhere:m", settings)
        with pytest.raises(ModelError, match="names no model"):
            get_embedder("local:", settings)
    finally:
        close_embedders()
