"""Scorers from their settings: what run manifests and YAML files hold."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from workbench.errors import UsageError
from workbench.experiments.scorers.base import BaseScorer
from workbench.experiments.scorers.custom import custom_from_config
from workbench.experiments.scorers.embedding import embedding_similarity
from workbench.experiments.scorers.grounded import abstention, citations, evidence_recall, groundedness
from workbench.experiments.scorers.judge import judge
from workbench.experiments.scorers.numbers import numeric
from workbench.experiments.scorers.pairwise import pairwise
from workbench.experiments.scorers.resources import cost, latency, tokens
from workbench.experiments.scorers.structured import json_field, json_fields, json_schema
from workbench.experiments.scorers.text import contains, exact, normalized, regex, token_f1

FACTORIES: dict[str, Callable[..., BaseScorer]] = {
    "abstention": abstention,
    "citations": citations,
    "contains": contains,
    "cost": cost,
    "embedding_similarity": embedding_similarity,
    "evidence_recall": evidence_recall,
    "exact": exact,
    "groundedness": groundedness,
    "json_field": json_field,
    "json_fields": json_fields,
    "json_schema": json_schema,
    "judge": judge,
    "latency": latency,
    "normalized": normalized,
    "numeric": numeric,
    "pairwise": pairwise,
    "regex": regex,
    "token_f1": token_f1,
    "tokens": tokens,
}


def scorer_from_config(config: Mapping[str, Any] | str) -> BaseScorer:
    """A scorer from `{"type": …, settings}`, or from its type alone: the inverse of a scorer's `config()`.

    Raises:
        UsageError: an unknown type or setting, a missing one, or a malformed value.
        NotFoundError: a custom scorer whose function is gone or changed.
    """
    settings = {"type": config} if isinstance(config, str) else dict(config)
    kind = settings.get("type")
    if kind == "custom":
        return custom_from_config(settings)
    if not isinstance(kind, str) or kind not in FACTORIES:
        raise UsageError(f"there is no scorer {kind!r}", hint=f"Known: {', '.join(sorted([*FACTORIES, 'custom']))}")
    del settings["type"]
    factory = FACTORIES[kind]
    known = inspect.signature(factory).parameters
    if settings.get("on_error") == "exclude" and "on_error" not in known:
        # The policy of resource scorers is fixed; their config states it all the same.
        del settings["on_error"]
    unknown = set(settings) - set(known)
    if unknown:
        raise UsageError(f"the scorer {kind} has no setting {', '.join(sorted(unknown))}", hint=_usage(kind, known))
    missing = [n for n, p in known.items() if p.default is inspect.Parameter.empty and n not in settings]
    if missing:
        raise UsageError(f"the scorer {kind} needs {', '.join(missing)}", hint=_usage(kind, known))
    return factory(**settings)


def _usage(kind: str, known: Mapping[str, inspect.Parameter]) -> str:
    return f"Settings of {kind}: {', '.join(known)}"
