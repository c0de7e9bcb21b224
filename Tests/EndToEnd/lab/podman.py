"""Podman with images and networks of its own, on a machine that the lab makes for it."""

from __future__ import annotations

import contextlib
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from .engine import Containers, Outside, machine
from .namespaces import Namespace
from .processes import check, end_process, wait_until
from .sandgate import REPOSITORY
from .tool import binary

CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID"),
    "SYS_CHROOT",
)
"""What containers have by default, as Podman's own containers.conf says it: fewer than Docker's, CAP_NET_RAW not among them."""


def settings(directory: Path, dns_servers: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Podman's own variables that have it read nothing of the machine's configuration, nor its storage: all is in
    `directory`. Containers are told of `dns_servers`, or of what Podman itself thinks of."""
    storage, containers = directory / "storage.conf", directory / "containers.conf"
    storage.write_text(
        f"""
        [storage]
        driver = "vfs"
        graphroot = "{directory}/storage"
        runroot = "{directory}/run"
        """
    )
    containers.write_text(
        f"""
        [containers]
        dns_servers = {list(dns_servers)}
        default_ulimits = [{_limits()}]
        default_capabilities = {list(CAPABILITIES)}
        [engine]
        cgroup_manager = "cgroupfs"
        events_logger = "file"
        runtime = "runc"
        tmp_dir = "{directory}/tmp"
        [network]
        network_backend = "cni"
        network_config_dir = "{directory}/networks"
        default_subnet = "10.80.0.0/24"
        """
    )
    return f"CONTAINERS_STORAGE_CONF={storage}", f"CONTAINERS_CONF={containers}"


class PodmanProgram(Containers):
    """Podman, which has no daemon: the command does all by itself. `on_the_machine` is what runs a command there."""

    def __init__(self, namespace: Namespace, bridge: str, *on_the_machine: str) -> None:
        self.on_the_machine = on_the_machine
        super().__init__(namespace, bridge, *on_the_machine, "podman")

    def remove(self, *containers: str) -> None:
        # Without the time that a first process has to end at SIGTERM, which none here does.
        for container in containers:
            self.docker("rm", "--force", "--time", "0", container)

    def remove_containers(self) -> None:
        with contextlib.suppress(Exception):
            self.docker("rm", "--all", "--force", "--depend", "--time", "0")

    @contextlib.contextmanager
    def service(self, socket: Path) -> Iterator[None]:
        """Podman's API at a socket."""
        command = self._command("system", "service", "--time", "0", f"unix://{socket}")
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until(socket.exists, "Podman's service")
            yield
        finally:
            end_process(process.pid)
            process.wait()

    def make_sandgate_image(self) -> None:
        """Makes Sandgate's image as users do, of the program under test."""
        script = REPOSITORY / "deploy/build-image"
        check(*self.on_the_machine, script, "--podman", "--binary", binary(), timeout=300)


class Podman(PodmanProgram):
    """Podman of root. Made by :func:`podman`."""

    def __init__(self, directory: Path, namespace: Namespace, nameserver: str) -> None:
        variables = settings(directory, (nameserver,))
        super().__init__(namespace, "cni-podman0", "nsenter", f"--net=/run/netns/{namespace.name}", "env", *variables)


def _limits() -> str:
    """What every root may give containers: no more than it has. Podman's own choice is a million of each, and it sets its own
    processes to no more than there can be."""
    files, processes = (resource.getrlimit(kind)[1] for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC))
    processes = min(processes, int(Path("/proc/sys/kernel/pid_max").read_text()), 32_768)
    return f'"nofile={files}:{files}", "nproc={processes}:{processes}"'


def is_installed() -> bool:
    """Whether there is a Podman; one that does not work is a failure."""
    return shutil.which("podman") is not None


@contextlib.contextmanager
def podman(internet: Outside, directory: Path, nameserver: str) -> Iterator[Podman]:
    """Podman with all images, whose containers are told of a nameserver; everything that it left is removed."""
    with machine(internet, directory) as namespace:
        made = Podman(directory, namespace, nameserver)
        try:
            made.make_tools_image()
            made.make_sandgate_image()
            made.make_machine_image()
            yield made
        finally:
            made.remove_containers()
