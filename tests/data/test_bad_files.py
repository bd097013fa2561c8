"""Malformed files: each ends in an error that names the file, the line and what is wrong there."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.data.dataset import Dataset
from workbench.errors import DataError, UsageError

GOOD = b'{"text": "one", "label": "a"}\n'


def fault(path: Path, **arguments: object) -> DataError:
    with pytest.raises(DataError) as caught:
        Dataset.read(path, target="label", **arguments)  # type: ignore[arg-type]
    assert caught.value.path == str(path)
    return caught.value


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"text": "two", "label": }', "not JSON"),
        (b'{"text": "two", "lab', "not JSON"),
        (b'["two", "b"]', "must be a JSON object, not an array"),
        (b'"two"', "not a string"),
        (b"7", "not a number"),
        (b"null", "not null"),
        (b'{"text": "two\xff", "label": "b"}', "not UTF-8 (byte 0xff)"),
        (b'{"text": "two", "label": "b", "text": "2"}', "the key 'text' occurs twice"),
        (b'{"text": "two\\u0000", "label": "b"}', "column 'text': the text holds a NUL"),
        (b'{"text": "two\x00", "label": "b"}', "a NUL byte"),
        (b'{"text": "\\ud83d", "label": "b"}', "surrogate"),
        (b'{"text": "two", "label": 99999999999999999999}', "does not fit 64 bits"),
        (b'{"text": "two", "label": ' + b"9" * 5000 + b"}", "does not fit 64 bits"),
        (b'{"text": "two", "label": NaN}', "nan is not a JSON number"),
        (b'{"text": "two", "label": 1e999}', "inf is not a JSON number"),
        (b'{"text": "two", "label": null}', "no target ('label' is empty)"),
        (b'{"text": "two"}', "no target ('label' is empty)"),
        (b'{"": "two", "label": "b"}', "a column has no name"),
        (b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    ],
)
def test_a_bad_line_of_json_lines(tmp_path: Path, line: bytes, said: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(GOOD + b"\n" + line + b"\n" + GOOD)
    error = fault(path)
    assert error.line == 3
    assert said in str(error)


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        ("text,label\none,a\ntwo\n", 3, "1 cells where the header has 2"),
        ("text,label\none,a\ntwo,b,c\n", 3, "3 cells where the header has 2"),
        ('text,label\n"a\nlong\none",a\n"two\nlines"\n', 5, "1 cells where the header has 2"),
        ('text,label\none,a\n"two,b\nthree,c\n', 3, "not CSV"),
        ("text,label\none,a\ntwo,\n", 3, "no target"),
        ("text,label,text\none,a,x\n", 1, "the column 'text' occurs twice"),
        (",text,label\n0,one,a\n", 1, "column 1 has no name"),
        ("text,label\n", None, "there are no rows"),
    ],
)
def test_a_bad_csv(tmp_path: Path, content: str, line: int | None, said: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(content)
    error = fault(path)
    assert error.line == line
    assert said in str(error)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_an_empty_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_bytes(content)
    assert "the file is empty" in str(fault(path))


def test_utf_16_is_told_apart_from_noise(tmp_path: Path) -> None:
    path = tmp_path / "excel.csv"
    path.write_bytes("text,label\none,a\n".encode("utf-16"))
    assert "UTF-16" in str(fault(path))


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "excel.csv"
    path.write_bytes(b"\xef\xbb\xbftext,label\r\none,a\r\n")
    assert Dataset.read(path, target="label").rows()[0].inputs == {"text": "one"}


def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD)
    error = fault(path, input="txt")
    assert "no column 'txt' (named as input)" in str(error)
    assert "text, label" in str(error)


def test_another_delimiter_is_guessed_at(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text;label\none;a\n")
    assert "--delimiter" in str(fault(path))
    assert Dataset.read(path, target="label", delimiter=";").rows()[0].target == "a"


def test_duplicate_ids_name_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("key,text,label\n7,one,a\n8,two,b\n7,three,c\n")
    error = fault(path, id="key")
    assert error.line == 4
    assert "the id '7' is already on line 2" in str(error)


def test_an_empty_id(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("key,text,label\n7,one,a\n,two,b\n")
    assert fault(path, id="key").line == 3


def test_a_column_named_id_that_is_not_the_id(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,key,label\n7,one,a\n")
    assert "Rename the column 'id'" in str(fault(path, id="key"))


def test_rows_without_a_target_can_be_allowed(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\none,a\ntwo,\n")
    assert [row.target for row in Dataset.read(path, target="label", unlabelled=True).rows()] == ["a", None]


def test_a_parquet_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1 not really PAR1")
    assert "cannot be read" in str(fault(path))


def test_bytes_in_parquet_have_no_json_form(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pl.DataFrame({"text": [b"one"], "label": ["a"]}).write_parquet(path)
    assert "the column 'text' has the type Binary" in str(fault(path))


def test_nan_in_a_frame_names_the_row() -> None:
    with pytest.raises(DataError, match="row 2: column 'x': nan is not a JSON number"):
        Dataset.from_frame(pl.DataFrame({"x": [1.5, float("nan")]}))


def test_no_such_file_and_unknown_forms(tmp_path: Path) -> None:
    assert "no such file" in str(fault(tmp_path / "absent.csv"))
    (tmp_path / "notes.txt").write_text("hello")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(UsageError, match="cannot tell the form"):
            Dataset.read(path)


@given(st.binary(max_size=200), st.sampled_from(["jsonl", "csv", "parquet"]))
def test_noise_ends_in_rows_or_in_an_error_that_names_the_file(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, suffix: str
) -> None:
    path = tmp_path_factory.mktemp("noise") / f"noise.{suffix}"
    path.write_bytes(noise)
    outcome: Dataset | DataError
    try:
        outcome = Dataset.read(path)
    except DataError as error:
        outcome = error
    assert outcome.path == str(path) if isinstance(outcome, DataError) else len(outcome) >= 1
