"""The manifest of a table: which Parquet files are live, and what of every journal and folder they hold.

It is replaced as a whole, by rename, so whoever reads it sees the table before a compaction or after it. Where it is lost,
the files say what it held: see `rebuild`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from workbench.errors import DataError
from workbench.files import write_atomic

FORMAT = 1
# What to do where it is lost.
REBUILD = "`workbench events rebuild` makes it again from the files that are there."


class LiveFile(BaseModel):
    """A Parquet file of one day.

    Attributes:
        name: `day=YYYY-MM-DD/NAME.parquet`, in the folder of the table.
        version: schema version of its rows.
        first, last: the earliest and the latest time in it, ISO 8601 UTC.
        size, mtime_ns: as it was published; a file that looks otherwise is held against `digest`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    version: int
    rows: int
    first: str
    last: str
    size: int
    mtime_ns: int
    digest: str

    @property
    def day(self) -> str:
        return self.name[4:14]


class FolderEntry(BaseModel):
    """A folder whose rows were copied into days: what it looked like, and which days."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    identity: str
    days: tuple[str, ...]


class RetiredFile(BaseModel):
    """A file that others replaced; it stays a while for whoever still reads it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    at: float


class AsideFile(BaseModel):
    """A file that was set aside, and how many rows were in it; None where nothing says it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    rows: int | None


class Manifest(BaseModel):
    """`manifest.json` of a table.

    Attributes:
        generation: how often the live files have changed.
        journals: by name: how many of its bytes are in the files.
        folders: by source and id.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format_version: int = FORMAT
    table: str
    generation: int = 0
    files: tuple[LiveFile, ...] = ()
    journals: dict[str, int] = {}
    folders: dict[str, dict[str, FolderEntry]] = {}
    retired: tuple[RetiredFile, ...] = ()
    aside: tuple[AsideFile, ...] = ()


_cache: dict[Path, tuple[tuple[int, int, int], Manifest]] = {}


def manifest_path(folder: Path, table: str) -> Path:
    return folder / table / "manifest.json"


def load_manifest(folder: Path, table: str) -> Manifest:
    """The manifest of a table; an empty one where there is none.

    Raises:
        DataError: it is damaged, or written by a newer version; names the file.
    """
    found = _find(folder, table)
    if isinstance(found, str):
        raise DataError(found, path=str(manifest_path(folder, table)), hint=REBUILD)
    return found


def find_manifest(folder: Path, table: str) -> Manifest | None:
    """As `load_manifest`; None where it is damaged.

    Raises:
        DataError: it is written by a newer version.
    """
    found = _find(folder, table)
    return None if isinstance(found, str) else found


def _find(folder: Path, table: str) -> Manifest | str:
    """The manifest, or what is wrong with it."""
    path = manifest_path(folder, table)
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            identity = found.st_ino, found.st_size, found.st_mtime_ns
            known = _cache.get(path)
            if known is not None and known[0] == identity:
                return known[1]
            data = file.read()
    except FileNotFoundError:
        return Manifest(table=table)
    manifest = _parse(data, path)
    if isinstance(manifest, Manifest):
        _cache[path] = identity, manifest
    return manifest


def _parse(data: bytes, path: Path) -> Manifest | str:
    try:
        content: Any = json.loads(data)
        version = content["format_version"]
    except (ValueError, KeyError, TypeError):
        return "is no manifest"
    if version != FORMAT:
        raise DataError(
            f"format version {version}, and this workbench knows {FORMAT}",
            path=str(path),
            hint="Upgrade: pip install --upgrade llmops-workbench",
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest of a table."""
    write_atomic(manifest_path(folder, manifest.table), manifest.model_dump_json(indent=1) + "\n")
