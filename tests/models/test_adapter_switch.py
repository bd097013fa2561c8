"""Several adapters on one loaded model: each answers as it would alone, and the base as if there were none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models.tiny import make_adapter, save_tiny_model
from workbench.errors import IntegrityError, ModelError, NotFoundError, UsageError
from workbench.files import digest_file
from workbench.models import adapter_switch
from workbench.models.adapters import MANIFEST, AdapterFolder, AdapterManifest
from workbench.models.engine import Completion, Generation, Message, Quantization, Request
from workbench.models.peft_files import CONFIG, WEIGHTS
from workbench.models.transformers_engine import TransformersEngine
from workbench.workspace import Layout

SYSTEM = "You sort messages that customers send to a shop."
QUESTIONS = ["where is my parcel?", "the hub crashes", "I was charged twice", "hi"]
SCHEMA = {
    "type": "object",
    "properties": {"intent": {"enum": ["billing", "bug", "shipping"]}},
    "required": ["intent"],
    "additionalProperties": False,
}
CHOICES = ("refund", "bug", "shipping", "setup")


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layout]:
    folder = tmp_path_factory.mktemp("workspace")
    (folder / "workbench.toml").write_text('name = "test"\n')
    found = Layout.find(folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("workbench.workspace._opened", found)
        yield found


@pytest.fixture(scope="module")
def base(layout: Layout) -> Path:
    return save_tiny_model(layout.root / "tiny")


@pytest.fixture(scope="module")
def adapters(layout: Layout, base: Path) -> list[str]:
    """One that adapts every linear layer, one of another rank and fewer modules, one like the first."""
    made = [
        make_adapter(layout, base, "one", seed=1),
        make_adapter(layout, base, "two", seed=2, r=8, target_modules=["q_proj", "v_proj"], lora_dropout=0.5),
        make_adapter(layout, base, "three", seed=3),
    ]
    return [adapter.digest for adapter in made]


def load(base: Path, quantization: Quantization = "none") -> TransformersEngine:
    return TransformersEngine.load(str(base), device="cpu", quantization=quantization)


def messages(text: str) -> tuple[Message, ...]:
    return (Message(role="system", content=SYSTEM), Message(role="user", content=text))


def questions(
    adapter: str | None, generation: Generation | None = None, schema: dict[str, Any] | None = None
) -> list[Request]:
    generation = generation or Generation(max_new_tokens=8)
    return [Request(messages(text), generation, schema, text, adapter) for text in QUESTIONS]


def ask(engine: TransformersEngine, requests: list[Request]) -> list[Completion]:
    found = dict(engine.generate(requests))
    return [found[index] for index in range(len(requests))]


def said(engine: TransformersEngine, requests: list[Request]) -> list[str | None]:
    return [completion.text for completion in ask(engine, requests)]


@pytest.mark.parametrize(
    ("generation", "schema"),
    [
        (Generation(max_new_tokens=8), None),
        (Generation(max_new_tokens=8, temperature=1.0, seed=3), None),
        (Generation(max_new_tokens=30), SCHEMA),
        (Generation(choices=CHOICES), None),
    ],
    ids=["greedy", "sampled", "constrained", "choices"],
)
def test_adapters_switched_by_request_answer_as_in_an_engine_of_their_own(
    base: Path, adapters: list[str], generation: Generation, schema: dict[str, Any] | None
) -> None:
    alone = {each: ask(load(base), questions(each, generation, schema)) for each in (None, *adapters)}
    assert len({round(answers[0].logprob or 0, 1) for answers in alone.values()}) == len(alone)
    engine = load(base)
    for _ in range(2):
        mixed = [request for each in alone for request in questions(each, generation, schema)]
        # Questions of all adapters alternate, so that none is asked in a block of its own.
        order = sorted(range(len(mixed)), key=lambda place: place % len(QUESTIONS))
        answers = dict(zip(order, ask(engine, [mixed[place] for place in order]), strict=True))
        for place, expected in enumerate(answer for each in alone for answer in alone[each]):
            assert answers[place].text == expected.text
            assert answers[place].logprob == pytest.approx(expected.logprob, abs=1e-3)


def test_log_probabilities_are_those_of_the_adapter(base: Path, adapters: list[str]) -> None:
    engine = load(base)
    rows = [messages(text) for text in QUESTIONS]
    before = engine.loglikelihood(rows, CHOICES)
    found = engine.loglikelihood(rows, CHOICES, adapter=adapters[0])
    answers = ask(engine, questions(adapters[0], Generation(choices=CHOICES)))
    assert [answer.logprob for answer in answers] == pytest.approx(found.max(axis=1))
    assert not np.allclose(found, before)
    np.testing.assert_array_equal(engine.loglikelihood(rows, CHOICES), before)


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["none", "int8", "nf4"])
def test_the_base_is_the_same_to_the_last_bit_after_adapters_were_attached(
    base: Path, adapters: list[str], quantization: Quantization
) -> None:
    import torch

    engine = load(base, quantization)
    ids = torch.arange(3, 60)[None]

    def logits() -> torch.Tensor:
        with torch.inference_mode():
            found: torch.Tensor = engine.model(input_ids=ids).logits.clone()
        return found

    before = logits()
    first = said(engine, questions(None))
    adapted = said(engine, questions(adapters[0]))
    ask(engine, questions(adapters[1]))
    assert adapted != first
    assert torch.equal(logits(), before)
    assert said(engine, questions(None)) == first
    assert said(engine, questions(adapters[0])) == adapted
    weights = [(p.dtype, p.device) for name, p in engine.model.named_parameters() if "lora" in name]
    assert set(weights) == {(torch.float32, torch.device("cpu"))}


def test_what_one_adapter_computed_of_a_prefix_is_not_given_to_another(base: Path, adapters: list[str]) -> None:
    engine = load(base)
    for _ in range(2):
        for adapter in (None, adapters[0]):
            ask(engine, questions(adapter))
    stats = engine.prefixes.stats
    # Each once: the prefix of the base and that of the adapter, of the same tokens.
    assert (stats.entries, stats.misses, stats.hits) == (2, 2, 2)
    bare = TransformersEngine(engine.model, engine.tokenizer, engine.info, prefix_bytes=0)
    bare.adapters = engine.adapters
    assert said(bare, questions(adapters[0])) == said(engine, questions(adapters[0]))


def test_the_adapter_used_longest_ago_makes_room(base: Path, adapters: list[str]) -> None:
    engine = load(base)
    expected = {each: said(engine, questions(each)) for each in (None, *adapters)}
    assert engine.adapters.attached == tuple(adapters)
    small = load(base)
    small.adapters._most = 2
    for each in (adapters[0], adapters[1], adapters[0], adapters[2], None, adapters[1]):
        assert said(small, questions(each)) == expected[each]
    assert small.adapters.attached == (adapters[2], adapters[1])
    assert {name.split(".")[-2] for name, _ in small.model.named_parameters() if "lora_A" in name} == {
        digest.removeprefix("sha256:") for digest in small.adapters.attached
    }


def test_an_adapter_added_to_the_weights_answers_as_one_computed_apart(
    base: Path, adapters: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    summed, ids = load(base), torch.arange(3, 60)[None]
    monkeypatch.setattr(adapter_switch, "SUM_BYTES", 0)
    apart = load(base)
    for each in adapters:
        expected = ask(apart, questions(each))
        monkeypatch.setattr(adapter_switch, "SUM_BYTES", 512 << 20)
        found = ask(summed, questions(each))
        monkeypatch.setattr(adapter_switch, "SUM_BYTES", 0)
        assert [answer.text for answer in found] == [answer.text for answer in expected]
        assert [answer.logprob for answer in found] == pytest.approx([answer.logprob for answer in expected], abs=1e-3)
    assert list(summed.adapters._sums) == [digest.removeprefix("sha256:") for digest in adapters]
    assert not apart.adapters._sums
    with torch.inference_mode():
        assert torch.equal(summed.model(input_ids=ids).logits, apart.model(input_ids=ids).logits)


def test_sums_are_kept_for_as_many_adapters_as_there_is_room(
    base: Path, adapters: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(base)
    expected = [said(engine, questions(each)) for each in adapters]
    sizes = [sum(added.nbytes for _, _, added in sums) for sums in engine.adapters._sums.values()]
    monkeypatch.setattr(adapter_switch, "SUMS_BYTES", sum(sizes[-2:]))
    small = load(base)
    for _ in range(2):
        assert [said(small, questions(each)) for each in adapters] == expected
        assert list(small.adapters._sums) == [digest.removeprefix("sha256:") for digest in adapters[-2:]]


def test_an_answer_that_nobody_waits_for_leaves_the_base_as_it_was(base: Path, adapters: list[str]) -> None:
    engine = load(base)
    engine.max_batch = 1
    expected = said(engine, questions(None))
    answers = engine.generate(questions(adapters[0]))
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert said(engine, questions(None)) == expected


def test_an_adapter_of_another_base_is_refused(layout: Layout, base: Path) -> None:
    other = make_adapter(layout, base, "foreign", base_digest="sha256:" + "9" * 64)
    engine = load(base)
    told = rf"adapter foreign \w+ was trained on tiny \(999999999999\), and this is tiny \({engine.info.digest[7:19]}\)"
    with pytest.raises(ModelError, match=told):
        engine.check_adapter(other.digest)
    with pytest.raises(ModelError, match=told):
        ask(engine, questions(other.digest))


def test_an_adapter_that_changes_nothing_is_refused(layout: Layout, base: Path, adapters: list[str]) -> None:
    """As peft begins it: its second matrices are zero."""
    fresh = make_adapter(layout, base, "fresh", scale=0)
    engine = load(base)
    expected = said(engine, questions(None))
    for _ in range(2):
        with pytest.raises(ModelError, match="changes nothing: tiny answers the same"):
            ask(engine, questions(fresh.digest))
    # Nothing of it stays.
    assert engine.adapters.attached == ()
    assert said(engine, questions(None)) == expected
    assert said(engine, questions(adapters[0])) == said(load(base), questions(adapters[0]))


def test_an_adapter_of_infinities_is_refused(layout: Layout, base: Path) -> None:
    broken = make_adapter(layout, base, "broken", scale=float("inf"))
    with pytest.raises(ModelError, match="computes no numbers"):
        ask(load(base), questions(broken.digest))


def test_a_changed_byte_is_refused_when_it_is_loaded(layout: Layout, base: Path) -> None:
    adapter = make_adapter(layout, base, "damaged", seed=9)
    path = adapter.path / WEIGHTS
    whole = path.read_bytes()
    path.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    engine = load(base)
    with pytest.raises(IntegrityError, match=WEIGHTS):
        ask(engine, questions(adapter.digest))
    path.write_bytes(whole)
    assert ask(engine, questions(adapter.digest))


def test_an_adapter_that_is_not_here_says_where_to_look(base: Path) -> None:
    engine, missing = load(base), "sha256:" + "0" * 64
    for call in (lambda: engine.check_adapter(missing), lambda: ask(engine, questions(missing))):
        with pytest.raises(NotFoundError, match="workbench finetune ls"):
            call()


def test_an_engine_knows_adapters_by_digest_only(base: Path, adapters: list[str]) -> None:
    """A name may mean another one tomorrow, while what was computed and kept is that of one adapter."""
    engine = load(base)
    for name in ("one", adapters[0][:20], ""):
        with pytest.raises(UsageError, match="is not the digest of an adapter"):
            ask(engine, questions(name))


def _publish_changed(
    adapter: AdapterFolder, config: dict[str, Any] | None = None, drop: str = "", **manifest: Any
) -> AdapterFolder:
    """The adapter with other contents under manifests that agree with them, as only a faulty trainer would write it."""
    import safetensors.torch

    files = adapter.files()
    weights = safetensors.torch.load(files[WEIGHTS])
    kept = {name: tensor for name, tensor in weights.items() if not drop or drop not in name}
    folder = adapter.path.parent / "staged"
    folder.mkdir()
    safetensors.torch.save_file(kept, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(json.loads(files[CONFIG]) | (config or {})))
    digests = {name: digest_file(folder / name) for name in (CONFIG, WEIGHTS)}
    changed = AdapterManifest(**{**adapter.manifest.model_dump(), "files": digests, **manifest})
    (folder / MANIFEST).write_text(changed.model_dump_json())
    return AdapterFolder(folder.rename(adapter.path.parent / changed.digest.removeprefix("sha256:")), changed)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"modules": 13}, IntegrityError, "it adapts 14 modules, and its manifest says 13"),
        ({"drop": "layers.1.mlp.up_proj.lora_B"}, IntegrityError, r"layers\.1\.mlp\.up_proj: lora_B is missing"),
        ({"config": {"r": 8}}, IntegrityError, "lora_A has the shape"),
        ({"config": {"target_modules": ["q_proj"]}, "modules": 2}, IntegrityError, "belongs nowhere"),
        ({"config": {"target_modules": ["c_attn"]}}, ModelError, "does not fit tiny: .*c_attn"),
        ({"config": {"bias": "all"}}, ModelError, "bias is 'all'"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    layout: Layout, base: Path, adapters: list[str], change: dict[str, Any], error: type[Exception], message: str
) -> None:
    wrong = _publish_changed(make_adapter(layout, base, "one", seed=1), **change)
    engine = load(base)
    expected = said(engine, questions(None))
    with pytest.raises(error, match=message):
        ask(engine, questions(wrong.digest))
    assert said(engine, questions(None)) == expected
    assert said(engine, questions(adapters[2])) == said(load(base), questions(adapters[2]))


@pytest.mark.model
@pytest.mark.slow
def test_a_real_model_holds_two_adapters(layout: Layout) -> None:
    two = [make_adapter(layout, "smollm2-135m", f"real-{seed}", seed=seed, scale=0.02).digest for seed in (1, 2)]
    engine = TransformersEngine.load("smollm2-135m", device="cpu")
    few = Generation(max_new_tokens=3)
    asked = {each: questions(each, few)[:2] for each in (None, *two)}
    answers = {each: ask(engine, asked[each]) for each in asked}
    assert len({round(each[0].logprob or 0, 2) for each in answers.values()}) == 3
    order = (two[1], None, two[0])
    mixed = said(engine, [request for each in order for request in asked[each]])
    assert mixed == [answer.text for each in order for answer in answers[each]]
