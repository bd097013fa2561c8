"""Whether evidence came out the same when its notebook was run again: every answer, every score, and the decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from workbench.experiments.notebook_source import call_text
from workbench.experiments.records import CALL_KEY
from workbench.experiments.scorers.resources import RESOURCE_TYPES
from workbench.html import callout, escape, table
from workbench.registry.diff import Changes, changes, flat
from workbench.registry.gate import judge
from workbench.registry.policy import Policy

if TYPE_CHECKING:
    from workbench.experiments.decision import Decision
    from workbench.experiments.records import RunManifest
    from workbench.experiments.run import Run
    from workbench.registry.artifact import Artifact

Verdict = Literal["same", "same decision", "different"]
# Rows that the text form shows.
SHOWN = 5
# A score is the same up to what adding in another order makes of it.
_EXACT = 1e-9
_ANSWER = ("result", "output", "error_kind")
_TINTS: dict[Verdict, Literal["ok", "warn", "bad"]] = {"same": "ok", "same decision": "warn", "different": "bad"}


@dataclass(frozen=True)
class VariantAnswers:
    """Answers of one variant: equal ones, others, and those that only one of the two runs has."""

    variant: str
    same: int
    different: int
    only_then: int
    only_now: int

    @property
    def all_same(self) -> bool:
        return not (self.different or self.only_then or self.only_now)


@dataclass(frozen=True)
class AnswerChange:
    """One answer that came out differently; the texts are what the model wrote, or the kind of error."""

    variant: str
    row_id: str
    repeat: int
    then: str
    now: str


@dataclass(frozen=True)
class ScoreChange:
    """One scorer's values of one variant: the means, and how many rows it judges differently."""

    variant: str
    scorer: str
    then: float | None
    now: float | None
    different: int


