"""The gate: what it lets pass, what it refuses, and that whatever it cannot see is refused."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from tests.registry.conftest import CLEAR, UNCLEAR, MakeRun
from workbench.errors import GateRefused, NotFoundError
from workbench.experiments.run import Run
from workbench.files import digest_json
from workbench.registry.gate import Check, GateResult, evaluate, judge
from workbench.registry.policy import DEFAULT_POLICY, Policy


def _policy(**parts: Any) -> Policy:
    return Policy.model_validate(parts)


def _failed(result: GateResult) -> list[str]:
    return [check.name for check in result.checks if not check.passed]


def _guard(run: Run, **guard: Any) -> Check:
    """The one guard's check, with no decision asked for."""
    policy = _policy(decision={"minimum": "none", "min_rows": 1}, guard=[guard])
    (check,) = [c for c in judge(run, policy, "few").result.checks if c.name.split()[0] == guard["metric"]]
    return check


def test_a_clear_winner_passes_the_default_policy(make_run: MakeRun) -> None:
    verdict = judge(make_run(), DEFAULT_POLICY, "few")
    assert verdict.result.passed
    verdict.result.raise_if_refused()
    assert [check.name for check in verdict.result.checks] == [
        "complete",
        "calls",
        "decision",
        "rows",
        "error_rate",
        "invalid_output_rate",
        "latency_s p95",
        "dataset_digest",
        "model_digest",
        "pipeline_digest",
    ]
    assert verdict.decision is not None
    assert verdict.decision.outcome == "better"
    assert "lets few pass" in verdict.result._repr_html_()


def test_an_inconclusive_comparison_is_refused_with_its_sentence(make_run: MakeRun) -> None:
    verdict = judge(make_run(UNCLEAR), DEFAULT_POLICY, "few")
    assert _failed(verdict.result) == ["decision"]
    assert verdict.decision is not None
    with pytest.raises(GateRefused) as caught:
        verdict.result.raise_if_refused()
    assert caught.value.exit_code == 100
    assert caught.value.reasons == [f"decision: {verdict.decision.sentence} The policy asks for better."]


def test_the_loser_is_refused(make_run: MakeRun) -> None:
    assert _failed(judge(make_run(), DEFAULT_POLICY, "base", "few").result) == ["decision"]


@pytest.mark.parametrize(
    ("minimum", "margin", "answers", "passes"),
    [
        ("better", None, CLEAR, True),
        ("better", None, UNCLEAR, False),
        ("equivalent", 0.3, UNCLEAR, True),
        ("equivalent", 0.001, UNCLEAR, False),
        ("equivalent", 0.001, CLEAR, True),
        ("non_inferior", 0.3, UNCLEAR, True),
        ("non_inferior", 0.001, UNCLEAR, False),
        ("none", None, UNCLEAR, True),
    ],
)
def test_minimum_decisions(
    make_run: MakeRun, minimum: str, margin: float | None, answers: dict[str, list[bool]], passes: bool
) -> None:
    policy = _policy(decision={"minimum": minimum, **({"margin": margin} if margin else {})})
    assert judge(make_run(answers), policy, "few").result.passed is passes


def test_too_few_rows_are_refused(make_run: MakeRun) -> None:
    run = make_run({"base": [False] * 30, "few": [True] * 30})
    result = judge(run, DEFAULT_POLICY, "few").result
    assert result.reasons == ["rows: 30 paired rows, at least 50 asked for"]


def test_a_run_that_did_not_end_is_refused(make_run: MakeRun) -> None:
    assert "complete" in _failed(judge(make_run(changes={"finished_at": None}), DEFAULT_POLICY, "few").result)


def test_missing_rows_are_refused(make_run: MakeRun) -> None:
    result = judge(make_run(changes={"rows": 61}), DEFAULT_POLICY, "few").result
    assert _failed(result) == ["complete", "calls"]
    assert "calls: 60 calls on record for few, 61 expected" in result.reasons


def test_rows_answered_by_another_pipeline_are_refused(make_run: MakeRun) -> None:
    def edit(call: dict[str, Any]) -> dict[str, Any]:
        return {**call, "pipeline_digest": digest_json("edited")} if call["row_id"] == "row-003" else call

    result = judge(make_run(edit=edit), DEFAULT_POLICY, "few").result
    assert result.reasons == ["calls: 1 calls of few have another pipeline_digest than the run"]


