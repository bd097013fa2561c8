"""Scorers of text: exact and normalized equality, patterns, contained text, token overlap."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from workbench.errors import UsageError
from workbench.experiments.scorers.base import (
    BaseScorer,
    Kind,
    OnError,
    ScoreInput,
    ScoreValue,
    as_json,
    as_text,
    brief,
    same_json,
    verdict,
)
from workbench.experiments.scorers.forms import CITATION, FORMS, squad_tokens


@dataclass(frozen=True, kw_only=True)
class TextScorer(BaseScorer):
    """A scorer of the answer's text against the target, or against one field of it.

    Attributes:
        field: of a target with several; an answer that is an object with that field is judged by it. A target whose field
            is empty is not scored: whether an answer should have been given is what `abstention` judges.
        ignore_citations: take marks such as `[1]` out of the answer first.
    """

    field: str | None = None
    ignore_citations: bool = False

    def config(self) -> dict[str, Any]:
        """As of every scorer; settings that change nothing are left out, so that older scores stay comparable."""
        return {
            name: value
            for name, value in super().config().items()
            if not (name in ("field", "ignore_citations") and not value)
        }

    def refusal(self, item: ScoreInput) -> ScoreValue | None:
        if self.field is not None and item.target in (None, "", []):
            return ScoreValue(None, explanation=f"the target has no {self.field}")
        return super().refusal(item)

    def score(self, item: ScoreInput) -> ScoreValue:
        target, result = item.target, item.result
        if self.field is not None and isinstance(target, Mapping):
            target = target.get(self.field)
            if isinstance(result, Mapping) and self.field in result:
                result = result[self.field]
        if self.ignore_citations and isinstance(result, str):
            result = CITATION.sub("", result)
        return super().score(replace(item, target=target, result=result))


@dataclass(frozen=True, kw_only=True)
class Exact(TextScorer):
    type: ClassVar[str] = "exact"
    name: str = "exact"

    def measure(self, item: ScoreInput) -> ScoreValue:
        result = item.result if isinstance(item.target, str) else as_json(item.result)
        return verdict(same_json(result, item.target), item)


def exact(
    *, field: str | None = None, ignore_citations: bool = False, name: str = "exact", on_error: OnError = "fail"
) -> Exact:
    """1 where the answer equals the target: text after removing outer spaces, anything else as a JSON value.

    An answer in text that is the JSON of the target counts as equal; the order of keys never matters.

    Args:
        field: of a target with several, what the answer is compared with; where it is empty nothing is scored.
        ignore_citations: take marks such as `[1]` out of the answer first.
    """
    return Exact(name=name, field=field, ignore_citations=ignore_citations, on_error=on_error)


def _normalized(value: Any, form: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return form(value)
    if isinstance(value, Mapping):
        return {key: _normalized(item, form) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_normalized(item, form) for item in value]
    return value


@dataclass(frozen=True, kw_only=True)
class Normalized(TextScorer):
    type: ClassVar[str] = "normalized"
    name: str = "normalized"
    form: Literal["unicode", "squad"] = "unicode"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form not in FORMS:
            raise UsageError(f"form must be one of {', '.join(FORMS)}, not {self.form!r}")

    def config(self) -> dict[str, Any]:
        settings = super().config()
        if self.form == "unicode":
            del settings["form"]
        return settings

    def measure(self, item: ScoreInput) -> ScoreValue:
        form = FORMS[self.form]
        result = item.result if isinstance(item.target, str) else as_json(item.result)
        return verdict(same_json(_normalized(result, form), _normalized(item.target, form)), item)


def normalized(
    *,
    form: Literal["unicode", "squad"] = "unicode",
    field: str | None = None,
    ignore_citations: bool = False,
    name: str = "normalized",
    on_error: OnError = "fail",
) -> Normalized:
    """1 where the answer equals the target after normalizing both; in objects and lists every text is normalized.

    Args:
        form: `unicode` as `normalize` does; `squad` as SQuAD's exact match does (lower case, no ASCII punctuation, no
            English articles; Rajpurkar et al. 2016).
        field, ignore_citations: as of `exact`.
    """
    return Normalized(name=name, form=form, field=field, ignore_citations=ignore_citations, on_error=on_error)


def check_pattern(pattern: str) -> None:
    """Refuse what is no regular expression.

    Raises:
        UsageError: it does not compile.
    """
    try:
        re.compile(pattern)
    except re.error as error:
        raise UsageError(f"the pattern {pattern!r} is no regular expression: {error}") from None


@dataclass(frozen=True, kw_only=True)
class Regex(BaseScorer):
    type: ClassVar[str] = "regex"
    needs_target: ClassVar[bool] = False
    name: str = "regex"
    pattern: str
    ignore_case: bool = False
    full: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pattern(self.pattern)

    def measure(self, item: ScoreInput) -> ScoreValue:
        find = re.fullmatch if self.full else re.search
        match = find(self.pattern, as_text(item.result), re.IGNORECASE if self.ignore_case else 0)
        if match:
            return ScoreValue(1.0, label=brief(match.group()))
        return ScoreValue(0.0, explanation=f"no match of {brief(self.pattern)} in {brief(item.result)}")


def regex(
    pattern: str, *, ignore_case: bool = False, full: bool = False, name: str = "regex", on_error: OnError = "fail"
) -> Regex:
    """1 where `pattern` is found in the answer (`full`: matches all of it). Needs no target.

    Raises:
        UsageError: the pattern does not compile.
    """
    return Regex(name=name, pattern=pattern, ignore_case=ignore_case, full=full, on_error=on_error)


@dataclass(frozen=True, kw_only=True)
class Contains(TextScorer):
    type: ClassVar[str] = "contains"
    name: str = "contains"
    ignore_case: bool = True
    match: Literal["all", "any"] = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.match not in ("all", "any"):
            raise UsageError(f"match must be all or any, not {self.match!r}")

    def measure(self, item: ScoreInput) -> ScoreValue:
        wanted = [as_text(part) for part in (item.target if isinstance(item.target, list) else [item.target])]
        if not all(wanted):
            return ScoreValue(None, explanation="the target is empty")
        fold = str.casefold if self.ignore_case else str
        text = fold(as_text(item.result))
        missing = [part for part in wanted if fold(part) not in text]
        if wanted and len(missing) < (1 if self.match == "all" else len(wanted)):
            return ScoreValue(1.0)
        return ScoreValue(0.0, explanation=f"does not contain {brief(', '.join(missing))}")


def contains(
    *,
    ignore_case: bool = True,
    match: Literal["all", "any"] = "all",
    field: str | None = None,
    ignore_citations: bool = False,
    name: str = "contains",
    on_error: OnError = "fail",
) -> Contains:
    """1 where the answer contains the target's text; of a list of targets, all of them or any.

    Args: `field` and `ignore_citations` as of `exact`.
    """
    return Contains(
        name=name,
        ignore_case=ignore_case,
        match=match,
        field=field,
        ignore_citations=ignore_citations,
        on_error=on_error,
    )


def overlap_f1(result: str, target: str) -> float:
    """Harmonic mean of token precision and recall (Rajpurkar et al. 2016, SQuAD), in 0..1; two empty texts give 1."""
    got, wanted = squad_tokens(result), squad_tokens(target)
    if not got or not wanted:
        return float(got == wanted)
    shared = sum((Counter(got) & Counter(wanted)).values())
    return 2 * shared / (len(got) + len(wanted))


@dataclass(frozen=True, kw_only=True)
class TokenF1(TextScorer):
    type: ClassVar[str] = "token_f1"
    name: str = "token_f1"
    kind: Kind = "continuous"

    @property
    def bounds(self) -> tuple[float, float]:
        return (0.0, 1.0)

    def measure(self, item: ScoreInput) -> ScoreValue:
        targets = item.target if isinstance(item.target, list) else [item.target]
        if not targets:
            return ScoreValue(None, explanation="the target is an empty list")
        return ScoreValue(max(overlap_f1(as_text(item.result), as_text(target)) for target in targets))


def token_f1(
    *, field: str | None = None, ignore_citations: bool = False, name: str = "token_f1", on_error: OnError = "fail"
) -> TokenF1:
    """Overlap of the answer's and the target's tokens, 0..1; against a list of targets, the best one.

    Args: `field` and `ignore_citations` as of `exact`.
    """
    return TokenF1(name=name, field=field, ignore_citations=ignore_citations, on_error=on_error)
