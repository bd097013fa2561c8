"""What holds for every question of one run: its response cache and its budget, for scorers that ask models as well."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from workbench.models.budget import Budget
from workbench.models.engine import Engine
from workbench.models.response_cache import CachedEngine, ResponseCache


@dataclass(frozen=True)
class Asking:
    """How models are asked.

    Attributes:
        read: whether kept answers are used, or only replaced.
    """

    cache: ResponseCache | None = None
    read: bool = True
    budget: Budget | None = None

    def through(self, engine: Engine) -> Engine:
        """The engine behind the cache, where there is one."""
        return engine if self.cache is None else CachedEngine(engine, self.cache, read=self.read)


_current: ContextVar[Asking | None] = ContextVar("asking", default=None)


def asking() -> Asking:
    """What holds here; outside of a run neither a cache nor a budget."""
    return _current.get() or Asking()


@contextlib.contextmanager
def asked_by(rules: Asking) -> Iterator[None]:
    """Let `rules` hold for every model that is asked inside."""
    token = _current.set(rules)
    try:
        yield
    finally:
        _current.reset(token)
