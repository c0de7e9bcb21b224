"""Least privilege: what the threads of live processes hold, which ports a sandbox reaches, and how the program was built."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab import plan
from lab.daemon import running
from lab.internet import Internet
from lab.namespaces import Namespace
from lab.processes import check, wait_until
from lab.sandgate import Sandgate, allowing, shell
from lab.sidecar import sidecar
from lab.tool import binary

NET_BIND_SERVICE, NET_ADMIN, NET_RAW, SYS_PTRACE, SYS_ADMIN, SYS_RESOURCE = (1 << bit for bit in (10, 12, 13, 19, 21, 24))
DAC_OVERRIDE = 1 << 1
RESOLVER, RELAY, PROXY = 64053, 64117, 64128

KNOCK = """
import json, socket
answering = []
for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    # A port that nobody has is told of by ICMP, which loopback brings at once.
    udp = socket.socket(family, socket.SOCK_DGRAM)
    udp.bind((address, 0))
    own = udp.getsockname()[1]
    for port in range(1, 65536):
        with socket.socket(family, socket.SOCK_STREAM) as tcp:
            if tcp.connect_ex((address, port)) == 0 and tcp.getsockname() != tcp.getpeername():
                answering.append(port)
        udp.connect((address, port))
        try:
            udp.send(b"?")
            udp.send(b"?")
            if port != own:
                answering.append(-port)
        except OSError:
            pass
print(json.dumps(sorted(set(answering))))
"""
"""Knocks at every port of its own loopback; UDP ports are negative."""


def threads(pid: int) -> list[dict[str, str]]:
    """What /proc says of each thread."""
    found = []
    for task in sorted(Path(f"/proc/{pid}/task").iterdir(), key=lambda path: int(path.name)):
        try:
            status = (task / "status").read_text()
        except OSError:
            continue
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        found.append({name: value.strip() for name, value in fields.items()})
    assert found
    return found


def expect(pid: int, most: Callable[[dict[str, str]], tuple[int, int]]) -> None:
    """Compares every thread with what `most` says of it: the capabilities that it may hold, and how many filters it is
    under."""
    for thread in threads(pid):
        kept, filters = most(thread)
        assert int(thread["CapEff"], 16) & ~kept == 0, thread
        assert int(thread["CapPrm"], 16) == int(thread["CapEff"], 16), thread
        for name in ("CapInh", "CapAmb"):
            assert int(thread[name], 16) == 0, thread
        assert thread["NoNewPrivs"] == "1" and thread["Seccomp"] == "2", thread
        assert int(thread["Seccomp_filters"]) == filters, thread
        if thread["Uid"].split()[1] == "0":
            assert int(thread["CapBnd"], 16) == 0, thread


def doctor(*arguments: str) -> tuple[int, dict[str, Any]]:
    command = [str(binary()), "doctor", "--security", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == "", done
    return done.returncode, json.loads(done.stdout)


# What live processes hold


def test_run_keeps_little(sandgate: Sandgate, internet: Internet) -> None:
    run = sandgate.start(allowing(plan.ALLOWED), shell("echo begun; read line; echo $line"))
    run.wait_for("begun")
    expect(run.pid, lambda one: (NET_ADMIN | SYS_RESOURCE if one["Pid"] == str(run.pid) else 0, 2))
    (loop,) = [one for one in threads(run.pid) if one["Pid"] == str(run.pid)]
    assert int(loop["CapEff"], 16) & NET_ADMIN
    status, document = doctor("--pid", str(run.pid))
    assert status == 0 and document["process"]["mode"] == "run" and document["process"]["sound"]
    # The command's own privileges are what they were: its init was made before.
    assert run.process.stdin is not None
    run.process.stdin.write("ended\n")
    run.process.stdin.close()
    run.wait_for("ended")
    run.process.stdin = None


def test_rootless_run_keeps_nothing(sandgate: Sandgate) -> None:
    run = sandgate.start(None, shell("echo begun; read line"), options=["--rootless"])
    run.wait_for("begun")
    expect(run.pid, lambda one: (0, 2))
    assert doctor("--pid", str(run.pid))[1]["process"]["mode"] == "rootless"


def test_threads_of_serve_keep_what_they_need(internet: Internet, tmp_path: Path) -> None:
    with running(internet, tmp_path) as daemon:

        def most(thread: dict[str, str]) -> tuple[int, int]:
            if thread["Name"] == "sandgate-loop":
                return NET_ADMIN | SYS_RESOURCE, 2
            if thread["Name"] == "sandgate-keeper":
                return SYS_ADMIN | NET_ADMIN | NET_RAW | SYS_PTRACE | SYS_RESOURCE | DAC_OVERRIDE, 2
            # Its files are root's, and it listens on no port below 1024.
            return 0, 2

        expect(daemon.pid, most)
        datagrams = {"target": "192.0.2.0/24", "protocol": "udp", "ports": [53]}
        sandbox = daemon.create(allowing(plan.ALLOWED))
        assert sandbox.reaches(plan.ALLOWED) and not sandbox.reaches(plan.DENIED)
        assert sandbox.ask("PUT", "/policy", allowing(plan.ALLOWED, datagrams)).status == 200
        expect(daemon.pid, most)
        names = [one["Name"] for one in threads(daemon.pid)]
        assert "sandgate-loop" in names and "sandgate-keeper" in names, names
        daemon.hand_over()
        assert sandbox.reaches(plan.ALLOWED)
        expect(daemon.pid, most)
        status, document = doctor("--pid", str(daemon.pid))
        assert status == 0 and document["process"]["sound"], document["process"]
        # Threads come and go; none that Swift starts has what a loop or the keeper has. What stays is the keeper and what
        # watches namespaces.
        for _ in range(20):
            assert daemon.request("GET", "/metrics").status == 200
        expect(daemon.pid, most)
        wait_until(
            lambda: [one["Name"] for one in threads(daemon.pid)].count("sandgate-keeper") == 2, "two of the keeper's", 20
        )


def test_serve_keeps_what_its_files_and_ports_take(internet: Internet, tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    os.chown(tmp_path / "audit", 12345, 12345)
    (tmp_path / "tokens").write_text("sixteen-bytes-and-more\n")
    listen = ("--listen", "127.0.0.1:993", "--token-file", str(tmp_path / "tokens"))
    with running(internet, tmp_path, *listen) as daemon:
        for thread in threads(daemon.pid):
            if thread["Name"] not in ("sandgate-loop", "sandgate-keeper"):
                assert int(thread["CapEff"], 16) == NET_BIND_SERVICE | DAC_OVERRIDE, thread
        assert doctor("--pid", str(daemon.pid))[0] == 0


def test_namespaces_in_directories_of_others(internet: Internet, box: Namespace, tmp_path: Path) -> None:
    """Threads of the API cannot look there; those that watch over namespaces can."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    place = closed / "namespace"
    place.touch()
    check("mount", "--bind", f"/run/netns/{box.name}", place)
    os.chown(closed, 12345, 12345)
    try:
        with running(internet, tmp_path) as daemon:
            sandbox = daemon.create(allowing(plan.ALLOWED), attachment={"netns": str(place)})
            daemon.restart()
            assert sandbox.state == "Running"
            check("umount", "--lazy", place)
            place.unlink()
            sandbox.wait_for("gone")
    finally:
        subprocess.run(["umount", "--lazy", place], capture_output=True, check=False)


