"""What a process may do to another one of the same user, tried on the process ids given. Prints what succeeded.

    guard.py PID…
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable

LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE, PTRACE_DETACH = 0x4206, 17
SYS_PIDFD_GETFD = 438


def succeed(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")


def seize(pid: int) -> None:
    succeed(LIBC.ptrace(PTRACE_SEIZE, pid, None, None))
    os.kill(pid, signal.SIGSTOP)
    LIBC.ptrace(PTRACE_DETACH, pid, None, None)
    os.kill(pid, signal.SIGCONT)


def take_descriptor(pid: int) -> None:
    descriptor = os.pidfd_open(pid)
    succeed(LIBC.syscall(SYS_PIDFD_GETFD, descriptor, 0, 0))


def read(name: str) -> Callable[[int], None]:
    def attempt(pid: int) -> None:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            if name == "environ":
                file.read(1)

    return attempt


def limit(pid: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_CORE, resource.prlimit(pid, resource.RLIMIT_CORE))


def enter(pid: int) -> None:
    """Opening is enough: who has the descriptor asks for the rest elsewhere."""
    os.close(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY))


def look_in(name: str) -> Callable[[int], None]:
    def attempt(pid: int) -> None:
        os.listdir(f"/proc/{pid}/{name}")

    return attempt


ATTEMPTS: dict[str, Callable[[int], None]] = {
    "ptrace": seize,
    "pidfd_getfd": take_descriptor,
    "mem": read("mem"),
    "environ": read("environ"),
    "namespace": enter,
    "root": look_in("root/"),
    "descriptors": look_in("fd"),
    "prlimit": limit,
    "affinity": lambda pid: os.sched_setaffinity(pid, os.sched_getaffinity(pid)),
    "priority": lambda pid: os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid)),
    "signal": lambda pid: os.kill(pid, 0),
}

for argument in sys.argv[1:]:
    for name, attempt in ATTEMPTS.items():
        try:
            attempt(int(argument))
        except OSError:
            continue
        print("did", name, argument, flush=True)
print("tried everything")
