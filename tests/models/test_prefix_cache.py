"""Prefixes that are kept: found again, within their limit, and without any effect on an answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import OutOfMemoryError, UsageError
from workbench.models.decoding import Batch
from workbench.models.engine import Completion, Generation, Message, Request
from workbench.models.prefix_cache import LIMIT_VARIABLE, Prefix, PrefixCache, limit_bytes, model_cache
from workbench.models.transformers_engine import TransformersEngine

# Two layers of keys and values, one head of width 2, 4 bytes a number.
TOKEN_BYTES = 2 * 2 * 2 * 4


def prefix(*tokens: int, adapter: str | None = None) -> Prefix:
    """A prefix whose tensors tell which tokens they belong to."""
    tensor = torch.tensor(tokens, dtype=torch.float32)[None, None, :, None].repeat(1, 1, 1, 2)
    return Prefix(tokens, ((tensor.clone(), tensor.clone()), (tensor.clone(), tensor.clone())), adapter)


def cache(tokens: int = 100, shortest: int = 1) -> PrefixCache:
    return PrefixCache(tokens * TOKEN_BYTES, shortest=shortest)


def held(found: Prefix | None) -> list[int]:
    assert found is not None
    for layer in found.layers:
        for tensor in layer:
            assert tensor[0, 0, :, 0].tolist() == list(found.tokens)
    return list(found.tokens)


def length(found: Prefix | None) -> int:
    return len(found or ())


def test_the_longest_shared_beginning_is_found() -> None:
    kept = cache()
    kept.put(prefix(1, 2, 3, 4))
    kept.put(prefix(1, 2, 9))
    assert held(kept.find([1, 2, 3, 4])) == [1, 2, 3, 4]
    assert held(kept.find([1, 2, 3, 4, 5])) == [1, 2, 3, 4]
    assert held(kept.find([1, 2, 3])) == [1, 2, 3]
    assert held(kept.find([1, 2, 9, 9])) == [1, 2, 9]
    assert kept.find([7, 1, 2]) is None
    stats = kept.stats
    assert (stats.hits, stats.misses, stats.reused_tokens) == (4, 1, 4 + 4 + 3 + 3)


def test_a_short_beginning_is_not_worth_it() -> None:
    kept = cache(shortest=3)
    kept.put(prefix(1, 2, 3, 4))
    assert kept.find([1, 2]) is None
    assert held(kept.find([1, 2, 3])) == [1, 2, 3]


def test_what_was_used_longest_ago_makes_room() -> None:
    kept = cache(tokens=6)
    kept.put(prefix(1, 1))
    kept.put(prefix(2, 2))
    kept.put(prefix(3, 3))
    kept.find([1, 1])
    kept.put(prefix(4, 4))
    assert [length(kept.find([n, n])) for n in (1, 2, 3, 4)] == [2, 0, 2, 2]
    kept.put(prefix(5, 5, 5, 5, 5, 5, 5))
    assert kept.find([5]) is None
    assert kept.stats.entries == 3


def test_a_longer_prefix_takes_the_place_of_its_beginning() -> None:
    kept = cache()
    kept.put(prefix(1, 2))
    kept.put(prefix(1, 2, 3))
    kept.put(prefix(1, 2))
    assert (kept.stats.entries, kept.stats.bytes) == (1, 3 * TOKEN_BYTES)


def test_a_view_is_copied_so_that_nothing_larger_stays() -> None:
    kept = cache(tokens=3)
    long = prefix(*range(50))
    kept.put(long.cut(3))
    found = kept.find([0, 1, 2])
    assert held(found) == [0, 1, 2]
    assert found is not None
    assert found.bytes == kept.stats.bytes == 3 * TOKEN_BYTES
    assert long.cut(3).bytes == 50 * TOKEN_BYTES
    whole = prefix(7, 8)
    kept.put(whole)
    again = kept.find([7, 8])
    assert again is not None
    assert again.layers[0][0].data_ptr() == whole.layers[0][0].data_ptr()


def test_nothing_is_kept_where_nothing_may_be() -> None:
    kept = PrefixCache(0, shortest=1)
    kept.put(prefix(1, 2, 3))
    assert kept.find([1, 2, 3]) is None
    # Neither is the question that came before.
    assert [kept.worthwhile([[1, 2, 3]]) for _ in range(2)] == [0, 0]
    assert kept.stats.bytes == 0


def test_clearing_lets_go_of_all() -> None:
    kept = cache()
    kept.put(prefix(1, 2, 3))
    kept.clear()
    assert (kept.stats.entries, kept.stats.bytes, kept.find([1, 2, 3])) == (0, 0, None)


def test_rows_share_what_all_of_them_begin_with() -> None:
    kept = cache(shortest=3)
    rows = [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 9], [1, 2, 3, 4, 5, 7]]
    assert kept.worthwhile(rows) == 4
    # Every row keeps a token of its own, whose logits begin the answer.
    assert kept.worthwhile([[1, 2, 3, 4], [1, 2, 3, 4, 5]]) == 3
    assert kept.worthwhile([[1, 2, 8], [1, 2, 9]]) == 0
    assert kept.worthwhile([]) == 0
    # One token more than what is kept is not worth a pass of its own.
    kept.put(prefix(1, 2, 3))
    assert kept.worthwhile(rows) == 3


def test_a_row_alone_shares_with_what_is_kept_and_with_the_row_before_it() -> None:
    kept = cache(shortest=3)
    assert kept.worthwhile([[1, 2, 3, 4, 5]]) == 0
    assert kept.worthwhile([[1, 2, 3, 4, 6]]) == 4
    assert kept.worthwhile([[1, 2, 3, 4, 6]]) == 4
    assert kept.worthwhile([[8, 8, 8, 8, 8]]) == 0
    kept.put(prefix(1, 2, 3))
    assert kept.worthwhile([[1, 2, 3]]) == 0
    assert kept.worthwhile([[1, 2, 3, 9]]) == 3


def test_the_same_tokens_under_another_adapter_are_another_prefix() -> None:
    kept = cache(tokens=8)
    kept.put(prefix(1, 2, 3))
    assert kept.find([1, 2, 3], "a") is None
    kept.put(prefix(1, 2, 3, 4, adapter="a"))
    assert (length(kept.find([1, 2, 3, 4])), length(kept.find([1, 2, 3, 4], "a"))) == (3, 4)
    assert kept.worthwhile([[1, 2, 3, 9], [1, 2, 3, 8]], "b") == 3
    # They share one limit of memory.
    kept.put(prefix(5, 5, adapter="b"))
    assert kept.stats.bytes <= kept.limit_bytes
    assert kept.find([1, 2, 3]) is None
    lonely = cache(shortest=2)
    assert [lonely.worthwhile([[7, 7, 7]], adapter) for adapter in (None, "a", "a", None)] == [0, 0, 2, 0]


TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=8)


@given(st.lists(st.tuples(st.booleans(), TOKENS), max_size=30), st.integers(0, 20))
def test_whatever_is_asked_the_answer_is_true_and_the_limit_holds(
    steps: list[tuple[bool, list[int]]], limit: int
) -> None:
    small, endless = cache(limit), cache(10_000)
    put: list[list[int]] = []
    for keep, tokens in steps:
        if keep:
            small.put(prefix(*tokens))
            endless.put(prefix(*tokens))
            put.append(tokens)
        longest = max((_shared(tokens, other) for other in put), default=0)
        for kept in (small, endless):
            found = kept.find(tokens)
            assert length(found) == longest or (kept is small and length(found) < longest)
            assert found is None or held(found) == tokens[: len(found)]
            assert kept.stats.bytes <= kept.limit_bytes


def _shared(a: list[int], b: list[int]) -> int:
    return max(n for n in range(min(len(a), len(b)) + 1) if a[:n] == b[:n])


def test_a_model_cache_shares_no_memory_with_its_prefix() -> None:
    kept = prefix(1, 2, 3)
    for rows in (1, 3):
        layers = model_cache(kept, rows).layers
        assert [layer.keys.shape for layer in layers] == [(rows, 1, 3, 2)] * 2
        for layer in layers:
            layer.keys.zero_()
            layer.values.zero_()
    assert held(kept) == [1, 2, 3]


@pytest.mark.parametrize(("text", "expected"), [("", 512 * 2**20), ("0", 0), ("1.5", 3 * 2**19), ("100", 100 * 2**20)])
def test_the_limit_is_set_in_megabytes(monkeypatch: pytest.MonkeyPatch, text: str, expected: int) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, text)
    assert limit_bytes() == expected


@pytest.mark.parametrize("text", ["-1", "lots", "nan"])
def test_a_limit_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, text)
    with pytest.raises(UsageError, match=LIMIT_VARIABLE):
        limit_bytes()


SYSTEM = "You sort messages that customers send to a shop for smart-home devices, and answer with one word only."
SHOTS = {
    "a": ("where is my parcel, it was due on Monday", "shipping"),
    "b": ("the lamp flickers since the last update", "bug"),
}
QUESTIONS = ["Package never came", "How do I reset the hub?", "I was charged twice this month, please look into it"]


def ask(variant: str, questions: list[str]) -> list[Request]:
    question, answer = SHOTS[variant]
    start = (
        Message(role="system", content=SYSTEM),
        Message(role="user", content=question),
        Message(role="assistant", content=answer),
    )
    return [
        Request((*start, Message(role="user", content=text)), Generation(max_new_tokens=5), None, text)
        for text in questions
    ]


def run(engine: TransformersEngine, requests: list[Request]) -> list[Completion]:
    found = dict(engine.generate(requests))
    return [found[index] for index in range(len(requests))]


@pytest.fixture(scope="module")
def loaded() -> TransformersEngine:
    return TransformersEngine.load("smollm2-135m", device="cpu")


@pytest.fixture
def engine(loaded: TransformersEngine) -> TransformersEngine:
    """A fresh engine on the loaded model."""
    return TransformersEngine(loaded.model, loaded.tokenizer, loaded.info)


@pytest.fixture
def forgetful(loaded: TransformersEngine) -> TransformersEngine:
    return TransformersEngine(loaded.model, loaded.tokenizer, loaded.info, prefix_bytes=0)


@pytest.fixture
def passes(loaded: TransformersEngine) -> Iterator[list[tuple[int, int, int]]]:
    """Each pass through the model: rows, tokens known before it, new tokens a row."""
    seen: list[tuple[int, int, int]] = []
    forward = loaded.model.forward

    def counted(*args: Any, **options: Any) -> Any:
        seen.append((len(options["input_ids"]), options["cache"].get_seq_length(), options["input_ids"].shape[1]))
        return forward(*args, **options)

    loaded.model.forward = counted
    yield seen
    loaded.model.forward = forward


def same(found: list[Completion], expected: list[Completion]) -> None:
    assert [answer.text for answer in found] == [answer.text for answer in expected]
    for a, b in zip(found, expected, strict=True):
        assert a.logprob == pytest.approx(b.logprob, abs=1e-3)
        assert a.tokens_in == b.tokens_in


@pytest.mark.model
@pytest.mark.slow
def test_variants_share_a_system_text_and_a_second_run_computes_no_prefix(
    engine: TransformersEngine, forgetful: TransformersEngine, passes: list[tuple[int, int, int]]
) -> None:
    expected = {variant: run(forgetful, ask(variant, QUESTIONS)) for variant in SHOTS}
    assert forgetful.prefixes.stats.bytes == 0
    tokens = {variant: [engine._encode(request.messages) for request in ask(variant, QUESTIONS)] for variant in SHOTS}
    lengths = {variant: _shared(min(rows), max(rows)) for variant, rows in tokens.items()}
    common = _shared(tokens["a"][0], tokens["b"][0])
    assert 16 < common < min(lengths.values())

    passes.clear()
    same(run(engine, ask("a", QUESTIONS)), expected["a"])
    assert passes[0] == (1, 0, lengths["a"])
    assert passes[1][:2] == (3, lengths["a"])

    passes.clear()
    same(run(engine, ask("b", QUESTIONS)), expected["b"])
    assert passes[0] == (1, common, lengths["b"] - common)
    assert passes[1][:2] == (3, lengths["b"])

    passes.clear()
    before = engine.prefixes.stats
    same(run(engine, ask("a", QUESTIONS)), expected["a"])
    assert all((rows <= 3 and known >= lengths["a"]) for rows, known, _ in passes)
    assert passes[0] == (3, lengths["a"], max(map(len, tokens["a"])) - lengths["a"])
    after = engine.prefixes.stats
    assert (after.entries, after.hits - before.hits) == (2, 1)
    assert after.reused_tokens - before.reused_tokens == lengths["a"]

    # One that comes alone uses it too.
    passes.clear()
    same(run(engine, ask("b", QUESTIONS[1:2])), expected["b"][1:2])
    assert passes[0][:2] == (1, lengths["b"])
    engine.close()
    assert engine.prefixes.stats.bytes == 0


@pytest.mark.model
@pytest.mark.slow
def test_questions_one_at_a_time_come_to_share_their_beginning(
    engine: TransformersEngine, forgetful: TransformersEngine, passes: list[tuple[int, int, int]]
) -> None:
    expected = run(forgetful, ask("a", QUESTIONS))
    firsts = []
    for place, text in enumerate(QUESTIONS):
        passes.clear()
        same(run(engine, ask("a", [text])), expected[place : place + 1])
        firsts.append(passes[0])
    tokens = [engine._encode(request.messages) for request in ask("a", QUESTIONS)]
    shared = _shared(tokens[0], tokens[1])
    assert firsts[0] == (1, 0, len(tokens[0]))
    assert firsts[1] == (1, 0, shared)
    assert firsts[2] == (1, shared, len(tokens[2]) - shared)


@pytest.mark.model
@pytest.mark.slow
def test_decoding_never_alters_a_kept_prefix(engine: TransformersEngine) -> None:
    run(engine, ask("a", QUESTIONS))
    tokens = engine._encode(ask("a", QUESTIONS)[0].messages)
    found = engine.prefixes.find(tokens)
    assert found is not None
    copies = [(keys.clone(), values.clone()) for keys, values in found.layers]
    run(engine, ask("a", QUESTIONS[:1]))
    run(engine, ask("b", QUESTIONS))
    engine.loglikelihood([request.messages for request in ask("a", QUESTIONS)], ["bug", "shipping"])
    for (keys, values), (old_keys, old_values) in zip(found.layers, copies, strict=True):
        assert torch.equal(keys, old_keys)
        assert torch.equal(values, old_values)


@pytest.mark.model
@pytest.mark.slow
def test_kept_prefixes_make_room_before_memory_is_said_to_be_short(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(engine, ask("a", QUESTIONS))
    real, sizes = Batch.run, []

    def tight(self: Batch, suffixes: list[list[int]], keys: list[str]) -> list[Completion]:
        sizes.append(len(suffixes))
        if self.prefix or engine.prefixes.stats.bytes:
            raise torch.OutOfMemoryError("no room")
        return real(self, suffixes, keys)

    monkeypatch.setattr(Batch, "run", tight)
    same(run(engine, ask("a", QUESTIONS)), expected)
    assert sizes == [3, 1, 1, 1, 1]

    def full(self: Batch, suffixes: list[list[int]], keys: list[str]) -> list[Completion]:
        sizes.append(len(suffixes))
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(Batch, "run", full)
    sizes.clear()
    with pytest.raises(OutOfMemoryError, match="one row"):
        run(engine, ask("a", QUESTIONS))
    assert sizes == [3, 1, 1]


@pytest.mark.model
@pytest.mark.slow
def test_the_environment_limits_a_loaded_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, "0")
    assert TransformersEngine.load("smollm2-135m", device="cpu").prefixes.limit_bytes == 0
