"""The OCI image layout: blobs by digest, an index that several processes may edit."""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.synchronize
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import IntegrityError
from workbench.files import digest_bytes
from workbench.registry.oci import MANIFEST_TYPE, Descriptor, OciLayout


def _manifest(store: OciLayout, text: str) -> dict[str, object]:
    layer = store.put_blob(text.encode(), "text/plain")
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": "application/x.test",
        "layers": [layer.to_json()],
    }


def test_the_folder_is_what_the_specification_says(tmp_path: Path) -> None:
    store = OciLayout(tmp_path / "blobs")
    entry = store.add_manifest(_manifest(store, "hello"))
    assert json.loads((store.path / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((store.path / "index.json").read_text())
    assert index["schemaVersion"] == 2
    assert index["manifests"] == [
        {"mediaType": MANIFEST_TYPE, "digest": entry.digest, "size": entry.size, "artifactType": "application/x.test"}
    ]
    for blob in (store.path / "blobs" / "sha256").iterdir():
        assert digest_bytes(blob.read_bytes()) == f"sha256:{blob.name}"


@given(data=st.binary(max_size=200))
@settings(max_examples=30)
def test_bytes_come_back_from_memory_and_from_a_file(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("oci")
    (folder / "file").write_bytes(data)
    store = OciLayout(folder / "blobs")
    descriptor = store.put_blob(data, "text/plain")
    assert store.put_blob(folder / "file", "text/plain") == descriptor
    assert (descriptor.size, store.read_blob(descriptor.digest)) == (len(data), data)
    assert len(list((store.path / "blobs" / "sha256").iterdir())) == 1


def test_a_damaged_blob_is_refused_by_name_and_mended_by_storing_it_again(tmp_path: Path) -> None:
    store = OciLayout(tmp_path)
    blob = store.put_blob(b"the prompt", "text/plain")
    store.blob_path(blob.digest).write_bytes(b"another prompt")
    with pytest.raises(IntegrityError, match=rf"prompt\.json \({blob.digest}\) does not match its digest"):
        store.read_blob(blob.digest, title="prompt.json")
    store.put_blob(b"the prompt", "text/plain")
    assert store.read_blob(blob.digest) == b"the prompt"
    store.blob_path(blob.digest).unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        store.read_blob(blob.digest)


@pytest.mark.parametrize("digest", ["sha256:../../etc/passwd", "md5:0", "", "sha256:" + "A" * 64])
def test_a_digest_cannot_lead_out_of_the_folder(tmp_path: Path, digest: str) -> None:
    with pytest.raises(IntegrityError, match="is not a sha256 digest"):
        OciLayout(tmp_path).read_blob(digest)


def test_the_index_does_not_depend_on_the_order_of_additions(tmp_path: Path) -> None:
    indexes = []
    for name, order in (("one", "abc"), ("two", "cabb")):
        store = OciLayout(tmp_path / name)
        for text in order:
            store.add_manifest(_manifest(store, text))
        indexes.append((store.path / "index.json").read_bytes())
    assert indexes[0] == indexes[1]


def _add(path: Path, start: multiprocessing.synchronize.Barrier, worker: int) -> None:
    store = OciLayout(path)
    start.wait()
    for number in range(4):
        store.add_manifest(_manifest(store, f"{worker}-{number}"))


def test_no_addition_is_lost_when_processes_add_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    workers = [context.Process(target=_add, args=(tmp_path, start, worker)) for worker in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(OciLayout(tmp_path).manifests()) == 12


@pytest.mark.parametrize("text", ["", "{}", '{"manifests": [{"digest": "sha256:0"}]}', "[]"])
def test_a_malformed_index_is_an_error_and_is_not_overwritten(tmp_path: Path, text: str) -> None:
    store = OciLayout(tmp_path)
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(IntegrityError, match="malformed"):
        store.add_manifest(_manifest(store, "new"))
    assert (tmp_path / "index.json").read_text() == text


def test_a_descriptor_survives_json() -> None:
    descriptor = Descriptor("text/plain", digest_bytes(b""), 0, {"org.opencontainers.image.title": "a.txt"}, "x/y")
    assert Descriptor.from_json(json.loads(json.dumps(descriptor.to_json()))) == descriptor
    assert descriptor.title == "a.txt"


def test_a_large_blob_is_checked_in_pieces(tmp_path: Path) -> None:
    store = OciLayout(tmp_path)
    blob = store.put_blob(bytes(32 << 20), "application/octet-stream")
    tracemalloc.start()
    try:
        assert store.check_blob(blob.digest) == 32 << 20
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    with store.blob_path(blob.digest).open("r+b") as file:
        file.write(b"x")
    with pytest.raises(IntegrityError, match=r"weights \(sha256:.*\) does not match its digest"):
        store.check_blob(blob.digest, title="weights")
    store.blob_path(blob.digest).unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        store.check_blob(blob.digest)
