"""Answers for always: rules in a file of the operator's, in force for whoever asks, and for nobody else."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import plan
from lab.asking import answer, asking, curl, listed, question, questions, said
from lab.daemon import Daemon, running
from lab.internet import Internet
from lab.processes import wait_until
from lab.tool import tool

NOBODY = {"defaultAction": "deny"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    directory = tmp_path / "answers"
    directory.mkdir()
    return directory / "answers.yaml"


@pytest.fixture
def daemon(internet: Internet, tmp_path: Path, file: Path) -> Iterator[Daemon]:
    (tmp_path / "config.yaml").write_text(f"answers: {file}\n")
    with running(internet, tmp_path, "--config", str(tmp_path / "config.yaml")) as made:
        yield made


def test_always_holds_for_whoever_asks(internet: Internet, daemon: Daemon, file: Path) -> None:
    """Now and later, in this sandbox and others, but not against a rule, and not where nobody is asked."""
    first, second = asking(daemon, NOBODY), asking(daemon, NOBODY)
    refusing = asking(daemon, {"egress": [{"action": "deny", "target": plan.DENIED}]})
    silent = daemon.create(NOBODY)
    waiting = curl(first, plan.DENIED)
    done = answer(first, question(first, plan.DENIED), "always")
    assert f"served {plan.DENIED}" in said(waiting)
    # It is no rule of the sandbox's.
    assert done["rule"]["target"] == plan.DENIED and done["revision"] == 1
    assert first.ask("GET", "/policy").json["policy"]["egress"] == []
    assert second.reaches(plan.DENIED) and asking(daemon, NOBODY).reaches(plan.DENIED)
    assert not refusing.reaches(plan.DENIED) and not silent.reaches(plan.DENIED)
    (rule,) = listed(file)
    assert (rule.target, rule.ports) == (plan.DENIED, [80, 443]) and rule.comment.endswith("allowed by alice (uid 0)")
    assert file.stat().st_mode & 0o777 == 0o600
    assert daemon.request("GET", "/v1/policies/always").json["answers"] == [done["rule"]]
    told = [one for one in daemon.records(sandbox=first.id) if one["event"] == "question.answered"]
    assert [one["detail"] for one in told] == ["allow for always, by alice (uid 0)"]
    allowed = [one for one in daemon.records(sandbox=second.id) if one["event"] == "connection.allowed"]
    assert allowed and allowed[-1]["rule"]["source"] == "answers"
    # Explained as it is judged.
    for sandbox, verdict in ((second, "allow"), (silent, "deny")):
        body = {"sandbox": sandbox.id, "host": plan.DENIED}
        assert daemon.request("POST", "/v1/policies/explain", body).json["verdict"] == verdict
    done_by_hand = tool("policy", "explain", "--answers", file, "--host", plan.DENIED, "-", stdin="{}")
    assert done_by_hand.returncode == 0 and "answers[0]" in done_by_hand.stdout, done_by_hand
    daemon.restart()
    assert second.reaches(plan.DENIED) and not silent.reaches(plan.DENIED)


def test_a_line_taken_away_is_asked_again(daemon: Daemon, file: Path) -> None:
    """People edit the file; what they write stays where answers add to it."""
    sandbox = asking(daemon, NOBODY)
    for name in (plan.DENIED, plan.OTHER):
        waiting = curl(sandbox, name)
        answer(sandbox, question(sandbox, name), "always")
        assert f"served {name}" in said(waiting)
    lines = [line for line in file.read_text().splitlines() if plan.DENIED not in line]
    file.write_text("\n".join([*lines, "    # alice looks after these"]))
    waiting = curl(sandbox, "again.example")
    wait_until(lambda: len(daemon.request("GET", "/v1/policies/always").json["answers"]) == 1, "the file to be read")
    assert sandbox.reaches(plan.OTHER)
    denied = curl(sandbox, plan.DENIED)
    answer(sandbox, question(sandbox, plan.DENIED), "deny")
    assert "served" not in said(denied)
    answer(sandbox, question(sandbox, "again.example"), "always", ports=[8443])
    waiting.kill()
    waiting.communicate()
    assert "# alice looks after these" in file.read_text()
    assert [(rule.target, rule.ports) for rule in listed(file)] == [
        (plan.OTHER, [80, 443]), ("again.example", [8443]),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("networkPolicy:\n  egress:\n", None),
        ("egress: []\n", "a line at its end would not be a rule"),
        ("egress: [{action: allow, target: other.example}]\n", "a line at its end would not be a rule"),
        ("egress:\n- {action: allow, target: other.example}\n", "a line at its end would not be a rule"),
        ("networkPolicy:\n  egress:\n    - {action: allow, target: other.exam", "answers.yaml:3"),
    ],
)
def test_files_that_cannot_be_continued(daemon: Daemon, file: Path, text: str, problem: str | None) -> None:
    """The answer is refused, whoever waits goes on waiting, and the file is as it was."""
    sandbox = asking(daemon, NOBODY)
    waiting = curl(sandbox, plan.DENIED)
    asked = question(sandbox, plan.DENIED)
    file.write_text(text)
    said_of_it = sandbox.ask("POST", f"/questions/{asked['question']}", {"answer": "always"})
    if problem is None:
        assert said_of_it.status == 200 and f"served {plan.DENIED}" in said(waiting)
        assert [rule.target for rule in listed(file)] == [plan.DENIED]
        return
    assert said_of_it.status == 503 and problem in said_of_it.json["message"], said_of_it
    assert file.read_text() == text
    assert [one["host"] for one in questions(sandbox)] == [plan.DENIED]
    answer(sandbox, asked, "once")
    assert f"served {plan.DENIED}" in said(waiting)
    assert not asking(daemon, NOBODY, seconds=1).reaches(plan.DENIED)


def test_a_full_disk_allows_nothing(internet: Internet, tmp_path: Path, file: Path) -> None:
    """Half a line on the disk is none: it is taken back."""
    (tmp_path / "config.yaml").write_text(f"answers: {file}\n")
    with running(internet, tmp_path, "--config", str(tmp_path / "config.yaml")) as daemon:
        sandbox = asking(daemon, NOBODY)
        before = file.read_text()
        waiting = curl(sandbox, plan.DENIED)
        asked = question(sandbox, plan.DENIED)
        # No file may be longer than what is there and a few bytes more (setrlimit(2)); SIGXFSZ is ignored by the daemon.
        limits = resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (len(before) + 20, limits[1]))
        refused = sandbox.ask("POST", f"/questions/{asked['question']}", {"answer": "always"})
        resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, limits)
        assert refused.status == 503 and str(file) in refused.json["message"], refused
        assert file.read_text() == before
        assert [one["host"] for one in questions(sandbox)] == [plan.DENIED]
        answer(sandbox, asked, "always")
        assert f"served {plan.DENIED}" in said(waiting)


def test_without_a_file_nothing_is_for_always(internet: Internet, tmp_path: Path) -> None:
    with running(internet, tmp_path) as daemon:
        sandbox = asking(daemon, NOBODY)
        waiting = curl(sandbox, plan.DENIED)
        asked = question(sandbox, plan.DENIED)
        refused = sandbox.ask("POST", f"/questions/{asked['question']}", {"answer": "always"})
        assert refused.status == 422 and refused.json["details"][0]["path"] == "answer", refused
        refused = sandbox.ask("POST", f"/questions/{asked['question']}", {"answer": "always", "ttl": "10m"})
        assert refused.status == 400 and refused.json["details"][0]["path"] == "ttl", refused
        answer(sandbox, asked, "deny")
        assert "served" not in said(waiting)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("egress: [{action: deny, target: other.example}]", "egress[0].action: expected allow"),
        ("egress: [{action: allow, target: 192.0.2.0/24}]", "egress[0].target: expected a name"),
        ("defaultAction: allow", "expected nothing but an egress list"),
        ("egress: [{action: allow, target: other..example}]", "answers.yaml:1"),
    ],
)
def test_files_that_are_none_of_answers(tmp_path: Path, file: Path, text: str, problem: str) -> None:
    file.write_text(text + "\n")
    (tmp_path / "config.yaml").write_text(f"answers: {file}\nstateDir: {tmp_path}/state\nauditDir: {tmp_path}/audit\n")
    for refused in (
        tool("serve", "--config", tmp_path / "config.yaml", "--socket", tmp_path / "api.sock"),
        tool("run", "--ask-command", "true", "--answers", file, "--", "true"),
    ):
        assert refused.returncode in (1, 125) and problem in refused.stderr, refused


def test_commands(daemon: Daemon, file: Path) -> None:
    sandbox = asking(daemon, NOBODY)
    waiting = curl(sandbox, plan.DENIED)
    asked = question(sandbox, plan.DENIED)
    done = tool("answer", "--socket", daemon.socket, sandbox.id, str(asked["question"]), "always", "--by", "bob")
    assert done.returncode == 0 and done.stdout == f"{plan.DENIED} is allowed for always: a rule is in the daemon's file of answers\n"
    assert f"served {plan.DENIED}" in said(waiting)
    assert "allowed by bob" in file.read_text()
