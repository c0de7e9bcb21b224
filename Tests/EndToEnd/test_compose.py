"""deploy/compose.yaml as it stands, carried out by docker-compose: only the workload and the rules are the lab's."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from lab import plan
from lab.engine import IMAGE, Engine, engine
from lab.guarded import ADDRESS, DIRECTLY, SEND, pinned, reaches, show_leak
from lab.internet import Internet
from lab.processes import check
from lab.sandgate import REPOSITORY, allowing

FLOOD = ("/bin/sh", "-c", f"trap 'exit 0' TERM; while true; do {SEND}; done")
REMADE = ("up", "--detach", "--force-recreate", "--timeout", "1")
"""What the page on containers says that is to be done when one of the two has ended."""


@pytest.fixture(scope="module")
def docker(net: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with engine(net, tmp_path_factory.mktemp("engine"), plan.DNS4) as made:
        made.make_sandgate_image()
        yield made


class Project:
    """The file's services, with another workload and other rules by a second file, as users change them."""

    def __init__(self, docker: Engine, directory: Path, policy: object) -> None:
        self._docker = docker
        changes = {
            "services": {
                "sandgate": {"environment": {"OPENSANDBOX_EGRESS_RULES": json.dumps(policy)}},
                "workload": {"image": IMAGE, "command": list(FLOOD)},
            }
        }
        changed = directory / "changes.json"
        changed.write_text(json.dumps(changes))
        self._command = ["docker-compose", "--file", str(REPOSITORY / "deploy/compose.yaml"), "--file", str(changed)]
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        self._environment = {
            **kept,
            "HOME": str(directory),
            "DOCKER_HOST": f"unix://{docker.socket}",
            "COMPOSE_PROJECT_NAME": "lab",
        }

    def compose(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs `docker-compose`."""
        return subprocess.run(
            [*self._command, *words], env=self._environment, capture_output=True, text=True, timeout=180
        )

    def up(self, *words: str) -> None:
        done = self.compose(*(words or ("up", "--detach")))
        assert done.returncode == 0, (done.stdout, done.stderr)

    def container(self, service: str) -> str:
        """The id of a service's container; empty where there is none."""
        label = f"label=com.docker.compose.service={service}"
        return self._docker.docker("ps", "--all", "--quiet", "--no-trunc", "--filter", label)

    def state(self, service: str) -> str:
        container = self.container(service)
        return self._docker.inspect(container, "{{.State.Status}}") if container else "absent"

    def down(self) -> None:
        self.compose("down", "--timeout", "1")


@pytest.fixture
def project(internet: Internet, docker: Engine, tmp_path: Path) -> Iterator[Project]:
    made = Project(docker, tmp_path, allowing(plan.ALLOWED))
    try:
        yield made
    finally:
        made.down()


def test_workload_is_guarded_from_its_first_instruction(internet: Internet, docker: Engine, project: Project) -> None:
    show_leak(internet, docker, *FLOOD)
    project.up()
    workload, sidecar = project.container("workload"), project.container("sandgate")
    assert reaches(docker, workload, plan.ALLOWED), docker.logs(sidecar)
    assert not reaches(docker, workload, plan.DENIED)
    assert not reaches(docker, workload, plan.DENIED, *pinned(plan.DENIED, plan.DENIED4))
    assert internet.web.hosts() == {plan.ALLOWED} and internet.sinks.data() == ""
    # It began when the network was guarded, and not before.
    records = [json.loads(line) for line in docker.logs(sidecar).splitlines() if line.startswith("{")]
    (attached,) = [record["ts"] for record in records if record["event"] == "sandbox.attached"]
    began = docker.inspect(workload, "{{.State.StartedAt}}")
    assert datetime.fromisoformat(attached) < datetime.fromisoformat(began[:26] + "+00:00")
    # The API is nobody's: neither the workload's nor that of other containers.
    address = docker.inspect(sidecar, ADDRESS)
    change = ("-X", "PATCH", "-d", f'[{{"action": "allow", "target": "{plan.DENIED}"}}]')
    asked = docker.run(workload, "curl", "-sS", "-m", "4", *change, "http://127.0.0.1:18080/policy")
    assert "forbidden" in asked.stdout, asked
    neighbour = docker.start()
    refused = docker.run(neighbour, "curl", "-sS", "-m", "4", *change, f"http://{address}:18080/policy")
    assert refused.returncode == 7, refused
    docker.docker("rm", "--force", neighbour)


def test_workload_does_not_begin_without_the_sidecar(internet: Internet, docker: Engine, tmp_path: Path) -> None:
    show_leak(internet, docker, *FLOOD)
    project = Project(docker, tmp_path, {"defaultAction": "deny", "egress": [{"action": "allow", "target": "a b"}]})
    try:
        done = project.compose("up", "--detach")
        assert done.returncode != 0, done
        assert project.state("sandgate") == "exited" and project.state("workload") in ("absent", "created")
        assert internet.sinks.data() == ""
    finally:
        project.down()


@pytest.mark.attack("T8", "floods while its sidecar of deploy/compose.yaml is killed and begins anew", stopped_by="kernel")
def test_sidecar_that_is_killed(internet: Internet, docker: Engine, project: Project) -> None:
    show_leak(internet, docker, *FLOOD)
    project.up()
    workload, sidecar = project.container("workload"), project.container("sandgate")
    assert reaches(docker, workload, plan.ALLOWED)
    internet.web.requests()
    check("kill", "-KILL", docker.inspect(sidecar, "{{.State.Pid}}"))
    docker.docker("wait", sidecar)

    def is_shut() -> bool:
        return not (reaches(docker, workload, plan.ALLOWED) or reaches(docker, workload, plan.ALLOWED, *DIRECTLY))

    assert is_shut() and project.state("workload") == "running"
    # Started again alone, it has another network: the workload stays where it is, and shut in.
    project.up()
    assert project.container("workload") == workload and project.state("sandgate") == "running"
    assert is_shut()
    project.up(*REMADE)
    workload = project.container("workload")
    assert reaches(docker, workload, plan.ALLOWED) and not reaches(docker, workload, plan.DENIED)
    assert internet.sinks.data() == "" and internet.web.hosts() == {plan.ALLOWED}
