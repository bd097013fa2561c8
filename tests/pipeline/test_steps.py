"""Post-processing steps: what they accept, mend and refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workbench.errors import PipelineError, PostprocessError
from workbench.pipeline.steps import Json, Labels, Python, Regex, Schema, Strip, apply_steps


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ('Sure! ```json\n{"a": [1, 2]}\n``` Anything else?', {"a": [1, 2]}),
        ("{'a': 1,}", {"a": 1}),
        ('{"a": 1, "b": "cut o', {"a": 1, "b": "cut o"}),
        ("the list is [1, 2, 3].", [1, 2, 3]),
    ],
)
def test_json_is_found_and_repaired(text: str, value: Any) -> None:
    assert Json().apply(text) == value


def test_json_that_is_not_there_is_refused() -> None:
    with pytest.raises(PostprocessError, match="no JSON"):
        Json().apply("I would say billing.")
    with pytest.raises(PostprocessError, match="not JSON"):
        Json(repair=False).apply("{'a': 1}")


def test_a_schema_names_the_place_that_is_wrong() -> None:
    step = Schema(json_schema={"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
    assert step.apply({"n": 1}) == {"n": 1}
    with pytest.raises(PostprocessError, match="n: 'x' is not of type 'integer'"):
        step.apply({"n": "x"})
    with pytest.raises(PipelineError, match="not a JSON Schema"):
        Schema(json_schema={"type": "nonsense"})


@pytest.mark.parametrize(
    ("text", "label"), [("HOW TO", "how_to"), ("it is billing.", "billing"), ("invoices", "billing"), ("none", "other")]
)
def test_labels_are_mapped(text: str, label: str) -> None:
    step = Labels(labels=("billing", "how_to", "other"), synonyms={"invoices": "billing"}, default="other")
    assert step.apply(text) == label


def test_a_label_that_fits_two_or_none_is_refused() -> None:
    step = Labels(labels=("billing", "bug"))
    for text in ("billing or bug", "weather"):
        with pytest.raises(PostprocessError, match="is not one of"):
            step.apply(text)
    assert Labels(labels=("a", "b"), field="x").apply({"x": "A", "y": 1}) == {"x": "a", "y": 1}
    with pytest.raises(PipelineError, match="not one of the labels"):
        Labels(labels=("a",), default="c")


def test_steps_run_in_order() -> None:
    steps = (Regex(pattern=r"Answer:(.*)", group=1), Strip(characters=" ."), Labels(labels=("yes", "no")))
    assert apply_steps(steps, "Hm. Answer: YES.") == "yes"
    with pytest.raises(PostprocessError, match="regex: no match"):
        apply_steps(steps, "yes")
    with pytest.raises(PipelineError, match="does not compile"):
        Regex(pattern="(")


def test_a_python_file_is_kept_by_its_digest(tmp_path: Path) -> None:
    file = tmp_path / "double.py"
    file.write_text("def postprocess(value):\n    return value * 2\n")
    step = Python.from_file(file)
    assert step.apply("ab") == "abab"
    with pytest.raises(PipelineError, match=r"double\.py is not the file with digest"):
        Python(name="double", source="def postprocess(value): return 1", digest=step.digest)


def test_a_python_file_that_fails_is_a_wrong_answer() -> None:
    with pytest.raises(PostprocessError, match=r"python bad\.py: ZeroDivisionError"):
        Python(name="bad", source="def postprocess(value): return 1 / 0").apply("x")
    with pytest.raises(PipelineError, match="no function postprocess"):
        Python(name="bad", source="x = 1")
    with pytest.raises(PipelineError, match=r"bad\.py, line 1"):
        Python(name="bad", source="def")
