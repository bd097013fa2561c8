"""Push and pull, against a real registry: the same bytes arrive, or nothing is registered."""

from __future__ import annotations

import base64
import http.client
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.registry.conftest import MakeRun
from tests.registry.registries import PASSWORD, USER, Front, Reply, Server, front, registry
from tests.registry.test_cli import Parrot
from workbench.cli.main import app
from workbench.errors import IntegrityError, MissingExtraError, NotFoundError, UsageError, WorkbenchError
from workbench.files import digest_bytes
from workbench.pipeline.pipeline import Pipeline
from workbench.registry import names, remote, remote_client, remote_http, remote_upload
from workbench.registry.artifact import Artifact
from workbench.registry.gc import GRACE_S, collect_garbage
from workbench.registry.oci import INDEX_TYPE, MANIFEST_TYPE, OciLayout
from workbench.registry.promote import promote
from workbench.registry.remote_reference import Reference
from workbench.workspace import Layout


@pytest.fixture(autouse=True)
def _at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No login of the person who runs the tests, and no waiting between tries."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    monkeypatch.setattr(remote_http, "PAUSE_S", 0)


@pytest.fixture
def server() -> Server:
    return registry()


@pytest.fixture
def artifact(layout: Layout, make_run: MakeRun) -> Artifact:
    """`greet@1`."""
    return promote(layout, make_run(), "greet", "few")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Layout:
    """An empty workspace on another machine."""
    return empty_workspace(tmp_path / "elsewhere")


@pytest.fixture
def proxy(server: Server) -> Iterator[Front]:
    with front(server.address) as made:
        yield made


def empty_workspace(folder: Path) -> Layout:
    folder.mkdir()
    (folder / "workbench.toml").write_text('name = "elsewhere"\n')
    return Layout.find(folder)


def blobs(layout: Layout) -> set[str]:
    folder = layout.blobs / "blobs" / "sha256"
    return {f"sha256:{path.name}" for path in folder.glob("[!.]*")}


def sign(layout: Layout, subject: str, text: str, *, spaces: bool = False) -> str:
    """Something that refers to a manifest, as a signature does; with `spaces`, as another program would write it."""
    store = OciLayout(layout.blobs)
    config = store.put_blob(b"{}", "application/vnd.oci.empty.v1+json").to_json()
    layer = store.put_blob(text.encode(), "text/plain").to_json()
    size = store.blob_path(subject).stat().st_size
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": "application/vnd.example.signature",
        "config": config,
        "layers": [layer],
        "subject": {"mediaType": MANIFEST_TYPE, "digest": subject, "size": size},
        "annotations": {"text": text},
    }
    if not spaces:
        return store.add_manifest(manifest).digest
    data = json.dumps(manifest, indent=3).encode()
    store.add_manifest_bytes(data)
    return digest_bytes(data)


def referring(layout: Layout, digest: str) -> set[str]:
    return set(OciLayout(layout.blobs).with_referrers(digest)) - {digest}


