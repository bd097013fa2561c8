"""The gate: a policy held against a run and its comparison. Whatever cannot be evaluated is refused."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias
from xml.etree import ElementTree

import polars as pl

from workbench.errors import ComparisonError, GateRefused, NotFoundError
from workbench.html import callout, table
from workbench.registry.metrics import MissingMetric, measure
from workbench.registry.policy import EvidenceName, Guard, Policy

if TYPE_CHECKING:
    from workbench.experiments.compare import Comparison, Decision
    from workbench.experiments.run import Run

# Code points that XML 1.0 has no way to write.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Whether a check passed, and the numbers in words.
Finding: TypeAlias = tuple[bool, str]

# A default that refuses is told as one, so that nobody looks for it in the file in vain.
_UNSAID = ", by default, since its [decision] has no {}"
_ENOUGH = {
    "better": ("better",),
    "equivalent": ("better", "equivalent"),
    "non_inferior": ("better", "equivalent"),
}


@dataclass(frozen=True)
class Check:
    """One thing a policy asks, whether it holds, and the numbers in words."""

    name: str
    passed: bool
    detail: str

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}"


@dataclass(frozen=True)
class GateResult:
    """A policy's verdict on one variant of a run."""

    run_id: str
    variant: str
    baseline: str | None
    policy: Policy
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether there was something to check and all of it holds."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def reasons(self) -> list[str]:
        """A sentence for each check that failed."""
        return [str(check) for check in self.checks if not check.passed]

    def raise_if_refused(self) -> None:
        """Raises:
        GateRefused: a check failed; it carries the reasons.
        """
        if not self.passed:
            raise GateRefused(self.reasons or ["nothing was checked"])

    def to_json(self) -> dict[str, Any]:
        return {
            "format_version": 1,
            "run_id": self.run_id,
            "variant": self.variant,
            "baseline": self.baseline,
            "passed": self.passed,
            "policy_digest": self.policy.digest,
            "policy": self.policy.to_json(),
            "checks": [{"name": c.name, "passed": c.passed, "detail": c.detail} for c in self.checks],
        }

    def to_junit(self) -> str:
        """JUnit XML, one test case a check, as CI systems show it."""
        failures = str(len(self.reasons))
        counts = {"tests": str(len(self.checks)), "failures": failures, "errors": "0", "skipped": "0"}
        root = ElementTree.Element("testsuites", counts)
        suite = ElementTree.SubElement(
            root, "testsuite", {"name": _xml(f"gate {self.run_id} {self.variant}"), **counts}
        )
        for check in self.checks:
            case = ElementTree.SubElement(suite, "testcase", {"classname": "workbench.gate", "name": _xml(check.name)})
            if not check.passed:
                ElementTree.SubElement(case, "failure", {"message": _xml(check.detail)}).text = _xml(str(check))
        ElementTree.indent(root)
        return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"

    def __str__(self) -> str:
        lines = [f"{'ok     ' if check.passed else 'REFUSED'}  {check}" for check in self.checks]
        return "\n".join([*lines, self._headline()])

    def _repr_html_(self) -> str:
        rows = [("✓" if check.passed else "✗", check.name, check.detail) for check in self.checks]
        return callout(self._headline(), "ok" if self.passed else "bad") + table(["", "check", "finding"], rows)

    def _headline(self) -> str:
        if self.passed:
            return f"The gate lets {self.variant} pass."
        return f"The gate refuses {self.variant}: {len(self.reasons)} of {len(self.checks)} checks failed."


@dataclass(frozen=True)
class Verdict:
    """A gate's result with the comparison and the decision that it read; None where they could not be made."""

    result: GateResult
    comparison: Comparison | None
    decision: Decision | None


