"""One repository of an OCI registry: its blobs, manifests and referrers, by OCI distribution-spec 1.1.

Manifests travel as bytes, never as JSON that is written again, so that a digest stays what it is.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from workbench.errors import IntegrityError, WorkbenchError
from workbench.files import digest_bytes
from workbench.registry.oci import INDEX_TYPE, MANIFEST_TYPE, Descriptor
from workbench.registry.remote_http import Connection, Transient
from workbench.registry.remote_reference import Reference
from workbench.registry.remote_upload import Upload

# Larger blobs go in pieces, so that memory holds one piece, and an upload that broke off goes on.
WHOLE_BLOB = 32 << 20

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# The tag under which a registry without the referrers API has what refers to a manifest (distribution-spec 1.1).
_LISTS_REFERRERS = re.compile(r"sha256-[0-9a-f]{64}")
_ACCEPT = (
    MANIFEST_TYPE,
    INDEX_TYPE,
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
# Answers of registries that do not know the referrers API.
_NO_API = (400, 404, 405)


class Repository:
    """A repository in a registry; close it, or use it in a `with` block.

    Args:
        insecure: speak plain http to a registry on another machine. On this machine http is always spoken.
        sleep: waits for so many seconds before something is tried again.
        moved: told of bytes as they are sent or received; negative where they have to be sent again.

    Raises:
        MissingExtraError: `oras` is not installed.
        WorkbenchError: the registry does not answer, is none, or wants a login that is not there.
    """

    def __init__(
        self,
        reference: Reference,
        *,
        insecure: bool,
        sleep: Callable[[float], object],
        moved: Callable[[int], object],
    ) -> None:
        self.reference = reference
        self._moved = moved
        self._http = Connection(reference, insecure=insecure, sleep=sleep)
        self._client, self._container = self._http.client, self._http.container
        self._has_referrers_api: bool | None = None

    def __enter__(self) -> Repository:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def has_blob(self, digest: str) -> bool:
        """Whether the repository says that it has the blob."""
        return self._http.again(lambda: bool(self._client.blob_exists({"digest": digest}, self._container)))

    def upload(self, blob: Descriptor, path: Path, kept: Path) -> None:
        """Send a blob from a file. The registry holds it against its digest.

        Args:
            kept: a folder that remembers uploads of large blobs which broke off, so that they go on there.
        """
        if blob.size > WHOLE_BLOB:
            Upload(self._http, blob, path, kept, self._moved).send()
            return
        layer, tries = blob.to_json(), 0

        def attempt() -> None:
            nonlocal tries
            tries += 1
            # The answer to an attempt that did arrive may have been lost.
            if tries > 1 and self._client.blob_exists(layer, self._container):
                return
            sent = 0

            def send(url: str, method: str = "GET", data: Any = None, headers: Any = None, **options: Any) -> Any:
                nonlocal sent
                response = self._http.send(url, method, data=data, headers=headers, passing=(), **options)
                if isinstance(data, bytes):
                    sent += len(data)
                    self._moved(len(data))
                return response

            self._client.do_request = send
            try:
                self._client.put_upload(str(path), self._container, layer)
            except Transient:
                self._moved(-sent)
                raise
            except ValueError:
                raise WorkbenchError(
                    f"{self.reference.registry} gives no address to upload to",
                    hint="Is it an OCI registry? Ask who keeps it.",
                ) from None
            finally:
                self._client.do_request = self._http.request

        self._http.again(attempt)

    def download(self, blob: Descriptor, part: Path) -> bool:
        """Fetch a blob into a file, going on behind what the file has already; whether there was anything in it.

        Nothing is held against the digest. Bytes beyond the blob's size are not read.

        Raises:
            IntegrityError: the registry does not have the blob.
        """
        began = part.stat().st_size if part.exists() else 0
        self._moved(began)

        def attempt() -> None:
            with part.open("ab") as file:
                have = file.tell()
                headers = {"Range": f"bytes={have}-"} if have else {}
                url = f"{self._http.base}/blobs/{blob.digest}"
                # What is whole, or too long, is asked for beyond its end.
                answer = self._http.send(url, "GET", headers=headers, stream=True, passing=(404, 416))
                with answer as response:
                    if response.status_code == 404:
                        raise IntegrityError(
                            f"{self.reference.where} lacks {blob.title or 'a blob'} ({blob.digest})",
                            hint="Push the artifact again from where it is whole; nothing was registered here.",
                        )
                    if response.status_code == 416:
                        return
                    if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                        # All of it comes, whatever was asked for.
                        file.truncate(0)
                        self._moved(-have)
                        have = 0
                    for piece in self._http.pieces(response):
                        have += len(piece)
                        self._moved(len(piece))
                        file.write(piece)
                        if have > blob.size:
                            break

        self._http.again(attempt)
        return began > 0

    def manifest(self, selector: str) -> bytes | None:
        """A manifest by tag or digest, as the bytes that were stored; None where there is none.

        Raises:
            IntegrityError: the bytes do not match the digest asked for, or the one the registry names.
        """
        url = f"{self._http.base}/manifests/{selector}"
        found = self._http.again(lambda: self._http.document(url, accept=_ACCEPT))
        if found is None:
            return None
        data, headers = found
        named = selector if _DIGEST.fullmatch(selector) else headers.get("Docker-Content-Digest")
        if named is not None and digest_bytes(data) != named:
            raise IntegrityError(
                f"{self.reference.where} serves other bytes than the manifest {named}",
                hint="The registry is damaged or was tampered with; nothing was registered here.",
            )
        return data

    def manifest_digest(self, selector: str) -> str | None:
        """The digest that the registry names for a tag or digest; None where it has no such manifest or does not say."""
        headers = {"Accept": ", ".join(_ACCEPT)}
        response = self._http.again(
            lambda: self._http.send(f"{self._http.base}/manifests/{selector}", "HEAD", headers=headers)
        )
        return None if response.status_code == 404 else response.headers.get("Docker-Content-Digest")

    def put_manifest(self, data: bytes, media_type: str, selector: str) -> None:
        """Store a manifest's bytes under its digest or a tag; its blobs must be there.

        Raises:
            IntegrityError: the registry says that it stored other bytes.
        """

        def attempt() -> Any:
            headers = {"Content-Type": media_type}
            return self._http.send(
                f"{self._http.base}/manifests/{selector}", "PUT", data=data, headers=headers, passing=()
            )

        stored = self._http.again(attempt).headers.get("Docker-Content-Digest")
        if stored is not None and stored != digest_bytes(data):
            raise IntegrityError(
                f"{self.reference.where} stored {stored} instead of {digest_bytes(data)}",
                hint="The registry changes manifests; use another one.",
            )

    def tags(self) -> list[str] | None:
        """Some tags of the repository, of those that people put; None where there is no such repository or it does not tell."""
        found = self._http.again(lambda: self._http.document(f"{self._http.base}/tags/list?n=100"))
        if found is None:
            return None
        tags = [str(tag) for tag in self._json(found[0]).get("tags") or ()]
        return [tag for tag in tags if not _LISTS_REFERRERS.fullmatch(tag)]

    def referrers(self, digest: str) -> list[Descriptor]:
        """Manifests that refer to `digest`, such as signatures: of the referrers API, else of its tag (spec 1.1)."""
        if self._has_referrers_api is not False:
            listed: list[Any] = []
            url: str | None = f"{self._http.base}/referrers/{digest}"
            while url is not None:
                found = self._http.again(
                    functools.partial(self._http.document, url, accept=(INDEX_TYPE,), passing=_NO_API)
                )
                if found is None or INDEX_TYPE not in found[1].get("Content-Type", ""):
                    break
                self._has_referrers_api = True
                listed += self._json(found[0]).get("manifests") or ()
                following = re.search(r'<([^>]+)>;\s*rel="?next', found[1].get("Link", ""))
                url = urljoin(url, following[1]) if following else None
            self._has_referrers_api = bool(self._has_referrers_api)
            if self._has_referrers_api:
                return [Descriptor.from_json(entry) for entry in listed]
        return [Descriptor.from_json(entry) for entry in self._fallback(digest).get("manifests") or ()]

    def list_referrers(self, digest: str, entries: Iterable[Descriptor]) -> bool:
        """See to it that `referrers` finds these manifests, which are stored already; whether anything had to be sent.

        A registry with the referrers API knows by itself. For others this rewrites the index under the tag
        `sha256-<hex>`; two pushes that do so at the same moment may lose one's entry, and pushing again mends it.
        """
        there = {entry.digest for entry in self.referrers(digest)}
        new = [entry.to_json() for entry in entries if entry.digest not in there]
        if not new or self._has_referrers_api:
            return False
        index = self._fallback(digest) or {"schemaVersion": 2, "mediaType": INDEX_TYPE}
        index["manifests"] = [*(index.get("manifests") or ()), *new]
        self.put_manifest(json.dumps(index).encode(), INDEX_TYPE, digest.replace(":", "-"))
        return True

    def _fallback(self, digest: str) -> dict[str, Any]:
        data = self.manifest(digest.replace(":", "-"))
        return {} if data is None else self._json(data)

    def _json(self, data: bytes) -> dict[str, Any]:
        try:
            value = json.loads(data)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise IntegrityError(
                f"{self.reference.where} serves a malformed document", hint="Ask who keeps the registry."
            )
        return value
