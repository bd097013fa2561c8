# /// script
# [tool.marimo.display]
# theme = "system"
#
# [tool.workbench.app]
# summary = "All apps, and the state of the workspace."
# role = "viewer"
# order = 0
# ///
import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Home")

with app.setup:
    import marimo as mo

    import workbench as wb
    from workbench.ui import header, home, lab


@app.cell(hide_code=True)
def _():
    ws = wb.open(mo.notebook_dir().parent, notebook=__file__)
    _who = lab.safely(header.who)
    mo.hstack([mo.md(f"# {ws.layout.settings.name}"), _who], justify="space-between", align="center", wrap=True)
    return (ws,)


@app.cell(hide_code=True)
def _(ws):
    lab.safely(lambda: home.gallery(ws.layout))
    return


@app.cell(hide_code=True)
def _(ws):
    with mo.status.spinner("Looking at the workspace"):
        state = lab.safely(lambda: home.state_of(ws.layout))
    mo.stop(not state, state)
    print(home.as_text(ws.layout, state)) if mo.app_meta().mode == "script" else None
    mo.vstack([mo.md("## State of the workspace"), home.numbers(state)])
    return (state,)


@app.cell(hide_code=True)
def _(state):
    _calls = mo.vstack([home.calls_chart(state), mo.accordion({"Calls by day": home.calls_table(state)})])
    _lists = mo.vstack([home.newest_versions(state), home.newest_runs(state)])
    mo.hstack([_calls, _lists], widths="equal", wrap=True, gap=2)
    return


@app.cell(hide_code=True)
def _(state):
    home.troubles(state)
    return


if __name__ == "__main__":
    app.run()
