"""Connections to names that no rule speaks of wait while somebody is asked: let through by a yes, denied by a no, by nobody's
answer, and in a flood of questions; and nothing of them is heard outside before somebody has allowed it."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import plan
from lab.asking import answer, asker, asking, curl, question, questions, said
from lab.daemon import Daemon, Sandbox, running
from lab.internet import Internet
from lab.processes import kibibytes, wait_until
from lab.receiver import receiving
from lab.sandgate import Sandgate, allowing
from lab.tool import tool

@pytest.fixture
def daemon(internet: Internet, tmp_path: Path) -> Iterator[Daemon]:
    with running(internet, tmp_path, "--limit", "questionSeconds=20") as made:
        yield made


def asked_again(sandbox: Sandbox, name: str) -> subprocess.Popen[str]:
    """Asks for a page until that is a question, as what allowed it is over; who waits for the answer.

    It may be a connection that is asked about, whose addresses came while they were allowed and were let go since: a yes
    does not bring those back. So who waits is one that begins now, with a query.
    """
    asking = [curl(sandbox, name)]

    def is_asked() -> bool:
        if asking[-1].poll() is not None:
            asking.append(curl(sandbox, name))
        return bool(questions(sandbox))

    wait_until(is_asked, "the next question", 15)
    (asked,) = questions(sandbox)
    waiting = curl(sandbox, name)
    wait_until(lambda: questions(sandbox)[0]["waiters"] > asked["waiters"], "another that waits")
    return waiting


def kinds(daemon: Daemon, sandbox: Sandbox) -> list[str]:
    return [record["event"] for record in daemon.records(sandbox=sandbox.id)]


def proxied(*options: str) -> tuple[str, ...]:
    return ("--proxy", "http://127.0.0.1:64128", *options)


# MARK: - Yes


def test_a_yes_lets_what_waits_through(internet: Internet, daemon: Daemon) -> None:
    sandbox = asking(daemon)
    internet.forget()
    waiting = curl(sandbox, plan.DENIED)
    asked = question(sandbox, plan.DENIED)
    # Nobody outside has heard of the name.
    assert plan.DENIED not in internet.dns.names() and plan.DENIED not in internet.web.hosts()
    done = answer(sandbox, asked, "allow")
    assert f"served {plan.DENIED}" in said(waiting)
    assert plan.DENIED in internet.web.hosts()
    rule = sandbox.ask("GET", "/policy").json["policy"]["egress"][-1]
    assert rule["target"] == plan.DENIED and rule["ports"] == [80, 443] and "expiresAt" not in rule
    assert rule["comment"].startswith("asked 20") and rule["comment"].endswith("allowed by alice (uid 0)")
    assert done["rule"] == rule and done["revision"] == 2
    assert questions(sandbox) == []
    told = [record for record in daemon.records(sandbox=sandbox.id) if record["event"].startswith("question.")]
    assert [record["event"] for record in told] == ["question.asked", "question.answered"]
    assert {(record["host"], record["question"]) for record in told} == {(plan.DENIED, asked["question"])}
    assert told[1]["detail"] == "allow for this sandbox, by alice (uid 0)"
    # It is a rule like any other: it survives the daemon, and is taken back in the same way.
    daemon.restart()
    assert sandbox.reaches(plan.DENIED)
    assert sandbox.ask("DELETE", "/policy", [plan.DENIED]).status == 200
    waiting = curl(sandbox, plan.DENIED)
    answer(sandbox, question(sandbox, plan.DENIED), "deny")
    assert "served" not in said(waiting)


def test_a_yes_for_a_time_expires(daemon: Daemon) -> None:
    sandbox = asking(daemon)
    waiting = curl(sandbox, plan.DENIED)
    answer(sandbox, question(sandbox, plan.DENIED), "allow", ttl="3s")
    assert f"served {plan.DENIED}" in said(waiting)
    # Once it has expired the next one is asked about; the answer takes the place of the first.
    later = asked_again(sandbox, plan.DENIED)
    answer(sandbox, question(sandbox, plan.DENIED), "allow")
    assert f"served {plan.DENIED}" in said(later)
    rules = sandbox.ask("GET", "/policy").json["policy"]["egress"]
    assert [rule["target"] for rule in rules] == [plan.ALLOWED, plan.DENIED]


def test_once_is_for_what_waits_and_lives_as_long(internet: Internet, tmp_path: Path) -> None:
    options = ("--limit", "onceSeconds=3", "--limit", "questionSeconds=20")
    with running(internet, tmp_path, *options) as daemon:
        sandbox = asking(daemon)
        # A connection of TLS that stays: it sends its request when it is told to.
        living = sandbox.start(
            "/bin/sh", "-c",
            f"(read line; printf 'GET / HTTP/1.1\\r\\nHost: {plan.DENIED}\\r\\nConnection: close\\r\\n\\r\\n'; sleep 2)"
            f" | openssl s_client -quiet -connect {plan.DENIED}:443 -servername {plan.DENIED} 2>/dev/null",
        )
        answer(sandbox, question(sandbox, plan.DENIED), "once")
        wait_until(
            lambda: "connection.allowed" in kinds(daemon, sandbox), "the connection to be let through"
        )
        policy = sandbox.ask("GET", "/policy").json
        assert [rule["target"] for rule in policy["policy"]["egress"]] == [plan.ALLOWED] and policy["revision"] == 1
        # Later ones are asked about again, when the moment is over.
        later = asked_again(sandbox, plan.DENIED)
        answer(sandbox, question(sandbox, plan.DENIED), "deny")
        assert "served" not in said(later)
        # Changes of the policy that say nothing of it leave it alone.
        assert sandbox.ask("PATCH", "/policy", [{"action": "allow", "target": "new.test"}]).status == 200
        output, _ = living.communicate("go\n", timeout=20)
        assert f"served {plan.DENIED}" in output


def test_connect_and_absolute_requests_wait_as_well(internet: Internet, daemon: Daemon) -> None:
    sandbox = asking(daemon, {"defaultAction": "deny"})
    internet.forget()
    tunnel = curl(sandbox, plan.DENIED, *proxied())
    cleartext = sandbox.start("curl", "-sS", "-m", "25", *proxied(), f"http://{plan.DENIED}/")
    socks = curl(sandbox, plan.DENIED, "--proxy", "socks5h://127.0.0.1:64128")
    asked = question(sandbox, plan.DENIED)
    wait_until(lambda: question(sandbox, plan.DENIED)["waiters"] == 3, "all three to wait for one answer")
    assert plan.DENIED not in internet.dns.names()
    answer(sandbox, asked, "allow", ports=[443])
    assert f"served {plan.DENIED}" in said(tunnel) and f"served {plan.DENIED}" in said(socks)
    # What the answer left out is a question again.
    answer(sandbox, question(sandbox, plan.DENIED), "deny")
    assert "ask-denied" in said(cleartext)
    assert {(request.host, request.port) for request in internet.web.requests()} == {(plan.DENIED, 443)}


def test_another_port_is_another_question(daemon: Daemon) -> None:
    sandbox = asking(daemon, allowing({"target": plan.ALLOWED, "ports": [443]}))
    cleartext = sandbox.start("curl", "-sS", "-m", "25", f"http://{plan.ALLOWED}/")
    asked = question(sandbox, plan.ALLOWED)
    answer(sandbox, asked, "allow", ports=[80])
    assert f"served {plan.ALLOWED}" in said(cleartext)


def test_a_query_asked_again_joins_and_a_late_yes_works(internet: Internet, daemon: Daemon) -> None:
    sandbox = asking(daemon)
    for _ in range(2):
        given_up = sandbox.run("dig", "+tries=1", "+timeout=1", f"@{plan.DNS4}", plan.DENIED)
        assert given_up.returncode != 0 and "ANSWER: 1" not in given_up.stdout
    asked = question(sandbox, plan.DENIED)
    assert asked["waiters"] == 2 and len(questions(sandbox)) == 1
    answer(sandbox, asked, "allow")
    assert plan.DENIED4 in sandbox.run("dig", "+short", f"@{plan.DNS4}", plan.DENIED).stdout


# MARK: - No


def test_a_no_and_nobodys_answer_deny(internet: Internet, daemon: Daemon) -> None:
    sandbox = asking(daemon, seconds=2)
    internet.forget()
    waiting = curl(sandbox, plan.DENIED)
    answer(sandbox, question(sandbox, plan.DENIED), "deny")
    assert "served" not in said(waiting)
    # Nobody answers the next one; and neither is asked again.
    assert not sandbox.reaches("unanswered.example")
    for name, reason in ((plan.DENIED, "ask-denied"), ("unanswered.example", "ask-deadline")):
        assert "NXDOMAIN" in sandbox.run("dig", "+tries=1", "+timeout=5", f"@{plan.DNS4}", name).stdout
        denials = [one for one in daemon.records(sandbox=sandbox.id, verdict="deny") if one["host"] == name]
        assert denials and {one["reason"] for one in denials} == {reason}
    assert questions(sandbox) == []
    ended = [record for record in daemon.records(sandbox=sandbox.id) if record["event"] == "question.ended"]
    assert [record["detail"] for record in ended] == ["nobody answered in time"]
    assert internet.dns.names().isdisjoint({plan.DENIED, "unanswered.example"})
    assert plan.DENIED not in internet.web.hosts()
    metrics = daemon.metrics()
    assert metrics['sandgate_events_total{event="question.ended",layer="",verdict="",reason=""}'] == 1
    # A question that has ended has no answer.
    late = sandbox.ask("POST", "/questions/2", {"answer": "allow"})
    assert late.status == 404 and late.json["code"] == "unknown-question"


@pytest.mark.parametrize("policy", ["rule", "operator"])
def test_what_a_rule_denies_is_never_asked(internet: Internet, tmp_path: Path, policy: str) -> None:
    options: list[str] = []
    if policy == "operator":
        (tmp_path / "deny.always").write_text(f"{plan.DENIED}\n")
        (tmp_path / "config.yaml").write_text(f"denyAlways: {tmp_path}/deny.always\n")
        options = ["--config", str(tmp_path / "config.yaml")]
    rules = [{"action": "deny", "target": plan.DENIED}] if policy == "rule" else []
    with running(internet, tmp_path, *options) as daemon:
        sandbox = asking(daemon, {"defaultAction": "deny", "egress": rules})
        assert not sandbox.reaches(plan.DENIED)
        assert "served" not in sandbox.fetch(plan.DENIED, *proxied()).stdout
        assert "question.asked" not in kinds(daemon, sandbox)


def test_guarded_addresses_are_never_asked_nor_opened(internet: Internet, daemon: Daemon) -> None:
    sandbox = asking(daemon, {"defaultAction": "deny"})
    for place in ("169.254.169.254", "10.0.0.1", plan.NODE4, "203.0.113.9"):
        assert "served" not in sandbox.fetch(place, *proxied("-k")).stdout
    assert "question.asked" not in kinds(daemon, sandbox)


def test_changes_pause_and_release_end_questions(daemon: Daemon) -> None:
    sandbox = asking(daemon)
    waiting = curl(sandbox, plan.DENIED)
    question(sandbox, plan.DENIED)
    # A rule decides at once.
    assert sandbox.ask("PATCH", "/policy", [{"action": "allow", "target": plan.DENIED}]).status == 200
    assert f"served {plan.DENIED}" in said(waiting)
    waiting = curl(sandbox, plan.OTHER)
    question(sandbox, plan.OTHER)
    assert sandbox.ask("PATCH", "/policy", [{"action": "deny", "target": plan.OTHER}]).status == 200
    assert "served" not in said(waiting)
    waiting = curl(sandbox, "paused.example")
    question(sandbox, "paused.example")
    assert sandbox.ask("POST", "/pause").status == 200
    assert "served" not in said(waiting)
    assert questions(sandbox) == []
    assert sandbox.ask("POST", "/resume").status == 200
    details = [one["detail"] for one in daemon.records(sandbox=sandbox.id) if one["event"] == "question.ended"]
    assert details == ["the policy speaks of it now", "the policy speaks of it now", "the sandbox was paused"]


def test_the_next_daemon_asks_anew(internet: Internet, daemon: Daemon) -> None:
    sandbox = asking(daemon)
    internet.forget()
    waiting = curl(sandbox, plan.DENIED)
    question(sandbox, plan.DENIED)
    daemon.hand_over()
    asked = question(sandbox, plan.DENIED)
    assert plan.DENIED not in internet.dns.names()
    answer(sandbox, asked, "allow")
    assert f"served {plan.DENIED}" in said(waiting)


def test_nobody_is_asked_unless_the_attachment_says_so(daemon: Daemon) -> None:
    sandbox = daemon.create(allowing(plan.ALLOWED))
    assert not sandbox.reaches(plan.DENIED)
    assert "question.asked" not in kinds(daemon, sandbox) and questions(sandbox) == []


def test_bad_answers_are_named(daemon: Daemon) -> None:
    sandbox = asking(daemon)
    asked = sandbox.start("getent", "ahosts", plan.DENIED)
    number = question(sandbox, plan.DENIED)["question"]
    for body, path in (
        ({"answer": "yes"}, "answer"),
        ({"answer": "once", "ttl": "10m"}, "ttl"),
        ({"answer": "allow", "ttl": "soon"}, "ttl"),
        ({"answer": "allow", "ports": [0]}, "ports[0]"),
        ({"answer": "allow", "by": "a\nb"}, "by"),
        ({"answer": "allow", "forever": True}, "forever"),
        ({"answer": "allow", "question": 99}, "question"),
    ):
        refused = sandbox.ask("POST", f"/questions/{number}", body)
        assert refused.status == 400 and refused.json["details"][0]["path"] == path, refused
    for seconds in (0, 3_601, "long"):
        refused = daemon.request("POST", "/v1/sandboxes", {"attachment": {"create": True, "ask": seconds}})
        assert refused.status == 400 and refused.json["details"][0]["path"] == "attachment.ask", refused
    answer(sandbox, question(sandbox, plan.DENIED), "deny")
    asked.communicate(timeout=20)


# MARK: - Told


def test_a_webhook_tells_of_questions(internet: Internet, tmp_path: Path) -> None:
    with receiving() as receiver, running(internet, tmp_path, "--denial-webhook", receiver.url) as daemon:
        sandbox = asking(daemon, seconds=20)
        waiting = curl(sandbox, plan.DENIED)
        receiver.wait_for(plan.DENIED)
        told = receiver.records[0]
        assert told["event"] == "question.asked" and told["sandbox"] == sandbox.id
        said_ = sandbox.ask("POST", f"/questions/{told['question']}", {"answer": "once"})
        assert said_.status == 200
        assert f"served {plan.DENIED}" in said(waiting)


def test_all_questions_of_a_node(daemon: Daemon) -> None:
    sandboxes = [asking(daemon, id=f"box{number}") for number in range(2)]
    for sandbox in sandboxes:
        sandbox.start("getent", "ahosts", plan.DENIED)
        question(sandbox, plan.DENIED)
    items = daemon.request("GET", "/v1/questions").json["items"]
    assert {(item["sandbox"], item["host"]) for item in items} == {("box0", plan.DENIED), ("box1", plan.DENIED)}


def test_commands_list_and_answer(internet: Internet, daemon: Daemon) -> None:
    sandbox = asking(daemon, id="box")

    def ask(*words: str) -> subprocess.CompletedProcess[str]:
        return tool(words[0], "--socket", daemon.socket, *words[1:])

    nothing = ask("questions")
    assert (nothing.returncode, nothing.stdout) == (0, "") and "nothing waits" in nothing.stderr
    first, second = curl(sandbox, plan.DENIED), curl(sandbox, plan.OTHER)
    numbers = {name: str(question(sandbox, name)["question"]) for name in (plan.DENIED, plan.OTHER)}
    listed = ask("questions")
    rows = {line.split()[2]: line.split() for line in listed.stdout.splitlines()[1:]}
    assert rows[plan.DENIED][:2] == ["box", numbers[plan.DENIED]] and rows[plan.DENIED][3] == "80,443", listed
    form = json.loads(ask("questions", "--sandbox", "box", "--json").stdout)["items"]
    assert {item["host"] for item in form} == {plan.DENIED, plan.OTHER}
    # The same form that a program is asked in: see test_run_asks_a_program.
    assert set(form[0]) == {"sandbox", "question", "host", "ports", "askedAt", "expiresAt", "waiters"}
    done = ask("answer", "box", numbers[plan.DENIED], "allow", "--ttl", "10m", "--port", "443", "--by", "alice")
    assert (done.returncode, done.stderr) == (0, "") and "revision 2" in done.stdout, done
    assert f"served {plan.DENIED}" in said(first)
    rule = sandbox.ask("GET", "/policy").json["policy"]["egress"][-1]
    assert rule["ports"] == [443] and "expiresAt" in rule and "alice (uid 0)" in rule["comment"]
    assert ask("answer", "box", numbers[plan.OTHER], "deny").stdout == f"{plan.OTHER} is denied\n"
    assert "served" not in said(second)
    late = ask("answer", "box", numbers[plan.OTHER], "once")
    assert late.returncode == 1 and "is not open" in late.stderr
    assert ask("answer", "absent", "1", "once").returncode == 1
    for words in (["1", "once", "--ttl", "10m"], ["1", "allow", "--port", "0"], ["1", "perhaps"], ["x", "once"]):
        assert ask("answer", "box", *words).returncode == 64, words
    kinds_found = {record["event"] for record in daemon.records(event="question.*")}
    assert kinds_found == {"question.asked", "question.answered"}


# MARK: - Floods

FLOOD = """
import socket, struct, sys, select
ask = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
ask.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
ask.connect((sys.argv[1], 53))
refused = 0
def take(wait):
    global refused
    while select.select([ask], [], [], wait)[0]:
        refused += ask.recv(512)[3] & 15 == 3
