"""The data sets of a workspace: imported whole or not at all, and kept as versions."""

from __future__ import annotations

import json
import multiprocessing
import os
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from workbench.data import store
from workbench.data.dataset import Dataset
from workbench.data.store import import_dataset, list_datasets, open_dataset, snapshot, versions
from workbench.data.versions import history_folder
from workbench.errors import DataError, IntegrityError, NotFoundError, UsageError
from workbench.workspace import Layout

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "workbench.toml").write_text("format_version = 1\n")
    return Layout.find(tmp_path)


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "mine.csv"
    path.write_text("text,label\n" + "".join(f"message {i},{'ab'[i % 2]}\n" for i in range(20)))
    return path


def folder_names(layout: Layout) -> list[str]:
    return sorted(os.listdir(layout.datasets)) if layout.datasets.is_dir() else []


def test_an_import_can_be_opened_again(layout: Layout, csv: Path) -> None:
    made = import_dataset(layout, csv, "mine", input="text", target="label", description="Mine")
    assert made.digest == Dataset.read(csv, input="text", target="label").digest
    assert sorted(os.listdir(layout.datasets / "mine")) == ["README.md", "data.jsonl", "dataset.toml"]
    assert "20 rows" in (layout.datasets / "mine" / "README.md").read_text()
    opened = open_dataset(layout, "mine")
    assert (opened.digest, opened.spec.input, opened.spec.description) == (made.digest, ("text",), "Mine")
    (listing,) = list_datasets(layout)
    assert (listing.name, listing.rows, listing.digest, listing.version) == ("mine", 20, made.digest, None)


def test_a_bad_file_leaves_nothing_behind(layout: Layout, csv: Path) -> None:
    csv.write_text(csv.read_text() + "no label,\n")
    with pytest.raises(DataError) as caught:
        import_dataset(layout, csv, "mine", target="label")
    assert (caught.value.path, caught.value.line) == (str(csv), 22)
    assert folder_names(layout) == []


def test_an_interrupted_import_leaves_nothing_behind(
    layout: Layout, csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(made: Path, folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "_put_in_place", interrupted)
    with pytest.raises(KeyboardInterrupt):
        import_dataset(layout, csv, "mine", target="label")
    assert folder_names(layout) == []


def test_a_name_is_taken_once_and_replaced_only_when_asked(layout: Layout, csv: Path) -> None:
    first = import_dataset(layout, csv, "mine", target="label")
    with pytest.raises(UsageError, match="--replace"):
        import_dataset(layout, csv, "mine", target="label")
    csv.write_text("text,label\nanother,c\n")
    second = import_dataset(layout, csv, "mine", target="label", replace=True, now=NOW)
    assert open_dataset(layout, "mine").digest == second.digest
    assert open_dataset(layout, "mine@1").digest == first.digest
    assert [v.created_at for v in versions(layout, "mine")] == ["2030-01-02T03:04:05+00:00"]
    assert folder_names(layout) == ["mine"]
    assert "1 rows" in (layout.datasets / "mine" / "README.md").read_text()


def test_a_card_that_someone_wrote_stays(layout: Layout, csv: Path) -> None:
    import_dataset(layout, csv, "mine", target="label")
    (layout.datasets / "mine" / "README.md").write_text("Our own words")
    import_dataset(layout, csv, "mine", target="label", replace=True)
    assert (layout.datasets / "mine" / "README.md").read_text() == "Our own words"


def test_a_failed_replacement_leaves_the_earlier_data(layout: Layout, csv: Path) -> None:
    first = import_dataset(layout, csv, "mine", target="label")
    csv.write_text("text,label\nbad\n")
    with pytest.raises(DataError):
        import_dataset(layout, csv, "mine", target="label", replace=True)
    assert open_dataset(layout, "mine").digest == first.digest


def test_a_replacement_killed_between_its_renames_is_undone(layout: Layout, csv: Path) -> None:
    first = import_dataset(layout, csv, "mine", target="label")
    os.rename(layout.datasets / "mine", layout.datasets / ".mine.previous")
    assert open_dataset(layout, "mine").digest == first.digest
    assert folder_names(layout) == ["mine"]


def test_a_schema_holds_for_every_row_and_every_replacement(layout: Layout, csv: Path, tmp_path: Path) -> None:
    schema = tmp_path / "rules.json"
    schema.write_text('{"type": "object", "properties": {"label": {"enum": ["a", "b"]}}}')
    import_dataset(layout, csv, "mine", target="label", schema=schema)
    csv.write_text("text,label\nfine,a\nnot,z\n")
    with pytest.raises(DataError, match="label: 'z' is not one of") as caught:
        import_dataset(layout, csv, "mine", target="label", replace=True)
    assert caught.value.line == 3
    data = layout.datasets / "mine" / "data.jsonl"
    data.write_text(data.read_text().replace('"label": "b"', '"label": "y"', 1))
    with pytest.raises(DataError, match="label: 'y' is not one of") as caught:
        open_dataset(layout, "mine")
    assert (caught.value.path, caught.value.line) == (str(data), 2)
    (listing,) = list_datasets(layout)
    assert listing.error is not None
    assert "is not one of" in listing.error


def test_a_required_column_may_be_null_and_another_may_be_absent(layout: Layout, tmp_path: Path) -> None:
    schema = tmp_path / "rules.json"
    schema.write_text('{"required": ["x"], "properties": {"x": {"type": ["string", "null"]}, "y": {"type": "string"}}}')
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"id": "1", "x": null}\n{"id": "2", "x": "a", "y": "b"}\n')
    made = import_dataset(layout, rows, "mine", schema=schema)
    assert open_dataset(layout, "mine").digest == made.digest


