"""Policy files: what may be in them, and what is used where none is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.errors import DataError, NotFoundError
from workbench.registry.policy import DEFAULT_POLICY, Guard, Policy, find_policy
from workbench.workspace import Layout

SHIPPED = Path(__file__).parents[2] / "policies" / "default.toml"


def test_the_shipped_policy_is_the_built_in_one() -> None:
    assert Policy.from_file(SHIPPED) == DEFAULT_POLICY
    assert Policy.from_file(SHIPPED).digest == DEFAULT_POLICY.digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[decision]\nminimun = 'better'", r"decision\.minimun"),
        ("[decision]\nminimum = 'best'", r"decision\.minimum"),
        ("[decision]\nminimum = 'equivalent'", "needs a margin"),
        ("[decision]\nminimum = 'equivalent'\nmargin = 0", r"decision\.margin"),
        ("[decision]\nmin_rows = 0", r"decision\.min_rows"),
        ("[[guard]]\nmetric = 'latency_s'", "has no bound"),
        ("[[guard]]\nmetric = 'error_rate'\nstatistic = 'p95'\nmax = 1", "only a mean"),
        ("[[guard]]\nmetric = 'latency_s'\nmax = nan", r"guard\.0\.max"),
        ("[evidence]\nrequired = ['luck']", r"evidence\.required\.0"),
        ("[evidence]\ncomplete = false", r"evidence\.complete"),
        ("format_version = 2", "format_version"),
        ("[decision", "not TOML"),
    ],
)
def test_mistakes_are_refused_with_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"policy\.toml: .*{message}"):
        Policy.from_file(path)


def test_the_workspace_policy_comes_before_the_built_in_one(layout: Layout, tmp_path: Path) -> None:
    assert find_policy(layout) == DEFAULT_POLICY
    layout.policies.mkdir()
    (layout.policies / "default.toml").write_text("[[guard]]\nmetric = 'cost_usd'\nmax = 1.0")
    assert find_policy(layout).guard == (Guard(metric="cost_usd", max=1.0),)
    other = tmp_path / "other.toml"
    other.write_text("[decision]\nmin_rows = 7")
    assert find_policy(layout, other).decision.min_rows == 7
    assert find_policy(layout, DEFAULT_POLICY) is DEFAULT_POLICY


def test_a_policy_that_is_named_must_exist(layout: Layout) -> None:
    with pytest.raises(NotFoundError, match=r"no policy file strict\.toml"):
        find_policy(layout, "strict.toml")
