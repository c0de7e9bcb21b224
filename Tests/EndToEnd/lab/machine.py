"""What a run could leave behind on the machine, taken before and after and compared."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, fields
from pathlib import Path

from .processes import check


@dataclass(frozen=True)
class Snapshot:
    """Everything global that a sandbox is made of or could change."""

    links: frozenset[str]
    routes: frozenset[str]
    mounts: frozenset[str]
    ruleset: str
    forwarding: str

    @staticmethod
    def take() -> Snapshot:
        """The state now."""
        routes = check("ip", "route", "show", "table", "all") + check("ip", "-6", "route", "show", "table", "all")
        settings = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")
        forwarding = [Path(f"/proc/sys/net/{name}").read_text() for name in settings]
        mounts = (line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
        return Snapshot(
            links=frozenset(line.split(":")[1].strip() for line in check("ip", "-o", "link").splitlines()),
            routes=frozenset(line.split(" expires ")[0].strip() for line in routes.splitlines()),
            mounts=frozenset(mounts),
            ruleset=check("nft", "list", "ruleset"),
            forwarding="".join(forwarding),
        )

    def difference(self, other: Snapshot) -> dict[str, tuple[object, object]]:
        """What differs, by field, as (only here, only there)."""
        found: dict[str, tuple[object, object]] = {}
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if mine != theirs:
                both = isinstance(mine, frozenset)
                found[field.name] = (mine - theirs, theirs - mine) if both else (mine, theirs)
        return found


def namespaces_below(pid: int) -> set[str]:
    """Namespaces that a process's descendants live in and it does not: anonymous ones, which `ip netns` cannot list."""
    found: set[str] = set()
    for child in _children(pid):
        found |= _namespaces_of(child) | namespaces_below(child)
    return found - _namespaces_of(pid) - _namespaces_of(os.getpid())


def network_below(pid: int) -> Path:
    """The network that a process's descendants live in and it does not."""
    own, waiting = os.readlink(f"/proc/{pid}/ns/net"), _children(pid)
    while waiting:
        child = waiting.pop()
        network = Path(f"/proc/{child}/ns/net")
        if os.readlink(network) != own:
            return network
        waiting += _children(child)
    raise RuntimeError(f"no descendant of {pid} has a network of its own")


def namespaces_in_use() -> set[str]:
    """Namespaces that some process lives in."""
    found: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        found |= _namespaces_of(int(process.name))
    return found


def _namespaces_of(pid: int) -> set[str]:
    found: set[str] = set()
    for kind in ("net", "mnt", "pid", "ipc", "uts"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
    return found


def _children(pid: int) -> list[int]:
    text = ""
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            text += (task / "children").read_text() + " "
    return [int(word) for word in text.split()]


def processes_with(text: str) -> list[int]:
    """Ids of the processes whose command line contains `text`."""
    found: list[int] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found