def test_push_and_pull_move_every_byte(
    layout: Layout, artifact: Artifact, server: Server, elsewhere: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = server.new_repository()
    pushed = remote.push(layout, "greet@1", f"{repository}:v1")
    assert (pushed.artifact.digest, pushed.blobs_moved) == (artifact.digest, pushed.blobs)
    assert pushed.bytes_moved == sum(blob.size for blob in (artifact.config, *artifact.layers.values()))
    assert server.blob(artifact.digest).read_bytes() == artifact.store.read_blob(artifact.digest)

    pulled = remote.pull(elsewhere, f"{repository}:v1", name="hello", actor="ada")
    assert (pulled.artifact.name, pulled.artifact.version) == ("hello", 1)
    assert (pulled.artifact.digest, pulled.blobs_moved) == (artifact.digest, pushed.blobs)
    assert blobs(elsewhere) == blobs(layout)
    assert pulled.artifact.verify() == artifact.verify()
    [event] = names.history(elsewhere, "hello")
    assert (event.kind, event.actor, event.detail["from"]) == ("register", "ada", f"{repository}:v1")
    assert event.detail["digest"] == artifact.digest
    [listed] = names.ls(elsewhere)
    assert (listed.run_id, listed.variant, listed.decision, listed.aliases) == ("run-1", "few", "better", ())
    monkeypatch.setattr(Pipeline, "engine", lambda _: Parrot())
    assert pulled.artifact.pipeline().answer({"text": "hi"}).value == "HI"
    assert collect_garbage(elsewhere, grace_s=-GRACE_S).blobs == {}


@pytest.mark.usefixtures("artifact")
def test_what_is_there_is_not_moved_again(layout: Layout, proxy: Front, elsewhere: Layout) -> None:
    target = f"{proxy.address}/team/twice"
    first = remote.push(layout, "greet", target)
    assert (first.reference, first.blobs_moved > 0) == (f"{target}:latest", True)
    proxy.seen.clear()
    second = remote.push(layout, "greet", target)
    assert (second.blobs_moved, second.bytes_moved, second.manifests_moved) == (0, 0, 0)
    assert proxy.count("POST", "PUT", "PATCH") == 0
    # Another tag of the same artifact is one manifest more.
    assert remote.push(layout, "greet", f"{target}:other").manifests_moved == 1

    assert remote.pull(elsewhere, target).artifact.version == 1
    proxy.seen.clear()
    again = remote.pull(elsewhere, f"{target}@{first.artifact.digest}")
    assert (again.artifact.version, again.blobs_moved) == (1, 0)
    assert not any("/blobs/" in path for _, path in proxy.seen)
    assert [move.kind for move in names.history(elsewhere, "twice")] == ["register"]


@pytest.mark.parametrize("failure", [0, 503])
def test_a_push_that_broke_off_goes_on(layout: Layout, artifact: Artifact, proxy: Front, failure: int) -> None:
    target, arrived = f"{proxy.address}/team/broken-{failure}", 0

    def dies_after_four(method: str, path: str, headers: dict[str, str]) -> Reply | None:
        nonlocal arrived
        if method == "PUT" and "/uploads/" in path:
            if arrived == 4:
                return Reply(failure)
            arrived += 1
        return None

    proxy.rule = dies_after_four
    with pytest.raises(WorkbenchError, match=rf"{proxy.address} cannot be reached: .*\(4 tries\).*goes on") as caught:
        remote.push(layout, "greet", target)
    assert caught.value.exit_code == 1
    assert proxy.count("PUT") == 4 + remote_http.ATTEMPTS
    proxy.rule = lambda *_: None
    done = remote.push(layout, "greet", target)
    assert done.blobs_moved == done.blobs - 4
    assert done.artifact.digest == artifact.digest


def test_what_fails_for_a_moment_is_tried_again(
    layout: Layout, artifact: Artifact, proxy: Front, elsewhere: Layout
) -> None:
    """Each address fails the first time it is asked for: by a status, by a broken connection, by a server's error."""
    failed: set[str] = set()

    def fails_once(method: str, path: str, headers: dict[str, str]) -> Reply | None:
        # Each upload has an address of its own.
        place = f"{method} {path.partition('?')[0].partition('/uploads/')[0]}"
        if place in failed:
            return None
        failed.add(place)
        return Reply((0, 500, 503, 429)[len(failed) % 4])

    proxy.rule = fails_once
    pauses: list[float] = []
    remote.push(layout, "greet", f"{proxy.address}/team/shaky", sleep=pauses.append)
    assert pauses
    assert remote.pull(elsewhere, f"{proxy.address}/team/shaky", sleep=pauses.append).artifact.digest == artifact.digest


def test_a_pull_that_broke_off_keeps_what_came(
    layout: Layout, artifact: Artifact, proxy: Front, elsewhere: Layout
) -> None:
    source, came = f"{proxy.address}/team/greet", 0
    remote.push(layout, "greet", source)

    def dies_after_three(method: str, path: str, headers: dict[str, str]) -> Reply | None:
        nonlocal came
        if method == "GET" and "/blobs/" in path:
            came += 1
            # In the middle of the bytes: fewer than were announced.
            if came > 3:
                return Reply(200, b"half", {"Content-Length": "1000"})
        return None

    proxy.rule = dies_after_three
    with pytest.raises(WorkbenchError, match="cannot be reached"):
        remote.pull(elsewhere, source)
    assert (len(blobs(elsewhere)), names.ls(elsewhere)) == (3, ())
    # One of the three is damaged meanwhile: it is fetched again.
    store = OciLayout(elsewhere.blobs)
    store.blob_path(next(iter(blobs(elsewhere)))).write_bytes(b"damaged")
    proxy.rule = lambda *_: None
    done = remote.pull(elsewhere, source)
    assert (done.blobs_moved, done.artifact.digest) == (done.blobs - 2, artifact.digest)
    assert done.artifact.verify()


def test_a_large_blob_goes_in_pieces(
    layout: Layout, artifact: Artifact, server: Server, proxy: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_client, "WHOLE_BLOB", 0)
    remote.push(layout, "greet", f"{proxy.address}/team/pieces")
    assert proxy.count("PATCH") == len({artifact.config.digest, *(b.digest for b in artifact.layers.values())})
    for blob in artifact.layers.values():
        assert digest_bytes(server.blob(blob.digest).read_bytes()) == blob.digest


def test_a_download_that_broke_off_goes_on_where_it_was(
    layout: Layout, artifact: Artifact, proxy: Front, elsewhere: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_http, "_PIECE", 1 << 16)
    source, digest = f"{proxy.address}/team/fetched", large(layout, artifact)
    remote.push(layout, "greet", source)
    whole = OciLayout(layout.blobs).read_blob(digest)
    asked: list[str] = []

    def breaks(method: str, path: str, headers: dict[str, str]) -> Reply | None:
        if method == "GET" and digest in path:
            asked.append(headers.get("Range", "all"))
            if len(asked) == 1:
                return Reply(200, whole[: 6 << 16], {"Content-Length": str(len(whole))})
            if len(asked) <= remote_http.ATTEMPTS:
                return Reply(0)
        return None

    proxy.rule = breaks
    with pytest.raises(WorkbenchError, match="cannot be reached"):
        remote.pull(elsewhere, source)
    store = OciLayout(elsewhere.blobs)
    part = store.blob_path(digest).with_name(f".{digest.removeprefix('sha256:')}.part")
    assert part.read_bytes() == whole[: 6 << 16]
    remote.pull(elsewhere, source)
    assert asked == ["all", *[f"bytes={6 << 16}-"] * remote_http.ATTEMPTS]
    assert store.read_blob(digest) == whole
    assert not part.exists()


@pytest.mark.parametrize("left", [b"", b"other bytes", b"\0" * (10 << 16), b"\0" * (11 << 16)])
def test_what_an_earlier_pull_left_is_not_trusted(
    layout: Layout, artifact: Artifact, server: Server, elsewhere: Layout, left: bytes
) -> None:
    source, digest = server.new_repository(), large(layout, artifact)
    remote.push(layout, "greet", source)
    target = OciLayout(elsewhere.blobs).blob_path(digest)
    target.parent.mkdir(parents=True)
    part = target.with_name(f".{target.name}.part")
    part.write_bytes(left)
    remote.pull(elsewhere, source)
    assert digest_bytes(target.read_bytes()) == digest
    assert not part.exists()


class Line:
    """A connection to a registry that counts the bytes of uploads, and breaks after so many pieces."""

    def __init__(self, proxy: Front, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(remote_client, "WHOLE_BLOB", 1 << 16)
        monkeypatch.setattr(remote_upload, "PIECE", 1 << 16)
        self.breaks_after: int | None = None
        self.sent = self.pieces = 0
        self.forgets = False
        proxy.rule = self.rule

    def rule(self, method: str, path: str, headers: dict[str, str]) -> Reply | None:
        if self.forgets and method == "GET" and "/uploads/" in path:
            return Reply(404)
        if method != "PATCH":
            return None
        if self.pieces == self.breaks_after:
            return Reply(0)
        self.pieces += 1
        self.sent += int(headers["Content-Length"])
        return None


@pytest.fixture
def line(proxy: Front, monkeypatch: pytest.MonkeyPatch) -> Line:
    return Line(proxy, monkeypatch)


def large(layout: Layout, artifact: Artifact, size: int = 10 << 16) -> str:
    """Hang a large blob on the artifact, and return its digest."""
    store = OciLayout(layout.blobs)
    blob = store.put_blob(bytes(range(256)) * (size // 256), "application/octet-stream")
    subject = {"mediaType": MANIFEST_TYPE, "digest": artifact.digest, "size": 2}
    config = store.put_blob(b"{}", "application/vnd.oci.empty.v1+json").to_json()
    layers = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": [blob.to_json()]}
    store.add_manifest({**layers, "artifactType": "application/vnd.example.large", "subject": subject})
    return blob.digest


def test_an_upload_that_broke_off_goes_on_where_it_was(
    layout: Layout, artifact: Artifact, server: Server, proxy: Front, line: Line
) -> None:
    digest = large(layout, artifact)
    target = f"{proxy.address}/team/resumed"
    line.breaks_after = 6
    with pytest.raises(WorkbenchError, match="cannot be reached"):
        remote.push(layout, "greet", target)
    [kept] = (layout.root / ".workbench" / "uploads").glob("*.json")
    assert json.loads(kept.read_text()).keys() == {"format_version", "location"}
    line.breaks_after = None
    done = remote.push(layout, "greet", target)
    # Not one byte went twice.
    assert (line.sent, line.pieces) == (10 << 16, 10)
    assert not kept.exists()
    assert done.artifact.digest == artifact.digest
    assert digest_bytes(server.blob(digest).read_bytes()) == digest


@pytest.mark.parametrize("how", ["forgotten", "malformed", "of elsewhere"])
def test_an_upload_that_cannot_go_on_starts_over(
    layout: Layout, artifact: Artifact, server: Server, proxy: Front, line: Line, how: str
) -> None:
    digest = large(layout, artifact)
    target = f"{proxy.address}/team/{how.replace(' ', '-')}"
    line.breaks_after = 6
    with pytest.raises(WorkbenchError, match="cannot be reached"):
        remote.push(layout, "greet", target)
    [kept] = (layout.root / ".workbench" / "uploads").glob("*.json")
    if how == "malformed":
        kept.write_text("{")
    if how == "of elsewhere":
        kept.write_text(json.dumps({"location": f"http://{proxy.address}/v2/nobody/nothing/blobs/uploads/0"}))
    line.breaks_after, line.forgets = None, how == "forgotten"
    remote.push(layout, "greet", target)
    assert line.sent == 16 << 16
    assert not kept.exists()
    assert digest_bytes(server.blob(digest).read_bytes()) == digest


def test_an_upload_whose_last_answer_was_lost_is_not_sent_again(
    layout: Layout, artifact: Artifact, proxy: Front, line: Line
) -> None:
    digest = large(layout, artifact)
    lost = False

    def loses(method: str, path: str, headers: dict[str, str]) -> Reply | None:
        nonlocal lost
        if method == "PUT" and digest.removeprefix("sha256:") in path and not lost:
            lost = True
            # It arrives, and the answer does not.
            forward(proxy, method, path)
            return Reply(0)
        return line.rule(method, path, headers)

    proxy.rule = loses
    remote.push(layout, "greet", f"{proxy.address}/team/lost")
    assert (lost, line.sent) == (True, 10 << 16)


def forward(proxy: Front, method: str, path: str) -> None:
    connection = http.client.HTTPConnection(registry().address)
    connection.request(method, path, headers={"Content-Length": "0"})
    assert connection.getresponse().status == 201
    connection.close()


@pytest.mark.parametrize("status", [404, 416, 503])
def test_a_registry_that_takes_no_piece_is_given_up(
    layout: Layout, artifact: Artifact, proxy: Front, line: Line, status: int
) -> None:
    large(layout, artifact)
    proxy.rule = lambda method, path, headers: (
        Reply(status) if method == "PATCH" or (status == 404 and method == "GET" and "/uploads/" in path) else None
    )
    with pytest.raises(WorkbenchError, match="cannot be reached"):
        remote.push(layout, "greet", f"{proxy.address}/team/stubborn-{status}")
    assert proxy.count("PATCH") == remote_http.ATTEMPTS


def test_a_registry_that_loses_uploads_is_given_up(
    layout: Layout, artifact: Artifact, proxy: Front, line: Line
) -> None:
    large(layout, artifact)
    forgets = itertools.cycle([False, True])

    def loses(method: str, path: str, headers: dict[str, str]) -> Reply | None:
        if method == "GET" and "/uploads/" in path:
            return Reply(404)
        return Reply(404) if method == "PATCH" and next(forgets) else None

    proxy.rule = loses
    with pytest.raises(WorkbenchError, match="loses uploads in their midst"):
        remote.push(layout, "greet", f"{proxy.address}/team/loser")


@pytest.mark.parametrize("part", ["manifest", "prompt.json"])
def test_a_registry_that_was_tampered_with_is_refused(
    layout: Layout, artifact: Artifact, server: Server, elsewhere: Layout, part: str
) -> None:
    repository = server.new_repository()
    remote.push(layout, "greet", repository)
    digest = artifact.digest if part == "manifest" else artifact.layers[part].digest
    path = server.blob(digest)
    whole = path.read_bytes()
    try:
        path.write_bytes(whole.replace(b"schemaVersion", b"schemaversion").replace(b"brief", b"rude!"))
        assert path.read_bytes() != whole
        for selector in (":latest", f"@{artifact.digest}"):
            with pytest.raises(IntegrityError, match=f"{repository} serves other bytes than .*{part}.*tampered with"):
                remote.pull(elsewhere, f"{repository}{selector}")
    finally:
        path.write_bytes(whole)
    assert names.ls(elsewhere) == ()
    assert OciLayout(elsewhere.blobs).manifests() == ()
    assert digest not in blobs(elsewhere)


@pytest.mark.usefixtures("artifact")
@pytest.mark.parametrize("body", [b"", b"short", b"x" * 100_000])
def test_bytes_of_another_length_are_refused(layout: Layout, proxy: Front, elsewhere: Layout, body: bytes) -> None:
    source = f"{proxy.address}/team/length"
    remote.push(layout, "greet", source)
    proxy.rule = lambda method, path, _: Reply(200, body) if method == "GET" and "/blobs/" in path else None
    with pytest.raises(IntegrityError, match="serves other bytes"):
        remote.pull(elsewhere, source)
    assert blobs(elsewhere) == set()


def test_referrers_travel(layout: Layout, artifact: Artifact, server: Server, elsewhere: Layout) -> None:
    """This registry has no referrers API, so they are found by the tag `sha256-<hex>`."""
    repository = server.new_repository()
    signature = sign(layout, artifact.digest, "signed")
    remote.push(layout, "greet", repository)
    # Later ones join the list; one has been made by another program, and one refers to a referrer.
    foreign = sign(layout, artifact.digest, "attested", spaces=True)
    nested = sign(layout, foreign, "who signed the attestation")
    pushed = remote.push(layout, "greet", repository)
    assert set(pushed.referrers) == {signature, foreign, nested}
    assert (pushed.blobs_moved, remote.push(layout, "greet", repository).manifests_moved) == (2, 0)

    pulled = remote.pull(elsewhere, f"{repository}@{artifact.digest}")
    assert set(pulled.referrers) == referring(elsewhere, artifact.digest) == {signature, foreign, nested}
    assert blobs(elsewhere) == blobs(layout)
    assert OciLayout(elsewhere.blobs).manifests() == OciLayout(layout.blobs).manifests()
    assert collect_garbage(elsewhere, grace_s=-GRACE_S).blobs == {}


def test_a_registry_with_the_referrers_api_needs_no_tag(
    layout: Layout, artifact: Artifact, proxy: Front, elsewhere: Layout
) -> None:
    target = f"{proxy.address}/team/api"
    signatures = [sign(layout, artifact.digest, text) for text in ("one", "two")]
    entries = [entry.to_json() for entry in OciLayout(layout.blobs).manifests() if entry.digest in signatures]

    def api(method: str, path: str, headers: dict[str, str]) -> Reply | None:
        if "/referrers/" not in path:
            return None
        listed = entries if artifact.digest in path else []
        first, here = "next=1" not in path, {"Content-Type": INDEX_TYPE}
        if first and listed:
            here["Link"] = f'<{path}?next=1>; rel="next"'
        page = listed[:1] if first else listed[1:]
        return Reply(200, json.dumps({"schemaVersion": 2, "manifests": page}).encode(), here)

    proxy.rule = api
    assert set(remote.push(layout, "greet", target).referrers) == set(signatures)
    assert not any("sha256-" in path for _, path in proxy.seen)
    assert set(remote.pull(elsewhere, target, name="api").referrers) == set(signatures)


def test_a_list_that_names_what_does_not_refer_is_refused(
    layout: Layout, artifact: Artifact, proxy: Front, elsewhere: Layout, make_run: MakeRun
) -> None:
    target = f"{proxy.address}/team/liar"
    other = promote(layout, make_run(run_id="run-2", changes={"git_commit": "beef"}), "other", "few")
    remote.push(layout, "other", target)
    remote.push(layout, "greet", target)
    size = other.store.blob_path(other.digest).stat().st_size
    entry = {"mediaType": MANIFEST_TYPE, "digest": other.digest, "size": size}
    reply = Reply(200, json.dumps({"manifests": [entry]}).encode(), {"Content-Type": INDEX_TYPE})
    proxy.rule = lambda method, path, _: reply if "/referrers/" in path else None
    with pytest.raises(IntegrityError, match="as referring to"):
        remote.pull(elsewhere, target)
    assert names.ls(elsewhere) == ()


def test_what_is_not_there(layout: Layout, artifact: Artifact, server: Server, elsewhere: Layout) -> None:
    repository = server.new_repository()
    with pytest.raises(NotFoundError, match=f"there is no {repository}. Push to it with"):
        remote.pull(elsewhere, repository)
    # This registry lists what refers to the artifact under a tag, which is nobody's.
    sign(layout, artifact.digest, "yes")
    remote.push(layout, "greet", f"{repository}:v1")
    with pytest.raises(NotFoundError, match=rf"there is no {repository}:v2\. It has the tags: v1\.$"):
        remote.pull(elsewhere, f"{repository}:v2")
    with pytest.raises(NotFoundError, match="there is no"):
        remote.pull(elsewhere, f"{repository}@sha256:{'0' * 64}")
    with pytest.raises(NotFoundError, match="no artifact 'nobody'"):
        remote.push(layout, "nobody", repository)


def test_no_registry(layout: Layout, artifact: Artifact) -> None:
    with pytest.raises(WorkbenchError, match=r"127.0.0.1:9 cannot be reached: it refuses the connection \(4 tries\)"):
        remote.push(layout, "greet", "127.0.0.1:9/greet")
    with pytest.raises(WorkbenchError, match=r"there is no registry registry\.invalid: no such host"):
        remote.push(layout, "greet", "registry.invalid/greet")
    with front() as server:
        server.rule = lambda *_: Reply(404, b"a web site")
        with pytest.raises(WorkbenchError, match="is not an OCI registry: it answers 404"):
            remote.pull(layout, f"{server.address}/greet")


def test_other_artifacts_are_refused(layout: Layout, server: Server, proxy: Front, elsewhere: Layout) -> None:
    config = {"mediaType": "text/plain", "digest": digest_bytes(b""), "size": 0}
    image = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": []}
    similar = image | {"artifactType": "application/vnd.cncf.model.manifest.v1+json"}
    for manifest, what in [(image, "image.manifest"), (similar, "cncf.model"), ({"mediaType": INDEX_TYPE}, "index")]:
        reply = Reply(200, json.dumps(manifest).encode())
        proxy.rule = lambda method, path, _, reply=reply: reply if "/manifests/" in path else None  # type: ignore[misc]
        with pytest.raises(IntegrityError, match=f"is not a workbench artifact but .*{what}"):
            remote.pull(elsewhere, f"{proxy.address}/team/image")
    for body in (b"nonsense", b"[1]"):
        proxy.rule = lambda method, path, _, body=body: Reply(200, body) if "/manifests/" in path else None  # type: ignore[misc]
        with pytest.raises(IntegrityError, match="malformed manifest"):
            remote.pull(elsewhere, f"{proxy.address}/team/image")
    proxy.rule = lambda method, path, _: Reply(200, b" " * 5_000_000) if "/manifests/" in path else None
    with pytest.raises(IntegrityError, match="more than 4,194,304 bytes"):
        remote.pull(elsewhere, f"{proxy.address}/team/image")
    assert blobs(elsewhere) == set()


def test_a_damaged_artifact_is_not_sent(layout: Layout, artifact: Artifact, proxy: Front) -> None:
    path = artifact.store.blob_path(artifact.layers["prompt.json"].digest)
    path.write_bytes(path.read_bytes().replace(b"brief", b"rude!"))
    with pytest.raises(IntegrityError, match=r"prompt\.json"):
        remote.push(layout, "greet", f"{proxy.address}/team/damaged")
    assert proxy.seen == []


def log_in(monkeypatch: pytest.MonkeyPatch, folder: Path, address: str, password: str = PASSWORD) -> None:
    """What `docker login` leaves."""
    folder.mkdir(exist_ok=True)
    secret = base64.b64encode(f"{USER}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {address: {"auth": secret}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))


def test_logins_of_docker_are_used(
    layout: Layout, artifact: Artifact, elsewhere: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = registry(login=True)
    repository = server.new_repository()
    for password in (None, "wrong-word"):
        if password:
            log_in(monkeypatch, tmp_path / "docker", server.address, password)
        with pytest.raises(WorkbenchError, match=f"not authorized.*docker login {server.address}") as caught:
            remote.push(layout, "greet", repository)
        assert "word" not in str(caught.value)
        assert caught.value.exit_code == 1
    log_in(monkeypatch, tmp_path / "docker", server.address)
    remote.push(layout, "greet", repository)
    assert remote.pull(elsewhere, repository).artifact.digest == artifact.digest
    (tmp_path / "docker" / "config.json").write_text("{")
    with pytest.raises(WorkbenchError, match=r"config\.json is malformed"):
        remote.pull(elsewhere, repository)


def test_tokens_are_asked_for_what_is_to_be_done(
    layout: Layout,
    artifact: Artifact,
    proxy: Front,
    elsewhere: Layout,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A token for reading does not write, as at Docker Hub, and each token ends after a while."""
    uses: dict[str, int] = {}

    def guard(method: str, path: str, headers: dict[str, str]) -> Reply | None:
        if path.startswith("/token"):
            if not headers.get("Authorization", "").startswith("Basic "):
                return Reply(401)
            token = f"{'push' if 'push' in path else 'pull'}-{len(uses)}"
            uses[token] = 0
            return Reply(200, json.dumps({"token": token}).encode())
        scope = "pull" if method in ("GET", "HEAD") else "push"
        token = headers.get("Authorization", "").removeprefix("Bearer ")
        if token.startswith(("push", scope)) and uses[token] < 5:
            uses[token] += 1
            return None
        realm = f'Bearer realm="http://{proxy.address}/token",service="s",scope="repository:r:{scope}"'
        return Reply(401, b"", {"WWW-Authenticate": realm})

    proxy.rule = guard
    with pytest.raises(WorkbenchError, match="not authorized"):
        remote.push(layout, "greet", f"{proxy.address}/team/tokens")
    log_in(monkeypatch, tmp_path / "docker", proxy.address)
    remote.push(layout, "greet", f"{proxy.address}/team/tokens")
    assert remote.pull(elsewhere, f"{proxy.address}/team/tokens").artifact.digest == artifact.digest
    assert {token[:4] for token in uses} == {"push", "pull"}


@pytest.mark.usefixtures("artifact")
def test_what_a_registry_refuses_is_told_without_what_it_says(layout: Layout) -> None:
    with front() as server:
        body = json.dumps({"errors": [{"code": "DENIED", "message": f"no {PASSWORD}"}]}).encode()
        server.rule = lambda method, path, _: Reply(200) if path == "/v2/" else Reply(406, body)
        with pytest.raises(WorkbenchError, match=r"refuses with status 406 \(DENIED\)") as caught:
            remote.pull(layout, f"{server.address}/greet")
        assert PASSWORD not in str(caught.value)
        server.rule = lambda method, path, _: Reply({"HEAD": 404, "POST": 202}.get(method, 200))
        with pytest.raises(WorkbenchError, match="gives no address to upload to"):
            remote.push(layout, "greet", f"{server.address}/greet")
        server.rule = lambda method, path, _: Reply(404 if path != "/v2/" else 200)
        with pytest.raises(NotFoundError, match="to be made before the first push"):
            remote.push(layout, "greet", f"{server.address}/greet")


def test_plain_http_only_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    local = ["localhost/a", "localhost:5000/a", "127.0.0.1:5000/a/b", "[::1]:5000/a"]
    assert all(Reference.parse(text).is_local for text in local)
    other = ["registry.example/a", "127.0.0.1.example/a", "localhost.example:80/a", "10.0.0.1:5000/a"]
    assert not any(Reference.parse(text).is_local for text in other)
    asked: list[str] = []

    def connect(connection: remote_http.Connection) -> None:
        asked.append(connection.base)

    monkeypatch.setattr(remote_http.Connection, "_connect", connect)
    for text, insecure in [("registry.example/a", False), ("registry.example/a", True), ("localhost/a", False)]:
        remote_http.Connection(Reference.parse(text), insecure=insecure, sleep=lambda _: None).close()
    assert asked == ["https://registry.example/v2/a", "http://registry.example/v2/a", "http://localhost/v2/a"]
    connection = remote_http.Connection(Reference.parse("registry.example/a"), insecure=False, sleep=lambda _: None)
    with pytest.raises(WorkbenchError, match="over plain http"):
        connection.request("http://registry.example/v2/a/blobs/uploads/1", "PUT")
    connection.close()


def test_references() -> None:
    assert Reference.parse("docker.io/ada/triage") == Reference("docker.io", "ada/triage", "latest")
    digest = f"sha256:{'a' * 64}"
    assert str(Reference.parse(f"ghcr.io/ada/triage@{digest}")) == f"ghcr.io/ada/triage@{digest}"
    assert Reference.parse("localhost:5000/a/b_c:V1.0").name == "b_c"
    with pytest.raises(UsageError, match="has a digest"):
        Reference.parse_target(f"ghcr.io/ada/triage@{digest}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "triage",
        "team/triage",
        "registry.example/",
        "registry.example/Team/x",
        "registry.example/a:",
        "registry.example/a:b:c",
        "registry.example/a@sha256:12",
        f"registry.example/a:b@sha256:{'a' * 64}",
        "registry.example/../a",
        "registry.example:port/a",
        "registry.example/a:tag\n",
    ],
)
def test_malformed_references(text: str) -> None:
    with pytest.raises(UsageError, match="Write REGISTRY/REPOSITORY:TAG") as caught:
        Reference.parse(text)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", [f"https://ada:{PASSWORD}@registry.example/a", f"ada:{PASSWORD}@registry.example/a"])
def test_a_password_in_a_reference_is_not_repeated(text: str) -> None:
    with pytest.raises(UsageError, match="without user or password") as caught:
        Reference.parse(text)
    assert PASSWORD not in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_a_reference_or_a_usage_error(text: str) -> None:
    try:
        found = Reference.parse(text)
    except UsageError:
        return
    assert Reference.parse(str(found)) == found


def test_without_the_library_the_extra_is_named(
    layout: Layout, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "oras", None)
    monkeypatch.setitem(__import__("sys").modules, "oras.provider", None)
    with pytest.raises(MissingExtraError, match=r"llmops-workbench\[oci\]"):
        remote.push(layout, "greet", "localhost:5000/greet")


def test_the_commands(
    layout: Layout, artifact: Artifact, server: Server, elsewhere: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = server.new_repository()
    sign(layout, artifact.digest, "signed")
    monkeypatch.chdir(layout.root)
    said = CliRunner().invoke(app, ["artifact", "push", "greet@1", f"{repository}:v1"]).stdout
    assert f"greet@1 is {repository}:v1  {artifact.digest}" in said
    assert "1 manifest came along" in said
    again = json.loads(CliRunner().invoke(app, ["artifact", "push", "greet", f"{repository}:v1", "--json"]).stdout)
    assert (again["digest"], again["blobs_moved"]) == (artifact.digest, 0)
    monkeypatch.chdir(elsewhere.root)
    name = repository.rpartition("/")[2]
    said = CliRunner().invoke(app, ["artifact", "pull", f"{repository}:v1"]).stdout
    assert f"{name}@1 is {repository}:v1  {artifact.digest}" in said
    told = json.loads(CliRunner().invoke(app, ["artifact", "pull", f"{repository}:v1", "--name", "x", "--json"]).stdout)
    assert (told["name"], told["version"], len(told["referrers"])) == ("x", 1, 1)
    assert CliRunner().invoke(app, ["artifact", "verify", "x"]).exit_code == 0
    monkeypatch.setattr(Pipeline, "engine", lambda _: Parrot())
    assert CliRunner().invoke(app, ["artifact", "run", name, "text=hi"]).stdout == "HI\n"
    for arguments in (["pull", "nonsense"], ["pull", f"{repository}:v1", "--name", "Bad Name"], ["push", "x", "a/b"]):
        error = CliRunner().invoke(app, ["artifact", *arguments]).exception
        assert isinstance(error, UsageError)
