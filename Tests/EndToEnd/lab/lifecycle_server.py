"""OpenSandbox's lifecycle server and SDK, unmodified, from the Python index: on the machine of the lab's container engine."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .engine import MACHINE_BINDS, SANDGATE, Engine
from .guarded import ATTACKS
from .internet import Internet
from .processes import end_process, wait_until
from .python_environment import python_environment

VERSION = "1.1.1"
KEY = "key-of-the-lab"
EXECD = "lab:execd"
AUTHORITY = "/lab/authority.pem"
"""Where the lab's certificate authority lies in sandboxes."""
_BOOTSTRAP = '#!/bin/sh\n/opt/opensandbox/execd &\nexec "$@"\n'


class SDKError(Exception):
    """What the SDK raised."""


@dataclass(frozen=True)
class Settings:
    """What differs between servers. By default they are as they are without a word in their configuration, but for the
    egress image."""

    port: int = 8080
    image: str = SANDGATE
    """The egress image."""
    drops_capabilities: bool = True
    """Whether sandboxes lack some of Docker's default capabilities, CAP_NET_RAW among them."""
    disables_ipv6: bool = True
    """Whether networks with a sidecar have no IPv6."""


OPEN_HANDED = Settings(drops_capabilities=False, disables_ipv6=False)
"""Sandboxes have all of Docker's default capabilities, and IPv6."""


class OpenSandbox:
    """A server that runs. Made by :func:`opensandbox`."""

    def __init__(self, internet: Internet, docker: Engine, directory: Path, settings: Settings) -> None:
        self._address = f"127.0.0.1:{settings.port}"
        self.docker, self._log, self.sdk_log = docker, directory / "server.log", directory / "sdk.log"
        self._python = _environment() / "bin/python"
        docker.make_image(EXECD, _execd())
        binds = [*MACHINE_BINDS, f"{internet.certificates.authority}:{AUTHORITY}:ro", f"{ATTACKS}:/attacks:ro"]
        configuration = directory / "config.toml"
        configuration.write_text(
            f"""
            [server]
            host = "127.0.0.1"
            port = {settings.port}
            api_key = "{KEY}"
            [runtime]
            type = "docker"
            execd_image = "{EXECD}"
            [store]
            type = "sqlite"
            path = "{directory}/store.db"
            [docker]
            network_mode = "bridge"
            sandbox_binds = {json.dumps(binds)}
            {"" if settings.drops_capabilities else "drop_capabilities = []"}
            [egress]
            image = "{settings.image}"
            mode = "dns+nft"
            {"" if settings.disables_ipv6 else "disable_ipv6 = false"}
            readiness_timeout_seconds = 15
            """
        )
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        self._variables = {**kept, "HOME": str(directory), "DOCKER_HOST": f"unix://{docker.socket}"}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                self._inside(self._python.with_name("opensandbox-server"), "--config", configuration),
                env=self._variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _inside(self, *command: str | Path) -> list[str]:
        """`command` as it is run on the engine's machine, with nothing but its network changed."""
        return ["nsenter", f"--net=/run/netns/{self.docker.namespace.name}", *map(str, command)]

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait(self) -> None:
        """Waits until it serves."""
        ask = self._inside("curl", "-sf", "-m", "2", f"http://{self._address}/health")

        def serves() -> bool:
            assert self.process.poll() is None, self.log
            return subprocess.run(ask, capture_output=True).returncode == 0

        wait_until(serves, "OpenSandbox's server", 60)

    def stop(self) -> None:
        end_process(self.process.pid)
        self.process.wait()

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        """The SDK, for one sandbox."""
        script = Path(__file__).with_name("lifecycle_client.py")
        made = Client(self, self._inside(self._python, script, self._address, KEY), self._variables)
        try:
            yield made
        finally:
            made.stop()


class Client:
    """One sandbox of the server's, held by the SDK in a process of its own."""

    def __init__(self, server: OpenSandbox, command: list[str], variables: dict[str, str]) -> None:
        self.server, self.docker = server, server.docker
        self.id = ""
        with server.sdk_log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def do(self, name: str, *values: object) -> Any:
        """Has the SDK do something; what it raises, raises."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, values]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, self.server.sdk_log.read_text()
        answer = json.loads(line)
        if "error" in answer:
            raise SDKError(f"{answer['error']}\n{self.server.log[-3000:]}")
        return answer["result"]

    def create(self, image: str, policy: object, **variables: str) -> None:
        self.id = self.do("create", image, policy, variables)

    def containers(self, label: str) -> list[str]:
        """The ids of containers with a label that has this sandbox's id as its value, stopped ones included."""
        words = ("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={label}={self.id}")
        return self.docker.docker(*words).split()

    @property
    def sandbox(self) -> str:
        """The sandbox's container."""
        (found,) = self.containers("opensandbox.io/id")
        return found

    @property
    def sidecar(self) -> str:
        """Ours beside it."""
        (found,) = self.containers("opensandbox.io/egress-sidecar-for")
        return found

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


def _environment() -> Path:
    """A Python environment with the server and the SDK, made once."""
    return python_environment("opensandbox", (f"opensandbox-server=={VERSION}", f"opensandbox=={VERSION}"))


def _execd() -> bytes:
    """The image that the server takes execd from; it is started once, with `tail`, to be read."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", dereference=True) as files:
        files.add("/bin/busybox", "bin/busybox")
        link = tarfile.TarInfo("bin/tail")
        link.type, link.linkname = tarfile.SYMTYPE, "busybox"
        files.addfile(link)
        scripts = {"execd": Path(__file__).with_name("execd.py").read_bytes(), "bootstrap.sh": _BOOTSTRAP.encode()}
        for name, text in scripts.items():
            script = tarfile.TarInfo(name)
            script.size, script.mode = len(text), 0o755
            files.addfile(script, io.BytesIO(text))
    return archive.getvalue()


@contextlib.contextmanager
def opensandbox(
    internet: Internet, docker: Engine, directory: Path, settings: Settings = Settings()
) -> Iterator[OpenSandbox]:
    """A server that uses the image as its egress image."""
    made = OpenSandbox(internet, docker, directory, settings)
    try:
        made.wait()
        yield made
    finally:
        made.stop()
