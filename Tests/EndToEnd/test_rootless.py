"""`sandgate run` without root: what it needs of the machine, and what a command of the same user may not do.

The modules that conftest.py names in RUN_BY_BOTH are run as an ordinary user besides; here is what is special.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import plan
from lab.internet import Internet
from lab.sandgate import Finished, Sandgate, allowing, attack, shell
from lab.user import User


@pytest.fixture
def user(somebody: User) -> User:
    """Every run here is the ordinary user's."""
    return somebody


@pytest.fixture
def home(user: User) -> Iterator[Path]:
    """The user's home directory, emptied afterwards."""
    yield user.home
    for entry in user.home.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _as_user(user: User, *command: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `command` as the user, without a sandbox."""
    return subprocess.run(
        user.command(*command), env=environment, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL
    )


def _write(user: User, path: Path, text: str = "the user's\n") -> Path:
    """A file of the user's, in directories of the user's."""
    made = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    for new in (*made, path):
        os.chown(new, user.id, user.id)
    return path


# What it is


def test_ids_are_the_users(internet: Internet, sandgate: Sandgate, user: User) -> None:
    run = sandgate.run(allowing(), *shell("id -u; id -g; cat /proc/self/uid_map"))
    assert run.stdout.split() == [str(user.id)] * 4 + ["1"], run


@pytest.mark.alone("the limit is of all processes of the user, on whichever node")
def test_a_limit_of_processes_is_named(internet: Internet, sandgate: Sandgate) -> None:
    """Whichever step it is that comes to it."""
    said = ""
    for limit in range(1, 9):
        line, _ = sandgate.command(allowing(), ["true"])
        command = ["prlimit", f"--nproc={limit}", *line]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
        assert (done.returncode, bool(done.stderr)) in ((0, False), (125, True)), done
        said += done.stderr
    assert "cannot start the command's init" in said and "no more processes may be started (ulimit -u" in said, said


@pytest.mark.attack("T6 T10", "looks for any capability at all", stopped_by="capabilities")
def test_command_has_no_capability(internet: Internet, sandgate: Sandgate) -> None:
    run = sandgate.run(allowing(), "grep", "^Cap", "/proc/self/status")
    assert {line.split()[1] for line in run.stdout.splitlines()} == {"0" * 16}, run


def test_root_can_do_without_privilege(internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> None:
    program = Sandgate(internet, tmp_path_factory.mktemp("root"))
    try:
        command = shell(f"id -u; cat /proc/self/uid_map; curl -sS https://{plan.ALLOWED}/")
        run = program.run(allowing(plan.ALLOWED), *command, options=["--rootless"])
    finally:
        program.stop_all()
    assert run.stdout.split()[:4] == ["0", "0", "0", "1"], run
    assert f"served {plan.ALLOWED}" in run.stdout, run


def test_file_of_the_user_keeps_its_owner(internet: Internet, sandgate: Sandgate, user: User, tmp_path: Path) -> None:
    run = sandgate.run(allowing(), *shell(f"echo kept > {tmp_path}/file && stat -c %u {tmp_path}/file"))
    assert run.stdout == f"{user.id}\n", run
    assert (tmp_path / "file").stat().st_uid == user.id


# The guard


@pytest.mark.attack(
    "T13",
    "traces, reads, signals, limits, renices and takes descriptors from the supervisor of the same user",
    stopped_by="namespaces",
)
def test_guard_cannot_be_attacked(internet: Internet, sandgate: Sandgate, user: User) -> None:
    """The supervisor has the command's uid: what usually keeps processes apart is not there."""
    sleeper = subprocess.Popen(user.command("sleep", "300"))
    try:
        outside = _as_user(user, *attack("guard", sleeper.pid))
        done = {line.split()[1] for line in outside.stdout.splitlines() if line.startswith("did")}
        assert {"mem", "environ", "namespace", "prlimit", "signal", "pidfd_getfd"} <= done, outside

        running = sandgate.start(allowing(), shell(f"read pid; exec {shlex.join(attack('guard', sleeper.pid))} $pid"))
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
        assert running.process.stdin is not None
        running.process.stdin.write(f"{running.pid} {os.getpid()} {children.read_text()}\n")
        run = running.finish()
    finally:
        sleeper.kill()
        sleeper.wait()
    assert run.stdout == "tried everything\n", run


@pytest.mark.attack("T13", "traces and reads its own init, a copy of the supervisor", stopped_by="namespaces")
def test_init_gives_nothing_away(internet: Internet, sandgate: Sandgate) -> None:
    """The command's own pid 1 is a copy of the supervisor until it executes something, which it never does."""
    run = sandgate.run(allowing(), *attack("guard", 1))
    done = {line.split()[1] for line in run.stdout.splitlines() if line.startswith("did")}
    assert not done & {"ptrace", "pidfd_getfd", "mem", "environ", "namespace", "root", "descriptors"}, run
    assert "tried everything" in run.stdout, run


@pytest.mark.attack("T13 T6", "asks the kernel for the user namespace that owns its network", stopped_by="namespaces")
def test_guards_namespaces_are_not_open_to_the_command(internet: Internet, sandgate: Sandgate) -> None:
    """The user namespace that has power over the network is the parent's of the command's: it must not be had."""
    script = (
        "import fcntl, os\n"
        "NS_GET_USERNS, NS_GET_PARENT = 0xb701, 0xb702\n"
        "for name, request in (('net', NS_GET_USERNS), ('user', NS_GET_PARENT), ('mnt', NS_GET_USERNS)):\n"
        "    try:\n"
        "        got = fcntl.ioctl(os.open('/proc/self/ns/' + name, os.O_RDONLY), request)\n"
        "        print(name, os.readlink(f'/proc/self/fd/{got}') == os.readlink('/proc/self/ns/user'))\n"
        "    except PermissionError: print(name, 'refused')\n"
    )
    run = sandgate.run(allowing(), "/usr/bin/python3", "-c", script)
    assert run.stdout.splitlines() == ["net refused", "user refused", "mnt True"], run


# Ways to have something run outside


@pytest.mark.attack("T16", "connects to the user's D-Bus, ssh agent or gpg agent", stopped_by="mounts")
@pytest.mark.parametrize("place", ["/run/user/{id}/bus", "/tmp/ssh-{id}lab/agent.1", "{home}/.gnupg/S.gpg-agent"])
def test_sockets_of_the_user_are_hidden(
    internet: Internet, sandgate: Sandgate, user: User, home: Path, place: str
) -> None:
    path = Path(place.format(id=user.id, home=home))
    made = [parent for parent in path.parents if not parent.exists()]
    connect = f"import socket; socket.socket(socket.AF_UNIX).connect({str(path)!r}); print('in')"
    command = ["/usr/bin/python3", "-c", connect]
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        try:
            for new in (*made, path):
                os.chown(new, user.id, user.id)
            assert "in" in _as_user(user, *command).stdout
            run = sandgate.run(allowing(), *command)
        finally:
            path.unlink()
            for parent in made:
                parent.rmdir()
    assert run.returncode != 0 and "in" not in run.stdout, run


@pytest.mark.attack(
    "T16", "connects to a socket in a directory that its user may pass and not list", stopped_by="mounts"
)
def test_socket_in_a_directory_that_cannot_be_listed(internet: Internet, sandgate: Sandgate, user: User) -> None:
    """Whoever knows the name gets through such a directory."""
    directory = Path("/run/sandgate-lab-unlisted")
    directory.mkdir()
    path = directory / "agent.sock"
    connect = f"import socket; socket.socket(socket.AF_UNIX).connect({str(path)!r}); print('in')"
    command = ["/usr/bin/python3", "-c", connect]
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            server.listen()
            path.chmod(0o666)
            directory.chmod(0o711)
            assert "in" in _as_user(user, *command).stdout
            run = sandgate.run(allowing(), *command)
    finally:
        shutil.rmtree(directory)
    assert run.returncode != 0 and "in" not in run.stdout, run


def test_socket_that_cannot_be_found_is_told_of(internet: Internet, sandgate: Sandgate, user: User) -> None:
    """In a directory that this user may pass and not list, under a name that the kernel knows in part: hidden it cannot be."""
    directory = user.directory("unlisted")
    os.chown(directory, 0, 0)
    serve = "import socket, time; s = socket.socket(socket.AF_UNIX); s.bind('in-part'); s.listen(); print('up', flush=True); time.sleep(60)"
    server = subprocess.Popen(["/usr/bin/python3", "-c", serve], cwd=directory, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None and server.stdout.readline() == "up\n"
        directory.chmod(0o711)
        run = sandgate.run(allowing(), "true")
    finally:
        server.kill()
        server.communicate()
        shutil.rmtree(directory)
    assert run.returncode == 0 and "bound as in-part was not found" in run.stderr, run


@pytest.mark.attack("T16", "connects to a shared connection of ssh that is made while it runs", stopped_by="mounts")
def test_socket_that_appears_beside_the_keys(
    internet: Internet, sandgate: Sandgate, user: User, home: Path
) -> None:
    """As a shared connection does when the user calls ssh in another window."""
    keys = _write(user, home / ".ssh" / "config").parent
    script = shell(f"cat {keys}/config; echo begun; read go; ls -A {keys}; echo x > {keys}/rc")
    running = sandgate.start(allowing(), script)
    assert "the user's" in running.wait_for("begun")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(keys / "cm"))
        assert running.process.stdin is not None
        running.process.stdin.write("go\n")
        running.process.stdin.flush()
        run = running.finish()
    assert run.stdout == "config\n" and run.returncode != 0, run
    assert sorted(path.name for path in keys.iterdir()) == ["cm", "config"]


@pytest.mark.attack("T16 T13", "reads from and writes to another terminal of its user", stopped_by="mounts")
def test_other_terminals_of_the_user(internet: Internet, sandgate: Sandgate, user: User) -> None:
    """What is typed into one of the user's windows is not for a command in another."""
    screen, terminal = os.openpty()
    name = os.ttyname(terminal)
    os.chown(name, user.id, user.id)
    read = f"import os; t = os.open({name!r}, os.O_RDWR | os.O_NOCTTY); print(os.read(t, 100)); os.write(t, b'forged')"
    command = ["/usr/bin/python3", "-c", read]
    try:
        os.write(screen, b"secret\n")
        assert "secret" in _as_user(user, *command).stdout
        os.write(screen, b"secret\n")
        run = sandgate.run(allowing(), *command)
    finally:
        os.close(terminal)
        os.close(screen)
    assert run.returncode != 0 and "secret" not in run.stdout, run


STARTUP = [".bashrc", ".profile", ".zshenv", ".ssh/authorized_keys", ".config/autostart/agent.desktop", ".config/fish/a"]


@pytest.mark.attack("T16", "plants something in the user's start-up files, by five ways", stopped_by="mounts")
@pytest.mark.parametrize("name", STARTUP)
@pytest.mark.parametrize(
    "write",
    [
        "echo planted >> {path}",
        "rm -f {path}; echo planted > {path}",
        "echo planted > $HOME/new; mv -f $HOME/new {path}",
        "mv {top} $HOME/aside; mkdir -p {parent}; echo planted > {path}",
        "unshare --user --map-root-user --mount sh -c 'umount {path}; mount -o remount,rw,bind {path}; echo planted > {path}'",
    ],
    ids=["append", "remove", "rename over", "rename away", "user namespace"],
)
def test_startup_files_stay(
    internet: Internet, sandgate: Sandgate, user: User, home: Path, name: str, write: str
) -> None:
    path = _write(user, home / name)
    top = home / name.split("/")[0]
    script = write.format(path=path, parent=path.parent, top=top)
    run = sandgate.run(allowing(), *shell(f"{script}; echo fine > $HOME/work"))
    assert path.read_text() == "the user's\n", run
    assert (home / "work").read_text() == "fine\n", "the rest of the home directory is the command's"


@pytest.mark.attack("T16", "makes start-up files where there were none", stopped_by="mounts")
@pytest.mark.parametrize("name", [".zshenv", ".config/autostart", ".ssh/rc"])
def test_new_startup_files_are_set_aside(
    internet: Internet, sandgate: Sandgate, home: Path, name: str
) -> None:
    path = home / name
    run = sandgate.run(allowing(), *shell(f"mkdir -p {path.parent}; echo planted > {path}"))
    assert not path.exists(), run
    assert str(home / name.removesuffix("/rc")) in run.stderr, run


@pytest.mark.attack(
    "T16", "changes a start-up file through the target of a link, or replaces the link", stopped_by="mounts"
)
def test_link_to_a_startup_file_is_put_back(internet: Internet, sandgate: Sandgate, user: User, home: Path) -> None:
    """As those have them who keep their dotfiles in a repository."""
    target = _write(user, home / "dotfiles" / "bashrc")
    link = home / ".bashrc"
    link.symlink_to(target)
    os.chown(link, user.id, user.id, follow_symlinks=False)
    script = f"echo planted > {target}; rm {link}; echo planted > {link}; mv $HOME/dotfiles $HOME/x"
    run = sandgate.run(allowing(), *shell(script))
    assert link.is_symlink() and link.read_text() == "the user's\n", run


@pytest.mark.attack("T13", "replaces the program that guards it, for the next run", stopped_by="mounts")
def test_binary_cannot_be_replaced(internet: Internet, sandgate: Sandgate, user: User, home: Path) -> None:
    """The next run is another program's if this one's can write it."""
    own = home / "tools" / "bin" / "sandgate"
    own.parent.mkdir(parents=True)
    shutil.copy(sandgate.binary, own)
    for path in (own.parent.parent, own.parent, own):
        os.chown(path, user.id, user.id)
    before = own.stat()
    script = f"echo x > {own}; rm -f {own}; mv {own.parent} {own.parent}2; mv {home}/tools {home}/tools2"
    run = _as_user(user, str(own), "run", "--", *shell(script), environment=internet.environment(user.environment()))
    assert (own.stat().st_ino, own.stat().st_size) == (before.st_ino, before.st_size), run


# A machine that forbids it


def _refused(run: subprocess.CompletedProcess[str] | Finished, mark: Path) -> str:
    assert run.returncode == 125, run
    assert not mark.exists(), "the command was started"
    assert len(run.stderr.splitlines()) == 1, run
    return run.stderr


@pytest.mark.attack("T5", "is started where no user namespaces may be made", stopped_by="start")
def test_no_user_namespaces_left(internet: Internet, sandgate: Sandgate, user: User, tmp_path: Path) -> None:
    mark = tmp_path / "started"
    line, _ = sandgate.command(allowing(), ["touch", str(mark)], options=["--rootless"])
    inner = shlex.join(line[len(user.command()) :])
    switch_off = "echo 0 > /proc/sys/user/max_user_namespaces"
    run = _as_user(user, "unshare", "--user", "--map-root-user", *shell(f"{switch_off}; exec {inner}"))
    assert "sysctl user.max_user_namespaces=" in _refused(run, mark)


@pytest.mark.attack("T5", "is started where namespaces of a kind have run out", stopped_by="start")
@pytest.mark.parametrize("kind", ["net", "mnt", "pid", "ipc"])
def test_none_of_a_kind_of_namespace_left(
    internet: Internet, sandgate: Sandgate, user: User, tmp_path: Path, kind: str
) -> None:
    """The kernel says "No space left on device"."""
    mark = tmp_path / "started"
    line, _ = sandgate.command(allowing(), ["touch", str(mark)], options=["--rootless"])
    inner = shlex.join(line[len(user.command()) :])
    switch_off = f"echo 0 > /proc/sys/user/max_{kind}_namespaces"
    run = _as_user(user, "unshare", "--user", "--map-root-user", *shell(f"{switch_off}; exec {inner}"))
    assert f"sysctl user.max_{kind}_namespaces=" in _refused(run, mark)


WITHOUT_CAPABILITIES = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"]


@pytest.mark.attack("T5", "is started by root without capabilities", stopped_by="start")
@pytest.mark.parametrize(
    ("options", "advice"), [([], "run it as another user"), (["--rootless"], "CAP_SETFCAP")], ids=["run", "rootless"]
)
def test_root_without_capabilities(
    internet: Internet, tmp_path_factory: pytest.TempPathFactory, options: list[str], advice: str
) -> None:
    """The one way must not be the advice for the other where neither works."""
    directory = tmp_path_factory.mktemp("root")
    mark = directory / "started"
    line, _ = Sandgate(internet, directory).command(allowing(), ["touch", str(mark)], options=options)
    run = subprocess.run([*WITHOUT_CAPABILITIES, *line], capture_output=True, text=True, timeout=30)
    message = _refused(run, mark)
    assert advice in message and "as root" not in message and "or try --rootless" not in message


@pytest.mark.parametrize("options", [[], ["--rootless"]], ids=["run", "rootless"])
def test_sandbox_in_a_sandbox(
    internet: Internet, tmp_path_factory: pytest.TempPathFactory, options: list[str]
) -> None:
    program = Sandgate(internet, tmp_path_factory.mktemp("root"))
    inner = [str(program.binary), "run", "--", "echo", "started"]
    run = program.run(allowing(), *inner, options=options)
    assert run.returncode == 125 and run.stdout == "", run
    assert "inside a sandbox of sandgate already" in run.stderr, run


@pytest.mark.attack("T5", "is started under a system call filter that forbids user namespaces", stopped_by="start")
def test_filter_forbids_user_namespaces(internet: Internet, sandgate: Sandgate, tmp_path: Path) -> None:
    mark = tmp_path / "started"
    line, _ = sandgate.command(allowing(), ["touch", str(mark)])
    run = subprocess.run([*attack("forbid"), *line], capture_output=True, text=True, timeout=30)
    assert "seccomp=unconfined" in _refused(run, mark)


@pytest.mark.attack("T5", "is started where /proc is masked", stopped_by="start")
def test_masked_proc(internet: Internet, sandgate: Sandgate, user: User, tmp_path: Path) -> None:
    """As in a container: the kernel then lets nobody without root mount a /proc that would show more."""
    mark = tmp_path / "started"
    line, _ = sandgate.command(allowing(), ["touch", str(mark)])
    script = f"mount -t tmpfs none /proc/bus && exec {shlex.join(line)}"
    run = subprocess.run(["unshare", "--mount", *shell(script)], capture_output=True, text=True, timeout=30)
    assert "systempaths=unconfined" in _refused(run, mark)


@pytest.mark.attack("T13", "starts the supervisor's second copy by hand", stopped_by="start")
def test_attendant_by_hand(sandgate: Sandgate, user: User) -> None:
    """The second copy of the program is nothing to be started by somebody else."""
    run = _as_user(user, str(sandgate.binary), "--attend-to-namespaces")
    assert run.returncode == 1 and run.stdout == "", run
