"""Devices of the node, which know no network namespace: serial lines, disks, whatever else a machine has.

A serial line of the tests is a virtual console under another name: what was sent stands on its screen.
"""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.internet import Internet
from lab.processes import check
from lab.sandgate import Finished, Records, Sandgate, allowing, shell

NUMBER = os.makedev(4, 61)
SCREEN = Path("/dev/vcs61")


class Line:
    """A serial line, with whatever is attached to its other end."""

    def __init__(self, path: Path, owner: int) -> None:
        self.path, self._owner = path, owner

    def appear(self) -> None:
        """Is plugged in."""
        os.mknod(self.path, stat.S_IFCHR | 0o600, NUMBER)
        os.chown(self.path, self._owner, self._owner)

    def sent(self) -> bytes:
        """What went out by it."""
        return SCREEN.read_bytes() if SCREEN.exists() else b""

    def clear(self) -> None:
        """Forgets what went out."""
        with self.path.open("wb", buffering=0) as line:
            line.write(b"\033c")


@pytest.fixture
def line(sandgate: Sandgate) -> Iterator[Line]:
    made = Line(Path(f"/dev/ttyS{os.getpid()}"), sandgate.user.id if sandgate.user else 0)
    made.appear()
    try:
        made.clear()
    except OSError:
        made.path.unlink()
        pytest.skip("this machine has no virtual consoles")
    yield made
    made.path.unlink(missing_ok=True)


def send(path: Path | str) -> list[str]:
    """The command that sends a word by a line, if it is there and a device."""
    return shell(f"test -c {path} && printf outward > {path}; echo tried")


def unenforced(sandgate: Sandgate, command: list[str]) -> subprocess.CompletedProcess[str]:
    line = sandgate.user.command(*command) if sandgate.user else command
    return subprocess.run(line, capture_output=True, text=True, timeout=30)


@pytest.mark.attack("T15", "sends by a serial line, which may lead to anywhere", stopped_by="mounts")
def test_serial_line(internet: Internet, sandgate: Sandgate, line: Line) -> None:
    without = unenforced(sandgate, send(line.path))
    assert b"outward" in line.sent(), without
    line.clear()
    run = sandgate.run(allowing(), *send(line.path))
    assert run.stdout == "tried\n" and b"outward" not in line.sent(), run


@pytest.mark.attack("T15", "sends by a device that is plugged in while it runs", stopped_by="mounts")
def test_device_that_appears_later(internet: Internet, sandgate: Sandgate, line: Line) -> None:
    line.path.unlink()
    running = sandgate.start(allowing(), shell(f"echo begun; read go; {shlex.join(send(line.path))}"))
    running.wait_for("begun")
    line.appear()
    assert running.process.stdin is not None
    running.process.stdin.write("go\n")
    run = running.finish()
    assert run.stdout == "tried\n" and b"outward" not in line.sent(), run


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty directory that everybody may pass."""
    directory = Path(f"/sandgate-lab-{os.getpid()}")
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


PLACES = {
    "all of /dev": ("mount --rbind /dev {place}", "{place}/{name}"),
    "below another file system": ("mount -t tmpfs none {place}; mkdir {place}/d; mount --bind /dev {place}/d", "{place}/d/{name}"),
    "on a file": (": > {place}/line; mount --bind /dev/{name} {place}/line", "{place}/line"),
}


@pytest.mark.attack("T15", "sends by a serial line where /dev, or the line, is mounted once more", stopped_by="mounts")
@pytest.mark.parametrize("way", PLACES)
def test_serial_line_elsewhere(internet: Internet, sandgate: Sandgate, line: Line, place: Path, way: str) -> None:
    mounts, path = (text.format(place=place, name=line.path.name) for text in PLACES[way])

    def seeing(command: list[str]) -> list[str]:
        return ["unshare", "--mount", "--propagation", "private", *shell(f'set -e; {mounts}; exec "$@"'), "sh", *command]

    command = send(path)
    without = subprocess.run(
        seeing(sandgate.user.command(*command) if sandgate.user else command), capture_output=True, text=True, timeout=30
    )
    assert b"outward" in line.sent(), without
    line.clear()
    inner, _ = sandgate.command(allowing(), command)
    environment = internet.environment(sandgate.user.environment() if sandgate.user else None)
    done = subprocess.run(seeing(inner), env=environment, capture_output=True, text=True, timeout=30, cwd="/")
    run = Finished(done.returncode, done.stdout, done.stderr, Records())
    assert run.stdout == "tried\n" and b"outward" not in line.sent(), run


OVERWRITE = """\
import os, sys
with open(sys.argv[1], "rb+", buffering=0) as disk:
    place = disk.read(1 << 24).index(sys.argv[2].encode())
    os.pwrite(disk.fileno(), b"#" * len(sys.argv[2]), place)
    os.fsync(disk.fileno())
