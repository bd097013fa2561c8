"""Training as it goes: a live curve of the loss in marimo and Jupyter, with speed, memory and the time that is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.errors import require
from workbench.html import escape
from workbench.surroundings import place
from workbench.ui.charts import VARIANT_COLOURS, Nothing, _styled

if TYPE_CHECKING:
    from workbench.finetune.callbacks import Watch
    from workbench.finetune.recipe import FinetuneRecipe
    from workbench.finetune.train import TrainResult
    from workbench.workspace import Layout

# Steps whose median speed says how long the rest takes.
_RECENT = 20


def loss_chart(metrics: pl.DataFrame, *, width: int | str = 520) -> Any:
    """Loss by step on the train and the dev split, the best look at the dev split marked.

    Args:
        metrics: columns as in `workbench.finetune.record.METRICS`.

    Returns: an Altair chart, or `Nothing`.
    """
    points = [
        {"step": row["step"], "loss": row[column], "split": split}
        for column, split in (("loss", "train"), ("dev_loss", "dev"))
        for row in metrics.iter_rows(named=True)
        if row[column] is not None
    ]
    if not points:
        return Nothing("No step is done yet.")
    alt = require("altair", extra="charts")
    x = alt.X("step:Q", title="step", axis=alt.Axis(tickMinStep=1, format="d"))
    y = alt.Y("loss:Q", title="loss (nats a token)", scale=alt.Scale(zero=True))
    colour = alt.Color(
        "split:N",
        scale=alt.Scale(domain=["train", "dev"], range=list(VARIANT_COLOURS[:2])),
        legend=alt.Legend(title=None, orient="bottom"),
    )
    tips = ["split:N", "step:Q", alt.Tooltip("loss:Q", format=".4f")]
    base = alt.Chart(alt.Data(values=points))
    lines = base.mark_line(strokeWidth=2, interpolate="monotone").encode(x=x, y=y, color=colour, tooltip=tips)
    looks = [point for point in points if point["split"] == "dev"]
    layers, title = [lines], "Loss by step"
    if looks:
        best = min(looks, key=lambda point: point["loss"])
        title += f"; best on dev {best['loss']:.3f} at step {best['step']}"
        dots = alt.Chart(alt.Data(values=looks)).mark_point(filled=True, size=50, opacity=1)
        mark = alt.Chart(alt.Data(values=[best])).mark_point(size=190, strokeWidth=2, shape="diamond")
        layers += [dots.encode(x=x, y=y, color=colour, tooltip=tips), mark.encode(x=x, y=y, color=colour)]
    return _styled(alt.layer(*layers).properties(width=width, height=220), title)


def training_status(metrics: pl.DataFrame, steps: int | None = None) -> str:
    """One line: step, losses, tokens a second, memory, and the time that the remaining steps take."""
    done = metrics.filter(pl.col("loss").is_not_null())
    if not len(done):
        return "starting"
    last = done.row(-1, named=True)
    parts = [f"step {last['step']}" + (f" of {steps}" if steps else ""), f"loss {last['loss']:.3f}"]
    looks = metrics["dev_loss"].drop_nulls()
    if len(looks):
        parts.append(f"dev loss {looks[-1]:.3f}")
    recent = done.tail(_RECENT)
    speed = recent["tokens_per_s"].median()
    if isinstance(speed, float) and speed > 0:
        parts.append(f"{speed:.0f} tokens/s")
    if last["memory_mb"] is not None:
        parts.append(f"{last['memory_mb'] / 1024:.1f} GB")
    if steps and isinstance(speed, float) and speed > 0:
        seconds = (steps - last["step"]) * last["tokens"] / last["step"] / speed
        parts.append(f"{_duration(seconds)} left")
    return " · ".join(parts)


def train_live(layout: Layout, recipe: FinetuneRecipe, **options: Any) -> TrainResult:
    """`workbench.finetune.train.train`, with a curve that grows in marimo and in Jupyter."""
    from workbench.finetune.train import train

    shows: dict[str, Watch] = {"marimo": _show_in_marimo, "jupyter": _Jupyter()}
    show = shows.get(place())
    result = train(layout, recipe, watch=show, **options)
    if show is not None:
        show(result.metrics)
    return result


def _show_in_marimo(metrics: pl.DataFrame) -> None:
    import marimo

    status = marimo.md(f"**{escape(training_status(metrics))}**")
    marimo.output.replace(marimo.vstack([status, loss_chart(metrics, width="container")]))


class _Jupyter:
    """One output that is drawn anew."""

    def __init__(self) -> None:
        self._handles: list[Any] = []

    def __call__(self, metrics: pl.DataFrame) -> None:
        from IPython.display import HTML, display

        shown = [HTML(f"<b>{escape(training_status(metrics))}</b>"), loss_chart(metrics)]  # type: ignore[no-untyped-call]
        if self._handles:
            for handle, what in zip(self._handles, shown, strict=True):
                handle.update(what)
        else:
            self._handles = [display(what, display_id=True) for what in shown]  # type: ignore[no-untyped-call]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
