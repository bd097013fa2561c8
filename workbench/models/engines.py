"""Which engine answers for a model name. A process loads each model once."""

from __future__ import annotations

import threading
from collections.abc import Callable

from workbench.models.engine import Engine, Quantization

_lock = threading.Lock()
_loaded: dict[tuple[str, str], Engine] = {}
_factories: dict[str, Callable[[str, Quantization], Engine]] = {}


def register_engine(name: str, factory: Callable[[str, Quantization], Engine]) -> None:
    """Let `factory(name, quantization)` make the engine for the model called `name`."""
    with _lock:
        _factories[name] = factory
        for key in [key for key in _loaded if key[0] == name]:
            _loaded.pop(key).close()


def get_engine(name: str, quantization: Quantization = "none") -> Engine:
    """The engine for a model, loaded on first use and kept.

    Raises:
        ModelError: no such model here; the hint says what to run.
    """
    with _lock:
        key = (name, quantization)
        if key not in _loaded:
            _loaded[key] = _factories.get(name, _transformers)(name, quantization)
        return _loaded[key]


def close_engines() -> None:
    """Free every loaded model."""
    with _lock:
        while _loaded:
            _loaded.popitem()[1].close()


def _transformers(name: str, quantization: Quantization) -> Engine:
    from workbench.models.transformers_engine import TransformersEngine

    return TransformersEngine.load(name, quantization=quantization)
