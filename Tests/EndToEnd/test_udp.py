"""UDP by rule: what a rule allows passes through the relay, everything else is refused. Judged in the Internet."""

from __future__ import annotations

import shlex

import pytest

from lab import plan
from lab.internet import Internet
from lab.machine import network_below
from lab.processes import check
from lab.sandgate import Sandgate, after_resolving, allowing, attack, shell

SINK_PACKETS = f"udp and (host {plan.SINK4} or host {plan.SINK6})"

BOTH = pytest.mark.parametrize("address", [plan.SINK4, plan.SINK6], ids=["ipv4", "ipv6"])


def udp(target: str, *ports: int | str) -> dict[str, object]:
    """A rule that opens UDP."""
    return {"target": target, "protocol": "udp"} | ({"ports": list(ports)} if ports else {})


@pytest.mark.honest("datagrams to a name: NTP, QUIC and other ports")
@pytest.mark.parametrize("port", [123, 443, 4444, 5353])
@BOTH
def test_rule_about_a_name(internet: Internet, sandgate: Sandgate, address: str, port: int) -> None:
    command = after_resolving(plan.SINK, then=attack("packets", "udp", address, port, "by its name"))
    run = sandgate.run(allowing(udp(plan.SINK, port)), *command)
    assert run.returncode == 0 and "by its name" in run.stdout, run
    (arrival,) = internet.sinks.arrivals()
    assert (arrival.address, arrival.port, arrival.data) == (address, port, "by its name")
    (allowed,) = run.audit.where(event="connection.allowed", protocol="udp")
    assert (allowed["host"], allowed["ip"], allowed["port"], allowed["reason"]) == (plan.SINK, address, port, "rule")
    (closed,) = run.audit.where(event="connection.closed", protocol="udp")
    assert (closed["bytesUp"], closed["bytesDown"]) == (len("by its name"), len("by its name"))
    assert not run.audit.denied("ip"), run


@BOTH
def test_rule_about_an_address(internet: Internet, sandgate: Sandgate, address: str) -> None:
    """It needs no ports."""
    run = sandgate.run(allowing(udp(address)), *attack("packets", "udp", address, 4444, "by its address"))
    assert run.returncode == 0 and "by its address" in run.stdout, run
    assert internet.sinks.data() == "by its address"
    assert run.audit.where(event="connection.allowed", ip=address, protocol="udp"), run


@pytest.mark.attack("N2 P4", "sends datagrams to a name whose UDP rule lists no ports", stopped_by="kernel")
@BOTH
def test_name_rule_without_ports(internet: Internet, sandgate: Sandgate, address: str) -> None:
    command = after_resolving(plan.SINK, then=attack("packets", "udp", address, 4444, "no ports listed"))
    assert internet.unenforced(command).returncode == 0
    internet.forget()

    run = sandgate.run(allowing(udp(plan.SINK)), *command)
    assert run.returncode != 0 and "PermissionError" in run.stderr, run
    assert internet.sinks.arrivals() == []


@pytest.mark.attack(
    "N2",
    "sends datagrams to a port that the rule for its address does not list, or lists for another name",
    stopped_by="kernel, relay",
)
@BOTH
def test_other_port_of_the_same_address(internet: Internet, sandgate: Sandgate, address: str) -> None:
    """Refused by the kernel where no rule opens the port, by the relay where one opens it for another name."""
    for policy in (
        allowing(udp(plan.SINK, 123)),
        allowing(udp(plan.SINK, 123), udp(plan.MAIL, 4444)),
        allowing(udp(address, 123)),
        allowing(udp(address, 123), udp(plan.GREETER4, 4444), udp(plan.GREETER6, 4444)),
    ):
        lookups = (plan.SINK,) if plan.SINK in str(policy) else ()
        command = after_resolving(*lookups, then=attack("packets", "udp", address, 4444, "to another port"))
        assert internet.unenforced(command).returncode == 0
        internet.forget()

        with internet.capture(SINK_PACKETS) as outside:
            run = sandgate.run(policy, *command)
        assert run.returncode != 0 and ("PermissionError" in run.stderr or "OSError" in run.stderr), run
        assert not outside.lines and internet.sinks.arrivals() == []
        assert run.audit.denied("ip", event="connection.denied", ip=address, port=4444, protocol="udp"), run