def test_accidents_and_rejected_answers_are_bounded_apart(make_run: MakeRun) -> None:
    def edit(call: dict[str, Any]) -> dict[str, Any]:
        kinds = {"row-001": "engine", "row-002": "timeout", "row-003": "invalid_output"}
        return {**call, "error_kind": kinds.get(call["row_id"])} if call["variant"] == "few" else call

    run = make_run(edit=edit)
    assert str(_guard(run, metric="error_rate", max=0.01)) == "error_rate: 0.03333, at most 0.01 allowed"
    assert (
        str(_guard(run, metric="invalid_output_rate", max=0.02)) == "invalid_output_rate: 0.01667, at most 0.02 allowed"
    )
    assert _failed(judge(run, DEFAULT_POLICY, "few").result) == ["error_rate"]


def test_a_variant_that_is_too_slow_is_refused(make_run: MakeRun) -> None:
    def edit(call: dict[str, Any]) -> dict[str, Any]:
        return {**call, "latency_s": 3.0 if call["variant"] == "few" else 1.0}

    run = make_run(edit=edit)
    assert _guard(run, metric="latency_s", statistic="p95", max_ratio=3.0).passed
    check = _guard(run, metric="latency_s", statistic="p95", max_ratio=2.9)
    assert not check.passed
    assert check.detail == "3, at most 2.9 × 1 of base allowed"


@pytest.mark.parametrize(
    ("statistic", "expected"), [("mean", "50.5"), ("p50", "50.5"), ("p95", "95.05"), ("max", "100")]
)
def test_statistics_of_the_numbers_one_to_a_hundred(make_run: MakeRun, statistic: str, expected: str) -> None:
    def edit(call: dict[str, Any]) -> dict[str, Any]:
        return {**call, "tokens_out": int(call["row_id"][-3:]) + 1}

    run = make_run({"few": [True] * 100}, edit=edit)
    check = _guard(run, metric="tokens_out", statistic=statistic, min=1)
    assert check.detail == f"{expected}, at least 1 asked for"


def test_answers_from_a_cache_say_nothing_about_speed(make_run: MakeRun) -> None:
    def edit(call: dict[str, Any]) -> dict[str, Any]:
        return {**call, "cached": True, "latency_s": 0.0}

    check = _guard(make_run(edit=edit), metric="latency_s", max=1.0)
    assert (check.passed, check.detail) == (False, "no values of latency_s for few")


def test_a_scorer_can_be_guarded(make_run: MakeRun) -> None:
    run = make_run()
    assert _guard(run, metric="exact", min=0.8).passed
    assert not _guard(run, metric="exact", min=0.9).passed


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"latency_s": float("nan")}, "latency_s of few is not finite in some rows"),
        ({"latency_s": float("inf")}, "latency_s of few is not finite in some rows"),
        ({"latency_s": None}, "1 answered calls of few have no latency_s"),
    ],
)
def test_a_missing_or_senseless_value_is_refused(make_run: MakeRun, change: dict[str, Any], detail: str) -> None:
    def edit(call: dict[str, Any]) -> dict[str, Any]:
        return {**call, **change} if (call["variant"], call["row_id"]) == ("few", "row-007") else call

    check = _guard(make_run(edit=edit), metric="latency_s", max=1e9)
    assert (check.passed, check.detail) == (False, detail)


def test_an_unknown_metric_is_refused(make_run: MakeRun) -> None:
    check = _guard(make_run(), metric="elegance", min=0.0)
    assert (check.passed, check.detail) == (False, "elegance is neither a metric nor a scorer of this run")


@pytest.mark.parametrize("name", ["notebook_digest", "git_commit", "environment"])
def test_required_evidence_must_be_on_record(make_run: MakeRun, name: str) -> None:
    policy = _policy(evidence={"required": [name]})
    assert judge(make_run(), policy, "few").result.passed
    empty: Any = {} if name == "environment" else None
    result = judge(make_run(run_id="run-2", changes={name: empty}), policy, "few").result
    assert result.reasons == [f"{name}: not on record"]


@pytest.mark.parametrize(("dirty", "passes"), [(False, True), (True, False), (None, False)])
def test_uncommitted_changes_can_be_ruled_out(make_run: MakeRun, dirty: bool | None, passes: bool) -> None:
    policy = _policy(evidence={"allow_dirty": False})
    assert judge(make_run(changes={"git_dirty": dirty}), policy, "few").result.passed is passes


def test_a_single_variant_passes_only_where_no_decision_is_asked_for(make_run: MakeRun) -> None:
    run = make_run({"few": [True] * 60})
    refused = judge(run, DEFAULT_POLICY, "few")
    assert _failed(refused.result) == ["decision", "latency_s p95"]
    assert "no second variant" in refused.result.reasons[0]
    assert judge(run, _policy(decision={"minimum": "none"}), "few").result.passed


