"""How an artifact in a registry is named: registry, repository, and a tag or a digest."""

from __future__ import annotations

import re
from dataclasses import dataclass

from workbench.errors import UsageError

FORM = "Write REGISTRY/REPOSITORY:TAG or REGISTRY/REPOSITORY@sha256:…, such as registry.example/team/triage:v3."

# Repository and tag: OCI distribution-spec 1.1, "Pulling manifests".
_HOST = re.compile(r"(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::[0-9]{1,5})?")
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class Reference:
    """`registry/repository:tag` or `registry/repository@digest`. The tag is `latest` where neither is given."""

    registry: str
    repository: str
    tag: str
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a reference.

        Raises:
            UsageError: it is malformed. What could hold a password is not repeated in the message.
        """
        host, separator, rest = text.partition("/")
        if "://" in text or "@" in host:
            raise UsageError("a registry is named without http:// and without user or password", hint=FORM)
        named, at, digest = rest.partition("@")
        repository, colon, tag = named.partition(":")
        sound = (
            separator
            and _HOST.fullmatch(host)
            and _REPOSITORY.fullmatch(repository)
            and (not colon or _TAG.fullmatch(tag))
            and (not at or (_DIGEST.fullmatch(digest) and not colon))
        )
        if not sound:
            raise UsageError(f"{text!r} is not an artifact in a registry", hint=FORM)
        if not (host == "localhost" or "." in host or ":" in host):
            raise UsageError(f"{text!r} names no registry", hint=FORM)
        return cls(host, repository, tag or "latest", digest or None)

    @classmethod
    def parse_target(cls, text: str) -> Reference:
        """Read a reference to push to.

        Raises:
            UsageError: it is malformed, or names a digest.
        """
        found = cls.parse(text)
        if found.digest is not None:
            raise UsageError(f"{text!r} has a digest", hint="Push to a tag: the digest is the artifact's own.")
        return found

    @property
    def name(self) -> str:
        """The last part of the repository."""
        return self.repository.rpartition("/")[2]

    @property
    def where(self) -> str:
        """Registry and repository, for messages."""
        return f"{self.registry}/{self.repository}"

    @property
    def selector(self) -> str:
        """What a manifest is asked for by: the digest, else the tag."""
        return self.digest or self.tag

    @property
    def is_local(self) -> bool:
        """Whether the registry is on this machine."""
        host = self.registry if self.registry.endswith("]") else self.registry.rpartition(":")[0] or self.registry
        return host in _LOOPBACK

    def __str__(self) -> str:
        return f"{self.where}@{self.digest}" if self.digest else f"{self.where}:{self.tag}"
