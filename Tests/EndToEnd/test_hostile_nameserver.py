"""A nameserver that lies: its answers open nothing, and the resolver lives on."""

from __future__ import annotations

import uuid

import pytest

from lab import hostile_nameserver, plan
from lab.internet import Internet
from lab.sandgate import Finished, Sandgate, allowing, attack, shell

POLICY = allowing("*.hostile.example")

pytestmark = pytest.mark.usefixtures("nameserver")


def name_for(behaviour: str) -> str:
    """The name whose resolution makes the nameserver behave so."""
    return f"{behaviour}.hostile.example"


def look_up(sandgate: Sandgate, behaviour: str, then: str = "") -> Finished:
    """Looks the behaviour's name up inside a sandbox, and does what `then` says after that."""
    query = " ".join(attack("query", plan.DNS4, name_for(behaviour)))
    return sandgate.run(POLICY, *shell(f"{query}; {then or 'true'}"), upstream_dns=plan.SCRIPTED_DNS4)


def connect(address: str, text: str) -> str:
    """The shell command that tries to reach a sink."""
    return " ".join(f"'{word}'" for word in attack("packets", "tcp", address, plan.CANARY_PORT, text)) + " || true"


@pytest.mark.honest("lookups of names with TTL 0, foreign records or truncated answers")
@pytest.mark.parametrize("behaviour", ["no-time", "foreign", "mixed", "truncated"])
def test_good_address_is_reached(internet: Internet, sandgate: Sandgate, behaviour: str) -> None:
    name = name_for(behaviour)
    outside = internet.unenforced(attack("query", plan.SCRIPTED_DNS4, name, "--tcp"))
    assert plan.SHARED4 in outside.stdout, outside

    run = look_up(sandgate, behaviour, then=f"curl -sS -H 'User-Agent: x' --max-time 10 http://{name}/")
    assert "rcode NOERROR" in run.stdout and "served" in run.stdout, run
    assert internet.web.hosts() == {name}


@pytest.mark.attack("N5", "has an allowed name answer with thousands of addresses", stopped_by="dns, limits")
def test_thousands_of_addresses(internet: Internet, sandgate: Sandgate) -> None:
    """They are answered and pinned in part, and others are none the worse for it."""
    query = attack("query", plan.SCRIPTED_DNS4, name_for("many"), "AAAA", "--tcp")
    assert internet.unenforced(query).stdout.count("2001:db8:100::1:") == 2000
    url = f"http://{name_for('no-time')}/"
    command = shell(f"{' '.join(query)}; curl -sS --max-time 10 {url}")
    run = sandgate.run(POLICY, *command, upstream_dns=plan.SCRIPTED_DNS4)
    assert 0 < run.stdout.count("2001:db8:100::1:") < 2000, run
    assert "served" in run.stdout, run


@pytest.mark.attack("N6", "has an allowed name's answer carry a record of another name", stopped_by="dns")
def test_record_of_another_name_pins_nothing(internet: Internet, sandgate: Sandgate) -> None:
    assert plan.SINK4 in internet.unenforced(attack("query", plan.SCRIPTED_DNS4, name_for("foreign"))).stdout
    run = look_up(sandgate, "foreign", then=connect(plan.SINK4, "by a foreign record"))
    assert plan.SINK4 not in run.stdout, run
    assert internet.sinks.arrivals() == [], run


@pytest.mark.attack("N4", "has an allowed name answer with guarded addresses among good ones", stopped_by="dns")
@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "10.99.0.1"])
def test_guarded_addresses_among_good_ones(internet: Internet, sandgate: Sandgate, address: str) -> None:
    assert address in internet.unenforced(attack("query", plan.SCRIPTED_DNS4, name_for("mixed"))).stdout
    run = look_up(sandgate, "mixed", then=connect(address, "among good ones"))
    assert f" {address}\n" not in run.stdout and plan.SHARED4 in run.stdout, run
    assert internet.sinks.arrivals() == [] and internet.canary.arrivals() == [], run


@pytest.mark.attack(
    "N5 N4",
    "has an allowed name answer first with a good address and then with the node's loopback, TTL 0",
    stopped_by="dns",
)
def test_rebinding(internet: Internet, sandgate: Sandgate) -> None:
    """What the name leads to later is judged anew, each time."""
    # The nameserver remembers what it was asked.
    name = name_for(f"rebind.{uuid.uuid4().hex}")
    query = " ".join(attack("query", plan.DNS4, name))
    script = f"{query}; sleep 1.2; {query}; {connect(name, 'after rebinding')}"
    run = sandgate.run(POLICY, *shell(script), upstream_dns=plan.SCRIPTED_DNS4)
    assert plan.SHARED4 in run.stdout, run
    assert " 127.0.0.1\n" not in run.stdout, run
    assert internet.canary.arrivals() == [], run


@pytest.mark.attack(
    "N6 N4",
    "has the nameserver answer with alias chains into guard ranges, circles, loops, lying counts, another "
    "question, garbage or nothing",
    stopped_by="dns",
)
@pytest.mark.parametrize("behaviour", ["chain", "circle", "loop", "lying", "other-question", "other-case", "garbage", "empty"])
def test_bad_answer_opens_nothing(internet: Internet, sandgate: Sandgate, behaviour: str) -> None:
    tries = "; ".join(connect(address, "after a bad answer") for address in (plan.SINK4, "169.254.169.254"))
    run = look_up(sandgate, behaviour, then=tries)
    assert plan.SINK4 not in run.stdout and "169.254.169.254" not in run.stdout, run
    assert internet.sinks.arrivals() == [], run
    assert run.returncode == 0, run


@pytest.mark.attack("N6 B3", "has the nameserver send every malformed answer, to end the resolver", stopped_by="dns")
def test_resolver_survives_them_all(internet: Internet, sandgate: Sandgate) -> None:
    queries = "; ".join(
        " ".join(attack("query", plan.DNS4, name_for(behaviour))) for behaviour in hostile_nameserver.BEHAVIOURS
    )
    run = sandgate.run(
        POLICY,
        *shell(f"({queries}) 2>/dev/null; curl -sS --max-time 10 http://{name_for('no-time')}/"),
        upstream_dns=plan.SCRIPTED_DNS4,
    )
    assert run.returncode == 0 and "served" in run.stdout, run