def test_an_error_while_comparing_or_checking_is_a_refusal(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()

    def explode(*_: object, **__: object) -> Any:
        raise ZeroDivisionError("no statistics today")

    monkeypatch.setattr(run, "compare", explode)
    result = judge(run, DEFAULT_POLICY, "few").result
    assert result.reasons == ["decision: no statistics today; the policy asks for better"]
    monkeypatch.setattr(run, "calls", explode)
    assert "calls: could not be evaluated: no statistics today" in judge(run, DEFAULT_POLICY, "few").result.reasons


def test_a_comparison_of_another_run_is_refused(make_run: MakeRun) -> None:
    unclear = make_run(UNCLEAR, run_id="run-2")
    result = evaluate(DEFAULT_POLICY, unclear, make_run().compare(), "few", "base")
    assert result.reasons == ["decision: the comparison is of run run-1"]


def test_no_checks_at_all_is_not_a_pass() -> None:
    result = GateResult("run", "few", None, DEFAULT_POLICY, ())
    assert not result.passed
    with pytest.raises(GateRefused, match="nothing was checked"):
        result.raise_if_refused()


def test_an_unknown_variant_or_the_variant_itself_as_baseline_is_an_error(make_run: MakeRun) -> None:
    run = make_run()
    for variant, baseline in (("other", None), ("few", "other"), ("few", "few")):
        with pytest.raises(NotFoundError):
            judge(run, DEFAULT_POLICY, variant, baseline)


def test_junit_has_a_case_for_each_check(make_run: MakeRun) -> None:
    result = judge(make_run(UNCLEAR), DEFAULT_POLICY, "few").result
    suite = ElementTree.fromstring(result.to_junit())[0]
    assert (suite.get("tests"), suite.get("failures")) == (str(len(result.checks)), "1")
    assert [case.get("name") for case in suite] == [check.name for check in result.checks]
    (failure,) = suite.iter("failure")
    assert "The policy asks for better." in (failure.get("message") or "")


def test_junit_is_xml_whatever_the_names_hold() -> None:
    odd = GateResult("run", "a<b&\x00", None, DEFAULT_POLICY, (Check("\x1b[31m", False, "\ud800"),))
    assert len(ElementTree.fromstring(odd.to_junit().encode())) == 1


def test_a_run_that_stopped_when_it_was_decided_is_held_to_the_rows_it_asked(make_run: MakeRun) -> None:
    answers = {"base": [False] * 64, "few": [True] * 60 + [False] * 4}
    stopped = {"early_stopping": {"every": 32}, "rows": 200, "stopped_rows": 64}
    run = make_run(answers, changes=stopped)
    scorers = [{**scorer, "bounds": [0.0, 1.0]} for scorer in run.manifest.scorers]
    run = make_run(answers, run_id="run-2", changes={**stopped, "scorers": scorers})
    result = judge(run, _policy(decision={"min_rows": 50}), "few").result
    assert result.passed, result.reasons
    short = make_run(answers, run_id="run-3", changes={**stopped, "scorers": scorers, "stopped_rows": 65})
    assert {"complete", "calls"} <= set(_failed(judge(short, _policy(), "few").result))


@pytest.mark.parametrize("parts", [{}, {"decision": {"level": 0.9}}, {"evidence": {"required": ["model_digest"]}}])
def test_a_default_that_refuses_is_told_as_one(make_run: MakeRun, parts: dict[str, Any]) -> None:
    """A policy without [decision] asks for it all the same; who reads its file finds neither number."""
    run = make_run({name: marks[:40] for name, marks in UNCLEAR.items()})
    decision, rows = judge(run, _policy(**parts), "few").result.reasons
    assert decision.endswith("The policy asks for better, by default, since its [decision] has no minimum.")
    assert rows.endswith("at least 50 asked for, by default, since its [decision] has no min_rows")
    written = _policy(decision={"minimum": "better", "min_rows": 50})
    assert not any("by default" in reason for reason in judge(run, written, "few").result.reasons)


def test_no_decision_is_not_no_rows(make_run: MakeRun) -> None:
    run = make_run({"few": [True] * 40})
    [reason] = judge(run, _policy(decision={"minimum": "none"}), "few").result.reasons
    assert reason.startswith("rows: 40 rows scored by exact, at least 50 asked for, by default")
    assert judge(run, _policy(decision={"minimum": "none", "min_rows": 1}), "few").result.passed
