"""The pages that are no notebooks: signing in, and being refused."""

from __future__ import annotations

from workbench.access import Viewer
from workbench.html import escape

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --paper: #fcfcfd; --line: #7e868c; --button: #1f5f8b; --bad: #a3242b }
@media (prefers-color-scheme: dark) {
  :root { --ink: #edeef0; --paper: #18191b; --line: #777b84; --button: #8ec8f0; --bad: #ff9592 }
  button, a.button { color: #11181c !important }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 }
main { max-width: 26rem; margin: 12vh auto; padding: 0 1.25rem }
h1 { font-size: 1.4rem; margin: 0 0 1rem }
label { display: block; font-weight: 600; margin-bottom: .35rem }
input { box-sizing: border-box; width: 100%; font: inherit; padding: .55rem .7rem; color: inherit; background: transparent;
  border: 1px solid var(--line); border-radius: 6px }
button, a.button { display: inline-block; margin-top: 1rem; font: inherit; font-weight: 600; padding: .55rem 1.1rem; border: 0;
  border-radius: 6px; background: var(--button); color: #fff; cursor: pointer; text-decoration: none }
a { color: var(--button) }
.bad { color: var(--bad); font-weight: 600 }
:focus-visible { outline: 3px solid var(--button); outline-offset: 2px }
"""


def sign_in(name: str, *, next: str = "/", wrong: bool = False, provider: bool = False) -> str:
    """The form that asks for a key.

    Args:
        name: of the workspace. next: the path to go on to. wrong: the key that was shown is none.
        provider: offer to sign in with the team's provider.
    """
    said = '<p class="bad" role="alert">That key is not in force. Ask whoever made it.</p>' if wrong else ""
    other = f'<p><a class="button" href="/oidc/start?next={escape(next)}">Sign in with your account</a></p>'
    return _page(
        f"Sign in to {name}",
        f"""<h1>Sign in to {escape(name)}</h1>{said}{other if provider else ""}
<form method="post" action="/signin">
<input type="hidden" name="next" value="{escape(next)}">
<label for="key">Key</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus>
<button>Sign in</button>
</form>
<p>A key is made with <code>workbench access grant NAME --role viewer</code>.</p>""",
    )


def refused(said: str, viewer: Viewer | None, *, instead: str = "All apps") -> str:
    """Why somebody does not get on, and the way out.

    Args:
        instead: what the link is called that leads to the apps, or to the sign-in where nobody is signed in.
    """
    out = (
        f'<form method="post" action="/signout"><button>Sign out {escape(viewer.name)}</button></form>'
        if viewer
        else ""
    )
    return _page("Not here", f'<h1>Not here</h1><p>{escape(said)}</p><p><a href="/">{escape(instead)}</a></p>{out}')


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><main>{body}</main></body></html>"
    )
