"""Experiments on a server that misbehaves: each ends in rows that say what happened, and the next run asks those again."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.models import openai_server as servers
from tests.workspaces import make_workspace
from workbench import api
from workbench.experiments import scorers
from workbench.experiments.experiment import Experiment
from workbench.models.engines import close_engines
from workbench.pipeline.pipeline import Pipeline
from workbench.pipeline.prompt import Prompt

ROWS = 24
SECRET = "a-key-that-nobody-may-read"


@contextmanager
def experiment_on(
    folder: Path, behaviour: servers.Behaviour, **settings: Any
) -> Iterator[tuple[Experiment, servers.ChatServer]]:
    with servers.serving(behaviour) as server:
        workspace = make_workspace(folder / "workspace", rows=ROWS)
        table = {"base_url": server.url, "key_env": "BAD_DAY_KEY", "concurrency": 8, **settings}
        lines = [
            "format_version = 1",
            "[servers.bad]",
            *(f"{key} = {json.dumps(value)}" for key, value in table.items()),
        ]
        (workspace.root / "workbench.toml").write_text("\n".join(lines) + "\n")
        workspace = api.open(workspace.root)
        pipeline = Pipeline(model="bad:model", prompt=Prompt.from_text("{{ text }}"))
        try:
            yield (
                workspace.experiment(
                    "remote",
                    dataset=workspace.dataset("questions"),
                    variants={"a": pipeline, "b": pipeline.with_(prompt=Prompt.from_text("Please: {{ text }}"))},
                    scorers=[scorers.exact(), scorers.cost()],
                ),
                server,
            )
        finally:
            close_engines()


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAD_DAY_KEY", SECRET)


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (servers.hang, "timeout"),
        (servers.text("<html>this is no JSON</html>"), "engine"),
        (servers.drop, "engine"),
        (servers.status(500), "engine"),
        (servers.echo_key, "engine"),
    ],
    ids=["hangs", "garbage", "drops", "fails", "tells the key"],
)
def test_bad_answers_are_rows_and_the_next_run_mends_them(tmp_path: Path, bad: servers.Behaviour, kind: str) -> None:
    behaviour = servers.by_word(word3=bad, word5=bad)
    with experiment_on(tmp_path, behaviour, timeout_s=0.5, tries=2) as (experiment, server):
        run = experiment.run()
        failed = run.calls().filter(run.calls()["error_kind"].is_not_null())
        assert (run.complete, run.failed) == (True, 4)
        assert set(failed["error_kind"]) == {kind}
        assert set(failed["row_id"]) == {"q3", "q5"}
        assert run.compare().row("b").errors == (2, 2)
        server.behaviour = servers.ok()
        again = experiment.run()
        assert (again.id, again.complete, again.failed) == (run.id, True, 0)
        assert len(again.calls()) == 2 * ROWS
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file


def test_a_server_that_refuses_for_a_while_loses_no_row(tmp_path: Path) -> None:
    began: list[float] = []

    async def busy(server: servers.ChatServer, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        began.append(time.monotonic())
        if began[-1] - began[0] < 3:
            return await servers.status(429, headers={"Retry-After": "1"})(server, request, body)
        await asyncio.sleep(0.01)
        return await servers.ok()(server, request, body)

    with experiment_on(tmp_path, busy) as (experiment, _):
        run = experiment.run()
        assert (run.complete, run.failed, len(run.calls())) == (True, 0, 2 * ROWS)


def test_a_budget_ends_a_run_that_a_larger_one_finishes(tmp_path: Path) -> None:
    # A row costs at least 13 tokens at a dollar each; the bound before a call is higher.
    prices = {"input_usd_per_mtok": 1e6, "output_usd_per_mtok": 1e6}
    with experiment_on(tmp_path, servers.ok(), **prices) as (experiment, server):
        run = experiment.run(budget_usd=400.0)
        kinds = set(run.calls()["error_kind"].drop_nulls())
        assert kinds == {"budget"}
        assert 0 < run.spent_usd <= 400.0
        assert server.answered == 2 * ROWS - run.failed == round(run.spent_usd / 13)
        more = experiment.run(budget_usd=10_000.0)
        assert (more.id, more.failed) == (run.id, 0)
        assert server.answered == 2 * ROWS
        assert more.spent_usd == pytest.approx(13 * 2 * ROWS)


def test_what_was_paid_once_is_free_in_another_experiment(tmp_path: Path) -> None:
    prices = {"input_usd_per_mtok": 1e6, "output_usd_per_mtok": 1e6}
    with experiment_on(tmp_path, servers.ok(), **prices) as (experiment, server):
        experiment.run()
        other = Experiment(
            "other", experiment.dataset, {"again": experiment.variants["a"]}, experiment.scorers, experiment.layout
        )
        run = other.run(budget_usd=0.0)
        assert server.answered == 2 * ROWS
        assert run.calls()["cached"].all()
        assert (run.failed, run.spent_usd) == (0, 0.0)
        assert run.scores().filter(scorer="cost")["value"].null_count() == ROWS
