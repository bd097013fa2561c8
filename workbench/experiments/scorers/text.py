"""Scorers of text: exact and normalized equality, patterns, contained text, token overlap."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True, kw_only=True)
class Exact(BaseScorer):
    type: ClassVar[str] = "exact"
    name: str = "exact"

    def measure(self, item: ScoreInput) -> ScoreValue:
        result = item.result if isinstance(item.target, str) else as_json(item.result)
        return verdict(same_json(result, item.target), item)


def exact(*, name: str = "exact", on_error: OnError = "fail") -> Exact:
    """1 where the answer equals the target: text after removing outer spaces, anything else as a JSON value.

    An answer in text that is the JSON of the target counts as equal; the order of keys never matters.
    """
    return Exact(name=name, on_error=on_error)


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


def _normalized(value: Any) -> Any:
    if isinstance(value, str):
        return normalize(value)
    if isinstance(value, Mapping):
        return {key: _normalized(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_normalized(item) for item in value]
    return value


@dataclass(frozen=True, kw_only=True)
class Normalized(BaseScorer):
    type: ClassVar[str] = "normalized"
    name: str = "normalized"

    def measure(self, item: ScoreInput) -> ScoreValue:
        result = item.result if isinstance(item.target, str) else as_json(item.result)
        return verdict(same_json(_normalized(result), _normalized(item.target)), item)


def normalized(*, name: str = "normalized", on_error: OnError = "fail") -> Normalized:
    """1 where the answer equals the target after `normalize`; in objects and lists every text is normalized."""
    return Normalized(name=name, on_error=on_error)


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
class Contains(BaseScorer):
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
    name: str = "contains",
    on_error: OnError = "fail",
) -> Contains:
    """1 where the answer contains the target's text; of a list of targets, all of them or any."""
    return Contains(name=name, ignore_case=ignore_case, match=match, on_error=on_error)


_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def squad_tokens(text: str) -> list[str]:
    """Tokens as SQuAD's evaluation script makes them: lower case, no ASCII punctuation, no English articles."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def overlap_f1(result: str, target: str) -> float:
    """Harmonic mean of token precision and recall (Rajpurkar et al. 2016, SQuAD), in 0..1; two empty texts give 1."""
    got, wanted = squad_tokens(result), squad_tokens(target)
    if not got or not wanted:
        return float(got == wanted)
    shared = sum((Counter(got) & Counter(wanted)).values())
    return 2 * shared / (len(got) + len(wanted))


@dataclass(frozen=True, kw_only=True)
class TokenF1(BaseScorer):
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


def token_f1(*, name: str = "token_f1", on_error: OnError = "fail") -> TokenF1:
    """Overlap of the answer's and the target's tokens, 0..1; against a list of targets, the best one."""
    return TokenF1(name=name, on_error=on_error)
