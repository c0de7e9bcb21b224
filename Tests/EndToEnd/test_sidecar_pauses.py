"""A sandbox is paused, and its sidecar with it: when both go on, the clocks have jumped.

The sidecar is stopped, its clocks are set ahead (lab/clock.py), and it goes on: what an hour in a container engine's freezer
is to it, in a moment.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import plan
from lab.accomplice import SCRIPTED_DNS6, accomplice
from lab.clock import Clock, paused
from lab.flood_watch import starting
from lab.internet import Internet
from lab.sandgate import allowing
from lab.sidecar import INSIDE4, Sidecar, sidecar
from lab.sidecar_connection import Connection

FRESH, GRACE = 300, 3600
"""How long a pin lets connections to its address, and to its name, in seconds: at least, and thereafter."""
IDLE = 60
"""How long a connection to the API may ask for nothing, in seconds."""


@pytest.fixture
def clock(tmp_path: Path) -> Iterator[Clock]:
    with contextlib.closing(Clock(tmp_path)) as made:
        yield made


@pytest.fixture
def shared(internet: Internet, tmp_path: Path, clock: Clock) -> Iterator[Sidecar]:
    with sidecar(internet, tmp_path) as made:
        made.variables = clock.environment()
        yield made


@pytest.mark.attack(
    "N9", "keeps an address through a pause that outlasts its pin, while the name moves elsewhere", stopped_by="kernel, dns"
)
@pytest.mark.usefixtures("nameserver")
def test_pins_that_ended(internet: Internet, shared: Sidecar, clock: Clock) -> None:
    """In grace, a connection goes to where its name leads by then; after it, to nowhere until the name is asked for."""
    name = f"move.{uuid.uuid4().hex}.hostile.example"
    shared.start(allowing({"target": "*.hostile.example"}), DNS_UPSTREAM=plan.SCRIPTED_DNS4)

    def fetch(*options: str) -> str:
        return shared.run("curl", "-sS", "-4", "-m", "8", *options, f"http://{name}/").stdout

    def served_by() -> set[str]:
        return {request.server for request in internet.web.requests()}

    at_first = ("--resolve", f"{name}:80:{plan.SHARED4}")
    assert "served" in fetch() and served_by() == {plan.SHARED4}, shared.log
    with paused(shared.process, clock, FRESH - 100):
        pass
    assert "served" in fetch(*at_first) and served_by() == {plan.SHARED4}, "the pin holds"
    with paused(shared.process, clock, FRESH):
        pass
    assert "served" in fetch(*at_first) and served_by() == {plan.DENIED4}, "what the name leads to now"
    with paused(shared.process, clock, FRESH + GRACE + 1):
        pass
    for address in (plan.SHARED4, plan.DENIED4):
        assert "served" not in fetch("--resolve", f"{name}:80:{address}"), address
    assert internet.web.requests() == []
    assert "served" in fetch() and served_by() == {plan.DENIED4}, shared.log


@pytest.mark.attack(
    "N9", "sends what names nothing to an address through a pause that outlasts its pin", stopped_by="kernel"
)
def test_connections_that_name_nothing(internet: Internet, shared: Sidecar, clock: Clock) -> None:
    shared.start(allowing({"target": plan.SINK, "ports": [4444]}))

    def send(host: str, text: str) -> None:
        shared.run("/bin/sh", "-c", f"echo {text} | busybox nc -w 1 {host} 4444")

    send(plan.SINK, "by-name")
    send(plan.SINK4, "by-address")
    assert "by-name" in (arrived := internet.sinks.data()) and "by-address" in arrived, shared.log
    with paused(shared.process, clock, FRESH + 1):
        pass
    send(plan.SINK4, "by-address")
    assert internet.sinks.data() == ""
    send(plan.SINK, "by-name")
    assert "by-name" in internet.sinks.data(), shared.log


def test_answers_that_are_out_of_date(internet: Internet, shared: Sidecar, clock: Clock) -> None:
    """The lab's answers hold for a minute. What is asked again after a longer pause is asked of the nameserver."""
    shared.start(allowing(plan.ALLOWED))

    def asked() -> bool:
        shared.run("getent", "ahostsv4", plan.ALLOWED)
        return plan.ALLOWED in internet.dns.names()

    assert asked() and not asked(), "kept"
    with paused(shared.process, clock, 61):
        pass
    assert asked() and not asked()


@pytest.mark.parametrize("seconds", [3, FRESH + GRACE + 1])
@pytest.mark.parametrize("answers", [True, False], ids=["answered", "unanswered"])
def test_query_across_a_pause(
    internet: Internet, shared: Sidecar, clock: Clock, seconds: int, answers: bool
) -> None:
    """Whoever asked is told something soon after, and what is asked next is answered."""
    ask = ("/usr/bin/dig", "+tries=1", "+timeout=20", f"@{SCRIPTED_DNS6}", "AAAA")
    with accomplice(internet, SCRIPTED_DNS6) as partner:
        shared.start(allowing(f"*.{plan.WILD}"), DNS_UPSTREAM=SCRIPTED_DNS6, DNS_UPSTREAM_TIMEOUT="2")
        begin = starting(internet, shared)
        client = begin(*ask, f"first.{plan.WILD}")
        partner.query(f"first.{plan.WILD}")
        with paused(shared.process, clock, seconds):
            if answers:
                partner.answer()
        begun = time.monotonic()
        output, _ = client.communicate(timeout=30)
        assert time.monotonic() - begun < 6, output
        assert "status: NOERROR" in output or "status: SERVFAIL" in output, output
        assert (plan.SHARED6 in output) == ("status: NOERROR" in output), output
        client = begin(*ask, f"second.{plan.WILD}")
        partner.query(f"second.{plan.WILD}")
        partner.answer()
        output, _ = client.communicate(timeout=30)
        assert plan.SHARED6 in output, output


@pytest.mark.parametrize("seconds", [3, IDLE + 1, FRESH + GRACE])
def test_api_across_a_pause(shared: Sidecar, clock: Clock, seconds: int) -> None:
    """No request is lost that a client sends on a connection that it has kept: before, in or after a pause, or in parts."""
    shared.start(allowing(plan.ALLOWED))
    request = f"GET /policy HTTP/1.1\r\nHost: {INSIDE4}:18080\r\n\r\n".encode()
    patch = json.dumps([{"action": "allow", "target": plan.OTHER}])
    head = f"PATCH /policy HTTP/1.1\r\nHost: {INSIDE4}:18080\r\nContent-Length: {len(patch)}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        kept, idle, in_pause, after = (stack.enter_context(Connection(shared)) for _ in range(4))
        for connection in (kept, idle):
            connection.send(request)
            assert connection.answer().status == 200
        for half in (in_pause, after):
            half.send(head)
        with paused(shared.process, clock, seconds):
            new = stack.enter_context(Connection(shared))
            for connection in (kept, new):
                connection.send(request)
            in_pause.send(patch.encode())
        for connection in (new, kept, in_pause):
            assert connection.answer().status == 200
        # By now it has gone on, and seen that the clocks have jumped.
        idle.send(request)
        after.send(patch.encode())
        assert idle.answer().status == after.answer().status == 200
    assert shared.reaches(plan.OTHER) and not shared.reaches(plan.DENIED)
