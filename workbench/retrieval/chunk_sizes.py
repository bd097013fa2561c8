"""Rulers: how long a text is, in tokens or characters, and where its units begin."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

from workbench.errors import UsageError, require

# `(start, end)` of each token of a text, in characters.
Offsets = Callable[[str], Sequence[tuple[int, int]]]
# Without a tokenizer: what English text has in most vocabularies of 30,000 to 200,000 tokens.
CHARACTERS_PER_TOKEN = 4
# No text has this many. A tokenizer that makes one token of a long word, or none of spaces, must not make a chunk endless.
MOST_CHARACTERS_PER_TOKEN = 16
# Tokens are located in pieces of this many characters, so that a large document needs little memory.
PIECE = 100_000
_WORD = re.compile(r"\s*\S+")


@dataclass(frozen=True)
class Units:
    """Places where a text may be cut, and the units before each: `place[0]` is 0, `place[-1]` its length."""

    place: Sequence[int]
    before: Sequence[int]


class Ruler(Protocol):
    """Measures texts. Sizes are in units: tokens, or characters where tokens are estimated."""

    @property
    def per_token(self) -> int:
        """Units of one of the settings' size."""
        ...

    @property
    def most_characters(self) -> int:
        """Characters that one unit may have."""
        ...

    def count(self, text: str) -> int:
        """Units of a text that stands by itself."""
        ...

    def units(self, text: str) -> Units:
        """Where the units of a text begin."""
        ...

    def splitter(self, kind: Any, size: int, overlap: int, *language: Any) -> Any:
        """A splitter of `semantic_text_splitter`, of class `kind`, that measures about like this ruler."""
        ...


@dataclass(frozen=True)
class CharacterRuler:
    """Characters, of which `per_token` make one of the settings' size."""

    per_token: int = 1
    most_characters: int = 1

    def count(self, text: str) -> int:
        return len(text)

    def units(self, text: str) -> Units:
        places = range(len(text) + 1)
        return Units(places, places)

    def splitter(self, kind: Any, size: int, overlap: int, *language: Any) -> Any:
        return kind(*language, size, overlap)


class _Counts(dict[str, int]):
    """Tokens of a word with the whitespace before it, counted once."""

    def __init__(self, offsets: Offsets) -> None:
        super().__init__()
        self.offsets = offsets

    def __missing__(self, word: str) -> int:
        count = len(self.offsets(word))
        if len(word) <= 40 and len(self) < 1_000_000:
            self[word] = count
        return count


class TokenRuler:
    """Tokens, without the special ones that a model adds at both ends.

    Args:
        offsets: of the tokens of a text.
    """

    per_token = 1
    most_characters = MOST_CHARACTERS_PER_TOKEN

    def __init__(self, offsets: Offsets) -> None:
        self.offsets = offsets
        self._words = _Counts(offsets)

    def count(self, text: str) -> int:
        return len(self.offsets(text))

    def sum(self, text: str) -> int:
        """About `count`, many times faster: the sum over words, which most tokenizers look at one by one."""
        return sum(map(self._words.__getitem__, _WORD.findall(text)))

    def units(self, text: str) -> Units:
        # Arrays, because a document may have ten million tokens.
        places, counts = array("q", [0]), array("q", [0])
        for start, end in cut_at_whitespace(text, PIECE):
            for first, _ in self.offsets(text[start:end]):
                # The tokens of one emoji may share a start, or go back to it: all of them belong to the first place.
                if start + first > places[-1]:
                    places.append(start + first)
                    counts.append(0)
                counts[-1] += 1
        if places[-1] < len(text):
            places.append(len(text))
            counts.append(0)
        return Units(places, array("q", accumulate(counts[:-1], initial=0)))

    def splitter(self, kind: Any, size: int, overlap: int, *language: Any) -> Any:
        return kind.from_callback(*language, self.sum, size, overlap)


def ruler_for(unit: str, tokenizer: Any = None) -> Ruler:
    """The ruler for a unit and a tokenizer.

    Args:
        tokenizer: a `tokenizers.Tokenizer`, a fast tokenizer of `transformers`, or a function from a text to the
            `(start, end)` of each of its tokens. Its limits on length are not used.

    Raises:
        UsageError: it is none of these.
    """
    if unit == "characters":
        return CharacterRuler()
    if tokenizer is None:
        return CharacterRuler(per_token=CHARACTERS_PER_TOKEN)
    if isinstance(tokenizer, TokenRuler):
        return tokenizer
    native = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if hasattr(native, "no_truncation"):
        return _native(native)
    if not callable(tokenizer) or hasattr(tokenizer, "encode"):
        raise UsageError(
            f"{type(tokenizer).__name__} does not say where its tokens are",
            hint="Give a fast tokenizer, or a function from a text to the (start, end) of its tokens",
        )
    return TokenRuler(tokenizer)


def _native(tokenizer: Any) -> Ruler:
    if tokenizer.truncation is not None or tokenizer.padding is not None:
        # A copy: whoever embeds with this tokenizer needs its limits.
        tokenizer = require("tokenizers", extra="local").Tokenizer.from_str(tokenizer.to_str())
        tokenizer.no_truncation()
        tokenizer.no_padding()

    def offsets(text: str) -> Sequence[tuple[int, int]]:
        found: Sequence[tuple[int, int]] = tokenizer.encode(text, add_special_tokens=False).offsets
        return found

    return TokenRuler(offsets)


def cut_at_whitespace(text: str, limit: int, separators: Sequence[str] = ("\n\n", "\n", " ")) -> list[tuple[int, int]]:
    """`text` as stretches of at most `limit` characters that follow one another.

    A stretch ends before the last of the first separator that is in its second half; without any, it ends at the limit.
    """
    stretches: list[tuple[int, int]] = []
    start = 0
    while len(text) - start > limit:
        found = (text.rfind(separator, start + limit // 2, start + limit) for separator in separators)
        end = next((place for place in found if place > start), start + limit)
        stretches.append((start, end))
        start = end
    return [*stretches, (start, len(text))] if start < len(text) else stretches
