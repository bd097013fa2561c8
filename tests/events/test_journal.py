"""A journal gives back what was written, whatever was cut off or flipped afterwards."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from workbench.events.journal import JournalWriter, read_journal

RECORDS = [{"n": n, "text": f"row {n} – “quoted”\nsecond line"} for n in range(6)]


def _written(folder: Path) -> Path:
    path = folder / "journal.jsonl"
    with JournalWriter(path) as journal:
        journal.append(RECORDS)
    return path


def test_it_reads_what_it_wrote(tmp_path: Path) -> None:
    content = read_journal(_written(tmp_path))
    assert list(content.records) == RECORDS
    assert (content.damaged, content.torn) == ((), 0)


def test_a_missing_journal_is_empty(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "none.jsonl").records == ()


def test_a_flipped_byte_costs_one_line_and_is_told(tmp_path: Path) -> None:
    path = _written(tmp_path)
    lines = path.read_bytes().split(b"\n")
    lines[2] = lines[2].replace(b"row 2", b"row 9")
    path.write_bytes(b"\n".join(lines))
    content = read_journal(path)
    assert content.damaged == (3,)
    assert list(content.records) == RECORDS[:2] + RECORDS[3:]


@given(st.data())
def test_cut_anywhere_it_holds_a_beginning_and_can_go_on(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = _written(Path(folder))
        whole = path.read_bytes()
        cut = data.draw(st.integers(0, len(whole)))
        path.write_bytes(whole[:cut])
        kept = list(read_journal(path).records)
        assert kept == RECORDS[: whole[:cut].count(b"\n")]
        with JournalWriter(path) as journal:
            journal.append([{"n": 99}])
        content = read_journal(path)
        assert list(content.records) == [*kept, {"n": 99}]
        assert (content.damaged, content.torn) == ((), 0)
