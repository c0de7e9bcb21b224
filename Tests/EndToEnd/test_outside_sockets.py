"""Unix sockets of the node's programs, which lead outside: hidden under whatever name they can be found."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import everyday, plan, unix_servers
from lab.internet import Internet
from lab.processes import Child
from lab.sandgate import Sandgate, allowing, attack, shell
from lab.user import User

SERVERS = ["/usr/bin/python3", unix_servers.__file__]


@pytest.fixture(params=["network of the node", "network of its own"])
def servers(request: pytest.FixtureRequest, user: User | None, tmp_path: Path) -> Iterator[Path]:
    """The directory of programs that listen at Unix sockets."""
    directory = tmp_path / "servers"
    directory.mkdir()
    if user:
        user.give(directory)
    command = [*SERVERS, str(directory)]
    if user:
        command = user.command(*command)
    if request.param == "network of its own":
        command = ["unshare", "--net", *command]
    child = Child(command, "serving")
    yield directory
    child.stop()


@pytest.mark.attack("T16", "connects to sockets of programs outside under every name they have", stopped_by="mounts")
def test_names_of_sockets(internet: Internet, sandgate: Sandgate, servers: Path) -> None:
    command = attack("unix_sockets", str(servers))
    without = internet.unenforced(command).stdout
    assert without.count("outside") == 5, without
    run = sandgate.run(allowing(), *command)
    assert run.stdout == "tried everything\n", run
    assert "unix socket" not in run.stderr, run


@pytest.mark.attack(
    "T16",
    "connects to sockets in directories whose names are not UTF-8, begin with what combines with a slash, or are alike but for "
    "the code points of a letter",
    stopped_by="mounts",
)
def test_odd_names(internet: Internet, sandgate: Sandgate, tmp_path: Path) -> None:
    names = [b"caf\xe9", "caf\u00e9".encode(), "cafe\u0301".encode(), "\u0301".encode(), "a/\u0345b".encode()]
    paths = [tmp_path / os.fsdecode(name) / "s" for name in names]
    listening = []
    for path in paths:
        path.parent.mkdir(parents=True)
        listening.append(socket.socket(socket.AF_UNIX))
        listening[-1].bind(bytes(path))
        path.chmod(0o666)
        listening[-1].listen()
    connect = (
        f"import socket\nfor path in {[bytes(path) for path in paths]}:\n"
        " try: socket.socket(socket.AF_UNIX).connect(path); print('in')\n except OSError: print('refused')\n"
    )
    command = ["/usr/bin/python3", "-c", connect]
    try:
        assert internet.unenforced(command).stdout.split() == ["in"] * len(paths)
        run = sandgate.run(allowing(), *command)
    finally:
        for server in listening:
            server.close()
    assert run.stdout.split() == ["refused"] * len(paths) and run.stderr == "", run


@pytest.mark.attack(
    "T16", "connects to a socket that was made after it began, under --no-unix-sockets", stopped_by="seccomp"
)
def test_socket_made_later(internet: Internet, sandgate: Sandgate, tmp_path: Path, user: User | None) -> None:
    """The limit of hiding what there is, as README says; --no-unix-sockets has none."""
    path = tmp_path / "late"
    script = shell(f"echo begun; read go; {shlex.join(attack('unix_sockets', str(path)))}")
    reached = {}
    choices: list[list[str]] = [[], ["--no-unix-sockets"]]
    for options in choices:
        running = sandgate.start(allowing(), script, options=options)
        running.wait_for("begun")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            server.listen()
            path.chmod(0o666)
            server.settimeout(20)
            assert running.process.stdin is not None
            running.process.stdin.write("go\n")
            running.process.stdin.flush()
            if not options:
                server.accept()[0].close()
            run = running.finish()
        path.unlink()
        reached[bool(options)] = "reached" in run.stdout
        assert "tried everything" in run.stdout or options, run
    assert reached == {False: True, True: False}


@pytest.mark.honest("programs that talk to their children through socket pairs")
def test_pairs_of_sockets_remain(internet: Internet, sandgate: Sandgate) -> None:
    """With --no-unix-sockets too: programs talk to their children through them."""
    script = (
        "import socket\n"
        "one, other = socket.socketpair(); one.send(b'hello'); print(other.recv(9))\n"
        "for make in (lambda: socket.socket(socket.AF_UNIX),\n"
        "             lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)):\n"
        "    try: make(); print('made')\n"
        "    except OSError as error: print('refused')\n"
    )
    run = sandgate.run(allowing(), "/usr/bin/python3", "-c", script, options=["--no-unix-sockets"])
    assert run.stdout.split("\n") == ["b'hello'", "refused", "refused", ""], run


@pytest.mark.attack("T16", "runs commands through a shared connection of ssh", stopped_by="mounts")
@pytest.mark.parametrize("options", [[], ["--rootless"]], ids=["root", "rootless"])
def test_shared_connection_of_ssh(
    internet: Internet, options: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """ssh binds `cm.XXXX` and links it to `cm`. Whoever reaches it runs commands at the other end."""
    directory = tmp_path_factory.mktemp("ssh")
    home = directory / "home"
    (home / ".ssh").mkdir(parents=True)
    control = home / ".ssh" / "cm"
    program = Sandgate(internet, directory)
    with everyday.ssh_server(internet, directory / "server") as ssh_options:
        ssh = ["ssh", *ssh_options, "-S", str(control)]
        address = ["-o", f"HostKeyAlias={plan.SSH}", plan.EVERYDAY4]
        master = Child([*shell('echo begun; exec "$@"'), "sh", *ssh, "-M", "-N", *address], "begun")
        try:
            subprocess.run([*ssh, "-O", "check", *address], check=False, timeout=10)
            use = [*ssh, *address, "echo through it"]
            assert "through it" in subprocess.run(use, capture_output=True, text=True, timeout=20).stdout
            assert control.is_socket()
            run = program.run(allowing(), *use, options=options, environment={"HOME": str(home)})
            assert run.returncode == 255 and "through it" not in run.stdout, run
        finally:
            program.stop_all()
            master.stop()
