# /// script
# [tool.marimo.display]
# theme = "system"
#
# [tool.workbench.app]
# summary = "Cost, latency and quality by model, prompt, tenant and day; the budget; what another mix of models would be."
# role = "viewer"
# order = 30
# ///
import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Cost and quality")

with app.setup:
    import marimo as mo

    import workbench as wb
    from workbench.ui import cost_quality, cost_quality_plans, header, lab
    from workbench.ui import cost_quality_clicks as clicks


@app.cell(hide_code=True)
def _():
    header.titled("""
    # Cost and quality

    **What do answers cost, how good are they, and what would another mix of models be?** Click a bar, a point or a day to
    read the calls behind it.
    """)
    return


@app.cell(hide_code=True)
def _():
    ws = wb.open(mo.notebook_dir().parent, notebook=__file__)
    script = mo.app_meta().mode == "script"
    defaults = lab.safely(lambda: lab.from_arguments(cost_quality.Choices(), mo.cli_args().to_dict()))
    mo.stop(not defaults, defaults)
    again = mo.ui.run_button(label="Look again", tooltip="Read the calls anew")
    return again, defaults, script, ws


@app.cell(hide_code=True)
def _(again, defaults, script, ws):
    again.value
    store = lab.safely(lambda: cost_quality.Store(ws.layout))
    mo.stop(isinstance(store, lab.Problem), store)
    print(store.nothing_yet()) if script and not store else None
    mo.stop(not store, store.nothing_yet())
    opened = lab.safely(lambda: defaults.period)
    mo.stop(not opened, opened)
    period = mo.ui.dropdown(list(cost_quality.PERIODS), value=opened, label="Period", allow_select_none=False)
    chosen = mo.ui.dictionary(
        {name: mo.ui.multiselect(values, label=label) for name, (label, values) in store.options().items()}
    )
    scorer = mo.ui.dropdown(store.scorers, value=store.scorer(defaults.scorer), label="Quality by")
    synthetic = mo.ui.switch(value=defaults.synthetic, label="Show made-up rows")
    return chosen, period, scorer, store, synthetic


@app.cell(hide_code=True)
def _(again, chosen, period, scorer, store, synthetic):
    _above = [period, scorer, *([synthetic] if store.made_up else []), again]
    _rows = [
        mo.hstack(list(_row), justify="start", align="end", wrap=True) for _row in (_above, chosen.elements.values())
    ]
    mo.vstack([store.notice(shown=synthetic.value), *_rows])
    return


@app.cell(hide_code=True)
def _(chosen, period, scorer, script, store, synthetic):
    board = lab.safely(lambda: store.board(period.value, chosen.value, scorer.value, synthetic=synthetic.value))
    mo.stop(not board, board)
    print(board.headline()) if script else None
    board.headline()
    return (board,)


@app.cell(hide_code=True)
def _(board):
    cost, front, waits, quality = (clicks.clickable(_chart) for _chart in board.pictures())
    mo.vstack([mo.hstack(_row, widths="equal") for _row in ([cost, front], [waits, quality])])
    return cost, front, quality, waits


@app.cell(hide_code=True)
def _(board):
    day = mo.ui.dropdown(board.days_with_calls(), label="Day")
    errors = mo.ui.switch(label="Errors only")
    return day, errors


@app.cell(hide_code=True)
def _(board, cost, day, errors, front, quality, waits):
    picked = clicks.Picked.of([cost, front, waits, quality], day=day.value)
    _calls = clicks.rows_table(board.calls(picked, errors=errors.value), "calls")
    _how_many = clicks.extent(board, picked, errors=errors.value)
    _narrowed = mo.hstack([day, errors], justify="start", align="end")
    mo.vstack([mo.md(f"## Calls of {picked}"), _narrowed, _how_many, _calls])
    return


@app.cell(hide_code=True)
def _(board, defaults):
    dollars = mo.ui.number(start=0, step=1, value=defaults.budget, label="Budget of the month, dollars (0: none)")
    models = cost_quality_plans.models_to_mix(board)
    first = mo.ui.dropdown(models, value=models[0] if models else None, label="If")
    second = mo.ui.dropdown(models, value=models[-1] if models else None, label="instead of")
    share = mo.ui.slider(
        0, 100, step=5, value=60, label="took this share of the calls, %", show_value=True, debounce=True
    )
    return dollars, first, models, second, share


@app.cell(hide_code=True)
def _(board, dollars):
    _said, _chart = cost_quality_plans.budget(board, dollars.value or 0)
    mo.vstack([mo.md("## The month's budget"), dollars, _said, _chart])
    return


@app.cell(hide_code=True)
def _(board, first, models, second, share):
    _made = lab.safely(lambda: cost_quality_plans.what_if(board, first.value, second.value, share.value / 100))
    _shown = list(_made) if isinstance(_made, tuple) else [_made]
    mo.vstack(
        [mo.md("## What if"), mo.hstack([first, second, share], justify="start", align="end", wrap=True), *_shown]
    )
    return


@app.cell(hide_code=True)
def _(board):
    _tables = {f"By {name}": (lambda name=name: clicks.rows_table(board.table(name), name)) for name in board.divisions}
    mo.vstack([mo.md("## All numbers"), mo.ui.tabs(_tables, lazy=True)])
    return


if __name__ == "__main__":
    app.run()
