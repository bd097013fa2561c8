"""Prompts as files for git: out of one workspace, into another, and nothing is lost, doubled or taken on trust."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.registry.conftest import MakeRun, pipelines
from workbench.cli.prompt import prompt_app
from workbench.errors import DataError, IntegrityError, NotFoundError, PromptError, UsageError
from workbench.models.engine import Message
from workbench.pipeline.prompt import Example, Prompt
from workbench.registry.audit import verify_audit
from workbench.registry.names import history
from workbench.registry.promote import promote
from workbench.registry.prompt_files import export_prompts, import_prompts
from workbench.registry.prompt_history import import_history
from workbench.registry.prompt_import import in_order
from workbench.registry.prompts import find_prompt, prompt_log, save_prompt, tag_prompt
from workbench.workspace import Layout

FIRST, SECOND, THIRD = (Prompt.from_text(f"{verb} {{{{ text }}}}") for verb in ("Say", "Shout", "Whisper"))
# Markdown files cannot hold this one: white space around a message, and a heading inside it.
ODD = Prompt(messages=(Message(role="user", content=" {{ text }}\r\n## user\n"),), variables=("text",))
JANUARY, MAY = datetime(2026, 1, 2, 3, tzinfo=UTC), datetime(2026, 5, 6, 7, tzinfo=UTC)


@pytest.fixture
def other(tmp_path: Path) -> Layout:
    """A second workspace, where things are imported."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "workbench.toml").write_text("")
    return Layout.find(tmp_path / "other")


def three_versions(layout: Layout) -> None:
    save_prompt(layout, "voice", FIRST, message="begin", at=JANUARY)
    save_prompt(layout, "voice", SECOND, message="lauter – é", at=MAY)
    save_prompt(layout, "voice", FIRST, at=MAY)
    tag_prompt(layout, "voice", 2, "draft")


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def versions(layout: Layout, name: str = "voice") -> list[tuple[int, str, str, str, tuple[str, ...]]]:
    return [(one.version, one.digest, one.created_at, one.message, one.tags) for one in prompt_log(layout, name)]


def test_a_folder_brings_the_same_versions_into_another_workspace(
    layout: Layout, other: Layout, tmp_path: Path
) -> None:
    three_versions(layout)
    save_prompt(layout, "odd", ODD)
    folder = tmp_path / "kept"
    assert [(one.name, one.versions, len(one.written)) for one in export_prompts(layout, folder)] == [
        ("odd", 1, 2),
        ("voice", 3, 4),
    ]
    assert (folder / "voice" / "0002.md").read_bytes().decode() == SECOND.to_text()
    report = import_prompts(other, folder, actor="ada")
    assert [(one.name, one.added, one.found) for one in report.prompts] == [("odd", (1,), ()), ("voice", (1, 2, 3), ())]
    assert versions(other) == versions(layout)
    assert find_prompt(other, "odd@1") == ODD
    assert (folder / "odd" / "0001.json").is_file()
    assert not report.notes


def test_again_changes_nothing(layout: Layout, other: Layout, tmp_path: Path) -> None:
    three_versions(layout)
    folder = tmp_path / "kept"
    export_prompts(layout, folder)
    before = contents(folder)
    assert [one.written for one in export_prompts(layout, folder, ["voice"])] == [()]
    import_prompts(other, folder)
    [taken] = import_prompts(other, folder).prompts
    assert (taken.added, taken.found) == ((), (1, 2, 3))
    export_prompts(other, folder)
    assert contents(folder) == before


def test_only_what_is_new_is_added_and_the_audit_says_who_brought_it(
    layout: Layout, other: Layout, tmp_path: Path
) -> None:
    folder = tmp_path / "kept"
    save_prompt(layout, "voice", FIRST, at=JANUARY)
    save_prompt(other, "voice", FIRST, message="my own", at=MAY)
    save_prompt(layout, "voice", SECOND, at=JANUARY)
    tag_prompt(layout, "voice", 1, "draft")
    export_prompts(layout, folder)
    [taken] = import_prompts(other, folder, actor="ada").prompts
    assert (taken.added, taken.found) == ((2,), (1,))
    assert [one.message for one in prompt_log(other, "voice")] == ["", "my own"]
    lines = history(other, "prompt/voice")
    assert [(line.kind, line.to_version, line.actor) for line in lines] == [("import", 2, "ada"), ("tag", 1, "ada")]
    assert lines[0].detail == {"from": str(folder), "digest": SECOND.digest}
    assert verify_audit(other).ok


