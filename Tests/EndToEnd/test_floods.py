"""Floods: one sandbox takes all it can; the others go on, the daemon's memory stays bounded, and no count is lost.

In each test the quiet sandboxes' queries and requests are measured with the flood and without it in turn, all have to
succeed, and how long they took is printed (pytest -s). SANDGATE_FLOOD_FACTOR makes idle connections more:
50 holds 100,000 of them, for which as many daemons are started as the hard limit of descriptors makes necessary.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import plan
from lab import holder as holder_program
from lab.daemon import Daemon, attachment, running
from lab.flooding import Flood, Node, node
from lab.internet import Internet
from lab.namespaces import Namespace
from lab.processes import Child, check, wait_until
from lab.sandgate import allowing

SCALE = int(os.environ.get("SANDGATE_FLOOD_FACTOR", "1"))
HELD_PORT = 9500
WILD = f"*.{plan.WILD}"


@contextlib.contextmanager
def holder(internet: Internet, port: int) -> Iterator[None]:
    """A silent server, in the lab's Internet."""
    program = Path(holder_program.__file__)
    child = Child(internet.namespace.command("/usr/bin/python3", program, plan.SINK4, str(port)), "serving")
    try:
        yield
    finally:
        child.stop()


# MARK: - DNS


@pytest.mark.attack("B3 D1", "asks for one allowed name without pause", stopped_by="limits")
def test_queries_for_one_name(daemon: Daemon) -> None:
    with node(daemon, allowing(plan.ALLOWED)) as lab:
        flood = lab.flood("queries", plan.DNS4, plan.ALLOWED, 64)
        lab.compare("one name", flood)
        counts = flood.end()
        assert counts["sent"] == counts["answered"] == counts["rcode 0"]
        lab.expect(counts["sent"], "dns.allowed rule", "audit.lost")


@pytest.mark.attack("B3 D1", "asks for denied names of random labels without pause", stopped_by="dns, limits")
def test_queries_for_denied_names(internet: Internet, daemon: Daemon) -> None:
    with node(daemon, allowing(plan.ALLOWED)) as lab:
        internet.forget()
        flood = lab.flood("queries", plan.DNS4, f"RANDOM.{plan.DENIED}", 64)
        lab.compare("denied names", flood)
        counts = flood.end()
        assert counts["sent"] == counts["answered"] == counts["rcode 3"]
        lab.expect(counts["sent"], "dns.denied default", "audit.lost")
        assert internet.dns.names() <= {plan.ALLOWED}


@pytest.mark.attack("D4 B3", "asks for random labels below an allowed wildcard without pause", stopped_by="dns, limits")
def test_queries_below_a_wildcard(internet: Internet, tmp_path: Path) -> None:
    """A setting says how many new names a minute are asked outside."""
    with running(internet, tmp_path, "--limit", "newNamesPerMinute=50") as daemon:
        with node(daemon, allowing(WILD)) as lab:
            internet.forget()
            begun = time.monotonic()
            flood = lab.flood("queries", plan.DNS4, f"RANDOM.{plan.WILD}", 64)
            lab.compare("random labels", flood)
            counts = flood.end()
            minutes = int((time.monotonic() - begun) / 60) + 1
            assert counts["sent"] == counts["answered"], counts
            found = lab.expect(counts["sent"], "dns.allowed rule", "dns.denied dns-budget", "audit.lost")
            asked = {name for name in internet.dns.names() if name.endswith(plan.WILD)}
            assert 0 < len(asked) <= 50 * minutes, len(asked)
            assert found["dns.denied dns-budget"] > 0


@pytest.mark.attack("D7 B3", "asks without pause over more TCP clients of DNS than it may have", stopped_by="dns, limits")
def test_queries_over_tcp(internet: Internet, tmp_path: Path) -> None:
    with running(internet, tmp_path, "--limit", "maximumDNSClients=20") as daemon:
        with node(daemon, allowing(plan.ALLOWED)) as lab:
            flood = lab.flood("tcp-queries", plan.DNS4, f"RANDOM.{plan.DENIED}", 60, "reads")
            lab.compare("over TCP", flood)
            counts = flood.end()
            assert lab.count()["dns.denied default"] > 0 and counts["reset"] > 0, counts


