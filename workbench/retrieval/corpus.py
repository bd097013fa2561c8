"""Corpus: the documents that are searched, with a content digest and a list of what could not be read."""

from __future__ import annotations

import difflib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from workbench.errors import DataError, NotFoundError, UsageError
from workbench.files import digest_json, short
from workbench.retrieval.types import PUBLIC, Document

# More than any text that is meant to be read; what is larger is a log or an export.
SIZE_LIMIT = 50_000_000
# The corpus that every Python carries; see `python_reference`.
STARTER = "python-reference"
SHOWN = 20
Access = str | Callable[[str], str]


@dataclass(frozen=True)
class Rejected:
    """Something that was not read: its id (or file and line), and one line that says why.

    Attributes:
        same_as: id of the document that has its text, if that is why.
    """

    id: str
    reason: str
    same_as: str | None = None


@dataclass(frozen=True, eq=False)
class Corpus:
    """Documents, sorted by id whatever order they are given in.

    Attributes:
        rejected: what was found but not read, sorted by id.

    Raises:
        UsageError: two documents have one id.
    """

    name: str
    documents: tuple[Document, ...]
    rejected: tuple[Rejected, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "documents", tuple(sorted(self.documents, key=lambda document: document.id)))
        object.__setattr__(self, "rejected", tuple(sorted(self.rejected, key=lambda entry: (entry.id, entry.reason))))
        counts = Counter(document.id for document in self.documents)
        twice = [key for key, count in counts.items() if count > 1]
        if twice:
            raise UsageError(f"the corpus {self.name!r} has two documents {twice[0]!r}")

    @cached_property
    def digest(self) -> str:
        """Over the documents' digests: the same documents have one, whatever they were read from."""
        return digest_json(sorted(document.digest for document in self.documents))

    @cached_property
    def _by_id(self) -> dict[str, Document]:
        return {document.id: document for document in self.documents}

    @property
    def characters(self) -> int:
        return sum(len(document.text) for document in self.documents)

    def __len__(self) -> int:
        return len(self.documents)

    def __iter__(self) -> Iterator[Document]:
        return iter(self.documents)

    def __contains__(self, id: object) -> bool:
        return id in self._by_id

    def get(self, id: str) -> Document:
        """A document by its id.

        Raises:
            NotFoundError: there is none.
        """
        if id not in self._by_id:
            near = difflib.get_close_matches(id, self._by_id, n=3)
            hint = f"Did you mean {', '.join(map(repr, near))}?" if near else None
            raise NotFoundError(f"the corpus {self.name!r} has no document {id!r}", hint=hint)
        return self._by_id[id]

    def find(self, id: str) -> Document | None:
        """The document of that id, or the one whose text it shares where it was rejected for that; None without either."""
        return self._by_id.get(id) or self._by_id.get(self._same.get(id, ""))

    @cached_property
    def _same(self) -> dict[str, str]:
        return {entry.id: entry.same_as for entry in self.rejected if entry.same_as is not None}

    def add(self, documents: Iterable[Document]) -> Corpus:
        """A corpus with these documents as well; one whose text is there already is listed in `rejected`.

        Raises:
            UsageError: an id is taken.
        """
        new = sorted(documents, key=lambda document: document.id)
        for document in new:
            if document.id in self:
                raise UsageError(
                    f"the corpus {self.name!r} has a document {document.id!r} already",
                    hint="Take it out first, with without([id])",
                )
        kept, rejected = unique([*self.documents, *new])
        return Corpus(self.name, tuple(kept), (*self.rejected, *rejected))

    def without(self, ids: Iterable[str]) -> Corpus:
        """A corpus without these documents.

        Raises:
            NotFoundError: one of them is not there.
        """
        gone = {self.get(id).id for id in ids}
        kept = tuple(document for document in self.documents if document.id not in gone)
        return Corpus(self.name, kept, self.rejected)

    def __str__(self) -> str:
        head = f"corpus {self.name} {short(self.digest)}: {len(self):,} documents, {self.characters:,} characters"
        if not self.rejected:
            return head
        more = len(self.rejected) - SHOWN
        lines = [f"  {entry.id}: {entry.reason}" for entry in self.rejected[:SHOWN]]
        lines += [f"  and {more:,} more"] if more > 0 else []
        return "\n".join([f"{head}, {len(self.rejected):,} rejected:", *lines])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from workbench.html import callout, escape, table

        labels = Counter(document.access for document in self.documents)
        formats = Counter(document.format for document in self.documents)
        rows: list[tuple[str, object]] = [
            (
                "documents",
                f"{len(self):,} ({', '.join(f'{name} {count:,}' for name, count in sorted(formats.items()))})",
            ),
            ("characters", f"{self.characters:,}"),
            ("access", ", ".join(f"{name} {count:,}" for name, count in sorted(labels.items()))),
            ("digest", short(self.digest)),
        ]
        shown = f"<b>{escape(self.name)}</b>" + table(("", ""), rows)
        if self.rejected:
            more = len(self.rejected) - SHOWN
            shown += callout(f"{len(self.rejected):,} not read", "warn")
            shown += table(("rejected", "reason"), [(entry.id, entry.reason) for entry in self.rejected[:SHOWN]])
            shown += f"<p style='opacity:.7'>and {more:,} more</p>" if more > 0 else ""
        return f"<div>{shown}</div>"


