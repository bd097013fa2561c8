"""Which notebooks are apps, and which role each takes."""

from __future__ import annotations

import pytest

from tests.apps.conftest import NOTEBOOK
from workbench.apps.listing import find_apps
from workbench.errors import NotFoundError, UsageError
from workbench.workspace import Layout


def test_marimo_notebooks_are_apps_and_other_files_are_not(layout: Layout) -> None:
    found = [(app.slug, app.title, app.role, app.summary) for app in find_apps(layout)]
    assert found == [("spend", "Spend", "editor", "Says who is here"), ("who", "Who", "viewer", "Says who is here")]


def test_a_notebook_that_says_nothing_is_for_editors(layout: Layout) -> None:
    path = layout.notebooks / "plain.py"
    path.write_text('import marimo\n\napp = marimo.App(width="medium")\n')
    [app] = find_apps(layout, [path])
    assert (app.slug, app.title, app.role) == ("plain", "Plain", "editor")


def test_the_settings_say_another_role(layout: Layout) -> None:
    (layout.root / "workbench.toml").write_text('[apps.roles]\nwho = "auditor"\n')
    assert {app.slug: app.role for app in find_apps(Layout.find(layout.root))} == {"who": "auditor", "spend": "editor"}


def test_what_is_no_app_says_so(layout: Layout) -> None:
    with pytest.raises(UsageError, match="is no marimo notebook"):
        find_apps(layout, [layout.notebooks / "helper.py"])
    with pytest.raises(NotFoundError, match="no notebook"):
        find_apps(layout, [layout.notebooks / "gone.py"])
    wrong = layout.notebooks / "wrong.py"
    wrong.write_text(NOTEBOOK.format(title="W", role="viewer").replace("# role", "# rôle"))
    with pytest.raises(UsageError, match=r"script metadata of .*wrong\.py"):
        find_apps(layout, [wrong])
    for path in layout.notebooks.glob("*.py"):
        path.unlink()
    with pytest.raises(NotFoundError, match="no marimo notebook"):
        find_apps(layout)