@pytest.mark.attack("D7 B3", "holds more TCP clients of DNS that wait for an answer than it may have", stopped_by="limits")
def test_more_clients_than_may_be(internet: Internet, tmp_path: Path) -> None:
    """A client that waits for nothing makes room for another; where all wait, the next one is reset and counted."""
    settings = tmp_path / "serve.yaml"
    settings.write_text("maximumDNSClients: 20\nupstreamMilliseconds: 60000\n")
    with running(internet, tmp_path, "--config", str(settings)) as daemon:
        with node(daemon, allowing(WILD)) as lab:
            with stopped(internet.dns.pid):
                flood = lab.flood("waiting-clients", plan.DNS4, f"RANDOM.{plan.WILD}", plan.DENIED, 60)
                lab.compare("waiting clients", flood)
                counts = flood.end()
            assert counts["waiting"] == 20 and counts["reset"] == 40, counts
            lab.expect(40, "dns.denied client-limit")


@pytest.mark.attack("B3 D1", "has more queries come at once than its resolver's socket takes", stopped_by="limits")
def test_more_queries_than_the_socket_takes(internet: Internet, daemon: Daemon) -> None:
    """What the kernel loses of them is counted too. A daemon that stands still is as slow as one can be; 900 are fewer than
    may be lost on the way to the socket (net.core.netdev_max_backlog)."""
    with node(daemon, allowing(plan.ALLOWED)) as lab:
        with stopped(daemon.pid):
            flood = lab.flood("silent-queries", plan.DNS4, f"RANDOM.{plan.DENIED}", 900)
        found = lab.expect(900, "dns.denied default", "dns.denied query-limit")
        assert found["dns.denied query-limit"] > 0, found
        assert flood.end()["answered"] == found["dns.denied default"]


@pytest.mark.attack(
    "D7 B3", "asks over TCP without ever reading an answer, to have the resolver keep them", stopped_by="dns, limits"
)
def test_answers_that_nobody_reads(daemon: Daemon) -> None:
    with node(daemon, allowing(plan.ALLOWED)) as lab:
        flood = lab.flood("tcp-queries", plan.DNS4, f"RANDOM.{plan.DENIED}", 60, "never")
        lab.compare("unread answers", flood)
        flood.end()


@pytest.mark.attack(
    "B3 N5", "has more queries wait for a nameserver that does not answer than may wait", stopped_by="dns, limits"
)
def test_queries_that_wait(internet: Internet, tmp_path: Path) -> None:
    """Beside it, what others ask goes to the same silent nameserver; what they have asked before is in their caches."""
    with running(internet, tmp_path, "--limit", "maximumQueries=100", "--limit", "newNamesPerMinute=100000") as daemon:
        with node(daemon, allowing(WILD)) as lab:
            # From here on, the nameserver is silent.
            with stopped(internet.dns.pid):
                flood = lab.flood("blind-queries", plan.DNS4, f"RANDOM.{plan.WILD}", "0.0005")
                lab.compare("waiting queries", flood)
                counts = flood.end()
            assert counts["rcode 2"] > 0, counts
            found = lab.count()
            assert found["dns.denied query-limit"] > 0, found
            # Those that still wait are told of when they have failed.
            assert found["dns.denied query-limit"] + found["audit.lost"] <= counts["sent"], (found, counts)
            assert counts["answered"] <= sum(found[key] for key in found if key.startswith(("dns", "audit.lost")))


@pytest.mark.attack("N5 B3", "has allowed names lead to more addresses than may be pinned", stopped_by="dns, limits")
def test_more_pins_than_may_be(internet: Internet, tmp_path: Path, nameserver: None) -> None:
    """Names of the attacker's own, each of which leads where it says. The others have room of their own."""
    with running(internet, tmp_path, "--limit", "maximumPins=50", upstream_dns=plan.SCRIPTED_DNS4) as daemon:
        sandbox, other = (daemon.create(allowing("*.hostile.example")) for _ in range(2))
        words = [f"{0xC6336400 + number:x}" for number in range(120, 180)]
        flood = Flood(sandbox, "look-up", "to-WORD.hostile.example", *words)
        flood.begin()
        counts = flood.end()
        assert counts["resolved"] == 50 and counts["unresolved"] == 10, counts
        assert sandbox.ask("GET", "/activity").json["pins"] == 50
        denied = [record["reason"] for record in daemon.records() if record["event"] == "dns.denied"]
        assert len(denied) >= 10 and set(denied) == {"pin-limit"}, denied
        flood = Flood(other, "look-up", "to-WORD.hostile.example", words[-1])
        flood.begin()
        assert flood.end()["resolved"] == 1


# MARK: - Connections


@pytest.mark.attack("P7 B3", "connects and hangs up without pause", stopped_by="limits")
@pytest.mark.parametrize("end", ["close", "reset"])
def test_connect_and_hang_up(daemon: Daemon, end: str) -> None:
    with node(daemon, allowing(plan.ALLOWED)) as lab:
        # Resolved, so that the connections reach the proxy.
        assert lab.hostile.reaches(plan.ALLOWED)
        flood = lab.flood("connections", plan.SHARED4, 443, end)
        lab.compare(f"connect and {end}", flood)
        counts = flood.end()
        assert counts["connected"] > 100, counts


