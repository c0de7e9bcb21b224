"""What tells an enforcer's own sockets from the sandbox's, where both are in one network: trying to find it out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab import plan
from lab.internet import Internet
from lab.processes import wait_until
from lab.sandgate import allowing
from lab.sidecar import SharedNetwork

GUESS = ("/usr/bin/python3", str(Path(__file__).parent / "attacks" / "shared_namespace.py"), "guess", plan.ALLOWED)


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
