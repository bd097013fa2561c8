"""Choices: one pass over the question must give what one pass for each answer gives."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from workbench.errors import ModelError, OutOfMemoryError, UsageError
from workbench.models.choices import ChoiceScorer
from workbench.models.engine import Completion, Generation, Message, Request
from workbench.models.transformers_engine import TransformersEngine
from workbench.pipeline.pipeline import Pipeline
from workbench.pipeline.prompt import Prompt

CHOICES = ("refund", "refund request", "bug", "how to set it up", "shipping")
SYSTEM = "You sort messages that customers send to a shop. Answer with the kind of the message and nothing else."
QUESTIONS = [
    "where is my parcel?",
    "I sent the vacuum back in August and still wait for my money, when will I see it on my account",
    "the hub crashes",
    "Do the cameras need a hub of their own or will any do? I have one of another make, three years old.",
]
BASE = Pipeline(model="instant", prompt=Prompt.from_text("{{ text }}"))


def messages(text: str, system: str = SYSTEM) -> tuple[Message, ...]:
    return (Message(role="system", content=system), Message(role="user", content=text))


def ask(engine: TransformersEngine, requests: list[Request]) -> list[Completion]:
    found = dict(engine.generate(requests))
    return [found[index] for index in range(len(requests))]


@pytest.mark.parametrize("choices", [("a", "a"), ("a", "")])
def test_choices_are_distinct_and_say_something(choices: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match="distinct texts, none of them empty"):
        Generation(choices=choices)


def test_choices_are_not_sampled() -> None:
    with pytest.raises(ValidationError, match="leave temperature at 0"):
        Generation(choices=("a", "b"), temperature=0.5)


def test_a_pipeline_without_choices_has_the_digest_that_it_had_before_there_were_any() -> None:
    assert BASE.digest == "sha256:c0e389098297a70daf66ec01c6fc4ea0aaa385d2877343f52ec919c507496edc"
    assert BASE.with_(generation=Generation(choices=())).digest == BASE.digest
    chosen = BASE.with_(generation=Generation(choices=("a", "b")))
    assert chosen.digest != BASE.digest
    assert Pipeline.join(*chosen.split()) == chosen


@pytest.fixture(scope="module")
def engine() -> TransformersEngine:
    return TransformersEngine.load("smollm2-135m", device="cpu")


@pytest.fixture(scope="module")
def plain(engine: TransformersEngine) -> np.ndarray[Any, Any]:
    """One unbatched pass for each question and choice."""
    scores = np.zeros((len(QUESTIONS), len(CHOICES)))
    for row, text in enumerate(QUESTIONS):
        for column, choice in enumerate(CHOICES):
            scores[row, column] = one_by_one(engine, messages(text), choice)
    return scores


def one_by_one(engine: TransformersEngine, question: tuple[Message, ...], choice: str) -> float:
    prompt = engine._encode(question)
    answer = [*engine.tokenizer.encode(choice, add_special_tokens=False), engine.tokenizer.eos_token_id]
    with torch.inference_mode():
        logits = engine.model(torch.tensor([prompt + answer])).logits[0].float()
    logprobs = torch.log_softmax(logits[len(prompt) - 1 : -1], dim=-1)
    return float(logprobs.gather(1, torch.tensor(answer)[:, None]).sum())


@pytest.mark.model
@pytest.mark.slow
def test_one_pass_gives_what_a_pass_for_each_answer_gives(
    engine: TransformersEngine, plain: np.ndarray[Any, Any]
) -> None:
    assert engine.model.config._attn_implementation == "sdpa"
    found = engine.loglikelihood([messages(text) for text in QUESTIONS], CHOICES)
    np.testing.assert_allclose(found, plain, atol=2e-3)
    # The whole answer counts, its end included: a beginning of another answer is no more likely for that.
    assert (found < 0).all()
    assert (np.exp(found).sum(axis=1) < 1).all()


@pytest.mark.model
@pytest.mark.slow
def test_neither_batch_nor_order_nor_prefix_changes_a_score(
    engine: TransformersEngine, plain: np.ndarray[Any, Any]
) -> None:
    bare = TransformersEngine(engine.model, engine.tokenizer, engine.info, max_batch=1, prefix_bytes=0)
    for row, text in enumerate(QUESTIONS):
        np.testing.assert_allclose(bare.loglikelihood([messages(text)], CHOICES), plain[[row]], atol=2e-3)
        np.testing.assert_allclose(engine.loglikelihood([messages(text)], CHOICES), plain[[row]], atol=2e-3)
    order = [4, 2, 0, 3, 1]
    backwards = engine.loglikelihood(
        [messages(text) for text in reversed(QUESTIONS)], [CHOICES[place] for place in order]
    )
    np.testing.assert_allclose(backwards, plain[::-1][:, order], atol=2e-3)
    # Rows without anything in common are padded and have no prefix at all.
    mixed = [(Message(role="system", content=f"{text} {SYSTEM}"), messages(text)[1]) for text in ("Yes.", "Oh no!")]
    found = TransformersEngine(engine.model, engine.tokenizer, engine.info).loglikelihood(mixed, CHOICES[:3])
    expected = [[one_by_one(engine, question, choice) for choice in CHOICES[:3]] for question in mixed]
    np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize("way", ["eager", "window", "unmaskable"])
def test_other_kinds_of_attention_give_the_same(
    engine: TransformersEngine, plain: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "eager":
        monkeypatch.setattr(engine.model.config, "_attn_implementation", "eager")
    elif way == "window":
        monkeypatch.setattr(engine.model.config, "sliding_window", 8, raising=False)
    else:
        monkeypatch.setattr(engine.model.config, "layer_types", ["linear_attention"], raising=False)
    sizes = []
    score = ChoiceScorer._score

    def counted(self: ChoiceScorer, prefix: Any, suffixes: Any, choices: list[list[int]]) -> Any:
        sizes.append(len(choices))
        return score(self, prefix, suffixes, choices)

    monkeypatch.setattr(ChoiceScorer, "_score", counted)
    found = engine.loglikelihood([messages(text) for text in QUESTIONS], CHOICES)
    assert sizes == ([len(CHOICES)] if way == "eager" else [1] * len(CHOICES))
    np.testing.assert_allclose(found, plain, atol=2e-3)


@pytest.mark.model
@pytest.mark.slow
def test_the_answer_is_the_most_probable_choice(engine: TransformersEngine, plain: np.ndarray[Any, Any]) -> None:
    generation = Generation(choices=CHOICES, max_new_tokens=1, stop=("r",))
    for row, answer in enumerate(
        ask(engine, [Request(messages(text), generation, {"type": "integer"}) for text in QUESTIONS])
    ):
        best = int(plain[row].argmax())
        assert (answer.text, answer.finish_reason) == (CHOICES[best], "stop")
        assert answer.logprob == pytest.approx(plain[row, best], abs=2e-3)
        assert answer.tokens_out == len(engine.tokenizer.encode(CHOICES[best]))
        assert answer.tokens_in == engine.count_tokens(messages(QUESTIONS[row]))
        assert answer.ttft_s == answer.latency_s > 0


@pytest.mark.model
@pytest.mark.slow
def test_a_generated_answer_has_the_log_probability_of_the_same_choice(engine: TransformersEngine) -> None:
    question = messages("What is the capital of France?", "Answer with one word.")
    [generated] = ask(engine, [Request(question, Generation(max_new_tokens=12))])
    assert generated.finish_reason == "stop"
    assert generated.text
    assert engine.loglikelihood([question], [generated.text])[0, 0] == pytest.approx(generated.logprob, abs=2e-3)


@pytest.mark.model
@pytest.mark.slow
def test_out_of_memory_halves_the_batch(
    engine: TransformersEngine, plain: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    score, sizes = ChoiceScorer.score, []

    def small(self: ChoiceScorer, prefix: Any, suffixes: list[list[int]], *, most: int = 1) -> Any:
        sizes.append(len(suffixes))
        if len(suffixes) > most:
            raise torch.OutOfMemoryError("no room")
        return score(self, prefix, suffixes)

    monkeypatch.setattr(ChoiceScorer, "score", small)
    found = engine.loglikelihood([messages(text) for text in QUESTIONS], CHOICES)
    np.testing.assert_allclose(found, plain, atol=2e-3)
    assert sizes == [4, 2, 1, 1, 1, 1]
    monkeypatch.setattr(ChoiceScorer, "score", lambda self, prefix, rows: small(self, prefix, rows, most=0))
    with pytest.raises(OutOfMemoryError, match="not enough memory for one row"):
        ask(engine, [Request(messages(QUESTIONS[0]), Generation(choices=CHOICES))])


@pytest.mark.model
@pytest.mark.slow
def test_a_question_that_does_not_fit(engine: TransformersEngine) -> None:
    generation = Generation(choices=CHOICES, max_new_tokens=9000)
    long, short = ask(engine, [Request(messages(text), generation) for text in ("word " * 9000, "the hub crashes")])
    assert (long.error_kind, long.text) == ("too_long", None)
    assert short.text in CHOICES
    with pytest.raises(ModelError, match="question 1: "):
        engine.loglikelihood([messages("short"), messages("word " * 9000)], CHOICES)


@pytest.mark.model
@pytest.mark.slow
def test_a_call_that_makes_no_sense_is_refused(engine: TransformersEngine) -> None:
    for choices in ([], ["a", "a"], ["a", ""]):
        with pytest.raises(UsageError, match="distinct"):
            engine.loglikelihood([messages("a")], choices)
    assert engine.loglikelihood([], CHOICES).shape == (0, len(CHOICES))


@pytest.mark.model
@pytest.mark.slow
def test_a_quantized_model_chooses_too() -> None:
    quantized = TransformersEngine.load("smollm2-135m", quantization="int8", device="cpu")
    answers = ask(quantized, [Request(messages(text), Generation(choices=CHOICES)) for text in QUESTIONS[:2]])
    assert all(answer.text in CHOICES for answer in answers)
    assert all(answer.logprob is not None and math.isfinite(answer.logprob) for answer in answers)
    quantized.close()
    with pytest.raises(ModelError, match="closed"):
        quantized.loglikelihood([messages("a")], CHOICES)
