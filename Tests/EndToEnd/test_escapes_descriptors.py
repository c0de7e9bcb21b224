"""What a command is handed as its standard streams, and what it takes by them: namespaces, processes, disks, sockets.

Each attack is first mounted without Sandgate, as a program that has what the command would have.
"""

from __future__ import annotations

import os
import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.internet import Internet
from lab.processes import Child
from lab.sandgate import Finished, Records, Sandgate, allowing, shell
from lab.user import User

PYTHON = "/usr/bin/python3"


class Handed:
    """Commands that get a descriptor as their standard input."""

    def __init__(self, internet: Internet, sandgate: Sandgate) -> None:
        self._internet, self._sandgate = internet, sandgate
        self.user = sandgate.user

    def unenforced(self, command: list[str], stdin: int) -> subprocess.CompletedProcess[str]:
        """Runs `command` with no capability that one under Sandgate would not have."""
        kept = "+chown,+dac_override,+kill,+setgid,+setuid"
        weak = ["setpriv", "--inh-caps", "-all", "--bounding-set", f"-all,{kept}", *command]
        line = self.user.command(*command) if self.user else weak
        return subprocess.run(line, stdin=stdin, capture_output=True, text=True, timeout=30)

    def attempted(self, line: list[str], stdin: int) -> Finished:
        """Runs Sandgate's command `line`."""
        environment = self._internet.environment(self.user.environment() if self.user else None)
        run = subprocess.run(line, stdin=stdin, env=environment, capture_output=True, text=True, timeout=30, cwd="/")
        return Finished(run.returncode, run.stdout, run.stderr, Records())

    def enforced(self, command: list[str], stdin: int) -> Finished:
        """Runs `command` under Sandgate."""
        return self.attempted(self._sandgate.command(allowing(), command)[0], stdin)

    def refused(self, command: list[str], stdin: int, text: str) -> None:
        """Has Sandgate say why it does not run `command`."""
        run = self.enforced(command, stdin)
        assert run.returncode == 125 and run.stdout == "", run
        assert f"as standard input, since {text}" in run.stderr, run


@pytest.fixture
def handed(internet: Internet, sandgate: Sandgate) -> Handed:
    return Handed(internet, sandgate)


@pytest.fixture
def sleeper(handed: Handed) -> Iterator[int]:
    """The process id of another program of the one who runs Sandgate, in a network and a user namespace of its own."""
    hold = ["unshare", "--user", "--map-root-user", "--net", *shell("echo made; exec sleep 60")]
    child = Child(handed.user.command(*hold) if handed.user else hold, "made")
    yield child.process.pid
    child.stop()


# The kernel's


ENTER = """\
import ctypes, fcntl, os
NS_GET_USERNS = 0xb701
libc = ctypes.CDLL(None, use_errno=True)
if libc.setns(fcntl.ioctl(0, NS_GET_USERNS), 0) or libc.setns(0, 0): raise OSError(ctypes.get_errno(), "setns")
print("entered", os.readlink("/proc/thread-self/ns/net"))
"""


@pytest.mark.attack(
    "T6 T13", "has a network namespace as its standard input, and enters it by the user namespace that owns it", stopped_by="start"
)
def test_namespace(handed: Handed, sleeper: int) -> None:
    namespace = os.open(f"/proc/{sleeper}/ns/net", os.O_RDONLY)
    try:
        without = handed.unenforced([PYTHON, "-c", ENTER], namespace)
        assert f"net:[{os.fstat(namespace).st_ino}]" in without.stdout, without
        handed.refused([PYTHON, "-c", ENTER], namespace, "settings, processes and namespaces can be had by it")
    finally:
        os.close(namespace)


SIGNAL = "import signal; signal.pidfd_send_signal(0, signal.SIGTERM); print('sent')"


@pytest.mark.attack("T13", "has another process as its standard input, and signals it", stopped_by="start")
def test_process(handed: Handed, sleeper: int) -> None:
    process = os.pidfd_open(sleeper)
    try:
        handed.refused([PYTHON, "-c", SIGNAL], process, "")
        assert Path(f"/proc/{sleeper}/comm").read_text() == "sleep\n"
        without = handed.unenforced([PYTHON, "-c", SIGNAL], process)
        assert without.stdout == "sent\n", without
    finally:
        os.close(process)


