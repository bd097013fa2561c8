"""The line above an app: the way back to all apps, who is signed in, and signing out. Only where apps are served."""

from __future__ import annotations

from typing import Any

from workbench import access
from workbench.html import escape
from workbench.ui.lab import Html, safely

_BUTTON = (
    "font:inherit;color:inherit;background:transparent;border:1px solid rgba(128,128,128,.8);border-radius:6px;"
    "padding:.15em .8em;cursor:pointer"
)
_LINE = "display:flex;flex-wrap:wrap;gap:.4em 1em;align-items:center;font-size:.9em"


def who() -> Html:
    """Who acts, with which roles and for which tenants; a button to sign out where one signed in."""
    viewer = access.current()
    roles = ", ".join(sorted(viewer.roles)) or "no role"
    tenants = "" if viewer.tenants is None else f" · tenants: {', '.join(viewer.tenants) or 'none'}"
    text = f"<span><b>{escape(viewer.name)}</b> <span style='opacity:.8'>{escape(roles + tenants)}</span></span>"
    button = (
        f"<form method='post' action='/signout' style='margin:0'><button style='{_BUTTON}'>Sign out</button></form>"
    )
    return Html(f"<div style='{_LINE}'>{text}{button if access.served() else ''}</div>")


def line() -> Html:
    """The way back to all apps, and `who`."""
    back = "<a href='/' style='color:inherit;text-decoration:underline'>‹ All apps</a>"
    return Html(
        f"<div style='{_LINE};justify-content:space-between'><nav aria-label='Apps'>{back}</nav>{who().text}</div>"
    )


def titled(text: str) -> Any:
    """An app's title and its question as Markdown, below `line` where it is served to people who sign in."""
    import marimo

    title = marimo.md(text)
    return marimo.vstack([safely(line), title]) if access.served() else title
