"""What a data set's targets make of it: the form of the answer, the post-processing and the scorers."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from workbench.data.dataset import Dataset
from workbench.errors import UsageError
from workbench.experiments.starting_point import MOST_LABELS, label_values, plain_prompt, starting_point
from workbench.pipeline.steps import Labels


def make(targets: dict[str, list[object]], **spec: Any) -> Dataset:
    rows = len(next(iter(targets.values()))) if targets else 3
    frame = pl.DataFrame({"text": [f"message {n}" for n in range(rows)], **targets})
    return Dataset.from_frame(frame, input=["text"], target=list(targets), splits={"all": 1.0}, **spec)


def test_one_column_of_labels_is_answered_by_one_of_them() -> None:
    pipeline, scorers = starting_point(make({"label": ["spam", "ham", "spam"]}), "any")
    assert isinstance(pipeline.postprocess[-1], Labels)
    assert pipeline.postprocess[-1].labels == ("ham", "spam")
    assert [scorer.name for scorer in scorers] == ["exact", "latency", "tokens"]
    assert "ham, spam" in pipeline.prompt.messages[0].content


def test_several_columns_are_a_json_object_limited_to_their_labels() -> None:
    dataset = make({"intent": ["pay", "ship", "pay"], "urgency": ["low", "low", "high"]})
    pipeline, scorers = starting_point(dataset, "any")
    assert pipeline.response_schema is not None
    assert pipeline.response_schema["properties"]["intent"] == {"enum": ["pay", "ship"]}
    assert [scorer.name for scorer in scorers] == ["json_fields", "intent", "urgency", "latency", "tokens"]
    free, scorers = starting_point(dataset, "any", constrain=False)
    assert not free.generation.constrain
    assert "json_schema" in [scorer.name for scorer in scorers]


def test_a_column_of_many_values_is_free_text() -> None:
    dataset = make({"answer": [f"it is {n}" for n in range(MOST_LABELS + 1)]})
    pipeline, scorers = starting_point(dataset, "any")
    assert label_values(dataset, "answer") == ()
    assert pipeline.postprocess == ()
    assert next(scorer.name for scorer in scorers) == "normalized"


def test_labels_come_from_the_train_split_where_there_is_one() -> None:
    frame = pl.DataFrame({"text": ["a", "b"], "label": ["seen", "unseen"], "part": ["train", "test"]})
    dataset = Dataset.from_frame(frame, input=["text"], target=["label"], split_column="part")
    assert label_values(dataset, "label") == ("seen",)


def test_a_plain_prompt_names_every_input() -> None:
    frame = pl.DataFrame({"title": ["t"], "body": ["b"], "label": ["x"]})
    prompt = plain_prompt(Dataset.from_frame(frame, input=["title", "body"], target=["label"]))
    assert prompt.render({"title": "T", "body": "B"})[-1].content == "title: T\nbody: B"


def test_no_target_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="names no target"):
        starting_point(make({}), "any")


def test_an_answer_with_evidence_is_text_judged_by_what_was_shown() -> None:
    evidence = [[{"document": "d", "quote": "q"}], []]
    dataset = make({"answer": ["blue", None], "evidence": evidence})  # type: ignore[dict-item]
    pipeline, scorers = starting_point(dataset, "any")
    assert pipeline.response_schema is None
    assert [scorer.name for scorer in scorers][:3] == ["token_f1", "exact_match", "evidence_recall"]
    assert "one or two sentences" in pipeline.prompt.messages[0].content
    assert label_values(dataset, "evidence") == ()


def test_a_target_that_is_an_object_has_no_labels() -> None:
    assert label_values(make({"span": [{"start": 1}, {"start": 2}]}), "span") == ()