@pytest.mark.attack("P7 B3", "connects to the explicit proxy and hangs up without pause", stopped_by="limits")
def test_connect_to_the_proxy_and_hang_up(daemon: Daemon) -> None:
    with node(daemon, allowing(plan.ALLOWED)) as lab:
        flood = lab.flood("connections", "127.0.0.1", 64128, "close")
        lab.compare("connect to the proxy", flood)
        assert flood.end()["connected"] > 100


@pytest.mark.attack("P7 B3", "opens more connections than it may have", stopped_by="limits")
def test_more_connections_than_may_be(internet: Internet, tmp_path: Path) -> None:
    """What is beyond is reset and counted. The others have room of their own."""
    options = ("--limit", "maximumConnections=200")
    with holder(internet, HELD_PORT), running(internet, tmp_path, *options) as daemon:
        with node(daemon, allowing(plan.SINK4)) as lab:
            flood = lab.flood("held", plan.SINK4, HELD_PORT, 500, "opaque")
            lab.compare("too many connections", flood)
            found = lab.expect(300, "connection.denied connection-limit")
            assert found["connection.allowed rule"] == 200, found
            counts = flood.end()
            # Some hear of it while they connect, others after that.
            assert counts["connected"] + counts["ECONNRESET"] == 500 and counts["open"] == 200, counts
            assert counts["reset"] + counts["closed"] + counts["ECONNRESET"] == 300, counts


@pytest.mark.attack("P1 P7", "sends a thousand ClientHellos byte by byte, and never ends them", stopped_by="limits")
def test_slow_hellos(internet: Internet, tmp_path: Path) -> None:
    with running(internet, tmp_path, "--limit", "firstBytesMilliseconds=3000") as daemon:
        with node(daemon, allowing(plan.ALLOWED)) as lab:
            assert lab.hostile.reaches(plan.ALLOWED)
            hello = r"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "r" * 400
            flood = lab.flood("held", plan.SHARED4, 443, 1000, hello)
            lab.compare("slow hellos", flood)
            wait_until(lambda: lab.hostile.ask("GET", "/activity").json["connections"] == 0, "the deadline", 60)
            counts = flood.end()
            assert counts["connected"] == 1000 and counts["open"] == 0, counts
            lab.expect(1000, "connection.denied deadline")


@pytest.mark.attack("P5 P7", "sends a thousand HTTP heads byte by byte, and never ends them", stopped_by="limits")
@pytest.mark.parametrize("way", ["transparent", "proxy"])
def test_slow_heads(internet: Internet, tmp_path: Path, way: str) -> None:
    with running(internet, tmp_path, "--limit", "firstBytesMilliseconds=3000") as daemon:
        with node(daemon, allowing(plan.ALLOWED)) as lab:
            assert lab.hostile.reaches(plan.ALLOWED)
            head = rf"GET / HTTP/1.1\r\nHost: {plan.ALLOWED}\r\nX: " + "x" * 400
            target = (plan.SHARED4, 80)
            if way == "proxy":
                head, target = rf"CONNECT {plan.ALLOWED}:443 HTTP/1.1\r\nX: " + "x" * 400, ("127.0.0.1", 64128)
            flood = lab.flood("held", *target, 1000, head)
            lab.compare(f"slow heads, {way}", flood)
            wait_until(lambda: lab.hostile.ask("GET", "/activity").json["connections"] == 0, "the deadline", 60)
            counts = flood.end()
            assert counts["connected"] == 1000 and counts["open"] == 0, counts
            lab.expect(1000, "connection.denied deadline")


@pytest.mark.attack(
    "P5 P7 B3", "sends HTTP requests without ever reading an answer, to have the proxy keep them", stopped_by="limits"
)
def test_requests_without_reading(internet: Internet, daemon: Daemon) -> None:
    with node(daemon, allowing(plan.FILES)) as lab:
        lab.hostile.fetch(plan.FILES)
        request = rf"GET /big.bin HTTP/1.1\r\nHost: {plan.FILES}\r\nX: {'x' * 1000}\r\n\r\n"
        floods = [lab.flood("requests", plan.CONTENT4, 80, request) for _ in range(4)]
        lab.compare("unread answers over HTTP", floods[0])
        assert sum(flood.end()["bytes"] for flood in floods) > 0


