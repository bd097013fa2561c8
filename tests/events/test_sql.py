"""SQL reads the views and nothing else; what is wrong is said in a line."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import duckdb
import polars as pl
import pytest

from tests.events.rows import a_call
from workbench.errors import UsageError
from workbench.events.store import Events


@pytest.fixture
def events(tmp_path: Path) -> Events:
    """Twenty compacted calls, five in a journal; half of each are globex's."""
    found = Events(tmp_path / "events")
    with found.log(compact=False) as log:
        log.record_many("calls", [a_call(n, started_at=datetime(2026, 3, 1 + n % 3)) for n in range(20)])
        log.flush()
        found.compact()
        log.record_many("calls", [a_call(n, started_at=datetime(2026, 3, 9)) for n in range(20, 25)])
        log.record("feedback", {"trace_id": "trace-1", "tenant": "acme", "rating": 1.0})
        log.record("feedback", {"trace_id": "trace-2", "tenant": "globex", "rating": 0.0})
        log.record("scores", {"trace_id": "trace-1", "tenant": "acme", "scorer": "exact", "value": 1.0})
    return found


def test_the_views_join(events: Events) -> None:
    found = events.sql(
        "select c.tenant, count(*) as calls, avg(rating) as rating from calls c left join feedback using (trace_id)"
        " group by all order by all"
    )
    assert found.to_dicts() == [
        {"tenant": "acme", "calls": 12, "rating": 1.0},
        {"tenant": "globex", "calls": 13, "rating": 0.0},
    ]


def test_parameters_are_bound(events: Events) -> None:
    nasty = "acme' or true --"
    asked = "select count(*) as n from calls where tenant = $tenant and day >= $since"
    assert events.sql(asked, {"tenant": "acme", "since": date(2026, 3, 9)}).item() == 2
    assert events.sql(asked, {"tenant": nasty, "since": date(2026, 3, 9)}).item() == 0


def test_sums_of_whole_numbers_are_whole_numbers_of_64_bits(events: Events) -> None:
    found = events.sql("select sum(tokens_in) as n, max(started_at) as last, min(day) as first from calls")
    assert found.schema == {"n": pl.Int64, "last": pl.Datetime("us"), "first": pl.Date}
    assert found.row(0) == (250, datetime(2026, 3, 9), date(2026, 3, 1))


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("max(started_at) - min(started_at)", "8 days"),
        ("[interval 1 month]", "[1 month]"),
        ("{'a': interval 90 minute}", "{'a': '01:30:00'}"),
        ("timetz '12:00:00+02'", "12:00:00+02"),
        ("1::union(n int, s text)", "1"),
        ("'101'::bit", "101"),
        ("12345678901234567890123::bignum", "12345678901234567890123"),
        ("'a'::enum('a', 'b')", "a"),
        ("'b27b9f5c-6a3e-4b5e-8ad0-6ad3cb2ff1d3'::uuid", "b27b9f5c-6a3e-4b5e-8ad0-6ad3cb2ff1d3"),
        ("12::hugeint", 12),
        ("map {'a': 1}", {"a": 1}),
        ("[1, 2]::int[2]", [1, 2]),
        ("'\\x00'::blob", b"\x00"),
        ("null", None),
    ],
)
def test_what_frames_have_no_type_for_is_a_text(events: Events, value: str, found: object) -> None:
    [row] = events.sql(f'select {value} as "a ""b", {value} as "a ""b" from calls limit 1').rows()
    assert row == (found, found)


