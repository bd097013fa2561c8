"""The picture of a lineage: boxes from left to right, no line behind a box, and a word where there is nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.registry.test_lineage import tell_story
from tests.registry.test_lineage_served import serve
from workbench import api
from workbench.registry.lineage_graph import Draft, Edge, Lineage, Node
from workbench.ui.charts import Nothing
from workbench.ui.lineage import MOST, lineage_chart
from workbench.ui.lineage_places import BOXES, PAGE, Widths, arrange
from workbench.workspace import Layout

pytest.importorskip("altair")


@pytest.fixture
def workspace(tmp_path: Path) -> api.Workspace:
    (tmp_path / "workbench.toml").write_text('name = "test"\n')
    layout = Layout.find(tmp_path)
    tell_story(layout)
    return api.Workspace(layout)


def boxes(chart: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """What is drawn as boxes, by label and first line below it."""
    layers = [layer for layer in chart.to_dict()["layer"] if layer["mark"]["type"] == "rect"]
    return {(box["label"], box["note"]): box for layer in layers for box in layer["data"]["values"]}


def test_every_node_is_a_box_and_what_came_first_is_left(workspace: api.Workspace) -> None:
    graph = workspace.lineage("greet@2")
    chart = lineage_chart(graph)
    drawn = boxes(chart)
    assert len(drawn) == len(graph.nodes)
    left = {box["id"]: box["x"] for box in drawn.values()}
    ids = {node.key: node.id for node in graph.nodes}
    # The decision and the calls are known by the artifact's digest, and so share an id.
    for edge in graph.edges:
        if "calls" not in edge.later and "decision" not in edge.later + edge.earlier:
            assert left[ids[edge.earlier]] < left[ids[edge.later]]
    assert len(chart.to_dict()["layer"][0]["data"]["values"]) >= 2 * len(graph.edges)


def test_served_calls_are_right_of_the_alias_they_asked_for(workspace: api.Workspace) -> None:
    serve(workspace.layout, 1234, "greet@2", "prod")
    drawn = boxes(lineage_chart(workspace.lineage("greet@2")))
    calls, alias = drawn["1,234 calls", "last 2026-03-03"], drawn["greet@prod", "now"]
    assert calls["x"] > alias["x"]
    assert calls["fact_by_alias"] == "prod 1234"


def test_it_becomes_a_picture(workspace: api.Workspace) -> None:
    converter = pytest.importorskip("vl_convert")
    for graph in (workspace.lineage("greet"), workspace.lineage_of_dataset("greetings")):
        svg = converter.vegalite_to_svg(lineage_chart(graph).to_json())
        assert "greetings@1 test" in svg
        assert "NaN" not in svg


def test_what_is_not_here_is_hollow() -> None:
    draft = Draft()
    draft.link(Node("run", "r", "run-1", here=False), "evaluated on", Node("dataset", "d", "greetings"))
    drawn = boxes(lineage_chart(draft.finish("it", [])))
    assert drawn["run-1", "run · not here"]["here"] is False
    assert drawn["greetings", ""]["here"] is True


def test_up_to_eight_columns_fit_a_page() -> None:
    for columns in range(1, 12):
        widths = Widths.of(columns)
        assert BOXES[0] <= widths.box <= BOXES[1]
        assert columns > 8 or columns * (widths.box + widths.gap) - widths.gap <= PAGE


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("triage@staging", "triage@staging"),
        ("support-tickets@496794", "support-ti…@496794"),
        ("support-tickets@12 test", "support-t…@12 test"),
        ("support-tickets validation", "suppor… validation"),
        ("20261125-212413-9b7144-2d2e", "20261125-2…-2d2e"),
    ],
)
def test_a_label_that_is_too_long_keeps_the_end_that_tells_versions_apart(label: str, shown: str) -> None:
    assert Widths.of(5).fit(label) == shown


def test_without_any_use_it_says_so() -> None:
    data = Node("dataset", "d", "greetings@1")
    draft = Draft()
    draft.add(data)
    nothing = lineage_chart(draft.finish("greetings@1", [data]))
    assert isinstance(nothing, Nothing)
    assert "greetings@1" in str(nothing)


def many(count: int) -> Lineage:
    """A data set, `count` artifacts of a run each, and the very first of them in production."""
    draft, data = Draft(), Node("dataset", "d", "greetings@1")
    for number in range(count):
        run = Node("run", f"r{number}", f"run-{number}", facts={"started_at": f"2026-01-{number:04}"})
        artifact = Node("artifact", f"a{number}", f"greet@{number}", facts={"created_at": f"2026-01-{number:04}"})
        draft.link(run, "evaluated on", data)
        draft.link(artifact, "promoted from", run)
    first = next(node for node in draft.nodes.values() if node.id == "a0")
    draft.link(Node("alias", "p", "greet@prod", facts={"now": True}), "points at", first)
    return draft.finish("greetings@1", [data])


def test_of_many_what_is_in_use_and_the_newest_are_drawn_and_the_rest_counted() -> None:
    chart = lineage_chart(many(1000))
    labels = [label for label, _ in boxes(chart)]
    artifacts = [label for label in labels if label.startswith("greet@") and label != "greet@prod"]
    assert len(artifacts) == MOST
    assert {"greet@0", "greet@999", "run-0", "greet@prod"} <= {*labels}
    heads = [row["text"] for row in chart.to_dict()["layer"][1]["data"]["values"]]
    assert heads == ["data set", f"run (+{1000 - MOST})", f"artifact (+{1000 - MOST})", "alias"]


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=14),
    st.lists(st.tuples(st.integers(0, 13), st.integers(0, 13)), max_size=25),
)
def test_no_line_passes_behind_a_box(columns: list[int], pairs: list[tuple[int, int]]) -> None:
    keys = [str(number) for number in range(len(columns))]
    column_of = dict(zip(keys, columns, strict=True))
    edges = [
        Edge(str(later), "after", str(earlier))
        for later, earlier in dict.fromkeys(pairs)
        if max(later, earlier) < len(columns) and columns[earlier] < columns[later]
    ]
    places, paths = arrange(keys, column_of, edges)
    taken = [(place.column, place.row) for place in places.values()]
    through = [(place.column, place.row) for path in paths.values() for place in path[1:-1]]
    assert len({*taken, *through}) == len(taken) + len(through)
    for edge, path in paths.items():
        assert [place.column for place in path] == list(range(column_of[edge.earlier], column_of[edge.later] + 1))
        assert (path[0], path[-1]) == (places[edge.earlier], places[edge.later])
