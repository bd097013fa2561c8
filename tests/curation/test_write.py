"""A curated data set in its workspace: versions, files, reports, and what can come between."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from workbench import api
from workbench.cli.data import app
from workbench.curation.curate import curate_dataset
from workbench.curation.settings import CurationSettings
from workbench.curation.write import curate, read_report
from workbench.data.diff import diff
from workbench.data.store import import_dataset, versions
from workbench.errors import DataError, NotFoundError, UsageError

ROWS = [
    ("train", "where is my parcel", "shipping"),
    ("train", "Where is my parcel", "shipping"),
    ("train", "the lamp does not turn on any more", "bug"),
    ("train", "please end my plan today", "cancel"),
    ("dev", "how do I reset the hub", "bug"),
    ("test", "the lamp does not turn on any more", "bug"),
    ("test", "i was charged twice", "billing"),
]
QUICK = CurationSettings(embedder=None, personal_data="skip")
FLAGS = ("--no-embedder", "--skip", "personal-data")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> api.Workspace:
    (tmp_path / "workbench.toml").write_text("format_version = 1\n")
    lines = [{"id": f"r{n}", "part": p, "text": t, "label": y} for n, (p, t, y) in enumerate(ROWS)]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    workspace = api.open(tmp_path)
    import_dataset(workspace.layout, source, "mine", input="text", target="label", split_column="part")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    return workspace


def said(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_the_rows_that_stay_are_the_newest_version_and_those_before_are_kept(home: api.Workspace) -> None:
    before = home.dataset("mine")
    made = home.curate("mine", QUICK)
    assert made.versions == (1, 2)
    assert [(f.id, f.check, f.other) for f in made.report.findings if f.action == "dropped"] == [
        ("r2", "leakage", "r5"),
        ("r1", "exact-duplicates", "r0"),
    ]
    assert home.dataset("mine").digest == made.dataset.digest == made.report.after.digest
    assert home.dataset("mine@1").digest == before.digest == made.report.before.digest
    changes = diff(home.dataset("mine@1"), home.dataset("mine@2"))
    assert (changes.removed, changes.added, changes.changed) == (("r1", "r2"), (), {})
    for split in ("train", "dev", "test"):
        assert set(home.dataset("mine").split(split).ids) <= set(before.split(split).ids)


def test_curating_again_changes_nothing_and_loses_no_report(home: api.Workspace) -> None:
    first = home.curate("mine", QUICK)
    rows = (home.root / "datasets" / "mine" / "data.jsonl").read_bytes()
    second = home.curate("mine", QUICK)
    assert second.versions == (2, 2)
    assert (second.dataset.digest, second.report.changed) == (first.dataset.digest, False)
    assert (home.root / "datasets" / "mine" / "data.jsonl").read_bytes() == rows
    assert second.folder != first.folder
    assert read_report(first.folder) == first.report
    assert len(versions(home.layout, "mine")) == 2


def test_a_dry_run_reports_the_same_and_changes_nothing(home: api.Workspace) -> None:
    before = home.dataset("mine").digest
    tried = home.curate("mine", QUICK, dry_run=True)
    assert (tried.versions, home.dataset("mine").digest) == (None, before)
    assert versions(home.layout, "mine") == []
    done = home.curate("mine", QUICK)
    assert (done.report.digest, done.folder) == (tried.report.digest, tried.folder)


def test_single_settings_can_be_given_by_name(home: api.Workspace) -> None:
    made = home.curate("mine", QUICK, leakage="flag", exact_duplicates="flag")
    assert {f.action for f in made.report.findings} == {"flagged"}
    assert made.versions == (1, 1)
    with pytest.raises(UsageError, match="Extra inputs"):
        home.curate("mine", QUICK, duplicates="drop")


def test_other_files_and_a_card_of_ones_own_stay(home: api.Workspace) -> None:
    folder = home.root / "datasets" / "mine"
    assert "7 rows." in (folder / "README.md").read_text()
    (folder / "how-it-was-made.py").write_text("print('by hand')\n")
    home.curate("mine", QUICK)
    # The card that the import wrote counts rows; one of one's own is left as it is.
    assert "5 rows." in (folder / "README.md").read_text()
    assert sorted(os.listdir(folder)) == ["README.md", "data.jsonl", "dataset.toml", "how-it-was-made.py"]
    (folder / "README.md").write_text("# Ours\n")
    home.curate("mine", QUICK, near_duplicates="drop", jaccard=0.1)
    assert (folder / "README.md").read_text() == "# Ours\n"


def test_rows_in_another_form_move_to_json_lines_together_with_the_spec(home: api.Workspace) -> None:
    folder = home.root / "datasets" / "handmade"
    folder.mkdir()
    lines = [f"k{n},{split},{text},{label}" for n, (split, text, label) in enumerate(ROWS)]
    (folder / "rows.csv").write_text("\n".join(["key,part,text,label", *lines]) + "\n")
    toml = 'name = "handmade"\nfile = "rows.csv"\nid = "key"\ninput = ["text"]\ntarget = ["label"]\n'
    (folder / "dataset.toml").write_text(toml + 'split_column = "part"\n')
    made = home.curate("handmade", QUICK)
    assert made.dataset.ids == ("k0", "k3", "k4", "k5", "k6")
    assert made.dataset.spec.file == f"curated-{made.dataset.digest[7:19]}.jsonl"
    assert home.curate("handmade", QUICK).versions == (2, 2)


def test_a_split_is_never_emptied(home: api.Workspace, tmp_path: Path) -> None:
    lines = [{"id": f"r{n}", "part": p, "text": "the same"} for n, p in enumerate(["train", "train", "test"])]
    source = tmp_path / "same.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    import_dataset(home.layout, source, "same", input="text", split_column="part")
    with pytest.raises(DataError, match="no row of the split 'train' of 'same' would be left"):
        home.curate("same", QUICK)
    assert len(home.dataset("same")) == 3
    assert home.curate("same", QUICK, dry_run=True).report.after.splits == {"test": 1}


def test_a_data_set_that_changes_meanwhile_is_left_alone(home: api.Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    path = home.root / "datasets" / "mine" / "data.jsonl"

    def slowly(*arguments: Any, **options: Any) -> Any:
        made = curate_dataset(*arguments, **options)
        path.write_text(path.read_text() + '{"id": "new", "part": "train", "text": "just in", "label": "bug"}\n')
        return made

    monkeypatch.setattr("workbench.curation.write.curate_dataset", slowly)
    with pytest.raises(DataError, match="changed while it was curated"):
        home.curate("mine", QUICK)
    assert "new" in home.dataset("mine").ids


def test_a_curation_cut_off_before_its_end_leaves_the_rows(
    home: api.Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = home.dataset("mine").digest

    def full(path: Path, data: bytes | str) -> None:
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr("workbench.curation.write.write_atomic", full)
        with pytest.raises(OSError, match="No space left"):
            home.curate("mine", QUICK)
    assert home.dataset("mine").digest == before
    assert home.curate("mine", QUICK).report.changed


def test_rows_that_the_schema_refuses_once_masked_are_not_written(home: api.Workspace) -> None:
    pytest.importorskip("presidio_analyzer")
    folder = home.root / "datasets" / "mine"
    path = folder / "data.jsonl"
    path.write_text(path.read_text().replace("charged twice", "charged twice, jane.doe@example.com"))
    (folder / "schema.json").write_text('{"properties": {"text": {"not": {"pattern": "EMAIL"}}}}')
    with pytest.raises(DataError, match="text"):
        home.curate("mine", embedder=None, personal_data="mask")
    assert "jane.doe" in path.read_text()


def test_a_version_is_not_curated(home: api.Workspace) -> None:
    home.curate("mine", QUICK)
    with pytest.raises(UsageError, match="'mine@1' is not the name of a data set"):
        curate(home.layout, "mine@1", QUICK)
    with pytest.raises(NotFoundError, match="no data set 'yours'"):
        curate(home.layout, "yours", QUICK)


def test_a_report_that_is_not_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no curation report"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text('{"format_version": 2}')
    with pytest.raises(DataError, match="malformed"):
        read_report(tmp_path)


def test_the_command_shows_a_table_and_where_the_report_lies(home: api.Workspace) -> None:
    shown = said("curate", "mine", *FLAGS)
    assert "mine is now mine@2; the rows before are kept as mine@1." in shown
    assert "train: 4 rows → 2" in shown
    [leakage] = [line for line in shown.splitlines() if "leakage" in line]
    assert leakage.split()[3] == "1"
    [report] = [line.removeprefix("Report: ") for line in shown.splitlines() if line.startswith("Report: ")]
    assert "<h1>Curation of mine</h1>" in Path(report).read_text()
    assert "Nothing was changed: mine@2 stays as it is." in said("curate", "mine", *FLAGS)


def test_the_command_in_json(home: api.Workspace) -> None:
    shown = json.loads(said("curate", "mine", *FLAGS, "--dry-run", "--drop", "near-duplicates", "--json"))
    assert shown["versions"] is None
    assert shown["counts"]["leakage"] == {"dropped": {"train": 1}}
    assert (shown["before"]["rows"], shown["after"]["rows"]) == (7, 5)
    report = read_report(Path(shown["report"]).parent)
    assert (report.settings.near_duplicates, report.settings.personal_data) == ("drop", "skip")
    done = json.loads(said("curate", "mine", *FLAGS, "--flag", "leakage", "--json"))
    assert done["versions"] == {"before": 1, "after": 2}
    assert done["counts"]["leakage"] == {"flagged": {"train": 1}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--drop", "doubles"), "there is no check 'doubles'"),
        (("--pii", "burn"), "personal_data"),
        (("--embedder", "minilm", "--no-embedder"), "exclude one another"),
        (("--split", "north", *FLAGS), "the splits are dev, test, train, not north"),
    ],
)
def test_a_command_that_does_not_fit_is_refused(home: api.Workspace, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        said("curate", "mine", *arguments)
