"""Docker's daemon ends and begins again while containers are guarded. It writes its rules in their networks anew; whoever is
guarded there is as closed, or as well, as before, and nothing leaves in between."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import plan
from lab.daemon import Daemon, Sandbox, running
from lab.engine import IMAGE, Engine, engine
from lab.guarded import NEIGHBOUR, SEND, Guarded, page, reaches, shop, show_leak
from lab.internet import Internet
from lab.processes import wait_until
from lab.sandgate import allowing

FLOOD = ("/bin/sh", "-c", f"trap 'exit 0' TERM; while true; do {SEND}; done")
WITHOUT_RAW = ("--cap-drop", "NET_RAW")
ENDS = pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])


@pytest.fixture(scope="module")
def docker(net: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with engine(net, tmp_path_factory.mktemp("engine"), plan.DNS4, "--live-restore") as made:
        made.make_machine_image()
        made.make_sandgate_image()
        yield made


@pytest.fixture
def daemon(internet: Internet, docker: Engine, tmp_path: Path) -> Iterator[Daemon]:
    configuration = tmp_path / "configuration.yaml"
    configuration.write_text(f"containerSockets: [{docker.socket}]\n")
    with running(internet, tmp_path, "--config", str(configuration)) as made:
        yield made


@pytest.fixture
def network(docker: Engine) -> Iterator[str]:
    with shop(docker) as made:
        yield made


def flooding(internet: Internet, docker: Engine, *options: str) -> str:
    """Starts a container that floods, and waits until that is seen outside."""
    container = docker.docker("run", "--detach", *WITHOUT_RAW, *options, IMAGE, *FLOOD)
    wait_until(lambda: "leaked" in internet.sinks.data(), "what is sent where nobody guards", 30)
    return container


def resolved(sandbox: Sandbox, name: str) -> str:
    return sandbox.run("dig", "+short", "+tries=1", "+timeout=9", "@127.0.0.11", name).stdout.strip()


@pytest.mark.attack(
    "T14 T8", "floods while Docker is restarted, and its rules in a guarded network are rewritten", stopped_by="kernel"
)
@ENDS
def test_in_a_user_defined_network(
    internet: Internet, daemon: Daemon, docker: Engine, network: str, end: signal.Signals
) -> None:
    container = flooding(internet, docker, "--network", network)
    attachment = {"container": container, "upstreamInside": True, "dockerNames": True}
    sandbox = daemon.create(allowing("shop", "neighbour", "10.90.0.0/24", plan.ALLOWED), id="box", attachment=attachment)
    wait_until(lambda: internet.sinks.data() == "", "the end of what was under way")
    assert "Directory listing" in page(docker, container, "http://shop/")
    with docker.away(end):
        # Everything goes on but its names, of those that are not known already.
        assert sandbox.state == "Running" and sandbox.reaches(plan.ALLOWED)
        assert resolved(sandbox, "neighbour") == ""
    sandbox.wait_for("Failed")
    status = sandbox.ask("GET").json["status"]
    assert status["reason"] == "ruleset-changed", status
    assert not reaches(docker, container, plan.ALLOWED)
    # What the page says that is to be done.
    assert sandbox.ask("POST", "/retry").status == 200
    assert reaches(docker, container, plan.ALLOWED) and not reaches(docker, container, plan.DENIED)
    assert "Directory listing" in page(docker, container, "http://shop/")
    assert resolved(sandbox, "neighbour") == NEIGHBOUR
    assert internet.sinks.data() == "" and internet.web.hosts() == {plan.ALLOWED}
    docker.remove(container)
    sandbox.wait_for("gone")


@ENDS
def test_on_the_default_bridge(internet: Internet, daemon: Daemon, docker: Engine, end: signal.Signals) -> None:
    """Docker has no rules in there."""
    container = flooding(internet, docker)
    sandbox = daemon.create(allowing(plan.ALLOWED), id="box", attachment={"container": container})
    wait_until(lambda: internet.sinks.data() == "", "the end of what was under way")
    with docker.away(end):
        assert sandbox.reaches(plan.ALLOWED)
    assert reaches(docker, container, plan.ALLOWED) and not reaches(docker, container, plan.DENIED)
    assert sandbox.state == "Running" and internet.sinks.data() == ""
    docker.remove(container)
    sandbox.wait_for("gone")


@pytest.mark.attack("T14 T8", "floods beside a sidecar while Docker is restarted", stopped_by="kernel")
@pytest.mark.parametrize("is_user_defined", [False, True], ids=["on the default bridge", "in a user-defined network"])
def test_beside_a_sidecar(internet: Internet, docker: Engine, network: str, is_user_defined: bool) -> None:
    show_leak(internet, docker, *FLOOD)
    upstream = ("--env", f"OPENSANDBOX_EGRESS_DNS_UPSTREAM={plan.DNS4}")
    options = ("--network", network, *upstream) if is_user_defined else ()
    guarded = Guarded(internet, docker, allowing(plan.ALLOWED), *options)
    try:
        joined = ("--network", f"container:{guarded.sidecar}")
        workload = docker.docker("run", "--detach", "--cap-drop", "ALL", *joined, IMAGE, *FLOOD)
        guarded.sandboxes.append(workload)
        assert reaches(docker, workload, plan.ALLOWED)
        with docker.away():
            pass
        if is_user_defined:
            # Closed for good, and unwell: both are to be made anew.
            wait_until(lambda: not guarded.healthy(), "that it is unwell", 20)
            assert not reaches(docker, workload, plan.ALLOWED)
            assert docker.run(guarded.sidecar, "/usr/bin/sandgate", "sidecar", "--check").returncode != 0
            assert '"event":"ruleset.changed"' in guarded.log
        else:
            assert guarded.healthy() and reaches(docker, workload, plan.ALLOWED)
        assert not reaches(docker, workload, plan.DENIED)
        assert internet.sinks.data() == "" and internet.web.hosts() == {plan.ALLOWED}
    finally:
        guarded.remove()
