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
from tests.state.servers import new_url
from workbench.cli.main import app
from workbench.errors import IntegrityError, WorkspaceError
from workbench.files import write_atomic
from workbench.registry import names
from workbench.registry.artifact import Artifact
from workbench.registry.build import ARTIFACT_TYPE
from workbench.registry.gc import GRACE_S, collect_garbage
from workbench.registry.oci import MANIFEST_TYPE, OciLayout
from workbench.registry.promote import promote
from workbench.state.db import database_path
from workbench.workspace import Layout

LATER = time.time() + 10 * GRACE_S


def blobs(layout: Layout) -> set[str]:
    return {f"sha256:{path.name}" for path in (layout.blobs / "blobs" / "sha256").iterdir()}


def add_manifest(store: OciLayout, parts: list[str], subject: str | None = None, kind: str | None = None) -> str:
    config, *layers = [store.put_blob(part.encode(), "text/plain").to_json() for part in parts]
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers}
    manifest |= {"artifactType": kind} if kind else {}
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


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_in_a_state_that_is_not_the_one_artifacts_were_named_in_nothing_is_removed(
    layout: Layout, make_run: MakeRun, tmp_path: Path, backend: str
) -> None:
    promote(layout, make_run(), "greet", "few", alias="prod")
    before = blobs(layout)
    (layout.root / "workbench.toml").write_text(f'[state]\nurl = "{new_url(backend, tmp_path / "new")}"\n')
    other = Layout.find(layout.root)
    with pytest.raises(WorkspaceError, match=r"holds 1 artifacts, and the state .* gc --forgotten removes them"):
        collect_garbage(other, now=LATER)
    assert blobs(layout) == before
    # A promotion that is about to name its version is no sign of a lost state.
    assert collect_garbage(other).blobs == {}
    assert collect_garbage(other, forgotten=True, now=LATER).blobs.keys() == before


def test_the_command_refuses_where_the_state_is_lost(
    layout: Layout, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(layout, make_run(), "greet", "few")
    for path in (layout.root / ".workbench").glob("state.sqlite*"):
        path.unlink()
    for path in (layout.blobs / "blobs" / "sha256").iterdir():
        os.utime(path, (0, 0))
    monkeypatch.chdir(layout.root)
    before = blobs(layout)
    for arguments in (["gc"], ["gc", "--dry-run"]):
        error = CliRunner().invoke(app, arguments).exception
        assert isinstance(error, WorkspaceError)
        assert "Put the state back" in str(error)
    assert blobs(layout) == before
    assert f"removed {len(before)} blobs" in CliRunner().invoke(app, ["gc", "--forgotten"]).stdout
    assert blobs(layout) == set()


def test_what_a_state_that_was_put_back_from_a_copy_does_not_know_is_kept_and_named(
    layout: Layout, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(layout, make_run(), "greet", "few")
    state = database_path(layout.state_url)
    assert state is not None
    copy = state.read_bytes()
    newer = promote(layout, make_run(run_id="run-2"), "greet", "few")
    state.write_bytes(copy)
    monkeypatch.chdir(layout.root)
    before = blobs(layout)
    for path in (layout.blobs / "blobs" / "sha256").iterdir():
        os.utime(path, (0, 0))
    said = CliRunner().invoke(app, ["gc"]).stdout
    assert f"kept {newer.digest}, an artifact that the state knows no version of; --forgotten removes it" in said
    assert json.loads(CliRunner().invoke(app, ["gc", "--json"]).stdout)["unnamed"] == [newer.digest]
    assert blobs(layout) == before
    assert collect_garbage(layout, forgotten=True, now=LATER).manifests == (newer.digest,)
    assert Artifact.open(layout, "greet@1").verify()


def test_a_damaged_artifact_that_no_version_names_must_be_let_go_by_name(layout: Layout, make_run: MakeRun) -> None:
    promote(layout, make_run(), "greet", "few")
    store = OciLayout(layout.blobs)
    orphan = add_manifest(store, ["of a killed promotion"], kind=ARTIFACT_TYPE)
    store.blob_path(orphan).write_bytes(b"{}")
    with pytest.raises(IntegrityError, match=r"No version names it.*gc --forgotten"):
        collect_garbage(layout, now=LATER)
    assert orphan in collect_garbage(layout, forgotten=True, now=LATER).manifests


def test_with_an_index_that_lacks_a_version_nothing_is_removed(layout: Layout, make_run: MakeRun) -> None:
    """The index alone says what is signed."""
    promote(layout, make_run(), "greet", "few")
    add_manifest(OciLayout(layout.blobs), ["orphan"])
    (layout.blobs / "index.json").unlink()
    before = blobs(layout)
    with pytest.raises(IntegrityError, match=r"index\.json is missing.*Restore it"):
        collect_garbage(layout, now=LATER)
    for forgotten in (False, True):
        write_atomic(layout.blobs / "index.json", b'{"manifests": []}')
        with pytest.raises(IntegrityError, match=r"index\.json does not list sha256:.*Restore it"):
            collect_garbage(layout, forgotten=forgotten, now=LATER)
    assert blobs(layout) == before


def test_where_state_and_index_are_lost_nothing_is_removed_unasked(layout: Layout, make_run: MakeRun) -> None:
    promote(layout, make_run(), "greet", "few")
    before = blobs(layout)
    (layout.blobs / "index.json").unlink()
    for path in (layout.root / ".workbench").glob("state.sqlite*"):
        path.unlink()
    with pytest.raises(IntegrityError, match=r"nothing says which blobs are of artifacts.*gc --forgotten"):
        collect_garbage(layout, now=LATER)
    assert blobs(layout) == before
    assert collect_garbage(layout, forgotten=True, now=LATER).blobs.keys() == before


# Each manifest: the parts it is made of, the earlier manifest it refers to, whether a version names it, and whether it
# is a whole artifact.
GRAPHS = st.lists(
    st.tuples(st.lists(st.integers(0, 8), min_size=1, max_size=4), st.integers(-1, 5), st.booleans(), st.booleans()),
    max_size=7,
)


@given(GRAPHS, st.booleans())
@settings(max_examples=60)
def test_nothing_that_a_version_or_an_unnamed_artifact_reaches_ever_goes(
    graph: list[tuple[list[int], int, bool, bool]], forgotten: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "workbench.toml").write_text("")
        layout = Layout.find(folder)
        store = OciLayout(layout.blobs)
        digests: list[str] = []
        needed: set[str] = set()
        reached: set[int] = set()
        unnamed: set[str] = set()
        for place, (parts, subject, registered, whole) in enumerate(graph):
            refers = subject if 0 <= subject < place else None
            texts = [f"manifest {place}", *(f"part {part}" for part in parts)]
            refers_to = digests[refers] if refers is not None else None
            digests.append(add_manifest(store, texts, refers_to, ARTIFACT_TYPE if whole else None))
            if registered:
                names.register(layout, "graph", digests[-1])
            elif whole and not forgotten:
                unnamed.add(digests[-1])
            if registered or digests[-1] in unnamed or refers in reached:
                reached.add(place)
                needed |= {digests[-1], *(store.put_blob(text.encode(), "text/plain").digest for text in texts)}
        if unnamed and not any(registered for _, _, registered, _ in graph):
            with pytest.raises(WorkspaceError):
                collect_garbage(layout, now=LATER)
            return
        found = collect_garbage(layout, forgotten=forgotten, now=LATER)
        left = blobs(layout) if graph else set()
        assert left == needed
        assert {entry.digest for entry in store.manifests()} == {digests[place] for place in reached}
        assert set(found.unnamed) == unnamed


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
