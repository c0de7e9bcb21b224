"""The pages on containers, for a newcomer who has Docker: their commands do, as they stand, what the pages say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import plan
from lab.daemon import running
from lab.engine import IMAGE, SANDGATE, Engine, engine
from lab.guarded import shop
from lab.internet import Internet
from lab.page_commands import TRY, Shell, block, blocks, holds
from lab.processes import wait_until
from lab.sandgate import allowing

CONTAINERS, OPENSANDBOX, INSIDE = "Containers.md", "OpenSandbox.md", "UpstreamInside.md"


@pytest.fixture(scope="module")
def docker(net: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with engine(net, tmp_path_factory.mktemp("engine"), plan.DNS4) as made:
        made.make_machine_image()
        yield made


@pytest.fixture
def shell(internet: Internet, docker: Engine, tmp_path: Path) -> Iterator[Shell]:
    configuration = tmp_path / "configuration.yaml"
    configuration.write_text(f"containerSockets: [{docker.socket}]\n")
    policy = allowing(plan.ALLOWED, "shop", "shop.internal", "10.90.0.0/24")
    for name in ("policy.json", "policy.yaml"):
        (tmp_path / name).write_text(json.dumps(policy))
    with running(internet, tmp_path, "--config", str(configuration)) as daemon:
        made = Shell(tmp_path, daemon)
        made.environment["DOCKER_HOST"] = f"unix://{docker.socket}"
        try:
            yield made
        finally:
            docker.remove_containers()


def test_image(docker: Engine, shell: Shell) -> None:
    shell.run("deploy/build-image")
    assert docker.docker("run", "--rm", SANDGATE, "--help").startswith("OVERVIEW: Guard the network")
    for text in blocks(OPENSANDBOX, "printf 'FROM sandgate:local"):
        command, name = text.splitlines()[0], text.split("docker build -t ")[1].split()[0]
        shell.run(command)
        assert docker.docker("run", "--rm", name, "--help").startswith("OVERVIEW: Guard the network")


def test_sidecar(internet: Internet, docker: Engine, shell: Shell) -> None:
    docker.make_sandgate_image()
    assert holds(internet, shell.run(block(CONTAINERS, "docker run -d --name box-net --cap-drop"), {"IMAGE COMMAND": f"{IMAGE} {TRY}"}))


def test_node_daemon(internet: Internet, shell: Shell) -> None:
    text = block(CONTAINERS, "docker run -d --name box-net --network none").replace("IMAGE sleep", f"{IMAGE} sleep")
    assert holds(internet, shell.run(text, {"IMAGE COMMAND": f"{IMAGE} {TRY}"}))


def test_names_of_other_containers(internet: Internet, docker: Engine, shell: Shell) -> None:
    with shop(docker) as network:
        words = {"NETWORK": network, "IMAGE COMMAND": f"{IMAGE} sleep 600"}
        shell.run(block(CONTAINERS, "docker run -d --name box --network"), words)
        fetch = ("curl", "-sS", "-m", "8")
        assert "Directory listing" in docker.run("box", *fetch, "http://shop/").stdout
        assert f"served {plan.ALLOWED}" in docker.run("box", *fetch, f"http://{plan.ALLOWED}/").stdout
        assert shell.run("sandgate detach box") == ""
        # Each line is a way of its own there.
        for line in block(INSIDE, "sandgate attach --container box").splitlines():
            words = {"10.9.0.53": plan.DNS4} if "10.9.0.53" in line else {}
            name = shell.run(line, words).strip()
            assert f"served {plan.ALLOWED}" in docker.run("box", *fetch, f"http://{plan.ALLOWED}/").stdout
            for wanted, option in (("shop", "--docker-names"), ("shop.internal", "--docker-domain internal")):
                shown = docker.run("box", *fetch, f"http://{wanted}/").stdout
                assert ("Directory listing" in shown) is (option in line), line
            shell.run(f"sandgate detach {name}")
        docker.remove("box")


def test_what_to_do_after_docker_was_restarted(internet: Internet, docker: Engine, shell: Shell) -> None:
    """Played by somebody else who changes the rules; test_docker_restarts.py has it for real."""
    container = docker.start("--name", "box", "--cap-drop", "NET_RAW")
    shell.run("sandgate attach --container box --id box --policy policy.yaml")
    process = docker.inspect(container, "{{.State.Pid}}")
    shell.run(f"nsenter --net=/proc/{process}/ns/net nft add table ip nat")
    wait_until(lambda: "Failed" in shell.run("sandgate ps"), "that it is closed")
    shown = shell.run(block(CONTAINERS, "sandgate inspect box"), {"PID": process})
    assert "ruleset" in shown or "nft" in shown, shown
    assert "Running" in shell.run("sandgate ps")
