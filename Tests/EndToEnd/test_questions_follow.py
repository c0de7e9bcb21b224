"""`sandgate questions --follow`: a person answers a daemon's questions in a terminal, as they come."""

from __future__ import annotations

import contextlib
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import plan
from lab.asking import answer, asking, curl, listed, question, questions, said
from lab.daemon import Daemon, Sandbox, running
from lab.internet import Internet
from lab.processes import wait_until
from lab.terminal import Terminal
from lab.tool import binary, tool

EARLY = "that was too soon"
MOMENT = 0.7
"""For so many seconds what is typed is no answer to a question."""
GREETING = r"^sandgate: questions of all sandboxes are asked here; Ctrl-C leaves, and answers nothing$"


class Follower:
    """Somebody who sits at a terminal in which questions are asked."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal

    @property
    def text(self) -> str:
        return self.terminal.screen.text

    def wait_for(self, pattern: str, timeout: float = 15) -> re.Match[str]:
        return self.terminal.wait_for(pattern, timeout)

    def wait_for_question(self, host: str, more: str = "") -> re.Match[str]:
        """Waits until a host is asked about, and the answer can be typed."""
        asked = rf"^#\d+ of \S+: {re.escape(host)}, ports? [\d and]+, denied in \d+ s{more}$"
        return self.wait_for(asked + r"\n(?:.*\n)*?once, allow, allow 10m(, always)? or deny\?")

    def answer(self, line: str, outcome: str) -> None:
        """Types an answer until it is not too soon after the question, and waits for what comes of it."""
        while True:
            early = self.text.count(EARLY)
            self.terminal.type(f"{line}\n")
            deadline = time.monotonic() + 15
            while not self._tells(outcome) and self.text.count(EARLY) == early:
                assert time.monotonic() < deadline, self.text
                self.terminal.look(0.1)
            if self._tells(outcome):
                return
            # Whose moment it was is over then.
            self.terminal.look(MOMENT)

    def _tells(self, outcome: str) -> bool:
        return re.search(outcome, self.text, re.MULTILINE) is not None


@contextlib.contextmanager
def following(daemon: Daemon, *options: str) -> Iterator[Follower]:
    command: list[str | Path] = [binary(), "questions", "--follow", "--socket", daemon.socket, *options]
    made = Terminal(command, columns=250, rows=120)
    try:
        yield Follower(made)
    finally:
        made.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    directory = tmp_path / "answers"
    directory.mkdir()
    return directory / "answers.yaml"


def details(daemon: Daemon, event: str) -> list[tuple[str, str]]:
    """The host and the detail of each record."""
    return [(one["host"], one["detail"]) for one in daemon.records(event=event)]


# What is answered


def test_each_answer(internet: Internet, tmp_path: Path, file: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"answers: {file}\n")
    with running(internet, tmp_path, "--config", str(tmp_path / "config.yaml")) as daemon:
        box = asking(daemon, id="box")
        with following(daemon, "--by", "alice") as person:
            person.wait_for(GREETING)
            assert "#" not in person.text
            internet.forget()
            for name, line, phrase, is_served in (
                (plan.DENIED, "once", "allowed once", True),
                (plan.OTHER, "deny", "denied", False),
                (plan.MODEL, "allow 443 10m", r"allowed until \d{4}-\S+Z", True),
                (plan.FILES, "allow", "allowed in its sandbox", True),
                (plan.REGISTRY, "always", "allowed for always", True),
            ):
                waiting = curl(box, name)
                person.wait_for_question(name)
                assert name not in internet.dns.names()
                person.answer(line, f"^{name} is {phrase}$")
                output = said(waiting)
                assert (name in internet.dns.names()) == (name in internet.web.hosts()) == is_served, output
            rules = box.ask("GET", "/policy").json["policy"]["egress"][1:]
            assert [(rule["target"], rule["ports"], "expiresAt" in rule) for rule in rules] == [
                (plan.MODEL, [443], True),
                (plan.FILES, [80, 443], False),
            ]
            assert [rule.target for rule in listed(file)] == [plan.REGISTRY]
            told = details(daemon, "question.answered")
            until = told.pop(2)
            assert until[0] == plan.MODEL and re.fullmatch(r"allow until \S+Z, by alice \(.*uid 0\)", until[1])
            assert [(host, detail.partition(" (")[0]) for host, detail in told] == [
                (plan.DENIED, "allow once, by alice"),
                (plan.OTHER, "deny, by alice"),
                (plan.FILES, "allow for this sandbox, by alice"),
                (plan.REGISTRY, "allow for always, by alice"),
            ]
            person.terminal.type("\x03")
            assert person.terminal.wait() == -signal.SIGINT and person.terminal.is_restored
            assert person.terminal.screen.surprises == []


def test_what_cannot_be_done_is_said_and_asked_again(daemon: Daemon) -> None:
    box = asking(daemon, id="box")
    waiting = curl(box, plan.DENIED)
    with following(daemon) as person:
        person.wait_for_question(plan.DENIED)
        # No file of answers is configured.
        assert "once, allow, allow 10m or deny?" in person.text
        person.answer("perhaps", "^expected once, deny, allow or always, with a duration")
        person.answer("once 10m", "^ttl: stands beside once: only allow is for a time$")
        person.answer("always", "the daemon keeps no answers for always: none is configured")
        person.answer("once", f"^{plan.DENIED} is allowed once$")
    assert f"served {plan.DENIED}" in said(waiting)


def test_only_of_one_sandbox(daemon: Daemon) -> None:
    box, other = asking(daemon, id="box"), asking(daemon, id="other")
    curl(other, plan.OTHER)
    question(other, plan.OTHER)
    with following(daemon, "--sandbox", "box") as person:
        person.wait_for("questions of box are asked here")
        waiting = curl(box, plan.DENIED)
        person.wait_for(rf"^#1 {plan.DENIED}, ports 80 and 443, denied in \d+ s$")
        person.answer("deny", f"^{plan.DENIED} is denied$")
        said(waiting)
        assert plan.OTHER not in person.text
        assert [one["host"] for one in questions(other)] == [plan.OTHER]
        assert box.ask("DELETE", "").status == 204
        # Nothing will be asked there any more.
        assert person.terminal.wait() == 1
        assert "sandgate: there is no sandbox box" in person.text


# What comes and goes


def test_questions_end_without_an_answer(daemon: Daemon) -> None:
    """By others, in time, with the sandbox; the others are shown one after the other."""
    box, brief = asking(daemon, id="box"), asking(daemon, id="brief", seconds=4)
    for name in (plan.DENIED, plan.OTHER):
        curl(box, name)
        question(box, name)
    with following(daemon) as person:
        person.wait_for_question(plan.DENIED, "; 1 more waits")
        assert plan.OTHER not in person.text
        # More urgent, but what is on the screen stays there.
        curl(brief, plan.FILES)
        question(brief, plan.FILES)
        answer(box, question(box, plan.DENIED), "deny")
        person.wait_for(f"^{plan.DENIED} is not asked about any more$")
        person.wait_for_question(plan.FILES, "; 1 more waits")
        person.wait_for(f"^{plan.FILES} is not asked about any more$")
        person.wait_for_question(plan.OTHER)
        box.ask("POST", "/pause")
        person.wait_for(f"^{plan.OTHER} is not asked about any more$")
    assert {host for host, _ in details(daemon, "question.answered")} == {plan.DENIED}


def test_what_is_typed_before_a_question_answers_nothing(daemon: Daemon) -> None:
    box = asking(daemon, id="box", seconds=3)
    with following(daemon) as person:
        person.wait_for(GREETING)
        person.terminal.type("allow\nallow\nall")
        waiting = curl(box, plan.DENIED)
        person.wait_for_question(plan.DENIED)
        person.terminal.type("ow\n")
        person.wait_for(rf"{EARLY} to be an answer to #1|^expected once, deny, allow or always")
        person.wait_for(f"^{plan.DENIED} is not asked about any more$")
        assert "served" not in said(waiting)
    assert details(daemon, "question.answered") == []


def test_many_questions_are_asked_one_by_one(daemon: Daemon) -> None:
    box = asking(daemon, id="box")
    names = [f"n{number}.flood.example" for number in range(40)]
    clients = [box.start("getent", "ahosts", name) for name in names]
    wait_until(lambda: len(questions(box)) == 16, "as many questions as there may be")
    with following(daemon) as person:
        person.wait_for(r"denied in \d+ s; 15 more wait$")
        assert person.text.count("#") == 1
        first = questions(box)[0]["host"]
        person.answer("deny", f"^{re.escape(first)} is denied$")
        person.wait_for("; 14 more wait$")
    for client in clients:
        client.kill()
        client.communicate()


# Leaving


@pytest.mark.parametrize("key", ["\x03", "\x04"])
def test_who_leaves_answers_nothing(daemon: Daemon, key: str) -> None:
    box = asking(daemon, id="box")
    waiting = curl(box, plan.DENIED)
    with following(daemon) as person:
        person.wait_for_question(plan.DENIED)
        person.terminal.type(key)
        assert person.terminal.wait() == (0 if key == "\x04" else -signal.SIGINT)
        assert person.terminal.is_restored
    answer(box, question(box, plan.DENIED), "once")
    assert f"served {plan.DENIED}" in said(waiting)
    assert len(details(daemon, "question.answered")) == 1


def test_whose_window_is_closed_has_left(daemon: Daemon) -> None:
    box = asking(daemon, id="box")
    curl(box, plan.DENIED)
    with following(daemon) as person:
        person.wait_for_question(plan.DENIED)
        person.terminal.hang_up()
        person.terminal.process.wait(10)
    assert [one["host"] for one in questions(box)] == [plan.DENIED]


# The daemon


@pytest.mark.parametrize("way", ["killed", "handed over"])
def test_daemon_that_is_restarted(internet: Internet, daemon: Daemon, way: str) -> None:
    """It is said, and the next one's questions are asked; an answer that was on its way to the old one's is none."""
    box = asking(daemon, id="box")
    waiting = curl(box, plan.DENIED)
    with following(daemon) as person:
        person.wait_for_question(plan.DENIED)
        person.terminal.type("allow")
        if way == "killed":
            # It would ask again.
            waiting.kill()
            daemon.restart()
        else:
            daemon.hand_over()
        person.wait_for(f"^{plan.DENIED} is not asked about any more$")
        person.wait_for(f"^sandgate: the daemon at {re.escape(str(daemon.socket))} has ended; waiting for the next one$")
        person.wait_for("^sandgate: there is a daemon again$")
        if way == "handed over":
            # Where connections go on, what waited is asked about anew.
            person.wait_for(rf"again\n(.*\n)*#\d+ of box: {plan.DENIED},")
            person.answer("once", f"^{plan.DENIED} is allowed once$")
        output = said(waiting)
        assert (f"served {plan.DENIED}" in output) == (way == "handed over"), output
        later = curl(box, plan.OTHER)
        person.wait_for_question(plan.OTHER)
        person.answer("deny", f"^{plan.OTHER} is denied$")
        assert "served" not in said(later) and plan.OTHER not in internet.dns.names()


def test_answer_to_the_question_of_another_daemon(internet: Internet, daemon: Daemon) -> None:
    """Numbers begin anew: who says when the question was asked that they mean answers no other one."""
    box = asking(daemon, id="box")
    first = box.start("getent", "ahosts", plan.DENIED)
    old = question(box, plan.DENIED)
    # It would ask again.
    first.kill()
    first.communicate()
    daemon.restart()
    waiting = curl(box, plan.OTHER)
    new = question(box, plan.OTHER)
    assert new["question"] == old["question"] == 1
    body = {"answer": "allow", "askedAt": old["askedAt"]}
    for word in ("once", "allow", "deny"):
        refused = box.ask("POST", "/questions/1", {**body, "answer": word})
        assert refused.status == 404 and refused.json["code"] == "unknown-question", refused
    assert plan.OTHER not in internet.dns.names()
    wrong = box.ask("POST", "/questions/1", {"answer": "once", "askedAt": "soon"})
    assert wrong.status == 400 and wrong.json["details"][0]["path"] == "askedAt", wrong
    answer(box, new, "once", askedAt=new["askedAt"])
    assert f"served {plan.OTHER}" in said(waiting)


def test_no_daemon(tmp_path: Path) -> None:
    made = Terminal([binary(), "questions", "--follow", "--socket", tmp_path / "api.sock"], columns=200)
    try:
        assert made.wait() == 1 and f"no daemon at {tmp_path}/api.sock" in made.screen.text
    finally:
        made.close()


# What is no way to do it


@pytest.mark.parametrize(
    ("options", "status", "problem"),
    [
        ((), 1, "--follow: expected a terminal, in which a person answers"),
        (("--json",), 64, "--follow and --json: only one of them is accepted"),
        (("--sandbox", "a/b"), 64, "a/b is no name of a sandbox"),
    ],
)
def test_mistakes(daemon: Daemon, options: tuple[str, ...], status: int, problem: str) -> None:
    done = tool("questions", "--follow", "--socket", daemon.socket, *options)
    assert done.returncode == status and problem in done.stderr and done.stdout == "", done
    assert "--by stands without --follow" in tool("questions", "--by", "alice").stderr
