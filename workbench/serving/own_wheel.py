"""The workbench that runs here as a wheel, so that a bundle needs no package index for it.

A wheel is a zip of files and a list of their digests (Binary Distribution Format, packaging.python.org). Built from the
files in use, sorted and without times: the same files give the same bytes, from an editable install too.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import workbench

DISTRIBUTION = "llmops-workbench"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_WHEEL = "Wheel-Version: 1.0\nGenerator: llmops-workbench\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def own_wheel() -> tuple[str, bytes]:
    """File name and bytes of the wheel."""
    own = distribution(DISTRIBUTION)
    stem = f"{DISTRIBUTION.replace('-', '_')}-{own.version}"
    files = dict(sorted([*_package(), *_metadata(own, f"{stem}.dist-info")]))
    record = f"{stem}.dist-info/RECORD"
    listed = [f"{name},{_hash(data)},{len(data)}" for name, data in files.items()]
    files[record] = ("\n".join([*listed, f"{record},,"]) + "\n").encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return f"{stem}-py3-none-any.whl", buffer.getvalue()


def _package() -> Iterator[tuple[str, bytes]]:
    root = Path(workbench.__file__).parent
    for path in root.rglob("*"):
        name = path.relative_to(root.parent)
        if path.is_file() and path.suffix != ".pyc" and not any(part.startswith(".") for part in name.parts):
            yield name.as_posix(), path.read_bytes()


def _metadata(own: Distribution, folder: str) -> Iterator[tuple[str, bytes]]:
    yield f"{folder}/WHEEL", _WHEEL.encode()
    for name in ("METADATA", "entry_points.txt", "licenses/LICENSE"):
        if (text := own.read_text(name)) is not None:
            yield f"{folder}/{name}", text.encode()


def _hash(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
