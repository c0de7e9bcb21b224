"""A program inside floods without pause while policies change, daemons are killed, namespaces go, disks and limits are full.

SANDGATE_LONG=1 does each as often as it takes to find what is rare; SANDGATE_SEED decides what chance does.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import random
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import plan
from lab.daemon import Daemon, Sandbox, attachment, running
from lab.effort import SEED, rounds
from lab.flood_watch import Watch, flooding, starting
from lab.internet import Internet
from lab.namespaces import Namespace
from lab.processes import check, wait_until
from lab.sandgate import allowing
from lab.tool import tool


def attach(daemon: Daemon, box: Namespace, *targets: str) -> Sandbox:
    return daemon.create(allowing(*targets), id="box", attachment=attachment(box))


@contextlib.contextmanager
def attached_under_flood(
    internet: Internet, daemon: Daemon, box: Namespace, watch: Watch, *targets: str
) -> Iterator[Sandbox]:
    """A sandbox in which somebody floods since before it was attached, and of which nothing forbidden gets out."""
    with flooding(starting(internet, box)):
        before = watch.count
        wait_until(lambda: watch.count > before, "what arrives without enforcement")
        sandbox = attach(daemon, box, *targets)
        with watch.nothing():
            yield sandbox


@pytest.mark.attack(
    "T4 T9 N9",
    "floods by hand-made packets, datagrams and connections while it is attached, and while its policy changes without end",
    stopped_by="kernel",
)
@pytest.mark.slow
def test_changes_without_end(internet: Internet, daemon: Daemon, box: Namespace, watch: Watch) -> None:
    """A download that each of the policies allows goes on over its one connection, and is whole."""
    count = rounds(200, 1000)
    with attached_under_flood(internet, daemon, box, watch, plan.FILES, plan.ALLOWED) as sandbox:
        curl = ["curl", "-sS", "-m", "600", f"https://{plan.FILES}/big.bin"]
        download = subprocess.Popen(box.command(*curl), stdout=subprocess.PIPE, env=internet.environment())
        assert download.stdout is not None
        digest = hashlib.sha256()
        try:
            for number in range(count):
                # What is not read waits: the download cannot be over before the changes are.
                piece = download.stdout.read(1 << 18)
                assert len(piece) == 1 << 18
                digest.update(piece)
                others: list[str | dict[str, object]] = [f"n{number}.example", f"203.0.{number % 113}.0/24"]
                if number % 3 == 0:
                    others.append({"target": f"203.0.113.{number % 256}", "protocol": "udp", "ports": [1000 + number]})
                policy = allowing(plan.FILES, *others, *([plan.ALLOWED] if number % 2 else []))
                assert sandbox.ask("PUT", "/policy", policy).status == 200
            while piece := download.stdout.read(1 << 20):
                digest.update(piece)
            assert download.wait(60) == 0 and digest.hexdigest() == internet.content.big_file_digest
        finally:
            download.kill()
            download.communicate()
        assert sandbox.ask("GET", "/policy").json["revision"] == count + 1
        assert sandbox.ask("PUT", "/policy", allowing(plan.ALLOWED)).status == 200
        assert sandbox.reaches(plan.ALLOWED)
    assert len([request for request in internet.web.requests() if request.host == plan.FILES]) == 1


@pytest.mark.attack(
    "T4 T8",
    "floods while the daemon is killed at moments of chance, in the middle of all that it does, and started again",
    stopped_by="kernel",
)
@pytest.mark.slow
def test_killed_at_random_moments(internet: Internet, daemon: Daemon, box: Namespace, watch: Watch) -> None:
    """Nothing acknowledged is lost, and nothing is left of what was released or never acknowledged."""
    print(f"SANDGATE_SEED={SEED}")
    chance = random.Random(SEED)
    acknowledged: set[str] = set()

    def work(sandbox: Sandbox) -> None:
        """What a lifecycle server asks, until nobody answers."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            for number in range(1_000_000):
                id = f"other-{number % 3}"
                body = {"id": id, "attachment": {"create": True}, "networkPolicy": allowing(plan.OTHER)}
                if daemon.request("POST", "/v1/sandboxes", body).status == 201:
                    acknowledged.add(id)
                sandbox.ask("PATCH", "/policy", [{"action": "allow", "target": f"n{number}.example"}])
                sandbox.ask("PUT", "/policy", allowing(plan.ALLOWED, {"target": "203.0.113.1", "protocol": "udp"}))
                sandbox.ask("POST", "/pause")
                sandbox.ask("POST", "/resume")
                # Whether it is gone is known when that was answered.
                acknowledged.discard(id)
                daemon.request("DELETE", f"/v1/sandboxes/{id}")

    with attached_under_flood(internet, daemon, box, watch, plan.ALLOWED) as sandbox:
        for _ in range(rounds(6, 150)):
            worker = threading.Thread(target=work, args=(sandbox,))
            worker.start()
            time.sleep(chance.uniform(0, 0.4))
            daemon.end(signal.SIGKILL)
            worker.join(60)
            assert not worker.is_alive()
            # Sometimes the next one does not live long either.
            if chance.random() < 0.3:
                daemon.launch()
                time.sleep(chance.uniform(0, 0.3))
                daemon.end(signal.SIGKILL)
            daemon.start()
            found = {item["id"]: item["status"]["state"] for item in daemon.request("GET", "/v1/sandboxes").json["items"]}
            assert found.pop("box") in ("Running", "Paused") and set(found.values()) <= {"Running"}
            assert acknowledged <= found.keys(), (acknowledged, found)
            assert sandbox.ask("POST", "/resume").status == 200 and sandbox.reaches(plan.ALLOWED)
            for id in found:
                assert daemon.request("DELETE", f"/v1/sandboxes/{id}").status == 204
            acknowledged.clear()
            records, names = daemon.remains
            assert names <= {".dead-end"}, names
            assert records == {".lock", "box.json"}
    assert tool("audit", "--dir", daemon.audit, "--verify").returncode == 0