def test_crash_under_the_filters(internet: Internet, tmp_path: Path) -> None:
    """A handler of crashes executes programs, as the filters do not let it: the process ends all the same, and doors stay
    closed."""
    with running(internet, tmp_path) as daemon:
        sandbox = daemon.create(allowing(plan.ALLOWED))
        assert sandbox.reaches(plan.ALLOWED)
        pid = daemon.pid

        def has_crashed() -> bool:
            # A fault comes again when the handler has given up; a signal that was sent does not.
            os.kill(pid, signal.SIGSEGV)
            return daemon.process is not None and daemon.process.poll() == -signal.SIGSEGV

        wait_until(has_crashed, "its end", 30)
        assert not sandbox.reaches(plan.ALLOWED)
        daemon.start()
        assert sandbox.reaches(plan.ALLOWED)


def test_sidecar_keeps_little(internet: Internet, tmp_path: Path) -> None:
    with sidecar(internet, tmp_path) as guard:
        guard.start(allowing(plan.ALLOWED))
        assert guard.process is not None
        pid = guard.process.pid

        def most(thread: dict[str, str]) -> tuple[int, int]:
            return (NET_ADMIN | SYS_RESOURCE, 2) if thread["Name"] == "sandgate-loop" else (0, 2)

        assert guard.reaches(plan.ALLOWED) and not guard.reaches(plan.DENIED)
        # The thread that set the network up ends by itself.
        wait_until(lambda: all(one["Name"] != "sandgate-keeper" for one in threads(pid)), "the keeper's end", 20)
        expect(pid, most)
        assert guard.request("POST", "/policy", allowing(plan.ALLOWED, plan.DENIED)).status == 200
        assert guard.reaches(plan.DENIED)
        expect(pid, most)
        status, document = doctor("--pid", str(pid))
        assert status == 0 and document["process"]["mode"] == "sidecar", document


# What doctor says


def test_doctor_says_what_is_kept_and_why() -> None:
    status, document = doctor()
    assert status == 0 and document["filters"] and document["sound"]
    modes = {mode["mode"]: mode["threads"] for mode in document["modes"]}
    assert modes.keys() == {"run", "rootless", "serve", "sidecar"}
    for mode, roles in modes.items():
        for role in roles:
            assert all(one["reason"] for one in role["capabilities"]), (mode, role)
    assert {port["port"] for port in document["ports"]} == {RESOLVER, RELAY, PROXY}
    text = check(binary(), "doctor", "--security")
    assert "CAP_NET_ADMIN" in text and "64053/udp,tcp" in text


