"""One progress bar for terminal, marimo and Jupyter."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, Protocol

from workbench.surroundings import place


class Progress(Protocol):
    """Told how far a piece of work is."""

    def update(self, done: int, note: str = "") -> None:
        """`done` steps of the total are done; `note` says what goes on now."""
        ...


class _Silent:
    def update(self, done: int, note: str = "") -> None:
        return None


class _Marimo:
    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._done = 0

    def update(self, done: int, note: str = "") -> None:
        self._bar.update(increment=done - self._done, subtitle=note)
        self._done = done


class _Jupyter:
    def __init__(self, total: int, title: str) -> None:
        import ipywidgets
        from IPython.display import display

        self._bar = ipywidgets.IntProgress(max=total, description=title, style={"description_width": "initial"})
        self._text = ipywidgets.Label()
        self._box = ipywidgets.HBox([self._bar, self._text])
        self._total = total
        display(self._box)  # type: ignore[no-untyped-call]

    def update(self, done: int, note: str = "") -> None:
        self._bar.value = done
        self._text.value = f"{done}/{self._total} {note}"

    def close(self) -> None:
        self._box.close()


class _Terminal:
    def __init__(self, bar: Any, task: Any) -> None:
        self._bar = bar
        self._task = task

    def update(self, done: int, note: str = "") -> None:
        self._bar.update(self._task, completed=done, note=note)


@contextlib.contextmanager
def progress(total: int, title: str, *, show: bool = True) -> Iterator[Progress]:
    """A bar over `total` steps where this code runs; nothing where `show` is false or nobody watches (no terminal)."""
    where = place() if show else None
    if where == "marimo":
        import marimo

        with marimo.status.progress_bar(total=total, title=title, remove_on_exit=True) as bar:
            yield _Marimo(bar)
    elif where == "jupyter":
        widget = _Jupyter(total, title)
        try:
            yield widget
        finally:
            widget.close()
    elif where == "terminal" and sys.stderr.isatty():
        from rich import progress as rich_progress
        from rich.console import Console

        columns = (
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TimeRemainingColumn(),
            rich_progress.TextColumn("[dim]{task.fields[note]}"),
        )
        with rich_progress.Progress(*columns, console=Console(stderr=True)) as bar:
            yield _Terminal(bar, bar.add_task(title, total=total, note=""))
    else:
        yield _Silent()
