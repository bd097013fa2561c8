"""An adapter on public data: on rows that took no part in training or choosing, it beats the base with the best prompt."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.retrieval.real_data import real_data
from workbench import api
from workbench.curation.items import normalise
from workbench.data.store import import_dataset
from workbench.experiments import scorers
from workbench.experiments.comparison import Comparison
from workbench.finetune.recipe import FinetuneRecipe, TrainSettings
from workbench.finetune.train import train
from workbench.models.engine import Generation
from workbench.models.store import STARTER
from workbench.pipeline.pipeline import Pipeline
from workbench.pipeline.prompt import Prompt
from workbench.pipeline.steps import Strip

pytestmark = [pytest.mark.model, pytest.mark.slow]

# One of the ten fields of CLINC150; its intents lie close together.
BANKING = (
    "account_blocked",
    "balance",
    "bill_balance",
    "bill_due",
    "freeze_account",
    "interest_rate",
    "min_payment",
    "order_checks",
    "pay_bill",
    "pin_change",
    "report_fraud",
    "routing",
    "spending_history",
    "transactions",
    "transfer",
)
ANSWER = Generation(max_new_tokens=8)

# Text and label.
Pair = tuple[str, str]


def intents() -> dict[str, list[Pair]]:
    """Questions to a bank's assistant with their intents, by the split that CLINC150 has them in."""
    data = json.loads(real_data("clinc150", "data_small.json").read_text("utf-8"))
    names = {"train": "train", "dev": "val", "test": "test"}
    return {part: [(text, label) for text, label in data[name] if label in BANKING] for part, name in names.items()}


def messages() -> dict[str, list[Pair]]:
    """Short messages, each text once, in three splits."""
    found: dict[str, Pair] = {}
    for line in real_data("sms_spam", "SMSSpamCollection.tsv").read_text("utf-8").splitlines():
        label, text, *_ = line.split("\t")
        found.setdefault(normalise(text), (text.strip('" '), label))
    pairs = list(found.values())
    random.Random(0).shuffle(pairs)
    third = len(pairs) // 3
    return {"train": pairs[:third], "dev": pairs[third : 2 * third], "test": pairs[2 * third :]}


def even(pairs: Sequence[Pair], count: int, seed: int = 0) -> list[Pair]:
    """`count` of the pairs, every label as often."""
    by_label: dict[str, list[Pair]] = defaultdict(list)
    for pair in random.Random(seed).sample(pairs, len(pairs)):
        by_label[pair[1]].append(pair)
    return [pair for label in sorted(by_label) for pair in by_label[label][: count // len(by_label)]]


def make_workspace(folder: Path, splits: dict[str, list[Pair]]) -> api.Workspace:
    folder.mkdir()
    (folder / "workbench.toml").write_text("format_version = 1\n")
    workspace = api.open(folder)
    source = folder / "rows.jsonl"
    lines = [
        json.dumps({"id": f"{part}-{n}", "text": text, "label": label, "part": part}) + "\n"
        for part, pairs in splits.items()
        for n, (text, label) in enumerate(pairs)
    ]
    source.write_text("".join(lines))
    import_dataset(
        workspace.layout, source, name="rows", input=("text",), target=("label",), id="id", split_column="part"
    )
    return workspace


def tuned_against_prompted(workspace: api.Workspace, prompt: Prompt, shots: int, **settings: object) -> Comparison:
    """The test split, answered by the prompt that does best on the dev split and by an adapter trained with the bare one.

    Prompts are tried bare and with two draws of examples, each free and held to the labels that there are.
    """
    data = workspace.dataset("rows")
    labels = sorted({row.target for row in data.rows()})
    bare = Pipeline(model=STARTER, prompt=prompt, generation=ANSWER)
    free = {"bare": bare}
    for seed in (1, 2):
        examples = data.split("train").sample(shots, seed=seed, stratify=True).rows()
        free[f"shown {seed}"] = bare.with_(prompt=prompt.with_examples(examples))
    # What the constraint writes is the label as JSON; the scorer looks past the quotes, and past case and full stops.
    held: dict[str, Any] = {"response_schema": {"enum": labels}, "postprocess": (Strip(),)}
    prompted = {**free, **{f"{name}, held": pipeline.with_(**held) for name, pipeline in free.items()}}
    same = [scorers.normalized(form="squad")]
    tried = workspace.experiment("prompts", dataset=data.split("dev"), variants=prompted, scorers=same)
    means = tried.run(show_progress=False).scores().group_by("variant").agg(pl.col("value").mean())
    best = means.sort("value", "variant")["variant"][-1]
    recipe = FinetuneRecipe(
        name="tuned",
        dataset="rows",
        model=STARTER,
        prompt=prompt,
        settings=TrainSettings.model_validate({"quantization": "none", "rank": 16, "alpha": 32, **settings}),
    )
    adapter = train(workspace.layout, recipe, device="cpu", show_progress=False).adapter
    variants = {"prompted": prompted[best], "tuned": bare.with_(adapter=adapter.digest)}
    found = workspace.experiment("tuned", dataset=data.split("test"), variants=variants, scorers=same)
    comparison = found.run(show_progress=False).compare()
    print(means, best, comparison, sep="\n")
    return comparison


SPAM = """## system
You sort text messages. Answer with one word only.
spam: advertising, prizes, paid numbers, anything sent to many people to sell or deceive.
ham: a message from one person to another.
## user
{{ text }}"""

BANK = f"""## system
You sort what customers ask a bank's assistant. Answer with the name of the intent only. The intents are:
{", ".join(BANKING)}.
## user
{{{{ text }}}}"""


def test_an_adapter_tells_the_intents_of_clinc150_better_than_any_prompt(tmp_path: Path) -> None:
    splits = intents()
    rows = {"train": even(splits["train"], 120), "dev": even(splits["dev"], 30), "test": even(splits["test"], 90)}
    comparison = tuned_against_prompted(
        make_workspace(tmp_path / "bank", rows), Prompt.from_text(BANK), 15, learning_rate=1e-3, epochs=2, eval_every=15
    )
    assert_better(comparison, 90)


def assert_better(comparison: Comparison, rows: int) -> None:
    found = comparison.row("tuned")
    assert (found.n, found.errors) == (rows, (0, 0))
    assert found.low is not None
    assert found.low > 0
    assert comparison.decision("tuned").outcome == "better"


def test_an_adapter_tells_spam_from_ham_better_than_any_prompt(tmp_path: Path) -> None:
    splits = messages()
    # Settings were tried on the first of the test rows; these are others.
    tried = {text for text, _ in even(splits["test"], 120)}
    fresh = [pair for pair in splits["test"] if pair[0] not in tried]
    rows = {"train": even(splits["train"], 192), "dev": even(splits["dev"], 40), "test": even(fresh, 300, seed=7)}
    comparison = tuned_against_prompted(
        make_workspace(tmp_path / "spam", rows), Prompt.from_text(SPAM), 8, learning_rate=1e-3, epochs=2, eval_every=24
    )
    assert_better(comparison, 300)