def test_doctor_tells_of_a_process_that_holds_too_much(tmp_path: Path) -> None:
    """A program that is called as ours is."""
    script = tmp_path / "serve"
    script.write_text("import sys; sys.stdin.read()\n")
    impostor = subprocess.Popen(["/usr/bin/python3", "serve"], cwd=tmp_path, stdin=subprocess.PIPE)
    try:
        status, document = doctor("--pid", str(impostor.pid))
        assert status == 1 and not document["process"]["sound"]
        excess = document["process"]["threads"][0]["excess"]
        assert any("CAP_SYS_ADMIN" in one for one in excess) and "lacks no_new_privs" in excess, excess
    finally:
        impostor.kill()
        impostor.wait()


@pytest.mark.parametrize(
    "pid, problem",
    [("4194305", "no such process"), ("self", "--pid"), (str(os.getpid()), "expected a process of sandgate")],
    ids=["none", "no number", "another"],
)
def test_doctor_names_what_it_cannot_look_at(pid: str, problem: str) -> None:
    command = [str(binary()), "doctor", "--security", "--pid", pid]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0 and problem in done.stderr, done


def test_doctor_looks_at_processes_only_for_security() -> None:
    done = subprocess.run([binary(), "doctor", "--pid", "1"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 64 and "--security" in done.stderr, done


# Which ports a sandbox reaches


def listening(text: str) -> set[tuple[str, int]]:
    """What `ss -lntuH` listed."""
    return {(line.split()[0], int(line.split()[4].rsplit(":", 1)[1])) for line in text.splitlines()}


def knocked(text: str) -> set[tuple[str, int]]:
    """What the knocking program found."""
    return {("tcp", port) if port > 0 else ("udp", -port) for port in json.loads(text.splitlines()[-1])}


OURS = {("udp", RESOLVER), ("tcp", RESOLVER), ("tcp", PROXY), ("udp", RELAY)}
REACHED = {*OURS, ("tcp", 53), ("udp", 53)}
"""Port 53 is redirected to the resolver, wherever it was to be asked."""
UDP_RULE = {"target": "192.0.2.0/24", "protocol": "udp", "ports": [53]}


@pytest.mark.attack("T2", "knocks at every port of its own loopback, over TCP and UDP, IPv4 and IPv6", stopped_by="control API")
def test_ports_of_run(sandgate: Sandgate) -> None:
    done = sandgate.run(allowing(plan.ALLOWED, UDP_RULE), "ss", "-lntuH")
    assert listening(done.stdout) == OURS, done
    done = sandgate.run(allowing(plan.ALLOWED, UDP_RULE), "python3", "-c", KNOCK, timeout=300)
    assert {("tcp", RESOLVER), ("tcp", PROXY)} <= knocked(done.stdout) <= REACHED, done


@pytest.mark.attack("T2", "knocks at every port of its own loopback, in a network that the daemon guards", stopped_by="control API")
def test_ports_of_serve(internet: Internet, tmp_path: Path) -> None:
    with running(internet, tmp_path) as daemon:
        sandbox = daemon.create(allowing(plan.ALLOWED))
        assert listening(sandbox.run("ss", "-lntuH").stdout) == OURS - {("udp", RELAY)}
        udp = daemon.create(allowing(plan.ALLOWED, UDP_RULE))
        assert listening(udp.run("ss", "-lntuH").stdout) == OURS
        found = knocked(udp.run("python3", "-c", KNOCK, timeout=300).stdout)
        assert {("tcp", RESOLVER), ("tcp", PROXY)} <= found <= REACHED, found


@pytest.mark.attack("T2", "knocks at every port of the loopback that it shares with a sidecar", stopped_by="control API")
def test_ports_of_sidecar(internet: Internet, tmp_path: Path) -> None:
    with sidecar(internet, tmp_path) as guard:
        guard.start(allowing(plan.ALLOWED))
        # It lives in the sandbox's network, and so does its API.
        expected = OURS | {("tcp", 18080)}
        assert listening(guard.run("ss", "-lntuH").stdout) == expected
        found = knocked(guard.run("python3", "-c", KNOCK, timeout=300).stdout)
        assert {("tcp", RESOLVER), ("tcp", PROXY), ("tcp", 18080)} <= found <= REACHED | expected, found


# How the program was built


def test_build_is_hardened() -> None:
    header = check("readelf", "--wide", "--file-header", "--segments", "--dynamic", binary())
    assert re.search(r"Type:\s+DYN", header) and "PIE" in header, "not position-independent"
    assert re.search(r"^\s*GNU_RELRO", header, re.MULTILINE) and "BIND_NOW" in header, "no full RELRO"
    (stack,) = re.findall(r"GNU_STACK.*?(R\w?\w?)\s+0x\w+$", header, re.MULTILINE)
    assert "E" not in stack, "an executable stack"
    assert "TEXTREL" not in header
    segments = re.findall(r"^\s*LOAD\s+(?:0x\w+\s+){5}([RWE ]+?)\s+0x", header, re.MULTILINE)
    assert segments and not [flags for flags in segments if "W" in flags and "E" in flags], segments
    symbols = check("readelf", "--wide", "--dyn-syms", binary())
    assert "__stack_chk_fail" in symbols, "no stack protector"
    assert re.search(r"__\w+_chk\b", symbols.replace("__stack_chk_fail", "")), "C functions are not fortified"