def unique(documents: Iterable[Document]) -> tuple[list[Document], list[Rejected]]:
    """The documents without those whose text, under the same access label, an earlier one has."""
    first: dict[tuple[bytes, str], str] = {}
    kept: list[Document] = []
    rejected: list[Rejected] = []
    for document in documents:
        key = (hashlib.sha256(document.text.encode()).digest(), document.access)
        same = first.setdefault(key, document.id)
        if same == document.id:
            kept.append(document)
        else:
            rejected.append(Rejected(document.id, f"same text as {same}", same))
    return kept, rejected


def read_corpus(
    path: str | Path,
    *,
    name: str | None = None,
    include: str | Sequence[str] | None = None,
    access: Access = PUBLIC,
    size_limit: int = SIZE_LIMIT,
) -> Corpus:
    """Read a folder of files, one file, a JSON Lines file, or a BEIR folder (`corpus.jsonl`).

    In a folder a document's id is its path there, with `/`. Hidden files and folders and `__pycache__` are passed over.
    A line of JSON Lines has `id` (or `_id`) and `text`, and may have `title`, `access`, `format` and `metadata`; its
    other fields join the metadata. What cannot be read is listed in `rejected`, and the rest is read: other encodings
    than UTF-8, binary, empty or large files, kinds that are not known, malformed lines, links to folders or out of the
    folder, text that another document has.

    Args:
        name: default: the name of the folder, or of the file without its suffix.
        include: patterns such as `*.md` for ids, where `*` stands for slashes too. Files that match are read as plain
            text where their suffix is not known. Default: Markdown, HTML, PDF, notebooks, Python and plain text.
        access: the label that readers need, or a function from id to label. A label that a document names itself, as
            `access:` in the front matter of Markdown or as a field of JSON Lines, goes first.
        size_limit: in bytes, of one file or line.

    Raises:
        DataError: there is no such path, or nothing in it could be read; says what was looked for.
        MissingExtraError: the library that reads HTML or PDF is not installed.
    """
    from workbench.retrieval.corpus_sources import Source, read_folder, read_lines, read_one

    where = Path(path)
    if not where.exists():
        raise DataError("no such file or folder", path=str(where))
    patterns = (include,) if isinstance(include, str) else tuple(include) if include is not None else None
    source = Source(access, size_limit)
    lines = where / "corpus.jsonl" if (where / "corpus.jsonl").is_file() else where
    if lines.suffix.lower() in (".jsonl", ".ndjson") and lines.is_file():
        looked_for = "lines of JSON with id and text"
        read_lines(lines, source)
    elif where.is_dir():
        looked_for = read_folder(where, patterns, source)
    else:
        looked_for = "a text"
        read_one(where, where.name, source)
    # Lines keep the order of their file, so that the first of two equal ones stays.
    kept, same = unique(source.documents)
    corpus = Corpus(name or where.resolve().stem, tuple(kept), (*source.rejected, *same))
    if not kept:
        reasons = "; ".join(f"{entry.id}: {entry.reason}" for entry in corpus.rejected[:3])
        more = len(corpus.rejected) - 3
        hint = f"Rejected: {reasons}" + (f"; and {more:,} more" if more > 0 else "") if reasons else None
        raise DataError(f"no document here; looked for {looked_for}", path=str(where), hint=hint)
    return corpus


def python_reference() -> Corpus:
    """The Python language reference that this Python carries: about 80 topics, named as `help()` names them.

    Its text follows the Python version, and so does its digest.
    """
    from pydoc_data.topics import topics

    documents = [
        Document(topic, text, title=text.lstrip().split("\n", 1)[0].strip(), metadata={"topic": topic})
        for topic, text in sorted(topics.items())
    ]
    kept, rejected = unique(documents)
    return Corpus(STARTER, tuple(kept), tuple(rejected))


def open_corpus(name: str | Path) -> Corpus:
    """The corpus that people name: `python-reference`, the paragraphs of a JSON file in SQuAD's form, or a path.

    Errors as in `read_corpus`.
    """
    if str(name) == STARTER:
        return python_reference()
    if Path(name).suffix.lower() == ".json" and Path(name).is_file():
        from workbench.retrieval.questions import read_squad

        return read_squad(name)[0]
    return read_corpus(name)