def test_tested_stays_where_it_was_tested(layout: Layout, other: Layout, make_run: MakeRun, tmp_path: Path) -> None:
    save_prompt(layout, "greet", pipelines()["few"].prompt)
    promote(layout, make_run(), "greet", "few")
    folder = tmp_path / "kept"
    export_prompts(layout, folder)
    assert json.loads((folder / "greet" / "versions.json").read_text())["versions"][0]["tags"] == ["tested"]
    assert not import_prompts(layout, folder).notes
    [note] = import_prompts(other, folder).notes
    assert "`tested` was left out on version 1" in note
    assert prompt_log(other, "greet")[0].tags == ()
    # What was tested elsewhere is still said in the folder when this workspace writes to it.
    assert export_prompts(other, folder)[0].written == ()


def test_a_file_that_was_changed_is_refused_by_name(layout: Layout, other: Layout, tmp_path: Path) -> None:
    three_versions(layout)
    save_prompt(layout, "a-first", FIRST)
    folder = tmp_path / "kept"
    export_prompts(layout, folder)
    path = folder / "voice" / "0002.md"
    for changed in (
        path.read_bytes().replace(b"Shout", b"Roar"),
        b"---\nvariables: 5\n---\n{{ text }}",
        b"\xff",
        b"{{",
    ):
        path.write_bytes(changed)
        with pytest.raises(IntegrityError, match=r"0002\.md"):
            import_prompts(other, folder)
    assert prompt_log(other) == []
    # Line endings that git changes on Windows are no change of the prompt.
    path.write_bytes(SECOND.to_text().replace("\n", "\r\n").encode())
    assert import_prompts(other, folder).prompts[1].added == (1, 2, 3)


def test_another_history_is_refused_and_nothing_is_written(layout: Layout, other: Layout, tmp_path: Path) -> None:
    three_versions(layout)
    save_prompt(layout, "a-first", FIRST)
    folder = tmp_path / "kept"
    export_prompts(layout, folder)
    save_prompt(other, "voice", FIRST)
    save_prompt(other, "voice", THIRD)
    before = versions(other), contents(folder)
    with pytest.raises(PromptError, match="version 2 of voice"):
        import_prompts(other, folder)
    with pytest.raises(NotFoundError):
        prompt_log(other, "a-first")
    with pytest.raises(PromptError, match=r"version 2 .* is not kept here"):
        export_prompts(other, folder)
    assert (versions(other), contents(folder)) == before


def test_a_folder_that_is_ahead_is_not_cut_back(layout: Layout, other: Layout, tmp_path: Path) -> None:
    three_versions(layout)
    folder = tmp_path / "kept"
    export_prompts(layout, folder)
    save_prompt(other, "voice", FIRST)
    with pytest.raises(PromptError, match="version 2"):
        export_prompts(other, folder)
    import_prompts(other, folder)
    assert export_prompts(other, folder)[0].versions == 3


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("versions.json", "<<<<<<< HEAD\n", "not JSON"),
        ("versions.json", "[1]", "the file"),
        ("versions.json", '{"format_version": 2, "versions": []}', "format_version"),
        ("0004.md", "{{ text }}", r"0004\.md is not in it"),
        ("0002.json", "{}", "version 2 has two files"),
        ("0002.md", None, "no file of version 2"),
    ],
)
def test_a_folder_that_does_not_hold_together_is_refused(
    layout: Layout, other: Layout, tmp_path: Path, file: str, text: str | None, said: str
) -> None:
    three_versions(layout)
    export_prompts(layout, tmp_path / "kept")
    path = tmp_path / "kept" / "voice" / file
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(DataError, match=said):
        import_prompts(other, tmp_path / "kept")


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"created_at": "2026-01-02"},
        {"created_at": "soon"},
        {"tags": ["Not A Tag"]},
        {"digest": "1234"},
        {"author": "ada"},
    ],
)
def test_versions_json_says_which_field_is_wrong(
    layout: Layout, other: Layout, tmp_path: Path, change: dict[str, object]
) -> None:
    three_versions(layout)
    export_prompts(layout, tmp_path / "kept")
    path = tmp_path / "kept" / "voice" / "versions.json"
    listed = json.loads(path.read_text())
    listed["versions"][2] |= change
    path.write_text(json.dumps(listed))
    with pytest.raises(DataError, match=r"versions.*json: versions"):
        import_prompts(other, tmp_path / "kept")


