"""OpenSandbox's own server and SDK with Sandgate's image, and a hostile program in the sandbox: root, with all of Docker's
default capabilities, CAP_NET_RAW among them, and with IPv6. Each attack works in a sandbox that has no network policy."""

from __future__ import annotations

import dataclasses
import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import plan
from lab.accomplice import FORGERIES, Forgery, accomplice
from lab.engine import MACHINE, SANDGATE, Engine, engine_with_images
from lab.guarded import ADDRESS, ADDRESS6, attack_with_raw_sockets
from lab.internet import Internet
from lab.lifecycle_server import AUTHORITY, KEY, OPEN_HANDED, Client, OpenSandbox, Settings, opensandbox
from lab.processes import check, status_of
from lab.sandgate import allowing

TRUST = {"CURL_CA_BUNDLE": AUTHORITY}
CAP_NET_RAW = 13
PYTHON = "/usr/bin/python3"
ATTACK = (PYTHON, "/attacks/shared_namespace.py")


@pytest.fixture(scope="module")
def docker(net: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with engine_with_images(net, tmp_path_factory.mktemp("engine"), plan.DNS4) as made:
        yield made


@pytest.fixture(scope="module")
def server(net: Internet, docker: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSandbox]:
    with opensandbox(net, docker, tmp_path_factory.mktemp("opensandbox"), OPEN_HANDED) as made:
        yield made


@pytest.fixture(scope="module")
def free(server: OpenSandbox) -> Iterator[Client]:
    """A sandbox without a network policy: the server starts no sidecar for it."""
    with server.client() as made:
        made.create(MACHINE, None, **TRUST)
        yield made
        made.do("kill")


@pytest.fixture
def held(internet: Internet, free: Client, server: OpenSandbox) -> Iterator[Client]:
    """A sandbox that may reach one name, and the names below another."""
    with server.client() as made:
        made.create(MACHINE, allowing(plan.ALLOWED, f"*.{plan.WILD}"), **TRUST)
        for client in (free, made):
            pid = int(client.docker.inspect(client.sandbox, "{{.State.Pid}}"))
            assert int(status_of(pid)["CapEff"], 16) >> CAP_NET_RAW & 1
        yield made
        made.do("kill")


def run(sdk: Client, *command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return sdk.docker.run(sdk.sandbox, *command, timeout=timeout)


def holder_of(sdk: Client) -> str:
    """The container whose network the sandbox is in."""
    mode = sdk.docker.inspect(sdk.sandbox, "{{.HostConfig.NetworkMode}}")
    return mode.removeprefix("container:") if mode.startswith("container:") else sdk.sandbox


def reaches(sdk: Client, name: str, *options: str) -> bool:
    return f"served {name}" in run(sdk, "curl", "-sS", "-m", "5", *options, f"https://{name}/").stdout


def network_of(sdk: Client, *command: str) -> str:
    """Runs a program of the machine's in a sandbox's network, as root outside."""
    pid = sdk.docker.inspect(sdk.sandbox, "{{.State.Pid}}")
    return check("nsenter", f"--target={pid}", "--net", *command)


@pytest.mark.attack(
    "T1 T10",
    "sends frames behind the hooks and sets every mark, in a container that OpenSandbox's server made",
    stopped_by="fence, kernel",
)
def test_frames_and_marks(internet: Internet, free: Client, held: Client) -> None:
    attack_with_raw_sockets(free.docker, free.sandbox)
    arrived = internet.sinks.data()
    assert "stolen by a frame" in arrived and "stolen by a mark" in arrived, "without a policy"
    attack_with_raw_sockets(held.docker, held.sandbox)
    assert internet.sinks.data() == ""
    assert reaches(held, plan.ALLOWED)


@pytest.mark.attack(
    "T2",
    "posts a policy to the sidecar's API from a sandbox of OpenSandbox's, without the token and with guesses at it",
    stopped_by="control API",
)
def test_policy_api_without_the_token(internet: Internet, held: Client) -> None:
    sidecar = held.sidecar
    address = held.docker.inspect(sidecar, ADDRESS)
    port = held.docker.docker("port", sidecar, "18080/tcp").splitlines()[0].rpartition(":")[2]
    ((header, token),) = held.do("endpoint", 18080)["headers"].items()
    opened = ("-X", "POST", "-d", '{"defaultAction":"allow"}')

    def status(host: str, *options: str) -> str:
        words = ("curl", "-sS", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", *opened, *options)
        return run(held, *words, f"http://{host}/policy").stdout

    guesses = ("", "null", KEY, held.id, token[:-1], f"{token}x", token.swapcase())
    for host in ("127.0.0.1:18080", "[::1]:18080", f"{address}:18080"):
        for options in ((), *(("-H", f"{header}: {guess}" if guess else f"{header};") for guess in guesses)):
            assert status(host, *options) == "401", (host, options)
    # Through the port that the server publishes on its machine, which a private address is.
    assert status(f"10.80.0.1:{port}") in ("000", "401")
    assert held.do("policy")["defaultAction"] == "deny" and not reaches(held, plan.DENIED)
    assert plan.DENIED not in internet.web.hosts()
    # The same words with the token are obeyed: it was the token that they lacked.
    assert status("127.0.0.1:18080", "-H", f"{header}: {token}") == "200" and reaches(held, plan.DENIED)


@pytest.mark.attack(
    "T7",
    "sends from every port that the sidecar sent from, to the same servers, in a sandbox of OpenSandbox's",
    stopped_by="kernel",
)
@pytest.mark.slow
def test_stale_entries(internet: Internet, free: Client, held: Client) -> None:
    low, high, fetched = "42000", "42079", 20
    connections = (*ATTACK, "spray-tls", plan.SHARED4, low, high, plan.OTHER)
    queries = (*ATTACK, "spray", plan.DNS4, low, high, "sprayed.example")

    def asked() -> list[str]:
        return [name for name in internet.dns.names() if name.endswith(".sprayed.example")]

    run(free, *connections, timeout=120)
    run(free, *queries)
    assert plan.OTHER in internet.web.hosts() and asked(), "without a policy"
    internet.forget()
    network_of(held, "sysctl", "-qw", f"net.ipv4.ip_local_port_range={low} {high}")
    script = f"curl -sS -4 -m 5 https://{plan.ALLOWED}/; getent ahostsv4 n$n.{plan.WILD}"
    done = run(held, "sh", "-c", f"for n in $(seq {fetched}); do {script}; done >/dev/null", timeout=120)
    assert len(internet.web.requests()) == fetched, done
    # What the entries are of: the name server was asked by us, from these ports.
    assert len({name for name in internet.dns.names() if name.endswith(f".{plan.WILD}")}) == fetched
    run(held, *connections, timeout=300)
    run(held, *queries)
    assert plan.OTHER not in internet.web.hosts() and asked() == []


@pytest.mark.attack(
    "T12",
    "answers a datagram that came from outside, in a sandbox of OpenSandbox's",
    stopped_by="kernel",
)
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_answers_to_datagrams_from_outside(free: Client, held: Client, family: str) -> None:
    inner_script = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.bind((sys.argv[1], 9999)); s.settimeout(3); print('bound', flush=True)\n"
        "data, peer = s.recvfrom(100); print(data, flush=True)\n"
        "try: s.sendto(b'an answer', peer)\n"
        "except OSError as error: print(error)\n"
    )
    outer_script = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.settimeout(2); s.sendto(b'from outside', (sys.argv[1], 9999))\n"
        "try: print(s.recv(100))\n"
        "except TimeoutError: print('nothing')\n"
    )

    def exchange(sdk: Client) -> str:
        address = sdk.docker.inspect(holder_of(sdk), ADDRESS if family == "ipv4" else ADDRESS6)
        inner = sdk.docker.begin(sdk.sandbox, PYTHON, "-c", inner_script, address)
        assert inner.stdout is not None and inner.stdout.readline() == "bound\n"
        outer = sdk.docker.namespace.check(PYTHON, "-c", outer_script, address)
        inner.communicate(timeout=30)
        return outer

    assert "an answer" in exchange(free), "without a policy"
    assert "an answer" not in exchange(held)


LEAST = dataclasses.replace(OPEN_HANDED, drops_capabilities=True)
"""The capabilities that the server leaves sandboxes when it is not told otherwise, without CAP_NET_RAW."""
FORGED = [pytest.param(OPEN_HANDED, forgery, id=f"{forgery}-with-net-raw") for forgery in FORGERIES]
# Without it there is one way left, which needs no capability at all.
FORGED += [pytest.param(LEAST, forgery, id=str(forgery)) for forgery in FORGERIES if forgery.is_ipv6]


@pytest.mark.attack(
    "T14",
    "answers the sidecar's query in the nameserver's name, with the right port, identifier and case, in a sandbox of "
    "OpenSandbox's, with CAP_NET_RAW and without",
    stopped_by="kernel",
)
@pytest.mark.parametrize(("settings", "forgery"), FORGED)
def test_forged_answer(
    internet: Internet, docker: Engine, tmp_path: Path, settings: Settings, forgery: Forgery
) -> None:
    """The nameserver outside is an accomplice's. The server hands on no name of one, so that the image has it."""
    image = "sandgate:asks-the-accomplice"
    docker.build(image, f"FROM {SANDGATE}", f"ENV OPENSANDBOX_EGRESS_DNS_UPSTREAM={forgery.server}")
    settings = dataclasses.replace(settings, port=8081, image=image)

    def ask(sdk: Client, name: str) -> str:
        has_raw = int(status_of(int(docker.inspect(sdk.sandbox, "{{.State.Pid}}")))["CapEff"], 16) >> CAP_NET_RAW & 1
        assert has_raw == (not settings.drops_capabilities)
        address = docker.inspect(holder_of(sdk), ADDRESS6 if forgery.is_ipv6 else ADDRESS)
        begin, run = functools.partial(docker.begin, sdk.sandbox), functools.partial(docker.run, sdk.sandbox)
        return partner.asked_under_forgery(forgery, name, address, begin, run, ATTACK[1])

    with accomplice(internet, forgery.server) as partner, opensandbox(internet, docker, tmp_path, settings) as server:
        with server.client() as free:
            free.create(MACHINE, None)
            assert forgery.forged in ask(free, f"first.{plan.WILD}"), "without a policy"
            free.do("kill")
        with server.client() as held:
            held.create(MACHINE, allowing(f"*.{plan.WILD}"))
            output = ask(held, f"second.{plan.WILD}")
            assert forgery.forged not in output and forgery.honest in output, output
            held.do("kill")


def test_ipv6(internet: Internet, free: Client, held: Client) -> None:
    """The server is told to leave IPv6 on: it works, and is held as IPv4 is."""
    assert reaches(free, plan.DENIED, "-6"), "without a policy"
    internet.forget()
    assert reaches(held, plan.ALLOWED, "-6") and reaches(held, plan.ALLOWED, "-4")
    assert not reaches(held, plan.DENIED, "-6")
    assert not reaches(held, plan.DENIED, "--resolve", f"{plan.DENIED}:443:[{plan.DENIED6}]")
    assert not reaches(held, plan.OTHER, "--resolve", f"{plan.OTHER}:443:[{plan.SHARED6}]")
    assert internet.web.hosts() == {plan.ALLOWED}