WRITE = "import sys; open('/proc/self/fd/0', 'w').write(sys.argv[1]); print('written')"


@pytest.mark.attack(
    "T13", "has a setting of another process as its standard input, opened for reading, and writes it", stopped_by="start"
)
def test_file_of_the_kernel(handed: Handed, sleeper: int) -> None:
    setting = Path(f"/proc/{sleeper}/oom_score_adj")
    with setting.open() as file:
        without = handed.unenforced([PYTHON, "-c", WRITE, "700"], file.fileno())
        assert setting.read_text() == "700\n", without
        handed.refused([PYTHON, "-c", WRITE, "800"], file.fileno(), "settings, processes and namespaces can be had by it")
    assert setting.read_text() == "700\n"


NEXT = """\
import ctypes, os, struct
libc = ctypes.CDLL(None, use_errno=True)
namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY)
for request in (0x8010b70b, 0x8010b70c):  # NS_MNT_GET_NEXT and NS_MNT_GET_PREV
    for upper in (0, 1 << 32):  # which the kernel does not look at
        room = ctypes.create_string_buffer(struct.pack("IIQ", 16, 0, 0), 16)
        number = {"x86_64": 16, "aarch64": 29}[os.uname().machine]
        found = libc.syscall(number, namespace, ctypes.c_uint64(request | upper), room)
        print("another" if found >= 0 else os.strerror(ctypes.get_errno()))
"""


@pytest.mark.attack("T6 T13", "goes through the mount namespaces that there are, from its own on", stopped_by="seccomp")
def test_mount_namespaces_in_a_row(internet: Internet, sandgate: Sandgate) -> None:
    """Before the kernel asked for more (6.18), whoever made a user namespace found its mounts so. Since then it says itself that
    it is not permitted, in a node of the lab too; that it knows no such request, says the filter."""
    command = [PYTHON, "-c", NEXT]
    without = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if "Inappropriate ioctl" in without.stdout:
        pytest.skip("this kernel knows no such request")
    assert without.stdout.count("\n") == 4, without
    run = sandgate.run(allowing(), *command)
    assert run.stdout == "Inappropriate ioctl for device\n" * 4, run


# Files


@pytest.mark.attack(
    "T13", "has its policy, or its records, as its standard input, opened for reading, and writes it", stopped_by="start"
)
@pytest.mark.parametrize("which", ["policy", "records"])
def test_protected_file(handed: Handed, sandgate: Sandgate, which: str) -> None:
    line, audit = sandgate.command(allowing(), [PYTHON, "-c", WRITE, "planted"])
    policy = Path(line[line.index("--policy") + 1])
    audit.touch()
    if handed.user:
        handed.user.give(policy), handed.user.give(audit)
    file = policy if which == "policy" else audit
    with file.open() as opened:
        run = handed.attempted(line, opened.fileno())
        assert run.returncode == 125 and "since the command could change it by that" in run.stderr, run
        assert "planted" not in file.read_text()
        without = handed.unenforced([PYTHON, "-c", WRITE, "planted"], opened.fileno())
        assert file.read_text() == "planted", without


# Sockets


SEND = """\
import os, socket, sys
with socket.socket(fileno=os.dup(0)) as own:
    if own.type == socket.SOCK_STREAM: own.connect("\\0" + sys.argv[1])
    own.sendto(b"out", "\\0" + sys.argv[1]) if own.type == socket.SOCK_DGRAM else own.send(b"out")
"""


