"""What people do in the registry: approve a version, move an alias, roll it back. What would happen is said before.

Whoever may not is told why beside a button that does not work; the registry's own functions refuse all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from workbench import access
from workbench.errors import AccessDenied, DataError, GateRefused, UsageError
from workbench.html import callout, escape
from workbench.registry import names
from workbench.registry.aliases import check_alias_move, move_alias, roll_back
from workbench.registry.approvals import approve
from workbench.registry.policy import DEFAULT_FILE, alias_policy
from workbench.ui.lab import Html, Problem, safely

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from workbench.registry.artifact import Artifact
    from workbench.workspace import Layout

# Aliases that a move to is asked twice about.
CONFIRMED = ("prod", "production")
USUAL = ("staging", "prod")
NO_ROLE = "You are named in no role of [roles] in workbench.toml, so you cannot approve."


@dataclass(frozen=True)
class Offer:
    """What can be done with an alias now.

    Attributes:
        now: the version that it points at; None for nowhere.
        to: the version that it would point at; None where nothing can be done.
        said: what would happen, or why nothing can, in a sentence.
    """

    kind: Literal["move", "rollback"]
    alias: str
    now: int | None
    to: int | None
    said: str

    @property
    def confirm(self) -> bool:
        """Whether it is asked twice."""
        return self.kind == "rollback" or self.alias in CONFIRMED

    @property
    def verb(self) -> str:
        return f"move {self.alias}" if self.kind == "move" else f"roll {self.alias} back"


def known_aliases(layout: Layout, name: str) -> list[str]:
    """Aliases to choose from: those of the artifact, those that have a policy, and the usual ones."""
    policies = layout.policies.glob("*.toml") if layout.policies.is_dir() else ()
    written = {path.stem for path in policies if path.name != DEFAULT_FILE}
    own = {alias for entry in names.ls(layout, name) for alias in entry.aliases}
    return sorted({*written, *own, *USUAL})


def own_roles(layout: Layout) -> list[str]:
    """The roles of `[roles]` in workbench.toml in which whoever acts is named, and may approve."""
    who = access.current().name
    return sorted(role for role, people in layout.settings.roles.items() if who in people)


def approve_version(layout: Layout, reference: str, role: str, comment: str) -> Html:
    """Approve a version in the name of whoever acts.

    Raises:
        UsageError, NotFoundError: they have not the role, or there is no such version.
    """
    found = approve(layout, reference, role, comment=comment.strip())
    return Html(callout(f"{access.current().name} approved {found.name}@{found.version} as {role}.", "ok"))


def offers(layout: Layout, artifact: Artifact, alias: str | None) -> tuple[Offer, Offer]:
    """What moving an alias to a version, and rolling it back, would do.

    Raises:
        UsageError: the alias is missing or malformed.
    """
    if not alias:
        raise UsageError("no alias is chosen", hint="Choose one, or name a new one.")
    names.check_alias(alias)
    now = names.alias_version(layout, artifact.name, alias)
    where = f"{alias} points nowhere yet" if now is None else f"{alias} points at version {now}"
    if now == artifact.version:
        move = Offer("move", alias, now, None, f"{where} already.")
    else:
        move = Offer("move", alias, now, artifact.version, f"{where}; moved, it points at version {artifact.version}.")
    if now is None:
        return move, Offer("rollback", alias, now, None, f"{alias} points nowhere, so there is nothing to roll back.")
    trail = names.trail_of(move for move in names.history(layout, artifact.name) if move.alias == alias)
    if len(trail) < 2:
        said = f"{alias} has never pointed anywhere else, so it cannot be rolled back."
        return move, Offer("rollback", alias, now, None, said)
    back = f"Rolled back, {alias} goes from version {trail[-1]} to version {trail[-2]}."
    return move, Offer("rollback", alias, now, trail[-2], back)


def what_would_happen(found: Sequence[Offer]) -> Html:
    """What each offer would do, or why nothing can be done, in a sentence each."""
    return Html(f"<p>{' '.join(escape(offer.said) for offer in found)}</p>")


def why_not(found: Sequence[Offer]) -> Html:
    """Why buttons do not work, but for what `what_would_happen` says already."""
    return reason(*(text for offer in found if (text := refusal(offer)) != offer.said))


def refusal(offer: Offer) -> str:
    """Why whoever acts cannot do what is offered; empty where they can try."""
    try:
        access.require("editor", offer.verb)
    except AccessDenied as error:
        return str(error)
    return "" if offer.to is not None else offer.said


def reason(*texts: str) -> Html:
    """Why buttons beside it do not work; nothing where they do."""
    lines = "".join(f"<div>{escape(text)}</div>" for text in dict.fromkeys(texts) if text)
    return Html(f"<div style='opacity:.8;font-size:.9em'>{lines}</div>")


def policy_verdict(layout: Layout, artifact: Artifact, alias: str, *, run_tests: bool = False) -> Html:
    """What the policy of an alias says of a version, check by check; nothing is moved or recorded.

    Args:
        run_tests: whether a policy that runs commands is evaluated too: that takes an editor, and time.

    Raises:
        DataError: the policy is malformed.
        IntegrityError: the version's evidence is damaged.
        AccessDenied: tests are to run, and who is signed in is no editor.
    """
    policy = alias_policy(layout, alias)
    if policy is None:
        return Html(callout(f"{alias} has no policy (policies/{alias}.toml): it takes any version.", "info"))
    if policy.test:
        if not run_tests:
            tests = ", ".join(test.name for test in policy.test)
            return Html(callout(f"The policy of {alias} runs commands ({tests}); its verdict waits for them.", "info"))
        access.require("editor", "run the tests of a policy")
    found = names.resolve(layout, f"{artifact.name}@{artifact.version}")
    return Html(check_alias_move(layout, found, alias, policy)._repr_html_())


def needed(layout: Layout, alias: str, button: Any) -> list[Any]:
    """The button that runs tests where the policy of an alias has any."""
    try:
        policy = alias_policy(layout, alias)
    except DataError:  # told where the verdict is
        return []
    return [button] if policy is not None and policy.test else []


def carry_out(layout: Layout, reference: str, offer: Offer) -> Html:
    """Do what was offered, in the name of whoever acts.

    Args:
        reference: the version that an alias is moved to.

    Raises:
        AccessDenied: who is signed in is no editor.
        GateRefused: by the policy of the alias, or because the version that it would go back to is damaged or unsigned.
        UsageError: nothing was offered, or the alias was moved since.
    """
    who = access.require("editor", offer.verb)
    name = reference.partition("@")[0]
    if offer.to is None:
        raise UsageError(offer.said.rstrip("."), hint="Choose another version or alias.")
    if offer.kind == "move":
        now = names.alias_version(layout, name, offer.alias)
        if now != offer.now:
            raise UsageError(
                f"{name}@{offer.alias} points at version {now} by now, not at {offer.now}: somebody moved it",
                hint="Look again.",
            )
        found = move_alias(layout, reference, offer.alias)
        return Html(callout(f"{who.name} moved {offer.alias} to {found.name}@{found.version}.", "ok"))
    found = roll_back(layout, name, offer.alias, was=offer.now)
    return Html(callout(f"{who.name} rolled {offer.alias} back to {found.name}@{found.version}.", "ok"))


def attempt(work: Callable[[], Html]) -> Html | Problem:
    """What came of an action, to be shown: done, the reasons of a refusal one a line, or the error."""

    def refusing() -> Html:
        try:
            return work()
        except GateRefused as error:
            reasons = "".join(f"<li>{escape(reason)}</li>" for reason in error.reasons)
            return Html(f"{callout('Refused, and the refusal is on record.', 'bad')}<ul>{reasons}</ul>")

    return safely(refusing)


def told(said: Html | Problem | None) -> list[Html | Problem]:
    """What came of the last action, where there was one."""
    return [] if said is None else [said]
