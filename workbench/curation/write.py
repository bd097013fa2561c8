"""Writing: the report beside the versions of a data set, and the rows that stay as its newest version."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from workbench.curation.curate import Curated, curate_dataset
from workbench.curation.report import CurationReport
from workbench.curation.settings import CurationSettings
from workbench.data.check import SchemaCheck
from workbench.data.dataset import Dataset
from workbench.data.opening import form_of, read_spec
from workbench.data.show import card
from workbench.data.spec import NAME, DatasetSpec
from workbench.data.store import CARD_FILE, SCHEMA_FILE, SPEC_FILE, open_dataset
from workbench.data.versions import history_folder, locked, records, snapshot_locked
from workbench.errors import DataError, IntegrityError, NotFoundError, UsageError
from workbench.files import publish_folder, write_atomic
from workbench.retrieval.embedding import cached_embedder
from workbench.workspace import Layout

REPORT_FILE = "report.json"
HTML_FILE = "report.html"


@dataclass(frozen=True)
class Curation:
    """A curation of a data set of a workspace.

    Attributes:
        dataset: the rows that stay.
        folder: where the report lies, as `report.json` and `report.html`.
        versions: numbers of the versions before and after, which are the same where nothing changed; None for a dry run.
    """

    dataset: Dataset
    report: CurationReport
    folder: Path
    versions: tuple[int, int] | None

    @property
    def html(self) -> Path:
        return self.folder / HTML_FILE

    def _repr_html_(self) -> str:
        return self.report._repr_html_()


def curate(
    layout: Layout,
    name: str,
    settings: CurationSettings | None = None,
    *,
    dry_run: bool = False,
    render: Callable[[CurationReport], str] | None = None,
    now: datetime | None = None,
    show_progress: bool = True,
) -> Curation:
    """Curate a data set of a workspace: its rows now become what stays, those before are kept as a version.

    The report is on disk before any row is replaced. Curating again changes nothing.

    Args:
        dry_run: check and report only.
        render: the report as an HTML page.

    Raises:
        NotFoundError: there is no such data set.
        UsageError: `name` is that of a version, or as `curate_dataset` does.
        DataError: a split would be left without rows, or the data set changed meanwhile.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is not the name of a data set", hint="A kept version stays as it is: curate the newest"
        )
    chosen = settings or CurationSettings()
    dataset = open_dataset(layout, name)
    embedder = cached_embedder(layout, chosen.embedder) if chosen.embedder is not None else None
    curated = curate_dataset(dataset, chosen, embedder=embedder, show_progress=show_progress)
    folder = report_folder(layout, curated.report)
    publish_folder(folder, lambda made: _fill(made, curated.report, render))
    if dry_run:
        return Curation(curated.dataset, curated.report, folder, None)
    numbers = _replace(layout, dataset, curated, now or datetime.now(UTC))
    return Curation(open_dataset(layout, name), curated.report, folder, numbers)


def report_folder(layout: Layout, report: CurationReport) -> Path:
    """Where a report lies: beside the data set's versions, by the digest of the report."""
    return history_folder(layout, report.dataset) / "curations" / report.digest.removeprefix("sha256:")[:16]


def read_report(folder: Path) -> CurationReport:
    """The report in a folder that `curate` wrote.

    Raises:
        NotFoundError: there is none.
        DataError: it is malformed.
    """
    path = folder / REPORT_FILE
    try:
        return CurationReport.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise NotFoundError(f"no curation report in {folder}") from None
    except ValueError as error:
        raise DataError(f"malformed: {str(error).splitlines()[0]}", path=str(path)) from None


def _fill(folder: Path, report: CurationReport, render: Callable[[CurationReport], str] | None) -> None:
    folder.chmod(0o755)
    text = json.dumps(report.model_dump(mode="json"), indent=1, ensure_ascii=False)
    write_atomic(folder / REPORT_FILE, text + "\n")
    if render is not None:
        write_atomic(folder / HTML_FILE, render(report))


def _replace(layout: Layout, before: Dataset, curated: Curated, now: datetime) -> tuple[int, int]:
    """Put the rows that stay in the place of `before`, and keep both as versions; their numbers."""
    name, after = before.name, curated.dataset
    emptied = [split for split, rows in before.splits().items() if rows and not after.splits().get(split)]
    if emptied:
        raise DataError(
            f"no row of the split {emptied[0]!r} of {name!r} would be left; nothing was changed",
            hint="A dry run (--dry-run) reports why; flag rather than drop what drops too much (--flag CHECK)",
        )
    folder = layout.datasets / name
    with locked(layout, name) as history:
        if not (folder / SPEC_FILE).is_file() or (current := open_dataset(layout, name)).digest != before.digest:
            raise DataError(f"the data set {name!r} changed while it was curated", hint="Run it again")
        first = snapshot_locked(history, records(layout, name), current, now)
        if after.digest == before.digest:
            return first, first
        last = snapshot_locked(history, records(layout, name), after, now)
        _write_rows(folder, current, after)
        return first, last


def _write_rows(folder: Path, before: Dataset, after: Dataset) -> None:
    """Replace the rows in a data set's folder by one rename; its other files stay, but for a card that an import wrote."""
    spec, card_file = after.spec, folder / CARD_FILE
    own_file = folder / spec.file
    as_written = DatasetSpec.from_toml(folder / SPEC_FILE) == spec and form_of(own_file) == "jsonl"
    if not as_written:
        # Rows and spec must change together: the rows go into a new file, and the spec that names it decides.
        spec = spec.model_copy(update={"file": f"curated-{after.digest.removeprefix('sha256:')[:12]}.jsonl"})
    with tempfile.TemporaryDirectory(prefix=".curate-", dir=folder) as made:
        path = Path(made) / "rows.jsonl"
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in after.records())
            file.flush()
            os.fsync(file.fileno())
        rules = folder / SCHEMA_FILE
        stored = read_spec("jsonl", path, spec, schema=SchemaCheck(rules) if rules.is_file() else None)
        if stored.digest != after.digest:
            raise IntegrityError(f"the rows of {spec.name!r} do not survive being stored as JSON Lines")
        write_atomic(folder / spec.file, path.read_bytes())
    if not as_written:
        write_atomic(folder / SPEC_FILE, spec.to_toml())
    if card_file.is_file() and card_file.read_text("utf-8") == card(before):
        write_atomic(card_file, card(after))
