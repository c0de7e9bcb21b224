"""What a sidecar costs beside a container that does nothing: how long it takes to be ready, and its memory."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from lab.engine import IMAGE, SANDGATE, Engine, engine
from lab.guarded import ADDRESS
from lab.namespaces import Namespace
from lab.processes import check, wait_until

from bench.result import Measured, Outcome, alternate
from bench.stage import NAMESERVER, Stage

NAMES = ("sidecar-ready", "sidecar-memory")

UNITS = {"B": 1 / (1 << 20), "KiB": 1 / 1024, "MiB": 1.0, "GiB": 1024.0}
"""Of `docker stats`, in MiB."""


@dataclass(frozen=True)
class Outside:
    """Where the engine's link leads to."""

    namespace: Namespace


@dataclass(frozen=True)
class Container:
    """A container that is ready, and how long that took."""

    id: str
    milliseconds: float


def measure(stage: Stage) -> Iterator[Outcome]:
    """Containers of the image, as OpenSandbox's server starts them, and of BusyBox that sleeps; under a real dockerd."""
    with engine(Outside(stage.internet), stage.directory / "engine", NAMESERVER[0]) as docker:
        docker.make_sandgate_image()
        ways: dict[str, Callable[[], Container]] = {"ours": partial(_sidecar, docker), "theirs": partial(_sleeper, docker)}
        for start in ways.values():
            _remove(docker, start())
        rounds = alternate(stage.effort.samples, {name: partial(_milliseconds, docker, start) for name, start in ways.items()})
        yield Measured("sidecar-ready", [(taken["ours"], taken["theirs"]) for taken in rounds])
        memory = alternate(
            max(3, stage.effort.samples // 2), {name: partial(_mebibytes, docker, start) for name, start in ways.items()}
        )
        yield Measured("sidecar-memory", [(taken["ours"], taken["theirs"]) for taken in memory])


def _sidecar(docker: Engine) -> Container:
    """Until `GET /healthz` is answered with 200."""
    begin = time.monotonic()
    upstream = f"OPENSANDBOX_EGRESS_DNS_UPSTREAM={NAMESERVER[0]}"
    container = docker.docker("run", "--detach", "--cap-add", "NET_ADMIN", "--env", upstream, SANDGATE)
    # Known when the container has been started; what comes before it is counted.
    url = f"http://{docker.inspect(container, ADDRESS)}:18080/healthz"
    ask = docker.namespace.command("curl", "-sS", "-f", "-m", "2", url)

    def is_well() -> bool:
        with contextlib.suppress(RuntimeError):
            return check(*ask) == "ok"
        return False

    wait_until(is_well, "the sidecar", 30)
    return Container(container, (time.monotonic() - begin) * 1000)


def _sleeper(docker: Engine) -> Container:
    """Until `docker run` has returned: the program has been started then. The same is asked about it as about the other."""
    begin = time.monotonic()
    container = docker.start(image=IMAGE)
    docker.inspect(container, ADDRESS)
    return Container(container, (time.monotonic() - begin) * 1000)


def _remove(docker: Engine, container: Container) -> None:
    docker.docker("rm", "--force", container.id)


def _milliseconds(docker: Engine, start: Callable[[], Container]) -> float:
    container = start()
    _remove(docker, container)
    return container.milliseconds


def _mebibytes(docker: Engine, start: Callable[[], Container]) -> float:
    """What the engine says of a container's memory: all of its own, without pages of files that could be dropped."""
    container = start()
    text = docker.docker("stats", "--no-stream", "--format", "{{.MemUsage}}", container.id)
    _remove(docker, container)
    found = re.match(r"([\d.]+)([KMG]?i?B)", text)
    if found is None:
        raise RuntimeError(f"docker stats said {text!r}")
    return float(found[1]) * UNITS[found[2]]
