"""What the fine-tuning notebooks show before a training: the rows, one of them as the model gets it, and what it takes."""

from __future__ import annotations

import html
import itertools
from typing import TYPE_CHECKING, Any

from workbench.errors import require
from workbench.html import callout, counted
from workbench.ui.charts import VARIANT_COLOURS, Nothing, finished
from workbench.ui.lab import Html

if TYPE_CHECKING:
    from workbench.api import Workspace
    from workbench.finetune.memory import MemoryEstimate
    from workbench.finetune.plan import FinetunePlan
    from workbench.finetune.recipe import FinetuneRecipe
    from workbench.finetune.train import TrainResult

_LEARNED = "46,160,67"
_PARTS = ("weights", "adapter", "gradients", "optimizer", "activations", "files being read")
# Beyond so many times what a training takes, what is free is said and not drawn.
_DRAWN_FREE = 2.0
_SHOWN_IN_SECONDS = 180


def data_chart(workspace: Workspace, recipe: FinetuneRecipe, *, width: int | str = 560) -> Any:
    """Rows of each split and what takes part in what, by the first target column where it has few values.

    Returns: an Altair chart.
    """
    from workbench.experiments.starting_point import label_values

    dataset = workspace.dataset(recipe.dataset)
    column = dataset.spec.target[0] if dataset.spec.target else ""
    labels = label_values(dataset, column) if column else ()
    roles = {recipe.train: "trains", recipe.dev: "chooses the checkpoint"}
    names = sorted((name for name, rows in dataset.splits().items() if rows), key=lambda name: name not in roles)
    rows = []
    for name in names:
        # The rows of other splits are counted, and not looked at.
        count = len(dataset.split(name))
        rows.append({"split": f"{name} ({count}): {roles.get(name, 'compares')}", "rows": count, "role": name in roles})
    alt = require("altair", extra="charts")
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar(cornerRadiusEnd=2, color=VARIANT_COLOURS[0])
        .encode(
            y=alt.Y("split:N", sort=None, title=None, axis=alt.Axis(labelLimit=260)),
            x=alt.X("rows:Q", title="rows", axis=alt.Axis(tickMinStep=1)),
            opacity=alt.Opacity("role:N", legend=None, scale=alt.Scale(domain=[True, False], range=[1, 0.5])),
            tooltip=["split:N", "rows:Q"],
        )
        .properties(width=width, height=alt.Step(30))
    )
    named = f", {len(labels)} values of {column}" if labels else ""
    return finished(chart, f"Rows of {dataset.name}{named}")


def example_view(workspace: Workspace, recipe: FinetuneRecipe) -> Html:
    """A train row as the model gets it, the tokens that it learns tinted, and how long all the rows are.

    Raises:
        DataError, PromptError, ModelError, NotFoundError: rows that cannot be trained on; says why.
    """
    from workbench.finetune.examples import encode, open_splits
    from workbench.finetune.memory import base_on_meta
    from workbench.finetune.quiet import quiet
    from workbench.models.decoding import end_tokens
    from workbench.models.store import find_model

    train = open_splits(workspace.layout, recipe)["train"]
    folder = find_model(recipe.model)
    with quiet():
        tokenizer = require("transformers", extra="finetune").AutoTokenizer.from_pretrained(
            folder.path, local_files_only=True
        )
        model = base_on_meta(folder, "cpu")
        context = getattr(model.config, "max_position_embeddings", None)
        encoded = encode(recipe, train, tokenizer, ends=end_tokens(model, tokenizer), context=context)
    lengths = [len(row.input_ids) for row in encoded.rows]
    learned = [sum(row.completion_mask) for row in encoded.rows]
    every = not recipe.settings.completion_only
    said = (
        f"<b>{len(encoded.rows)} train rows</b> of {_span(lengths)} tokens. "
        f"The <span style='{_tint()}'>{'tinted' if not every else 'answer'}</span> ones are the answer, "
        f"{_span(learned)} of each row"
        + ("; all tokens are learned." if every else ": only they are learned.")
        + (f" {len(encoded.too_long)} rows are longer than {encoded.limit} tokens." if encoded.too_long else "")
    )
    shown = encoded.rows[0]
    pieces = []
    for marked, group in itertools.groupby(
        zip(shown.input_ids, shown.completion_mask, strict=True), lambda pair: pair[1]
    ):
        tokens = [token for token, _ in group]
        if marked:
            pieces += [f"<span style='{_tint()}'>{html.escape(tokenizer.decode([token]))}</span>" for token in tokens]
        else:
            pieces.append(f"<span style='opacity:.65'>{html.escape(tokenizer.decode(tokens))}</span>")
    return Html(
        f"<p style='margin:.2em 0 .6em'>{said}</p><div style='white-space:pre-wrap;font-family:monospace;font-size:.8em;"
        f"line-height:1.7;border:1px solid rgba(128,128,128,.3);border-radius:4px;padding:.6em .9em'>{''.join(pieces)}</div>"
    )


