"""Podman of an ordinary user, as Debian has it: newuidmap, slirp4netns, runc. It runs on a machine of the lab's, whose users and
devices are as those of a Debian that was installed: this one's need not be."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from .engine import Outside, machine
from .namespaces import Namespace
from .podman import PodmanProgram, settings
from .processes import Child, check, end_processes
from .user import ordinary_user

PROGRAMS = ("podman", "newuidmap", "slirp4netns")
USER = "sandgate-lab"
FIRST_SUBORDINATE, SUBORDINATES = 700_000_000, 65_536
"""The ids that the user has besides its own, in no other user's range."""
HARDWARE = "52:55:0a:00:02:02"
"""slirp4netns's own end of a container's link."""


class RootlessPodman(PodmanProgram):
    """Podman of a user who is not root. Made by :func:`rootless_podman`."""

    def __init__(self, directory: Path, namespace: Namespace, holder: int, user: int, home: Path) -> None:
        environment = [f"HOME={home}", f"XDG_RUNTIME_DIR={directory}/runtime", f"USER={USER}", f"LOGNAME={USER}"]
        environment += ["PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG=C.UTF-8", *settings(directory)]
        enter = ("nsenter", f"--mount=/proc/{holder}/ns/mnt", f"--net=/proc/{holder}/ns/net", f"--wd={directory}")
        become = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups")
        super().__init__(namespace, "", *enter, *become, "env", "-i", *environment)

    def end(self) -> None:
        """Ends what holds the user's namespaces: no command does."""
        with contextlib.suppress(RuntimeError):
            check(*self.on_the_machine, "podman", "system", "migrate")


def missing() -> list[str]:
    """The programs that it takes and that are not installed."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


MACHINE = """
set -e
mount --make-rprivate /
mount --bind "$1/etc" /etc
mount -t tmpfs tmpfs /dev/net
mknod -m 666 /dev/net/tun c 10 200
echo ready
exec sleep infinity
"""
"""What is different on the lab's machine: its users and nameserver, and who may open /dev/net/tun (everybody, by Debian's
rules for devices). Its argument is where they are."""


def _etc(directory: Path, user: int, nameserver: str) -> None:
    """A copy of /etc in `directory` that knows the user."""
    etc = directory / "etc"
    shutil.copytree("/etc", etc, symlinks=True)
    for name, line in (
        ("passwd", f"{USER}:x:{user}:{user}::/:/bin/sh"),
        ("group", f"{USER}:x:{user}:"),
        ("subuid", f"{USER}:{FIRST_SUBORDINATE}:{SUBORDINATES}"),
        ("subgid", f"{USER}:{FIRST_SUBORDINATE}:{SUBORDINATES}"),
    ):
        with (etc / name).open("a") as file:
            file.write(line + "\n")
    (etc / "resolv.conf").unlink(missing_ok=True)
    (etc / "resolv.conf").write_text(f"nameserver {nameserver}\n")


def _processes_of(users: range, user: int) -> list[int]:
    """The processes of the user, and of those ids that are its own besides."""
    found = []
    for path in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if path.name.isdecimal() and ((uid := path.stat().st_uid) == user or uid in users):
                found.append(int(path.name))
    return found


@contextlib.contextmanager
def rootless_podman(internet: Outside, directory: Path, nameserver: str) -> Iterator[RootlessPodman]:
    """The user's Podman with all images; everything that it left is removed. slirp4netns asks `nameserver`."""
    with machine(internet, directory) as namespace, ordinary_user() as user:
        _etc(directory, user.id, nameserver)
        place = user.directory("podman")
        (place / "runtime").mkdir(mode=0o700)
        os.chown(place / "runtime", user.id, user.id)
        held = ("unshare", "--mount", "/bin/sh", "-c", MACHINE, "sh", str(directory))
        holder = Child(["nsenter", f"--net=/run/netns/{namespace.name}", *held], "ready")
        made = RootlessPodman(place, namespace, holder.process.pid, user.id, user.home)
        try:
            made.make_tools_image()
            made.make_sandgate_image()
            made.make_machine_image()
            yield made
        finally:
            made.remove_containers()
            made.end()
            subordinate = range(FIRST_SUBORDINATE, FIRST_SUBORDINATE + SUBORDINATES)
            end_processes(_processes_of(subordinate, user.id))
            holder.stop()
