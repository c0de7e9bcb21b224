"""Somebody else changes the rules of a network that is guarded: it is noticed, recorded, and closes the sandbox for good."""

from __future__ import annotations


import pytest

from lab import plan
from lab.daemon import Daemon
from lab.internet import Internet
from lab.namespaces import Namespace
from lab.processes import check, wait_until
from lab.sandgate import allowing

CHANGES = {
    "a table": "add table ip nat",
    "a chain that accepts first": "add table inet a; add chain inet a c { type filter hook output priority -400; }",
    "a table of the devices": "add table netdev sandgate",
}


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
