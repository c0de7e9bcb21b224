"""Install, then lock: a wider policy holds until a lock, and only a narrower one after it, whatever happens in between."""

from __future__ import annotations

import datetime
import http.client
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lab import plan, streams
from lab.asker import Asker
from lab.capture import capture
from lab.daemon import Answer, Daemon, Sandbox, attachment, running
from lab.internet import Internet
from lab.namespaces import NODE_LINK, Namespace
from lab.processes import wait_until
from lab.sandgate import Sandgate, allowing, attack, shell
from lab.sidecar import sidecar
from lab.tool import tool

RUN_BY = pytest.mark.parametrize("options", [(), ("--rootless",)], ids=["root", "rootless"])


def in_setup(*targets: str | dict[str, Any], **fields: object) -> dict[str, Any]:
    """A policy that allows one name for good, and these besides until it is locked."""
    return allowing(plan.ALLOWED, setup={"egress": allowing(*targets)["egress"], **fields})


def is_locked(sandbox: Sandbox) -> bool:
    """Whether it is said to be locked; what is said of the policy fits that."""
    answer = sandbox.ask("GET").json
    assert ("lockedAt" in answer) == ("setup" not in answer["policy"]), answer
    return "lockedAt" in answer


# The daemon


@pytest.mark.honest("what set-up needs until the lock, and what the policy allows for good after it")
def test_install_then_lock(internet: Internet, daemon: Daemon) -> None:
    sandbox = daemon.create(in_setup(plan.DENIED, plan.OTHER), id="box")
    kept = Asker(sandbox.start(*Asker.command(plan.ALLOWED)))
    try:
        port = kept.ask().split()[0]
        assert sandbox.reaches(plan.DENIED) and sandbox.reaches(plan.OTHER) and not is_locked(sandbox)
        assert {plan.DENIED, plan.OTHER} <= {request.host for request in internet.web.requests()}
        answer = sandbox.ask("POST", "/lock")
        assert answer.status == 200 and answer.json["revision"] == 2 and answer.headers["etag"] == '"2"', answer
        assert sandbox.ask("POST", "/lock").json == answer.json == sandbox.ask("GET").json
        internet.forget()
        # Of OTHER the address is pinned still, for ALLOWED.
        address = f"{plan.OTHER}:443:{plan.SHARED4}"
        assert not sandbox.reaches(plan.DENIED) and not sandbox.reaches(plan.OTHER, "--resolve", address)
        assert kept.ask().split()[0] == port, "the connection that stays permitted is the same"
        assert [request.host for request in internet.web.requests()] == [plan.ALLOWED]
        assert plan.DENIED not in internet.dns.names()
    finally:
        kept.end()
    locked = [record for record in daemon.records(sandbox="box") if record["event"] == "sandbox.locked"]
    assert [record["detail"] for record in locked] == [f"asked for by process {os.getpid()} (uid 0) over the socket"]
    assert locked[0]["policyRevision"] == 2
    allowed = [record for record in daemon.records(host=plan.DENIED) if record["event"] == "connection.allowed"]
    assert allowed[0]["rule"] == {"index": 0, "action": "allow", "target": plan.DENIED, "source": "setup.egress"}


