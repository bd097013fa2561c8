"""Cuts: a text cut every so many tokens, or along its paragraphs, Markdown blocks or statements."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from workbench.errors import require
from workbench.retrieval.chunk_sizes import PIECE, Ruler, TokenRuler, cut_at_whitespace

# `(start, end)` in characters.
Stretch = tuple[int, int]
_SEPARATORS = {
    "recursive": ("\n\n", "\n", " "),
    "markdown": ("\n# ", "\n## ", "\n### ", "\n\n", "\n", " "),
    "code": ("\nclass ", "\ndef ", "\n\n\n", "\n\n", "\n", " "),
}


def fixed(text: str, ruler: Ruler, size: int, overlap: int) -> Iterator[Stretch]:
    """Stretches of at most `size` units, each beginning `overlap` units, less at most a word, before the last one's end."""
    units = ruler.units(text)
    place, before = units.place, units.before
    last = len(place) - 1
    # As far as a word's beginning is looked for.
    reach = min(8 if isinstance(ruler, TokenRuler) else 32, size // 4)
    first = 0
    while first < last:
        end = max(bisect_right(before, before[first] + size) - 1, first + 1)
        if end < last:
            # Going back past the overlap would make the next chunk begin where this one does.
            lowest = max(bisect_right(before, before[first] + overlap), first + 1, end - reach)
            end = next((at for at in range(end, lowest - 1, -1) if _between_words(text, place[at])), end)
        # Tokens change where a word is cut: a part may have more of them than it had within the whole.
        while end > first + 1 and (excess := _count(ruler, text, place[first], place[end]) - size) > 0:
            end = max(end - excess, first + 1)
        yield place[first], place[end]
        if end == last:
            return
        begin = max(bisect_left(before, before[end] - overlap), first + 1)
        first = next((at for at in range(begin, min(begin + reach, end) + 1) if _between_words(text, place[at])), begin)


def _count(ruler: Ruler, text: str, start: int, end: int) -> int:
    start, end = stripped(text, start, end)
    return ruler.count(text[start:end])


def _between_words(text: str, place: int) -> bool:
    return text[place - 1].isspace() or (place < len(text) and text[place].isspace())


def by_structure(text: str, kind: str, ruler: Ruler, size: int, overlap: int) -> Iterator[Stretch]:
    """Stretches that keep paragraphs, Markdown blocks or Python's statements whole where they fit."""
    library = require("semantic_text_splitter", extra="rag")
    if kind == "code":
        language = require("tree_sitter_python", extra="rag").language()
        splitter = ruler.splitter(library.CodeSplitter, size, overlap, language)
    else:
        name = library.MarkdownSplitter if kind == "markdown" else library.TextSplitter
        splitter = ruler.splitter(name, size, overlap)
    # The time that the Markdown splitter takes grows with the square of the length.
    for start, end in cut_at_whitespace(text, PIECE, _SEPARATORS[kind]):
        for place, chunk in splitter.chunk_indices(text[start:end]):
            first, last = start + place, start + place + len(chunk)
            yield _indented(text, first, last, ruler, size), last


def _indented(text: str, start: int, end: int, ruler: Ruler, size: int) -> int:
    """Where a stretch begins that takes the indentation before it along, as code needs it, if there is room."""
    before = start
    while before > 0 and text[before - 1] in " \t":
        before -= 1
    whole = before < start and (before == 0 or text[before - 1] == "\n")
    return before if whole and ruler.count(text[before:end]) <= size else start


def stripped(text: str, start: int, end: int) -> Stretch:
    """Without whitespace around it, but with the indentation of its first line."""
    part = text[start:end]
    left = len(part) - len(part.lstrip())
    line = part.rfind("\n", 0, left) + 1
    if line == 0 and start > 0 and text[start - 1] != "\n":
        line = left
    return (start + line, start + len(part.rstrip())) if part.strip() else (start, start)
