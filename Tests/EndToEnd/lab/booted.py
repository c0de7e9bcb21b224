"""A systemd that boots in namespaces of its own, on a copy of this machine's files: what it changes is forgotten."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from .namespaces import Namespace
from .processes import wait_until

GROUPS = "sglab-booted-"
"""Control groups are called so, and end in the id of the process that made them."""

# Two stages, for a process sees the control group that it is in as the root only in a namespace made when it is there.
OUTER = r"""
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root" "$1/groups"
mount -t cgroup2 cgroup2 "$1/groups"
for stale in "$1/groups/$3"*; do
    [ ! -d "$stale" ] || find "$stale" -depth -type d -exec rmdir {} + 2>/dev/null || true
done
mkdir "$1/groups/$3$4"
echo 0 >"$1/groups/$3$4/cgroup.procs"
exec unshare --cgroup --pid --ipc --uts --fork --kill-child /bin/sh -c "$2" boot "$1" "$3$4"
"""

# What stands below /proc/sys is the machine's, but for what is the network namespace's own. Services of the machine have no
# business here: what begins at boot is taken away, the journal excepted.
INNER = r"""
set -eu
cd "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" .
cd "$1/root"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount --bind proc/sys/net proc/sys/net
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for directory in run tmp dev; do mount -t tmpfs -o mode=755 tmpfs "$directory"; done
chmod 1777 tmp
for device in null zero full random urandom tty; do
    : >"dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
find lib/systemd/system/*.wants etc/systemd/system etc/systemd/system/*.wants -maxdepth 1 \( -type l -o -type f \) \
    ! -name 'systemd-journald*' -delete
rm -f etc/fstab usr/sbin/policy-rc.d var/lib/man-db/auto-update
rm -rf etc/sandgate var/lib/sandgate var/log/sandgate var/log/journal
rm -f etc/resolv.conf
printf 'nameserver %s\n' "$NAMESERVER" >etc/resolv.conf
printf '[Unit]\nRequires=basic.target\nAfter=basic.target\n' >etc/systemd/system/booted.target
mkdir machine
pivot_root . machine
umount -l /machine
export container=sandgate-lab
exec /lib/systemd/systemd --unit=booted.target --log-target=console --show-status=0
"""


class Booted:
    """The system. Programs run in it as root."""

    def __init__(self, network: Namespace, directory: Path, nameserver: str) -> None:
        self._log = directory / "boot.log"
        place = directory / "booted"
        place.mkdir()
        self._group = f"{GROUPS}{os.getpid()}"
        # The signal at the death of its parent: nothing stays when the tests are killed.
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "/bin/sh", "-c", OUTER, "boot"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                network.command(*command, place, INNER, GROUPS, str(os.getpid())),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "NAMESERVER": nameserver},
            )
        self.pid = 0
        try:
            wait_until(self._find, "the booted system's first process", 20)
            wait_until(lambda: self.run("systemctl", "is-system-running").stdout == "running\n", "systemd to boot", 20)
        except TimeoutError as error:
            said = self._log.read_text()
            self.stop()
            raise RuntimeError(f"systemd does not boot here: {error}\n{said}") from error

    def _find(self) -> bool:
        if self._process.poll() is not None:
            raise TimeoutError("it has ended")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self.pid = int(children[0]) if children else 0
        return self.pid != 0 and Path(f"/proc/{self.pid}/comm").read_text() == "systemd\n"

    def path(self, path: str) -> Path:
        """A path of the system as those outside see it."""
        return Path(f"/proc/{self.pid}/root{path}")

    def run(
        self, *command: str, environment: Mapping[str, str] | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program in it."""
        return subprocess.run(
            ["nsenter", f"--target={self.pid}", "--all", "--wd=/", *command],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def check(self, *command: str, timeout: float = 60) -> str:
        """Runs a program in it, which succeeds; returns what it printed."""
        done = self.run(*command, timeout=timeout)
        assert done.returncode == 0, f"{done}\n{self.journal()}"
        return done.stdout

    def journal(self) -> str:
        """What was logged."""
        return self.run("journalctl", "--no-pager", "--output=cat").stdout

    def property(self, unit: str, name: str) -> str:
        """A property of a unit, as systemd shows it."""
        return self.check("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def stop(self) -> None:
        """Ends everything in it; its files and mounts go with it."""
        if self._process.poll() is None:
            # The first process of a PID namespace takes all others along.
            os.kill(self.pid or self._process.pid, signal.SIGKILL)
        self._process.wait()
        _remove_group(self._group)


def _remove_group(name: str) -> None:
    """Removes a control group of the second version, wherever on this machine that is mounted, if it is."""
    script = """
        mount -t cgroup2 cgroup2 "$1" && cd "$1" && [ -d "$2" ] || exit 0
        for attempt in 1 2 3 4 5 6 7 8 9 10; do
            find "$2" -depth -type d -exec rmdir {} + 2>/dev/null && exit 0
            sleep 0.1
        done
    """
    subprocess.run(["unshare", "--mount", "/bin/sh", "-c", script, "remove", "/mnt", name], capture_output=True)


@contextlib.contextmanager
def booted(network: Namespace, directory: Path, nameserver: str) -> Iterator[Booted]:
    """A system while a block lasts."""
    system = Booted(network, directory, nameserver)
    try:
        yield system
    finally:
        system.stop()
