"""Presets: `policy presets`, `policy test`, `run --preset`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from lab import plan
from lab.internet import Internet
from lab.sandgate import Sandgate
from lab.tool import tool

POLICIES = Path(__file__).resolve().parents[2] / "policies"
NAMES = sorted(path.stem for path in POLICIES.glob("*.yaml"))


def test_presets_are_listed_with_what_they_are_for() -> None:
    done = tool("policy", "presets")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    assert all(len(line.split()) > 4 and line.endswith(".") for line in lines)


def test_presets_are_listed_for_programs() -> None:
    done = tool("policy", "presets", "--json")
    listed = json.loads(done.stdout)
    assert [sorted(one) for one in listed] == [["name", "summary"]] * len(NAMES)
    shown = [line.split(maxsplit=1) for line in tool("policy", "presets").stdout.splitlines()]
    assert [[one["name"], one["summary"]] for one in listed] == shown
    wrong = tool("policy", "presets", "github", "--json")
    assert wrong.returncode == 64 and "--json is for the list" in wrong.stderr and not wrong.stdout, wrong


@pytest.mark.parametrize("name", NAMES)
def test_preset_is_its_file_and_does_what_is_expected(name: str) -> None:
    printed = tool("policy", "presets", name)
    assert printed.stdout == (POLICIES / f"{name}.yaml").read_text()
    done = tool("policy", "test", POLICIES / f"{name}.yaml")
    assert done.returncode == 0 and "expectations met" in done.stdout, done.stderr
    assert tool("policy", "check", POLICIES / f"{name}.yaml").stderr == ""


def test_unknown_preset_names_those_there_are() -> None:
    done = tool("policy", "presets", "githup")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith('sandgate: no preset "githup": expected one of claude-code, codex, ')
    assert done.stderr.endswith("; did you mean github?\n")
    for written, meant in (("githup", "github"), ("claude", "claude-code"), ("Node_Install", "node-install"), ("curl", None)):
        said = tool("run", "--preset", written, "--", "true")
        assert said.returncode == 125 and said.stderr.endswith(f"; did you mean {meant}?\n") == bool(meant), said


POLICY = """\
networkPolicy:
  egress:
    - {action: allow, target: "*.example.com", ports: [443]}
    - {action: allow, target: 10.1.0.0/16}
"""


def test_expectations_beside_the_policy(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY + "expect:\n  allow: [a.example.com, '10.1.2.3:22']\n  deny:\n    - a.example.com:80\n")
    done = tool("policy", "test", path)
    assert (done.returncode, done.stdout) == (0, f"{path}: 3 expectations met\n")
    assert tool("policy", "test", "--quiet", path).stdout == ""
    assert tool("policy", "test", "-", stdin=path.read_text()).stdout == "<stdin>: 3 expectations met\n"


def test_expectations_in_a_file_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "policy.expect.yaml").write_text("allow: [a.example.com]\ndeny:\n  - a.example.com\n  - example.com\n")
    done = tool("policy", "test", tmp_path / "policy.yaml")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"{tmp_path}/policy.expect.yaml:3: expected to deny a.example.com: "
        "allowed by egress[0] allow *.example.com (rule)\n"
    )
    judged = json.loads(tool("policy", "test", "--json", tmp_path / "policy.yaml").stdout)
    assert [(one["destination"], one["expected"], one["verdict"], one["met"]) for one in judged] == [
        ("a.example.com", "allow", "allow", True),
        ("a.example.com", "deny", "allow", False),
        ("example.com", "deny", "deny", True),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (POLICY, "no expectations"),
        (POLICY + "expect: {permit: []}\n", ":5:10: expect.permit: unknown key"),
        ("networkPolicy: {egres: []}\nexpect: {deny: [a.example]}\n", "egres"),
    ],
)
def test_what_cannot_be_tested_says_why(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    done = tool("policy", "test", path)
    assert done.returncode == 1 and message in done.stderr, done.stderr


def curl(name: str) -> list[str]:
    return ["curl", "-sS", "-o", "/dev/null", "--max-time", "10", f"https://{name}/"]


def test_run_with_a_preset_refuses_what_is_not_in_it(internet: Internet, sandgate: Sandgate) -> None:
    run = sandgate.run(None, *curl(plan.ALLOWED), options=["--preset", "github", "--preset", "codex"])
    assert run.returncode == 6, run
    assert run.audit.denied("dns", host=plan.ALLOWED), run


def test_run_with_presets_beside_other_rules(internet: Internet, sandgate: Sandgate) -> None:
    options = ["--preset", "deny-all", "--preset", "github", "--allow", plan.ALLOWED]
    run = sandgate.run(None, *curl(plan.ALLOWED), options=options)
    assert run.returncode == 0, run


def test_the_files_rules_stand_before_a_presets(internet: Internet, sandgate: Sandgate) -> None:
    policy = "egress:\n  - {action: deny, target: github.com}\n"
    run = sandgate.run(policy, "getent", "hosts", "github.com", options=["--preset", "github"])
    assert run.returncode == 2, run
    (denied,) = {json.dumps(record["rule"]) for record in run.audit.denied("dns", host="github.com")}
    assert json.loads(denied) == {"index": 0, "action": "deny", "target": "github.com"}, run


@pytest.mark.parametrize(
    ("policy", "name", "message"),
    [(None, "nothing", 'no preset "nothing"'), ("defaultAction: allow\n", "deny-all", "--preset has no effect")],
)
def test_a_preset_that_cannot_be_starts_nothing(
    internet: Internet, sandgate: Sandgate, tmp_path: Path, policy: str | None, name: str, message: str
) -> None:
    mark = tmp_path / "started"
    run = sandgate.run(policy, "touch", str(mark), options=["--preset", name])
    assert run.returncode == 125 and message in run.stderr, run
    assert not mark.exists()


def test_an_audit_is_held_against_another_policy(internet: Internet, sandgate: Sandgate, tmp_path: Path) -> None:
    before = f"egress:\n  - {{action: allow, target: {plan.ALLOWED}, ports: [443]}}\n"
    line, audit = sandgate.command(before, ["sh", "-c", f"curl -sS https://{plan.ALLOWED}/; getent hosts {plan.DENIED}; true"])
    subprocess.run(line, env=internet.environment(), capture_output=True, timeout=60, check=True)
    same = sandgate.policy_file(before)
    done = tool("policy", "test", same, "--audit", audit)
    assert done.returncode == 0 and "expectations met" in done.stdout, done
    other = sandgate.policy_file(f"egress:\n  - {{action: allow, target: {plan.DENIED}}}\n")
    done = tool("policy", "test", other, "--audit", audit)
    assert (done.returncode, done.stdout) == (1, "")
    was = "443/tcp was allowed, and would be denied (default)"
    assert f"{plan.ALLOWED} at " in done.stderr and was in done.stderr, done
    assert f"the query for {plan.DENIED} was denied, and would be allowed" in done.stderr, done
    assert tool("policy", "test", same, "--audit", tmp_path / "none.jsonl").returncode == 1
