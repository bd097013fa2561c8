"""Requests to one OCI registry: logins, what is tried again, and one clear error for what stays wrong."""

from __future__ import annotations

import functools
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from workbench.errors import IntegrityError, NotFoundError, WorkbenchError, require
from workbench.registry.remote_reference import FORM, Reference

ATTEMPTS = 4
PAUSE_S = 0.5
# Seconds to connect, and seconds without a byte.
TIMEOUT_S = (10.0, 120.0)
# What a registry must at least accept as a manifest (distribution-spec 1.1, "Pushing Manifests").
MAX_MANIFEST = 4 << 20

_PIECE = 1 << 20

T = TypeVar("T")


class Transient(Exception):
    """What may well work in a moment."""


class Connection:
    """A registry as `oras` knows it, with requests of our own.

    What fails for a moment (no connection, status 429 and 5xx) raises `Transient`, which `again` tries `ATTEMPTS` times
    with growing pauses. Passwords come from where `docker login` and `oras login` put them.

    Attributes:
        client: the `oras` registry; what it asks goes through `send`.
        container: its name of the repository.
        base: the address of the repository.

    Raises:
        MissingExtraError: `oras` is not installed.
        WorkbenchError: the registry does not answer, is none, or wants a login that is not there.
    """

    def __init__(self, reference: Reference, *, insecure: bool, sleep: Callable[[float], object]) -> None:
        provider = require("oras.provider", extra="oci")
        self._errors: Any = require("requests", extra="oci").RequestException
        # Its messages would stand beside ours and say less.
        logging.getLogger("oras.logger").setLevel(logging.CRITICAL)
        self.reference = reference
        self._sleep = sleep
        self._plain = insecure or reference.is_local
        self._host = "registry-1.docker.io" if reference.registry == "docker.io" else reference.registry
        self.client: Any = provider.Registry(hostname=self._host, insecure=self._plain)
        self.client.do_request = self.request
        self.container: Any = self.client.get_container("repository")
        self.container.registry, self.container.repository = self._host, reference.repository
        self.base = f"{self.client.prefix}://{self._host}/v2/{reference.repository}"
        self._session: Any = self.client.session
        self._session.request = functools.partial(self._session.request, timeout=TIMEOUT_S)
        self._session.headers["Accept-Encoding"] = "identity"
        # Else requests puts what ~/.netrc says in the place of a token.
        self._session.auth = lambda request: request
        try:
            self.again(self._connect)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close what is open."""
        self._session.close()

    def again(self, act: Callable[[], T]) -> T:
        """Do it, and again where that fails for a moment.

        Raises:
            WorkbenchError: it failed each time.
        """
        reason = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                self._sleep(PAUSE_S * 2 ** (attempt - 1))
            try:
                return act()
            except Transient as error:
                reason = str(error)
        raise WorkbenchError(
            f"{self._host} cannot be reached: {reason} ({ATTEMPTS} tries)",
            hint="See to the registry or the network and give the same command again: it goes on with what is missing.",
        )

    def _connect(self) -> None:
        response = self._answer("GET", f"{self.client.prefix}://{self._host}/v2/")
        status, challenge = response.status_code, response.headers.get("WWW-Authenticate", "")
        if status >= 500:
            raise Transient(f"it answers with status {status}")
        if status not in (200, 401):
            raise WorkbenchError(f"{self._host} is not an OCI registry: it answers {status} to /v2/", hint=FORM)
        basic = challenge.lower().startswith("basic")
        if basic:
            backends = require("oras.auth", extra="oci")
            self.client.auth = backends.get_auth_backend("basic", self._session, self._plain)
        self._load_logins()
        if basic and not hasattr(self.client.auth, "_basic_auth"):
            raise self._unauthorized()

    def _load_logins(self) -> None:
        auth, container = self.client.auth, self.client.get_container("repository")
        hint = "Mend it, or log in again: docker login"
        try:
            if folder := os.environ.get("DOCKER_CONFIG"):
                # oras looks in ~/.docker only.
                path = Path(folder) / "config.json"
                read = json.loads(path.read_bytes()) if path.is_file() else {}
                auth._auth_config = {"auths": {}, **read}
            hub = ("https://index.docker.io/v1/",) if self.reference.registry == "docker.io" else ()
            for key in (self.reference.registry, *hub):
                container.registry = key
                auth.load_configs(container)
        except (ValueError, TypeError, AttributeError, KeyError):
            raise WorkbenchError("Docker's config.json is malformed", hint=hint) from None

    def request(
        self,
        url: str,
        method: str = "GET",
        data: Any = None,
        headers: Any = None,
        json: Any = None,
        stream: bool = False,
    ) -> Any:
        """In the place of `do_request` of oras, which waits for two minutes where a password is missing."""
        return self.send(url, method, data=data, headers=headers, json=json, stream=stream)

    def send(self, url: str, method: str, *, passing: tuple[int, ...] = (404,), **options: Any) -> Any:
        """Ask, and hand back what succeeded or has a status in `passing`.

        Raises:
            Transient: it may work in a moment.
            NotFoundError: there is no such repository.
            WorkbenchError: not authorized, or refused for another reason.
        """
        response = self._authorized(url, method, **options)
        status = response.status_code
        if status < 400 or status in passing:
            return response
        with response:
            if status in (401, 403):
                raise self._unauthorized()
            # A 404 for an upload that went on: the registry has forgotten about it, as one that was started anew.
            if status == 429 or status >= 500 or (status in (404, 416) and method in ("PATCH", "PUT")):
                raise Transient(f"it answers with status {status}")
            if status == 404:
                raise NotFoundError(
                    f"{self.reference.where} does not exist",
                    hint="Some registries want a repository to be made before the first push.",
                )
            code = _code(self._guarded(lambda: response.text)[:2000])
            raise WorkbenchError(
                f"{self.reference.where}: the registry refuses with status {status}{f' ({code})' if code else ''}",
                hint="Ask who keeps the registry, or use another one.",
            )

    def _authorized(self, url: str, method: str, *, headers: Any = None, **options: Any) -> Any:
        if url.startswith("http:") and not self._plain:
            raise WorkbenchError(
                f"{self._host} wants to go on over plain http", hint="Ask who keeps it; --insecure allows it."
            )
        ours, auth = urlsplit(url).netloc == self._host, self.client.auth
        # Only the registry itself is told who we are, not where it sends us for bytes.
        known = {**(headers or {}), **(auth.get_auth_header() if ours else {})}
        response = self._answer(method, url, headers=known, **options)
        challenge = response.headers.get("WWW-Authenticate", "")
        asks = response.status_code in (401, 403) and urlsplit(response.url).netloc == self._host
        if asks and challenge.lower().startswith("bearer") and 'realm="' in challenge:
            if 'realm="http:' in challenge and not self._plain:
                raise WorkbenchError(f"{self._host} wants a login over plain http", hint="Ask who keeps it.")
            response.close()
            # Anew each time: a token for reading is no token for writing, and tokens end.
            renew = functools.partial(auth.authenticate_request, response, dict(headers or {}), refresh=True)
            known, changed = self._guarded(renew)
            if changed:
                response = self._answer(method, url, headers=known, **options)
        return response

    def _answer(self, method: str, url: str, **options: Any) -> Any:
        return self._guarded(lambda: self._session.request(method, url, **options))

    def _guarded(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except self._errors as error:
            raise self._failure(error) from None

    def pieces(self, response: Any) -> Iterator[bytes]:
        """The body of an answer, in pieces of at most a mebibyte."""
        pieces = response.iter_content(_PIECE)
        while piece := self._guarded(lambda: next(pieces, b"")):
            yield piece

    def document(
        self, url: str, *, accept: tuple[str, ...] = (), passing: tuple[int, ...] = (404,)
    ) -> tuple[bytes, Any] | None:
        """A small body and its headers; None where the status is in `passing`.

        Raises:
            IntegrityError: it is larger than a manifest may be.
        """
        headers = {"Accept": ", ".join(accept)} if accept else {}
        with self.send(url, "GET", headers=headers, stream=True, passing=passing) as response:
            if response.status_code in passing:
                return None
            data = bytearray()
            for piece in self.pieces(response):
                data += piece
                if len(data) > MAX_MANIFEST:
                    raise IntegrityError(
                        f"{self.reference.where} serves a manifest of more than {MAX_MANIFEST:,} bytes",
                        hint="It is not a workbench artifact.",
                    )
            return bytes(data), response.headers

    def _failure(self, error: Exception) -> Exception:
        """What went wrong with a connection. The library's own text may hold addresses with passwords."""
        told, kind = repr(error), type(error).__name__
        if "NameResolution" in told or kind in ("InvalidURL", "InvalidSchema", "LocationParseError"):
            return WorkbenchError(f"there is no registry {self._host}: no such host", hint=FORM)
        if kind == "SSLError":
            return WorkbenchError(
                f"{self._host} does not speak https that this machine trusts",
                hint="Name its authority in REQUESTS_CA_BUNDLE, or allow plain http with --insecure.",
            )
        if "Connection refused" in told:
            return Transient("it refuses the connection")
        return Transient("it takes too long" if "imeout" in kind or "timed out" in told else "the connection broke")

    def _unauthorized(self) -> WorkbenchError:
        registry = self.reference.registry
        return WorkbenchError(
            f"{self.reference.where}: not authorized, or no such repository",
            hint=f"Log in with: docker login {registry} (or: oras login {registry})",
        )


def _code(text: str) -> str:
    """The error code of a registry's answer (distribution-spec, "Error Codes"); empty where it has none."""
    try:
        code = str(json.loads(text)["errors"][0]["code"])
    except (ValueError, KeyError, IndexError, TypeError):
        return ""
    return code if re.fullmatch(r"[A-Z_]{1,40}", code) else ""
