"""Garbage collection: nothing in use goes, everything else does."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.registry.conftest import MakeRun
from workbench.cli.main import app
from workbench.errors import IntegrityError
from workbench.registry import names
from workbench.registry.artifact import Artifact
from workbench.registry.gc import GRACE_S, collect_garbage
from workbench.registry.oci import MANIFEST_TYPE, OciLayout
from workbench.registry.promote import promote
from workbench.workspace import Layout

LATER = time.time() + 10 * GRACE_S


def blobs(layout: Layout) -> set[str]:
    return {f"sha256:{path.name}" for path in (layout.blobs / "blobs" / "sha256").iterdir()}


def add_manifest(store: OciLayout, parts: list[str], subject: str | None = None) -> str:
    config, *layers = [store.put_blob(part.encode(), "text/plain").to_json() for part in parts]
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers}
    return store.add_manifest(manifest | ({"subject": {"digest": subject}} if subject else {})).digest


def test_what_a_killed_promotion_left_goes_and_versions_stay(layout: Layout, make_run: MakeRun) -> None:
    promote(layout, make_run(), "greet", "few")
    before, listed = blobs(layout), OciLayout(layout.blobs).manifests()
    orphan = add_manifest(OciLayout(layout.blobs), ["never", "registered"])
    young = collect_garbage(layout)
    assert (young.blobs, young.young) == ({}, 3)
    planned = collect_garbage(layout, dry_run=True, now=LATER)
    assert planned.manifests == (orphan,)
    assert len(planned.blobs) == 3
    assert blobs(layout) == before | planned.blobs.keys()
    done = collect_garbage(layout, now=LATER)
    assert done == planned
    assert blobs(layout) == before
    assert OciLayout(layout.blobs).manifests() == listed
    assert Artifact.open(layout, "greet").verify()
    assert collect_garbage(layout, now=LATER).blobs == {}


def test_storing_a_blob_again_makes_it_young(layout: Layout) -> None:
    store = OciLayout(layout.blobs)
    add_manifest(store, ["one", "two"])
    for path in (layout.blobs / "blobs" / "sha256").iterdir():
        os.utime(path, (0, 0))
    kept = store.put_blob(b"two", "text/plain").digest
    collect_garbage(layout)
    assert blobs(layout) == {kept}


def test_with_a_damaged_manifest_nothing_is_removed(layout: Layout, make_run: MakeRun) -> None:
    artifact = promote(layout, make_run(), "greet", "few")
    add_manifest(OciLayout(layout.blobs), ["orphan"])
    artifact.store.blob_path(artifact.digest).write_bytes(b"{}")
    before = blobs(layout)
    with pytest.raises(IntegrityError, match="does not match its digest"):
        collect_garbage(layout, now=LATER)
    assert blobs(layout) == before


# Each manifest: the parts it is made of, the earlier manifest it refers to, and whether a version names it.
GRAPHS = st.lists(
    st.tuples(st.lists(st.integers(0, 8), min_size=1, max_size=4), st.integers(-1, 5), st.booleans()), max_size=7
)


@given(GRAPHS)
@settings(max_examples=60)
def test_nothing_that_a_version_reaches_ever_goes(graph: list[tuple[list[int], int, bool]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "workbench.toml").write_text("")
        layout = Layout.find(folder)
        store = OciLayout(layout.blobs)
        digests: list[str] = []
        needed: set[str] = set()
        reached: set[int] = set()
        for place, (parts, subject, registered) in enumerate(graph):
            refers = subject if 0 <= subject < place else None
            texts = [f"manifest {place}", *(f"part {part}" for part in parts)]
            digests.append(add_manifest(store, texts, digests[refers] if refers is not None else None))
            if registered:
                names.register(layout, "graph", digests[-1])
            if registered or refers in reached:
                reached.add(place)
                needed |= {digests[-1], *(store.put_blob(text.encode(), "text/plain").digest for text in texts)}
        collect_garbage(layout, now=LATER)
        left = blobs(layout) if graph else set()
        assert left == needed
        assert {entry.digest for entry in store.manifests()} == {digests[place] for place in reached}


def test_the_command(layout: Layout, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    promote(layout, make_run(), "greet", "few")
    add_manifest(OciLayout(layout.blobs), ["orphan"])
    monkeypatch.chdir(layout.root)
    assert "stay, 2 of them because they are young" in CliRunner().invoke(app, ["gc"]).stdout
    for path in (layout.blobs / "blobs" / "sha256").iterdir():
        os.utime(path, (0, 0))
    assert "would remove 2 blobs" in CliRunner().invoke(app, ["gc", "--dry-run"]).stdout
    told = json.loads(CliRunner().invoke(app, ["gc", "--json"]).stdout)
    assert (len(told["blobs"]), told["dry_run"]) == (2, False)
    assert CliRunner().invoke(app, ["artifact", "verify", "greet"]).exit_code == 0
