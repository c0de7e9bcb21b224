"""What tells an enforcer's own sockets from the sandbox's, where both are in one network: trying to find it out."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from lab import plan
from lab.internet import Internet
from lab.processes import wait_until
from lab.sandgate import allowing
from lab.sidecar import SharedNetwork

ATTACKS = ("/usr/bin/python3", str(Path(__file__).parent / "attacks" / "shared_namespace.py"))
GUESS = (*ATTACKS, "guess", plan.ALLOWED)


def mark_of(network: SharedNetwork) -> int:
    """That of the enforcer's own sockets, which the kernel tells root outside."""
    chain = network.namespace.check("nft", "list", "chain", "inet", "sandgate", "raw_out")
    found = re.search(r"meta mark (0x[0-9a-f]+) .*ct original zone set 7", chain)
    assert found, chain
    return int(found[1], 16)


@pytest.mark.attack(
    "T1 T7",
    "reads the priority of the enforcer's own sockets from the kernel, which tells it to everybody, and tries marks beside it",
    stopped_by="kernel",
)
@pytest.mark.parametrize("target", [plan.SINK4, plan.SINK6])
def test_marks_beside_a_priority(internet: Internet, either: SharedNetwork, target: str) -> None:
    """Some hundred of the 2³² that there are, among them the right one: a program with CAP_NET_RAW tries a million in a second or
    two."""
    done = either.run(*GUESS, target, "4444", "100-150")
    assert "tried everything" in done.stdout and internet.sinks.data().count("stolen by mark") == 51, done
    either.start(allowing(plan.ALLOWED))
    internet.forget()

    mark = mark_of(either)
    done = either.run(*GUESS, target, "4444", str(mark))
    seen = re.search(r"seen (\d+)\n", done.stdout)
    assert seen and int(seen[1]) > 6, done
    assert f"stolen by mark {mark}" in internet.sinks.data(), "who knows both gets out"
    internet.forget()

    done = either.run(*GUESS, target, "4444", f"{mark - 100}-{mark + 100}")
    assert "tried everything" in done.stdout, done
    assert internet.sinks.data() == ""
    # Nothing is remembered of it when the time is over.
    wait_until(lambda: either.reaches(plan.ALLOWED), "the end of the time in which nothing is sent", 20)
    assert "expires" not in either.namespace.check("nft", "list", "set", "inet", "sandgate", "guesses")


@pytest.mark.attack(
    "T1", "asks the kernel which sockets have a mark, bit by bit, to learn that of the enforcer's own", stopped_by="kernel"
)
def test_mark_bit_by_bit(internet: Internet, either: SharedNetwork) -> None:
    either.start(allowing(plan.ALLOWED))
    everything = subprocess.run(
        either.namespace.command(*ATTACKS, "bits", plan.ALLOWED), env=internet.environment(), capture_output=True, text=True
    )
    mark = mark_of(either)
    for bit in range(32):
        assert (f"bit {bit} of 0\n" not in everything.stdout) == bool(mark >> bit & 1), "with CAP_NET_ADMIN it is told"
    done = either.run(*ATTACKS, "bits", plan.ALLOWED)
    assert "tried everything" in done.stdout and "bit" not in done.stdout, done


@pytest.mark.honest("connections in a shared network that are closed, reset or left in every way, which are no guess at its pass")
def test_connections_that_end(internet: Internet, either: SharedNetwork) -> None:
    """The kernel answers late packets of connections that have ended itself, with what it remembers of their sockets."""
    either.start(allowing(plan.ALLOWED, plan.SINK))
    script = f"""
import socket, ssl, struct
context = ssl.create_default_context()
for number in range(30):
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            place = socket.getaddrinfo("{plan.ALLOWED}", 443, family, socket.SOCK_STREAM)[0][4]
            with socket.create_connection(place[:2], 5) as plain:
                if number % 3 == 0: plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                with context.wrap_socket(plain, server_hostname="{plan.ALLOWED}") as session:
                    session.sendall(b"GET / HTTP/1.1\\r\\nHost: {plan.ALLOWED}\\r\\nConnection: close\\r\\n\\r\\n")
                    if number % 2: session.recv(100)
        except OSError as error: print(error)
"""
    done = either.run("/usr/bin/python3", "-c", script, timeout=120)
    assert done.returncode == 0 and len(internet.web.requests()) >= 30, done
    assert either.reaches(plan.ALLOWED)
    assert "expires" not in either.namespace.check("nft", "list", "set", "inet", "sandgate", "guesses")
