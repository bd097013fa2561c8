"""Forms of text in which answers are compared: without what seldom matters."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable

# A citation of passages, with the space before it: " [1]", " [1, 3]".
CITATION = re.compile(r"\s*\[(\d+(?:\s*,\s*\d+)*)\]")


def normalize(text: str) -> str:
    """Text without what seldom matters: NFKC, case, punctuation and runs of white space.

    Points and commas inside a number and a minus before one stay, so that 1.5 is not 15 and -5 is not 5. Text that is
    nothing but punctuation keeps it.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    kept = []
    for index, char in enumerate(folded):
        if unicodedata.category(char).startswith("P"):
            before = folded[index - 1] if index else " "
            after = folded[index + 1 : index + 2]
            inside = char in ".," and before.isdigit() and after.isdigit()
            minus = char == "-" and not before.isalnum() and after.isdigit()
            if not (inside or minus):
                continue
        kept.append(char)
    return " ".join("".join(kept).split()) or " ".join(folded.split())


_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def squad_tokens(text: str) -> list[str]:
    """Tokens as SQuAD's evaluation script makes them: lower case, no ASCII punctuation, no English articles."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def squad(text: str) -> str:
    """The text that `squad_tokens` leaves."""
    return " ".join(squad_tokens(text))


FORMS: dict[str, Callable[[str], str]] = {"unicode": normalize, "squad": squad}