@dataclass(frozen=True)
class Reproduction:
    """What came out when the notebook of an artifact was run again against the recorded rows.

    Attributes:
        artifact, digest: of what was reproduced.
        notebook: path of the file that was run; arguments: what it was given.
        files: where the files beside it are from: a commit, or the workspace as it is now.
        answers: by variant. changed: answers that came out differently.
        scores: by variant and scorer, without what an answer took (seconds, tokens, dollars).
        then, now: the decision; None where the run had a single variant.
        environment: versions of distributions that differ. models: what differs of the models, by variant.
        note: what went wrong after the run had ended, if anything did.
    """

    artifact: str
    digest: str
    notebook: str
    arguments: tuple[str, ...]
    files: str
    answers: tuple[VariantAnswers, ...]
    changed: tuple[AnswerChange, ...]
    scores: tuple[ScoreChange, ...]
    then: Mapping[str, Any] | None
    now: Mapping[str, Any] | None
    environment: Changes
    models: Changes
    note: str = ""

    @property
    def verdict(self) -> Verdict:
        """`same`: every answer, score and the decision; `same decision`: some answers or scores differ; else `different`."""
        if (self.then is None) != (self.now is None) or (
            self.then is not None and self.now is not None and self.then["outcome"] != self.now["outcome"]
        ):
            return "different"
        if all(side.all_same for side in self.answers) and not any(score.different for score in self.scores):
            return "same"
        return "different" if self.then is None else "same decision"

    @property
    def ok(self) -> bool:
        """Whether the decision stands."""
        return self.verdict != "different"

    def to_json(self) -> dict[str, Any]:
        def pairs(found: Changes) -> dict[str, dict[str, Any]]:
            return {name: {"then": old, "now": new} for name, (old, new) in found.items()}

        return {
            "artifact": self.artifact,
            "digest": self.digest,
            "verdict": self.verdict,
            "notebook": self.notebook,
            "arguments": list(self.arguments),
            "files": self.files,
            "answers": [vars(side) for side in self.answers],
            "changed": [vars(row) for row in self.changed],
            "scores": [vars(score) for score in self.scores],
            "decision": {"then": self.then, "now": self.now},
            "environment": pairs(self.environment),
            "models": pairs(self.models),
            "note": self.note or None,
        }

    def headline(self) -> str:
        """The verdict in a sentence."""
        total = sum(side.same + side.different + side.only_then + side.only_now for side in self.answers)
        same = sum(side.same for side in self.answers)
        differ = "some scores differ" if same == total else f"{total - same} of {total} answers differ"
        if self.verdict == "same":
            also = " and the decision" if self.then else ""
            return f"{self.artifact} is reproduced: all {total} answers, every score{also} came out the same."
        if self.verdict == "same decision":
            return f"The decision on {self.artifact} is reproduced: {_outcome(self.now)}, though {differ}."
        if self.then is None:
            return f"{self.artifact} is NOT reproduced: {differ}."
        return f"{self.artifact} is NOT reproduced: the decision was {_outcome(self.then)} and is {_outcome(self.now)}."

    def __str__(self) -> str:
        lines = [self.headline(), f"ran: {call_text(self.notebook, self.arguments)}, files: {self.files}"]
        lines += [f"answers of {side.variant}: {_counts(side)}" for side in self.answers]
        shown = self.changed[:SHOWN]
        lines += [f"  {row.variant}, {row.row_id}: {_brief(row.then)} → {_brief(row.now)}" for row in shown]
        lines += [f"  and {len(self.changed) - SHOWN} more, in --json"] if len(self.changed) > SHOWN else []
        lines += [
            f"{score.scorer} of {score.variant}: {_number(score.then)} → {_number(score.now)}, {score.different} rows differ"
            for score in self.scores
            if score.different
        ]
        if self.then and self.now:
            lines += [f"decision then: {self.then['sentence']}", f"decision now:  {self.now['sentence']}"]
        for title, found in (("model", self.models), ("package", self.environment)):
            lines += [f"{title} {name}: {old or 'none'} → {new or 'none'}" for name, (old, new) in found.items()]
        lines += [f"note: {self.note}"] if self.note else []
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        parts = [callout(self.headline(), _TINTS[self.verdict])]
        parts.append(f"<p>{escape(call_text(self.notebook, self.arguments))}, files: {escape(self.files)}</p>")
        rows = [(side.variant, side.same, side.different, side.only_then, side.only_now) for side in self.answers]
        parts.append(table(["answers of", "same", "different", "only then", "only now"], rows))
        if self.then and self.now:
            parts.append(table(["", "decision"], [("then", self.then["sentence"]), ("now", self.now["sentence"])]))
        scores = [(s.variant, s.scorer, _number(s.then), _number(s.now), s.different) for s in self.scores]
        parts.append(table(["variant", "scorer", "mean then", "mean now", "rows that differ"], scores))
        if self.changed:
            shown = [(row.variant, row.row_id, row.then, row.now) for row in self.changed[: 4 * SHOWN]]
            parts.append(table(["variant", "row", "answer then", "answer now"], shown))
        if differ := [(name, *pair) for name, pair in {**self.models, **self.environment}.items()]:
            parts.append(table(["model or package", "then", "now"], differ))
        return "".join(parts) + (callout(self.note, "warn") if self.note else "")


def compare_runs(artifact: Artifact, then: Run, now: Run, *, files: str, note: str = "") -> Reproduction:
    """The evidence of an artifact beside what its notebook makes now; both runs are of one experiment.

    Raises:
        IntegrityError: a layer that is read is damaged.
    """
    book, source = artifact.notebook(), artifact.provenance
    assert book is not None
    answers, changed = _answers(then, now)
    before = artifact.decision
    after = _decision(artifact, now) if before is not None else None
    return Reproduction(
        artifact=f"{artifact.name}@{artifact.version}",
        digest=artifact.digest,
        notebook=source["notebook"] or book.record.path,
        arguments=book.record.arguments,
        files=files,
        answers=answers,
        changed=changed,
        scores=_scores(then, now),
        then=before,
        now=after.to_json() if after else None,
        environment=changes(then.manifest.environment, now.manifest.environment),
        models=changes(flat(then.manifest.models), flat(now.manifest.models)),
        note=note,
    )


def _decision(artifact: Artifact, now: Run) -> Decision | None:
    """The decision by the policy that the artifact was let in by."""
    source = artifact.provenance
    policy = Policy.model_validate(artifact.gate["policy"])
    return judge(now, policy, source["variant"], source["baseline"]).decision


