"""Real text that every Python carries, for benchmarks of retrieval: the language reference and the docstrings of its library."""

from __future__ import annotations

import ast
import itertools
import random
import re
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

from workbench.retrieval.corpus import Corpus, python_reference
from workbench.retrieval.types import Document

# Parts of the library that are no library: tests, and tables of characters.
_LEFT_OUT = frozenset({"site-packages", "test", "tests", "idlelib", "lib2to3", "pydoc_data", "encodings"})


def library_corpus(characters: int) -> Corpus:
    """The language reference, and docstrings of the standard library, a module a document, up to so many characters."""
    documents: list[Document] = []
    total = 0
    for document in itertools.chain(python_reference().documents, _docstrings()):
        if total >= characters:
            break
        documents.append(document)
        total += len(document.text)
    return Corpus("python-library", tuple(documents))


def _docstrings() -> Iterator[Document]:
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        name = path.relative_to(library)
        if _LEFT_OUT & set(name.parts):
            continue
        try:
            tree = ast.parse(path.read_text("utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            # Files that are kept to be wrong, in some distributions of Python.
            continue
        parts = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, _DOCUMENTED)]
        text = "\n\n".join(part for part in parts if part)
        if text:
            yield Document(f"library/{name}", text)


_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def edited(texts: Sequence[str], count: int, seed: int = 0) -> list[str]:
    """`count` distinct texts: those given, then copies in which about one word in eight was replaced by another's word."""
    chance = random.Random(seed)
    found = list(dict.fromkeys(texts))[:count]
    seen = set(found)
    words = sorted({word for text in found for word in re.findall(r"\w+", text)})
    for source in itertools.cycle(list(found)):
        if len(found) >= count:
            break
        copy = re.sub(r"\w+", lambda match: chance.choice(words) if chance.random() < 0.125 else match[0], source)
        if copy not in seen:
            seen.add(copy)
            found.append(copy)
    return found