@pytest.mark.parametrize("content", ["{", "[]", '{"type": "wrong"}'])
def test_a_malformed_schema_is_named(layout: Layout, csv: Path, tmp_path: Path, content: str) -> None:
    schema = tmp_path / "rules.json"
    schema.write_text(content)
    with pytest.raises(DataError) as caught:
        import_dataset(layout, csv, "mine", schema=schema)
    assert caught.value.path == str(schema)


def test_equal_rows_keep_their_version_number(layout: Layout) -> None:
    frame = pl.DataFrame({"id": ["a", "b", "c"], "x": [1, 2, 3]})
    one, two = Dataset.from_frame(frame, name="m"), Dataset.from_frame(frame.head(2), name="m")
    assert [snapshot(layout, d) for d in (one, two, Dataset.from_frame(frame.reverse(), name="m"))] == [1, 2, 1]
    assert [(v.version, v.rows) for v in versions(layout, "m")] == [(1, 3), (2, 2)]
    assert open_dataset(layout, f"m@{one.digest}").ids == ("a", "b", "c")
    assert open_dataset(layout, f"m@{two.digest.removeprefix('sha256:')[:12]}").ids == ("a", "b")


def test_a_split_is_kept_as_a_part_of_the_whole(layout: Layout) -> None:
    whole = Dataset.from_frame(pl.DataFrame({"id": [f"r{i}" for i in range(30)], "x": range(30)}), name="m")
    part = whole.split("test")
    assert snapshot(layout, part) == 1
    assert [v.digest for v in versions(layout, "m")] == [whole.digest]
    opened = open_dataset(layout, f"m@{part.digest}")
    assert (set(opened.ids), opened.digest) == (set(part.ids), part.digest)
    assert len(open_dataset(layout, "m@1")) == 30


def test_cells_without_one_type_come_back_from_a_version(layout: Layout) -> None:
    path = layout.root / "mixed.jsonl"
    path.write_text('{"id": "1", "x": {"a": null}}\n{"id": "2", "x": [1, "2"]}\n{"id": "3", "x": 1.5}\n')
    dataset = Dataset.read(path, name="m")
    snapshot(layout, dataset)
    assert [row.inputs["x"] for row in open_dataset(layout, "m@1").rows()] == [{"a": None}, [1, "2"], 1.5]


def test_what_is_not_there_is_said_with_what_is(layout: Layout, csv: Path) -> None:
    with pytest.raises(NotFoundError, match="workbench data import FILE --name mine"):
        open_dataset(layout, "mine")
    dataset = import_dataset(layout, csv, "mine", target="label")
    with pytest.raises(NotFoundError, match="No version of it has been kept"):
        open_dataset(layout, "mine@1")
    assert open_dataset(layout, f"mine@{dataset.digest}").digest == dataset.digest
    snapshot(layout, dataset)
    with pytest.raises(NotFoundError, match="Its versions are: 1"):
        open_dataset(layout, "mine@7")
    with pytest.raises(UsageError, match="is not the name"):
        open_dataset(layout, "../mine")


