# /// script
# [tool.marimo.display]
# theme = "system"
#
# [tool.workbench.app]
# summary = "Every artifact: its evidence, lineage and history, what changed between versions, and moving aliases."
# role = "viewer"
# order = 30
# ///
import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Registry")

with app.setup:
    import marimo as mo

    import workbench as wb
    from workbench.ui import experiments_app, header, lab, registry_app
    from workbench.ui import registry_app_moves as moves


@app.cell(hide_code=True)
def _():
    header.titled("""
    # Registry

    **What is in use, why, and since when?** Choose a version: what it rests on, what changed, and who moved it.
    """)
    return


@app.cell(hide_code=True)
def _():
    ws = wb.open(mo.notebook_dir().parent, notebook=__file__)
    kept = {"artifact": lab.safely(lambda: lab.wanted("artifact")), "alias": ""}
    said, say = mo.state(None)
    return kept, said, say, ws


@app.cell(hide_code=True)
def _(kept, said, ws):
    said()
    _found = lab.safely(lambda: registry_app.versions(ws.layout))
    mo.stop(not _found, registry_app.nothing_yet() if _found == () else _found)
    _shown = registry_app.version_table(_found)
    _place = registry_app.place_of(_shown, kept["artifact"])
    table = mo.ui.table(_shown, initial_selection=_place, label="Versions", **experiments_app.TABLE)
    print(_shown) if mo.app_meta().mode == "script" else None
    table
    return (table,)


@app.cell(hide_code=True)
def _(kept, table, ws):
    mo.stop(not len(table.value), mo.md("Choose a version in the table."))
    kept["artifact"] = table.value["artifact"][0]
    artifact = lab.safely(lambda: registry_app.open_version(ws.layout, kept["artifact"]))
    mo.stop(not artifact, artifact)
    label = f"{artifact.name}@{artifact.version}"
    _others = registry_app.others(ws.layout, artifact)
    before = mo.ui.dropdown(_others, value=_others[0] if _others else None, label="Compared with")
    view = mo.ui.tabs(dict.fromkeys([*registry_app.PARTS, "Differences"], ""))
    mo.vstack([mo.md(f"## {label}"), view])
    return artifact, before, label, view


@app.cell(hide_code=True)
def _(artifact, label, said, view, ws):
    said()
    mo.stop(view.value not in registry_app.PARTS)
    with mo.status.spinner(f"Reading {label}"):
        _shown = lab.safely(lambda: registry_app.part(ws, artifact, view.value))
    mo.stop(not _shown, _shown)
    _roomy = [mo.as_html(shown).style(registry_app.room(shown)) for shown in _shown]
    mo.vstack([shown.style({"overflow-x": "auto"}) for shown in _roomy])
    return


@app.cell(hide_code=True)
def _(before, label, view, ws):
    mo.stop(view.value != "Differences")
    mo.stop(not before.value, mo.md("There is no other version."))
    with mo.status.spinner("Comparing the versions"):
        _diff = lab.safely(lambda: registry_app.differences(ws.layout, before.value, label))
    mo.stop(not _diff, mo.vstack([before, _diff]))
    _rows = mo.ui.table(_diff.rows, label="Rows judged differently", **experiments_app.TABLE | {"selection": None})
    mo.vstack([before, _diff.said, _diff.diff, *([_rows] if len(_diff.rows) else [])])
    return


@app.cell(hide_code=True)
def _(artifact, kept, label, ws):
    _roles = moves.own_roles(ws.layout)
    _no = "" if _roles else moves.NO_ROLE
    role = mo.ui.dropdown(_roles, value=_roles[0] if _roles else None, label="As")
    comment = mo.ui.text(label="Comment", placeholder="what you looked at")
    approve_button = mo.ui.run_button(label=f"Approve {label}", disabled=bool(_no), tooltip=_no or None)
    _known = moves.known_aliases(ws.layout, artifact.name)
    alias = mo.ui.dropdown(_known, value=kept["alias"] if kept["alias"] in _known else "staging", label="Alias")
    new_alias = mo.ui.text(label="or a new one", debounce=300)
    ask = mo.ui.run_button(label="Run its tests", tooltip="Runs the commands that the alias's policy names")
    _row = {"justify": "start", "align": "end", "wrap": True, "gap": 1.5}
    _approve = [mo.md("### Approve"), mo.hstack([role, comment, approve_button], **_row), moves.reason(_no)]
    _alias = [mo.md("### Move an alias, or roll it back"), mo.hstack([alias, new_alias], **_row)]
    mo.vstack([*_approve, *_alias])
    return alias, approve_button, ask, comment, new_alias, role


@app.cell(hide_code=True)
def _(approve_button, comment, label, role, say, ws):
    mo.stop(not approve_button.value)
    say(moves.attempt(lambda: moves.approve_version(ws.layout, label, role.value or "", comment.value)))
    return


@app.cell(hide_code=True)
def _(alias, artifact, ask, kept, label, new_alias, said, ws):
    _alias = kept["alias"] = new_alias.value.strip() or alias.value
    offers = lab.safely(lambda: moves.offers(ws.layout, artifact, _alias))
    mo.stop(not offers, offers)
    with mo.status.spinner(f"Asking the policy of {_alias}"):
        _verdict = lab.safely(lambda: moves.policy_verdict(ws.layout, artifact, _alias, run_tests=ask.value))
    _no = [moves.refusal(one) for one in offers]
    move_button = mo.ui.run_button(label=f"Move {_alias} to {label}", disabled=bool(_no[0]), tooltip=_no[0] or None)
    back_button = mo.ui.run_button(label=f"Roll {_alias} back", disabled=bool(_no[1]), tooltip=_no[1] or None)
    _buttons = mo.hstack([*moves.needed(ws.layout, _alias, ask), move_button, back_button], justify="start")
    mo.vstack([*moves.told(said()), _verdict, moves.what_would_happen(offers), _buttons, moves.why_not(offers)])
    return back_button, move_button, offers


@app.cell(hide_code=True)
def _(back_button, label, move_button, offers, say, ws):
    mo.stop(not (move_button.value or back_button.value))
    offer = offers[0] if move_button.value else offers[1]
    sure = mo.ui.run_button(label=f"Yes, {offer.verb}", kind="danger")
    say(moves.attempt(lambda: moves.carry_out(ws.layout, label, offer))) if not offer.confirm else None
    mo.vstack([mo.md(f"**{offer.said}**"), sure]) if offer.confirm else None
    return offer, sure


@app.cell(hide_code=True)
def _(label, offer, say, sure, ws):
    mo.stop(not sure.value)
    say(moves.attempt(lambda: moves.carry_out(ws.layout, label, offer)))
    return


if __name__ == "__main__":
    app.run()
