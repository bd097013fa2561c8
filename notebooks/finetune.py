# /// script
# [tool.marimo.display]
# theme = "system"
#
# [tool.workbench]
# check = ["--max-steps", "2", "--eval-every", "2", "--pilot", "false", "--limit", "8"]
#
# [tool.workbench.app]
# summary = "An adapter planned, trained, and held against the best prompt before it is promoted."
# role = "editor"
# order = 60
# ///
import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Fine-tuning")

with app.setup:
    import marimo as mo

    import workbench as wb
    from workbench.ui import charts, finetune_lab, finetune_view, header, lab, training


@app.cell(hide_code=True)
def _():
    header.titled("""
    # Fine-tuning

    **Does an adapter answer better than the best prompt, and at what price?** Look at what would be learned, at what it
    takes, and train. Then the base with its examples and the adapter without any answer test rows that neither has seen.
    """)
    return


@app.cell(hide_code=True)
def _():
    ws = wb.open(mo.notebook_dir().parent, notebook=__file__)
    script = mo.app_meta().mode == "script"
    defaults = lab.safely(lambda: finetune_lab.FinetuneChoices.from_arguments(mo.cli_args().to_dict()))
    mo.stop(not defaults, defaults)
    _files = lab.safely(lambda: finetune_lab.recipes(ws, defaults.recipe))
    mo.stop(not _files, _files)
    _presets = finetune_lab.presets(defaults.preset)
    file = mo.ui.dropdown(_files, value=_files[0], label="Recipe", allow_select_none=False)
    preset = mo.ui.dropdown(_presets, value=_presets[0], label="Settings", allow_select_none=False)
    return defaults, file, preset, script, ws


@app.cell(hide_code=True)
def _(defaults, file, preset, ws):
    _chosen = defaults.with_controls({"recipe": file.value, "preset": preset.value})
    _now = lab.safely(lambda: finetune_lab.recipe_of(ws, _chosen).settings)
    mo.stop(not _now, mo.vstack([file, _now]))
    _epochs = mo.ui.number(start=0, value=_now.epochs, step=0.5, label="Epochs")
    _rank = mo.ui.number(start=1, stop=1024, value=_now.rank, label="Rank")
    _rate = mo.ui.number(start=0, stop=1, value=_now.learning_rate, step=1e-4, label="Learning rate")
    _most = mo.ui.number(start=0, value=_now.max_steps or 0, label="Steps at most (0: all)")
    settings = mo.ui.dictionary({"epochs": _epochs, "rank": _rank, "learning_rate": _rate, "max_steps": _most})
    mo.hstack([file, preset, *settings.elements.values()], justify="start", wrap=True, gap=1.5)
    return (settings,)


@app.cell(hide_code=True)
def _(defaults, file, preset, settings, ws):
    choices = defaults.with_controls({"recipe": file.value, "preset": preset.value, **settings.value})
    recipe = lab.safely(lambda: finetune_lab.recipe_of(ws, choices))
    mo.stop(not recipe, recipe)
    with mo.status.spinner("Encoding the rows"):
        _rows = lab.safely(lambda: finetune_view.example_view(ws, recipe))
    mo.stop(not _rows, _rows)
    plan_button = mo.ui.run_button(label="Plan", tooltip="Time a few steps, and say what all of them would take")
    train_button = mo.ui.run_button(label="Train", kind="success", tooltip="Goes on where it stopped")
    _buttons = mo.hstack([plan_button, train_button], justify="start")
    _learned, _trained = mo.md("## What is learned"), mo.md("## Plan and train")
    mo.vstack([_learned, finetune_view.data_chart(ws, recipe), _rows, _trained, _buttons])
    return choices, plan_button, recipe, train_button


