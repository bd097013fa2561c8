"""CurationReport: every row that a check found and what was done with it. It holds no text of any row."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from workbench.curation.settings import CHECKS, Check, CurationSettings
from workbench.files import digest_json, short

if TYPE_CHECKING:
    import polars as pl

    from workbench.data.dataset import Dataset

Outcome = Literal["dropped", "masked", "flagged"]
OUTCOMES: tuple[Outcome, ...] = ("dropped", "masked", "flagged")
OUTCOME_OF: dict[str, Outcome] = {"drop": "dropped", "mask": "masked", "flag": "flagged"}


class Span(BaseModel):
    """Where personal data is: characters `start` to `end` (not included) of a column, in the row as it was before."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    column: str
    entity: str
    start: int
    end: int
    score: float


class Finding(BaseModel):
    """What one check found in one row.

    Attributes:
        other: the row that it is a copy of, leaks from or contradicts, if there is one.
        score: Jaccard index, cosine, robust z-score, margin of probability or confidence, as the reason says.
        spans: of personal data; never what stands there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str
    split: str
    check: Check
    action: Outcome
    reason: str
    other: str | None = None
    score: float | None = None
    spans: tuple[Span, ...] = ()


class Note(BaseModel):
    """Something about a whole check: that it did not run and why, or what it found that is about no single row."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    check: Check
    text: str


class Side(BaseModel):
    """The data set before or after."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    digest: str
    rows: int
    splits: dict[str, int]


class Histogram(BaseModel):
    """Rows by a number: `counts[i]` are those from `edges[i]` to `edges[i + 1]`; `limits` is where the check draws a line."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    limits: tuple[float, ...]


class ClassCount(BaseModel):
    """Rows of one class, by split, after curation."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    column: str
    value: str
    splits: dict[str, int]

    @property
    def rows(self) -> int:
        return sum(self.splits.values())


class CurationReport(BaseModel):
    """What a curation found and did. Equal data and settings give an equal report: no clock is read.

    Attributes:
        embedder: name and digest of the embedder, None where none was used.
        findings: in the order of the checks, then of the rows.
        lengths: characters of the rows' texts. nearest: of each row that could leak, the cosine to the closest row of a
            split that must not be known.
        classes: by column and value of the target.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))
    format_version: Literal[1] = 1
    dataset: str
    before: Side
    after: Side
    settings: CurationSettings
    embedder: dict[str, str] | None
    findings: tuple[Finding, ...]
    notes: tuple[Note, ...]
    lengths: Histogram | None
    nearest: Histogram | None
    classes: tuple[ClassCount, ...]

    @cached_property
    def digest(self) -> str:
        """sha256 of the canonical JSON."""
        return digest_json(self.model_dump(mode="json"))

    @property
    def changed(self) -> bool:
        """Whether the data set after is another one than before."""
        return self.before.digest != self.after.digest

    def counts(self) -> dict[str, dict[str, dict[str, int]]]:
        """Findings by check, then action, then split; checks that found nothing are there with nothing in them."""
        counted = Counter((found.check, found.action, found.split) for found in self.findings)
        out: dict[str, dict[str, dict[str, int]]] = {check: {} for check in CHECKS}
        for (check, action, split), number in sorted(counted.items()):
            out[check].setdefault(action, {})[split] = number
        return out

    def table(self) -> list[tuple[str, int | str, int | str, int | str, str]]:
        """A line a check: its name, rows dropped, masked, flagged, and the note on it. A check that was skipped has dashes."""
        lines: list[tuple[str, int | str, int | str, int | str, str]] = []
        counts = self.counts()
        for check in CHECKS:
            said = " ".join(note.text for note in self.notes if note.check == check)
            if self.settings.action(check) == "skip":
                lines.append((check, "–", "–", "–", "skipped"))
                continue
            dropped, masked, flagged = (sum(counts[check].get(outcome, {}).values()) for outcome in OUTCOMES)
            lines.append((check, dropped, masked, flagged, said))
        return lines

    def frame(self) -> pl.DataFrame:
        """The findings, a row each: id, split, check, action, reason, other, score."""
        import polars as pl

        names = ("id", "split", "check", "action", "reason", "other", "score")
        schema = dict.fromkeys(names, pl.String()) | {"score": pl.Float64()}
        return pl.DataFrame([found.model_dump(include=set(names)) for found in self.findings], schema=schema)

    def with_inputs(self, dataset: Dataset, check: Check | None = None) -> pl.DataFrame:
        """The findings beside the inputs of their rows, and of the rows they point at as `other_…`.

        Args:
            dataset: the rows as they were before; the report itself holds none.
            check: only what this check found.
        """
        import polars as pl

        found = self.frame() if check is None else self.frame().filter(pl.col("check") == check)
        inputs = dataset.frame().select("id", *(name for name in dataset.spec.input if name != "id"))
        others = inputs.rename({name: f"other_{name}" for name in inputs.columns})
        return found.join(inputs, on="id", how="left", maintain_order="left").join(
            others, left_on="other", right_on="other_id", how="left", maintain_order="left"
        )

    @property
    def headline(self) -> str:
        """One sentence: what became of the rows."""
        rows = {outcome: {f.id for f in self.findings if f.action == outcome} for outcome in OUTCOMES}
        flagged = rows["flagged"] - rows["dropped"]
        done = f"{len(rows['dropped']):,} dropped, {len(rows['masked']):,} masked, {len(flagged):,} flagged"
        return (
            f"{self.dataset} {short(self.before.digest)}: {self.before.rows:,} rows, {done}, {self.after.rows:,} left"
        )

    def _repr_html_(self) -> str:
        from workbench.html import callout, table

        head = callout(self.headline, "warn" if self.findings else "ok")
        return head + table(("check", "dropped", "masked", "flagged", ""), self.table())

    def __str__(self) -> str:
        lines = [self.headline]
        for check, *numbers, note in self.table():
            lines.append(
                f"  {check:18}" + "".join(f"{number:>8}" for number in numbers) + (f"  {note}" if note else "")
            )
        return "\n".join(lines)


def make_side(dataset: Dataset) -> Side:
    """Digest, size and splits of a data set."""
    return Side(digest=dataset.digest, rows=len(dataset), splits=dataset.splits())


def rounded(value: Any) -> float:
    """A score with as many digits as a report keeps: what lies beyond them may differ between machines."""
    return round(float(value), 4)
