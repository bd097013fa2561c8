"""Pipelines: one object, one digest, the same everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.instant import InstantEngine
from workbench.errors import ModelError, PipelineError
from workbench.models.engine import Generation
from workbench.models.response_cache import CachedEngine, ResponseCache
from workbench.pipeline.pipeline import Pipeline
from workbench.pipeline.prompt import Prompt
from workbench.pipeline.steps import Labels, Python, Strip

BASE = Pipeline(model="instant", prompt=Prompt.from_text("{{ text }}"))
ADAPTER = "sha256:" + "4" * 64
STEP = Python(name="shout", source="def postprocess(value):\n    return value.upper()\n")


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"prompt": Prompt.from_text("Please: {{ text }}")},
        {"generation": Generation(max_new_tokens=3)},
        {"response_schema": {"type": "object"}},
        {"postprocess": (Strip(),)},
        {"model_digest": "sha256:" + "0" * 64},
        {"adapter": "sha256:" + "0" * 64},
    ],
)
def test_whatever_decides_an_answer_changes_the_digest(change: dict[str, Any]) -> None:
    assert BASE.with_(**change).digest != BASE.digest
    assert BASE.with_(**change) == BASE.with_(**change)


def test_the_digest_is_known() -> None:
    assert BASE.digest == Pipeline.model_validate_json(BASE.model_dump_json()).digest
    with pytest.raises(PipelineError, match="has no temperature"):
        BASE.with_(temperature=1)


def test_a_pipeline_without_an_adapter_has_the_digest_that_it_had_before_there_were_any() -> None:
    assert BASE.digest == "sha256:c0e389098297a70daf66ec01c6fc4ea0aaa385d2877343f52ec919c507496edc"
    adapted = BASE.with_(adapter=ADAPTER)
    assert Pipeline.join(*adapted.split()) == adapted
    assert adapted.with_(adapter=None).digest == BASE.digest
    assert (BASE.request({"text": "a"}).adapter, adapted.request({"text": "a"}).adapter) == (None, ADAPTER)


@pytest.mark.parametrize("adapter", ["triage", "sha256:123456", ""])
def test_an_adapter_is_named_by_its_whole_digest(adapter: str) -> None:
    with pytest.raises(PipelineError, match="is not the digest of an adapter"):
        BASE.with_(adapter=adapter)


def test_an_engine_that_takes_no_adapters_is_refused(instant: InstantEngine, tmp_path: Path) -> None:
    adapted = BASE.with_(adapter=ADAPTER)
    cached = CachedEngine(instant, ResponseCache(tmp_path / "responses.sqlite"))
    for engine in (instant, cached):
        with pytest.raises(ModelError, match=r"instant takes no adapter \(444444444444\)"):
            list(adapted.answers(engine, [{"text": "a"}]))
    assert instant.asked == 0


def test_taken_apart_and_put_together_it_is_the_same() -> None:
    pipeline = BASE.with_(postprocess=(Strip(), STEP, Labels(labels=("A", "B"))), response_schema={"type": "string"})
    skeleton, parts = pipeline.split()
    assert set(parts) == {"prompt.json", "postprocess/shout.py"}
    assert "source" not in json.dumps(skeleton)
    assert Pipeline.join(skeleton, parts).digest == pipeline.digest


@pytest.mark.parametrize("part", ["prompt.json", "postprocess/shout.py"])
def test_a_part_that_was_changed_or_lost_is_refused(part: str) -> None:
    skeleton, parts = BASE.with_(postprocess=(STEP,)).split()
    changed = parts[part].replace(b"text", b"test").replace(b"upper", b"lower")
    with pytest.raises(PipelineError, match="not the"):
        Pipeline.join(skeleton, {**parts, part: changed})
    with pytest.raises(PipelineError, match="malformed"):
        Pipeline.join(skeleton, {name: data for name, data in parts.items() if name != part})


def test_another_model_than_the_one_it_was_made_with_is_refused(instant: InstantEngine) -> None:
    made = BASE.with_(model_digest=instant.info.digest)
    assert made(text="to be") == "be"
    with pytest.raises(PipelineError, match="workbench model pull"):
        BASE.with_(model_digest="sha256:" + "0" * 64)(text="to be")


def test_one_bad_question_does_not_spoil_the_others(instant: InstantEngine) -> None:
    found = dict(BASE.answers(instant, [{"text": "a b"}, {"body": "c"}, {"text": "d"}]))
    assert [found[index].value for index in range(3)] == ["b", None, "d"]
    assert found[1].error_kind == "prompt"


def test_an_answer_that_is_rejected_says_why(instant: InstantEngine) -> None:
    strict = BASE.with_(postprocess=(Labels(labels=("yes", "no")),))
    answer = strict.answer({"text": "perhaps"})
    assert (answer.error_kind, answer.completion.text) == ("invalid_output", "perhaps")
    with pytest.raises(PipelineError, match="is not one of yes, no"):
        strict(text="perhaps")


def test_two_files_of_one_name_are_refused() -> None:
    with pytest.raises(PipelineError, match="same name"):
        BASE.with_(postprocess=(STEP, STEP))