def judge(
    run: Run,
    policy: Policy,
    variant: str,
    baseline: str | None = None,
    *,
    further: Mapping[str, Callable[[], Finding]] | None = None,
    now: datetime | None = None,
) -> Verdict:
    """Compare `variant` with `baseline` at the policy's level and margin, and hold the policy against the outcome.

    `baseline` defaults to the first other variant. A comparison that fails is a refusal with its reason.

    Args:
        further: checks that need more than the run, by name; see `aliases`.
        now: from when the age of the evidence counts.

    Raises:
        NotFoundError: the run has no such variant.
    """
    baseline = check_variants(run, variant, baseline)
    comparison: Comparison | None = None
    failure = "the run has no second variant to compare with"
    if baseline is not None:
        scorer = policy.decision.scorer or run.manifest.primary
        margin = None if policy.decision.margin is None else {scorer: policy.decision.margin}
        try:
            comparison = run.compare(baseline=baseline, level=policy.decision.level, margin=margin)
        except Exception as error:  # whatever went wrong, the answer is no, with this reason
            failure = _reason(error)
    result = evaluate(policy, run, comparison, variant, baseline, no_comparison=failure, further=further, now=now)
    decision = None
    if comparison is not None:
        # A decision that cannot be made is among the reasons in `result`.
        with contextlib.suppress(ComparisonError):
            decision = comparison.decision(variant, over=baseline, scorer=policy.decision.scorer)
    return Verdict(result, comparison, decision)


def check_variants(run: Run, variant: str, baseline: str | None) -> str | None:
    """The baseline to compare `variant` with: the one named, else the first other variant, else None.

    Raises:
        NotFoundError: the run has no such variant, or both are the same.
    """
    variants = list(run.manifest.variants)
    for name in (variant, *([baseline] if baseline is not None else [])):
        if name not in variants:
            raise NotFoundError(f"run {run.id} has no variant {name!r}", hint=f"It has: {', '.join(variants)}.")
    if baseline == variant:
        raise NotFoundError(f"{variant!r} cannot be its own baseline", hint=f"Variants: {', '.join(variants)}.")
    return baseline or next((name for name in variants if name != variant), None)


def evaluate(
    policy: Policy,
    run: Run,
    comparison: Comparison | None,
    variant: str,
    baseline: str | None,
    *,
    no_comparison: str = "there is no comparison",
    further: Mapping[str, Callable[[], Finding]] | None = None,
    now: datetime | None = None,
) -> GateResult:
    """Hold `policy` against `variant` of `run`, compared with `baseline`. A check that raises an error has failed.

    What a policy asks of a version (approvals, tests) has failed unless it is among the `further` checks.
    """
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("complete", partial(_complete, run)),
        ("calls", partial(_calls, run, variant)),
    ]
    if policy.decision.minimum != "none":
        checks.append(("decision", partial(_decision, policy, run, comparison, variant, baseline, no_comparison)))
    checks.append(("rows", partial(_rows, policy, run, comparison, variant, baseline)))
    checks += [(guard.name, partial(_guard, guard, run, variant, baseline)) for guard in policy.guard]
    checks += [(name, partial(_evidence, run, variant, name)) for name in policy.evidence.required]
    if not policy.evidence.allow_dirty:
        checks.append(("git_dirty", partial(_clean, run)))
    if policy.evidence.max_age_days is not None:
        checks.append(("age", partial(_fresh, run, policy.evidence.max_age_days, now or datetime.now(UTC))))
    asked = [*(f"approval by {wanted.role}" for wanted in policy.approval), *(f"test {t.name}" for t in policy.test)]
    if policy.decision.against == "alias":
        asked.append("against")
    if policy.signature is not None:
        asked.append("signature")
    checks += [(name, (further or {}).get(name, _of_a_version)) for name in asked]
    return GateResult(run.id, variant, baseline, policy, tuple(_run_checks(checks)))


def _run_checks(checks: Iterable[tuple[str, Callable[[], Finding]]]) -> Iterator[Check]:
    for name, check in checks:
        try:
            passed, detail = check()
        except MissingMetric as error:
            passed, detail = False, str(error)
        except Exception as error:  # a gate that cannot look must not open
            passed, detail = False, f"could not be evaluated: {_reason(error)}"
        yield Check(name, passed, detail)


def _complete(run: Run) -> Finding:
    return (
        (True, "the run is complete") if run.complete else (False, "the run is not complete; run it again to finish it")
    )


def _calls(run: Run, variant: str) -> Finding:
    """Every row (up to where the run was stopped) is there once a repeat, and was answered by the pipeline and the model
    that the manifest names."""
    mine = run.calls().filter(pl.col("variant") == variant)
    expected = run.expected // len(run.manifest.variants)
    distinct = mine.select("row_id", "repeat").n_unique()
    if expected < 1 or len(mine) != expected or distinct != expected:
        return False, f"{len(mine)} calls on record for {variant}, {expected} expected"
    for column, digest in (
        ("pipeline_digest", run.manifest.pipeline_digests[variant]),
        ("model_digest", run.manifest.models[variant]["digest"]),
    ):
        others = mine.filter(pl.col(column).ne_missing(digest))
        if len(others):
            return False, f"{len(others)} calls of {variant} have another {column} than the run"
    return True, f"{expected} calls of {variant} on record"


