# /// script
# [tool.marimo.display]
# theme = "system"
# ///
import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Index tuning")

with app.setup:
    import marimo as mo

    import workbench as wb
    from workbench.ui import lab, rag, rag_lab


@app.cell(hide_code=True)
def _():
    mo.md("""
    # Index tuning

    **Which way of cutting and searching a corpus finds the evidence, and is it better than the first one you would
    try?** Configurations are chosen on the dev questions; the decision rests on test questions that chose nothing.
    """)
    return


@app.cell(hide_code=True)
def _():
    ws = wb.open(mo.notebook_dir().parent, notebook=__file__)
    script = mo.app_meta().mode == "script"
    defaults = lab.safely(lambda: rag_lab.TuneChoices.from_arguments(mo.cli_args().to_dict()))
    mo.stop(not defaults, defaults)
    corpus_path = mo.ui.text(defaults.corpus, label="Corpus")
    questions = mo.ui.dropdown(ws.datasets(), value=defaults.questions, label="Questions")
    kinds = mo.ui.text(defaults.kinds, label="Chunkers")
    sizes = mo.ui.text(defaults.sizes, label="Sizes (tokens)")
    modes = mo.ui.text(defaults.modes, label="Modes")
    k = mo.ui.number(1, 50, value=defaults.k, label="Passages (k)")
    limit = mo.ui.number(0, 10_000, value=defaults.limit, label="Questions a part (0: all)")
    mo.hstack([corpus_path, questions, kinds, sizes, modes, k, limit], justify="start", wrap=True, gap=1.5)
    return corpus_path, defaults, k, kinds, limit, modes, questions, script, sizes, ws


@app.cell(hide_code=True)
def _(corpus_path, defaults, k, kinds, limit, modes, questions, sizes):
    choices = lab.replace(
        defaults,
        corpus=corpus_path.value,
        questions=questions.value,
        kinds=kinds.value,
        sizes=sizes.value,
        modes=modes.value,
        k=k.value,
        limit=limit.value,
    )
    corpus = lab.safely(lambda: rag_lab.read_corpus(choices))
    mo.stop(not corpus, corpus)
    _long = [found.id for found in corpus.documents if len(found.text) > 3000] or [corpus.documents[0].id]
    document = mo.ui.dropdown([found.id for found in corpus.documents], value=_long[0], label="Document")
    cut = mo.ui.dropdown(["auto", "fixed", "recursive", "markdown", "code"], value="auto", label="Chunker")
    size = mo.ui.slider(32, 512, step=32, value=192, label="Tokens", show_value=True)
    mo.vstack([mo.md("## Chunks on the text"), mo.hstack([document, cut, size], justify="start", gap=1.5)])
    return choices, corpus, cut, document, size


@app.cell(hide_code=True)
def _(corpus, cut, document, size):
    shown = corpus.get(document.value)
    lab.safely(lambda: rag.chunk_view(shown, rag_lab.chunks_of(shown, cut.value, size.value)))
    return


@app.cell(hide_code=True)
def _():
    tune_button = mo.ui.run_button(
        label="Tune", kind="success", tooltip="What was embedded before is not embedded again"
    )
    tune_button
    return (tune_button,)


@app.cell(hide_code=True)
def _(choices, corpus, script, tune_button, ws):
    mo.stop(not (tune_button.value or script), mo.md("Press **Tune** to search the space."))
    result = lab.safely(lambda: rag_lab.run_tuning(ws, choices, corpus))
    mo.stop(not result, result)
    print(result) if script else None
    mo.vstack([mo.md("## Decision"), rag.decision(result)])
    return (result,)


@app.cell(hide_code=True)
def _(result):
    mo.hstack([rag.pareto_plot(result, width=420), rag.measure_bars(result, width=300)], wrap=True, gap=2)
    return


@app.cell(hide_code=True)
def _(result):
    mo.accordion({"All configurations": result, "Test questions, every measure": result.comparison or "one variant"})
    return


@app.cell(hide_code=True)
def _(result):
    picked = mo.ui.dropdown(rag.test_questions(result), label="Question")
    mo.vstack([mo.md("## Question by question"), rag.questions_table(result, limit=8), picked])
    return (picked,)


@app.cell(hide_code=True)
def _(corpus, picked, result):
    rag.drill_down(result, corpus, picked.value) if picked.value else mo.md("Pick a question to see what was found.")
    return


@app.cell(hide_code=True)
def _(choices):
    name = mo.ui.text(choices.questions, label="Name")
    alias = mo.ui.text("staging", label="Alias")
    promote_button = mo.ui.run_button(label="Promote the leader", kind="success")
    mo.vstack([mo.md("## Promote"), mo.hstack([name, alias, promote_button], justify="start", align="end")])
    return alias, name, promote_button


@app.cell(hide_code=True)
def _(alias, name, promote_button, result, ws):
    mo.stop(not promote_button.value, mo.md("The gate says no where the leader did not win."))
    lab.safely(
        lambda: ws.promote(result.run, name.value, variant=result.leader, over=result.baseline, alias=alias.value)
    )
    return


if __name__ == "__main__":
    app.run()
