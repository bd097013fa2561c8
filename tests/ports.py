"""A port for a server that a test starts."""

from __future__ import annotations

import socket


def free_port() -> int:
    """One of this machine's that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
