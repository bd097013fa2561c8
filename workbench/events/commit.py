"""Commit: one change of a table's live files, kept in the metadata of every file that came with it.

A manifest that is lost can so be made again: the newest commit says which files are live and what of the journals they hold.
A commit always writes a file: one without rows where rows only went.
"""

from __future__ import annotations

import base64
import json
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import polars as pl

# In Parquet's key-value metadata.
COMMIT_KEY = "workbench.commit"
_NAME = re.compile(r"day=\d{4}-\d{2}-\d{2}/g(\d+)-([0-9a-f]{8})-\d+\.parquet")


@dataclass(frozen=True)
class Commit:
    """One change of the live files of a table.

    Attributes:
        generation: one more than that of the manifest before it.
        token: tells it from another one of the same generation, which was killed before its manifest was written.
        live: every live file after it; names as in manifests.
        replaces: files that were live before it.
        journals: how many bytes of journals are in the files after it.
        took: journals that it took rows from.
    """

    generation: int
    token: str
    live: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    journals: Mapping[str, int] = field(default_factory=dict)
    took: tuple[str, ...] = ()

    def names(self, days: Iterable[str]) -> list[str]:
        """Names for the files that come with it, one for each of `days`."""
        return [f"day={day}/g{self.generation}-{self.token}-{number}.parquet" for number, day in enumerate(days)]

    @property
    def own(self) -> tuple[str, ...]:
        """Files that came with it."""
        return tuple(name for name in self.live if key_of(name) == (self.generation, self.token))

    def metadata(self) -> dict[str, str]:
        """As key and value in Parquet's metadata."""
        return {COMMIT_KEY: base64.b64encode(zlib.compress(json.dumps(asdict(self)).encode())).decode()}

    def undoable(self, folder: Path, table: str) -> bool:
        """Whether all that its rows were made of is still there, in the folder of the events."""
        files = (folder / table / name for name in self.replaces)
        journals = (folder / "journals" / table / name for name in self.took)
        return all(path.exists() for path in (*files, *journals))


def key_of(name: str) -> tuple[int, str] | None:
    """Generation and token in the name of a file; None where it has none."""
    found = _NAME.fullmatch(name)
    return (int(found[1]), found[2]) if found else None


def generation_of(name: str) -> int:
    """The generation in the name of a file; 0 where it has none."""
    key = key_of(name)
    return key[0] if key else 0


def read_commit(path: Path) -> Commit | None:
    """The commit that a file came with; None where it names none or cannot be read."""
    try:
        kept = pl.read_parquet_metadata(path).get(COMMIT_KEY)
        if kept is None:
            return None
        found = json.loads(zlib.decompress(base64.b64decode(kept)))
        lists = {name: tuple(found[name]) for name in ("live", "replaces", "took")}
        return Commit(**found | lists)
    except (
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        zlib.error,
    ):
        return None


def list_files(folder: Path, table: str) -> list[str]:
    """Finished files of a table, whether a manifest names them or not; names as in manifests."""
    found = []
    try:
        days = [day.name for day in os.scandir(folder / table) if day.name.startswith("day=")]
    except FileNotFoundError:
        return []
    for day in days:
        try:
            with os.scandir(folder / table / day) as entries:
                names = [entry.name for entry in entries]
        except (FileNotFoundError, NotADirectoryError):
            continue
        found += [f"{day}/{name}" for name in names if name.endswith(".parquet") and not name.startswith(".")]
    return sorted(found)