def test_a_version_that_is_missing_between_is_refused(layout: Layout, other: Layout, tmp_path: Path) -> None:
    three_versions(layout)
    folder = tmp_path / "kept" / "voice"
    export_prompts(layout, tmp_path / "kept")
    (folder / "0001.md").unlink()
    listed = json.loads((folder / "versions.json").read_text())
    listed["versions"].pop(0)
    (folder / "versions.json").write_text(json.dumps(listed))
    with pytest.raises(PromptError, match="version 2 of voice would come after version 0"):
        import_prompts(other, tmp_path / "kept")
    listed["versions"][0]["tags"] = ["latest"]
    (folder / "versions.json").write_text(json.dumps(listed))
    save_prompt(other, "voice", FIRST)
    with pytest.raises(UsageError, match="latest"):
        import_prompts(other, tmp_path / "kept")


def test_plain_files_are_each_the_next_version(layout: Layout, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    (folder / "voice.md").write_text(FIRST.to_text())
    (folder / "README.md").write_text("What lies here.")
    save_prompt(layout, "voice", FIRST)
    save_prompt(layout, "voice", SECOND)
    report = import_prompts(layout, folder)
    assert [(one.name, one.added) for one in report.prompts] == [("voice", (3,))]
    assert "README.md was left out" in report.notes[0]
    assert import_prompts(layout, folder).prompts[0].found == (3,)
    (folder / "broken.md").write_text("{{ text")
    with pytest.raises(PromptError, match=r"broken\.md"):
        import_prompts(layout, folder)
    assert import_prompts(layout, folder, ["voice"]).prompts[0].found == (3,)
    with pytest.raises(NotFoundError, match="no prompt 'nothing'"):
        import_prompts(layout, folder, ["nothing"])


def test_folders_that_hold_no_prompts_say_so(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no folder"):
        import_prompts(layout, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError, match="no prompts in"):
        import_prompts(layout, tmp_path / "empty")
    save_prompt(layout, "voice", FIRST)
    export_prompts(layout, tmp_path / "kept")
    with pytest.raises(UsageError, match="of one prompt"):
        import_prompts(layout, tmp_path / "kept" / "voice")
    with pytest.raises(NotFoundError, match="nothing"):
        export_prompts(layout, tmp_path / "kept", ["nothing"])
    (tmp_path / "kept" / "Not-a-name").mkdir()
    shutil.copy(tmp_path / "kept" / "voice" / "versions.json", tmp_path / "kept" / "Not-a-name")
    shutil.copy(tmp_path / "kept" / "voice" / "0001.md", tmp_path / "kept" / "Not-a-name")
    with pytest.raises(UsageError, match="Not-a-name"):
        import_prompts(layout, tmp_path / "kept")


@settings(max_examples=30)
@given(
    content=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{}"), max_size=40),
    output=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
def test_any_prompt_comes_back_with_its_digest(
    tmp_path_factory: pytest.TempPathFactory, content: str, output: str
) -> None:
    prompt = Prompt.from_messages(
        [{"role": "user", "content": content + "{{ text }}"}],
        examples=[Example(inputs={"text": output}, output=output)],
    )
    root = tmp_path_factory.mktemp("any")
    for name in ("from", "to"):
        (root / name).mkdir()
        (root / name / "workbench.toml").write_text("")
    save_prompt(Layout.find(root / "from"), "voice", prompt)
    export_prompts(Layout.find(root / "from"), root / "kept")
    import_prompts(Layout.find(root / "to"), root / "kept")
    assert prompt_log(Layout.find(root / "to"), "voice")[0].digest == prompt.digest


@given(kept=st.lists(st.sampled_from("abc")), wanted=st.lists(st.sampled_from("abc")))
def test_what_was_taken_over_is_found_the_next_time(kept: list[str], wanted: list[str]) -> None:
    places = in_order(kept, wanted)
    found = [place for place in places if place is not None]
    assert found == sorted(found)
    assert [kept[place] for place in found] == wanted[: len(found)]
    assert None not in in_order([*kept, *wanted[len(found) :]], wanted)


def git(folder: Path, *arguments: str, at: str = "2026-01-02T03:04:05+02:00") -> None:
    who = {f"GIT_{role}_{what}": "ada@example.com" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = who | {"GIT_AUTHOR_DATE": at, "GIT_COMMITTER_DATE": at, "HOME": str(folder), "PATH": "/usr/bin:/bin"}
    subprocess.run(["git", *arguments], cwd=folder, env=environment, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A work tree whose prompt was renamed, broken, mended, reformatted and copied."""
    root = tmp_path / "repository"
    (root / "prompts").mkdir(parents=True)
    git(root, "init", "-q")
    text = "## system\nYou sort messages of customers, whichever language they write in.\n\n## user\n"

    def commit(subject: str, at: str) -> None:
        git(root, "add", "-A")
        git(root, "commit", "-q", "--allow-empty-message", "-m", subject, at=at)

    old, new = root / "prompts" / "old é.md", root / "prompts" / "sort.md"
    old.write_text(text + "{{ text }}\n")
    commit("begin: | «é»", "2026-01-01T00:00:00+02:00")
    old.rename(new)
    commit("rename", "2026-01-02T00:00:00+00:00")
    new.write_text(text + "Message: {{ text }}\n")
    commit("", "2026-01-03T00:00:00+00:00")
    new.write_text(text + "Message: {{ text\n")
    commit("a slip", "2026-01-04T00:00:00+00:00")
    new.write_text(text + "Message: {{ text }}\n\n\n")
    commit("mended", "2026-01-05T00:00:00+00:00")
    new.write_text(text + "{{ text }}\n")
    (root / "prompts" / "copy.md").write_text(text + "Message: {{ text }}\n")
    commit("as it was, and a copy", "2026-01-06T00:00:00+00:00")
    new.write_text(text + "not committed {{ text }}\n")
    return root / "prompts"


def test_a_git_history_becomes_versions(layout: Layout, repository: Path) -> None:
    report = import_history(layout, repository, ["sort"])
    assert [(one.version, one.message, one.created_at) for one in reversed(prompt_log(layout, "sort"))] == [
        (1, "begin: | «é»", "2025-12-31T22:00:00.000000+00:00"),
        (2, "", "2026-01-03T00:00:00.000000+00:00"),
        (3, "as it was, and a copy", "2026-01-06T00:00:00.000000+00:00"),
    ]
    assert prompt_log(layout, "sort")[0].digest == prompt_log(layout, "sort")[2].digest
    [note] = report.notes
    assert note.startswith("sort.md in ")
    assert "does not parse" in note
    assert import_history(layout, repository, ["sort"]).prompts[0].added == ()


def test_a_copy_does_not_inherit_the_history_of_its_original(layout: Layout, repository: Path) -> None:
    import_history(layout, repository)
    assert [one.message for one in prompt_log(layout, "copy")] == ["as it was, and a copy"]


def test_a_history_needs_git_and_commits(
    layout: Layout, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "new.md").write_text("{{ text }}")
    assert "new.md was left out" in import_history(layout, repository, ["new"]).notes[0]
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "voice.md").write_text("{{ text }}")
    with pytest.raises(UsageError, match="git in"):
        import_history(layout, plain)
    save_prompt(layout, "voice", FIRST)
    export_prompts(layout, repository)
    with pytest.raises(UsageError, match="every version as a file"):
        import_history(layout, repository)
    with pytest.raises(NotFoundError, match="no folder"):
        import_history(layout, tmp_path / "nowhere")
    monkeypatch.setenv("PATH", str(plain))
    with pytest.raises(UsageError, match="no git"):
        import_history(layout, plain)


def said(*arguments: str) -> str:
    result = CliRunner().invoke(prompt_app, list(arguments))
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_as_a_person_types_it(
    layout: Layout, other: Layout, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    three_versions(layout)
    monkeypatch.chdir(layout.root)
    assert said("export", "kept") == "voice: 3 versions, 4 files written\n"
    assert json.loads(said("export", "kept", "voice", "--json"))[0]["written"] == []
    monkeypatch.chdir(other.root)
    assert said("import", "../kept") == "voice: 3 versions added (1 to 3), 0 here already\n"
    assert json.loads(said("import", "../kept", "--json"))["prompts"] == [
        {"name": "voice", "added": [], "found": [1, 2, 3]}
    ]
    told = said("import", "--history", str(repository), "sort")
    assert told.startswith("sort: 3 versions added (1 to 3), 0 here already\nnote: sort.md in ")
    for wrong in (["export"], ["import"], ["import", "--history", "--mlflow", "sqlite:///x.db"]):
        with pytest.raises(UsageError):
            said(*wrong)
