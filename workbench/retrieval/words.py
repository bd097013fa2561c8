"""Words for the sparse index: of prose, stemmed; of identifiers, both the whole and its parts."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Iterator

# Letters, digits and _, with dots between them: a word, a number or a dotted name.
_WORD = re.compile(r"\w+(?:\.\w+)*")
# Between `get` and `Name`, and between `HTTP` and `Server`.
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
# Written without spaces: Japanese, Chinese, and Korean, whose particles cling to words.
_UNSPACED = re.compile("([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]+)")
# A word that is read again is looked up; more words than this are mostly noise, and memory is bounded.
_MOST_KEPT = 500_000


class Words:
    """Cuts texts into index terms.

    Compatibility forms (NFKC) and cases of a letter are alike. An identifier such as `os.path.joinAll_names` gives itself,
    its dotted pieces, and their parts: `os.path.joinall_names`, `os`, `path`, `joinall_names`, `join`, `all`, `names`. So it
    is found by its name and by what its name says. Only words of prose and parts are stemmed or left out as stop words.
    Japanese, Chinese and Korean give pairs of characters, for want of spaces.

    Args:
        stem: a word to its stem; None leaves words as they are.
        stopwords: words, in small letters, that are left out.
    """

    def __init__(self, stem: Callable[[str], str] | None, stopwords: frozenset[str]) -> None:
        self._stem = stem
        self._stopwords = stopwords
        self._kept: dict[str, tuple[str, ...]] = {}

    def __call__(self, text: str) -> list[str]:
        """The terms of a text, in its order, repetitions included."""
        pattern = _WORD
        if not text.isascii():
            text, pattern = unicodedata.normalize("NFKC", text), _marked_word()
        terms: list[str] = []
        for word in pattern.findall(text):
            found = self._kept.get(word)
            if found is None:
                found = tuple(self._terms(word))
                if len(self._kept) < _MOST_KEPT:
                    self._kept[word] = found
            terms += found
        return terms

    def _terms(self, word: str) -> Iterator[str]:
        parts = [part for piece in word.split(".") for part in _parts(piece)]
        # In this order and each once: the whole, its dotted pieces, their parts.
        wholes = list(dict.fromkeys([word, *word.split(".")]))
        names = [whole for whole in wholes if "." in whole or [whole] != _parts(whole)]
        yield from dict.fromkeys(name.casefold() for name in names)
        for part in parts:
            if part.isascii() or not _UNSPACED.search(part):
                yield from self._term(part)
                continue
            for run in _UNSPACED.split(part):
                if _UNSPACED.match(run):
                    yield from (run[place : place + 2] for place in range(max(1, len(run) - 1)))
                elif run:
                    yield from self._term(run)

    def _term(self, part: str) -> Iterator[str]:
        small = part.casefold()
        if small not in self._stopwords:
            yield self._stem(small) if self._stem else small


@functools.cache
def _marked_word() -> re.Pattern[str]:
    """Like `_WORD`, with vowel signs and other marks, which `\\w` leaves out: without them Hindi falls to pieces."""
    marks = "".join(chr(code) for code in range(0x300, 0x10000) if unicodedata.category(chr(code)) in ("Mn", "Mc"))
    letter = f"[\\w{marks}]+"
    return re.compile(rf"{letter}(?:\.{letter})*")


def _parts(piece: str) -> list[str]:
    return [part for bare in piece.split("_") if bare for part in _HUMP.split(bare)]
