"""Damaged files are moved to `aside/`, where they stay until somebody deletes them; until then every reader names them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from workbench.events.manifest import AsideFile, FolderEntry, LiveFile, Manifest
from workbench.events.parquet import fault
from workbench.events.schema import Table
from workbench.files import write_atomic

# The identity of a folder some of whose rows were in a damaged file: no folder looks like it, so it is read again.
DAMAGED = "damaged"


def aside_problems(folder: Path, table: Table, manifest: Manifest) -> dict[str, str]:
    """What lies aside of a table, by path."""
    aside = folder / "aside"
    if not aside.is_dir():
        return {}
    rows = {file.name: file.rows for file in manifest.aside}
    found = {}
    for name in sorted(os.listdir(aside)):
        if name.startswith(f"{table.name}-"):
            count = rows.get(name)
            what = (
                "with damaged lines" if name.endswith(".damaged") else f"with {'its' if count is None else count} rows"
            )
            day = re.match(r"\d{4}-\d{2}-\d{2}", name[len(table.name) + 1 :])
            of_day = f" of {day[0]}" if day else ""
            found[str(aside / name)] = f"was set aside, {what}{of_day}; restore what can be, then delete it"
    return found


def keep_lines(folder: Path, table: Table, name: str, lines: list[bytes]) -> None:
    """Keep damaged lines of a journal aside."""
    write_atomic(folder / "aside" / f"{table.name}-{name}.damaged", b"\n".join(lines) + b"\n")


def without_damaged(folder: Path, table: Table, manifest: Manifest, *, whole: bool) -> Manifest:
    """Move damaged live files aside. Returns the manifest without them; it is not saved.

    Folders whose rows were in them are marked, so that their rows are copied again.

    Args:
        whole: read every file.
    """
    files, aside = [], list(manifest.aside)
    days = set()
    for file in manifest.files:
        if _move_damaged(folder, table, file, whole):
            aside.append(AsideFile(name=_name(table, file), rows=file.rows))
            days.add(file.day)
        else:
            files.append(file)
    folders = {
        source: {name: _marked(entry, days) for name, entry in entries.items()}
        for source, entries in manifest.folders.items()
    }
    return manifest.model_copy(update={"files": tuple(files), "aside": tuple(aside), "folders": folders})


def _marked(entry: FolderEntry, days: set[str]) -> FolderEntry:
    return entry.model_copy(update={"identity": DAMAGED}) if days.intersection(entry.days) else entry


def _name(table: Table, file: LiveFile) -> str:
    return f"{table.name}-{file.day}-{Path(file.name).name}"


def _move_damaged(folder: Path, table: Table, file: LiveFile, whole: bool) -> bool:
    path = folder / table.name / file.name
    table.check_version(file.version, str(path))
    target = folder / "aside" / _name(table, file)
    try:
        if fault(path, file, whole=whole) is None:
            return False
        target.parent.mkdir(exist_ok=True)
        os.replace(path, target)
    except FileNotFoundError:
        if not target.exists():
            write_atomic(target, b"")
    return True
