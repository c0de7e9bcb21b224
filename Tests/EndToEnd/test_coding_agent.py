"""A coding agent starts under deny-all, and gets to the least policy as any other tool does (test_first_policies.py)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import plan
from lab.coding_agent import PRICES, coding_agent
from lab.first_work import FirstWork, from_denials_to_the_least_policy, learned_policy_is_the_least_one, what_to_type
from lab.internet import Internet
from lab.sandgate import Sandgate
from lab.suggestions import lines_of, rule
from lab.tool import tool


@pytest.fixture
def agent(internet: Internet, tmp_path: Path) -> Iterator[FirstWork]:
    with coding_agent(internet, tmp_path) as work:
        yield work


def test_from_denials_to_the_least_policy(
    internet: Internet, sandgate: Sandgate, agent: FirstWork, tmp_path: Path
) -> None:
    """First its model, then what the model tells it to do."""
    from_denials_to_the_least_policy(internet, sandgate, agent, tmp_path / "policy.yaml")


def test_learned_policy_is_the_least_one_at_once(sandgate: Sandgate, agent: FirstWork, tmp_path: Path) -> None:
    learned_policy_is_the_least_one(sandgate, agent, tmp_path / "policy.yaml")


def test_what_it_asks_for_by_itself_is_marked(sandgate: Sandgate, agent: FirstWork, tmp_path: Path) -> None:
    """The agent looks for prices at a host of everybody's files, and does without: the line is there to be left out."""
    environment = {**agent.impatient, "LITELLM_LOCAL_MODEL_COST_MAP": ""}
    run = sandgate.run(None, *agent.command, environment=environment)
    assert run.returncode != 0 and f"sandgate: denied {PRICES} (dns, default)" in run.stderr, run
    policy = tmp_path / "policy.yaml"
    assert tool(*what_to_type(run), "-o", policy).returncode == 0
    written = policy.read_text()
    assert sorted(lines_of(written)) == sorted([rule(PRICES), rule(plan.MODEL)])
    before = written[: written.index(rule(PRICES))].splitlines()
    assert "review: " in before[-1] + before[-2], written
    less = written.replace(rule(PRICES), rule(plan.GIT))
    works = sandgate.run(less, *agent.command, environment=environment)
    assert works.returncode == 0 and agent.greeting in works.stdout, works