print("written")
"""


@pytest.fixture
def disk(sandgate: Sandgate, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A disk, and where its file system is mounted. The disk is the user's, as some are who belong to group disk."""
    image, place = tmp_path / "image", tmp_path / "mounted"
    place.mkdir()
    check("truncate", "-s", "8M", image)
    check("mkfs.ext4", "-q", image)
    device = check("losetup", "--find", "--show", image).strip()
    try:
        check("mount", device, place)
        if sandgate.user:
            os.chown(device, sandgate.user.id, sandgate.user.id)
        yield device, place
    finally:
        subprocess.run(["umount", place], capture_output=True)
        os.chown(device, 0, 0)
        check("losetup", "--detach", device)


@pytest.mark.attack(
    "T13", "changes a file that is read-only or hidden, by the disk that it lies on", stopped_by="mounts"
)
def test_file_on_a_disk(internet: Internet, sandgate: Sandgate, disk: tuple[str, Path]) -> None:
    """As its policy, its records, and whatever else the file system says is not the command's."""
    device, place = disk

    def write(name: str) -> str:
        (place / name).write_text(f"protected-{name}-of-somebody")
        os.sync()
        return f"protected-{name}"

    def on_disk() -> bytes:
        check("blockdev", "--flushbufs", device)
        return Path(device).read_bytes()

    first, second = write("first"), write("second")
    without = unenforced(sandgate, ["/usr/bin/python3", "-c", OVERWRITE, device, first])
    assert without.stdout == "written\n" and first.encode() not in on_disk(), without
    run = sandgate.run(allowing(), "/usr/bin/python3", "-c", OVERWRITE, device, second)
    assert "No such file or directory" in run.stderr and second.encode() in on_disk(), run


KEPT = {
    "null", "zero", "full", "random", "urandom", "tty", "fuse", "net", "kvm", "ntsync", "udmabuf", "dxg", "kfd", "accel",
    "dma_heap", "dri", "console", "fd", "hugepages", "mqueue", "ptmx", "pts", "shm", "stderr", "stdin", "stdout",
}  # fmt: skip


@pytest.mark.attack(
    "T15 T13",
    "looks for devices that lead out or in: ports of the hypervisor, InfiniBand, management controllers, memory, keyboards",
    stopped_by="mounts",
)
def test_devices_that_are_there(internet: Internet, sandgate: Sandgate) -> None:
    """Not what is missing is listed, but what is there: every machine has others."""
    run = sandgate.run(allowing(), "ls", "/dev")
    there = {name for name in run.stdout.split() if not name.startswith("nvidia")}
    assert {"null", "zero", "full", "random", "urandom", "tty", "fd", "shm", "stdin", "stdout", "stderr"} <= there <= KEPT, run


@pytest.mark.honest("programs that use /dev as everywhere: memory, terminals, shared memory, streams by name")
def test_ordinary_devices(internet: Internet, sandgate: Sandgate) -> None:
    script = (
        "set -e; head -c 3 /dev/zero | wc -c; head -c 3 /dev/random | wc -c; echo x > /dev/shm/x; cat /dev/shm/x; "
        "cat <(echo by name); cat /dev/stdin <<< shown; echo full > /dev/full || echo is full; "
        "script --quiet --return --command 'test -t 0 && echo terminal' /dev/null"
    )
    run = sandgate.run(allowing(), "/bin/bash", "-c", script)
    assert run.stdout.split() == ["3", "3", "x", "by", "name", "shown", "is", "full", "terminal"], run


@pytest.mark.honest("a device that is handed over")
def test_device_that_is_handed_over(internet: Internet, sandgate: Sandgate, line: Line) -> None:
    run = sandgate.run(allowing(), *send(line.path), options=["--device", str(line.path)])
    assert run.stdout == "tried\n" and b"outward" in line.sent(), run
    mode = line.path.stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/dev/sandgate-lab-missing", "expected a device below /dev"),
        ("/etc/passwd", "expected a device below /dev"),
        ("/dev/../dev/null", "expected a device below /dev"),
        ("/dev/shm", "expected a device below /dev"),
        ("/dev/ptmx", "the command has its own"),
    ],
)
def test_what_cannot_be_handed_over(internet: Internet, sandgate: Sandgate, path: str, text: str) -> None:
    run = sandgate.run(allowing(), "true", options=["--device", path])
    assert run.returncode == 125 and f"cannot hand {path} over: {text}" in run.stderr, run
