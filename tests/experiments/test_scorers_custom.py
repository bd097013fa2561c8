"""A scorer made of a function: what it may return, what its digest covers, and how it is found again."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from workbench.errors import NotFoundError, UsageError
from workbench.experiments import scorers
from workbench.experiments.scorers import ScoreInput, ScoreValue


def brevity(answer: ScoreInput) -> float:
    return 1 / len(str(answer.result))


def politeness(answer: ScoreInput) -> ScoreValue:
    polite = "please" in str(answer.result)
    return ScoreValue(float(polite), label="polite" if polite else "rude")


def answer(result: Any = "abcd", **more: Any) -> ScoreInput:
    return ScoreInput("r1", {}, more.pop("target", None), result, **more)


def test_a_function_is_a_scorer() -> None:
    scorer = scorers.custom(brevity)
    assert (scorer.name, scorer.kind, scorer.direction) == ("brevity", "continuous", "max")
    assert scorer.score(answer()).value == 0.25
    assert scorers.custom(politeness, kind="binary").score(answer("please!")) == ScoreValue(1.0, label="polite")
    assert scorers.custom(lambda found: found.result == "abcd", kind="binary", name="same").score(answer()).value == 1.0


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda found: None, "returned None"),
        (lambda found: float("nan"), "returned nan"),
        (lambda found: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
def test_a_row_that_the_function_cannot_judge_is_not_scored(function: Any, words: str) -> None:
    found = scorers.custom(function).score(answer())
    assert found.value is None
    assert found.explanation is not None
    assert words in found.explanation


def test_a_function_that_breaks_its_promise_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"binary scorer half returned 0\.5"):
        scorers.custom(lambda found: 0.5, kind="binary", name="half").score(answer())
    with pytest.raises(UsageError, match="returned list"):
        scorers.custom(lambda found: [1], name="many").score(answer())  # type: ignore[arg-type, return-value]


def test_it_may_need_a_target() -> None:
    scorer = scorers.custom(brevity, needs_target=True)
    assert scorer.score(answer()).value is None
    assert scorer.score(answer(target="x")).value == 0.25


def load(path: Path, name: str, source: str) -> ModuleType:
    path.joinpath(f"{name}.py").write_text(source)
    for cached in path.glob(f"__pycache__/{name}.*"):
        cached.unlink()
    sys.modules.pop(name, None)
    import importlib
    import linecache

    importlib.invalidate_caches()
    linecache.clearcache()
    return importlib.import_module(name)


def test_the_digest_follows_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    first = scorers.custom(load(tmp_path, "my_scorers", "def score(item):\n    return 1.0\n").score)
    moved = scorers.custom(load(tmp_path, "my_scorers", "X = 1\n\n\ndef score(item):\n    return 1.0\n").score)
    assert moved.digest == first.digest
    rebuilt = scorers.scorer_from_config(first.config())
    assert rebuilt.score(answer()).value == 1.0
    assert rebuilt.digest == first.digest
    changed = scorers.custom(load(tmp_path, "my_scorers", "def score(item):\n    return 0.0\n").score)
    assert changed.digest != first.digest
    with pytest.raises(NotFoundError, match="has changed since it was recorded"):
        scorers.scorer_from_config(first.config())


def test_a_file_names_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    load(tmp_path, "yaml_scorers", "def score(item):\n    return len(item.result)\n")
    scorer = scorers.scorer_from_config({"type": "custom", "function": "yaml_scorers:score", "name": "length"})
    assert scorer.name == "length"
    assert scorer.score(answer()).value == 4.0


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        ({}, UsageError, "needs function: 'module:name'"),
        ({"function": "no_such_module:score"}, NotFoundError, "cannot be imported"),
        ({"function": "math:no_such_name"}, NotFoundError, "cannot be imported"),
        ({"function": "string:capwords", "colour": "red"}, UsageError, "no setting colour"),
    ],
)
def test_a_config_that_leads_nowhere(config: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        scorers.scorer_from_config({"type": "custom", **config})


def test_a_function_without_source_needs_a_version() -> None:
    namespace: dict[str, Any] = {}
    exec("def hidden(item): return 1.0", namespace)
    with pytest.raises(UsageError, match="version='1'"):
        scorers.custom(namespace["hidden"])
    one = scorers.custom(namespace["hidden"], version="1")
    two = scorers.custom(namespace["hidden"], version="2")
    assert one.score(answer()).value == 1.0
    assert one.digest != two.digest


def test_only_functions_are_taken() -> None:
    with pytest.raises(UsageError, match="takes a function"):
        scorers.custom(3)  # type: ignore[arg-type]
