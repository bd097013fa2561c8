"""What a call to a server costs, in dollars."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from urllib.parse import urlsplit

from workbench.errors import require
from workbench.models.openai_wire import TokenCounts
from workbench.workspace import ServerSettings

Price = Callable[[TokenCounts], float]


def find_price(server: ServerSettings, model: str) -> Price | None:
    """Dollars for token counts; None where the price is not known.

    The settings' prices count first. A server on this machine or in a private network is free. Else the price is that of
    the installed `genai-prices`, whose table comes with the package: the network is not asked.

    Raises:
        MissingExtraError: genai-prices is not installed.
    """
    price_in, price_out = server.input_usd_per_mtok, server.output_usd_per_mtok
    if price_in is not None and price_out is not None:
        return lambda usage: (usage.tokens_in * price_in + usage.tokens_out * price_out) / 1e6
    if is_private(server.base_url):
        return lambda usage: 0.0
    prices = require("genai_prices", extra="remote")

    def price(usage: TokenCounts) -> float:
        counts = prices.Usage(
            input_tokens=usage.tokens_in, output_tokens=usage.tokens_out, cache_read_tokens=usage.cached or None
        )
        return float(prices.calc_price(counts, model_ref=model, provider_api_url=server.base_url).total_price)

    try:
        price(TokenCounts(1, 1))
    except LookupError:
        return None
    return price


def is_loopback(base_url: str) -> bool:
    """Whether the server is on this machine."""
    host = urlsplit(base_url).hostname or ""
    address = _address(host)
    return address.is_loopback if address else host == "localhost" or host.endswith(".localhost")


def is_private(base_url: str) -> bool:
    """Whether the server is on this machine or, by its address or name, in a private network."""
    host = urlsplit(base_url).hostname or ""
    address = _address(host)
    if address:
        return address.is_private
    return is_loopback(base_url) or "." not in host or host.endswith((".local", ".internal", ".lan", ".home.arpa"))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
