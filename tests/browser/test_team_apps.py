"""The apps that a team shares, behind their sign-in, in a real browser: home, experiments and registry."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.browser.accessibility import violations
from tests.browser.apps import CHROMIUM, FLAGS
from tests.ports import free_port
from tests.registry.conftest import CLEAR, UNCLEAR, pipelines, write_run
from workbench.pipeline.prompt import Prompt
from workbench.registry import names
from workbench.registry.approvals import approvals
from workbench.registry.policy import DecisionPolicy, Policy
from workbench.registry.promote import promote
from workbench.state.keys import grant
from workbench.workspace import Layout

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[2]
PEOPLE: dict[str, dict[str, Any]] = {
    "ada": {"roles": ["editor"]},
    "vera": {"roles": ["viewer"]},
    "tom": {"roles": ["viewer"], "tenants": ["acme"]},
}
# How long a page may take on a machine that does other things.
PATIENCE = 30_000

_PRESS = """async label => {
  const find = () => [...document.querySelectorAll('marimo-button')].find(one => (one.dataset.label || '').includes(label))
  for (let tries = 0; tries < 100 && !find(); tries++) await new Promise(done => setTimeout(done, 100))
  const element = find()
  element.dispatchEvent(
    new CustomEvent('marimo-value-input', {bubbles: true, composed: true, detail: {value: 1, element}}))
}"""

pytestmark = [pytest.mark.slow, pytest.mark.browser]


@dataclass(frozen=True)
class Team:
    """A workspace that is served, and the keys of its people."""

    layout: Layout
    url: str
    keys: dict[str, str]


def of_tenants(call: dict[str, Any]) -> dict[str, Any]:
    tenant = ("acme", "globex")[int(call["row_id"][4:]) % 2]
    return call | {"tenant": tenant, "input": json.dumps({"text": f"a question of {tenant}"})}


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    root = tmp_path_factory.mktemp("team")
    (root / "workbench.toml").write_text('name = "Team"\n[roles]\nreviewer = ["ada"]\n')
    for folder, files in {
        "notebooks": ["home.py", "experiments.py", "registry.py", "cost_quality.py", "prompt_ab.py"]
    }.items():
        (root / folder).mkdir()
        for file in files:
            shutil.copy(ROOT / folder / file, root / folder)
    (root / "policies").mkdir()
    (root / "policies" / "prod.toml").write_text('format_version = 1\n[[approval]]\nrole = "reviewer"\n')
    layout = Layout.find(root)
    first = write_run(layout, CLEAR, run_id="20260101-000000-aaaaaa-0001", edit=of_tenants)
    kind = pipelines()["few"].with_(prompt=Prompt.from_text("## system\nBe kind.\n\n## user\n{{ text }}"))
    changes = {"experiment": "kindness", "dataset": "farewells", "started_at": "2026-01-03T03:04:05+00:00"}
    changes["finished_at"] = "2026-01-03T03:06:05+00:00"
    variants = {"base": pipelines()["base"], "few": kind}
    second = write_run(layout, UNCLEAR, run_id="20260103-000000-bbbbbb-0002", variants=variants, changes=changes)
    loose = Policy(decision=DecisionPolicy(minimum="none", min_rows=1))
    for run in (first, second):
        promote(layout, run, "greet", "few", policy=loose, alias="staging")
    keys = {
        name: grant(layout.state_url, name, told["roles"], tenants=told.get("tenants")) for name, told in PEOPLE.items()
    }
    with served(root) as url:
        yield Team(layout, url, keys)


@contextlib.contextmanager
def served(root: Path) -> Iterator[str]:
    """The address of `workbench apps` in a folder, for as long as the block runs."""
    port = free_port()
    with (root / "apps.log").open("w") as log:
        command = [sys.executable, "-m", "workbench", "apps", "--port", str(port)]
        server = subprocess.Popen(command, cwd=root, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(240):
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"{url}/healthz").close()
                    break
                time.sleep(0.25)
            yield url
        finally:
            server.terminate()
            server.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip("/usr/bin/chromium is not installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(team: Team, browser: Browser) -> Iterator[Callable[[str, str], Page]]:
    """A page of an app that somebody opens, through the form that asks for their key."""
    contexts = []

    def open_app(person: str, path: str) -> Page:
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 1600}))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(f"{team.url}/signin?next={quote(path)}")
        page.get_by_label("Key").fill(team.keys[person])
        page.get_by_role("button", name="Sign in").click()
        return page

    yield open_app
    for context in contexts:
        context.close()


def test_home_shows_the_apps_that_one_may_open_and_signs_out(visit: Callable[[str, str], Page]) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE)
    page = visit("vera", "/")
    expect(page.get_by_role("link", name="Experiments", exact=False)).to_be_visible()
    expect(page.get_by_role("link", name="Registry", exact=False)).to_be_visible()
    expect(page.get_by_text("Prompt A/B")).to_have_count(0)
    expect(page.get_by_role("heading", name="State of the workspace")).to_be_visible()
    expect(page.get_by_role("link", name="greet@2")).to_be_visible()
    page.get_by_role("link", name="kindness").click()
    expect(page.get_by_text("60 rows of farewells")).to_be_visible()
    page.go_back()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Key")).to_be_visible()
    page.goto(page.url.replace("/signin", "/registry/"))
    expect(page.get_by_label("Key")).to_be_visible()


def test_an_editor_sees_an_app_that_a_viewer_is_refused(visit: Callable[[str, str], Page]) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE)
    expect(visit("ada", "/home/").get_by_role("link", name="Prompt A/B")).to_be_visible()
    expect(visit("vera", "/prompt_ab/").get_by_text("Prompt A/B takes the role editor.")).to_be_visible()


def test_runs_are_searched_opened_and_compared(visit: Callable[[str, str], Page]) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE)
    page = visit("vera", "/experiments/")
    expect(page.get_by_text("2 of 2 runs")).to_be_visible()
    page.get_by_placeholder("experiment, model, variant").fill("greetings few")
    expect(page.get_by_text("1 of 2 runs")).to_be_visible()
    page.locator("tbody tr").first.get_by_role("checkbox").click()
    expect(page.get_by_text("few is better than base", exact=False).first).to_be_visible()
    expect(page.get_by_text("a question of globex").first).to_be_visible()
    expect(page.get_by_text("greet@1 (few)")).to_be_visible()
    expect(page.get_by_role("heading", name="Beside another run")).to_be_visible()
    page.get_by_placeholder("experiment, model, variant").fill("nothing like it")
    expect(page.get_by_text("No run fits")).to_be_visible()


def test_a_person_of_one_tenant_reads_no_question_of_another(visit: Callable[[str, str], Page]) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE)
    page = visit("tom", "/experiments/?run=20260101")
    expect(page.get_by_text("a question of acme").first).to_be_visible()
    expect(page.get_by_text("further rows are of other tenants", exact=False)).to_be_visible()
    assert "globex" not in page.content()
    page.goto(page.url.partition("/experiments")[0] + "/registry/?artifact=greet@1")
    for part in ("Summary", "Lineage", "Evidence", "Gate", "History", "Differences"):
        page.get_by_role("tab", name=part).click()
        expect(page.get_by_role("tab", name=part)).to_have_attribute("data-state", "active")
    expect(page.get_by_text("Changed from greet@2 to greet@1: prompt", exact=False)).to_be_visible()
    assert "globex" not in page.content()
    page.goto(page.url.partition("/registry")[0] + "/home/")
    expect(page.get_by_text("Calls in 7 days, of your tenants")).to_be_visible()
    assert "globex" not in page.content()


def test_what_is_filled_later_is_filled_for_who_opened_the_page(visit: Callable[[str, str], Page]) -> None:
    """Tabs, pages, searches and downloads of a table are calls of functions, which tell marimo of no request."""
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE)
    page = visit("tom", "/cost_quality/")
    expect(page.get_by_role("heading", name="All numbers")).to_be_visible()
    calls = page.locator("marimo-table").first
    expect(calls.get_by_text("a question of acme").first).to_be_visible()
    calls.get_by_role("button", name="Next page").click()
    expect(calls.get_by_text("a question of acme").first).to_be_visible()
    calls.get_by_placeholder("Search").fill("globex")
    expect(calls.get_by_text("0 rows", exact=False).first).to_be_visible()
    with page.expect_download() as download:
        page.get_by_text("Download CSV").first.click()
    text = Path(download.value.path()).read_text("utf-8")
    assert "a question of acme" in text
    page.get_by_role("tab", name="By tenant").click()
    panel = page.get_by_role("tabpanel").last
    expect(panel.get_by_text("acme", exact=True)).to_be_visible()
    with page.expect_download() as download:
        panel.get_by_text("Download CSV").click()
    text += Path(download.value.path()).read_text("utf-8")
    page.get_by_role("button", name="Explore").first.click()
    page.wait_for_timeout(1500)
    assert "globex" not in text
    shown = page.content().replace('value="globex"', "")
    assert "globex" not in shown
    assert "nobody is signed in" not in shown


def test_every_app_leads_back_and_says_who_is_here(visit: Callable[[str, str], Page]) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE)
    page = visit("ada", "/experiments/")
    for app in ("experiments", "registry", "cost_quality", "prompt_ab"):
        page.goto(re.sub(r"/(\w+)/.*$", f"/{app}/", page.url))
        expect(page.get_by_text("ada", exact=True)).to_be_visible()
        expect(page.get_by_role("button", name="Sign out")).to_be_visible()
        back = page.get_by_role("link", name="All apps")
        back.focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="State of the workspace")).to_be_visible()


def test_a_viewer_sees_why_they_may_not_move_an_alias(team: Team, visit: Callable[[str, str], Page]) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE)
    before = names.history(team.layout, "greet")
    page = visit("vera", "/registry/?artifact=greet@1")
    expect(page.get_by_role("button", name="Move staging to greet@1")).to_be_disabled()
    expect(page.get_by_role("button", name="Roll staging back")).to_be_disabled()
    expect(page.get_by_role("button", name="Approve greet@1")).to_be_disabled()
    expect(page.get_by_text("vera may not move staging: it takes the role editor")).to_be_visible()
    # A button that is pressed all the same, as somebody could who writes to the server by hand.
    page.evaluate(_PRESS, "Roll staging back")
    page.evaluate(_PRESS, "Yes, roll staging back")
    expect(page.get_by_text("vera may not roll staging back: it takes the role editor").nth(1)).to_be_visible()
    page.get_by_role("tab", name="Differences").click()
    expect(page.get_by_text("Changed from greet@2 to greet@1: prompt", exact=False)).to_be_visible()
    assert names.history(team.layout, "greet") == before


def test_an_editor_is_refused_approves_moves_prod_and_rolls_back(team: Team, visit: Callable[[str, str], Page]) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE)
    page = visit("ada", "/registry/?artifact=greet@1")
    page.get_by_label("Alias").select_option("prod")
    expect(page.get_by_text("approval by reviewer").first).to_be_visible()
    page.get_by_role("button", name="Move prod to greet@1").click()
    page.get_by_role("button", name="Yes, move prod").click()
    expect(page.get_by_text("Refused, and the refusal is on record.")).to_be_visible()
    page.get_by_label("Comment").fill("read ten answers")
    page.get_by_role("button", name="Approve greet@1").click()
    expect(page.get_by_text("ada approved greet@1 as reviewer.")).to_be_visible()
    page.get_by_role("button", name="Move prod to greet@1").click()
    assert names.alias_version(team.layout, "greet", "prod") is None
    page.get_by_role("button", name="Yes, move prod").click()
    expect(page.get_by_text("ada moved prod to greet@1.")).to_be_visible()
    page.get_by_label("Alias").select_option("staging")
    page.get_by_role("button", name="Roll staging back").click()
    page.get_by_role("button", name="Yes, roll staging back").click()
    expect(page.get_by_text("ada rolled staging back to greet@1.")).to_be_visible()
    page.get_by_role("tab", name="History").click()
    expect(page.get_by_text(re.compile("rolled staging back from version 2"))).to_be_visible()
    moved = [(move.kind, move.alias, move.actor) for move in names.history(team.layout, "greet")[-4:]]
    assert moved == [
        ("refuse", "prod", "ada"),
        ("approve", None, "ada"),
        ("alias", "prod", "ada"),
        ("rollback", "staging", "ada"),
    ]
    assert [(who.actor, who.comment) for who in approvals(team.layout, "greet", 1)] == [("ada", "read ten answers")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(visit: Callable[[str, str], Page], scheme: str) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE)
    for path, last in [
        ("/home/", "Refused lately"),
        ("/experiments/", "Choose a run in the table to open it."),
        ("/experiments/?run=20260101-000000-aaaaaa-0001", "Rows answered differently"),
        ("/registry/?artifact=greet@2", "Approve"),
        ("/cost_quality/", "All numbers"),
    ]:
        page = visit("ada", path)
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        expect(page.get_by_text(last, exact=False).first).to_be_visible()
        assert violations(page) == [], path
    page = visit("vera", "/prompt_ab/")
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    assert violations(page) == []
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Key")).to_be_visible()
    assert violations(page) == []