def _answers(then: Run, now: Run) -> tuple[tuple[VariantAnswers, ...], tuple[AnswerChange, ...]]:
    columns = [*CALL_KEY, *_ANSWER]
    sides = [run.calls().select(columns).with_columns(pl.lit(True).alias("here")) for run in (then, now)]
    both = sides[0].join(sides[1], on=CALL_KEY, how="full", suffix="_now", coalesce=True).sort(CALL_KEY)
    equal = pl.all_horizontal(pl.col(name).eq_missing(pl.col(f"{name}_now")) for name in _ANSWER)
    shared = pl.col("here").is_not_null() & pl.col("here_now").is_not_null()
    found = []
    for variant in then.manifest.variants:
        mine = both.filter(pl.col("variant") == variant)
        counts = mine.select(
            (shared & equal).sum().alias("same"),
            (shared & ~equal).sum().alias("different"),
            pl.col("here_now").is_null().sum().alias("only_then"),
            pl.col("here").is_null().sum().alias("only_now"),
        )
        found.append(VariantAnswers(variant, *counts.row(0)))
    said = [pl.coalesce(f"output{side}", f"error_kind{side}", pl.lit("")).alias(f"said{side}") for side in ("", "_now")]
    rows = both.filter(shared & ~equal).select(*CALL_KEY, *said)
    return tuple(found), tuple(AnswerChange(*row) for row in rows.iter_rows())


def _scores(then: Run, now: Run) -> tuple[ScoreChange, ...]:
    names = [s["name"] for s in then.manifest.scorers if s.get("config", {}).get("type") not in RESOURCE_TYPES]
    key = [*CALL_KEY, "scorer"]
    sides = [run.scores().select(*key, pl.col("value").fill_nan(None)) for run in (then, now)]
    both = sides[0].join(sides[1], on=key, how="inner", suffix="_now")
    differ = (pl.col("value").is_null() != pl.col("value_now").is_null()) | (
        (pl.col("value") - pl.col("value_now")).abs() > _EXACT
    ).fill_null(False)
    means = [side.group_by("variant", "scorer").agg(pl.col("value").mean()) for side in sides]
    found = []
    for variant in then.manifest.variants:
        for name in names:
            mine = (pl.col("variant") == variant) & (pl.col("scorer") == name)
            mean = [side.filter(mine).get_column("value") for side in means]
            values = [None if not len(column) else column[0] for column in mean]
            found.append(
                ScoreChange(variant, name, values[0], values[1], int(both.filter(mine).select(differ.sum()).item()))
            )
    return tuple(found)


def differences(then: RunManifest, now: RunManifest) -> list[str]:
    """How the experiment of one run is another than that of an earlier one, a phrase each."""
    found = []
    if then.experiment != now.experiment:
        found.append(f"it is called {now.experiment}, not {then.experiment}")
    sides = [f"{run.rows} rows of {run.dataset}, split {run.split or 'all'}" for run in (then, now)]
    if sides[0] != sides[1]:
        found.append(f"it asks {sides[1]}, not {sides[0]}")
    elif then.dataset_digest != now.dataset_digest:
        found.append(f"the rows of {now.dataset} are others")
    for name in (*then.variants, *(name for name in now.variants if name not in then.variants)):
        if name not in now.variants or name not in then.variants:
            found.append(f"variant {name} is {'missing' if name in then.variants else 'new'}")
            continue
        changed = changes(flat(then.variants[name]), flat(now.variants[name]))
        parts = [path for path in changed if not path.startswith("prompt")]
        if len(parts) < len(changed):
            parts = ["prompt", *parts]
        if parts:
            found.append(f"variant {name} has another {', '.join(parts)}")
    if sorted(then.variants) == sorted(now.variants) and list(then.variants) != list(now.variants):
        found.append("the variants are in another order")
    scorers = [{scorer["name"]: scorer["digest"] for scorer in run.scorers} for run in (then, now)]
    found += [f"scorer {name} differs" for name in changes(*scorers)]
    if not changes(*scorers) and list(scorers[0]) != list(scorers[1]):
        found.append("the scorers are in another order")
    for field in ("primary", "repeats"):
        old, new = getattr(then, field), getattr(now, field)
        if old != new:
            found.append(f"{field} is {new}, not {old}")
    return found


def _counts(side: VariantAnswers) -> str:
    said = [f"{side.same} the same"]
    for count, what in ((side.different, "differ"), (side.only_then, "only then"), (side.only_now, "only now")):
        said += [f"{count} {what}"] if count else []
    return ", ".join(said)


def _outcome(decision: Mapping[str, Any] | None) -> str:
    return str(decision["outcome"]) if decision else "none"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _brief(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 40 else line[:39] + "…")
