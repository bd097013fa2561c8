"""The picture of a lineage: boxes in columns, what came first on the left, lines from what was used to what used it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workbench.errors import require
from workbench.registry.lineage_graph import KINDS
from workbench.ui.charts import INK, Nothing, finished
from workbench.ui.lineage_places import HEAD, HIGH, ROW, Place, Widths, arrange

if TYPE_CHECKING:
    from workbench.registry.lineage_graph import Edge, Lineage, Node

# Boxes of one kind that are drawn; the rest is counted.
MOST = 12
# Dark enough for white text, and apart from white and from black paper.
COLOURS = {
    "dataset": "#2f6bb8",
    "corpus": "#2f6bb8",
    "model": "#5f6773",
    "training": "#a8511c",
    "adapter": "#a8511c",
    "index": "#1f7a6f",
    "run": "#6a4fb3",
    "decision": "#6a4fb3",
    "artifact": "#a03b7c",
    "alias": "#23803a",
    "approval": "#23803a",
    "refusal": "#c23a37",
    "calls": "#5f6773",
    "served": "#1f7a6f",
}
# The column a kind is in, unless what it came from is not left of that.
_COLUMN = {
    **dict.fromkeys(("dataset", "corpus", "model"), 0),
    "training": 1,
    **dict.fromkeys(("adapter", "index"), 2),
    "run": 3,
    "decision": 4,
    "artifact": 5,
    **dict.fromkeys(("alias", "approval", "refusal"), 6),
    **dict.fromkeys(("calls", "served"), 7),
}


def lineage_chart(lineage: Lineage) -> Any:
    """A lineage as boxes by kind; a dashed box is what this workspace does not have, and pointing at a box tells its facts.

    Of a kind with more than `MOST` nodes, those are drawn that others came from, and the newest.

    Returns: an Altair chart, or `Nothing`.
    """
    if not lineage:
        return Nothing(f"Nothing is known to have used {lineage.title}.")
    kept, left_out = _most(lineage)
    nodes = {node.key: node for node in lineage.nodes if node.key in kept}
    edges = [edge for edge in lineage.edges if edge.later in kept and edge.earlier in kept]
    places, paths = arrange(list(nodes), _columns(nodes, edges), edges)
    alt = require("altair", extra="charts")
    columns = 1 + max(place.column for place in places.values())
    rows = 1 + max(place.row for path in (*paths.values(), list(places.values())) for place in path)
    widths = Widths.of(columns)
    width, height = columns * (widths.box + widths.gap) - widths.gap, HEAD + rows * ROW
    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[0, width], nice=False, zero=False))
    # Upside down: rows count from the top.
    down = {"axis": None, "scale": alt.Scale(domain=[height, 0], nice=False, zero=False)}
    y = alt.Y("y:Q", **down)
    heads = alt.Chart(alt.Data(values=_heads(nodes, places, left_out, widths)))
    layers = [
        alt.Chart(alt.Data(values=_points(nodes, edges, paths, widths)))
        .mark_line(interpolate="monotone", strokeWidth=1.5, color=INK, opacity=0.7)
        .encode(x=x, y=y, detail="edge:N", order="order:Q", tooltip="which:N"),
        heads.mark_text(align="left", baseline="top", fontSize=11, color=INK, limit=widths.box + widths.gap - 8).encode(
            x=x, y=y, text="text:N"
        ),
    ]
    for kind in KINDS:
        boxes = [_box(node, places[node.key], widths) for node in nodes.values() if node.kind == kind]
        if boxes:
            layers += _boxes(alt, kind, boxes, x, down, widths)
    return finished(alt.layer(*layers).properties(width=width, height=height), f"Lineage of {lineage.title}")


def _boxes(alt: Any, kind: str, boxes: list[dict[str, Any]], x: Any, down: dict[str, Any], widths: Widths) -> list[Any]:
    facts = dict.fromkeys(name for box in boxes for name in box if name.startswith("fact_"))
    tips = [alt.Tooltip(f"{name}:N", title=title) for name, title in (("label", KINDS[kind]), ("id", "id"))]
    tips += [alt.Tooltip(f"{name}:N", title=name.removeprefix("fact_").replace("_", " ")) for name in facts]
    chart = alt.Chart(alt.Data(values=boxes))
    dashed = alt.condition("datum.here", alt.value([1, 0]), alt.value([4, 3]))
    ink = alt.condition("datum.here", alt.value("#ffffff"), alt.value(INK))
    # A box that is hollow has a fill all the same, so that one can point at it.
    full = alt.condition("datum.here", alt.value(1), alt.value(0.01))
    text = {"align": "left", "baseline": "middle", "dx": 7, "limit": widths.box - 13}
    return [
        chart.mark_rect(cornerRadius=4, color=COLOURS[kind], stroke=COLOURS[kind], strokeWidth=1.5).encode(
            x=x, x2="x2:Q", y=alt.Y("y:Q", **down), y2="y2:Q", fillOpacity=full, strokeDash=dashed, tooltip=tips
        ),
        chart.mark_text(**text, fontSize=11.5, fontWeight=600).encode(
            x=x, y=alt.Y("first:Q", **down), text="short:N", color=ink, tooltip=tips
        ),
        chart.mark_text(**text, fontSize=10.5, opacity=0.9).encode(
            x=x, y=alt.Y("second:Q", **down), text="note:N", color=ink, tooltip=tips
        ),
    ]


def _box(node: Node, place: Place, widths: Widths) -> dict[str, Any]:
    facts = {f"fact_{name}": _said(value) for name, value in node.facts.items() if value not in (None, "", [], {})}
    top = place.middle - HIGH / 2
    note = node.note if node.here is not False else f"{node.note or node.kind} · not here"
    return {
        **facts,
        "label": node.label,
        "short": widths.fit(node.label),
        "note": note,
        "id": node.id,
        "here": node.here is not False,
        "x": widths.left(place),
        "x2": widths.left(place) + widths.box,
        "y": top,
        "y2": top + HIGH,
        "first": place.middle - (7 if note else 0),
        "second": place.middle + 8,
    }


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_said(one)}" for name, one in value.items())
    if isinstance(value, (list, tuple)):
        return "; ".join(map(_said, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _most(lineage: Lineage) -> tuple[set[str], Counter[str]]:
    """Keys of the nodes that are drawn, and how many of each kind are not."""
    later: dict[str, list[str]] = {}
    for edge in lineage.edges:
        later.setdefault(edge.earlier, []).append(edge.later)
    kept, left_out = set(lineage.focus[:MOST]), Counter[str]()
    for kind in reversed(KINDS):
        rank = {
            node.key: (
                node.key in lineage.focus,
                any(key in kept for key in later.get(node.key, ())),
                bool(node.facts.get("now")),
                str(node.facts.get("started_at") or node.facts.get("created_at") or node.facts.get("since") or ""),
            )
            for node in lineage.of_kind(kind)
        }
        kept |= {*sorted(rank, key=rank.__getitem__, reverse=True)[:MOST]}
        if len(rank) > MOST:
            left_out[kind] = len(rank) - MOST
    # What hangs on nothing that is drawn is not drawn either.
    linked = {key for edge in lineage.edges if {edge.later, edge.earlier} <= kept for key in (edge.later, edge.earlier)}
    shown = {key for key in kept if key in linked or key in lineage.focus}
    left_out += Counter(key.partition(":")[0] for key in kept - shown)
    return shown, left_out


def _columns(nodes: Mapping[str, Node], edges: Sequence[Edge]) -> dict[str, int]:
    """The column of each node: its kind's, but right of everything that it came from; empty columns left out."""
    earlier: dict[str, list[str]] = {}
    for edge in edges:
        earlier.setdefault(edge.later, []).append(edge.earlier)
    found: dict[str, int] = {}

    def column(key: str) -> int:
        if key not in found:
            before = earlier.get(key, [])
            # What a run was compared with is a source here.
            own = 0 if nodes[key].kind == "artifact" and not before else _COLUMN[nodes[key].kind]
            found[key] = own
            found[key] = max([own, *(1 + column(one) for one in before)])
        return found[key]

    used = sorted({column(key) for key in nodes})
    return {key: used.index(found[key]) for key in nodes}