@pytest.mark.attack(
    "N9 T4", "has its sandbox's daemon killed and begun anew after a lock, to get back what set-up could reach", stopped_by="dns"
)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "ended"])
def test_lock_outlives_the_daemon(internet: Internet, daemon: Daemon, box: Namespace, number: signal.Signals) -> None:
    fields: dict[str, Any] = {"id": "box", "attachment": attachment(box)}
    policy = in_setup(plan.DENIED, ttl="1h")
    sandbox = daemon.create(policy, **fields)
    assert sandbox.reaches(plan.DENIED)
    # Until then it goes on where it was.
    daemon.restart(number)
    assert sandbox.reaches(plan.DENIED) and not is_locked(sandbox)
    assert sandbox.ask("POST", "/lock").status == 200
    daemon.restart(number)
    internet.forget()
    assert is_locked(sandbox) and not sandbox.reaches(plan.DENIED) and sandbox.reaches(plan.ALLOWED)
    # Asked for again as it was, it is what the lock left.
    again = daemon.request("POST", "/v1/sandboxes", {"networkPolicy": policy, **fields})
    assert again.status == 200 and "lockedAt" in again.json and not sandbox.reaches(plan.DENIED), again
    refused = sandbox.ask("PUT", "/policy", policy)
    assert refused.status == 409 and "is locked" in refused.json["message"], refused
    assert not sandbox.reaches(plan.DENIED) and plan.DENIED not in internet.dns.names()
    # The operator may widen the policy itself.
    assert sandbox.ask("PATCH", "/policy", [{"action": "allow", "target": plan.DENIED}]).status == 200
    assert sandbox.reaches(plan.DENIED)


@pytest.mark.attack("N9 T4", "has the daemon killed while it locks, at any moment before its answer", stopped_by="dns")
def test_daemon_killed_while_it_locks(internet: Internet, daemon: Daemon) -> None:
    """Locked or not, the next daemon says which, and what it says is what holds; what was answered is locked."""
    outcomes: set[bool] = set()
    for number in range(12):
        sandbox = daemon.create(in_setup(plan.DENIED), id=f"box-{number}")
        answers: list[Answer] = []

        def lock() -> None:
            try:
                answers.append(sandbox.ask("POST", "/lock"))
            except (OSError, ValueError, http.client.HTTPException):
                pass

        asking = threading.Thread(target=lock)
        asking.start()
        time.sleep(number * 0.0006)
        daemon.restart(signal.SIGKILL)
        asking.join()
        has_locked = is_locked(sandbox)
        assert has_locked or not any(answer.status == 200 for answer in answers), answers
        assert sandbox.reaches(plan.DENIED) != has_locked
        outcomes.add(has_locked)
        assert sandbox.ask("POST", "/lock").status == 200 and not sandbox.reaches(plan.DENIED)
        assert sandbox.ask("DELETE").status == 204
    print("locked before it was killed:", outcomes)


@pytest.mark.attack(
    "N9 T4", "keeps a connection from set-up across hot restarts, before and after the lock", stopped_by="dns, tls-sni"
)
def test_lock_and_hot_restart(internet: Internet, daemon: Daemon) -> None:
    sandbox = daemon.create(in_setup(plan.DENIED), id="box")
    wide, kept = (Asker(sandbox.start(*Asker.command(name))) for name in (plan.DENIED, plan.ALLOWED))
    try:
        ports = [asker.ask().split()[0] for asker in (wide, kept)]
        daemon.hand_over()
        assert [asker.ask().split()[0] for asker in (wide, kept)] == ports and not is_locked(sandbox)
        assert sandbox.ask("POST", "/lock").status == 200
        internet.forget()
        assert plan.DENIED not in wide.ask()
        daemon.hand_over()
        assert is_locked(sandbox) and not sandbox.reaches(plan.DENIED)
        assert kept.ask().split()[0] == ports[1]
        assert [request.host for request in internet.web.requests()] == [plan.ALLOWED]
    finally:
        wide.end()
        kept.end()


def in_seconds(count: float) -> str:
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=count)
    return moment.isoformat().replace("+00:00", "Z")


@pytest.mark.attack("N9", "waits for nobody to lock it", stopped_by="dns, tls-sni")
def test_setup_ends_by_itself(internet: Internet, daemon: Daemon) -> None:
    sandbox = daemon.create(in_setup(plan.DENIED, expiresAt=in_seconds(4)), id="box")
    wide = Asker(sandbox.start(*Asker.command(plan.DENIED)))
    try:
        assert wide.ask().split()[0].isdigit()
        wait_until(lambda: is_locked(sandbox), "the lock", 15)
        internet.forget()
        assert plan.DENIED not in wide.ask() and not sandbox.reaches(plan.DENIED) and sandbox.reaches(plan.ALLOWED)
        assert [request.host for request in internet.web.requests()] == [plan.ALLOWED]
    finally:
        wide.end()
    locked = [record for record in daemon.records(sandbox="box") if record["event"] == "sandbox.locked"]
    assert [record["detail"] for record in locked] == ["the set-up phase's time was over"]
    assert sandbox.ask("PUT", "/policy", in_setup(plan.DENIED)).status == 409