@pytest.mark.attack("N2", "sends datagrams to a port that is open for another name", stopped_by="relay")
@BOTH
def test_refusal_by_the_relay_is_told(internet: Internet, sandgate: Sandgate, address: str) -> None:
    policy = allowing(udp(plan.SINK, 123), udp(plan.MAIL, 4444))
    run = sandgate.run(policy, *after_resolving(plan.SINK, then=attack("datagrams", "error", address, 4444)))
    assert "No route to host" in run.stderr or "PermissionError" in run.stderr, f"told, not left to wait: {run}"
    assert internet.sinks.arrivals() == []


@BOTH
def test_port_unreachable_is_told(internet: Internet, sandgate: Sandgate, address: str) -> None:
    command = attack("datagrams", "error", address, 9)
    assert "ConnectionRefusedError" in internet.unenforced(command).stderr
    run = sandgate.run(allowing(udp(address, 9)), *command)
    assert "ConnectionRefusedError" in run.stderr, run


@pytest.mark.attack("P4", "sends a QUIC Initial to a pinned address whose rules do not open UDP", stopped_by="kernel")
@BOTH
def test_quic(internet: Internet, sandgate: Sandgate, address: str) -> None:
    """Refused unless the policy asks for it."""
    command = after_resolving(plan.SINK, then=attack("packets", "quic", address, 443))
    assert "1200 bytes" in internet.unenforced(command).stdout
    internet.forget()
    for policy in (allowing(plan.SINK), allowing({"target": plan.SINK, "ports": [443], "protocol": "tcp"})):
        with internet.capture(SINK_PACKETS) as outside:
            run = sandgate.run(policy, *command)
        assert run.returncode != 0 and "PermissionError" in run.stderr, run
        assert not outside.lines and internet.sinks.arrivals() == []
        assert run.audit.denied("ip", ip=address, port=443, protocol="udp"), run

    run = sandgate.run(allowing(udp(plan.SINK, 443)), *command)
    assert run.returncode == 0 and "1200 bytes" in run.stdout, run
    assert run.audit.where(event="connection.allowed", ip=address, port=443, protocol="udp"), run


@pytest.mark.attack(
    "N1", "sends datagrams to an allowed name's address that nobody resolved", stopped_by="kernel, relay"
)
@BOTH
def test_address_that_is_not_pinned(internet: Internet, sandgate: Sandgate, address: str) -> None:
    """The policy allows the name, which nobody has resolved."""
    command = attack("packets", "udp", address, 4444, "never resolved")
    assert "never resolved" in internet.unenforced(command).stdout
    internet.forget()
    run = sandgate.run(allowing(udp(plan.SINK, 4444)), *command)
    assert run.returncode != 0, run
    assert internet.sinks.arrivals() == []
    assert run.audit.denied("ip", ip=address, port=4444, protocol="udp"), run


@pytest.mark.honest("datagrams of 1 to 65,507 bytes")
@pytest.mark.parametrize("size", [1, 1472, 1473, 9000, 65507])
@BOTH
def test_sizes(internet: Internet, sandgate: Sandgate, address: str, size: int) -> None:
    command = attack("datagrams", "echo", address, 4444, size)
    assert internet.unenforced(command).stdout == "same\n"
    run = sandgate.run(allowing(udp(address, 4444)), *command)
    assert run.stdout == "same\n", run
    (closed,) = run.audit.where(event="connection.closed", protocol="udp")
    assert (closed["bytesUp"], closed["bytesDown"]) == (size, size), run


@pytest.mark.honest("one socket for datagrams to several destinations")
@BOTH
def test_one_socket_to_several_destinations(internet: Internet, sandgate: Sandgate, address: str) -> None:
    """The kernel gives each of them a source of its own, so that answers find their way."""
    ports = (123, 443, 4444, 5353)
    run = sandgate.run(allowing(udp(address)), *attack("datagrams", "shared", address, *ports))
    expected = [f"{turn} to {port} from {port}" for turn in range(2) for port in ports]
    assert run.stdout.splitlines() == expected, run
    assert len(run.audit.where(event="connection.allowed", protocol="udp")) == len(ports), run
    arrivals = internet.sinks.arrivals()
    assert sorted((arrival.port, arrival.data) for arrival in arrivals) == sorted(
        (port, f"{turn} to {port}") for turn in range(2) for port in ports
    )


