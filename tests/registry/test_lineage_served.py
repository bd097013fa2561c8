"""What was asked of an artifact once it was served is part of its lineage, as far as the events can be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.events.rows import a_call
from tests.registry.test_lineage import of, only, tell_story, uses, words
from workbench import access, api
from workbench.access import Viewer
from workbench.cli.registry import artifact_app
from workbench.errors import WorkbenchWarning
from workbench.events.manifest import manifest_path
from workbench.events.store import Events
from workbench.registry.lineage_served import served_calls
from workbench.workspace import EventsSettings, Layout, Settings


def serve(layout: Layout, count: int, artifact: str, alias: str | None, **changes: Any) -> None:
    """Record that `count` questions were answered on the second and third of March, 2026, and one in ten was not."""
    rows = [
        a_call(
            n,
            **{
                "trace_id": f"{artifact}-{alias}-{n}",
                "artifact": artifact,
                "alias": alias,
                "started_at": f"2026-03-0{2 + n % 2}T10:00:00",
                "error_kind": None if n % 10 else "timeout",
                **changes,
            },
        )
        for n in range(count)
    ]
    with Events(layout.events).log(compact=False) as log:
        log.record_many("calls", rows)


def test_calls_are_under_the_version_that_answered_and_the_alias_they_asked_for(layout: Layout) -> None:
    tell_story(layout)
    serve(layout, 1200, "greet@2", "prod")
    serve(layout, 34, "greet@2", None)
    serve(layout, 5, "greet@1", "prod")
    # Neither a made-up call nor one of something else counts.
    serve(layout, 7, "greet@2", "prod", source="synthetic", trace_id="made-up")
    serve(layout, 9, "other@2", "prod")
    graph = of(layout, "greet@prod")
    node = only(graph, "served")
    assert node.facts == {
        "calls": 1234,
        "errors": 124,
        "first": "2026-03-02",
        "last": "2026-03-03",
        "by_alias": {"prod": 1200},
    }
    assert {
        ("1,234 calls", "answered by", "greet@2"),
        ("1,234 calls", "1,200 of them asked for", "greet@prod"),
    } <= words(graph)
    lines = str(graph).splitlines()
    place = lines.index("    alias greet@prod · now, points at it")
    assert lines[place + 1] == "      served 1,234 calls · last 2026-03-03, 1,200 of them asked for it"
    assert graph.damaged == ()
    # From the data set down to the calls.
    found = uses(layout, "greetings")
    assert {node.id for node in found.of_kind("served")} == {"greet@1", "greet@2"}
    assert ("5 calls", "asked for", "greet@prod") in words(found)


def test_calls_count_alike_before_and_after_a_compaction(layout: Layout) -> None:
    tell_story(layout)
    serve(layout, 20, "greet@2", "prod")
    before = served_calls(layout)
    Events(layout.events).compact(folders=False)
    serve(layout, 1, "greet@1", "an-alias-that-never-was")
    assert served_calls(layout)[0]["greet@2"] == before[0]["greet@2"]
    graph = of(layout, "greet@1")
    assert ("1 call", "answered by", "greet@1") in words(graph)
    assert only(graph, "served").facts["by_alias"] == {"an-alias-that-never-was": 1}


def test_an_artifact_that_was_never_served_has_no_such_node(layout: Layout) -> None:
    tell_story(layout)
    assert of(layout, "greet").of_kind("served") == ()
    assert served_calls(layout) == ({}, {})
    assert not (layout.events / "journals").exists()


def test_who_sees_one_tenant_is_told_of_its_calls_alone(layout: Layout) -> None:
    tell_story(layout)
    serve(layout, 20, "greet@2", "prod")
    for tenants, calls in ((("acme",), 10), ((), 0), (None, 20)):
        with access.acting_as(Viewer("ann", frozenset({"viewer"}), tenants)):
            found, _ = served_calls(layout)
            assert (found["greet@2"].calls if found else 0) == calls


def test_damage_of_the_events_is_told_and_the_rest_of_the_lineage_stands(layout: Layout) -> None:
    tell_story(layout)
    serve(layout, 20, "greet@2", "prod")
    Events(layout.events).compact(folders=False)
    serve(layout, 3, "greet@2", "prod")
    [day, _] = sorted(layout.events.glob("calls/day=*/*.parquet"))
    day.write_bytes(day.read_bytes()[:-1])
    with pytest.warns(WorkbenchWarning, match="left out"):
        graph = of(layout, "greet@2")
    assert only(graph, "served").facts["calls"] == 13
    [said] = graph.damaged
    assert said.startswith(f"served calls: {day} is ")
    assert f"could not be read: {said}" in str(graph)
    manifest_path(layout.events, "calls").write_text("{")
    graph = of(layout, "greet@2")
    assert graph.of_kind("served") == ()
    assert "is no manifest" in graph.damaged[0]
    assert only(graph, "run").label == "run-2"


def test_the_command_line_says_what_was_served(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    tell_story(layout)
    monkeypatch.chdir(layout.root)
    run = CliRunner().invoke
    assert "none recorded here" in run(artifact_app, ["show", "greet"]).output
    serve(layout, 1234, "greet@2", "prod")
    assert "1,234 calls, last 2026-03-03" in run(artifact_app, ["show", "greet"]).output
    assert json.loads(run(artifact_app, ["show", "greet", "--json"]).output)["served"]["by_alias"] == {"prod": 1234}
    shown = run(artifact_app, ["show", "greet", "--lineage", "--json"])
    [node] = [node for node in json.loads(shown.output)["nodes"] if node["kind"] == "served"]
    assert (node["key"], node["facts"]["calls"]) == ("served:greet@2", 1234)
    manifest_path(layout.events, "calls").parent.mkdir(exist_ok=True)
    manifest_path(layout.events, "calls").write_text("{")
    shown = run(artifact_app, ["show", "greet"])
    assert shown.exit_code == 0
    assert "could not be read: served calls: " in shown.output


def test_calls_that_a_bundle_recorded_elsewhere_are_seen_where_the_events_are(layout: Layout, tmp_path: Path) -> None:
    tell_story(layout)
    settings = Settings(events=EventsSettings(path=str(tmp_path / "there")))
    elsewhere = Layout(layout.root, settings)
    serve(elsewhere, 4, "greet@2", None)
    assert only(api.Workspace(elsewhere).lineage("greet@2"), "served").facts["calls"] == 4
    assert of(layout, "greet@2").of_kind("served") == ()