@pytest.mark.attack("N9 T4", "has its set-up's time pass while no daemon runs", stopped_by="dns, kernel")
def test_setup_ends_while_no_daemon_runs(internet: Internet, daemon: Daemon) -> None:
    sandbox = daemon.create(in_setup(plan.DENIED, expiresAt=in_seconds(2)), id="box")
    end = time.time() + 2
    daemon.end(signal.SIGKILL)
    wait_until(lambda: time.time() > end, "the end of set-up")
    daemon.start()
    internet.forget()
    assert is_locked(sandbox) and not sandbox.reaches(plan.DENIED) and sandbox.reaches(plan.ALLOWED)
    assert plan.DENIED not in internet.dns.names()
    assert any(record["event"] == "sandbox.locked" for record in daemon.records(sandbox="box"))


@pytest.mark.honest("a lock while everything is paused, which holds when it goes on")
def test_lock_while_paused(internet: Internet, daemon: Daemon) -> None:
    sandbox = daemon.create(in_setup(plan.DENIED))
    assert sandbox.reaches(plan.DENIED)
    assert sandbox.ask("POST", "/pause").status == 200 and sandbox.ask("POST", "/lock").status == 200
    assert not sandbox.reaches(plan.ALLOWED)
    assert sandbox.ask("POST", "/resume").status == 200
    assert sandbox.reaches(plan.ALLOWED) and not sandbox.reaches(plan.DENIED)


@pytest.mark.honest("changes of a policy that has a set-up phase")
def test_changes_in_setup(internet: Internet, daemon: Daemon) -> None:
    sandbox = daemon.create(in_setup(plan.DENIED, plan.OTHER))
    # A denial before it holds in set-up, too; taking a target out takes it out of both lists.
    changed = sandbox.ask("PATCH", "/policy", [{"action": "deny", "target": plan.OTHER}])
    assert [rule["target"] for rule in changed.json["policy"]["setup"]["egress"]] == [plan.DENIED], changed
    assert not sandbox.reaches(plan.OTHER) and sandbox.reaches(plan.DENIED)
    changed = sandbox.ask("DELETE", "/policy", [plan.DENIED])
    assert changed.status == 200 and "setup" not in changed.json["policy"] and not sandbox.reaches(plan.DENIED)
    # It was no lock: the operator may begin another set-up.
    assert sandbox.ask("PUT", "/policy", in_setup(plan.DENIED)).status == 200 and sandbox.reaches(plan.DENIED)
    assert sandbox.ask("POST", "/lock").status == 200 and not sandbox.reaches(plan.DENIED)
    # A sandbox that never had a phase can be kept from getting one.
    plain = daemon.create(allowing(plan.ALLOWED))
    answer = plain.ask("POST", "/lock")
    assert answer.status == 200 and answer.json["revision"] == 1 and "lockedAt" in answer.json
    assert plain.ask("PUT", "/policy", in_setup(plan.DENIED)).status == 409 and plain.reaches(plan.ALLOWED)


