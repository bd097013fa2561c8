"""Readers: one file of a corpus as readable text, by its suffix."""

from __future__ import annotations

import ast
import io
import json
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import yaml

from workbench.data.values import normalise
from workbench.errors import require
from workbench.retrieval.types import Format

FORMATS: frozenset[str] = frozenset(get_args(Format))
_FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#[ \t]+(.+?)[ \t#]*$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n[ \t]*\n(?:[ \t]*\n)+")
# What a page shows its readers in a menu, or does not show at all.
_NOT_TEXT = ("script", "style", "template", "noscript", "head", "nav", "svg")
PAGE_BREAK = "\n\f\n"


class Unreadable(Exception):
    """This document is left out; the message is one line that says why."""


@dataclass(frozen=True)
class Text:
    """What a reader made of a file. `access` is None where the file itself names no label."""

    text: str
    title: str = ""
    format: Format = "text"
    access: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


def read_file(path: Path) -> Text:
    """The text of a file, read as its suffix says; any suffix that is not known is read as plain text.

    Line ends become `\\n` and a byte order mark goes. HTML becomes Markdown with its headings, lists, tables and code but
    without links' addresses; of PDF there is the text, with a form feed between pages; of a notebook the cells, code as
    fenced blocks, without outputs.

    Raises:
        Unreadable: the file has no text that can be read; says why.
        MissingExtraError: the library that reads HTML or PDF is not installed.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror or error}") from None
    if not data.strip():
        raise Unreadable("empty")
    found = READERS.get(path.suffix.lower(), _plain)(data)
    if not found.text.strip():
        raise Unreadable("no text")
    return checked(found)


def checked(found: Text) -> Text:
    """`found` with its text, title and metadata known to be Unicode and JSON.

    Raises:
        Unreadable: a NUL, half a surrogate pair, or metadata without a JSON form.
    """
    try:
        normalise([found.text, found.title, found.access])
        metadata = normalise(dict(found.metadata))
    except ValueError as error:
        raise Unreadable(one_line(error)) from None
    return Text(found.text, found.title, found.format, found.access, metadata)


def one_line(error: BaseException | str) -> str:
    """A message on one line of at most 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"


