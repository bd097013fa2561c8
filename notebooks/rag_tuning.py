# /// script
# [tool.marimo.display]
# theme = "system"
#
# [tool.workbench.app]
# summary = "Which index finds the evidence: chunkers, embedders and ways of searching, tuned and decided."
# role = "editor"
# order = 50
# ///
import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Index tuning")

with app.setup:
    import marimo as mo

    import workbench as wb
    from workbench.ui import header, lab, rag, rag_found, rag_lab, rag_modes


@app.cell(hide_code=True)
def _():
    header.titled("""
    # Index tuning

    **Which way of cutting and searching a corpus finds the evidence, and is it better than the first one you would
    try?** Look at the chunks, tune, and click a configuration to see question by question what it finds. It is chosen
    on the dev questions; the decision rests on test questions that chose nothing.
    """)
    return


@app.cell(hide_code=True)
def _():
    ws = wb.open(mo.notebook_dir().parent, notebook=__file__)
    script = mo.app_meta().mode == "script"
    defaults = lab.safely(lambda: rag_lab.TuneChoices.from_arguments(mo.cli_args().to_dict()))
    mo.stop(not defaults, defaults)
    _sets = lab.safely(lambda: rag_lab.question_sets(ws, defaults.questions))
    mo.stop(not _sets, _sets)
    corpus_path = mo.ui.text(defaults.corpus, label="Corpus (name, folder or .jsonl)")
    settings = mo.ui.dictionary(
        {
            "questions": mo.ui.dropdown(_sets, value=defaults.questions, label="Questions"),
            "kinds": mo.ui.multiselect(rag_lab.kinds(), value=rag_lab.words(defaults.kinds), label="Chunkers"),
            "sizes": mo.ui.text(defaults.sizes, label="Chunk sizes (tokens)"),
            "modes": mo.ui.multiselect(rag_lab.modes(), value=rag_lab.words(defaults.modes), label="Search"),
            "k": mo.ui.number(start=1, value=defaults.k, label="Passages (k)"),
            "limit": mo.ui.number(start=0, value=defaults.limit, label="Questions a part (0: all)"),
        }
    )
    mo.hstack([corpus_path, *settings.elements.values()], justify="start", wrap=True, gap=1.5)
    return corpus_path, defaults, script, settings, ws


@app.cell(hide_code=True)
def _(corpus_path):
    corpus = lab.safely(lambda: rag_lab.read_corpus(corpus_path.value))
    mo.stop(not corpus, corpus)
    return (corpus,)


@app.cell(hide_code=True)
def _(corpus, defaults, settings, ws):
    plan = lab.safely(lambda: rag_lab.plan(ws, defaults.with_controls(settings.value), corpus))
    evidence = plan.evidence() if plan else []
    tune_button = mo.ui.run_button(label="Tune", kind="success", disabled=not plan)
    mo.vstack([plan, tune_button])
    return evidence, plan, tune_button


@app.cell(hide_code=True)
def _(corpus, evidence):
    _ids = rag_lab.documents(corpus, evidence)
    document = mo.ui.dropdown(_ids, value=_ids[0], label="Document", allow_select_none=False)
    cut = mo.ui.dropdown(rag_lab.kinds(), value="auto", label="Chunker")
    size = mo.ui.slider(32, 512, step=32, value=192, label="Tokens", show_value=True)
    mo.vstack([mo.md("## Chunks on the text"), mo.hstack([document, cut, size], justify="start", wrap=True, gap=1.5)])
    return cut, document, size


@app.cell(hide_code=True)
def _(corpus, cut, document, evidence, size):
    with mo.status.spinner("Cutting the text"):
        shown = corpus.get(document.value)
        chunked = lab.safely(lambda: rag.chunk_view(shown, rag_lab.chunks_of(shown, cut.value, size.value), evidence))
    chunked
    return


@app.cell(hide_code=True)
def _(corpus, plan, script, tune_button, ws):
    mo.stop(not plan or not (tune_button.value or script), mo.md("## Decision\nPress **Tune** to search the space."))
    result = lab.safely(lambda: rag_lab.run_tuning(ws, plan))
    mo.stop(not result, result)
    print(result) if script else None
    drill = rag_modes.Drill(ws, corpus, result, plan.part(plan.dev))
    plot = mo.ui.altair_chart(rag.configurations_plot(result))
    chosen = mo.ui.dropdown([trial.label for trial in result.trials], label="Configuration")
    _hint = mo.md("Click a point or a bar to look into it, or choose:")
    _row = mo.hstack([_hint, chosen], justify="start", align="center", wrap=True)
    mo.vstack([mo.md("## Decision"), rag.decision(result), plot, _row])
    return chosen, drill, plot, result


@app.cell(hide_code=True)
def _(chosen, drill, plot, result):
    found = lab.safely(lambda: drill.at(rag.picked_label(plot.selections, result, chosen.value)))
    mo.stop(not found, found)
    _row = found.place_of(drill.question)
    table = mo.ui.table(found.frame, initial_selection=[_row], on_change=drill.remember, **rag_modes.TABLE)
    _title = mo.md(f"## Question by question: {found.configuration.label}")
    mo.vstack([_title, rag_found.mode_plot(found), mo.md(found.sentence), table])
    return found, table


@app.cell(hide_code=True)
def _(found, table):
    rag_found.question_view(found, rag_modes.picked_question(table.value))
    return


@app.cell(hide_code=True)
def _(plan, result):
    _decided = {"Test questions that decided it": rag.decisive_questions(result)}
    _every = {"Test questions, every measure": result.comparison or "Only one configuration was tested."}
    _more = mo.accordion({"All configurations": result} | _decided | _every)
    _tested = rag_lab.candidates(result)
    promotion = mo.ui.dictionary(
        {
            "variant": mo.ui.dropdown(_tested, value=_tested[0], label="Configuration"),
            "name": mo.ui.text(plan.corpus.name, label="Name"),
            "alias": mo.ui.text("staging", label="Alias"),
        }
    )
    promote_button = mo.ui.run_button(label="Promote", kind="success")
    _controls = mo.hstack([*promotion.elements.values(), promote_button], justify="start", align="end", wrap=True)
    mo.vstack([_more, mo.md("## Promote"), _controls])
    return promote_button, promotion


@app.cell(hide_code=True)
def _(promote_button, promotion, result, ws):
    verdict = lab.safely(lambda: rag_lab.gate(ws, result, promotion.value["variant"]))
    mo.stop(not promote_button.value, mo.accordion({"What the gate says": verdict}))
    with mo.status.spinner("Promoting: the index is packed and read back"):
        promoted = lab.safely(lambda: rag_lab.promote(ws, result, **promotion.value))
    promoted
    return


if __name__ == "__main__":
    app.run()
