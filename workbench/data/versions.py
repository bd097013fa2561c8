"""Versions: the rows that a run used, kept as Parquet by digest so that an old run's rows stay readable.

`<blobs>/../datasets/NAME/` holds `<digest>.parquet` files, which never change, and `versions.jsonl`, which only grows.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workbench.data.dataset import Dataset
from workbench.data.opening import scan_parquet
from workbench.data.spec import DEFAULT_SPLITS, DatasetSpec
from workbench.errors import DataError, IntegrityError, NotFoundError
from workbench.files import canonical_json, digest_bytes, digest_file, write_atomic
from workbench.workspace import Layout

FORMAT = 2


@dataclass(frozen=True)
class Version:
    """One line of `versions.jsonl`.

    Attributes:
        version: counts from 1 for each data set.
        digest: content digest of the rows.
        created_at: ISO 8601, UTC.
        part: the rows are a part (a split or a sample) of that version; `split` names it if it is a split.
        blob: digest of the Parquet file.
    """

    version: int
    digest: str
    rows: int
    created_at: str
    part: bool
    split: str | None
    spec: DatasetSpec
    json_columns: frozenset[str]
    blob: str


def history_folder(layout: Layout, name: str) -> Path:
    """Where the versions of a data set lie."""
    return layout.blobs.parent / "datasets" / name


@contextlib.contextmanager
def locked(layout: Layout, name: str) -> Iterator[Path]:
    """Hold the data set's lock, across processes; gives its history folder."""
    folder = history_folder(layout, name)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def records(layout: Layout, name: str) -> list[Version]:
    """Every version and part of a data set, oldest first.

    Raises:
        DataError: a line of `versions.jsonl` is malformed.
    """
    path = history_folder(layout, name) / "versions.jsonl"
    lines = _whole_lines(path.read_bytes()) if path.is_file() else []
    out: list[Version] = []
    for number, line in enumerate(lines, start=1):
        try:
            fields = json.loads(line)
            if (written := fields.pop("format_version")) not in (1, FORMAT):
                raise ValueError("a format this version does not read")
            spec = DatasetSpec.model_validate(_with_splits(fields.pop("spec"), written))
            out.append(Version(spec=spec, json_columns=frozenset(fields.pop("json_columns")), **fields))
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"malformed: {error}", path=str(path), line=number) from None
    return out


def _with_splits(spec: dict[str, Any], written: int) -> dict[str, Any]:
    """A spec with its splits in order, on which depends which rows they have.

    Format 1 lost the order by sorting the names; those of the defaults are put back in theirs.
    """
    if written == FORMAT:
        return {**spec, "splits": dict(spec["splits"])}
    splits = spec["splits"]
    return {
        **spec,
        "splits": {name: splits[name] for name in (DEFAULT_SPLITS if set(splits) == set(DEFAULT_SPLITS) else splits)},
    }


def versions(layout: Layout, name: str) -> list[Version]:
    """The versions of a data set, oldest first, without the parts of them that runs used."""
    return [record for record in records(layout, name) if not record.part]


def snapshot(layout: Layout, dataset: Dataset, *, now: datetime | None = None) -> int:
    """Keep a data set's rows and return their version number; equal rows keep the number they have.

    A split or a sample is kept under its own digest, as a part of the version of the whole.
    """
    with locked(layout, dataset.name) as folder:
        return snapshot_locked(folder, records(layout, dataset.name), dataset, now or datetime.now(UTC))


def snapshot_locked(folder: Path, known: list[Version], dataset: Dataset, now: datetime) -> int:
    """`snapshot` for a caller that holds the lock."""
    whole = dataset.whole or dataset
    numbered = [record for record in known if not record.part]
    same = next((record for record in numbered if record.digest == whole.digest), None)
    number = same.version if same else max((record.version for record in numbered), default=0) + 1
    if not _kept(folder, same):
        _keep(folder, whole, number, now, part=False)
    if dataset.whole is not None and dataset.digest != whole.digest:
        part = next((record for record in known if record.part and record.digest == dataset.digest), None)
        if not _kept(folder, part):
            _keep(folder, dataset, number, now, part=True)
    return number


def _kept(folder: Path, record: Version | None) -> bool:
    return record is not None and _blob(folder, record.digest).is_file()


def _keep(folder: Path, dataset: Dataset, number: int, now: datetime, *, part: bool) -> None:
    buffer = io.BytesIO()
    # In the order that the rows stand in, on which `head` depends.
    dataset.frame().write_parquet(buffer)
    data = buffer.getvalue()
    write_atomic(_blob(folder, dataset.digest), data)
    record: dict[str, Any] = {
        "format_version": FORMAT,
        "version": number,
        "digest": dataset.digest,
        "rows": len(dataset),
        "created_at": now.astimezone(UTC).isoformat(timespec="seconds"),
        "part": part,
        "split": dataset.split_name if part else None,
        "spec": {**dataset.spec.model_dump(mode="json"), "splits": list(dataset.spec.splits.items())},
        "json_columns": sorted(dataset.json_columns),
        "blob": digest_bytes(data),
    }
    _append(folder / "versions.jsonl", canonical_json(record) + b"\n")


def _append(path: Path, line: bytes) -> None:
    with path.open("ab+") as file:
        file.seek(0)
        whole = sum(len(kept) + 1 for kept in _whole_lines(file.read()))
        file.truncate(whole)  # a line that a crash cut short was never promised to anyone
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _whole_lines(data: bytes) -> list[bytes]:
    return data.split(b"\n")[:-1]


def _blob(folder: Path, digest: str) -> Path:
    return folder / f"{digest.removeprefix('sha256:')}.parquet"


def open_version(layout: Layout, name: str, wanted: str) -> Dataset:
    """The rows of a version, by its number or by the beginning of its digest; every byte is checked.

    Raises:
        NotFoundError: there is no such version, or the beginning fits several.
        IntegrityError: the stored rows are not what was stored.
    """
    known = records(layout, name)
    prefix = wanted.removeprefix("sha256:")
    found = [record for record in known if not record.part and str(record.version) == wanted]
    if not found and len(prefix) >= 6:
        found = [record for record in known if record.digest.removeprefix("sha256:").startswith(prefix)]
    if not found:
        numbers = [str(record.version) for record in known if not record.part]
        hint = f"Its versions are: {', '.join(numbers)}" if numbers else "No version of it has been kept yet"
        raise NotFoundError(f"the data set {name!r} has no version {wanted!r}", hint=hint)
    if len({record.digest for record in found}) > 1:
        raise NotFoundError(f"{wanted!r} fits {len(found)} versions of {name!r}", hint="Give more of the digest")
    return _open(history_folder(layout, name), found[-1], found[-1].part)


def _open(folder: Path, record: Version, part: bool) -> Dataset:
    path = _blob(folder, record.digest)
    if not path.is_file():
        raise NotFoundError(f"the rows of {record.spec.name}@{record.version} are gone ({path})")
    if digest_file(path) != record.blob:
        raise IntegrityError(f"{path} is not what was stored", hint="Restore the file from a backup")
    dataset = scan_parquet(path, record.spec, record.json_columns)
    if dataset.digest != record.digest:
        raise IntegrityError(f"the rows in {path} do not match their digest", hint="Restore the file from a backup")
    return dataset