def decoded(data: bytes) -> str:
    """UTF-8 text with `\\n` at the end of lines.

    Raises:
        Unreadable: it is binary or in another encoding; names the line.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Unreadable("UTF-16, not UTF-8")
    if b"\0" in data:
        raise Unreadable("binary")
    try:
        text = data.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Unreadable(f"not UTF-8: byte 0x{data[error.start]:02x} on line {line}") from None
    return _lines(text)


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _plain(data: bytes) -> Text:
    return Text(decoded(data))


def _markdown(data: bytes) -> Text:
    text = decoded(data)
    fields: dict[str, Any] = {}
    matter = _FRONT_MATTER.match(text)
    if matter:
        try:
            if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(matter[1])):
                # A few lines of nested aliases unfold to gigabytes.
                raise Unreadable("front matter with aliases")
            found = yaml.safe_load(matter[1])
        except (yaml.YAMLError, ValueError) as error:
            # It may hold an access label: a document whose label cannot be read must not become public.
            raise Unreadable(f"front matter is not YAML: {one_line(error)}") from None
        if isinstance(found, dict):
            fields, text = {str(key): value for key, value in found.items()}, text[matter.end() :]
    label, title = fields.pop("access", None), fields.pop("title", None)
    if label is not None and not (isinstance(label, str) and label):
        raise Unreadable("front matter: access must be text")
    return Text(text, _title(text) if title is None else str(title), "markdown", label, fields)


def _title(markdown: str) -> str:
    heading = _HEADING.search(markdown)
    return heading[1] if heading else ""


def _html(data: bytes) -> Text:
    bs4 = require("bs4", extra="rag")
    markdownify = require("markdownify", extra="rag")
    text = _declared(data, bs4) or decoded(data)
    with warnings.catch_warnings():
        # XHTML is read as HTML on purpose, and a short page may look like a file name.
        warnings.simplefilter("ignore")
        soup = bs4.BeautifulSoup(text, "html.parser")
    title = soup.title.get_text() if soup.title else ""
    for tag in soup.find_all(_NOT_TEXT):
        tag.decompose()
    # `<?xml …?>` is no text either.
    for node in soup.find_all(string=lambda node: isinstance(node, bs4.element.ProcessingInstruction)):
        node.extract()
    try:
        made = markdownify.MarkdownConverter(
            heading_style="ATX", bullets="-", strip=["a", "img"], escape_asterisks=False, escape_underscores=False
        ).convert_soup(soup)
    except RecursionError:
        raise Unreadable("HTML nested too deeply") from None
    made = _BLANK_LINES.sub("\n\n", made).strip("\n")
    return Text(made, " ".join(title.split()) or _title(made), "html")


def _declared(data: bytes, bs4: Any) -> str | None:
    """The text where the page names an encoding other than UTF-8."""
    name = bs4.dammit.EncodingDetector.find_declared_encoding(data, is_html=True)
    if not name or name.lower().replace("-", "") == "utf8" or data.startswith(b"\xef\xbb\xbf"):
        return None
    try:
        return _lines(data.decode(name))
    except LookupError:
        raise Unreadable(f"the encoding {one_line(name)!r} is not known") from None
    except UnicodeDecodeError as error:
        raise Unreadable(f"not {one_line(name)}: byte 0x{data[error.start]:02x}") from None


def _pdf(data: bytes) -> Text:
    pypdf = require("pypdf", extra="rag")
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("PDF with a password")
        pages = [_lines(page.extract_text()) for page in reader.pages]
        title = (reader.metadata.title if reader.metadata else None) or ""
    except Unreadable:
        raise
    except Exception as error:  # pypdf lets KeyError, TypeError and others through for a damaged file
        raise Unreadable(f"PDF cannot be read: {one_line(error)}") from None
    if not any(page.strip() for page in pages):
        raise Unreadable("PDF without text; are its pages pictures?")
    text = PAGE_BREAK.join(page.replace("\0", "") for page in pages)
    return Text(text, " ".join(str(title).split()), "pdf", metadata={"pages": len(pages)})


def _notebook(data: bytes) -> Text:
    try:
        notebook = json.loads(decoded(data))
        cells = notebook["cells"]
        about = notebook.get("metadata", {})
        language = about.get("language_info", {}).get("name") or about.get("kernelspec", {}).get("language") or "python"
        parts = [_cell(cell, language) for cell in cells]
    except RecursionError:
        raise Unreadable("notebook nested too deeply") from None
    except json.JSONDecodeError as error:
        raise Unreadable(f"notebook is not JSON: {one_line(error)}") from None
    except (KeyError, TypeError, AttributeError):
        raise Unreadable("not a notebook of format 4") from None
    text = "\n\n".join(part for part in parts if part)
    return Text(text, _title(text), "notebook")


def _cell(cell: Any, language: str) -> str:
    source = cell["source"]
    text = _lines(source if isinstance(source, str) else "".join(source)).strip("\n")
    if not text.strip() or cell["cell_type"] not in ("markdown", "code"):
        return ""
    if cell["cell_type"] == "markdown":
        return text
    longest = max((len(run) for run in re.findall("`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _python(data: bytes) -> Text:
    text = decoded(data)
    try:
        with warnings.catch_warnings():
            # An invalid escape in somebody's code is not this reader's concern.
            warnings.simplefilter("ignore")
            lines = (ast.get_docstring(ast.parse(text)) or "").strip().splitlines()
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        lines = []  # code of another Python version is text all the same
    return Text(text, lines[0].strip() if lines else "", "python")


READERS: Mapping[str, Callable[[bytes], Text]] = {
    ".md": _markdown,
    ".markdown": _markdown,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
    ".ipynb": _notebook,
    ".py": _python,
    ".txt": _plain,
    ".text": _plain,
    ".rst": _plain,
}