@pytest.mark.honest("200 flows of datagrams")
@BOTH
def test_many_flows(internet: Internet, sandgate: Sandgate, address: str) -> None:
    run = sandgate.run(allowing(udp(address, 4444)), *attack("datagrams", "many", address, 4444, 200))
    assert run.stdout == "200 answered\n", run
    assert len(run.audit.where(event="connection.allowed", protocol="udp")) == 200, run
    closed = run.audit.where(event="connection.closed", protocol="udp")
    assert sum(record["bytesUp"] for record in closed) == sum(len(f"flow {number}") for number in range(200)), run
    assert len(internet.sinks.arrivals()) == 200


@pytest.mark.honest("a flow of datagrams that pauses for longer than the kernel remembers it")
def test_pause_longer_than_the_kernel_remembers(internet: Internet, sandgate: Sandgate) -> None:
    """The kernel's connection tracking forgets a flow after half a minute, here after a second; the program goes on from the
    same port."""
    flow = attack("datagrams", "slow", plan.SINK4, 4444, 0, 4, 1)
    running = sandgate.start(allowing(udp(plan.SINK4, 4444)), shell(f"echo begun; read line; exec {shlex.join(flow)}"))
    running.wait_for("begun")
    network = network_below(running.pid)
    for timeout in ("nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"):
        check("nsenter", f"--net={network}", "sysctl", "-w", f"net.netfilter.{timeout}=1")
    assert running.process.stdin is not None
    running.process.stdin.write("go\n")
    run = running.finish()
    assert run.stdout.splitlines() == ["after 0", "after 4", "after 1"], run
    assert sorted(arrival.data for arrival in internet.sinks.arrivals()) == ["after 0", "after 1", "after 4"]


@pytest.mark.attack(
    "T12", "sends from outside to the port of a flow, from an address that is not its peer's", stopped_by="relay"
)
def test_answers_from_another_source_are_not_let_in(internet: Internet, sandgate: Sandgate) -> None:
    """Whoever learns the port outside and sends to it reaches nobody."""
    running = sandgate.start(
        allowing(udp(plan.SINK4, 4444)), attack("datagrams", "slow", plan.SINK4, 4444, 0, 2, 0), own_session=True
    )
    running.wait_for("after 0")
    (arrival,) = internet.sinks.arrivals()
    script = (
        "import socket, sys\n"
        "sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "sender.bind((sys.argv[1], 4444))\n"
        "for _ in range(5): sender.sendto(b'forged', (sys.argv[2], int(sys.argv[3])))\n"
    )
    forge = ["/usr/bin/python3", "-c", script, plan.DENIED4, arrival.peer, str(arrival.peer_port)]
    internet.namespace.check(*forge)
    run = running.finish()
    assert run.stdout.splitlines() == ["after 2", "after 0"], run


@pytest.mark.attack("N1", "sends datagrams straight to the relay's own port", stopped_by="relay")
def test_relay_cannot_be_addressed(internet: Internet, sandgate: Sandgate) -> None:
    """A datagram straight to the relay's port wanted to go nowhere."""
    for loopback in ("127.0.0.1", "::1"):
        run = sandgate.run(allowing(udp("0.0.0.0/0"), udp("::/0")), *attack("packets", "udp", loopback, 64117, "to whom?"))
        assert run.returncode != 0, run
        assert not run.audit.where(event="connection.allowed"), run
    assert internet.sinks.arrivals() == []


@pytest.mark.attack("N4 N1", "sends datagrams into guard ranges under a rule for all addresses", stopped_by="kernel")
@pytest.mark.parametrize("target", ["0.0.0.0/0", "::/0"])
def test_guard_ranges_stay_closed(internet: Internet, sandgate: Sandgate, target: str) -> None:
    guarded = plan.REACHABLE_GUARDED4 if "." in target else plan.REACHABLE_GUARDED6
    node = plan.NODE4 if "." in target else plan.NODE6
    for address in (*guarded, node):
        run = sandgate.run(allowing(udp(target)), *attack("packets", "udp", address, plan.CANARY_PORT, "guarded"))
        assert run.returncode != 0 and "PermissionError" in run.stderr, run
        assert run.audit.denied("ip", ip=address, reason="guard-range"), run
    assert internet.canary.arrivals() == []


@pytest.mark.attack("N1", "sends datagrams where the default allows", stopped_by="kernel")
def test_default_allow_is_not_for_datagrams(internet: Internet, sandgate: Sandgate) -> None:
    command = attack("packets", "udp", plan.SINK4, 4444, "by default")
    assert "by default" in internet.unenforced(command).stdout
    internet.forget()
    run = sandgate.run({"defaultAction": "allow"}, *command)
    assert run.returncode != 0 and "PermissionError" in run.stderr, run
    assert internet.sinks.arrivals() == []


