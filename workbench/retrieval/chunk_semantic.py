"""Semantic chunking: cut where the subject changes, told by embeddings of the sentences on both sides."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from workbench.retrieval.chunk_cuts import by_structure

if TYPE_CHECKING:
    from workbench.retrieval.chunk_sizes import Ruler
    from workbench.retrieval.embedding import Embedder

# After a full stop and whitespace, but not one of an initial or a title; after one of Chinese or Japanese; at an empty line.
_END = re.compile(
    r"""(?<!\b[A-Z])(?<!\b(?:Mr|Ms|Dr|St|vs|eg|ie|cf|No))(?<!\b(?:Mrs|e\.g|i\.e))(?<!\bProf)[.!?…]['")\]’”»]*\s+"""
    r"""|[。！？]['")\]’”」』]*\s*|(?:\r?\n[ \t]*){2,}"""
)


def sentences(text: str) -> list[tuple[int, int]]:
    """Stretches of a text that follow one another without a gap, about a sentence each."""
    ends = [match.end() for match in _END.finditer(text)]
    places = [0, *ends] if ends and ends[-1] == len(text) else [0, *ends, len(text)]
    found: list[tuple[int, int]] = []
    for start, end in pairwise(places):
        if found and not text[start:end].strip():
            found[-1] = (found[-1][0], end)
        elif end > start:
            found.append((start, end))
    return found


def distances(text: str, parts: list[tuple[int, int]], embedder: Embedder) -> npt.NDArray[np.float64]:
    """How far the two sentences before each gap are from the two after it: 1 - cosine, one fewer than parts.

    Windows of two sentences, as in TextTiling (Hearst 1997), since one alone says little.
    """
    if len(parts) < 2:
        return np.zeros(0)
    last = len(parts) - 1
    windows = [text[parts[at][0] : parts[min(at + 1, last)][1]].strip() for at in range(len(parts))]
    first = text[parts[0][0] : parts[0][1]].strip()
    vectors = np.asarray(embedder.encode([first, *windows], kind="passage"), dtype=np.float64)
    # The window before gap g ends with part g; the one after it begins with part g + 1.
    found: npt.NDArray[np.float64] = 1.0 - np.einsum("ij,ij->i", vectors[:last], vectors[2:])
    return found


def semantic(
    text: str, ruler: Ruler, embedder: Embedder, *, size: int, overlap: int, minimum: int, percentile: float
) -> Iterator[tuple[int, int]]:
    """Stretches of whole sentences, of at most `size` units; a sentence that is larger is cut by its words."""
    if not text.strip():
        return
    parts = sentences(text)
    before = [0, *accumulate(ruler.count(text[start:end].strip()) for start, end in parts)]
    gaps = distances(text, parts, embedder)
    threshold = float(np.percentile(gaps, percentile)) if len(gaps) else 0.0
    # Rounding makes equal vectors differ a little; such a gap is no change of subject.
    wanted = [int(at) + 1 for at in np.flatnonzero(gaps > threshold + 1e-6)]

    def too_large(first: int, end: int) -> bool:
        # The sum tells cheaply what is far too large; what is near is measured as it will be.
        if before[end] - before[first] > 2 * size:
            return True
        return ruler.count(text[parts[first][0] : parts[end - 1][1]].strip()) > size

    for first, end in _within(_breaks(before, wanted, minimum), before, gaps, minimum, too_large):
        if end - first == 1 and too_large(first, end):
            offset = parts[first][0]
            sentence = text[offset : parts[first][1]]
            yield from ((offset + a, offset + b) for a, b in by_structure(sentence, "recursive", ruler, size, overlap))
            continue
        start = first
        while start > 0 and before[first] - before[start - 1] <= overlap and not too_large(start - 1, end):
            start -= 1
        yield parts[start][0], parts[end - 1][1]


def _breaks(before: list[int], wanted: list[int], minimum: int) -> list[int]:
    """The breaks that leave at least `minimum` on both sides, and the two ends."""
    kept = [0]
    for at in wanted:
        if before[at] - before[kept[-1]] >= minimum and before[-1] - before[at] >= minimum:
            kept.append(at)
    return [*kept, len(before) - 1]


def _within(
    breaks: list[int],
    before: list[int],
    gaps: npt.NDArray[np.float64],
    minimum: int,
    too_large: Callable[[int, int], bool],
) -> Iterator[tuple[int, int]]:
    """Ranges of parts, those that are too large cut at their largest distance until each fits."""
    waiting = list(pairwise(breaks))[::-1]
    while waiting:
        first, end = waiting.pop()
        if end - first == 1 or not too_large(first, end):
            yield first, end
            continue
        cuts = np.arange(first + 1, end)
        sizes = np.asarray(before[first : end + 1])
        roomy = cuts[(sizes[1:-1] - sizes[0] >= minimum) & (sizes[-1] - sizes[1:-1] >= minimum)]
        among = roomy if len(roomy) else cuts
        cut = int(among[np.argmax(gaps[among - 1])])
        waiting += [(cut, end), (first, cut)]
