"""axe-core's rules (WCAG 2.1 A and AA) held against a page."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

# What marimo draws itself: the shell of a page, its menus, and the insides of its tables and sliders.
NOT_OURS = [
    "marimo-table",
    "[data-testid='notebook-actions-dropdown']",
    "marimo-slider",
    "marimo-multiselect",
    "marimo-tabs",
]


def violations(page: Page) -> list[tuple[str, str, str]]:
    """What axe finds serious or critical in what is ours, as rule, target and markup."""
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        pytest.skip("axe is not installed: pip install axe-playwright-python")
    page.evaluate((Path(found.origin).parent / "axe.min.js").read_text("utf-8"))
    result: dict[str, Any] = page.evaluate(
        "exclude => axe.run({exclude: exclude.map(one => [one])}, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})",
        NOT_OURS,
    )
    return [
        (rule["id"], str(node["target"]), node["html"][:200])
        for rule in result["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]
