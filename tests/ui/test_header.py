"""The line above an app: only where apps are served, and in the name of who is signed in."""

from __future__ import annotations

import pytest

from workbench.access import SERVED, Viewer, acting_as
from workbench.ui import header

pytest.importorskip("marimo")


def test_where_nothing_is_served_there_is_the_title_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVED, "")
    said = header.titled("# Registry").text
    assert "Registry" in said
    assert "All apps" not in said


def test_where_apps_are_served_it_leads_back_and_signs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVED, "1")
    with acting_as(Viewer("<ada>", frozenset({"viewer"}), ("acme",))):
        said = header.titled("# Registry").text
    assert "href='/'" in said
    assert "action='/signout'" in said
    assert "&lt;ada&gt;" in said
    assert "tenants: acme" in said
    # Nobody is signed in: the title is there, and why the rest is not.
    alone = header.titled("# Registry").text
    assert "nobody is signed in here" in alone
    assert "Registry" in alone
