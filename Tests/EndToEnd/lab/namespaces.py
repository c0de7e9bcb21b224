"""Network namespaces of the lab, named after the process that made them, so that a later run finds stale ones."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from .processes import check, end_processes, wait_until

PREFIX = "sglab-"
NODE_LINK = "sglab-node"
"""The node's end of the link to the lab's Internet: one at a time on a machine, its addresses being fixed."""

_LOCK = Path("/run/sandgate-lab.lock")


class Namespace:
    """A network namespace that exists until it is removed."""

    def __init__(self, role: str) -> None:
        self.name = f"{PREFIX}{role}-{os.getpid()}"
        check("ip", "netns", "add", self.name)
        check("ip", "-n", self.name, "link", "set", "lo", "up")

    def command(self, *command: str | Path) -> list[str]:
        """`command` as it is run inside, with /etc/netns/NAME's files in place of /etc's."""
        return ["ip", "netns", "exec", self.name, *map(str, command)]

    def check(self, *command: str | Path) -> str:
        """Runs `command` inside; a failure raises."""
        return check(*self.command(*command))

    def ip(self, *arguments: str) -> None:
        """Runs `ip` on the namespace from outside."""
        check("ip", "-n", self.name, *arguments)

    def neighbour(self, address: str) -> str:
        """The hardware address that the namespace's eth0 reaches an IPv4 address by."""
        self.check("ping", "-c", "1", "-W", "2", address)
        return self.check("ip", "-4", "neigh", "show", address, "dev", "eth0").split("lladdr ")[1].split()[0]

    def sysctl(self, key: str, value: str) -> None:
        """Sets a sysctl of the namespace."""
        self.check("sysctl", "-qw", f"{key}={value}")

    def use_nameserver(self, address: str) -> None:
        """Gives programs inside a resolv.conf of their own."""
        directory = Path("/etc/netns") / self.name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "resolv.conf").write_text(f"nameserver {address}\n")

    def use_hosts(self, addresses: dict[str, str]) -> None:
        """Gives programs inside a hosts file of their own."""
        directory = Path("/etc/netns") / self.name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "hosts").write_text("".join(f"{address} {name}\n" for name, address in addresses.items()))

    def remove(self) -> None:
        """Ends what still runs inside and removes the namespace with its links."""
        remove_namespace(self.name)


def remove_namespace(name: str) -> None:
    """Removes a namespace of the lab and everything that lives in it."""
    found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True)
    end_processes(map(int, found.stdout.split()))
    subprocess.run(["ip", "netns", "delete", name], capture_output=True)
    shutil.rmtree(Path("/etc/netns") / name, ignore_errors=True)


def remove_node_link() -> None:
    """Removes the link to the Internet, if there is one."""
    subprocess.run(["ip", "link", "delete", NODE_LINK], capture_output=True)


def remove_stale() -> None:
    """Removes what an earlier run left behind that was ended with SIGKILL. To be called with the lock held."""
    for line in check("ip", "netns", "list").splitlines():
        name = line.split()[0] if line.split() else ""
        if name.startswith(PREFIX) and not name.endswith(f"-{os.getpid()}"):
            remove_namespace(name)
    remove_node_link()
    # A namespace that goes takes its links with it only a moment later.
    wait_until(lambda: NODE_LINK not in dict(socket.if_nameindex()).values(), f"{NODE_LINK} to go")


@contextlib.contextmanager
def exclusive() -> Iterator[None]:
    """Holds the machine's one lab: waits while another process has it."""
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        remove_stale()
        yield
