"""Training as it goes: a live curve of the loss in marimo and Jupyter, with speed, memory and the time that is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.errors import require
from workbench.html import duration, escape
from workbench.surroundings import place
from workbench.ui.charts import VARIANT_COLOURS, Nothing, finished

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.finetune.recipe import FinetuneRecipe
    from workbench.finetune.train import TrainResult
    from workbench.workspace import Layout

    # Shows a line in HTML and a chart in place of those before.
    Draw = Callable[[str, Any], None]

# Steps whose median speed says how long the rest takes.
_RECENT = 20
_WIDTH = 620


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
    return finished(alt.layer(*layers).properties(width=width, height=220), title)


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
        parts.append(f"{duration(seconds)} left")
    return " · ".join(parts)


def train_live(
    layout: Layout, recipe: FinetuneRecipe, *, max_steps: int | None = None, show_progress: bool = True, **options: Any
) -> TrainResult:
    """`workbench.finetune.train.train`, with a bar and a curve that grow in marimo and in Jupyter."""
    from workbench.finetune.record import training_of
    from workbench.finetune.train import train

    if max_steps is not None:
        recipe = recipe.with_settings(max_steps=max_steps)
    places: dict[str, Callable[[], Draw]] = {"marimo": _marimo, "jupyter": _jupyter}
    make = places.get(place())
    if make is None:
        return train(layout, recipe, show_progress=show_progress, **options)
    training, draw = training_of(layout, recipe), make()
    draw(_bar("Loading the model and the rows", 0.0), "")

    def watch(metrics: pl.DataFrame) -> None:
        # The record is written before the first step, and says how many there are.
        record = training.record()
        steps = record.steps if record is not None else None
        done = metrics["step"][-1] / steps if steps else 0.0
        draw(_bar(training_status(metrics, steps), done), loss_chart(metrics, width=_WIDTH))

    result = train(layout, recipe, show_progress=False, watch=watch, **options)
    draw(_bar(training_status(result.metrics), 1.0), loss_chart(result.metrics, width=_WIDTH))
    return result


def _bar(text: str, share: float) -> str:
    """How far it is, above what there is to say of it."""
    done = f"width:{min(1.0, share):.1%};height:100%;border-radius:3px;background:{VARIANT_COLOURS[0]}"
    return (
        "<div style='height:6px;border-radius:3px;margin:.3em 0;background:rgba(128,128,128,.25)'>"
        f"<div style='{done}'></div></div><div style='font-variant-numeric:tabular-nums'>{escape(text)}</div>"
    )


def _marimo() -> Draw:
    import marimo

    def draw(text: str, chart: Any) -> None:
        marimo.output.replace(marimo.vstack([marimo.Html(text), chart]))

    return draw


def _jupyter() -> Draw:
    from IPython.display import HTML, display

    handles: list[Any] = []

    def draw(text: str, chart: Any) -> None:
        drawn = [HTML(text), chart or HTML("")]  # type: ignore[no-untyped-call]
        if handles:
            for handle, what in zip(handles, drawn, strict=True):
                handle.update(what)
        else:
            handles.extend(display(what, display_id=True) for what in drawn)  # type: ignore[no-untyped-call]

    return draw
