"""`workbench gate`, `promote` and `artifact`, as a shell sees them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from tests.registry.conftest import MODEL, UNCLEAR, MakeRun, pipelines
from workbench.cli.main import app
from workbench.errors import GateRefused, IntegrityError, NotFoundError, UsageError, WorkbenchError
from workbench.models.budget import Budget
from workbench.models.engine import Completion, Message, ModelInfo, Request
from workbench.pipeline.pipeline import Pipeline
from workbench.registry import names
from workbench.registry.artifact import Artifact
from workbench.workspace import Layout


class Parrot:
    """An engine that says the last message back."""

    info = ModelInfo(**MODEL)

    def generate(
        self, requests: Sequence[Request], *, budget: Budget | None = None
    ) -> Iterator[tuple[int, Completion]]:
        for index, request in enumerate(requests):
            yield index, Completion(text=request.messages[-1].content)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return len(messages)

    def close(self) -> None:
        return None


@pytest.fixture(autouse=True)
def _here(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(layout.root)
    monkeypatch.setattr(Pipeline, "engine", lambda _: Parrot())


def call(*arguments: str, stdin: str | None = None) -> Result:
    """Run a command. Errors rise to the caller, as they do to the program's own handler."""
    result = CliRunner().invoke(app, list(arguments), input=stdin)
    if isinstance(result.exception, WorkbenchError):
        raise result.exception
    return result


def parsed(*arguments: str, stdin: str | None = None) -> Any:
    return json.loads(call(*arguments, "--json", stdin=stdin).stdout)


@pytest.fixture
def promoted(make_run: MakeRun) -> None:
    """`greet@1` is staging."""
    make_run()
    assert call("promote", "latest", "greet", "--alias", "staging").exit_code == 0


def test_gate_exits_0_or_100_and_writes_junit_either_way(make_run: MakeRun, layout: Layout) -> None:
    make_run()
    passed = call("gate", "run-1", "--junit", "gate.xml")
    assert (passed.exit_code, "lets few pass" in passed.stdout) == (0, True)
    assert ElementTree.parse(layout.root / "gate.xml").getroot().get("failures") == "0"
    make_run(UNCLEAR, run_id="run-2")
    refused = call("gate", "run-2", "--variant", "few", "--over", "base", "--junit", "gate.xml")
    assert (refused.exit_code, "REFUSED  decision" in refused.stdout) == (100, True)
    assert ElementTree.parse(layout.root / "gate.xml").getroot().get("failures") == "1"
    assert parsed("gate", "run-2")["passed"] is False


