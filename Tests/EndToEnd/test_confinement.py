"""What the command may not have: capabilities, odd socket families, sockets that lead outside, its guard."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from lab import plan
from lab.internet import Internet
from lab.sandgate import Sandgate, allowing, attack, shell

FORBIDDEN_CAPABILITIES = {
    "DAC_READ_SEARCH": 2,
    "NET_ADMIN": 12,
    "NET_RAW": 13,
    "SYS_MODULE": 16,
    "SYS_RAWIO": 17,
    "SYS_PTRACE": 19,
    "SYS_ADMIN": 21,
    "SYS_BOOT": 22,
    "PERFMON": 38,
    "BPF": 39,
    "CHECKPOINT_RESTORE": 40,
}


@pytest.mark.attack(
    "T6 T10 T10a T13",
    "looks for a capability that would change the network, trace processes or load programs",
    stopped_by="capabilities",
)
def test_capabilities_are_dropped_for_good(internet: Internet, sandgate: Sandgate) -> None:
    run = sandgate.run(allowing(), "cat", "/proc/self/status")
    status = dict(line.split(":\t", 1) for line in run.stdout.splitlines() if ":\t" in line)
    for kind in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"):
        held = int(status[kind], 16)
        found = [name for name, bit in FORBIDDEN_CAPABILITIES.items() if held >> bit & 1]
        assert not found, f"{kind}: {found}"
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


FAMILIES = (
    "import socket, sys\n"
    "for number in map(int, sys.argv[1:]):\n"
    "    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):\n"
    "        try: socket.socket(number, kind).close(); print('opened', number); break\n"
    "        except OSError: pass\n"
)


@pytest.mark.attack(
    "T15 T10",
    "opens sockets of every family: AF_VSOCK, AF_PACKET, TIPC, CAN, Bluetooth, ALG, RDS and the rest",
    stopped_by="seccomp",
)
def test_socket_families(internet: Internet, sandgate: Sandgate) -> None:
    """AF_VSOCK knows no network namespace and reaches the machine's host; others are as little for a sandbox."""
    wanted = [socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK]
    unwanted = [number for number in range(3, 46) if number not in wanted]
    command = ["/usr/bin/python3", "-c", FAMILIES, *(str(int(number)) for number in [*wanted, *unwanted])]
    without = internet.unenforced(command).stdout
    assert f"opened {int(socket.AF_PACKET)}" in without, "at least packet sockets open without enforcement"

    run = sandgate.run(allowing(), *command)
    assert run.stdout.split("\n")[:-1] == [f"opened {int(number)}" for number in wanted], run


@pytest.mark.attack("T16", "connects to docker.sock, D-Bus or an agent of the node", stopped_by="mounts")
@pytest.mark.parametrize(
    "path", ["/run/docker.sock", "/run/dbus/system_bus_socket", "/run/user/0/bus", "/run/sandgate-lab-agent.sock"]
)
def test_unix_sockets_outside_are_hidden(internet: Internet, sandgate: Sandgate, path: str) -> None:
    listening = Path(path)
    if listening.exists():
        pytest.skip(f"{path} is in use here")
    made = [parent for parent in listening.parents if not parent.exists()]
    listening.parent.mkdir(parents=True, exist_ok=True)
    command = ["/usr/bin/python3", "-c", f"import socket; socket.socket(socket.AF_UNIX).connect({path!r}); print('in')"]
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        try:
            assert "in" in internet.unenforced(command).stdout
            run = sandgate.run(allowing(), *command)
        finally:
            listening.unlink()
            for parent in made:
                parent.rmdir()
    assert run.returncode != 0, run


