"""The data sets of a workspace: `datasets/NAME/` with its rows, its spec, its card and perhaps a schema."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workbench.data.check import SchemaCheck
from workbench.data.dataset import Dataset
from workbench.data.opening import form_of, read_spec
from workbench.data.show import card
from workbench.data.spec import NAME, DatasetSpec, columns, make_spec
from workbench.data.versions import locked, open_version, records, snapshot, snapshot_locked, versions
from workbench.errors import DataError, IntegrityError, NotFoundError, UsageError, WorkbenchError
from workbench.files import fsync_directory, write_atomic
from workbench.workspace import Layout

__all__ = ["Listing", "import_dataset", "list_datasets", "open_dataset", "snapshot", "versions"]

SPEC_FILE = "dataset.toml"
SCHEMA_FILE = "schema.json"
CARD_FILE = "README.md"


@dataclass(frozen=True)
class Listing:
    """One data set of a workspace. `error` says why it cannot be read; the rest is then empty.

    `version` is the newest kept version with these rows; None where no run has used them yet.
    """

    name: str
    rows: int | None = None
    digest: str | None = None
    splits: dict[str, int] | None = None
    version: int | None = None
    description: str = ""
    error: str | None = None


def open_dataset(layout: Layout, reference: str) -> Dataset:
    """A data set by name, or one of its kept versions as "name@3" or "name@" and the beginning of a digest.

    Raises:
        NotFoundError: there is no such data set or version.
        DataError: its files are malformed; names the file and the line.
        IntegrityError: a kept version's rows are not what was stored.
    """
    name, _, wanted = reference.partition("@")
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} is not the name of a data set")
    if not wanted:
        return _open_folder(_present(layout, name), name)
    folder = layout.datasets / name
    prefix = wanted.removeprefix("sha256:")
    if len(prefix) >= 6 and not any(str(record.version) == wanted for record in versions(layout, name)):
        # The rows as they are now may have that digest without having been kept by a run.
        kept = any(record.digest.removeprefix("sha256:").startswith(prefix) for record in records(layout, name))
        if not kept and (folder / SPEC_FILE).is_file():
            current = _open_folder(folder, name)
            if current.digest.removeprefix("sha256:").startswith(prefix):
                return current
    return open_version(layout, name, wanted)


def _present(layout: Layout, name: str) -> Path:
    """The folder of a data set, put back first where a replacement was interrupted between its two renames."""
    folder = layout.datasets / name
    if not folder.exists() and _aside(folder).exists():
        with locked(layout, name):
            if not folder.exists() and _aside(folder).exists():
                os.rename(_aside(folder), folder)
    if (folder / SPEC_FILE).is_file():
        return folder
    kept = [str(record.version) for record in versions(layout, name)]
    if kept:
        hint = f"Its versions {', '.join(kept)} are kept: open {name}@{kept[-1]}"
    else:
        known = ", ".join(_names(layout)) or "none yet"
        hint = f"Data sets here: {known}. Add one with: workbench data import FILE --name {name}"
    raise NotFoundError(f"no data set {name!r} in {layout.datasets}", hint=hint)


def _open_folder(folder: Path, name: str) -> Dataset:
    spec = DatasetSpec.from_toml(folder / SPEC_FILE)
    if spec.name != name:
        raise DataError(f"the name is {spec.name!r}, but the folder is {name!r}", path=str(folder / SPEC_FILE))
    schema = SchemaCheck(folder / SCHEMA_FILE) if (folder / SCHEMA_FILE).is_file() else None
    file = folder / spec.file
    return read_spec(form_of(file), file, spec, schema=schema)


def _names(layout: Layout) -> list[str]:
    if not layout.datasets.is_dir():
        return []
    return sorted(
        path.parent.name for path in layout.datasets.glob(f"*/{SPEC_FILE}") if NAME.fullmatch(path.parent.name)
    )


def list_datasets(layout: Layout) -> list[Listing]:
    """The data sets of a workspace by name; one that cannot be read is listed with its error."""
    out: list[Listing] = []
    for name in _names(layout):
        try:
            dataset = open_dataset(layout, name)
            kept = {record.digest: record.version for record in versions(layout, name)}
        except WorkbenchError as error:
            out.append(Listing(name, error=str(error)))
            continue
        version = kept.get(dataset.digest)
        splits = dataset.splits()
        out.append(Listing(name, len(dataset), dataset.digest, splits, version, dataset.spec.description))
    return out


def import_dataset(
    layout: Layout,
    path: str | Path,
    name: str,
    *,
    input: str | Sequence[str] | None = None,
    target: str | Sequence[str] | None = None,
    id: str | None = None,
    group: str | None = None,
    delimiter: str | None = None,
    schema: str | Path | None = None,
    replace: bool = False,
    now: datetime | None = None,
    **spec: Any,
) -> Dataset:
    """Check a file or folder and copy it into the workspace as `datasets/NAME/`: all of it, or nothing.

    Arguments as in `Dataset.read`, and:
        schema: a JSON Schema that every row is held to, kept beside the rows.
        replace: put it in the place of a data set of that name, whose rows stay as a version. Its schema stays in
            force, and its card stays unless it is the one that the import wrote.

    Raises:
        UsageError: the name is taken, or is not a name.
        DataError: the file, or a row in it, is malformed; names the line.
    """
    fields = {"input": columns(input), "target": columns(target), "id": id, "group": group, **spec}
    wanted = make_spec(name=name, **fields)
    folder = layout.datasets / name
    with locked(layout, name) as history:
        if _aside(folder).exists() and not folder.exists():
            os.rename(_aside(folder), folder)
        taken = folder.exists() and any(folder.iterdir())
        if taken and not replace:
            raise UsageError(
                f"there is a data set {name!r} already", hint="Choose another name, or replace it (--replace)"
            )
        rules = Path(schema) if schema else folder / SCHEMA_FILE if (folder / SCHEMA_FILE).is_file() else None
        source = Path(path)
        dataset = read_spec(form_of(source), source, wanted, delimiter, SchemaCheck(rules) if rules else None)
        card_text = card(dataset)
        if taken and (folder / SPEC_FILE).is_file():
            earlier = _open_folder(folder, name)
            snapshot_locked(history, records(layout, name), earlier, now or datetime.now(UTC))
            own_card = _read(folder / CARD_FILE)
            card_text = own_card if own_card not in (None, card(earlier)) else card_text
        layout.datasets.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{name}.import-", dir=layout.datasets))
        try:
            made.chmod(0o755)
            dataset.save(made)
            write_atomic(made / CARD_FILE, card_text)
            if rules:
                write_atomic(made / SCHEMA_FILE, rules.read_bytes())
            stored = _open_folder(made, name)
            if stored.digest != dataset.digest:
                raise IntegrityError(f"{source} does not survive being stored as JSON Lines: its digest changes")
            _put_in_place(made, folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return open_dataset(layout, name)


def _read(path: Path) -> str | None:
    return path.read_text("utf-8") if path.is_file() else None


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous")


def _put_in_place(made: Path, folder: Path) -> None:
    """Rename `made` to `folder`; an earlier folder steps aside first and comes back if that fails (see `_present`)."""
    aside = _aside(folder)
    if folder.exists():
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(folder, aside)
    try:
        os.rename(made, folder)
    except BaseException:
        if aside.exists():
            os.rename(aside, folder)
        raise
    fsync_directory(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)