def _points(
    nodes: Mapping[str, Node], edges: Sequence[Edge], paths: Mapping[Edge, Sequence[Place]], widths: Widths
) -> list[dict[str, Any]]:
    points = []
    for number, edge in enumerate(edges):
        path = paths[edge]
        corners = [(widths.left(path[0]) + widths.box, path[0].middle)]
        for place in path[1:-1]:
            left = widths.left(place)
            corners += [(left, place.middle), (left + widths.box, place.middle)]
        corners.append((widths.left(path[-1]), path[-1].middle))
        which = f"{nodes[edge.later].label} {edge.word} {nodes[edge.earlier].label}"
        points += [{"edge": number, "which": which, "order": n, "x": x, "y": y} for n, (x, y) in enumerate(corners)]
    return points


def _heads(
    nodes: Mapping[str, Node], places: Mapping[str, Place], left_out: Mapping[str, int], widths: Widths
) -> list[dict[str, Any]]:
    kinds: dict[int, dict[str, None]] = {}
    for key, node in nodes.items():
        kinds.setdefault(places[key].column, {})[node.kind] = None
    return [
        {
            "x": widths.left(Place(column, 0)),
            "y": 4,
            "text": ", ".join(_head(kind, left_out.get(kind, 0)) for kind in found),
        }
        for column, found in kinds.items()
    ]


def _head(kind: str, more: int) -> str:
    return f"{KINDS[kind]} (+{more:,})" if more else KINDS[kind]