@pytest.mark.parametrize("empty", [True, False])
def test_every_view_is_there_before_anything_is_recorded(tmp_path: Path, events: Events, empty: bool) -> None:
    found = Events(tmp_path / "nothing") if empty else events
    tables = found.sql("show tables")["name"].to_list()
    assert sorted(tables) == ["calls", "feedback", "reviews", "scores"]
    assert found.sql("select * from reviews").height == 0
    assert "verdict" in found.sql("describe reviews")["column_name"].to_list()
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("select nme from calls", r'Referenced column "nme" not found.*'),
        ("select modle from calls", r'Referenced column "modle" not found.*Did you mean model\?'),
        ("select * from cals", r"there is no view cals\. Did you mean calls\?"),
        ("select * from zzz", r"there is no view zzz\. There are: calls, scores"),
        ("selec 1", r'SQL: syntax error at or near "selec"'),
        ("select sum(model) from calls", "No function matches"),
        ("select cast(model as int) from calls", "Could not convert string 'instant'"),
        ("select sum(cost_usd)", r"There is no FROM: name a view, such as calls\."),
        ("select 'infinity'::timestamp as a", r"a is beyond the years 1 to 9999\. Ask for a::varchar\."),
        ("select $missing", "Values were not provided.*missing"),
        ("", "only one SELECT"),
        ("select 1; select 2", "only one SELECT"),
        ("create table calls2 as select * from calls", "only one SELECT"),
        ("drop view calls", "only one SELECT"),
        ("copy calls to 'x.csv'", "only one SELECT"),
        ("attach 'x.db'", "only one SELECT"),
        ("install httpfs", "only one SELECT"),
        ("set threads = 1", "only one SELECT"),
        ("select * from read_csv('/etc/passwd')", "Only the views can be read"),
        ("select * from '/etc/passwd'", "there is no view"),
    ],
)
def test_a_wrong_statement_is_told_in_a_line(events: Events, query: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        events.sql(query)
    assert "\n" not in str(raised.value)


def test_too_many_parameters_are_told(events: Events) -> None:
    with pytest.raises(UsageError, match="excess"):
        events.sql("select 1 where 1 = $a", {"a": 1, "b": 2})


def test_python_variables_are_no_tables(events: Events) -> None:
    secret = pl.DataFrame({"a": [1]})
    with pytest.raises(UsageError, match="no view secret"):
        events.sql("select * from secret")
    assert len(secret) == 1


def test_a_tenant_sees_its_own_rows_in_every_view(events: Events) -> None:
    with events.connection(tenants=["acme"]) as connection:
        assert connection.execute("select distinct tenant from calls").fetchall() == [("acme",)]
        assert connection.execute("select count(*) from calls").fetchall() == [(12,)]
        assert connection.execute("select trace_id from feedback").fetchall() == [("trace-1",)]
        assert connection.execute("select count(*) from scores").fetchall() == [(1,)]
    assert events.sql("select count(*) from calls", tenants=["globex"]).item() == 13
    assert events.sql("select count(*) from scores", tenants=["globex"]).item() == 0
    assert events.sql("select count(*) from calls", tenants=["acme", "globex"]).item() == 25
    assert events.sql("select count(*) from calls", tenants=[]).item() == 0
    assert len(events.frame("calls", tenants=["acme"]).collect()) == 12


def test_rows_without_a_tenant_are_nobodys(events: Events) -> None:
    with events.log(compact=False) as log:
        log.record("calls", a_call(99, tenant=None))
    assert events.sql("select count(*) from calls", tenants=["acme", "globex"]).item() == 25
    assert events.sql("select count(*) from calls").item() == 26


# Ways back to the rows of others. None may answer with one, or leave something behind that does.
ESCAPES = [
    "select * from read_parquet('{file}')",
    "select * from parquet_scan('{file}')",
    "select * from '{file}'",
    "select * from parquet_metadata('{file}')",
    "select * from parquet_kv_metadata('{file}')",
    "select * from read_text('{journal}')",
    "select * from read_blob('{file}')",
    "select * from read_json('{journal}')",
    "select * from read_csv('{journal}')",
    "select * from glob('{folder}/**')",
    "select * from sniff_csv('{journal}')",
    "attach '{folder}/x.db'",
    "copy calls to '{folder}/x.csv'",
    "copy calls from '{file}'",
    "export database '{folder}/x'",
    "import database '{folder}'",
    "install httpfs",
    "load httpfs",
    "set enable_external_access = true",
    "reset enable_external_access",
    "set lock_configuration = false",
    "set allowed_directories = ['{folder}']",
    "set python_enable_replacements = true",
    "pragma enable_logging",
    "select sql from duckdb_views() where sql like '%globex%'",
    "select * from information_schema.views where view_definition like '%globex%'",
    "select * from duckdb_logs()",
    "select * from duckdb_external_file_cache()",
    "select * from duckdb_temporary_files()",
    "select * from query('select * from read_parquet(''{file}'')')",
    "select * from query_table('{file}')",
    "select * from json_execute_serialized_sql(json_serialize_sql('select * from read_parquet(''{file}'')'))",
    "select * from python_arrow_scan()",
    "select * from arrow_scan(1::ubigint, 1::ubigint, 1::ubigint)",
    "select * from calls_not_compacted",
    "select * from main.calls",
    "select * from events",
    "create secret s (type s3)",
]


@pytest.mark.parametrize("query", ESCAPES)
@pytest.mark.parametrize("compacted", [True, False])
def test_a_tenant_has_no_way_to_the_rows_of_others(events: Events, query: str, compacted: bool) -> None:
    if compacted:
        events.compact()
    file = next(iter((events.folder / "calls").glob("day=*/*.parquet")))
    journal = next(iter((events.folder / "journals" / "calls").glob("*")), "nothing")
    with events.connection(tenants=["acme"]) as connection:
        try:
            connection.execute(query.format(file=file, journal=journal, folder=events.folder))
            found = repr(connection.fetchall())
        except duckdb.Error as error:
            found = str(error)
        assert "globex" not in found.replace("%globex%", "")
        assert "trace-2'" not in found
        # Nor has it opened a way for the next question.
        with pytest.raises(duckdb.Error):
            connection.execute(f"select * from read_parquet('{file}')")
        assert connection.execute("select count(*) from calls where tenant <> 'acme'").fetchall() == [(0,)]
    assert not (events.folder / "x.csv").exists()
    assert not (events.folder / "x.db").exists()


def test_a_tenant_does_not_see_views_that_are_not_divided(events: Events) -> None:
    events.views["runs"] = lambda: pl.LazyFrame({"run_id": ["r"]})
    assert events.sql("select * from runs").height == 1
    with pytest.raises(UsageError, match="no view runs"):
        events.sql("select * from runs", tenants=["acme"])
    with pytest.raises(UsageError, match="no view is called 'runs'"):
        events.frame("runs", tenants=["acme"])


def test_a_connection_without_tenants_reaches_live_files_only(events: Events, tmp_path: Path) -> None:
    other = tmp_path / "other.parquet"
    pl.DataFrame({"a": [1]}).write_parquet(other)
    with events.connection() as connection:
        assert connection.execute("select count(*) from calls").fetchall() == [(25,)]
        for query in (f"select * from read_parquet('{other}')", f"attach '{tmp_path}/x.db'", "set threads = 1"):
            with pytest.raises(duckdb.Error):
                connection.execute(query)


def test_marimo_asks_through_the_connection(events: Events) -> None:
    mo = pytest.importorskip("marimo")
    with events.connection() as connection:
        found = mo.sql("select count(*) as n from calls", engine=connection, output=False)
        assert pl.DataFrame(found).item() == 25