def _decision(
    policy: Policy, run: Run, comparison: Comparison | None, variant: str, baseline: str | None, no_comparison: str
) -> Finding:
    minimum = policy.decision.minimum
    asked = f"asks for {minimum}" + ("" if _says(policy, "minimum") else _UNSAID.format("minimum"))
    if comparison is None:
        return False, f"{no_comparison}; the policy {asked}"
    decision = comparison.decision(variant, over=baseline, scorer=policy.decision.scorer)
    if decision.run_id != run.id:
        return False, f"the comparison is of run {decision.run_id}"
    passed = decision.outcome in _ENOUGH[minimum] or (minimum == "non_inferior" and decision.non_inferior is True)
    return passed, decision.sentence if passed else f"{decision.sentence} The policy {asked}."


def _rows(policy: Policy, run: Run, comparison: Comparison | None, variant: str, baseline: str | None) -> Finding:
    if comparison is not None:
        decision = comparison.decision(variant, over=baseline, scorer=policy.decision.scorer)
        found, what = decision.n, "paired rows"
    else:
        scorer = policy.decision.scorer or run.manifest.primary
        scored = run.scores().filter((pl.col("variant") == variant) & (pl.col("scorer") == scorer))
        found, what = scored.filter(pl.col("value").is_not_null())["row_id"].n_unique(), f"rows scored by {scorer}"
    passed = found >= policy.decision.min_rows
    said = f"{found} {what}, at least {policy.decision.min_rows} asked for"
    return passed, said if passed or _says(policy, "min_rows") else said + _UNSAID.format("min_rows")


def _says(policy: Policy, field: str) -> bool:
    """Whether a field of `[decision]` is written down, and not a default."""
    return "decision" in policy.model_fields_set and field in policy.decision.model_fields_set


def _guard(guard: Guard, run: Run, variant: str, baseline: str | None) -> Finding:
    calls, scores = run.calls(), run.scores()
    value = measure(guard, calls, scores, variant)
    found = [f"{value:.4g}"]
    passed = True
    if guard.max is not None:
        passed &= value <= guard.max
        found.append(f"at most {guard.max:g} allowed")
    if guard.min is not None:
        passed &= value >= guard.min
        found.append(f"at least {guard.min:g} asked for")
    if guard.max_ratio is not None:
        if baseline is None:
            raise MissingMetric("there is no baseline to compare with")
        reference = measure(guard, calls, scores, baseline)
        if reference < 0:
            raise MissingMetric(f"the baseline's {guard.name} is negative: {reference:.4g}")
        passed &= value <= guard.max_ratio * reference
        found.append(f"at most {guard.max_ratio:g} × {reference:.4g} of {baseline} allowed")
    return passed, ", ".join(found)


def _evidence(run: Run, variant: str, name: EvidenceName) -> Finding:
    manifest = run.manifest
    if name == "model_digest":
        value: object = manifest.models.get(variant, {}).get("digest")
    elif name == "pipeline_digest":
        value = manifest.pipeline_digests.get(variant)
    else:
        value = getattr(manifest, name)
    if not value:
        return False, "not on record"
    return True, f"{len(value)} versions" if isinstance(value, dict) else str(value)


def _clean(run: Run) -> Finding:
    dirty = run.manifest.git_dirty
    if dirty is None:
        return False, "the run was not made in a git repository"
    return not dirty, "the sources differed from the commit" if dirty else "the sources were those of the commit"


def _fresh(run: Run, days: float, now: datetime) -> Finding:
    ended = run.manifest.finished_at
    if ended is None:
        return False, "the run has not ended"
    age = (now - datetime.fromisoformat(ended)).total_seconds() / 86_400
    return age <= days, f"the run ended {max(0.0, age):.1f} days ago, at most {days:g} allowed"


def _of_a_version() -> Finding:
    return False, "asked of a version when an alias is moved to it: promote without the alias, then move the alias"


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _xml(text: str) -> str:
    return _NOT_XML.sub("�", text)
