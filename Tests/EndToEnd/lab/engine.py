"""A real container engine (dockerd), in a network namespace of its own with a way to the lab's Internet that nobody guards."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from .internet import Internet
from .namespaces import Namespace
from .processes import check, end_process, wait_until

IMAGE = "lab:tools"
BUSYBOX = ("sh", "sleep", "nc", "ip", "ping", "cat", "true")
PROGRAMS = ("/usr/bin/curl",)
"""With the libraries that they need: a static program cannot use the C library's resolver."""


class Engine:
    """dockerd, and containers of an image that holds BusyBox and curl. Made by :func:`engine`."""

    def __init__(self, directory: Path, namespace: Namespace) -> None:
        self.socket = directory / "docker.sock"
        self._log = directory / "log"
        command = ["nsenter", f"--net=/run/netns/{namespace.name}", "dockerd", "--data-root", directory / "data"]
        command += ["--exec-root", directory / "exec", "--pidfile", directory / "pid", "--host", f"unix://{self.socket}"]
        # The kernel has nftables alone, and the machine's addresses are not known in there.
        command += ["--group", "root", "--bip", "10.80.0.1/24", "--dns", "10.80.0.1"]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait(self) -> None:
        """Waits until it serves, and makes the image."""

        def serves() -> bool:
            assert self.process.poll() is None, self._log.read_text()[-2000:]
            return subprocess.run(self._command("version"), capture_output=True).returncode == 0

        wait_until(serves, "the container engine", 60)
        done = subprocess.run(self._command("import", "-", IMAGE), input=_image(), capture_output=True)
        assert done.returncode == 0, done.stderr

    def _command(self, *words: str) -> list[str]:
        return ["/usr/bin/docker", "--host", f"unix://{self.socket}", *words]

    def docker(self, *words: str, timeout: float = 60) -> str:
        """Runs `docker`; a failure raises."""
        return check(*self._command(*words), timeout=timeout).strip()

    def start(self, *options: str) -> str:
        """Starts a container that sleeps; returns its id."""
        return self.docker("run", "--detach", *options, IMAGE, "/bin/sleep", "600")

    def run(self, container: str, *command: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """Runs a program in a container."""
        return subprocess.run(
            self._command("exec", container, *command), capture_output=True, text=True, timeout=timeout
        )

    def stop(self) -> None:
        """Removes all containers and ends."""
        with contextlib.suppress(Exception):
            for container in self.docker("ps", "--all", "--quiet").split():
                self.docker("rm", "--force", container)
        end_process(self.process.pid, 20)
        self.process.wait()


def _image() -> bytes:
    """The files of the image, as `docker import` reads them."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", dereference=True) as files:
        files.add("/bin/busybox", "bin/busybox")
        for name in BUSYBOX:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            files.addfile(link)
        libraries = {library for program in PROGRAMS for library in re.findall(r"/\S+", check("ldd", program))}
        for path in (*PROGRAMS, *sorted(libraries)):
            files.add(path, path.lstrip("/"))
    return archive.getvalue()


@contextlib.contextmanager
def engine(internet: Internet, directory: Path) -> Iterator[Engine]:
    """A container engine; everything that it left is removed."""
    directory.mkdir(parents=True, exist_ok=True)
    namespace = Namespace("engine")
    link = f"sgeng-{os.getpid()}"
    outside = internet.namespace
    try:
        outside.ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace.name)
        for end, name, number in ((outside, link, 1), (namespace, "eth0", 2)):
            end.ip("address", "add", f"10.79.0.{number}/30", "dev", name)
            end.ip("link", "set", name, "up")
        namespace.ip("route", "add", "default", "via", "10.79.0.1")
        made = Engine(directory, namespace)
        try:
            made.wait()
            yield made
        finally:
            made.stop()
    finally:
        subprocess.run(outside.command("ip", "link", "delete", link), capture_output=True)
        namespace.remove()
        # The engine leaves mounts behind that were in use when it ended.
        for line in Path("/proc/self/mounts").read_text().splitlines():
            place = line.split()[1]
            if place.startswith(str(directory)):
                subprocess.run(["umount", "--lazy", place], capture_output=True)
        shutil.rmtree(directory, ignore_errors=True)
