# /// script
# [tool.marimo.display]
# theme = "system"
#
# [tool.workbench.app]
# summary = "Two prompts on your data: the plan, the rows they differ on, the decision, and promotion."
# role = "editor"
# order = 40
# ///
import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Prompt A/B")

with app.setup:
    import marimo as mo

    import workbench as wb
    from workbench.ui import charts, header, lab


@app.cell(hide_code=True)
def _():
    header.titled("""
    # Prompt A/B

    **Which of two prompts answers better on your data, and is the difference real?** Pick the data, edit the prompts,
    look at the plan, run. The decision is `better`, `worse`, `equivalent` or `inconclusive`.
    """)
    return


@app.cell(hide_code=True)
def _():
    ws = wb.open(mo.notebook_dir().parent, notebook=__file__)
    script = mo.app_meta().mode == "script"
    defaults = lab.safely(lambda: lab.Choices.from_arguments(mo.cli_args().to_dict()))
    mo.stop(not defaults, defaults)
    dataset = mo.ui.dropdown(ws.datasets(), value=defaults.dataset, label="Data set")
    limit = mo.ui.number(start=0, stop=100_000, value=defaults.limit, label="Rows (0: all)")
    model = mo.ui.text(value=defaults.model or ws.model, label="Model")
    shots = mo.ui.slider(0, 32, value=defaults.shots, label="Few-shot examples for B", show_value=True)
    stop_early = mo.ui.switch(value=defaults.stop_early, label="Stop when it is settled")
    return dataset, defaults, limit, model, script, shots, stop_early, ws


@app.cell(hide_code=True)
def _(dataset, defaults, limit, model, shots, stop_early, ws):
    splits = lab.safely(lambda: lab.splits(ws, dataset.value, defaults.split))
    mo.stop(not splits, mo.vstack([dataset, splits]))
    split = mo.ui.dropdown(splits, value=splits[0], label="Split")
    mo.hstack([dataset, split, limit, model, shots, stop_early], justify="start", wrap=True, gap=1.5)
    return (split,)


@app.cell(hide_code=True)
def _(dataset, defaults, limit, model, shots, split, ws):
    choices = lab.replace(
        defaults, dataset=dataset.value, split=split.value, limit=limit.value, model=model.value, shots=shots.value
    )
    texts = lab.safely(lambda: lab.prompt_texts(ws, choices))
    mo.stop(not texts, texts)
    prompt_a = mo.ui.text_area(texts[0], label="Prompt A, the baseline", rows=14, full_width=True)
    prompt_b = mo.ui.text_area(texts[1], label="Prompt B", rows=14, full_width=True)
    mo.hstack([prompt_a, prompt_b], widths="equal", gap=1.5)
    return choices, prompt_a, prompt_b


@app.cell(hide_code=True)
def _(choices, prompt_a, prompt_b, stop_early, ws):
    chosen = lab.replace(choices, stop_early=stop_early.value)
    experiment = lab.safely(lambda: lab.build_experiment(ws, chosen, prompt_a.value, prompt_b.value))
    mo.stop(not experiment, experiment)
    before, after = (experiment.variants[name].prompt for name in ("A", "B"))
    mo.accordion({"What changes from A to B": before.diff(after)})
    return (experiment,)


@app.cell(hide_code=True)
def _():
    plan_button = mo.ui.run_button(label="Plan", tooltip="Ask five rows and say what all would take")
    run_button = mo.ui.run_button(label="Run", kind="success", tooltip="Ask every row; goes on where it stopped")
    mo.hstack([plan_button, run_button], justify="start")
    return plan_button, run_button


@app.cell(hide_code=True)
def _(experiment, plan_button, script):
    mo.stop(not (plan_button.value or script))
    plan = lab.safely(experiment.plan)
    print(plan) if script else None
    plan
    return


@app.cell(hide_code=True)
def _(experiment, run_button, script, stop_early):
    mo.stop(not (run_button.value or script), mo.md("Press **Run** to ask the model."))
    run = lab.safely(lambda: experiment.run(stop_early=stop_early.value))
    mo.stop(not run, run)
    comparison = run.compare("A")
    decision = comparison.decision("B")
    print(comparison) if script else None
    mo.vstack([mo.md("## Decision"), decision])
    return comparison, run


@app.cell(hide_code=True)
def _(comparison, run):
    mo.hstack(
        [charts.difference_plot(comparison, width=400), charts.cost_quality(run, comparison, width=340)],
        justify="start",
        wrap=True,
        gap=2,
    )
    return


@app.cell(hide_code=True)
def _(comparison, run):
    change = mo.ui.radio({"all": "all", "fixed by B": "fixed", "broken by B": "broke"}, value="all", inline=True)
    numbers = mo.accordion({"All numbers": comparison, "By variant": run})
    mo.vstack([mo.md("## Rows that A and B answer differently"), change])
    return change, numbers


@app.cell(hide_code=True)
def _(change, comparison, numbers):
    mo.vstack([lab.disagreements(comparison, "B", change=change.value), numbers])
    return


@app.cell(hide_code=True)
def _(run):
    name = mo.ui.text(value=run.manifest.dataset, label="Name")
    alias = mo.ui.text(value="staging", label="Alias")
    promote_button = mo.ui.run_button(label="Promote B", kind="success")
    mo.vstack([mo.md("## Promote"), mo.hstack([name, alias, promote_button], justify="start", align="end")])
    return alias, name, promote_button


@app.cell(hide_code=True)
def _(alias, name, promote_button, run, ws):
    verdict = lab.safely(lambda: ws.gate(run, variant="B", over="A"))
    mo.stop(not promote_button.value, mo.accordion({"What the gate says": verdict}))
    lab.safely(lambda: ws.promote(run, name.value, variant="B", over="A", alias=alias.value))
    return


if __name__ == "__main__":
    app.run()
