"""What is renewed or hidden for the command where it usually lies, and is mounted somewhere else besides.

As in the root directory of a chroot, or in a container, whose engine mounts sockets and terminals on files. Each test makes
such a mount in a mount namespace of its own, uses it as the one who runs Sandgate could, and then from inside.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lab.automounter import automounter
from lab.internet import Internet
from lab.processes import Child, check
from lab.sandgate import Finished, Records, Sandgate, allowing, shell
from lab.user import User


class Elsewhere:
    """Where something is mounted a second time, and programs that see it there."""

    def __init__(self, internet: Internet, sandgate: Sandgate, place: Path) -> None:
        self._internet, self._sandgate, self.place = internet, sandgate, place
        self.user = sandgate.user

    def seeing(self, mounts: str, line: Sequence[str]) -> list[str]:
        """The command line that runs `line` after the shell's commands `mounts`."""
        return ["unshare", "--mount", "--propagation", "private", *shell(f'set -e; {mounts}\nexec "$@"'), "sh", *line]

    def unenforced(self, mounts: str, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Runs `command` after the shell's commands `mounts`, as the one who would run Sandgate."""
        line = self.user.command(*command) if self.user else list(command)
        return subprocess.run(self.seeing(mounts, line), capture_output=True, text=True, timeout=30)

    def attempted(self, mounts: str, line: Sequence[str]) -> Finished:
        """Runs Sandgate's command `line` after the shell's commands `mounts`."""
        environment = self._internet.environment(self.user.environment() if self.user else None)
        run = subprocess.run(
            self.seeing(mounts, line), env=environment, capture_output=True, text=True, timeout=30, cwd="/"
        )
        return Finished(run.returncode, run.stdout, run.stderr, Records())

    def enforced(self, mounts: str, command: Sequence[str]) -> Finished:
        """Runs `command` under Sandgate after the shell's commands `mounts`. It begins."""
        line, _ = self._sandgate.command(allowing(), shell(f"echo begun; {shlex.join(command)}"))
        run = self.attempted(mounts, line)
        assert run.stdout.startswith("begun\n"), run
        return run


@pytest.fixture
def elsewhere(internet: Internet, sandgate: Sandgate) -> Iterator[Elsewhere]:
    """A directory where nobody looks for anything."""
    place = Path(f"/sandgate-lab-{os.getpid()}/a/b")
    place.mkdir(parents=True)
    yield Elsewhere(internet, sandgate, place)
    shutil.rmtree(place.parents[1])


@pytest.fixture
def in_run() -> Iterator[Path]:
    """An empty directory in /run."""
    directory = Path(f"/run/sandgate-lab-{os.getpid()}")
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


# Terminals


READ = """\
import os, sys
terminal = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)
print(os.read(terminal, 100))
os.write(terminal, b"forged")
"""

A_CONTAINERS_DEV = """\
mkdir -p {place}/dev; mount -t tmpfs none {place}/dev
cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty {place}/dev; mkdir {place}/dev/pts {place}/dev/shm
: > {place}/dev/console; mount --bind {terminal} {place}/dev/console; mount --rbind /dev/pts {place}/dev/pts
mount --rbind {place}/dev /dev
"""

TERMINALS = {
    "the directory": ("mount --bind /dev/pts {place}", "{place}/{number}"),
    "all of /dev": ("mount --rbind /dev {place}", "{place}/pts/{number}"),
    "on a file": (": > {place}/tty; mount --bind {terminal} {place}/tty", "{place}/tty"),
    "on a file in /run": (": > {run}/tty; mount --bind {terminal} {run}/tty", "{run}/tty"),
    "as a container's console": (A_CONTAINERS_DEV, "/dev/console"),
}


@pytest.mark.attack(
    "T16 T13",
    "reads from and writes to another terminal of its user where that is mounted once more: in a chroot, on a file, as the "
    "console of a container",
    stopped_by="mounts",
)
@pytest.mark.parametrize("way", TERMINALS)
def test_other_terminals(elsewhere: Elsewhere, in_run: Path, way: str) -> None:
    screen, terminal = os.openpty()
    name = os.ttyname(terminal)
    if elsewhere.user:
        os.chown(name, elsewhere.user.id, elsewhere.user.id)
    names = {"place": elsewhere.place, "run": in_run, "terminal": name, "number": name.rpartition("/")[2]}
    mounts, path = (text.format_map(names) for text in TERMINALS[way])
    command = ["/usr/bin/python3", "-c", READ, path]
    try:
        os.write(screen, b"secret\n")
        without = elsewhere.unenforced(mounts, command)
        assert "secret" in without.stdout, without
        os.write(screen, b"secret\n")
        run = elsewhere.enforced(mounts, command)
        os.set_blocking(screen, False)
        shown = os.read(screen, 1000)
    finally:
        os.close(terminal)
        os.close(screen)
    assert "secret" not in run.stdout and shown.count(b"forged") == 1, run


@pytest.mark.honest("programs in a chroot that make terminals")
def test_terminals_in_a_chroot(elsewhere: Elsewhere) -> None:
    """Where the node's terminals were mounted once more, the command's own are."""
    make = "import os; screen, terminal = os.openpty(); print(os.listdir(os.sys.argv[1]))"
    command = ["/usr/bin/python3", "-c", make, str(elsewhere.place)]
    run = elsewhere.enforced(f"mount --bind /dev/pts {elsewhere.place}", command)
    assert "'0'" in run.stdout and run.returncode == 0, run


# Sockets


CONNECT = """\
import socket, sys
with socket.socket(socket.AF_UNIX) as client: client.connect(sys.argv[1]); print("in")
"""

SOCKETS = {
    "all of /run": ("mount --rbind /run {place}", "{place}/{name}/s"),
    "a part of /run": ("mount --bind {run} {place}", "{place}/s"),
    "on a file": (": > {place}/s; mount --bind {run}/s {place}/s", "{place}/s"),
    "on a file in /run": (
        ": > {place}/s; mount --bind {run}/s {place}/s; mount -t tmpfs none {run}; : > {run}/t; "
        "mount --bind {place}/s {run}/t; umount {place}/s; rm {place}/s",
        "{run}/t",
    ),
    "on a file of a place that cannot be passed": (
        ": > {place}/s; mount --bind {run}/s {place}/s; chmod 700 {run}",
        "{place}/s",
    ),
}


@pytest.mark.attack(
    "T16",
    "connects to a socket of /run where that is mounted once more: in a chroot, or on a file, as container engines mount "
    "docker.sock",
    stopped_by="mounts",
)
@pytest.mark.parametrize("network", ["of the node", "of its own"])
@pytest.mark.parametrize("way", SOCKETS)
def test_sockets(elsewhere: Elsewhere, in_run: Path, way: str, network: str) -> None:
    names = {"place": elsewhere.place, "run": in_run, "name": in_run.name}
    mounts, path = (text.format_map(names) for text in SOCKETS[way])
    serve = (
        f"import socket, os, time; s = socket.socket(socket.AF_UNIX); s.bind('{in_run}/s'); s.listen(); "
        f"os.chmod('{in_run}/s', 0o666); print('serving', flush=True); time.sleep(60)"
    )
    server = ["/usr/bin/python3", "-c", serve]
    command = ["/usr/bin/python3", "-c", CONNECT, path]

    def attempted(run: bool) -> subprocess.CompletedProcess[str] | Finished:
        in_run.chmod(0o755)
        (in_run / "s").unlink(missing_ok=True)
        child = Child(server if network == "of the node" else ["unshare", "--net", *server], "serving")
        try:
            return elsewhere.enforced(mounts, command) if run else elsewhere.unenforced(mounts, command)
        finally:
            child.stop()

    without = attempted(False)
    assert "in\n" in without.stdout, without
    run = attempted(True)
    assert "in\n" not in run.stdout and run.returncode != 0, run


@pytest.mark.attack(
    "T16",
    "connects to a socket that a daemon binds in /run after it began, where /run is mounted once more",
    stopped_by="mounts",
)
def test_socket_that_appears_later(elsewhere: Elsewhere, in_run: Path) -> None:
    pipe = elsewhere.place.parent / "go"
    os.mkfifo(pipe)
    pipe.chmod(0o666)
    path = f"{elsewhere.place}/{in_run.name}/s"
    command = shell(f"echo >{pipe}; read go <{pipe}; {shlex.join(['/usr/bin/python3', '-c', CONNECT, path])}")

    def bind_meanwhile() -> Child:
        serve = (
            f"import socket, os, time; open('{pipe}').read(); s = socket.socket(socket.AF_UNIX); s.bind('{in_run}/s'); "
            f"s.listen(); os.chmod('{in_run}/s', 0o666); open('{pipe}', 'w').write('go\\n'); time.sleep(60)"
        )
        return Child(["/usr/bin/python3", "-c", f"print('waiting', flush=True); {serve}"], "waiting")

    mounts = f"mount --rbind /run {elsewhere.place}"
    child = bind_meanwhile()
    try:
        without = elsewhere.unenforced(mounts, command)
    finally:
        child.stop()
    assert "in\n" in without.stdout, without
    (in_run / "s").unlink()
    child = bind_meanwhile()
    try:
        run = elsewhere.enforced(mounts, command)
    finally:
        child.stop()
    assert "in\n" not in run.stdout and run.returncode != 0, run


# The kernel


KERNEL = ["proc", "sysfs", "mqueue", "devpts", "cgroup2", "tracefs", "debugfs", "securityfs", "binfmt_misc", "configfs"]


@pytest.mark.attack(
    "T6 T13", "looks for the kernel's settings and queues where they are mounted once more", stopped_by="mounts"
)
@pytest.mark.parametrize("kind", KERNEL)
def test_kernel_file_systems(elsewhere: Elsewhere, kind: str) -> None:
    mounts = f"mount -t {kind} none {elsewhere.place}"
    if subprocess.run(["unshare", "--mount", *shell(mounts)], capture_output=True).returncode != 0:
        pytest.skip(f"this kernel does not mount {kind}")
    if kind == "mqueue":
        mounts += f"; : > {elsewhere.place}/sandgate-lab"
    command = ["find", str(elsewhere.place), "-maxdepth", "1", "-mindepth", "1"]
    try:
        without = elsewhere.unenforced(mounts, command)
        seen = without.stdout.splitlines()
        run = elsewhere.enforced(mounts, command)
    finally:
        if kind == "mqueue":
            check("unshare", "--mount", *shell(f"mount -t mqueue none {elsewhere.place}; rm {elsewhere.place}/sandgate-lab"))
    if not seen:
        pytest.skip(f"nothing of {kind} is to be seen without enforcement either")
    assert set(run.stdout.splitlines()[1:]) <= ({f"{elsewhere.place}/ptmx"} if kind == "devpts" else set()), run


@pytest.mark.attack(
    "T6", "looks for a /proc that is mounted below another file system, and for a single file of it", stopped_by="mounts"
)
def test_proc_below_and_in_part(elsewhere: Elsewhere) -> None:
    """What lies on top of it is the node's, and stays."""
    below, part = elsewhere.place / "below", elsewhere.place / "part"
    below.mkdir()
    mounts = (
        f"mount -t proc none {below}; mount -t tmpfs none {below}; : > {below}/on-top; "
        f": > {part}; mount --bind /proc/sys/kernel/core_pattern {part}"
    )
    command = shell(f"ls {below}; wc -c < {part}")
    without = elsewhere.unenforced(mounts, command)
    assert without.stdout.split()[0] == "on-top" and int(without.stdout.split()[1]) > 0, without
    run = elsewhere.enforced(mounts, command)
    assert run.stdout.split() == ["begun", "on-top", "0"], run


ODD = os.fsdecode(b"\xff")
"""A name that is not UTF-8, as a disk or an archive from another machine may have it."""

ODD_NAMES = {
    "the kernel's": ("mount -t proc none {odd}", "{odd}/sys/kernel/core_pattern"),
    "all of /run": ("mount --rbind /run {odd}", "{odd}/{name}/s"),
    "a part of what is mounted": ("mkdir -p {place}/again; mount --bind {odd} {place}/again", "{odd}/s"),
    "what a part of is mounted": ("mkdir -p {place}/again; mount --bind {odd} {place}/again", "{place}/again/s"),
}


@pytest.mark.attack(
    "T6 T13 T16",
    "looks for what is hidden where it is mounted once more under a name that is not UTF-8, or lies under one",
    stopped_by="mounts",
)
@pytest.mark.parametrize("what", ODD_NAMES)
def test_odd_names(elsewhere: Elsewhere, in_run: Path, what: str) -> None:
    odd = elsewhere.place / ODD
    odd.mkdir()
    in_run.chmod(0o755)
    mounts, path = (text.format(place=elsewhere.place, odd=odd, name=in_run.name) for text in ODD_NAMES[what])
    open_it = "socket.socket(socket.AF_UNIX).connect" if path.endswith("/s") else "open"
    look = ["/usr/bin/python3", "-c", f"import socket; {open_it}({os.fsencode(path)!r}); print('in')"]
    servers = [socket.socket(socket.AF_UNIX) for _ in range(2)]
    for server, directory in zip(servers, (in_run, odd)):
        server.bind(str(directory / "s"))
        (directory / "s").chmod(0o666)
        server.listen()
    try:
        without = elsewhere.unenforced(mounts, look)
        assert without.stdout == "in\n", without
        run = elsewhere.enforced(mounts, look)
    finally:
        for server in servers:
            server.close()
    assert run.stdout == "begun\n" and run.returncode != 0, run


@pytest.mark.honest("a disk whose name is not UTF-8")
def test_disks_with_odd_names(elsewhere: Elsewhere) -> None:
    odd = f"{elsewhere.place}/{ODD}"
    mounts = f"mkdir {odd}; mount -t tmpfs -o mode=1777 none {odd}; echo kept > {odd}/file"
    run = elsewhere.enforced(mounts, shell(f"cat {odd}/file; echo new > {odd}/other; cat {odd}/other"))
    assert run.stdout.split() == ["begun", "kept", "new"], run


ENTER = """\
import ctypes, fcntl, os, sys
NS_GET_USERNS = 0xb701
network = os.open(sys.argv[1], os.O_RDONLY)
libc = ctypes.CDLL(None, use_errno=True)
if libc.setns(fcntl.ioctl(network, NS_GET_USERNS), 0) or libc.setns(network, 0):
    raise OSError(ctypes.get_errno(), "setns")
print("entered", os.readlink("/proc/thread-self/ns/net"))
"""


@pytest.mark.attack(
    "T6 T13",
    "enters a network that its user's other programs have made, by a file that it is mounted on and the user namespace "
    "that it belongs to",
    stopped_by="mounts, namespaces",
)
@pytest.mark.parametrize("where", ["elsewhere", "in /run"])
def test_mounted_namespaces(elsewhere: Elsewhere, in_run: Path, where: str) -> None:
    """Who made a user namespace has every capability in it, without having any."""
    path = (elsewhere.place if where == "elsewhere" else in_run) / "net"
    hold = ["unshare", "--user", "--map-root-user", "--net", *shell("echo made; exec sleep 60")]
    holder = Child(elsewhere.user.command(*hold) if elsewhere.user else hold, "made")
    try:
        mounts = f": > {path}; mount --bind /proc/{holder.process.pid}/ns/net {path}"
        weak = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"]
        command = ["/usr/bin/python3", "-c", ENTER, str(path)]
        without = elsewhere.unenforced(mounts, command if elsewhere.user else [*weak, *command])
        assert "entered" in without.stdout, without
        run = elsewhere.enforced(mounts, command)
    finally:
        holder.stop()
    assert "entered" not in run.stdout and run.returncode != 0, run


# An automounter


@pytest.mark.attack(
    "T16 D1",
    "looks names up in the directory of an automounter, which asks a nameserver and a host of that name outside",
    stopped_by="mounts",
)
@pytest.mark.parametrize("where", ["elsewhere", "in /run"])
def test_automounter(elsewhere: Elsewhere, in_run: Path, where: str) -> None:
    """As /net of autofs(5). A mount namespace of its own is no obstacle; what is mounted there already stays."""
    place = elsewhere.place / "net" if where == "elsewhere" else in_run / "net"
    place.mkdir()
    look = ["stat", f"{place}/secret.example.com"]
    with automounter(place) as outside:
        without = elsewhere.unenforced("true", look)
        assert "secret.example.com" in outside.asked(), without
        run = elsewhere.enforced("true", look)
        assert "No such file or directory" in run.stderr and outside.asked() == [], run


@pytest.mark.honest("home directories that an automounter has mounted")
def test_what_an_automounter_has_mounted(elsewhere: Elsewhere) -> None:
    place, home = elsewhere.place / "home", elsewhere.place / "home" / "somebody"
    place.mkdir()
    with automounter(place) as outside:
        outside.make(home)
        mounts = f"mount -t tmpfs none {home}; echo kept > {home}/file; chmod 666 {home}/file; chmod 777 {home}"
        run = elsewhere.enforced(mounts, shell(f"cat {home}/file; echo new > {home}/other; cat {home}/other"))
    assert run.stdout.split() == ["begun", "kept", "new"], run


# Devices and memory


@pytest.mark.attack(
    "T6 T16",
    "looks for the node's shared memory and for the kernel's log where /dev is mounted once more",
    stopped_by="mounts",
)
def test_devices(elsewhere: Elsewhere) -> None:
    shared = Path(f"/dev/shm/sandgate-lab-{os.getpid()}")
    shared.write_text("outside\n")
    shared.chmod(0o666)
    mounts = f"mount -t tmpfs none {elsewhere.place}; mount --rbind /dev {elsewhere.place}"
    kept, log = elsewhere.place / "shm" / shared.name, elsewhere.place / "kmsg"
    command = shell(f"cat {kept}; test ! -e {log} || echo log; echo x > {elsewhere.place}/null")
    try:
        without = elsewhere.unenforced(mounts, command)
        assert without.stdout.split() == ["outside", *(["log"] if Path("/dev/kmsg").exists() else [])], without
        run = elsewhere.enforced(mounts, command)
    finally:
        shared.unlink()
    assert run.stdout == "begun\n" and run.returncode == 0, run


@pytest.mark.attack("T16 T5", "is started where there is no /dev/null, with which files are covered", stopped_by="start")
def test_nothing_to_cover_with(elsewhere: Elsewhere, sandgate: Sandgate) -> None:
    line, _ = sandgate.command(allowing(), ["echo", "begun"])
    run = elsewhere.attempted("mount -t tmpfs none /dev; mkdir /dev/pts /dev/shm", line)
    assert run.returncode == 125 and run.stdout == "", run
    # Without root nothing can be executed before that, for the same reason.
    assert sandgate.user or "cannot cover files with /dev/null" in run.stderr, run


# Files that are not to be changed


@pytest.mark.attack(
    "T13 T16",
    "changes the policy, the records and start-up files where the directory that they are in is mounted once more",
    stopped_by="mounts",
)
def test_protected_files(elsewhere: Elsewhere, sandgate: Sandgate) -> None:
    line, audit = sandgate.command(allowing(), [])
    policy = Path(line[line.index("--policy") + 1])
    protected = [policy, audit]
    places = {sandgate.directory: "work"}
    if elsewhere.user:
        startup = elsewhere.user.home / ".profile"
        startup.write_text("the user's\n")
        protected.append(elsewhere.user.give(startup))
        places[elsewhere.user.home] = "home"
    before = {path: path.read_text() for path in protected if path.exists()}
    mounts = "; ".join(
        f"mkdir {elsewhere.place}/{name}; mount --bind {directory} {elsewhere.place}/{name}"
        for directory, name in places.items()
    )
    others = [elsewhere.place / places[path.parent] / path.name for path in protected]
    script = 'for file in "$@"; do echo planted >> $file; rm -f $file; mv -f $0 $file; done; echo tried everything'
    spare = elsewhere.place / places[sandgate.directory] / "spare"
    try:
        run = elsewhere.attempted(mounts, [*line, *shell(script), str(spare), *map(str, others)])
        after = {path: path.read_text() for path in before}
    finally:
        if elsewhere.user:
            (elsewhere.user.home / ".profile").unlink(missing_ok=True)
    assert run.stdout == "tried everything\n", run
    assert after == before, run
    assert "planted" not in audit.read_text() and "sandbox.attached" in audit.read_text(), run