@pytest.mark.attack("T16", "looks for agents' sockets in its environment", stopped_by="mounts")
def test_agents_are_not_announced(internet: Internet, sandgate: Sandgate) -> None:
    names = ("SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "DOCKER_HOST", "GPG_AGENT_INFO")
    run = sandgate.run(allowing(), "env", environment={name: "unix:/run/x" for name in names})
    assert not [name for name in names if f"{name}=" in run.stdout], run


@pytest.mark.honest("programs that confine themselves with user namespaces")
def test_user_namespaces_still_work(internet: Internet, sandgate: Sandgate) -> None:
    """Browsers and bubblewrap confine themselves with them."""
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", "id -u"]
    if internet.unenforced(command).returncode != 0:
        pytest.skip("this machine allows no user namespaces at all")
    run = sandgate.run(allowing(), *command)
    assert run.returncode == 0 and run.stdout == "0\n", run


@pytest.mark.attack(
    "T6", "makes user and network namespaces and changes rules and routes in them", stopped_by="namespaces"
)
@pytest.mark.parametrize("options", ["--user --map-root-user", "--user --map-root-user --net"])
def test_user_namespace_gains_nothing(internet: Internet, sandgate: Sandgate, options: str) -> None:
    connect = " ".join(f"'{word}'" for word in attack("packets", "tcp", plan.SINK4, 4444, "from a user namespace"))
    script = f"nft flush ruleset; ip link set lo down; ip route add default dev lo; {connect}"
    run = sandgate.run(allowing(plan.ALLOWED), *shell(f"unshare {options} sh -c \"{script}\"; {connect}; true"))
    assert internet.sinks.arrivals() == [], run


@pytest.mark.attack("T6", "flushes the rules", stopped_by="capabilities")
def test_rules_cannot_be_changed(internet: Internet, sandgate: Sandgate) -> None:
    command = shell("nft flush ruleset && nft list ruleset && ip link set lo down")
    assert subprocess.run(["unshare", "--net", *command], capture_output=True, timeout=30).returncode == 0
    run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert run.returncode != 0, run


@pytest.mark.attack("T6 T13", "enters the network namespace of another process", stopped_by="namespaces, capabilities")
@pytest.mark.parametrize("target", ["1", "$PPID"])
def test_other_namespaces_cannot_be_entered(internet: Internet, sandgate: Sandgate, target: str) -> None:
    connect = " ".join(f"'{word}'" for word in attack("packets", "tcp", plan.SINK4, 4444, "from the node"))
    assert internet.unenforced(shell(f"nsenter --target {os.getpid()} --net {connect}")).returncode == 0
    assert "from the node" in internet.sinks.data()
    run = sandgate.run(allowing(plan.ALLOWED), *shell(f"nsenter --target {target} --net {connect}"))
    assert run.returncode != 0, run
    assert internet.sinks.arrivals() == []


@pytest.mark.attack("T13", "looks for the supervisor and kills everything it can", stopped_by="namespaces")
def test_guard_cannot_be_seen_or_signalled(internet: Internet, sandgate: Sandgate) -> None:
    """The supervisor is outside the command's process namespace: there is no number to address it by."""
    run = sandgate.run(allowing(), *shell("echo /proc/[0-9]*; kill -9 1; kill -9 -1; echo still here"))
    assert run.returncode == 0 and "still here" in run.stdout, run
    assert run.stdout.split()[:2] == ["/proc/1", "/proc/2"] and "/proc/3" not in run.stdout, run


@pytest.mark.attack("T13", "reads the supervisor's command line from its own init", stopped_by="namespaces")
def test_command_line_of_the_guard_is_not_shown(internet: Internet, sandgate: Sandgate) -> None:
    """Init is a copy of the supervisor, whose arguments say where the policy and the records are."""
    run = sandgate.run(allowing(), "cat", "/proc/1/cmdline")
    assert run.stdout.rstrip("\0") == "sandgate-init", run


@pytest.mark.attack("T13", "looks for descriptors that the supervisor left open", stopped_by="namespaces")
def test_no_descriptor_is_inherited(internet: Internet, sandgate: Sandgate) -> None:
    run = sandgate.run(allowing(), *shell("ls -l /proc/self/fd"))
    numbers = sorted(int(line.split()[8]) for line in run.stdout.splitlines() if " -> " in line)
    assert numbers[:3] == [0, 1, 2] and len(numbers) <= 4, run


@pytest.mark.attack("T13", "has a connected socket as a standard descriptor", stopped_by="start")
@pytest.mark.parametrize("number", [0, 1, 2])
def test_network_socket_as_a_standard_descriptor(internet: Internet, sandgate: Sandgate, number: int) -> None:
    """As under inetd: what is sent to it leaves by itself, whatever the policy says."""
    send = f"import socket; socket.socket(fileno={number}).send(b'out by the door')"
    line, _ = sandgate.command(allowing(), ["/usr/bin/python3", "-c", send])
    with socket.socket() as door, socket.socket() as client:
        door.bind(("127.0.0.1", 0))
        door.listen()
        client.connect(door.getsockname())
        server, _ = door.accept()
        with server:
            stdin, stdout, stderr = (client.fileno() if place == number else None for place in range(3))
            outside = ["/usr/bin/python3", "-c", send]
            subprocess.run(outside, check=True, timeout=30, stdin=stdin, stdout=stdout, stderr=stderr)
            assert server.recv(64) == b"out by the door"
            environment = internet.environment(sandgate.user.environment() if sandgate.user else None)
            run = subprocess.run(
                line, timeout=30, cwd="/", env=environment, stdin=stdin, stdout=stdout, stderr=stderr
            )
            assert run.returncode == 125
            client.close()
            rest = server.recv(4096)
    assert b"out by the door" not in rest


@pytest.mark.attack("T13", "changes, removes and replaces the policy and the records", stopped_by="mounts")
def test_policy_and_records_are_not_the_commands(internet: Internet, sandgate: Sandgate) -> None:
    """The one is what the next run is judged by, the other what is told of this one."""
    line, audit = sandgate.command(allowing(), [])
    policy = Path(line[line.index("--policy") + 1])
    before = policy.read_text()
    script = "for file in $0 $1; do echo planted >> $file; rm -f $file; echo planted > new; mv -f new $file; done; true"
    command = [*line, "/bin/sh", "-c", script, str(policy), str(audit)]
    environment = internet.environment(sandgate.user.environment() if sandgate.user else None)
    run = subprocess.run(command, env=environment, cwd=sandgate.directory, capture_output=True, text=True, timeout=30)
    assert run.returncode == 0, run
    assert policy.read_text() == before
    assert "planted" not in audit.read_text() and "sandbox.attached" in audit.read_text(), run


def test_own_resolv_conf(internet: Internet, sandgate: Sandgate) -> None:
    before = Path("/etc/resolv.conf").read_bytes()
    run = sandgate.run(allowing(), "cat", "/etc/resolv.conf")
    assert "nameserver" in run.stdout and plan.DNS4 not in run.stdout, run
    assert Path("/etc/resolv.conf").read_bytes() == before


@pytest.mark.honest("programs that use files and devices")
def test_files_and_devices_are_usable(internet: Internet, sandgate: Sandgate, tmp_path: Path) -> None:
    devices = "head -c 4 /dev/urandom >/dev/null && echo x >/dev/null"
    run = sandgate.run(allowing(), *shell(f"echo kept > {tmp_path}/file && {devices} && rm $(mktemp) && ls /proc/self"))
    assert run.returncode == 0, run
    assert (tmp_path / "file").read_text() == "kept\n"


@pytest.mark.honest("a command whose name, words, variables and directory are not UTF-8")
def test_bytes_are_handed_over_as_they_are(internet: Internet, sandgate: Sandgate) -> None:
    odd = b"caf\xe9"
    directory = os.fsencode(sandgate.directory) + b"/" + odd
    os.mkdir(directory)
    shutil.copy("/bin/sh", os.fsdecode(directory + b"/" + odd))
    script = os.fsdecode(b'pwd; echo "$VALUE"; echo "$0"; cat caf\xe9.txt')
    Path(os.fsdecode(directory + b"/caf\xe9.txt")).write_text("its file\n")
    line, _ = sandgate.command(allowing(), [os.fsdecode(odd), "-c", script, os.fsdecode(odd)])
    environment = internet.environment(sandgate.user.environment() if sandgate.user else None)
    environment |= {"VALUE": os.fsdecode(odd), "PATH": f"{environment['PATH']}:{os.fsdecode(directory)}"}
    run = subprocess.run(line, env=environment, cwd=directory, capture_output=True, timeout=30)
    assert run.stdout.splitlines() == [directory, odd, odd, b"its file"], run
    assert run.returncode == 0 and run.stderr == b"", run


@pytest.mark.attack("T6", "changes settings of the node's kernel through /proc/sys", stopped_by="mounts")
def test_node_network_settings_are_read_only(internet: Internet, sandgate: Sandgate) -> None:
    run = sandgate.run(allowing(), *shell("echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/kernel/sysrq"))
    assert run.returncode != 0, run


@pytest.mark.attack("N1", "connects to what listens on the node's loopback", stopped_by="namespaces")
def test_loopback_of_the_node_is_another(internet: Internet, sandgate: Sandgate) -> None:
    run = sandgate.run({"defaultAction": "allow"}, *attack("packets", "tcp", "127.0.0.1", plan.CANARY_PORT, "hello"))
    assert run.returncode != 0, run
    assert internet.canary.arrivals() == []
