"""Whose texts a person sees: rows of calls by their tenant, for every page that shows what was asked and answered."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import polars as pl

from workbench import access

if TYPE_CHECKING:
    from workbench.experiments.comparison import Comparison


def visible(calls: pl.DataFrame) -> pl.DataFrame:
    """The calls whose texts whoever acts now may see: of their tenants, or all where they are restricted to none.

    A call without a tenant belongs to no tenant: a restricted person does not see it. Numbers over all calls are the
    whole team's and need no filter.

    Raises:
        AccessDenied: this process serves apps to others, and nobody is known here.
    """
    tenants = access.current().tenants
    return calls if tenants is None else calls.filter(pl.col("tenant").is_in(list(tenants)).fill_null(False))


def with_visible_rows(comparison: Comparison) -> Comparison:
    """The same numbers, with the texts of `visible` calls only: `disagreements` shows no others."""
    calls = comparison.calls
    return comparison if calls is None else dataclasses.replace(comparison, calls=visible(calls))


def hidden_note(comparison: Comparison, variant: str) -> str:
    """How many rows that the variant and the baseline answer differently are not shown; empty where all are."""
    shown = with_visible_rows(comparison).disagreements(variant)
    hidden = len(comparison.disagreements(variant)) - len(shown)
    what = "further row is" if hidden == 1 else "further rows are"
    return f"{hidden} {what} of other tenants; the texts are not shown to you." if hidden else ""
