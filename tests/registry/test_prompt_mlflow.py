"""Prompts to and from MLflow's own registry, in a database that MLflow itself keeps."""

from __future__ import annotations

import contextlib
import importlib
import json
import shutil
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.registry.conftest import MakeRun, pipelines
from workbench.cli.prompt import prompt_app
from workbench.errors import MissingExtraError, NotFoundError, UsageError, WorkbenchError
from workbench.pipeline.prompt import Prompt
from workbench.registry.mlflow_client import open_client, shown_uri
from workbench.registry.promote import promote
from workbench.registry.prompt_import import ImportReport
from workbench.registry.prompt_mlflow import LONGEST, export_to_mlflow, import_from_mlflow
from workbench.registry.prompts import find_prompt, prompt_log, save_prompt, tag_prompt
from workbench.workspace import Layout

JANUARY, MAY = datetime(2026, 1, 2, 3, tzinfo=UTC), datetime(2026, 5, 6, 7, tzinfo=UTC)
FIRST, SECOND = Prompt.from_text("Say {{ text }}"), Prompt.from_text("Shout {{ text }}")
CHAT = Prompt.from_text(
    "---\nvariables: [text]\nexamples:\n- inputs: {text: good day}\n  output: GOOD DAY\n---\n"
    "## system\nBe loud.\n\n## user\nShout: {{ text }}"
)
# A filter and a loop that MLflow does not have, and an example whose braces it would fill in.
JINJA = Prompt.from_text(
    "---\nvariables: [rows]\nexamples:\n- inputs: {rows: ['{{ x }}']}\n  output: '{{ y }}'\n---\n"
    "## system\nSort.\n\n## user\n{% for row in rows %}{{ row | json }}\n{% endfor %}"
)


@contextlib.contextmanager
def mlflow_client(uri: str) -> Iterator[Any]:
    """MLflow's own client, to do there what people do."""
    with open_client(uri):
        yield importlib.import_module("mlflow").MlflowClient(uri, uri)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry without prompts."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    try:
        with open_client(f"sqlite:///{path}") as client:
            assert client.names() == []
    except MissingExtraError as error:
        pytest.skip(str(error))
    return path


@pytest.fixture
def uri(empty: Path, tmp_path: Path) -> str:
    return f"sqlite:///{shutil.copy(empty, tmp_path / 'mlflow.db')}"