for number in range(10_000):
    name = b"".join(bytes([len(label)]) + label for label in (b"n%d" % number, b"flood", b"test")) + b"\\0"
    ask.send(struct.pack(">6H", number & 0xFFFF, 0x100, 1, 0, 0, 0) + name + struct.pack(">2H", 1, 1))
    take(0.05 if number % 50 == 49 else 0)
take(1)
print("refused", refused, flush=True)
sys.stdin.readline()
"""


@pytest.mark.attack("D1", "asks for ten thousand names so that somebody is asked each time", stopped_by="limits")
def test_a_flood_of_questions_is_a_denial(internet: Internet, daemon: Daemon) -> None:
    """Ten thousand names and a person who never answers."""
    with contextlib.ExitStack() as stack:
        quiet = daemon.create(allowing(plan.ALLOWED))
        sandbox = asking(daemon)
        assert sandbox.reaches(plan.ALLOWED) and quiet.reaches(plan.ALLOWED)
        internet.forget()
        before = kibibytes(daemon.pid)
        flood = sandbox.start("/usr/bin/python3", "-c", FLOOD, plan.DNS4)
        stack.callback(flood.kill)
        beside = [quiet.reaches(plan.ALLOWED) for _ in range(5)]
        assert all(beside)
        assert flood.stdout is not None
        assert flood.stdout.readline() == "refused 9984\n"
        assert len(questions(sandbox)) == 16
        assert kibibytes(daemon.pid) - before < 64 << 10, "KiB"
        # What is allowed still is, in the flood's own sandbox too; and no name of the flood was heard outside.
        assert sandbox.reaches(plan.ALLOWED) and quiet.reaches(plan.ALLOWED)
        assert not any(name.endswith("flood.test") for name in internet.dns.names())
        wait_until(lambda: questions(sandbox) == [], "the deadline", 30)
        found = [record["reason"] for record in daemon.records(sandbox=sandbox.id, verdict="deny")]
        assert (found.count("ask-limit"), found.count("ask-deadline")) == (9_984, 16)
        assert daemon.metrics()[
            'sandgate_events_total{event="dns.denied",layer="dns",verdict="deny",reason="ask-limit"}'
        ] == 9_984


# MARK: - run

def test_run_asks_a_program(internet: Internet, sandgate: Sandgate, tmp_path: Path) -> None:
    program, log = asker(tmp_path, denied_example={"answer": "once"}, other_example={"answer": "deny"})
    internet.forget()
    finished = sandgate.run(
        allowing(plan.ALLOWED),
        "/bin/sh", "-c",
        f"for name in {plan.DENIED} {plan.OTHER} {plan.ALLOWED}; do curl -sS -m 20 https://$name/; done; true",
        options=("--ask-command", program),
    )
    assert f"served {plan.DENIED}" in finished.stdout and f"served {plan.ALLOWED}" in finished.stdout
    assert f"served {plan.OTHER}" not in finished.stdout
    asked = [json.loads(line) for line in log.read_text().splitlines()]
    assert [one["host"] for one in asked] == [plan.DENIED, plan.OTHER]
    assert asked[0]["ports"] == [80, 443] and asked[0]["command"].startswith("/bin/sh -c for name")
    assert asked[0]["sandbox"].startswith("run-") and asked[0]["waiters"] == 1
    assert plan.OTHER not in internet.dns.names()
    answers = finished.audit.where(event="question.answered")
    assert [one["detail"] for one in answers] == ["allow once, by --ask-command", "deny, by --ask-command"]
    assert finished.audit.where(reason="ask-denied", host=plan.OTHER)


@pytest.mark.parametrize("character", ["a", "ü", "\U0001f9ea", "e\u0301", '"', "\x01"], ids=ascii)
def test_a_long_command_is_cut_where_a_character_ends(
    internet: Internet, sandgate: Sandgate, tmp_path: Path, character: str
) -> None:
    """However many bytes its characters have: a longer line than 4,096 bytes could reach the program in parts (pipe(7))."""
    program, log = asker(tmp_path, denied_example={"answer": "once"})
    command = ["/bin/sh", "-c", f"curl -sS -m 20 https://{plan.DENIED}/", f"Y: {character * 3000}"]
    finished = sandgate.run(allowing(plan.ALLOWED), *command, options=("--ask-command", program))
    lines = log.read_bytes().splitlines(keepends=True)
    assert f"served {plan.DENIED}" in finished.stdout and len(lines) == 1 and len(lines[0]) < 4096, finished
    told = json.loads(lines[0])["command"]
    assert " ".join(command).startswith(told)
    # As much as fits, of whole characters.
    escaped = json.dumps(told, ensure_ascii=False).encode()
    assert 1024 - len(json.dumps(character, ensure_ascii=False).encode()) < len(escaped) - 2 <= 1024
    text = told.partition("Y: ")[2]
    assert text == character * (len(text) // len(character)) != ""


def test_run_denies_what_nobody_answers(internet: Internet, sandgate: Sandgate) -> None:
    """Whether the program is silent or has ended."""
    for program in ("cat >/dev/null", "exit 3"):
        internet.forget()
        finished = sandgate.run(
            allowing(plan.ALLOWED),
            "curl", "-sS", "-m", "20", f"https://{plan.DENIED}/",
            options=("--ask-command", program, "--ask-timeout", "2"),
        )
        assert finished.returncode == 6, finished
        assert finished.audit.where(reason="ask-deadline", host=plan.DENIED)
        assert plan.DENIED not in internet.dns.names()
        assert ("--ask-command has ended" in finished.stderr) == (program == "exit 3")


@pytest.mark.attack("T16", "answers the question that somebody is asked about it", stopped_by="namespaces")
def test_the_command_cannot_answer_for_itself(internet: Internet, sandgate: Sandgate, tmp_path: Path) -> None:
    """It prints what an answer looks like wherever it can, and looks for the asker among the processes it sees."""
    program, log = asker(tmp_path)
    answer_line = '{"question": 1, "answer": "allow"}'
    finished = sandgate.run(
        allowing(plan.ALLOWED),
        "/bin/bash", "-c",
        f"curl -sS -m 20 https://{plan.DENIED}/ & sleep 1; "
        f"for fd in 1 2 3 4 5 6 7 8 9 10 11 12; do echo '{answer_line}' >&$fd; done; "
        f"for out in /proc/[0-9]*/fd/*; do [ -p \"$out\" ] && timeout 1 sh -c \"echo '{answer_line}' >$out\"; done; "
        "grep -l asker /proc/[0-9]*/cmdline | grep -v self; wait",
        options=("--ask-command", program, "--ask-timeout", "6"),
    )
    assert f"served {plan.DENIED}" not in finished.stdout
    assert len(log.read_text().splitlines()) == 1
    assert finished.audit.where(event="question.answered") == []
    assert [one["detail"] for one in finished.audit.where(event="question.ended")] == ["nobody answered in time"]


def test_options_that_need_each_other(sandgate: Sandgate) -> None:
    refused = sandgate.tool("run", "--ask-timeout", "5", "--", "true")
    assert refused.returncode == 125 and "--ask-timeout needs --ask-command" in refused.stderr
    refused = sandgate.tool("run", "--ask-command", "true", "--ask-timeout", "0", "--", "true")
    assert refused.returncode == 125 and "expected seconds of 1...3600" in refused.stderr
