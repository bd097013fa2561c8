"""Which rows a digest means: a version of a data set, or a part of one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from workbench.data.dataset import Dataset
from workbench.data.spec import NAME
from workbench.data.store import list_datasets, open_dataset
from workbench.data.versions import Version, history_folder, open_version, records
from workbench.errors import DataError, IntegrityError, NotFoundError, UsageError
from workbench.workspace import Layout


@dataclass(frozen=True)
class Rows:
    """Rows that are known by their digest.

    Attributes:
        version: of the data set; None where no run has kept them yet.
        split: which split of it; None for the whole, and for a sample.
        part: whether they are a split or a sample.
        here: whether the rows can be opened.
    """

    name: str
    digest: str
    version: int | None
    split: str | None
    part: bool
    rows: int
    here: bool = True

    @property
    def label(self) -> str:
        """`support-tickets@2 test`."""
        part = self.split or ("sample" if self.part else "")
        return f"{self.name}{'' if self.version is None else f'@{self.version}'}{f' {part}' if part else ''}"


class DatasetHistory:
    """What the workspace knows of one data set: its versions, the parts that runs kept, and the splits of each."""

    def __init__(self, layout: Layout, name: str) -> None:
        self.layout, self.name = layout, name

    @cached_property
    def records(self) -> list[Version]:
        """Lines of `versions.jsonl`; none for a name that no data set can have."""
        return records(self.layout, self.name) if NAME.fullmatch(self.name) else []

    @property
    def exists(self) -> bool:
        return bool(self.records) or self._present is not None

    def find(self, digest: str) -> Rows | None:
        """The rows that have this digest, as the oldest version that has them; None where they are not known here."""
        kept = next((record for record in self.records if record.digest == digest), None)
        if kept is not None:
            return self._kept(kept)
        return next((rows for rows in self._splits if rows.digest == digest), None)

    def matching(self, wanted: str) -> dict[str, Rows]:
        """Rows by digest: everything for an empty text; a version with its parts for its number or a beginning of its
        digest; a single part for a beginning of the part's digest.

        A split that several versions have in common is each one's; a sample is of the version it was first taken from.

        Raises:
            NotFoundError: the beginning fits several.
        """
        known = [*map(self._kept, self.records), *self._splits]
        if not wanted:
            return _first(known)
        prefix = wanted.removeprefix("sha256:")
        fits = {rows.digest for rows in known if len(prefix) >= 6 and rows.digest[7:].startswith(prefix)}
        wholes = [rows for rows in known if not rows.part]
        numbered = next((rows for rows in wholes if rows.version is not None and str(rows.version) == wanted), None)
        if numbered is None and len(fits) > 1:
            raise NotFoundError(f"{wanted!r} fits {len(fits)} parts of {self.name!r}", hint="Give more of the digest")
        whole = numbered or next((rows for rows in wholes if rows.digest in fits), None)
        if whole is None:
            return _first([rows for rows in known if rows.digest in fits])
        return _first([whole, *(rows for rows in known if rows.version == whole.version)])

    def numbers(self) -> list[str]:
        return [str(record.version) for record in self.records if not record.part]

    def _kept(self, record: Version) -> Rows:
        path = history_folder(self.layout, self.name) / f"{record.digest.removeprefix('sha256:')}.parquet"
        return Rows(
            self.name, record.digest, record.version, record.split, record.part, record.rows, here=path.is_file()
        )

    @cached_property
    def _splits(self) -> list[Rows]:
        """Splits of the versions and of the rows as they are now: trainings use them without keeping them apart."""
        found: list[Rows] = []
        for record in self.records:
            if not record.part and (dataset := self._open(str(record.version))) is not None:
                found += self._parts(dataset, record.version)
        now = self._present
        if now is not None and all(record.digest != now.digest for record in self.records):
            found.append(Rows(self.name, now.digest, None, None, False, len(now)))
            found += self._parts(now, None)
        return found

    @cached_property
    def _present(self) -> Dataset | None:
        try:
            return open_dataset(self.layout, self.name)
        except (NotFoundError, DataError, UsageError):
            return None

    def _open(self, version: str) -> Dataset | None:
        try:
            return open_version(self.layout, self.name, version)
        except (NotFoundError, IntegrityError):
            return None

    def _parts(self, dataset: Dataset, version: int | None) -> list[Rows]:
        counts = {split: count for split, count in dataset.splits().items() if count}
        return [
            Rows(self.name, dataset.split(split).digest, version, split, True, count) for split, count in counts.items()
        ]


def _first(found: list[Rows]) -> dict[str, Rows]:
    rows: dict[str, Rows] = {}
    for one in found:
        rows.setdefault(one.digest, one)
    return rows


def no_dataset(history: DatasetHistory, wanted: str) -> NotFoundError:
    """What to raise where nothing is known of a data set or of the version asked for."""
    if wanted and history.exists:
        numbers = history.numbers()
        hint = f"Its versions are: {', '.join(numbers)}" if numbers else "No version of it has been kept yet"
        return NotFoundError(f"the data set {history.name!r} has no version {wanted!r}", hint=hint)
    known = ", ".join(listed.name for listed in list_datasets(history.layout)) or "none yet"
    return NotFoundError(f"no data set {history.name!r}, and nothing used one", hint=f"Data sets here: {known}")