@pytest.mark.attack("N1 N2", "sends datagrams to what a rule denies before another allows it", stopped_by="kernel")
def test_deny_rule_before_an_allow_rule(internet: Internet, sandgate: Sandgate) -> None:
    policy = allowing(udp(f"{plan.V4}.0/24"))
    policy["egress"].insert(0, {"action": "deny", "target": plan.SINK4, "ports": [4444]})
    command = attack("packets", "udp", plan.SINK4, 4444, "denied")
    assert "denied" in internet.unenforced(command).stdout
    internet.forget()
    run = sandgate.run(policy, *command)
    assert run.returncode != 0, run
    (denied,) = run.audit.denied("ip", ip=plan.SINK4, port=4444, protocol="udp")
    assert denied["reason"] == "rule" and denied["rule"]["index"] == 0, run
    run = sandgate.run(policy, *attack("packets", "udp", plan.SINK4, 123, "allowed"))
    assert run.returncode == 0, run
    assert internet.sinks.data() == "allowed"


@BOTH
def test_report_mode(internet: Internet, sandgate: Sandgate, address: str) -> None:
    command = attack("packets", "udp", address, 4444, "would be denied")
    run = sandgate.run(allowing(mode="report"), *command)
    assert run.returncode == 0 and "would be denied" in run.stdout, run
    assert internet.sinks.data() == "would be denied"
    assert run.audit.where(ip=address, port=4444, protocol="udp", reason="default"), run


@pytest.mark.attack("N4", "sends datagrams into guard ranges in report mode", stopped_by="kernel")
@pytest.mark.parametrize("address", [*plan.REACHABLE_GUARDED4[:2], plan.NODE4])
def test_report_mode_keeps_guard_ranges(internet: Internet, sandgate: Sandgate, address: str) -> None:
    run = sandgate.run(allowing(mode="report"), *attack("packets", "udp", address, plan.CANARY_PORT, "guarded"))
    assert run.returncode != 0, run
    assert internet.canary.arrivals() == []


@pytest.mark.attack("N9 B4", "goes on sending datagrams on a flow whose rule has expired", stopped_by="relay, kernel")
def test_rule_that_expires(internet: Internet, sandgate: Sandgate) -> None:
    """What a rule allowed ends with it, the flow that lives included."""
    policy = allowing(udp(plan.SINK4, 4444) | {"ttl": "4s"})
    run = sandgate.run(policy, *attack("datagrams", "slow", plan.SINK4, 4444, 0, 1, 5))
    assert run.stdout.splitlines() == ["after 0", "after 1"] and run.returncode != 0, run
    assert sorted(arrival.data for arrival in internet.sinks.arrivals()) == ["after 0", "after 1"]
    (closed,) = run.audit.where(event="connection.closed", protocol="udp")
    assert closed["durationMs"] < 5_500, run
    (denied,) = run.audit.denied("ip", ip=plan.SINK4, port=4444, protocol="udp")
    assert denied["reason"] == "expired-rule", run


@pytest.mark.attack(
    "T11", "sends datagrams that a rule allows by a socket bound to the outer device", stopped_by="kernel"
)
@BOTH
def test_socket_bound_to_the_outer_device(internet: Internet, sandgate: Sandgate, address: str) -> None:
    """A redirected datagram keeps the device it is bound to; it must not leave by it."""
    command = attack("packets", "udp", address, 4444, "by the device", "--device")
    assert "by the device" in internet.unenforced(command).stdout
    with internet.capture(SINK_PACKETS) as outside:
        sandgate.run(allowing(udp(address)), *command)
    assert b"by the device" not in outside.payload


@pytest.mark.attack("T3 D1", "sends queries to a nameserver whose address a UDP rule opens", stopped_by="dns, kernel")
def test_dns_stays_ours(internet: Internet, sandgate: Sandgate) -> None:
    """A rule that opens UDP to a nameserver does not open port 53: the resolver answers."""
    command = attack("query", plan.OTHER_DNS4, plan.DENIED, "A")
    assert plan.DENIED4 in internet.unenforced(command).stdout
    internet.forget()
    run = sandgate.run(allowing(udp(plan.OTHER_DNS4), plan.ALLOWED), *command)
    assert "NXDOMAIN" in run.stdout, run
    assert internet.other_dns.queries() == [], run
