"""Scorers: small factories, each returning a frozen object that turns an answer into a number.

scorers.json_field("intent").score(ScoreInput("1", {}, {"intent": "billing"}, {"intent": "bug"})).value   # 0.0
"""

from __future__ import annotations

from workbench.experiments.scorers.base import BaseScorer, PairScorer, ScoreInput, Scorer, ScoreValue
from workbench.experiments.scorers.custom import custom
from workbench.experiments.scorers.embedding import embedding_similarity
from workbench.experiments.scorers.grounded import (
    abstention,
    citations,
    evidence_recall,
    groundedness,
    register_support,
)
from workbench.experiments.scorers.judge import judge
from workbench.experiments.scorers.numbers import numeric
from workbench.experiments.scorers.pairwise import pairwise
from workbench.experiments.scorers.registry import scorer_from_config
from workbench.experiments.scorers.resources import RESOURCE_TYPES, cost, latency, tokens
from workbench.experiments.scorers.structured import json_field, json_fields, json_schema
from workbench.experiments.scorers.text import contains, exact, normalized, regex, token_f1

__all__ = [
    "RESOURCE_TYPES",
    "BaseScorer",
    "PairScorer",
    "ScoreInput",
    "ScoreValue",
    "Scorer",
    "abstention",
    "citations",
    "contains",
    "cost",
    "custom",
    "embedding_similarity",
    "evidence_recall",
    "exact",
    "groundedness",
    "json_field",
    "json_fields",
    "json_schema",
    "judge",
    "latency",
    "normalized",
    "numeric",
    "pairwise",
    "regex",
    "register_support",
    "scorer_from_config",
    "token_f1",
    "tokens",
]