def _span(values: list[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"


def _tint() -> str:
    return f"background:rgba({_LEARNED},.2);border:1px solid rgba({_LEARNED},.6);border-radius:3px;padding:0 .1em;margin:0 1px"


def memory_chart(plan: FinetunePlan, *, width: int | str = 340) -> Any:
    """Memory by part: in the steps, while the weights are read, and with settings that would fit where these do not.

    Returns: an Altair chart.
    """
    bars = [("training", plan.memory, False), ("loading the weights", plan.memory, True)]
    bars += [(f"with {found.named}", found.memory, False) for found in plan.alternatives]
    rows = [
        {"bar": name, "part": part, "mb": round(mb, 1), "place": _PARTS.index(part)}
        for name, memory, loading in bars
        for part, mb in _parts(memory, loading).items()
    ]
    alt = require("altair", extra="charts")
    bar = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar()
        .encode(
            y=alt.Y("bar:N", sort=None, title=None, axis=alt.Axis(labelLimit=240)),
            x=alt.X("mb:Q", title="MB", axis=alt.Axis(format=",d", tickCount=5)),
            color=alt.Color(
                "part:N",
                scale=alt.Scale(domain=list(_PARTS), range=list(VARIANT_COLOURS)),
                legend=alt.Legend(title=None, orient="bottom", columns=3),
            ),
            order=alt.Order("place:Q"),
            tooltip=["bar:N", "part:N", alt.Tooltip("mb:Q", format=",.0f", title="MB")],
        )
    )
    layers, most = [bar], max(memory.training for _, memory, _ in bars)
    if plan.available_mb <= _DRAWN_FREE * most:
        free = alt.Chart(alt.Data(values=[{"free": plan.available_mb}]))
        layers.append(free.mark_rule(strokeDash=[4, 4], strokeWidth=2, color="#da3633").encode(x="free:Q"))
    title = f"Memory: {plan.memory.training:,.0f} MB at most, {plan.available_mb:,.0f} MB are free"
    return finished(alt.layer(*layers).properties(width=width, height=alt.Step(34)), title)


def _parts(memory: MemoryEstimate, loading: bool) -> dict[str, float]:
    if loading:
        return {"weights": memory.weights, "files being read": max(0.0, memory.loading - memory.weights)}
    return {name: getattr(memory, name) for name in _PARTS[:-1]}


def time_chart(plan: FinetunePlan, *, width: int | str = 190) -> Any:
    """What the steps and the looks at the dev split take, from the pilot, in seconds or minutes.

    Returns: an Altair chart, or `Nothing` where no pilot was run.
    """
    if plan.pilot is None:
        return Nothing("No time is told without a pilot.")
    alt = require("altair", extra="charts")
    steps, looks = plan.pilot.train_s, plan.pilot.evaluation_s
    unit, seconds = ("minutes", 60) if steps + looks >= _SHOWN_IN_SECONDS else ("seconds", 1)
    spent = {counted(plan.steps, "step"): steps, counted(plan.evaluations, "look") + " at dev": looks}
    rows = [{"what": what, "time": found / seconds} for what, found in spent.items()]
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar(cornerRadiusEnd=2, color=VARIANT_COLOURS[0])
        .encode(
            y=alt.Y("what:N", sort=None, title=None, axis=alt.Axis(labelLimit=200)),
            x=alt.X("time:Q", title=unit, axis=alt.Axis(tickCount=3)),
            tooltip=["what:N", alt.Tooltip("time:Q", format=".1f", title=unit)],
        )
        .properties(width=width, height=alt.Step(34))
    )
    total = (steps + looks) / seconds
    return finished(chart, f"Time: {total:.0f} {unit}, {plan.pilot.tokens_per_s:.0f} tokens/s here")


def plan_charts(plan: FinetunePlan) -> list[Any]:
    """`memory_chart` and `time_chart`."""
    return [memory_chart(plan), time_chart(plan)]


def verdict(what: FinetunePlan | TrainResult) -> Html:
    """Whether a plan fits and what would, or what a training came to, in a box."""
    from workbench.finetune.plan import FinetunePlan

    if not isinstance(what, FinetunePlan):
        return Html(callout(f"{what}.", "ok"))
    return Html(callout(what.verdict, "ok" if what.fits else "bad"))