@pytest.mark.honest("the commands, for a sandbox with a set-up phase")
def test_commands(internet: Internet, daemon: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(in_setup(plan.DENIED)))
    options = ("--socket", daemon.socket)
    assert tool("attach", *options, "--create", "--id", "box", "--policy", path).stdout == "box\n"
    assert "1 rule, 1 in set-up" in tool("ps", *options).stdout
    shown = tool("inspect", *options, "box").stdout
    assert "set-up:     until it is locked, or " in shown and f"allow {plan.DENIED}" in shown, shown
    assert tool("lock", *options, "box").returncode == 0
    shown = tool("inspect", *options, "box").stdout
    assert "locked:     " in shown and plan.DENIED not in shown, shown
    assert json.loads(tool("lock", *options, "--json", "box").stdout)["id"] == "box"
    unknown = tool("lock", *options, "other")
    assert unknown.returncode == 1 and "other" in unknown.stderr, unknown.stderr


@pytest.mark.honest("set-up phases where there can be none")
def test_where_there_is_no_setup(internet: Internet, daemon: Daemon, tmp_path: Path) -> None:
    phase = tmp_path / "phase.json"
    phase.write_text(json.dumps({"networkPolicy": in_setup(plan.DENIED)}))
    config = tmp_path / "config.yaml"
    config.write_text(f"defaultPolicy: {phase}\n")
    other = tmp_path / "other"
    other.mkdir()
    refused = Daemon(internet, other, "--config", str(config))
    try:
        assert not refused.tries_to_start()
        assert "networkPolicy.setup: the default policy has no set-up phase" in refused.log
    finally:
        refused.clean_up()
    box = tmp_path / "sidecar"
    box.mkdir()
    with sidecar(internet, box) as shared:
        shared.start(allowing(plan.ALLOWED))
        answer = shared.request("POST", "/policy", in_setup(plan.DENIED))
        assert answer.status == 400 and "setup: a sidecar has no set-up phase" in answer.text, answer
        assert shared.reaches(plan.ALLOWED) and not shared.reaches(plan.DENIED)


# A run


@RUN_BY
@pytest.mark.honest("a command that installs, and then one that needs less")
def test_run(internet: Internet, sandgate: Sandgate, options: tuple[str, ...]) -> None:
    fetch = "curl -sS -m 10 https://"
    setup = f"{fetch}{plan.DENIED}/in-setup"
    main = shell(f"{fetch}{plan.ALLOWED}/later; {fetch}{plan.DENIED}/too-late; echo end $?")
    done = sandgate.run(in_setup(plan.DENIED), *main, options=(*options, "--setup", setup))
    assert done.returncode == 0 and f"served {plan.DENIED}" in done.stdout, done
    assert done.stdout.rstrip().endswith("end 6") and "sandgate: locked, as the set-up command ended" in done.stderr, done
    assert {(request.host, request.path) for request in internet.web.requests()} == {
        (plan.DENIED, "/in-setup"),
        (plan.ALLOWED, "/later"),
    }
    events = [record["event"] for record in done.audit.all]
    assert events.count("sandbox.locked") == 1 and done.audit.where(event="sandbox.locked")[0]["policyRevision"] == 2
    assert done.audit.denied("dns", host=plan.DENIED, policyRevision=2), done.audit


@pytest.mark.honest("set-up rules from the command line")
def test_run_with_rules_of_the_command_line(internet: Internet, sandgate: Sandgate) -> None:
    fetch = f"curl -sS -m 10 https://{plan.DENIED}/"
    options = ("--setup", fetch, "--setup-allow", f"{plan.DENIED}:443", "--quiet")
    done = sandgate.run(None, *shell(fetch), options=options)
    assert done.returncode == 6 and f"served {plan.DENIED}" in done.stdout, done
    assert "locked" not in done.stderr, "as it is quiet"
    assert len(internet.web.requests()) == 1


@RUN_BY
@pytest.mark.parametrize(("setup", "status"), [("exit 7", 7), ("kill -TERM $$", 143), ("no-such-command", 127)])
@pytest.mark.honest("a set-up that fails")
def test_failing_setup(
    internet: Internet, sandgate: Sandgate, tmp_path: Path, options: tuple[str, ...], setup: str, status: int
) -> None:
    started = tmp_path / "started"
    main = shell(f"touch {started}")
    done = sandgate.run(in_setup(plan.DENIED), *main, options=(*options, "--setup", setup))
    assert done.returncode == status and not started.exists(), done
    assert f"the set-up command ended with status {status}: the command is not started" in done.stderr, done


