# /// script
# [tool.marimo.display]
# theme = "system"
#
# [tool.workbench.app]
# summary = "Every run: what it decided, which rows differ, where it came from, and any two side by side."
# role = "viewer"
# order = 20
# ///
import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Experiments")

with app.setup:
    import marimo as mo

    import workbench as wb
    from workbench.html import counted
    from workbench.ui import charts, experiments_app, experiments_app_run, header, lab


@app.cell(hide_code=True)
def _():
    header.titled("""
    # Experiments

    **What was tried, and what came of it?** Find a run, choose it in the table, and read what it decided.
    """)
    return


@app.cell(hide_code=True)
def _():
    ws = wb.open(mo.notebook_dir().parent, notebook=__file__)
    script = mo.app_meta().mode == "script"
    wanted = lab.safely(lambda: lab.wanted("run"))
    again = mo.ui.run_button(label="Look again", tooltip="Read the runs anew")
    return again, script, wanted, ws


@app.cell(hide_code=True)
def _(again, ws):
    again.value
    with mo.status.spinner("Reading the runs"):
        runs = lab.safely(lambda: experiments_app.find_runs(ws.layout))
    mo.stop(not runs, runs)
    text = mo.ui.text(label="Search", placeholder="experiment, model, variant …", debounce=300)
    dataset = mo.ui.dropdown(runs.datasets, label="Data set")
    state = mo.ui.dropdown(experiments_app.STATES, label="State")
    _controls = mo.hstack([text, dataset, state, again], justify="start", align="end", wrap=True, gap=1.5)
    mo.vstack([_controls, mo.Html(runs.notice)] if runs.problems else [_controls])
    return dataset, runs, state, text


@app.cell(hide_code=True)
def _(dataset, runs, script, state, text, wanted, ws):
    mo.stop(not runs.ids, experiments_app.nothing_yet())
    found = experiments_app.search(runs, text.value, dataset=dataset.value, state=state.value)
    with mo.status.spinner("Deciding"):
        shown = experiments_app.run_table(ws.layout, found)
    _first = experiments_app.place_of(shown, wanted, script)
    _label = f"{len(shown)} of {counted(len(runs.ids), 'run')}"
    table = mo.ui.table(shown, initial_selection=_first, label=_label, **experiments_app.RUN_TABLE)
    print(shown, *runs.problems.items(), sep="\n") if script else None
    table if len(shown) else experiments_app.no_match()
    return (table,)


@app.cell(hide_code=True)
def _(runs, table, ws):
    mo.stop(not len(table.value), mo.md("Choose a run in the table to open it."))
    _id = table.value["run"][0]
    run = lab.safely(lambda: experiments_app.open_run(ws.layout, runs, _id))
    mo.stop(not run, run)
    with mo.status.spinner("Comparing"):
        _decision = lab.safely(lambda: experiments_app_run.conclusion(run))
    mo.stop(not _decision, _decision)
    mo.vstack([experiments_app_run.heading(run), _decision])
    return (run,)


@app.cell(hide_code=True)
def _(run):
    mo.stop(len(run.manifest.variants) < 2)
    comparison = experiments_app.compared(run)
    _names = comparison.variants
    variant = mo.ui.dropdown(_names, value=_names[0], label="Variant", allow_select_none=False)
    change = mo.ui.radio({"all": "all", "fixed": "fixed", "broken": "broke"}, value="all", inline=True, label="Rows")
    _pictures = [charts.difference_plot(comparison, width=340), charts.cost_quality(run, comparison, width=280)]
    mo.hstack(_pictures, justify="start", wrap=True, gap=2)
    return change, comparison, variant


@app.cell(hide_code=True)
def _(change, comparison, variant):
    _which = [variant, change] if len(comparison.variants) > 1 else [change]
    _title = mo.md(f"### Rows answered differently from {comparison.baseline}")
    _rows = lab.safely(lambda: experiments_app_run.differing(comparison, variant.value, change.value))
    mo.vstack([_title, mo.hstack(_which, justify="start", gap=1.5), _rows])
    return


@app.cell(hide_code=True)
def _(run, ws):
    _numbers = {"All numbers": experiments_app.compared(run)} if len(run.manifest.variants) > 1 else {}
    _origin = lab.safely(lambda: experiments_app_run.origin(ws.layout, run))
    mo.vstack([mo.md("### Where it comes from"), _origin, mo.accordion({**_numbers, "By variant": run})])
    return


@app.cell(hide_code=True)
def _(run, runs):
    _others = experiments_app.labels(runs.rows, without=[run.id], first=run.manifest.dataset)
    mo.stop(not _others, mo.md("There is no other run to compare it with."))
    other = mo.ui.dropdown(_others, label="Earlier run", searchable=True)
    _own = list(run.manifest.variants)
    mine = mo.ui.dropdown(_own, value=_own[-1], label="Variant of this run")
    mo.vstack([mo.md("### Beside another run"), mo.hstack([mine, other], justify="start", wrap=True, gap=1.5)])
    return mine, other


@app.cell(hide_code=True)
def _(mine, other, runs, ws):
    mo.stop(not (other.value and mine.value))
    earlier = lab.safely(lambda: experiments_app.open_run(ws.layout, runs, other.value))
    mo.stop(not earlier, earlier)
    _names = list(earlier.manifest.variants)
    theirs = mo.ui.dropdown(_names, value=mine.value if mine.value in _names else _names[-1], label="Its variant")
    theirs
    return earlier, theirs


@app.cell(hide_code=True)
def _(earlier, mine, run, theirs):
    mo.stop(not theirs.value)
    with mo.status.spinner("Comparing the two runs"):
        _across = lab.safely(lambda: experiments_app_run.across(run, earlier, mine.value, theirs.value))
    mo.stop(not _across, _across)
    _picture = charts.difference_plot(_across.comparison, width=520)
    _rows = lab.safely(lambda: experiments_app_run.differing(_across.comparison, _across.comparison.variants[0]))
    _more = mo.accordion({"All numbers": _across.comparison, "Rows answered differently": _rows})
    mo.vstack([experiments_app_run.shared_note(_across), _picture, _more])
    return


if __name__ == "__main__":
    app.run()