@app.cell(hide_code=True)
def _(choices, plan_button, recipe, script, ws):
    mo.stop(not (plan_button.value or script))
    with mo.status.spinner("Estimating memory, then timing a few steps"):
        plan = lab.safely(lambda: ws.plan_finetune(recipe, pilot=choices.pilot))
    mo.stop(not plan, plan)
    print(plan) if script else None
    _pictures = mo.hstack(finetune_view.plan_charts(plan), justify="start", wrap=True, gap=2)
    mo.vstack([finetune_view.verdict(plan), _pictures, mo.accordion({"All of the plan": plan})])
    return


@app.cell(hide_code=True)
def _(recipe, script, train_button, ws):
    mo.stop(not (train_button.value or script), mo.md(finetune_lab.state(ws, recipe)))
    mo.output.replace(mo.md("Checking that it fits"))
    result = lab.safely(lambda: ws.finetune(recipe))
    mo.stop(not result, result)
    print(result) if script else None
    mo.vstack([finetune_view.verdict(result), training.loss_chart(result.metrics, width=620)])
    return (result,)


@app.cell(hide_code=True)
def _(choices, recipe, result, ws):
    _offered = lab.safely(lambda: finetune_lab.offered(ws, recipe, choices))
    mo.stop(not _offered, _offered)
    _prompt = mo.ui.dropdown(_offered.prompts, value=_offered.prompts[0], label="Prompt of the base")
    _scorer = mo.ui.dropdown(_offered.scorers, value=_offered.scorers[0], label="Decide by")
    _limit = mo.ui.number(start=0, value=choices.limit, label="Test rows (0: all)")
    against = mo.ui.dictionary({"prompt": _prompt, "scorer": _scorer, "limit": _limit})
    compare_button = mo.ui.run_button(label="Compare", kind="success", tooltip=f"Ask both: {result.adapter}")
    change = mo.ui.radio({"all": "all", "fixed": "fixed", "broken": "broke"}, value="all", inline=True)
    name, alias = mo.ui.text(value=recipe.name, label="Name"), mo.ui.text(value="staging", label="Alias")
    promote_button = mo.ui.run_button(label="Promote", kind="success")
    _controls = [*against.elements.values(), compare_button]
    mo.vstack([mo.md("## Better than the best prompt?"), mo.hstack(_controls, justify="start", wrap=True, gap=1.5)])
    return against, alias, change, compare_button, name, promote_button


@app.cell(hide_code=True)
def _(against, choices, compare_button, recipe, result, script, ws):
    mo.stop(not (compare_button.value or script), mo.md("Press **Compare** to ask both."))
    run = lab.safely(lambda: finetune_lab.experiment(ws, recipe, result, choices.with_controls(against.value)).run())
    mo.stop(not run, run)
    comparison = run.compare(finetune_lab.PROMPTED)
    print(comparison) if script else None
    _plots = [charts.difference_plot(comparison, width=330), charts.cost_quality(run, comparison, width=250)]
    _pair = mo.hstack(_plots, justify="start", wrap=True, gap=2)
    _by_class = charts.accuracy_by_target(run, comparison.primary, width=620)
    mo.vstack([mo.md("## Decision"), *finetune_lab.decisions(comparison), _pair, _by_class])
    return comparison, run


@app.cell(hide_code=True)
def _(alias, change, comparison, name, promote_button, run):
    _numbers = mo.accordion({"All numbers": comparison, "By variant": run})
    _rows = lab.disagreements(comparison, finetune_lab.TUNED, change=change.value)
    _title, _promote = mo.md("## Rows that the two answer differently"), mo.md("## Promote")
    _controls = mo.hstack([name, alias, promote_button], justify="start", align="end")
    mo.vstack([_title, change, _rows, _numbers, _promote, _controls])
    return


@app.cell(hide_code=True)
def _(alias, name, promote_button, run, ws):
    verdict = lab.safely(lambda: finetune_lab.gate(ws, run))
    mo.stop(not promote_button.value, mo.accordion({"What the gate says": verdict}))
    mo.output.replace(mo.md("Promoting: the adapter is packed and read back"))
    lab.safely(lambda: finetune_lab.promote(ws, run, name.value, alias.value))
    return


if __name__ == "__main__":
    app.run()