@pytest.mark.honest("command lines that mean nothing")
@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("--setup", "true"), 125, "there are no set-up rules"),
        (("--setup-allow", "a.example"), 125, "is for a set-up command"),
        (("--setup", "true", "--setup-allow", "a.example:x"), 125, "--setup-allow a.example:x: expected a port"),
    ],
)
def test_wrong_command_lines(sandgate: Sandgate, arguments: tuple[str, ...], status: int, text: str) -> None:
    done = sandgate.run(None, "true", options=arguments)
    assert done.returncode == status and text in done.stderr, done


@pytest.mark.honest("a run whose set-up ends by time")
def test_run_until_a_time(internet: Internet, sandgate: Sandgate) -> None:
    fetch = f"curl -sS -m 10 https://{plan.DENIED}/"
    running = sandgate.start(in_setup(plan.DENIED, ttl="3s"), shell(f"{fetch}; read line; {fetch}; echo end $?"))
    running.wait_for(f"served {plan.DENIED}")
    process = running.process
    assert process.stderr is not None and process.stdin is not None
    told = ""
    while "locked" not in told:
        told += process.stderr.readline()
    assert "the policy's set-up rules hold until" in told and "locked, as the set-up phase's time was over" in told
    process.stdin.write("\n")
    process.stdin.flush()
    done = running.finish()
    assert "end 6" in done.stdout and len(internet.web.requests()) == 1, done


FLOWS = {
    "tls": streams.TLS_PORT,
    "connect": streams.CONNECT_PORT,
    "plain": streams.PLAIN_PORT,
    "http": streams.HTTP_PORT,
    "udp": streams.UDP_PORT,
}


def leave_behind(directory: Path) -> str:
    """Shell words that start flows which outlive who started them, each in a session of its own, and wait until all live."""
    words = []
    for kind, port in FLOWS.items():
        program = " ".join(attack("stream", kind, plan.SINK, port))
        words.append(f"setsid {program} >{directory}/{kind} 2>&1 </dev/null &")
    waits = [f"until grep -q . {directory}/{kind}; do sleep 0.05; done" for kind in FLOWS]
    return "\n".join([*words, *waits])


@RUN_BY
@pytest.mark.attack(
    "N9 B4",
    "leaves processes running in set-up, in sessions of their own, which go on sending on five kinds of flows when the "
    "command is started",
    stopped_by="tls-sni, connect, http-host, relay, kernel",
)
def test_what_setup_left_running(
    internet: Internet, sandgate: Sandgate, stream_server: None, tmp_path: Path, options: tuple[str, ...]
) -> None:
    rules = (plan.SINK, {"target": plan.SINK, "protocol": "udp", "ports": [streams.UDP_PORT]})
    expression = f"dst host {plan.SINK4} and greater 200"
    # First without the lock: the flows go on while the command runs.
    free = tmp_path / "free"
    free.mkdir()
    running = sandgate.start(allowing(*rules), shell(f"{leave_behind(free)}\necho main; read line"), options=options)
    running.wait_for("main")
    with capture([], NODE_LINK, tmp_path / "free.pcap", expression) as outside:
        wait_until(lambda: len(_ports(outside)) == len(FLOWS), "bytes of every flow", 30)
    running.process.communicate("\n", timeout=30)
    # Then with it: nothing leaves any more when the command has begun, and every flow has ended.
    locked = tmp_path / "locked"
    locked.mkdir()
    ends = "\n".join(f"until grep -q ended {locked}/{kind}; do sleep 0.05; done" for kind in FLOWS)
    main = shell(f"date +%s.%N\n{ends}\necho main; cat {locked}/*")
    with capture([], NODE_LINK, tmp_path / "locked.pcap", expression) as outside:
        setup = ("--setup", leave_behind(locked))
        done = sandgate.run(in_setup(*rules), *main, options=(*options, *setup), timeout=90)
    assert done.returncode == 0 and "main" in done.stdout, done
    begun = float(done.stdout.splitlines()[0])
    last = max(moment for moment, _ in outside.timed())
    assert len(_ports(outside)) == len(FLOWS), outside
    assert last <= begun, f"bytes left {last - begun} s after the command had begun"