def test_gate_reads_the_policy_it_is_given(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(UNCLEAR)
    policy = tmp_path / "lax.toml"
    policy.write_text("[decision]\nminimum = 'none'\n")
    assert call("gate", "run-1", "--policy", str(policy)).exit_code == 0


def test_promote_refuses_what_the_gate_refuses(make_run: MakeRun) -> None:
    make_run(UNCLEAR)
    with pytest.raises(GateRefused):
        call("promote", "run-1", "greet")
    assert parsed("artifact", "ls") == []
    assert [move["kind"] for move in parsed("artifact", "history", "greet")] == ["refuse"]
    assert "asks for better" in " ".join(call("artifact", "history", "greet").stdout.split())


def test_a_variant_must_be_named_where_there_are_several(make_run: MakeRun) -> None:
    variants = {**pipelines(), "third": pipelines()["base"].with_(model="large")}
    make_run({name: [True] * 60 for name in variants}, variants=variants)
    with pytest.raises(UsageError, match="--variant few or third"):
        call("gate", "run-1")


@pytest.mark.usefixtures("promoted")
def test_ls_and_show(layout: Layout) -> None:
    (listed,) = parsed("artifact", "ls")
    assert list(listed) == ["name", "version", "digest", "aliases", "created_at"]
    assert (listed["name"], listed["version"], listed["aliases"]) == ("greet", 1, ["staging"])
    assert parsed("artifact", "ls", "other") == []
    assert "staging" in call("artifact", "ls").stdout
    assert "better" in call("artifact", "ls").stdout
    shown = parsed("artifact", "show", "greet@staging")
    assert shown["digest"] == listed["digest"]
    assert shown["decision"]["outcome"] == "better"
    assert "postprocess/shout.py" in call("artifact", "show", "greet").stdout


def test_ls_of_many_versions_is_plain_lines(layout: Layout) -> None:
    for number in range(250):
        names.register(layout, "many", f"sha256:{number:064x}", decision="better – ähnlich" if number % 2 else None)
    names.set_alias(layout, "many", "prod", 7)
    lines = call("artifact", "ls", "many").stdout.splitlines()
    assert len(lines) == 251
    assert lines[0].split() == ["artifact", "digest", "aliases", "decision", "created", "(UTC)"]
    assert lines[7].split()[:3] == ["many@7", "000000000000", "prod"]
    # Columns stand under one another.
    assert {line.index(" 20") for line in lines[1:]} == {lines[0].index(" created")}
    assert parsed("artifact", "ls", "many") == [version.to_json() for version in names.ls(layout, "many")]


def test_ls_of_nothing_says_how_to_make_something() -> None:
    assert "workbench promote RUN NAME" in call("artifact", "ls").stdout


@pytest.mark.usefixtures("promoted")
def test_verify_names_each_layer_and_what_is_damaged(layout: Layout) -> None:
    whole = call("artifact", "verify", "greet")
    assert whole.exit_code == 0
    assert "evidence/calls.parquet" in whole.stdout
    artifact = Artifact.open(layout, "greet")
    path = artifact.store.blob_path(artifact.layers["prompt.json"].digest)
    path.write_bytes(path.read_bytes().replace(b"brief", b"rude!"))
    with pytest.raises(IntegrityError, match=r"prompt\.json") as caught:
        call("artifact", "verify", "greet@staging")
    assert caught.value.exit_code == 1
    broken = call("artifact", "verify", "greet", "--json")
    assert broken.exit_code == 1
    report = json.loads(broken.stdout)
    assert report["ok"] is False
    assert [layer["title"] for layer in report["layers"] if not layer["ok"]] == ["prompt.json"]
    with pytest.raises(IntegrityError):
        call("artifact", "run", "greet", "text=hello")


@pytest.mark.usefixtures("promoted")
def test_aliases_move_and_roll_back(make_run: MakeRun) -> None:
    make_run(run_id="run-2", changes={"started_at": "2026-01-03T00:00:00+00:00"})
    assert parsed("promote", "latest", "greet")["version"] == 2
    assert parsed("artifact", "alias", "greet@2", "staging")["version"] == 2
    assert "greet@staging is now version 1" in call("artifact", "rollback", "greet@staging").stdout
    assert parsed("artifact", "alias", "greet", "staging")["version"] == 2
    assert parsed("artifact", "rollback", "greet", "staging")["version"] == 1
    with pytest.raises(NotFoundError):
        call("artifact", "rollback", "greet@staging")
    with pytest.raises(UsageError, match="NAME@ALIAS"):
        call("artifact", "rollback", "greet")
    kinds = [move["kind"] for move in parsed("artifact", "history", "greet")]
    assert kinds == ["register", "alias", "register", "alias", "rollback", "alias", "rollback"]


@pytest.mark.usefixtures("promoted")
def test_an_alias_with_a_policy_refuses_until_somebody_approves(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout.policies.mkdir()
    (layout.policies / "prod.toml").write_text("[[approval]]\nrole = 'reviewer'\n")
    (layout.root / "workbench.toml").write_text("[roles]\nreviewer = ['ada']\n")
    with pytest.raises(GateRefused) as caught:
        call("artifact", "alias", "greet@1", "prod")
    assert caught.value.exit_code == 100
    with pytest.raises(UsageError, match="is not reviewer"):
        call("artifact", "approve", "greet@1", "--role", "reviewer")
    monkeypatch.setattr(names, "current_user", lambda: "ada")
    assert (
        "greet@1 is approved by ada (reviewer)" in call("artifact", "approve", "greet@1", "--role", "reviewer").stdout
    )
    [consent] = parsed("artifact", "approve", "greet@1", "--role", "reviewer")["approvals"]
    assert (consent["actor"], consent["role"]) == ("ada", "reviewer")
    assert parsed("artifact", "alias", "greet@1", "prod")["aliases"] == ["prod", "staging"]
    kinds = [move["kind"] for move in parsed("artifact", "history", "greet", "--alias", "prod")]
    assert kinds == ["refuse", "alias"]


@pytest.mark.usefixtures("promoted")
def test_history_says_where_an_alias_pointed_at_a_time() -> None:
    told = parsed("artifact", "history", "greet", "--alias", "staging", "--at", "2999-03-03 14:00:00")
    assert (told["move"]["to_version"], told["artifact"]["decision"]["outcome"]) == (1, "better")
    said = call("artifact", "history", "greet", "--alias", "staging", "--at", "2999-03-03").stdout
    assert "greet@staging was version 1, moved there by" in said
    assert "run-1, variant few over base" in said
    with pytest.raises(NotFoundError, match="pointed nowhere"):
        call("artifact", "history", "greet", "--alias", "staging", "--at", "2001-01-01")
    with pytest.raises(UsageError, match="which alias"):
        call("artifact", "history", "greet", "--at", "2001-01-01")


@pytest.mark.usefixtures("promoted")
def test_history_of_what_is_not_there_is_an_error() -> None:
    for arguments in (["nope"], ["nope", "--alias", "prod"], ["nope", "--alias", "prod", "--at", "2001-01-01"]):
        with pytest.raises(NotFoundError, match=r"no artifact 'nope'\. There are: greet"):
            call("artifact", "history", *arguments)
    with pytest.raises(NotFoundError, match=r"greet has no alias 'prod'\. It has: staging"):
        call("artifact", "history", "greet", "--alias", "prod")


@pytest.mark.usefixtures("promoted")
def test_history_tells_a_pulled_version_from_one_of_this_workspace(layout: Layout) -> None:
    digest = Artifact.open(layout, "greet").digest
    names.register(layout, "pulled", digest, detail={"from": "ghcr.io/team/greet:v1"})
    assert "pulled from ghcr.io/team/greet:v1" in " ".join(call("artifact", "history", "pulled").stdout.split())
    assert "pulled" not in call("artifact", "history", "greet").stdout


@pytest.mark.usefixtures("promoted")
def test_a_rollback_to_what_is_damaged_exits_with_100(layout: Layout, make_run: MakeRun) -> None:
    make_run(run_id="run-2", changes={"started_at": "2026-01-03T00:00:00+00:00"})
    call("promote", "run-2", "greet", "--alias", "staging")
    first = Artifact.open(layout, "greet@1")
    first.store.blob_path(first.digest).unlink()
    with pytest.raises(GateRefused, match=r"manifest .* is missing.*artifact alias greet@VERSION staging") as caught:
        call("artifact", "rollback", "greet@staging")
    assert caught.value.exit_code == 100
    assert names.alias_version(layout, "greet", "staging") == 2


@pytest.mark.usefixtures("promoted")
def test_diff_prints_what_changed(make_run: MakeRun) -> None:
    make_run(run_id="run-2", changes={"started_at": "2026-01-03T00:00:00+00:00"})
    call("promote", "run-2", "greet")
    assert "greet@1 → greet@2: the same pipeline" in call("artifact", "diff", "greet@1", "greet@2").stdout
    assert parsed("artifact", "diff", "greet@1", "greet")["evidence"]["run"] == {"before": "run-1", "after": "run-2"}


@pytest.mark.usefixtures("promoted")
def test_run_answers_from_arguments_and_from_standard_input() -> None:
    assert call("artifact", "run", "greet@staging", "text=a = b").stdout == "A = B\n"
    assert call("artifact", "run", "greet", "--input", "text=hi").stdout == "HI\n"
    assert parsed("artifact", "run", "greet", stdin='{"text": "héllo"}') == "HÉLLO"


@pytest.mark.usefixtures("promoted")
@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["text"], None, "not KEY=VALUE"),
        (["text=a", "txet=b"], None, "no variable txet"),
        ([], "nonsense", "not JSON"),
        ([], "[1]", "not a JSON object"),
    ],
)
def test_run_explains_wrong_inputs(arguments: list[str], stdin: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call("artifact", "run", "greet", *arguments, stdin=stdin)
