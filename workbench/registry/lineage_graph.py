"""The graph of a lineage: what there is, and what came from what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.html import callout, escape, table

# In the order in which one is made from another.
KINDS = {
    "dataset": "data set",
    "corpus": "corpus",
    "model": "model",
    "training": "training",
    "adapter": "adapter",
    "index": "index",
    "run": "run",
    "decision": "decision",
    "artifact": "artifact",
    "alias": "alias",
    "approval": "approval",
    "refusal": "refusal",
    "calls": "calls",
    "served": "served",
}
# Lines that the text form shows under one node.
SHOWN = 20


@dataclass(frozen=True)
class Node:
    """One thing of a lineage.

    Attributes:
        kind: one of `KINDS`.
        id: its digest where it has one, else what identifies it among its kind.
        label: what people call it. note: one short line about it.
        facts: what else is known, by name; JSON values.
        here: whether this workspace has it, by itself or in an artifact; None where a workspace does not keep such things
            by digest (models, corpora).
    """

    kind: str
    id: str
    label: str
    note: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)
    here: bool | None = True

    @property
    def key(self) -> str:
        """Identifies it in its lineage; edges name it."""
        return f"{self.kind}:{self.id}"

    def __str__(self) -> str:
        away = " (not in this workspace)" if self.here is False else ""
        return f"{KINDS[self.kind]} {self.label}{f' · {self.note}' if self.note else ''}{away}"


@dataclass(frozen=True)
class Edge:
    """`later` was made from, or says something of, `earlier`, both keys of nodes; read as `later word earlier`.

    The direction is that of W3C PROV: from what came later to what it came from.
    """

    later: str
    word: str
    earlier: str


@dataclass(frozen=True)
class Lineage:
    """What something came from, and what came from it.

    Attributes:
        title: what was asked for.
        focus: keys of the nodes that it means.
        nodes: by kind, in the order of `KINDS`, and by what was first found.
        damaged: a sentence for each artifact of the workspace, and for what of the served calls, could not be read, and so
            may be missing here.
    """

    title: str
    focus: tuple[str, ...]
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    damaged: tuple[str, ...] = ()

    def of_kind(self, kind: str) -> tuple[Node, ...]:
        """The nodes of one kind, such as `artifact`."""
        return tuple(node for node in self.nodes if node.kind == kind)

    def __bool__(self) -> bool:
        """Whether anything is connected with what was asked for."""
        return bool(self.edges)

    def to_json(self) -> dict[str, Any]:
        return {
            "format_version": 1,
            "title": self.title,
            "focus": list(self.focus),
            "nodes": [{"key": node.key, **vars(node), "facts": dict(node.facts)} for node in self.nodes],
            "edges": [vars(edge) for edge in self.edges],
            "damaged": list(self.damaged),
        }

    def __str__(self) -> str:
        lines = [f"{'  ' * depth}{text}" for depth, text, _ in self._lines()]
        return "\n".join([*lines, *(f"could not be read: {said}" for said in self.damaged)])

    def _repr_html_(self) -> str:
        rows = [
            (
                f"<span style='padding-left:{1.4 * depth:.1f}em'>{escape(text)}</span>",
                "" if node is None else f"<code>{escape(node.id)}</code>",
            )
            for depth, text, node in self._lines()
        ]
        warnings = "".join(callout(f"could not be read: {said}", "warn") for said in self.damaged)
        return table([f"lineage of {self.title}", ""], rows, raw=True) + warnings

    def _lines(self) -> Iterator[tuple[int, str, Node | None]]:
        """The indented tree, as (depth, text, node): under what was asked for what it came from, then what came from it."""
        known = {node.key: node for node in self.nodes}
        up: dict[str, list[Edge]] = {}
        down: dict[str, list[Edge]] = {}
        for edge in self.edges:
            up.setdefault(edge.later, []).append(edge)
            down.setdefault(edge.earlier, []).append(edge)
        seen: set[str] = set()
        for key in self.focus:
            yield 0, str(known[key]), known[key]
            for title, edges in (("comes from", up), ("is used by", down)):
                if key in edges:
                    yield 1, title, None
                    yield from _branch(known, edges, key, 2, seen, upwards=edges is up)
            if key not in up and key not in down:
                yield 1, "nothing is known to have used it", None


def _branch(
    known: Mapping[str, Node], edges: Mapping[str, list[Edge]], key: str, depth: int, seen: set[str], *, upwards: bool
) -> Iterator[tuple[int, str, Node | None]]:
    found = edges.get(key, [])
    for edge in found[:SHOWN]:
        node = known[edge.earlier if upwards else edge.later]
        again = node.key in seen and node.key in edges
        text = f"{edge.word} {node}" if upwards else f"{node}, {edge.word} it"
        yield depth, text + (" (see above)" if again else ""), node
        if not again:
            seen.add(node.key)
            yield from _branch(known, edges, node.key, depth + 1, seen, upwards=upwards)
    if len(found) > SHOWN:
        yield depth, f"and {len(found) - SHOWN} more, in --json", None


class Draft:
    """A lineage that is being put together. Of what is added twice the first stays."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.edges: dict[Edge, None] = {}

    def add(self, node: Node) -> Node:
        return self.nodes.setdefault(node.key, node)

    def link(self, later: Node, word: str, earlier: Node) -> None:
        self.edges[Edge(self.add(later).key, word, self.add(earlier).key)] = None

    def finish(self, title: str, focus: Sequence[Node], damaged: Sequence[str] = ()) -> Lineage:
        order = list(KINDS)
        nodes = sorted(self.nodes.values(), key=lambda node: order.index(node.kind))
        return Lineage(title, tuple(node.key for node in focus), tuple(nodes), tuple(self.edges), tuple(damaged))
