"""Which engine answers for a model name. A process loads each model once."""

from __future__ import annotations

import threading
from collections.abc import Callable

from workbench.errors import ModelError
from workbench.files import short
from workbench.models.engine import Engine, Quantization
from workbench.workspace import SERVER_NAME, ServerSettings, Settings, current_settings

_lock = threading.Lock()
_loaded: dict[tuple[str, str, ServerSettings | None], Engine] = {}
_factories: dict[str, Callable[[str, Quantization], Engine]] = {}


def register_engine(name: str, factory: Callable[[str, Quantization], Engine]) -> None:
    """Let `factory(name, quantization)` make the engine for the model called `name`."""
    with _lock:
        _factories[name] = factory
        for key in [key for key in _loaded if key[0] == name]:
            _loaded.pop(key).close()


def get_engine(
    name: str, quantization: Quantization = "none", settings: Settings | None = None, *, adapter: str | None = None
) -> Engine:
    """The engine for a model, loaded on first use and kept.

    Args:
        name: `SERVER:MODEL` for a model of a server in `settings`; else what `find_model` knows.
        settings: None takes those of the workspace last opened in this process, else of the nearest one.
        adapter: digest of one that is going to be asked for; a model holds several, so it decides nothing else.

    Raises:
        ModelError: no such model or server here, or a server is to use an adapter; the hint says what to do.
    """
    with _lock:
        prefix, colon, model = name.partition(":")
        if name in _factories or not colon or not SERVER_NAME.fullmatch(prefix):
            key: tuple[str, str, ServerSettings | None] = (name, quantization, None)
            if key not in _loaded:
                _loaded[key] = _factories.get(name, _transformers)(name, quantization)
            return _loaded[key]
        server = find_server(prefix, settings or current_settings())
        if quantization in ("int8", "nf4"):
            raise ModelError(
                f"{name} runs on a server, which cannot be told to quantize it",
                hint="Leave generation.quantization at none.",
            )
        if adapter is not None:
            raise ModelError(
                f"{name} runs on a server, which cannot be given the adapter {short(adapter)}",
                hint="Use the model that it was trained on, or leave the adapter out.",
            )
        key = (name, "none", server)
        if key not in _loaded:
            from workbench.models.openai_engine import OpenAIEngine

            _loaded[key] = OpenAIEngine(prefix, model, server)
        return _loaded[key]


def find_server(name: str, settings: Settings) -> ServerSettings:
    """The server called `name` in `settings`.

    Raises:
        ModelError: there is none; the hint says what to write.
    """
    server = settings.server(name)
    if server is None:
        raise ModelError(
            f"no server is called {name!r}",
            hint=f"Add to workbench.toml:\n[servers.{name}]\n"
            'base_url = "http://localhost:8000/v1"\n'
            'key_env = "NAME_OF_A_VARIABLE"  # leave out where the server asks for no key',
        )
    return server


def close_engines() -> None:
    """Free every loaded model."""
    with _lock:
        while _loaded:
            _loaded.popitem()[1].close()


def _transformers(name: str, quantization: Quantization) -> Engine:
    from workbench.models.transformers_engine import TransformersEngine

    return TransformersEngine.load(name, quantization=quantization)