@pytest.mark.attack(
    "T4 N9",
    "floods while its namespace is taken away and another comes under its name, and after it was released",
    stopped_by="kernel, namespaces",
)
@pytest.mark.slow
def test_namespaces_come_and_go(internet: Internet, daemon: Daemon, watch: Watch) -> None:
    neighbour = daemon.create(allowing(plan.ALLOWED), id="neighbour")
    count = rounds(8, 200)
    descriptors = daemon.descriptors
    with watch.nothing(), contextlib.ExitStack() as stack:
        for number in range(count):
            sandbox = daemon.create(allowing(plan.ALLOWED), id="changing")
            assert sandbox.reaches(plan.ALLOWED, "-4")
            # It lives on in a network that nobody knows any more, and goes on.
            survivor = stack.enter_context(flooding(sandbox.start))
            if number % 2:
                assert sandbox.ask("DELETE").status == 204
            else:
                check("umount", "-l", sandbox.namespace)
                Path(sandbox.namespace).unlink()
                sandbox.wait_for("gone")
            if number > 2:
                survivor.terminate()
            assert neighbour.reaches(plan.ALLOWED, "-4")
            if number % 10 == 9:
                stack.close()
    wait_until(lambda: daemon.descriptors <= descriptors + 2, "the descriptors", 30)
    assert [item["id"] for item in daemon.request("GET", "/v1/sandboxes?state=all").json["items"]] == ["neighbour"]


@pytest.mark.attack(
    "T4 B3", "floods until the disk of the records is full, to be let through unrecorded", stopped_by="kernel, limits"
)
@pytest.mark.slow
def test_audit_disk_is_full(internet: Internet, tmp_path: Path, box: Namespace, watch: Watch) -> None:
    """What is refused stays so, what is allowed works, and the trail says how much it lacks."""
    disk = tmp_path / "audit"
    disk.mkdir()
    check("mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "sandgate-test", disk)
    try:
        with running(internet, tmp_path) as daemon:
            with attached_under_flood(internet, daemon, box, watch, plan.ALLOWED) as sandbox:
                other = daemon.create(allowing(plan.ALLOWED), id="other")
                filler = disk / "filler"
                with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                    while True:
                        file.write(bytes(4096))
                # What cannot be written waits, up to a mebibyte of it.
                asking = other.start("/usr/bin/python3", "-c", ASKING)
                wait_until(lambda: daemon.metrics()["sandgate_audit_lost_total"] > 0, "a loss", 120)
                asking.kill()
                asking.communicate()
                for number in range(rounds(5, 100)):
                    policy = allowing(plan.ALLOWED, f"n{number}.example")
                    assert sandbox.ask("PUT", "/policy", policy).status == 200
                    assert sandbox.reaches(plan.ALLOWED) and other.reaches(plan.ALLOWED)
                third = daemon.create(allowing(plan.OTHER), id="third")
                assert third.reaches(plan.OTHER) and not third.reaches(plan.ALLOWED)
                daemon.restart()
                assert sandbox.reaches(plan.ALLOWED) and other.reaches(plan.ALLOWED)
                filler.unlink()
            other.fetch(plan.DENIED)
            wait_until(lambda: daemon.records(sandbox="other", verdict="deny"), "records again", 60)
            assert daemon.end() == 0
            trail = "".join(file.read_text() for file in sorted(disk.glob("*.jsonl")))
            assert '"audit.lost"' in trail
            verified = tool("audit", "--dir", disk, "--verify")
            assert verified.returncode == 0, verified
    finally:
        subprocess.run(["umount", "-l", disk], capture_output=True)


ASKING = f"""
import socket, struct
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.settimeout(1)
    client.connect(("{plan.DNS4}", 53))
    for number in range(1_000_000):
        name = b"n%07d" % number + b"x" * 40
        client.send(struct.pack("!HHHHHH", number & 0xffff, 0x100, 1, 0, 0, 0) + bytes([len(name)]) + name + b"\\0\\0\\1\\0\\1")
        try: client.recv(2048)
        except TimeoutError: pass
"""
"""A program that asks for names that nobody may have, each refused and recorded."""


def limit_descriptors(daemon: Daemon, count: int | None = None) -> None:
    """How many it may open, or as many as it may let itself."""
    _, most = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (count or most, most))


