"""One attempt at one request: sends a body to a server and says what became of it, whatever that was."""

from __future__ import annotations

import base64
import io
import urllib.request
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from workbench.errors import require
from workbench.models.openai_wire import Outcome
from workbench.models.prices import is_loopback
from workbench.workspace import ServerSettings

if TYPE_CHECKING:
    import aiohttp

# What a complete reply means: status, headers, body.
Reader = Callable[[int, Mapping[str, str], bytes], Outcome]

# An answer is far smaller; a server that sends without end is cut off here.
LARGEST_REPLY = 32 * 2**20
# aiohttp warns about larger bodies unless they come as a file.
LARGEST_BYTES = 2**20


class ServerClient:
    """Connections to one server, kept open from request to request. Everything but the constructor belongs to one loop.

    Args:
        path: where requests go, below the server's `base_url`.
    """

    def __init__(self, server: ServerSettings, path: str) -> None:
        self._aiohttp = require("aiohttp", extra="remote")
        self._url = server.base_url + path
        self._timeout_s = server.timeout_s
        self._proxy, self._proxy_headers = _proxy(server.base_url)
        self._sessions: dict[str | None, aiohttp.ClientSession] = {}

    async def post(self, body: bytes, key: str | None, read: Reader) -> Outcome:
        """Send one request and read the whole reply. Only cancelling it raises."""
        web = self._aiohttp
        data: Any = body if len(body) <= LARGEST_BYTES else io.BytesIO(body)
        try:
            # Redirects are not followed: the key is for this server only.
            async with self._session(key).post(
                self._url, data=data, allow_redirects=False, proxy=self._proxy, proxy_headers=self._proxy_headers
            ) as response:
                content = bytearray()
                while chunk := await response.content.readany():
                    content += chunk
                    if len(content) > LARGEST_REPLY:
                        return Outcome("refused", error="the reply does not end", may_cost=True)
                return read(response.status, response.headers, bytes(content))
        except web.ClientConnectorCertificateError as error:
            return Outcome("refused", error=f"no trusted connection: {error}")
        except web.ConnectionTimeoutError:
            return Outcome("again", kind="timeout", error=f"no connection within {self._timeout_s:g} s")
        except TimeoutError:
            return Outcome("again", kind="timeout", error=f"no answer within {self._timeout_s:g} s", may_cost=True)
        except web.ClientConnectorError as error:
            return Outcome("again", error=f"no connection: {error}")
        except (web.ClientError, OSError) as error:
            return Outcome("again", error=f"the connection broke: {error or type(error).__name__}", may_cost=True)

    async def close(self) -> None:
        """Close every connection."""
        while self._sessions:
            await self._sessions.popitem()[1].close()

    def abandon(self) -> object:
        """Give up every connection without touching it. Returns what must not be collected."""
        connectors = [session.connector for session in self._sessions.values()]
        for session in self._sessions.values():
            session.detach()
        self._sessions.clear()
        return connectors

    def _session(self, key: str | None) -> aiohttp.ClientSession:
        # By key, because someone may set another one in a notebook while requests with the first are under way.
        if key not in self._sessions:
            web = self._aiohttp
            headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
            if self._proxy_headers and self._url.startswith("http:"):
                # Without TLS there is no CONNECT to sign in with; the proxy takes this off each request.
                headers |= self._proxy_headers
            self._sessions[key] = web.ClientSession(
                # How many connections there are is the limiter's to say.
                connector=web.TCPConnector(limit=0),
                timeout=web.ClientTimeout(total=self._timeout_s),
                headers=headers,
                cookie_jar=web.DummyCookieJar(),
            )
        return self._sessions[key]


def _proxy(base_url: str) -> tuple[str | None, dict[str, str] | None]:
    """The proxy that `HTTPS_PROXY` and its like name for this address, and what signs in there.

    aiohttp's own way (`trust_env`) is not taken, because it also sends passwords of `~/.netrc` in place of the key.
    """
    parts = urlsplit(base_url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy or is_loopback(base_url) or urllib.request.proxy_bypass(parts.hostname or ""):
        return None, None
    address = urlsplit(proxy if "//" in proxy else f"http://{proxy}")
    user, at, host = address.netloc.rpartition("@")
    headers = {"Proxy-Authorization": "Basic " + base64.b64encode(unquote(user).encode()).decode()} if at else None
    return urlunsplit((address.scheme, host, address.path, "", "")), headers
