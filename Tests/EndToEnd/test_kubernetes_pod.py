"""The Pod of deploy/kubernetes, whose containers Podman runs as its manifest has them: only workload and policy are the lab's.

What a kubelet does, the tests do: a native sidecar begins first, and the workload when its startup probe was answered.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import plan
from lab.engine import IMAGE
from lab.guarded import DIRECTLY, SEND, pinned, reaches
from lab.internet import Internet
from lab.kubernetes_pod import MANIFEST, Pod, client, examine, pod
from lab.podman import Podman, is_installed, podman
from lab.processes import status_of, wait_until
from lab.sandgate import allowing
from lab.tool import tool

FLOOD = {"image": IMAGE, "command": ["/bin/sh", "-c", f"while true; do {SEND}; done"]}
SIDECAR, WORKLOAD = "sandgate", "workload"
NET_ADMIN, NET_RAW = 1 << 12, 1 << 13


@pytest.fixture(scope="module")
def objects() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = examine(client(), MANIFEST)["objects"]
    return found


@pytest.fixture(scope="module")
def engine(net: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    if not is_installed():
        pytest.skip("Podman is not installed")
    with podman(net, tmp_path_factory.mktemp("podman"), plan.DNS4) as made:
        yield made


Making = Callable[[], contextlib.AbstractContextManager[Pod]]


@pytest.fixture
def make(internet: Internet, engine: Podman, objects: list[dict[str, Any]], tmp_path: Path) -> Making:
    """Makes the Pod, in which nothing has begun."""
    return lambda: pod(engine, tmp_path, objects, FLOOD, allowing(plan.ALLOWED))


def show_leak(internet: Internet, made: Pod) -> None:
    """Begins the workload without a sidecar: what it sends arrives."""
    made.start(WORKLOAD)
    services: set[str] = set()

    def arrived() -> bool:
        services.update(arrival.service for arrival in internet.sinks.arrivals() if "leaked" in arrival.data)
        return services == {"tcp-sink", "udp-sink"}

    wait_until(arrived, "what is sent where nobody guards", 30)


@pytest.mark.attack(
    "N1 T4 T8",
    "floods from its first instruction on in the Pod of deploy/kubernetes, whose sidecar is killed and begins anew",
    stopped_by="kernel, dns",
)
def test_pod(internet: Internet, engine: Podman, make: Making) -> None:
    """The kubelet starts a sidecar again in the same network, while the workload goes on."""
    with make() as alone:
        show_leak(internet, alone)
    internet.forget()
    with make() as box:
        box.start(SIDECAR)
        box.start(WORKLOAD)
        sidecar, workload = box.container(SIDECAR), box.container(WORKLOAD)

        def gets_what_is_allowed() -> bool:
            """And nothing else."""
            assert not reaches(engine, workload, plan.DENIED)
            assert not reaches(engine, workload, plan.DENIED, *pinned(plan.DENIED, plan.DENIED4))
            assert internet.sinks.data() == ""
            return reaches(engine, workload, plan.ALLOWED)

        assert gets_what_is_allowed(), engine.logs(sidecar)
        engine.docker("kill", "--signal", "KILL", sidecar)
        engine.docker("wait", sidecar)
        internet.web.requests()
        assert not gets_what_is_allowed() and not reaches(engine, workload, plan.ALLOWED, *DIRECTLY)
        assert internet.web.requests() == []
        box.start(SIDECAR)
        assert gets_what_is_allowed(), engine.logs(sidecar)
        assert internet.web.hosts() == {plan.ALLOWED}


def test_privileges(internet: Internet, engine: Podman, make: Making) -> None:
    """What the manifest asks for is what the processes have, and is enough."""
    with make() as box:
        box.start(SIDECAR)
        box.start(WORKLOAD)
        for name, allowed, user in ((SIDECAR, NET_ADMIN | NET_RAW, "0"), (WORKLOAD, 0, "65534")):
            process = int(engine.inspect(box.container(name), "{{.State.Pid}}"))
            status = {field: value.split() for field, value in status_of(process).items()}
            for field in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                assert int(status[field][0], 16) & ~allowed == 0, (name, field)
            assert set(status["Uid"]) == {user} and status["NoNewPrivs"] == ["1"] and status["Seccomp"] == ["2"]
        process = int(engine.inspect(box.container(SIDECAR), "{{.State.Pid}}"))
        mounts = [line.split() for line in Path(f"/proc/{process}/mounts").read_text().splitlines()]
        assert [fields[3].split(",")[0] for fields in mounts if fields[1] == "/"] == ["ro"]
        trail = engine.docker("volume", "inspect", "--format", "{{.Mountpoint}}", "audit")
        verified = tool("audit", "--dir", trail, "--verify")
        assert verified.returncode == 0, verified


@pytest.mark.attack(
    "T2", "asks the policy API of the Pod of deploy/kubernetes, with the token and without", stopped_by="control API"
)
def test_policy_api(
    internet: Internet, engine: Podman, make: Making, objects: list[dict[str, Any]]
) -> None:
    """The Secret's token is what it takes, and from within the Pod not even that is enough."""
    (token,) = [found["stringData"]["token"] for found in objects if found["kind"] == "Secret"]
    change = ("--request", "PATCH", "--data", json.dumps([{"action": "allow", "target": plan.DENIED}]))
    known = ("--header", f"OPENSANDBOX-EGRESS-AUTH: {token}")
    with make() as box:
        box.start(SIDECAR)
        box.start(WORKLOAD)
        workload = box.container(WORKLOAD)
        for options, words in (((), "unauthorized"), (known, "forbidden: from within")):
            inside = engine.run(workload, "/usr/bin/curl", "-sS", "-m", "4", *change, *options, "http://127.0.0.1:18080/policy")
            assert words in inside.stdout, inside
        assert box.ask("18080/policy", *change) == "unauthorized\n"
        assert not reaches(engine, workload, plan.DENIED)
        assert json.loads(box.ask("18080/policy", *change, *known))["status"] == "ok"
        assert reaches(engine, workload, plan.DENIED)