@pytest.mark.attack("P7 B3", "holds thousands of idle connections that are relayed", stopped_by="limits")
def test_idle_connections(internet: Internet, tmp_path: Path) -> None:
    """As many daemons share them as their descriptors ask for, two for each connection; each has a sandbox with others
    beside it. A source address has ports for 28,000 to one server."""
    count = 2_000 * SCALE
    most = min((resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 1_000) // 2, 25_000)
    groups = -(-count // most)
    per = -(-count // groups)
    with contextlib.ExitStack() as stack:
        labs, floods, before = [], [], []
        for group in range(groups):
            port = HELD_PORT + group
            stack.enter_context(holder(internet, port))
            directory = tmp_path / str(group)
            directory.mkdir()
            daemon = stack.enter_context(running(internet, directory, "--limit", "maximumConnections=50000"))
            lab = stack.enter_context(node(daemon, allowing(plan.SINK4)))
            labs.append(lab)
            before.append(lab.kibibytes)
            floods.append(lab.flood("held", plan.SINK4, port, per, "o"))
        for lab, kibibytes in zip(labs, before):
            wait_until(lambda: lab.connections >= per, "all connections", 300)
            each = (lab.kibibytes - kibibytes) * 1024 / per
            print(f"{per} idle connections: {each:.0f} bytes of a daemon each")
            # What a connection takes in bytes is bounded, whatever their number.
            assert each < 8_192, each
        labs[-1].compare(f"{groups} times {per} idle connections", floods[-1])
        for lab, flood in zip(labs, floods):
            counts = flood.end()
            assert counts["open"] == per, counts
            lab.expect(per, "connection.allowed rule")


# MARK: - Packets


@pytest.mark.attack(
    "B3 N1", "sends datagrams to denied addresses without pause, to drown the record of what is refused", stopped_by="kernel"
)
def test_storm_of_refused_packets(internet: Internet, daemon: Daemon) -> None:
    """100 a second have a record each; how many there were besides, `audit.lost` says: together what the rules counted."""
    with node(daemon, allowing(plan.ALLOWED)) as lab:
        with internet.capture(f"dst host {plan.SINK4} or dst host {plan.SINK6}") as outside:
            flood = lab.flood("packets", f"{plan.SINK4}:4444", f"{plan.SINK6}:4444", f"{plan.NODE4}:53")
            lab.compare("refused packets", flood)
            counts = flood.end()
        assert not outside.lines and counts["sent"] > 3_000, (outside, counts)

        def told() -> int:
            found = lab.count()
            return found["connection.denied default"] + found["connection.denied guard-range"] + found["audit.lost"]

        # The probes of the self-test were refused too, and are nobody's records.
        wait_until(lambda: told() >= lab.refused_by_kernel() - 32, "all refused packets to be told of", 60)
        assert told() <= lab.refused_by_kernel()


@pytest.mark.attack(
    "B3", "begins datagram flows to an allowed address without pause, to fill tables of flows", stopped_by="relay, limits"
)
def test_flood_of_datagram_flows(internet: Internet, daemon: Daemon) -> None:
    """So many a second are taken; the node's own connection tracking and descriptors have no more to remember."""
    rule = {"target": plan.SINK4, "protocol": "udp", "ports": [4444]}
    with node(daemon, allowing(rule)) as lab:
        descriptors = daemon.descriptors
        flood = lab.flood("flows", plan.SINK4, 4444)
        lab.compare("datagram flows", flood)
        assert daemon.descriptors - descriptors < 1_024 + 64
        counts = flood.end()
        found = lab.count()
        assert found["connection.denied flow-limit"] > 0, found
        begun = found["connection.allowed rule"]
        assert begun <= len(internet.sinks.arrivals()) + 64
        # Those that the kernel's own buffer lost are in neither.
        assert begun + found["connection.denied flow-limit"] <= counts["sent"], (found, counts)


@pytest.mark.attack("B3 B4", "has more datagram flows than may be at once", stopped_by="relay, limits")
def test_more_datagram_flows_than_may_be(internet: Internet, tmp_path: Path) -> None:
    """The one that has been silent longest makes room, which its record says."""
    rule = {"target": plan.SINK4, "protocol": "udp", "ports": [4444]}
    with running(internet, tmp_path, "--limit", "maximumDatagramFlows=50") as daemon:
        with node(daemon, allowing(rule)) as lab:
            flood = lab.flood("flows", plan.SINK4, 4444)
            lab.compare("too many datagram flows", flood)
            flood.end()
            found = lab.count()
            assert found["connection.closed flow-limit"] >= found["connection.allowed rule"] - 50 > 0, found


@pytest.mark.attack("B3", "begins short connections without pause, to fill the connection tracking", stopped_by="kernel")
def test_pressure_on_connection_tracking(daemon: Daemon) -> None:
    """Its entries are its network's own: the others have none of them."""
    with node(daemon, allowing(plan.ALLOWED)) as lab:
        flood = lab.flood("blind-queries", plan.DNS4, f"RANDOM.{plan.DENIED}", 0)
        others = lab.flood("connections", plan.SHARED4, 53, "close")
        lab.compare("connection tracking", flood)
        wait_until(lambda: lab.tracked(lab.hostile) > 2_000, "thousands of entries", 120)
        others.end()
        flood.end()
        for quiet in lab.quiet:
            assert lab.tracked(quiet.sandbox) < 500


# MARK: - Attachments


@pytest.mark.attack(
    "B3 T4", "floods with queries, connections and packets while other networks are attached", stopped_by="limits"
)
def test_networks_attached_beside_floods(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    """At the first try: made or found, each is tried by its self-test, and guarded, while the floods go on."""
    with node(daemon, allowing(plan.ALLOWED)) as lab:
        assert lab.hostile.reaches(plan.ALLOWED)
        lab.flood("queries", plan.DNS4, f"RANDOM.{plan.DENIED}", 64)
        lab.flood("connections", plan.SHARED4, 443, "reset")
        lab.flood("packets", f"{plan.SINK4}:4444", f"{plan.NODE4}:53")
        before = lab.refused_by_kernel()
        made = [daemon.create(allowing(plan.ALLOWED)) for _ in range(8)]
        for _ in range(4):
            found = daemon.create(allowing(plan.ALLOWED), attachment=attachment(box))
            assert found.reaches(plan.ALLOWED) and not found.reaches(plan.DENIED)
            assert found.ask("DELETE").status == 204
        for sandbox in made:
            assert sandbox.reaches(plan.ALLOWED) and not sandbox.reaches(plan.DENIED)
        assert lab.refused_by_kernel() > before + 1_000, "the flood has gone on"


# MARK: - The audit


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that does nothing for as long as the `with` lasts."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture
def slow_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, which fsfreeze(8) can have wait."""
    image, place = tmp_path / "disk", tmp_path / "audit"
    place.mkdir()
    check("truncate", "-s", "256M", image)
    check("mkfs.ext4", "-q", image)
    check("mount", "-o", "loop", image, place)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], capture_output=True)


@contextlib.contextmanager
def frozen(place: Path) -> Iterator[None]:
    """What is written to the file system waits for as long as the `with` lasts."""
    check("fsfreeze", "--freeze", place)
    try:
        yield
    finally:
        check("fsfreeze", "--unfreeze", place)


@pytest.mark.attack(
    "B3", "floods with queries while the disk of the audit trail does not answer, to have the others' records lost",
    stopped_by="limits",
)
def test_audit_that_cannot_keep_up(internet: Internet, tmp_path: Path, slow_disk: Path) -> None:
    """Traffic goes on, memory stays bounded, the flood's own records are what is lost, and their number is told."""
    options = tmp_path / "serve.yaml"
    options.write_text("auditQueueRecords: 60000\nauditRecordsPerSecondWhenLate: 500\n")
    with running(internet, tmp_path, "--config", str(options)) as daemon:
        with node(daemon, allowing(plan.ALLOWED)) as lab:
            before = daemon.metrics()
            with frozen(slow_disk):
                flood = lab.flood("queries", plan.DNS4, f"RANDOM.{plan.DENIED}", 64)
                wait_until(lambda: flood_has_filled(lab), "the queue to be half full", 120)
                lab.compare("slow audit", flood)
                counts = flood.end()
            assert counts["sent"] == counts["answered"]
            found = lab.expect(counts["sent"], "dns.denied default", "audit.lost")
            assert found["audit.lost"] > 0
            # Of the others nothing is missing: each query and request of theirs has its records.
            for quiet in lab.quiet:
                others = lab.count(quiet.sandbox)
                assert others["audit.lost"] == 0 and others["connection.allowed rule"] == others["connection.closed rule"]
                assert others["connection.allowed rule"] >= 6 * 12, others
            # The counters have counted every one.
            label = 'sandgate_events_total{event="dns.denied",layer="dns",verdict="deny",reason="default"}'
            after = daemon.metrics()
            assert after[label] - before.get(label, 0) == counts["sent"], (after[label], counts)
            assert after["sandgate_audit_lost_total"] == found["audit.lost"]


def flood_has_filled(lab: Node) -> bool:
    """Asked of memory: what asks for records would wait for the disk."""
    return lab.daemon.metrics()["sandgate_audit_queue_records"] > 30_000