@pytest.mark.attack(
    "T16", "has a unix socket as its standard input that was made outside, and reaches abstract names there by it", stopped_by="start"
)
@pytest.mark.parametrize("kind", ["one of a pair for datagrams", "unconnected"])
def test_socket_made_outside(handed: Handed, kind: str) -> None:
    """Abstract names are of the network that a socket was made in, not of that of who uses it."""
    name = f"sandgate-lab-{uuid.uuid4().hex}"
    command = [PYTHON, "-c", SEND, name]
    is_datagram = kind != "unconnected"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM if is_datagram else socket.SOCK_STREAM) as server:
        server.bind(f"\0{name}")
        server.settimeout(10)
        if not is_datagram:
            server.listen()
        pairs = [
            socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            if is_datagram
            else (socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX))
            for _ in range(2)
        ]
        try:
            without = handed.unenforced(command, pairs[0][0].fileno())
            accepted = server if is_datagram else server.accept()[0]
            assert accepted.recv(10) == b"out", without
            handed.refused(command, pairs[1][0].fileno(), "it leads past the policy")
        finally:
            for end in (end for pair in pairs for end in pair):
                end.close()
            if not is_datagram:
                accepted.close()
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.recv(10) if is_datagram else server.accept()


HOLD = """\
import ctypes, os, socket, sys
ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE, as of a program that was simply started
listening = socket.create_server(("127.0.0.1", 0))
ours, theirs = socket.socketpair()
with socket.socket(fileno=int(sys.argv[1])) as channel: socket.send_fds(channel, [b"x"], [theirs.fileno()])
theirs.close()
print("made", flush=True)
ours.recv(1)
"""

TAKE = """\
import ctypes, os, socket, sys
PIDFD_GETFD, SO_PEERPIDFD = 438, 77
libc = ctypes.CDLL(None, use_errno=True)
if os.getuid() == 0 and sys.argv[1] != "0": os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
with socket.socket(fileno=os.dup(0)) as own: process = own.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
print("knows its peer")
for number in range(20):
    taken = libc.syscall(PIDFD_GETFD, process, number, 0)
    if taken < 0: continue
    try:
        with socket.socket(fileno=taken) as one:
            if one.family == socket.AF_INET: print("took a socket of the node")
    except OSError: pass
"""


@pytest.mark.attack(
    "T13 T16",
    "takes network sockets from the program at the other end of its standard input, as that program's user",
    stopped_by="seccomp",
)
def test_socket_of_the_peer(handed: Handed, somebody: User) -> None:
    """As where a user's editor starts sudo sandgate run, with a pair of sockets for its output."""
    command = [PYTHON, "-c", TAKE, str(somebody.id)]
    channel, other = socket.socketpair()
    with channel, other:
        hold = somebody.command(PYTHON, "-c", HOLD, str(other.fileno()))
        os.set_inheritable(other.fileno(), True)
        process = subprocess.Popen(hold, pass_fds=[other.fileno()], stdout=subprocess.PIPE)
        try:
            (end,) = socket.recv_fds(channel, 1, 1)[1]
            without = handed.unenforced(command, end)
            if "took" not in without.stdout:
                pytest.skip("this kernel lets no program take another's descriptors (kernel.yama.ptrace_scope)")
            run = handed.enforced(shell('echo begun; exec "$@"') + ["sh", *command], end)
            os.close(end)
        finally:
            process.kill()
            process.communicate()
    assert run.stdout == "begun\n", run
    assert "Protocol not available" in run.stderr, run


@pytest.mark.honest("programs whose streams are files, pipes, socket pairs or /dev/null")
@pytest.mark.parametrize("what", ["file", "pipe", "pair", "/dev/null", "/dev/zero"])
def test_ordinary_streams(handed: Handed, tmp_path: Path, what: str) -> None:
    text = tmp_path / "text"
    text.write_text("12345678")
    ours = theirs = -1
    if what == "pair":
        first, second = socket.socketpair()
        ours, theirs = first.detach(), second.detach()
    elif what == "pipe":
        theirs, ours = os.pipe()
    else:
        theirs = os.open(text if what == "file" else what, os.O_RDONLY)
    try:
        if ours >= 0:
            os.write(ours, b"12345678")
            os.close(ours)
        run = handed.enforced(shell("head -c 8 | wc -c"), theirs)
    finally:
        os.close(theirs)
    assert run.stdout.strip() == ("0" if what == "/dev/null" else "8"), run
