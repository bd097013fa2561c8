"""A workspace with two small apps: one for whoever signs in, one for editors."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench import access
from workbench.workspace import Layout

NOTEBOOK = """# /// script
# [tool.workbench.app]
# summary = "Says who is here"
# role = "{role}"
# ///
import marimo

__generated_with = "0.25.2"
app = marimo.App(app_title="{title}")

with app.setup:
    import marimo as mo

    from workbench import access


@app.cell
def _():
    who = access.current()
    mo.md(f"I am {{who.name}}, {{sorted(who.roles)}}, {{who.tenants}}")
    return


if __name__ == "__main__":
    app.run()
"""


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    # Serving sets these for the whole process.
    monkeypatch.setenv(access.SERVED, "")
    monkeypatch.setenv("WORKBENCH_WORKSPACE", str(tmp_path))
    (tmp_path / "workbench.toml").write_text('name = "team"\n[apps]\nmax_sessions = 2\n')
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / "who.py").write_text(NOTEBOOK.format(title="Who", role="viewer"))
    (folder / "spend.py").write_text(NOTEBOOK.format(title="Spend", role="editor"))
    (folder / "helper.py").write_text("x = 1\n")
    return Layout.find(tmp_path)