def _ports(outside: Any) -> set[int]:
    """The ports of the sink to which what was captured goes."""
    try:
        lines = [line for _, line in outside.timed()]
    except RuntimeError:
        # The last packet may not be written whole yet.
        return set()
    return {port for port in FLOWS.values() if any(f"> {plan.SINK4}.{port}:" in line for line in lines)}


@pytest.mark.honest("a set-up that leaves something running and signals its init")
def test_command_starts_once_when_setup_ends(internet: Internet, sandgate: Sandgate, tmp_path: Path) -> None:
    """The command is started when the first process of set-up ends, not when what it started does; and once."""
    marks = tmp_path / "marks"
    setup = f"(setsid sh -c 'sleep 0.3; echo late >>{marks}' &) ; kill -CHLD 1; kill -USR1 1; echo setup >>{marks}"
    main = shell(f"echo main >>{marks}; until grep -q late {marks}; do sleep 0.05; done")
    done = sandgate.run(in_setup(plan.DENIED), *main, options=("--setup", setup))
    assert done.returncode == 0, done
    assert marks.read_text().split() == ["setup", "main", "late"]


# The tools


@pytest.mark.honest("the policy commands, for a policy with a set-up phase")
def test_policy_commands(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(
        "networkPolicy:\n"
        "  egress:\n    - {action: allow, target: api.example}\n"
        "  setup:\n    ttl: 15m\n    egress:\n      - {action: allow, target: pypi.example, ports: [443]}\n"
        "expect:\n  allow: [api.example]\n  deny: [pypi.example]\n  setup: {allow: [api.example, pypi.example]}\n"
    )
    locked = tmp_path / "locked.yaml"
    locked.write_text("networkPolicy:\n  egress: [{action: allow, target: api.example}]\n")
    assert "1 rule, 1 more in set-up" in tool("policy", "check", path).stdout
    assert "4 expectations met" in tool("policy", "test", path).stdout
    assert tool("policy", "lint", path).stdout == "" and tool("policy", "fmt", "--check", path).returncode == 0
    explained = tool("policy", "explain", path, "--host", "pypi.example").stdout
    assert explained.startswith("allow\nrule: setup.egress[0] allow pypi.example\n"), explained
    assert "note: only in set-up, until the lock or " in explained and "then deny (default)" in explained, explained
    difference = tool("policy", "diff", locked, path).stdout
    assert difference == "+ tcp 443 pypi.example (until the lock)\n! tcp 443 pypi.example\n", difference
    assert json.loads(tool("policy", "diff", "--json", locked, path).stdout)["stopsAtLock"] == ["tcp 443 pypi.example"]
    exported = tool("policy", "export", "opensandbox", path)
    assert "setup: left out: 1 rule" in exported.stderr and "pypi" not in exported.stdout, exported
    suggested = tool("policy", "suggest", "--policy", path, "--audit", path)
    assert suggested.returncode != 0 and "networkPolicy.setup: a policy with a set-up phase" in suggested.stderr
    locked.write_text(locked.read_text() + "expect: {setup: {allow: [api.example]}}\n")
    tested = tool("policy", "test", locked)
    assert tested.returncode != 0 and "expect.setup: the policy has no set-up phase" in tested.stderr, tested


def test_preset(sandgate: Sandgate, internet: Internet) -> None:
    """A preset's set-up phase is part of the run's."""
    done = sandgate.run(None, "true", options=("--preset", "node-install", "--setup", "true"))
    assert done.returncode == 0 and "locked" in done.stderr, done
