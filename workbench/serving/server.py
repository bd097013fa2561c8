"""Running the HTTP face: who may reach it, and how it ends."""

from __future__ import annotations

import ipaddress
import os
from typing import TYPE_CHECKING

from workbench.errors import UsageError, require

if TYPE_CHECKING:
    from starlette.types import ASGIApp

KEY = "WORKBENCH_API_KEY"


def api_key(host: str, *, open_to_all: bool) -> str | None:
    """The key that requests must show, from the environment; None where none is asked for.

    Raises:
        UsageError: other machines could ask, and there is no key.
    """
    key = os.environ.get(KEY) or None
    if key is None and not open_to_all and not is_local(host):
        raise UsageError(
            f"{host} is reached by other machines, and {KEY} is not set",
            hint="Set it to a long random text, or say --open where something in front asks who it is.",
        )
    return key


def run(app: ASGIApp, host: str, port: int, *, grace_s: int = 30) -> None:
    """Serve until SIGTERM or Ctrl-C; what is under way then has `grace_s` seconds to end.

    Raises:
        MissingExtraError: uvicorn is not installed.
    """
    require("uvicorn", extra="serve").run(
        app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=grace_s, server_header=False
    )


def is_local(host: str) -> bool:
    """Whether only this machine reaches what listens at an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