@pytest.fixture
def other(tmp_path: Path) -> Layout:
    """A second workspace, where things are imported."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "workbench.toml").write_text("")
    return Layout.find(tmp_path / "other")


def taken(report: ImportReport) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    return {one.name: (one.added, one.found) for one in report.prompts}


def test_what_was_exported_comes_back_the_same(layout: Layout, other: Layout, uri: str) -> None:
    save_prompt(layout, "voice", FIRST, message="begin", at=JANUARY)
    save_prompt(layout, "voice", CHAT, at=MAY)
    save_prompt(layout, "voice", FIRST, message="back", at=MAY)
    save_prompt(layout, "sort", JINJA)
    tag_prompt(layout, "voice", 2, "draft")
    done = export_to_mlflow(layout, uri)
    assert done.prompts == {"sort": {1: 1}, "voice": {1: 1, 2: 2, 3: 3}}
    assert done.created == {"sort": (1,), "voice": (1, 2, 3)}
    assert taken(import_from_mlflow(other, uri)) == {"sort": ((1,), ()), "voice": ((1, 2, 3), ())}
    assert prompt_log(other) == prompt_log(layout)
    assert find_prompt(other, "sort@1") == JINJA
    again = export_to_mlflow(other, uri)
    assert again.created == {"sort": (), "voice": ()}
    assert taken(import_from_mlflow(other, uri)) == {"sort": ((), (1,)), "voice": ((), (1, 2, 3))}


def test_mlflow_shows_and_fills_in_what_the_workbench_asks(layout: Layout, uri: str) -> None:
    save_prompt(layout, "voice", FIRST, message="begin")
    save_prompt(layout, "voice", CHAT)
    save_prompt(layout, "sort", JINJA)
    notes = export_to_mlflow(layout, uri).notes
    with mlflow_client(uri) as client:
        first, chat = (client.get_prompt_version("voice", number) for number in (1, 2))
        assert (first.template, first.commit_message) == ("Say {{ text }}", "begin")
        assert chat.format(text="hello") == [message.model_dump() for message in CHAT.render({"text": "hello"})]
        assert [one["role"] for one in client.get_prompt_version("sort", 1).template] == ["system", "user"]
    assert notes == ("sort: the examples of version 1 hold braces, so they are in a tag alone",)


def test_tested_is_told_and_never_believed(layout: Layout, other: Layout, uri: str, make_run: MakeRun) -> None:
    save_prompt(layout, "greet", pipelines()["few"].prompt)
    export_to_mlflow(layout, uri)
    promote(layout, make_run(), "greet", "few")
    export_to_mlflow(layout, uri)
    with mlflow_client(uri) as client:
        assert client.get_prompt_version("greet", 1).tags["tested"] == "true"
    [note] = import_from_mlflow(other, uri).notes
    assert "`tested` was left out on version 1" in note
    assert prompt_log(other, "greet")[0].tags == ()
    assert not import_from_mlflow(layout, uri).notes


def test_the_text_in_mlflow_counts(layout: Layout, other: Layout, uri: str) -> None:
    save_prompt(layout, "voice", CHAT)
    save_prompt(layout, "sort", JINJA)
    export_to_mlflow(layout, uri)
    with mlflow_client(uri) as client:
        template = client.get_prompt_version("voice", 1).template
        template[0]["content"] = "Be louder."
        client.set_prompt_version_tag("voice", 1, "mlflow.prompt.text", json.dumps(template))
        template = client.get_prompt_version("sort", 1).template
        template[0]["content"] = "Sort well."
        client.set_prompt_version_tag("sort", 1, "mlflow.prompt.text", json.dumps(template))
    report = import_from_mlflow(other, uri)
    assert report.notes == tuple(
        f"{name}: version 1 was changed in MLflow, and its text there was taken" for name in ("sort", "voice")
    )
    voice, sort = find_prompt(other, "voice@1"), find_prompt(other, "sort@1")
    assert (voice.messages[0].content, voice.examples) == ("Be louder.", CHAT.examples)
    assert (sort.messages[0].content, sort.examples) == ("Sort well.", JINJA.examples)
    # Here it is the next version.
    assert taken(import_from_mlflow(layout, uri)) == {"sort": ((2,), ()), "voice": ((2,), ())}


def test_an_edited_example_is_a_message(layout: Layout, other: Layout, uri: str) -> None:
    save_prompt(layout, "voice", CHAT)
    export_to_mlflow(layout, uri)
    with mlflow_client(uri) as client:
        template = client.get_prompt_version("voice", 1).template
        template[2]["content"] = "GOOD DAY!"
        client.set_prompt_version_tag("voice", 1, "mlflow.prompt.text", json.dumps(template))
    import_from_mlflow(other, uri)
    voice = find_prompt(other, "voice@1")
    assert [message.content for message in voice.messages][1:] == ["Shout: good day", "GOOD DAY!", "Shout: {{ text }}"]
    assert voice.examples == ()


def test_a_tag_that_says_something_else_than_the_text_is_not_believed(layout: Layout, other: Layout, uri: str) -> None:
    save_prompt(layout, "voice", FIRST)
    export_to_mlflow(layout, uri)
    with mlflow_client(uri) as client:
        hidden = Prompt.from_text("Give {{ text }} away").model_dump_json()
        client.set_prompt_version_tag("voice", 1, "workbench_prompt", hidden)
    import_from_mlflow(other, uri)
    assert find_prompt(other, "voice@1") == FIRST


def test_prompts_made_in_mlflow(layout: Layout, uri: str) -> None:
    with mlflow_client(uri) as client:
        client.create_prompt("native")
        client.create_prompt_version("native", " Say {{text}}\n", description="one", tags={"good": "true", "by": "ben"})
        client.create_prompt_version("native", "Say {{ text }}", model_config={"model_name": "m"})
        client.set_prompt_alias("native", "production", 2)
        client.set_prompt_alias("native", "tested", 2)
    report = import_from_mlflow(layout, uri)
    assert taken(report) == {"native": ((1, 2), ())}
    newest, oldest = prompt_log(layout, "native")
    assert (oldest.prompt.messages[0].content, oldest.message, oldest.tags) == ("Say {{text}}", "one", ("good",))
    assert (newest.prompt, newest.tags) == (FIRST, ("production",))
    assert oldest.created_at > "2026"
    assert report.notes[:2] == (
        "native: of version 1 in MLflow was left out: by",
        "native: of version 2 in MLflow was left out: model_config",
    )
    # They are there, so an export adds only what is new.
    save_prompt(layout, "native", SECOND)
    assert export_to_mlflow(layout, uri).prompts == {"native": {1: 1, 2: 2, 3: 3}}
    assert taken(import_from_mlflow(layout, uri)) == {"native": ((), (1, 2, 3))}


def test_an_alias_that_moved_back_does_not_mislead(layout: Layout, uri: str) -> None:
    with mlflow_client(uri) as client:
        client.create_prompt("native")
        for text in ("one {{ x }}", "two {{ x }}"):
            client.create_prompt_version("native", text)
        client.set_prompt_alias("native", "production", 2)
        import_from_mlflow(layout, uri)
        client.set_prompt_alias("native", "production", 1)
    assert import_from_mlflow(layout, uri).notes == (
        "native: production points at version 1 there, and version 2 is it here",
    )
    assert [one.tags for one in prompt_log(layout, "native")] == [("production",), ()]


def test_what_cannot_be_a_prompt_is_left_out_and_the_rest_goes_on(layout: Layout, uri: str) -> None:
    templates: dict[str, Any] = {
        "broken": "{% if x %}",
        "dotted": "Say {{ row.text }}",
        "filtered": "Say {{ text | upper }}",
        "comment": "{# not a comment there #} {{ text }}",
        "tool": [{"role": "tool", "content": "{{ text }}"}],
        "answer": [{"role": "assistant", "content": "{{ text }}"}],
        "parts": [{"role": "user", "content": [{"type": "text", "text": "{{ text }}"}]}],
        "Summary": "{{ text }}",
        "logic": "{% if text %}{{ text | upper }}{% endif %}",
        "plain": "Say {{ text }}",
    }
    with mlflow_client(uri) as client:
        for name, template in templates.items():
            client.create_prompt(name)
            client.create_prompt_version(name, template)
        client.create_registered_model("model")
        client.create_prompt("hollow")
    report = import_from_mlflow(layout, uri)
    assert sorted(taken(report)) == ["logic", "plain"]
    notes = {note.split(":")[0].split(" ")[0]: note for note in report.notes}
    assert sorted(notes) == sorted([*(templates.keys() - {"logic", "plain"}), "hollow"])
    assert "does not parse" in notes["broken"]
    assert "'{{ row.text }}' as it is" in notes["dotted"]
    assert "is registered as a model" in import_from_mlflow(layout, uri, ["model", "plain"]).notes[0]
    with pytest.raises(NotFoundError, match="no prompt 'nothing'"):
        import_from_mlflow(layout, uri, ["nothing"])


def test_what_mlflow_cannot_take_is_left_out_and_the_rest_goes_on(layout: Layout, uri: str) -> None:
    save_prompt(layout, "long", Prompt.from_text("x" * LONGEST + "{{ text }}"))
    save_prompt(layout, "model", FIRST)
    save_prompt(layout, "voice", FIRST)
    with mlflow_client(uri) as client:
        client.create_registered_model("model")
    done = export_to_mlflow(layout, uri)
    assert done.created == {"voice": (1,)}
    assert [note.split(":")[0] for note in done.notes] == ["long was left out", "model was left out"]
    assert "MLflow takes 100,000" in done.notes[0]
    with pytest.raises(NotFoundError):
        export_to_mlflow(layout, uri, ["nothing"])


def test_what_others_did_in_mlflow_stays(layout: Layout, other: Layout, uri: str) -> None:
    for prompt in (FIRST, SECOND, CHAT):
        save_prompt(layout, "voice", prompt)
    export_to_mlflow(layout, uri)
    with mlflow_client(uri) as client:
        client.delete_prompt_version("voice", 2)
        client.set_prompt_version_tag("voice", 3, "draft", "no")
    tag_prompt(layout, "voice", 3, "draft")
    done = export_to_mlflow(layout, uri)
    assert done.prompts == {"voice": {1: 1, 3: 3}}
    assert done.notes == (
        "voice: version 2 was deleted in MLflow, and stays so",
        "voice: draft is 'no' on version 3 in MLflow, and stays so",
    )
    # Another workspace with the same name adds its own after them.
    save_prompt(other, "voice", JINJA)
    assert export_to_mlflow(other, uri).prompts == {"voice": {1: 4}}


def test_places_that_are_no_registry(layout: Layout, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("mlruns", "file:///tmp/mlruns", "sqlite://", "ftp://ada:secret@host"):
        with pytest.raises(UsageError) as caught:
            import_from_mlflow(layout, wrong)
        assert "secret" not in str(caught.value)
    with pytest.raises(NotFoundError, match=r"nowhere\.db"):
        import_from_mlflow(layout, f"sqlite:///{tmp_path / 'nowhere.db'}")
    assert not (tmp_path / "nowhere.db").exists()
    with pytest.raises(NotFoundError, match="nowhere"):
        export_to_mlflow(layout, f"sqlite:///{tmp_path / 'nowhere' / 'mlflow.db'}")
    (tmp_path / "rubbish.db").write_text("rubbish")
    with pytest.raises(WorkbenchError, match="not a database"):
        import_from_mlflow(layout, f"sqlite:///{tmp_path / 'rubbish.db'}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(WorkbenchError, match="nobody answers there") as silent:
            import_from_mlflow(layout, f"http://ada:secret@127.0.0.1:{unused.getsockname()[1]}")
    assert "secret" not in str(silent.value)
    assert shown_uri("postgresql://ada:sec@ret@db/mlflow?password=x") == "postgresql://db/mlflow"


def test_no_other_place_is_spoken_to(layout: Layout, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    save_prompt(layout, "voice", FIRST)
    export_to_mlflow(layout, uri)
    import_from_mlflow(layout, uri)
    telemetry = importlib.import_module("mlflow.telemetry")
    assert telemetry.get_telemetry_client() is None


def test_without_mlflow_the_extra_is_named(layout: Layout, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingExtraError, match=r"llmops-workbench\[mlflow\]"):
        import_from_mlflow(layout, uri)


def said(*arguments: str) -> str:
    result = CliRunner().invoke(prompt_app, list(arguments))
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_as_a_person_types_it(layout: Layout, other: Layout, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    save_prompt(layout, "voice", FIRST)
    save_prompt(layout, "sort", JINJA)
    monkeypatch.chdir(layout.root)
    assert said("export", "--mlflow", uri, "voice") == "voice: 1 version registered, 0 there already\n"
    assert "note: sort: the examples" in said("export", "--mlflow", uri)
    assert json.loads(said("export", "--mlflow", uri, "voice", "--json"))["prompts"] == [
        {"name": "voice", "versions": {"1": 1}, "created": []}
    ]
    monkeypatch.chdir(other.root)
    assert said("import", "--mlflow", uri, "voice") == "voice: 1 version added (1), 0 here already\n"
    assert json.loads(said("import", "--mlflow", uri, "--json"))["prompts"][0]["name"] == "sort"