@pytest.mark.attack(
    "T4 B3 P7",
    "floods and connects while the daemon has no descriptor left, one left, or a few",
    stopped_by="kernel, limits",
)
@pytest.mark.slow
def test_descriptors_run_out(internet: Internet, daemon: Daemon, box: Namespace, watch: Watch) -> None:
    """Requests are refused, not half done; afterwards all is as it was."""
    print(f"SANDGATE_SEED={SEED}")
    chance = random.Random(SEED)
    other = daemon.create(allowing(plan.ALLOWED), id="other")
    with attached_under_flood(internet, daemon, box, watch, plan.ALLOWED) as sandbox:
        assert sandbox.reaches(plan.ALLOWED) and other.reaches(plan.ALLOWED)
        revision, before = 1, daemon.descriptors
        for number in range(rounds(2, 150)):
            # Where a descriptor is missing differs with how many there are.
            limit_descriptors(daemon, daemon.descriptors + chance.randrange(0, 16))
            holders = [sandbox.start(*connecting()), other.start(*connecting())]
            for method, path, body in (
                ("PUT", f"{sandbox.path}/policy", allowing(plan.ALLOWED, f"n{number}.example")),
                ("POST", "/v1/sandboxes", {"id": "new", "attachment": {"create": True}}),
                ("DELETE", "/v1/sandboxes/new", None),
            ):
                # With none left there is nobody to answer.
                with contextlib.suppress(TimeoutError, ConnectionError, http.client.HTTPException):
                    answer = daemon.request(method, path, body, timeout=2)
                    assert answer.status < 300 or answer.json["message"], answer
            limit_descriptors(daemon)
            for holder in holders:
                holder.kill()
                holder.communicate()
            assert daemon.process is not None and daemon.process.poll() is None, daemon.log[-3000:]
            try:
                wait_until(lambda: daemon.request("DELETE", "/v1/sandboxes/new").status == 204, "the API", 30)
            except ConnectionError as error:
                raise AssertionError(f"{error}: {daemon.process.poll()} in round {number}: {daemon.log[-3000:]}") from error
            now = sandbox.ask("GET", "/policy").json["revision"]
            assert now in (revision, revision + 1)
            revision = now
            assert sandbox.state == other.state == "Running"
            wait_until(lambda: sandbox.reaches(plan.ALLOWED) and other.reaches(plan.ALLOWED), "both to work again", 30)
            assert not sandbox.reaches(plan.OTHER)
        wait_until(lambda: daemon.descriptors <= before + 4, "the connections' end", 60)
        assert daemon.remains == ({".lock", "box.json", "other.json"}, {".dead-end", "other"})


def connecting() -> list[str]:
    """A program that takes connections and keeps them."""
    script = (
        "import socket, time\n"
        "held = []\n"
        "for _ in range(60):\n"
        "    try:\n"
        f"        held.append(socket.create_connection(('{plan.ALLOWED}', 80), 0.5)); held[-1].send(b'GET / HTTP/1.1\\r\\n')\n"
        "    except OSError: pass\n"
        "time.sleep(60)\n"
    )
    return ["/usr/bin/python3", "-c", script]


@pytest.mark.attack(
    "T4 T5", "floods while a daemon starts again that may open no more files than a few", stopped_by="kernel, start"
)
@pytest.mark.slow
def test_few_descriptors_from_the_start(internet: Internet, daemon: Daemon, box: Namespace, watch: Watch) -> None:
    """It serves, or it ends and says why, or what it cannot take up is closed; the next one takes up all of it."""
    limits = list(range(8, 72, 1))
    other = daemon.create(allowing(plan.ALLOWED), id="other")
    with attached_under_flood(internet, daemon, box, watch, plan.ALLOWED) as sandbox:
        assert sandbox.reaches(plan.ALLOWED)
        random.Random(SEED).shuffle(limits)
        for limit in limits[: rounds(4, len(limits))]:
            daemon.end(signal.SIGKILL)
            before = len(daemon.log)
            # Without CAP_SYS_RESOURCE it cannot give itself more.
            daemon.prefix = ["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource"]
            daemon.prefix += ["prlimit", f"--nofile={limit}:{limit}"]
            serves = daemon.tries_to_start()
            said = daemon.log[before:]
            if not serves:
                assert daemon.process is not None and daemon.process.wait(30) > 0, (limit, said)
                assert "sandgate: " in said or "rror" in said, (limit, said)
            daemon.prefix = []
            daemon.restart()
            assert sandbox.state == other.state == "Running", (limit, said)
            assert sandbox.reaches(plan.ALLOWED) and other.reaches(plan.ALLOWED), limit