def test_any_flipped_byte_of_a_version_is_refused(layout: Layout) -> None:
    dataset = Dataset.from_frame(pl.DataFrame({"id": ["a", "b"], "x": ["one", "two"]}), name="m")
    snapshot(layout, dataset)
    (blob,) = history_folder(layout, "m").glob("*.parquet")
    stored = blob.read_bytes()
    for position in range(0, len(stored), 37):
        flipped = bytearray(stored)
        flipped[position] ^= 1
        blob.write_bytes(flipped)
        with pytest.raises(IntegrityError, match="is not what was stored"):
            open_dataset(layout, "m@1")
    blob.write_bytes(stored)
    assert open_dataset(layout, "m@1").digest == dataset.digest


def test_a_line_cut_short_by_a_crash_is_forgotten(layout: Layout) -> None:
    frame = pl.DataFrame({"id": ["a", "b"], "x": [1, 2]})
    snapshot(layout, Dataset.from_frame(frame, name="m"))
    log = history_folder(layout, "m") / "versions.jsonl"
    log.write_bytes(log.read_bytes() + b'{"version": 2, "dig')
    assert [v.version for v in versions(layout, "m")] == [1]
    assert snapshot(layout, Dataset.from_frame(frame.head(1), name="m")) == 2
    assert [v.version for v in versions(layout, "m")] == [1, 2]


def test_a_malformed_line_of_the_history_is_named(layout: Layout) -> None:
    snapshot(layout, Dataset.from_frame(pl.DataFrame({"x": [1]}), name="m"))
    log = history_folder(layout, "m") / "versions.jsonl"
    log.write_bytes(log.read_bytes() + b'{"version": 2}\n')
    with pytest.raises(DataError) as caught:
        versions(layout, "m")
    assert (caught.value.path, caught.value.line) == (str(log), 2)


def _snapshot_one(root: Path, rows: int) -> None:
    frame = pl.DataFrame({"id": [f"r{i}" for i in range(rows)], "x": range(rows)})
    snapshot(Layout.find(root), Dataset.from_frame(frame, name="m"))


def test_processes_at_once_get_different_numbers(layout: Layout) -> None:
    # Polars' threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_snapshot_one, args=(layout.root, rows)) for rows in (1, 2, 2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    kept = versions(layout, "m")
    assert [v.version for v in kept] == [1, 2]
    assert {v.rows for v in kept} == {1, 2}


@pytest.mark.parametrize("splits", [None, {"zeta": 0.5, "alpha": 0.3, "mid": 0.2}])
def test_a_version_has_the_splits_and_the_order_of_what_was_kept(
    layout: Layout, tmp_path: Path, splits: dict[str, float] | None
) -> None:
    source = tmp_path / "m.jsonl"
    lines = [f'{{"id": "q{(7 * n) % 40}", "text": "question {n}", "label": "a"}}\n' for n in range(40)]
    source.write_text("".join(lines))
    options = {} if splits is None else {"splits": splits}
    import_dataset(layout, source, name="m", input=("text",), target=("label",), id="id", **options)  # type: ignore[arg-type]
    snapshot(layout, open_dataset(layout, "m"))
    now, kept = open_dataset(layout, "m"), open_dataset(layout, "m@1")
    assert [row.id for row in kept.rows()] == [row.id for row in now.rows()]
    for name in now.spec.splits:
        assert [row.id for row in kept.split(name).rows()] == [row.id for row in now.split(name).rows()]


def test_default_splits_of_the_first_format_are_put_back_in_order(layout: Layout, csv: Path) -> None:
    snapshot(layout, import_dataset(layout, csv, name="m", input=("text",), target=("label",)))
    log = history_folder(layout, "m") / "versions.jsonl"
    record = json.loads(log.read_text())
    record |= {"format_version": 1, "spec": {**record["spec"], "splits": dict(sorted(record["spec"]["splits"]))}}
    log.write_text(json.dumps(record) + "\n")
    assert list(open_dataset(layout, "m@1").spec.splits) == ["train", "dev", "test"]
    test = {row.id for row in open_dataset(layout, "m").split("test").rows()}
    assert {row.id for row in open_dataset(layout, "m@1").split("test").rows()} == test
