"""Ways out that were thought of late: each is one of a kind that no other module has."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import plan
from lab.daemon import Daemon, attachment
from lab.internet import Internet
from lab.namespaces import Namespace
from lab.processes import wait_until
from lab.sandgate import Sandgate, allowing, attack
from test_escapes_before import HERE4, INSIDE4, MIRRED, OUTSIDE4, PREPARE, SEND, STOLEN

PYTHON = "/usr/bin/python3"
BARE = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--reuid=65534", "--clear-groups"]

NOBODY4 = (f"{plan.V4}.98", f"{plan.V4}.99")
"""Addresses outside that nobody has, who would refuse."""


def refusal(daemon: Daemon, box: Namespace, **fields: object) -> str:
    """What a request to attach the box is refused with; no table is left then."""
    where = {"netns": f"/run/netns/{box.name}", **fields}
    answer = daemon.request("POST", "/v1/sandboxes", {"id": "box", "attachment": where, "networkPolicy": allowing(plan.ALLOWED)})
    assert answer.status == 422, answer
    assert "sandgate" not in box.check("nft", "list", "ruleset")
    message: str = answer.json["message"]
    return message


# Capabilities


@pytest.mark.attack(
    "T10a", "lives in the namespace with CAP_SYS_ADMIN alone, with which it attaches a BPF program to the loopback", stopped_by="start"
)
def test_capability_that_attaches_programs(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    """bpf(2) takes CAP_SYS_ADMIN for CAP_NET_ADMIN, which rtnetlink does not."""
    administrator = ["setpriv", "--bounding-set=-all,+sys_admin", "--inh-caps=-all"]
    box.ip("address", "add", f"{HERE4}/32", "dev", "lo")
    box.check("ping", "-c", "1", "-W", "3", OUTSIDE4)

    def gets_out() -> bool:
        with internet.capture(unenforced=True) as outside:
            box.check(*BARE, PYTHON, "-c", SEND, HERE4, STOLEN)
        return STOLEN.encode() in outside.payload

    sandbox = daemon.create(allowing(plan.ALLOWED), attachment=attachment(box))
    assert not gets_out()
    down = subprocess.run(box.command(*administrator, "ip", "link", "set", "eth0", "down"), capture_output=True, text=True)
    assert "not permitted" in down.stderr, down
    box.check(*administrator, PYTHON, PREPARE, "tcx", "lo", "egress", HERE4, "eth0")
    assert gets_out(), "the rules do not hold it"
    box.check(*administrator, PYTHON, PREPARE, "free", "lo", "egress")
    assert sandbox.ask("DELETE").status == 204

    process = subprocess.Popen(box.command(*administrator, "sleep", "60"), stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n", "the process")
        assert "CAP_SYS_ADMIN" in refusal(daemon, box)
    finally:
        process.kill()
        process.wait()
    # A user namespace's own is worth nothing there.
    process = subprocess.Popen(
        box.command("setpriv", "--bounding-set=-all,+sys_admin,+setpcap", "--inh-caps=-all", "unshare", "--user", "sleep", "60"),
        stdin=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n", "the process")
        daemon.create(allowing(plan.ALLOWED), attachment={"netns": f"/run/netns/{box.name}"})
    finally:
        process.kill()
        process.wait()


# Devices whose other end is a file


@pytest.mark.attack(
    "T12 T10a",
    "takes hold of a tun or tap device that was left from before, for which it needs no privilege, and answers connections from "
    "outside that it makes up",
    stopped_by="start",
)
@pytest.mark.parametrize("kind", ["tap", "tun"])
def test_device_for_the_taking(internet: Internet, daemon: Daemon, box: Namespace, kind: str) -> None:
    """What is written to the device comes from outside for the rules, from whatever address; the answer goes to that address."""
    box.ip("tuntap", "add", "left0", "mode", kind)
    box.ip("link", "set", "left0", "up")
    for key, value in (("conf.all.rp_filter", 0), ("conf.left0.rp_filter", 0), ("tcp_fastopen", 0x203)):
        box.sysctl(f"net.ipv4.{key}", str(value))

    def answers(somebody: str) -> bool:
        with internet.capture(f"dst host {somebody}", unenforced=True) as outside:
            box.check(*attack("held_device", kind, "left0", somebody, INSIDE4, STOLEN))
        return STOLEN.encode() in outside.payload

    assert answers(NOBODY4[0]), "without rules"
    sandbox = daemon.create(allowing(plan.ALLOWED), attachment=attachment(box, acceptSidePaths=True))
    assert answers(NOBODY4[1]), "the rules do not hold it"
    assert sandbox.ask("DELETE").status == 204
    message = refusal(daemon, box, acceptRawSockets=True)
    assert "device left0" in message, message
    box.check("/bin/sh", "-c", re.search(r"remove it \((.*?)\), or say", message)[1])  # type: ignore[index]
    daemon.create(allowing(plan.ALLOWED), attachment=attachment(box))


@pytest.mark.attack(
    "T10", "has the file of a macvtap device open, whose frames leave by no hook of the network that the device is in", stopped_by="start"
)
def test_file_of_a_device(internet: Internet, daemon: Daemon, box: Namespace, tmp_path: Path) -> None:
    """The device that it stands on is in another network."""
    outside = internet.namespace
    ends = (f"sgmva-{os.getpid()}", f"sgmvb-{os.getpid()}")
    outside.ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
    try:
        for end in ends:
            outside.ip("link", "set", end, "up")
        outside.ip("link", "add", "link", ends[0], "name", "sgmv", "type", "macvtap", "mode", "bridge")
        outside.ip("link", "set", "sgmv", "netns", box.name)
        box.ip("link", "set", "sgmv", "up")
        number = box.check("/bin/sh", "-c", "cat /sys/class/net/sgmv/macvtap/*/dev").strip()
        file = tmp_path / "tap"
        os.mknod(file, 0o600 | 0o020000, os.makedev(*map(int, number.split(":"))))
        command = attack("held_device", "file", file, "ff:ff:ff:ff:ff:ff", INSIDE4, plan.SINK4, STOLEN)

        def gets_out() -> bool:
            with internet.capture(unenforced=True) as captured:
                box.check(*command)
            return STOLEN.encode() in captured.payload

        assert gets_out(), "without rules"
        sandbox = daemon.create(allowing(plan.ALLOWED), attachment=attachment(box, acceptSidePaths=True))
        assert gets_out(), "the rules do not hold it"
        assert sandbox.ask("DELETE").status == 204
        assert "device sgmv of kind macvtap" in refusal(daemon, box, acceptRawSockets=True)
    finally:
        subprocess.run(outside.command("ip", "link", "delete", ends[0]), capture_output=True)
