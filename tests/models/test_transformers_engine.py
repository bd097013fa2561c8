"""The local engine on the real model: fast ways of decoding must give what the plain way gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from workbench import api
from workbench.errors import ModelError, OutOfMemoryError
from workbench.models.decoding import Batch
from workbench.models.engine import Completion, Generation, Request
from workbench.models.transformers_engine import TransformersEngine
from workbench.pipeline.prompt import Prompt

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.model, pytest.mark.slow]

TOKENS = 10
OPEN = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
SCHEMA = {
    "type": "object",
    "properties": {"intent": {"enum": ["billing", "bug", "shipping"]}, "urgency": {"enum": ["high", "low"]}},
    "required": ["intent", "urgency"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def engine() -> TransformersEngine:
    return TransformersEngine.load("smollm2-135m", device="cpu")


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    tickets = api.open(ROOT).dataset("support-tickets")
    prompt = Prompt.from_text("## system\nSort messages. Answer with JSON.\n## user\n{{ text }}").with_examples(
        [row for row in tickets.split("train").rows() if len(row.inputs["text"]) < 80][:4]
    )
    rows = [row for row in tickets.split("dev").rows() if len(row.inputs["text"]) < 200][:8]
    return [Request(prompt.render(row.inputs), Generation(max_new_tokens=TOKENS), None, row.id) for row in rows]


def _with(requests: list[Request], generation: Generation, schema: dict[str, Any] | None = None) -> list[Request]:
    return [Request(request.messages, generation, schema, request.seed_key) for request in requests]


def _ask(engine: TransformersEngine, requests: list[Request]) -> list[Completion]:
    found = dict(engine.generate(requests))
    assert sorted(found) == list(range(len(requests)))
    return [found[index] for index in range(len(requests))]


def test_greedy_answers_are_those_of_plain_unbatched_decoding(
    engine: TransformersEngine, requests: list[Request]
) -> None:
    import torch

    for request, completion in zip(requests, _ask(engine, requests), strict=True):
        ids = torch.tensor([engine._encode(request.messages)])
        plain = engine.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=False, pad_token_id=0
        )
        text = engine.tokenizer.decode(plain[0, ids.shape[1] :], skip_special_tokens=True)
        assert completion.text == text
        assert completion.tokens_in == ids.shape[1]
        assert completion.tokens_in == engine.count_tokens(request.messages)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_neither_order_nor_batch_size_changes_an_answer(
    engine: TransformersEngine, requests: list[Request], temperature: float
) -> None:
    asked = _with(requests, Generation(max_new_tokens=8, temperature=temperature, top_p=0.9, top_k=40, seed=3))
    together = [completion.text for completion in _ask(engine, asked)]
    backwards = [completion.text for completion in _ask(engine, asked[::-1])][::-1]
    alone = [next(iter(dict(engine.generate([request])).values())).text for request in asked[:3]]
    assert backwards == together
    assert alone == together[:3]
    if temperature:
        other = _with(requests, Generation(max_new_tokens=8, temperature=temperature, seed=4))
        assert [completion.text for completion in _ask(engine, other)] != together


@pytest.mark.parametrize(
    "schema",
    [
        SCHEMA,
        {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}}, "required": ["n"]},
        {
            "type": "object",
            "properties": {"who": {**OPEN, "additionalProperties": False}},
            "required": ["who"],
            "additionalProperties": False,
        },
        {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1, "maxItems": 3},
    ],
)
def test_constrained_answers_fit_the_schema(
    engine: TransformersEngine, requests: list[Request], schema: dict[str, Any]
) -> None:
    closed = schema if schema["type"] == "array" else {**schema, "additionalProperties": False}
    hot = Generation(max_new_tokens=60, temperature=1.3, seed=5)
    for completion in _ask(engine, _with(requests[:4], hot, closed)):
        assert completion.finish_reason == "stop"
        jsonschema.validate(json.loads(completion.text or ""), closed)


def test_log_probabilities_are_those_of_one_pass_over_the_answer(
    engine: TransformersEngine, requests: list[Request]
) -> None:
    import torch

    for request, completion in zip(requests[:6], _ask(engine, requests[:6]), strict=True):
        prompt = engine._encode(request.messages)
        answer = engine.tokenizer.encode(completion.text, add_special_tokens=False)
        assert len(answer) == completion.tokens_out
        if completion.finish_reason == "stop":
            answer.append(engine.tokenizer.eos_token_id)
        with torch.inference_mode():
            logits = engine.model(torch.tensor([prompt + answer])).logits[0].float()
        told = torch.log_softmax(logits[len(prompt) - 1 : -1], dim=-1).gather(1, torch.tensor(answer)[:, None]).sum()
        assert completion.logprob == pytest.approx(float(told), abs=2e-3)


def test_an_answer_stops_at_a_stop_string_or_at_its_length(engine: TransformersEngine, requests: list[Request]) -> None:
    [cut] = _ask(engine, _with(requests[:1], Generation(max_new_tokens=40, stop=(",",))))
    [whole] = _ask(engine, requests[:1])
    assert cut.text == (whole.text or "").split(",")[0]
    assert cut.finish_reason == "stop"
    [short] = _ask(engine, _with(requests[:1], Generation(max_new_tokens=3)))
    assert (short.finish_reason, short.tokens_out) == ("length", 3)


@pytest.mark.parametrize("length", [1, 4, 9])
def test_forced_tokens_count_towards_the_length_but_not_the_log_probability(
    engine: TransformersEngine, requests: list[Request], length: int
) -> None:
    [cut] = _ask(engine, _with(requests[:1], Generation(max_new_tokens=length), SCHEMA))
    assert (cut.finish_reason, cut.tokens_out) == ("length", length)
    one_way = {
        "type": "object",
        "properties": {"a": {"const": "fixed"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    [forced] = _ask(engine, _with(requests[:1], Generation(max_new_tokens=30), one_way))
    [free] = _ask(engine, _with(requests[:1], Generation(max_new_tokens=30), SCHEMA))
    assert json.loads(forced.text or "") == {"a": "fixed"}
    assert forced.logprob is not None
    assert free.logprob is not None
    assert free.logprob < forced.logprob <= 0


def test_a_prompt_that_is_too_long_is_an_error_and_others_are_answered(
    engine: TransformersEngine, requests: list[Request]
) -> None:
    long = Request(Prompt.from_text("{{ text }}").render({"text": "word " * 9000}), Generation(max_new_tokens=20))
    first, second = _ask(engine, [long, requests[0]])
    assert (first.error_kind, first.text) == ("too_long", None)
    assert second.text


def test_out_of_memory_halves_the_batch_and_goes_on(
    engine: TransformersEngine, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    expected = [completion.text for completion in _ask(engine, requests)]
    run, sizes = Batch.run, []

    def small(self: Batch, suffixes: list[list[int]], keys: list[str], *, most: int = 3) -> list[Completion]:
        sizes.append(len(suffixes))
        if len(suffixes) > most:
            raise torch.OutOfMemoryError("no room")
        return run(self, suffixes, keys)

    monkeypatch.setattr(Batch, "run", small)
    assert [completion.text for completion in _ask(engine, requests)] == expected
    assert sizes[:3] == [8, 4, 2]
    monkeypatch.setattr(Batch, "run", lambda self, suffixes, keys: small(self, suffixes, keys, most=0))
    with pytest.raises(OutOfMemoryError, match="not enough memory for one row"):
        list(engine.generate(requests))


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_quantized_models_answer(requests: list[Request], quantization: Any) -> None:
    quantized = TransformersEngine.load("smollm2-135m", quantization=quantization, device="cpu")
    assert quantized.info.quantization == quantization
    [completion] = _ask(quantized, _with(requests[:1], Generation(max_new_tokens=2)))
    assert completion.tokens_out > 0
    quantized.close()
    with pytest.raises(ModelError, match="closed"):
        list(quantized.generate(requests[:1]))


def test_a_model_that_is_not_here_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="workbench model pull smollm2-135m"):
        TransformersEngine.load("smollm2-135m")
