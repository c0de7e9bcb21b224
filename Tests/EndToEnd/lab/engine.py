"""A real container engine (dockerd), in a network namespace of its own with a way to the lab's Internet that nobody guards."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from .namespaces import Namespace
from .processes import check, end_process, wait_until
from .sandgate import REPOSITORY
from .tool import binary

IMAGE = "lab:tools"
MACHINE = "lab:machine"
"""The machine's own programs, for containers that are started with :data:`MACHINE_BINDS`."""
MACHINE_BINDS = ("/usr:/usr:ro", "/etc/ssl:/etc/ssl:ro", "/etc/alternatives:/etc/alternatives:ro")
SANDGATE = "sandgate:local"
OUTSIDE4, INSIDE4, OUTSIDE6, INSIDE6 = "10.79.0.1", "10.79.0.2", "fd79::1", "fd79::2"
"""The two ends of the engine's link to the Internet."""
CONTAINERS6 = "fd80:80::/64"
BUSYBOX = ("sh", "sleep", "nc", "ip", "ping", "cat", "true")
PROGRAMS = ("/usr/bin/curl",)
"""With the libraries that they need: a static program cannot use the C library's resolver."""


class Outside(Protocol):
    """What is outside of the engine's machine: the lab's Internet, or another."""

    @property
    def namespace(self) -> Namespace: ...


