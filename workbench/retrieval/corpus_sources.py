"""Sources of a corpus: the files of a folder, or the lines of a JSON Lines file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

from workbench.errors import DataError, UsageError
from workbench.retrieval.corpus import Access, Rejected
from workbench.retrieval.corpus_readers import FORMATS, READERS, Text, Unreadable, checked, one_line, read_file
from workbench.retrieval.types import Document, Format

_KNOWN = frozenset({"id", "_id", "text", "title", "access", "format", "metadata"})


@dataclass
class Source:
    """What has been read so far, and under which labels."""

    access: Access
    size_limit: int
    documents: list[Document] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)

    def accept(self, id: str, found: Text) -> None:
        label = found.access if found.access is not None else self._label(id)
        self.documents.append(Document(id, found.text, found.title, found.format, label, found.metadata))

    def _label(self, id: str) -> str:
        label: Any = self.access(id) if callable(self.access) else self.access
        if not isinstance(label, str) or not label:
            raise UsageError(f"the access label of {id!r} is {label!r}, not a text")
        return label

    def reject(self, id: str, reason: str) -> None:
        self.rejected.append(Rejected(id, reason))


def read_folder(folder: Path, include: Sequence[str] | None, source: Source) -> str:
    """Read the files of a folder in the order of their ids; returns what was looked for, in words."""
    for id, path in sorted(_files(folder, source)):
        if include is not None:
            if any(fnmatchcase(id, pattern) for pattern in include):
                read_one(path, id, source)
        elif path.suffix.lower() in READERS:
            read_one(path, id, source)
        else:
            lines = path.suffix.lower() in (".jsonl", ".ndjson")
            source.reject(
                id, "JSON Lines are read by themselves" if lines else f"not read: {path.suffix or 'no suffix'}"
            )
    return ", ".join(include if include is not None else [f"*{suffix}" for suffix in READERS])


def _files(folder: Path, source: Source) -> Iterator[tuple[str, Path]]:
    root = folder.resolve()
    for where, folders, files in os.walk(folder):
        here = Path(where)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__pycache__")
        for name in folders:
            if (here / name).is_symlink():
                source.reject((here / name).relative_to(folder).as_posix(), "a link to a folder")
        for name in sorted(files):
            path = here / name
            id = path.relative_to(folder).as_posix()
            if name.startswith("."):
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                source.reject(id, "a link out of the folder")
            else:
                yield id, path


def read_one(path: Path, id: str, source: Source) -> None:
    """Read one file as the document `id`, or reject it."""
    try:
        id.encode()
    except UnicodeEncodeError:
        source.reject(id.encode(errors="backslashreplace").decode(), "the file name is not UTF-8")
        return
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise Unreadable("not a file")
        if size > source.size_limit:
            raise Unreadable(f"{size / 1e6:,.1f} MB, more than {source.size_limit / 1e6:,.1f} MB")
        source.accept(id, read_file(path))
    except OSError as error:
        source.reject(id, f"cannot be read: {error.strerror or error}")
    except Unreadable as error:
        source.reject(id, str(error))


def read_lines(path: Path, source: Source) -> None:
    """Read JSON Lines, a document a line; a line that is none is rejected as `FILE:LINE`."""
    lines: dict[str, int] = {}
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                data = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if not data.strip():
                    continue
                try:
                    if len(data) > source.size_limit:
                        raise Unreadable(f"{len(data) / 1e6:,.1f} MB, more than {source.size_limit / 1e6:,.1f} MB")
                    id, found = _document(data)
                    if id in lines:
                        raise Unreadable(f"the id {id!r} is on line {lines[id]} too")
                    source.accept(id, found)
                    lines[id] = number
                except Unreadable as error:
                    source.reject(f"{path.name}:{number}", str(error))
    except OSError as error:
        raise DataError(error.strerror or str(error), path=str(path)) from None


def _document(line: bytes) -> tuple[str, Text]:
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError:
        raise Unreadable("not UTF-8") from None
    except RecursionError:
        raise Unreadable("nested too deeply") from None
    except ValueError as error:
        raise Unreadable(f"not JSON: {one_line(error)}") from None
    if not isinstance(row, dict):
        raise Unreadable("not a JSON object")
    id = row.get("id", row.get("_id"))
    if isinstance(id, int) and not isinstance(id, bool):
        id = str(id)
    if not isinstance(id, str) or not id.strip():
        raise Unreadable("no id")
    text, title = _field(row, "text"), _field(row, "title")
    # Some BEIR documents are a title alone.
    body = text if text.strip() else title
    if not body.strip():
        raise Unreadable("empty")
    label = row.get("access")
    if label is not None and not (isinstance(label, str) and label):
        raise Unreadable("access must be text")
    metadata = row.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise Unreadable("metadata must be an object")
    kind = row.get("format") or "text"
    if not isinstance(kind, str) or kind not in FORMATS:
        raise Unreadable(f"the format {kind!r} is not one of {', '.join(sorted(FORMATS))}")
    others = {key: value for key, value in row.items() if key not in _KNOWN and value is not None}
    found = checked(Text(body, title, cast(Format, kind), label, {**others, **metadata}))
    checked(Text(id))
    return id, found


def _field(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise Unreadable(f"{name} must be text")
    return value or ""