class Containers:
    """Containers of one engine, and images for them. What of Docker's command line is used here is Podman's too."""

    def __init__(self, namespace: Namespace, bridge: str, *command: str) -> None:
        self.namespace = namespace
        """The network of its machine."""
        self.bridge = bridge
        """The device in there that containers are joined to."""
        self._program = command

    def make_image(self, name: str, files: bytes, *changes: str) -> None:
        """Makes an image of a tar archive."""
        options = [word for change in changes for word in ("--change", change)]
        done = subprocess.run(self._command("import", *options, "-", name), input=files, capture_output=True)
        assert done.returncode == 0, done.stderr

    def make_tools_image(self) -> None:
        """Makes :data:`IMAGE`."""
        self.make_image(IMAGE, _tools())

    def make_machine_image(self) -> None:
        """Makes :data:`MACHINE`: where /usr is to be, and what leads there."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as files:
            for name in ("usr", "etc/ssl", "etc/alternatives", "tmp", "root", "run", "var"):
                directory = tarfile.TarInfo(name)
                directory.type, directory.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
                files.addfile(directory)
            for name in ("bin", "lib", "lib64", "sbin"):
                files.addfile(_link(name, f"usr/{name}"))
            for name in ("etc/passwd", "etc/group", "etc/nsswitch.conf"):
                files.add(f"/{name}", name)
        self.make_image(MACHINE, archive.getvalue())

    def _command(self, *words: str) -> list[str]:
        """The engine's program and its arguments."""
        return [*self._program, *words]

    def docker(self, *words: str, timeout: float = 60) -> str:
        """Runs the engine's program; a failure raises."""
        return check(*self._command(*words), timeout=timeout).strip()

    def inspect(self, container: str, template: str) -> str:
        """What the engine knows of a container."""
        return self.docker("container", "inspect", "--format", template, container)

    def logs(self, container: str) -> str:
        """What a container's program said, to both its outputs."""
        done = subprocess.run(self._command("logs", container), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.stdout

    def start(self, *options: str, image: str = IMAGE) -> str:
        """Starts a container that sleeps; returns its id."""
        return self.docker("run", "--detach", *options, image, "/bin/sleep", "600")

    def run(self, container: str, *command: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """Runs a program in a container."""
        return subprocess.run(
            self._command("exec", container, *command), capture_output=True, text=True, timeout=timeout
        )

    def begin(self, container: str, *command: str) -> subprocess.Popen[str]:
        """Begins a program in a container, whose output is read while it runs."""
        return subprocess.Popen(
            self._command("exec", container, *command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )

    def remove(self, *containers: str) -> None:
        """Ends and removes containers; one whose network others joined comes after them."""
        self.docker("rm", "--force", *containers)

    def remove_containers(self) -> None:
        """Removes all there are: the youngest first, which others do not depend on."""
        with contextlib.suppress(Exception):
            self.remove(*self.docker("ps", "--all", "--quiet").split())


class Engine(Containers):
    """dockerd, and containers of an image that holds BusyBox and curl. Made by :func:`engine`."""

    def __init__(self, directory: Path, namespace: Namespace, nameserver: str, *options: str) -> None:
        self.socket = directory / "docker.sock"
        super().__init__(namespace, "docker0", "/usr/bin/docker", "--host", f"unix://{self.socket}")
        self._log = directory / "log"
        command = ["nsenter", f"--net=/run/netns/{namespace.name}", "dockerd", "--data-root", directory / "data"]
        command += ["--exec-root", directory / "exec", "--pidfile", directory / "pid", "--host", f"unix://{self.socket}"]
        # The kernel has nftables alone, and the machine's addresses are not known in there.
        command += ["--group", "root", "--bip", "10.80.0.1/24", "--dns", nameserver]
        command += ["--ipv6", "--fixed-cidr-v6", CONTAINERS6, *options]
        self._daemon = [str(word) for word in command]
        self.process = self._begin()

    def _begin(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(self._daemon, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @contextlib.contextmanager
    def away(self, number: signal.Signals = signal.SIGTERM) -> Iterator[None]:
        """dockerd ends for as long as the `with` lasts, and begins again as it was. With `--live-restore` its containers go on."""
        noted = self.socket.parent / "exec/containerd/containerd.pid"
        containerd = int(noted.read_text())
        self.process.send_signal(number)
        self.process.wait(60)
        # Which elsewhere is a service of its own: it outlives a dockerd that was killed, and lets no other begin.
        end_process(containerd)
        noted.unlink(missing_ok=True)
        try:
            yield
        finally:
            self.process = self._begin()
            self.wait()

    def wait(self) -> None:
        """Waits until it serves."""

        def serves() -> bool:
            assert self.process.poll() is None, self._log.read_text()[-2000:]
            return subprocess.run(self._command("version"), capture_output=True).returncode == 0

        wait_until(serves, "the container engine", 60)

    def make_sandgate_image(self) -> None:
        """Makes :data:`SANDGATE` as users do, of the program under test."""
        script = REPOSITORY / "deploy/build-image"
        check(script, "--binary", binary(), "--docker-host", f"unix://{self.socket}", timeout=300)

    def build(self, name: str, *lines: str, files: Path | None = None) -> None:
        """Makes an image of a Dockerfile's lines, as the pages do; they may copy files of a directory."""
        place = ("-",) if files is None else ("--file", "-", str(files))
        command = self._command("build", "--tag", name, *place)
        done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr

    def stop(self) -> None:
        """Removes all containers and ends."""
        self.remove_containers()
        end_process(self.process.pid, 20)
        self.process.wait()


def _link(name: str, target: str) -> tarfile.TarInfo:
    link = tarfile.TarInfo(name)
    link.type, link.linkname = tarfile.SYMTYPE, target
    return link


def _tools() -> bytes:
    """The files of :data:`IMAGE`, as `docker import` reads them."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", dereference=True) as files:
        files.add("/bin/busybox", "bin/busybox")
        for name in BUSYBOX:
            files.addfile(_link(f"bin/{name}", "busybox"))
        libraries = {library for program in PROGRAMS for library in re.findall(r"/\S+", check("ldd", program))}
        for path in (*PROGRAMS, *sorted(libraries)):
            files.add(path, path.lstrip("/"))
    return archive.getvalue()


@contextlib.contextmanager
def engine_with_images(internet: Outside, directory: Path, nameserver: str) -> Iterator[Engine]:
    """An :func:`engine` with Sandgate's image and :data:`MACHINE`."""
    with engine(internet, directory, nameserver) as made:
        made.make_sandgate_image()
        made.make_machine_image()
        yield made


@contextlib.contextmanager
def engine(
    internet: Outside, directory: Path, nameserver: str = "10.80.0.1", *options: str
) -> Iterator[Engine]:
    """A container engine whose containers are told of a nameserver; everything that it left is removed. `options` are those
    of dockerd."""
    with machine(internet, directory) as namespace:
        made = Engine(directory, namespace, nameserver, *options)
        try:
            made.wait()
            made.make_tools_image()
            yield made
        finally:
            made.stop()


@contextlib.contextmanager
def machine(internet: Outside, directory: Path) -> Iterator[Namespace]:
    """The network of an engine's machine, and a directory for what the engine keeps; what it left there is removed."""
    directory.mkdir(parents=True, exist_ok=True)
    namespace = Namespace("engine")
    link = f"sgeng-{os.getpid()}"
    outside = internet.namespace
    try:
        outside.ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace.name)
        for end, name, own4, own6 in ((outside, link, OUTSIDE4, OUTSIDE6), (namespace, "eth0", INSIDE4, INSIDE6)):
            end.ip("address", "add", f"{own4}/30", "dev", name)
            end.ip("address", "add", f"{own6}/64", "dev", name, "nodad")
            end.ip("link", "set", name, "up")
        namespace.ip("route", "add", "default", "via", OUTSIDE4)
        namespace.ip("-6", "route", "add", "default", "via", OUTSIDE6)
        outside.ip("-6", "route", "add", CONTAINERS6, "via", INSIDE6)
        yield namespace
    finally:
        subprocess.run(outside.command("ip", "link", "delete", link), capture_output=True)
        namespace.remove()
        # The engine leaves mounts behind that were in use when it ended.
        for line in Path("/proc/self/mounts").read_text().splitlines():
            place = line.split()[1]
            if place.startswith(str(directory)):
                subprocess.run(["umount", "--lazy", place], capture_output=True)
        shutil.rmtree(directory, ignore_errors=True)
