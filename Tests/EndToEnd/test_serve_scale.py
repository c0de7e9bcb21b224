"""Thousands of sandboxes on one node: made, driven, changed, paused, ended, taken over after a crash, and released.

SANDGATE_SCALE says how many (2,000 unless it does). The daemon takes eight descriptors for each, so their number is
bounded by how many a process may have open.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import pytest

from lab import plan
from lab.daemon import Daemon, Sandbox
from lab.internet import Internet
from lab.machine import Snapshot
from lab.namespaces import NODE_LINK
from lab.processes import check, wait_until
from lab.sandgate import allowing
from lab.tool import tool
from lab.unix_http import UnixConnection
from lab.visitors import Outcome, Visit, Visitors, visitors

COUNT = int(os.environ.get("SANDGATE_SCALE", "2000"))
DESCRIPTORS = 8
"""Of the daemon for a sandbox; five more where a policy opens UDP."""
CONNECTIONS = 8
"""Over how many the API is asked at once."""
DEAD_END = ".dead-end"
"""The namespace in which the links of all others end. It is the daemon's own and stays for the next one."""

Item = TypeVar("Item")

Service = Literal["served", "absent", "coming"]
"""Whether a daemon serves; while it is coming, some sandboxes are taken up and others are not."""


@dataclass
class Member:
    """A sandbox of the fleet as it should be."""

    id: str
    namespace: str
    neighbour: str
    """A name that another sandbox may reach."""
    sends: bool
    """Whether its policy lets it send datagrams to the sink."""
    allowed: set[str] = field(default_factory=set)
    state: str = "Running"
    revision: int = 1
    expires: str = ""

    @property
    def first(self) -> str:
        """The name that it may reach to begin with."""
        return f"first-{self.id}.{plan.WILD}"

    @property
    def second(self) -> str:
        """The name that it may not reach to begin with."""
        return f"second-{self.id}.{plan.WILD}"

    @property
    def path(self) -> str:
        return f"/v1/sandboxes/{self.id}"

    @property
    def policy(self) -> dict[str, Any]:
        """What is asked of the API for it."""
        datagrams = {"target": plan.SINK4, "protocol": "udp", "ports": [plan.CANARY_PORT]}
        return allowing(*sorted(self.allowed), *([datagrams] if self.sends else []))

    @property
    def listed(self) -> tuple[str, int, str]:
        """What the API should list of it."""
        return self.state, self.revision, self.expires


class Fleet:
    """All sandboxes of a daemon, the clients that drive them, and what all of that should come to."""

    def __init__(self, internet: Internet, daemon: Daemon, clients: Visitors) -> None:
        self.internet, self.daemon, self._clients = internet, daemon, clients
        self.members: dict[str, Member] = {}
        self.begun = time.monotonic()

    def say(self, what: str) -> None:
        """Tells how far the test is; pytest shows it with -s, and when the test fails."""
        print(f"{time.monotonic() - self.begun:6.1f} s  {what}", flush=True)

    def each(self, items: Sequence[Item], ask: Callable[[UnixConnection, Item], None]) -> None:
        """Asks the API about every item, over a few connections at once."""
        rest = iter(items)
        taking = threading.Lock()

        def serve() -> None:
            with contextlib.closing(UnixConnection(self.daemon.socket, 60)) as connection:
                while True:
                    with taking:
                        item = next(rest, None)
                    if item is None:
                        return
                    ask(connection, item)

        with ThreadPoolExecutor(CONNECTIONS) as threads:
            for done in [threads.submit(serve) for _ in range(CONNECTIONS)]:
                done.result()

    # Requests, and what they change

    def create(self, connection: UnixConnection, number: int) -> None:
        """Makes the sandbox of this number."""
        neighbour = f"first-{(number + 1) % COUNT:05}.{plan.WILD}"
        member = Member(f"{number:05}", "", neighbour, sends=number % 20 == 0)
        member.allowed.add(member.first)
        body = {"id": member.id, "attachment": {"create": True}, "networkPolicy": member.policy, "timeout": 3600}
        status, answer = connection.ask("POST", "/v1/sandboxes", body)
        assert status == 201 and answer["selfTest"] == "passed", (member.id, status, answer)
        member.namespace, member.expires = answer["networkNamespace"], answer["expiresAt"]
        self.members[member.id] = member

    def replace_policy(self, connection: UnixConnection, member: Member) -> None:
        """Allows the second name instead of the first."""
        member.allowed = {member.second}
        status, answer = connection.ask("PUT", f"{member.path}/policy", member.policy)
        assert status == 200, (member.id, status, answer)
        member.revision += 1

    def add_rule(self, connection: UnixConnection, member: Member) -> None:
        """Allows the second name too. What is not acknowledged is not noted."""
        rule = [{"action": "allow", "target": member.second}]
        status, answer = connection.ask("PATCH", f"{member.path}/policy", rule)
        assert status == 200, (member.id, status, answer)
        member.allowed.add(member.second)
        member.revision += 1

    def move(self, action: str, state: str) -> Callable[[UnixConnection, Member], None]:
        """Pauses or resumes."""

        def ask(connection: UnixConnection, member: Member) -> None:
            status, answer = connection.ask("POST", f"{member.path}/{action}")
            assert status == 200 and answer["status"]["state"] == state, (member.id, status, answer)
            member.state = state

        return ask

    def end_at(self, moment: datetime) -> Callable[[UnixConnection, Member], None]:
        """Gives until `moment`."""

        def ask(connection: UnixConnection, member: Member) -> None:
            body = {"expiresAt": moment.isoformat().replace("+00:00", "Z")}
            status, answer = connection.ask("POST", f"{member.path}/renew-expiration", body)
            assert status == 200, (member.id, status, answer)
            member.state, member.expires = "Terminated", answer["expiresAt"]

        return ask

    def release(self, connection: UnixConnection, member: Member) -> None:
        """Releases it. What is not acknowledged is not noted."""
        status, answer = connection.ask("DELETE", member.path)
        assert status == 204, (member.id, status, answer)
        del self.members[member.id]

    # What there is, and what it does

    def listed(self, state: str = "") -> dict[str, tuple[str, int, str]]:
        """State, revision and expiry of every sandbox in the API's list, read page by page."""
        found: dict[str, tuple[str, int, str]] = {}
        cursor = ""
        with contextlib.closing(UnixConnection(self.daemon.socket, 60)) as connection:
            while True:
                status, page = connection.ask("GET", f"/v1/sandboxes?limit=700{state}{cursor}")
                assert status == 200, page
                for item in page["items"]:
                    assert item["id"] not in found, f"{item['id']} is listed twice"
                    found[item["id"]] = (item["status"]["state"], item["revision"], item["expiresAt"])
                if "nextCursor" not in page:
                    return found
                cursor = f"&cursor={page['nextCursor']}"

    def wait_for_ends(self) -> None:
        """Waits until those whose time is over are off the list, and finds all others on it as they should be."""
        live = {id for id, member in self.members.items() if member.state != "Terminated"}
        wait_until(lambda: self.listed().keys() == live, "the list to be of those that live", 30)
        self.expect_list()

    def expect_list(self) -> None:
        """Finds every sandbox listed as it should be."""
        found = self.listed("&state=all")
        assert found.keys() == self.members.keys()
        wrong = {id: (found[id], member.listed) for id, member in self.members.items() if found[id] != member.listed}
        assert wrong == {}, "(found, expected)"

    def drive(self, members: Iterable[Member], phase: str, service: Service = "served") -> None:
        """Has each of them try its two names, another's, and a datagram, and judges from outside what came of it."""
        driven = list(members)
        self.internet.forget()
        names = [(member.first, member.second, member.neighbour) for member in driven]
        outcomes = self._clients.go(
            Visit(member.namespace, f"/{member.id}/{phase}", tried)
            for member, tried in zip(driven, names, strict=True)
        )
        allowed = {
            member.id: member.allowed if service != "absent" and member.state == "Running" else set()
            for member in driven
        }
        sending = {member.id for member in driven if member.sends and allowed[member.id]}
        if service == "coming":
            # What each may reach, it does or does not; what came of it is taken for what was to be.
            for member, outcome in zip(driven, outcomes, strict=True):
                assert outcome.found | outcome.served <= allowed[member.id], (member, outcome)
                assert outcome.sent != "echoed" or member.id in sending, (member, outcome)
            allowed = {member.id: outcome.served for member, outcome in zip(driven, outcomes, strict=True)}
            sending = {member.id for member, outcome in zip(driven, outcomes, strict=True) if outcome.sent == "echoed"}
        else:
            for member, outcome in zip(driven, outcomes, strict=True):
                _judge(member, outcome, allowed[member.id], member.id in sending)
        expected = sorted((f"/{id}/{phase}", name) for id, those in allowed.items() for name in those)
        requests = [(request.path, request.sni) for request in self.internet.web.requests()]
        assert sorted(requests) == expected
        # Some answers come from a cache; what is refused is never asked of anybody.
        assert self.internet.dns.names() <= {name for member in driven for name in member.allowed}
        arrived = sorted(arrival.data for arrival in self.internet.sinks.arrivals())
        assert arrived == sorted(f"/{id}/{phase}" for id in sending)
        assert self.internet.canary.arrivals() == []
        if service != "coming":
            self.say(f"{len(driven)} driven, {phase}: {len(expected)} requests and {len(arrived)} datagrams served")


def _judge(member: Member, outcome: Outcome, allowed: set[str], isSending: bool) -> None:
    """Finds every verdict as it was seen from inside right. What is refused is refused at once, and never times out."""
    assert (outcome.found, outcome.served) == (allowed, allowed), (member, outcome)
    assert (outcome.sent == "echoed") == isSending, (member, outcome)
    results = {*outcome.resolved.values(), *outcome.fetched.values(), outcome.sent}
    assert "TimeoutError" not in results, (member, outcome)


@pytest.fixture
def fleet(internet: Internet, tmp_path: Path) -> Iterator[Fleet]:
    """A daemon without sandboxes yet."""
    daemon = Daemon(internet, tmp_path)
    with visitors(internet.certificates.authority) as clients:
        try:
            daemon.start()
            yield Fleet(internet, daemon, clients)
        finally:
            daemon.clean_up()


def _most_descriptors(daemon: Daemon) -> int:
    limits = Path(f"/proc/{daemon.pid}/limits").read_text()
    found = re.search(r"^Max open files\s+(\d+)", limits, re.MULTILINE)
    assert found is not None, limits
    return int(found.group(1))


def _churn_until_killed(
    fleet: Fleet, patched: Sequence[Member], released: Sequence[Member], created: Sequence[int]
) -> None:
    """Changes, releases and makes sandboxes at the same time, and kills the daemon when half of it is done."""
    done = 0
    work: list[Callable[[UnixConnection], None]] = [
        *(partial(fleet.add_rule, member=member) for member in patched),
        *(partial(fleet.release, member=member) for member in released),
        *(partial(fleet.create, number=number) for number in created),
    ]
    random.shuffle(work)

    def carry_out(connection: UnixConnection, request: Callable[[UnixConnection], None]) -> None:
        nonlocal done
        # Once the daemon is gone, nobody answers what is left.
        with contextlib.suppress(OSError, http.client.HTTPException):
            request(connection)
            done += 1

    with ThreadPoolExecutor(1) as thread:
        busy = thread.submit(lambda: fleet.each(work, carry_out))
        wait_until(lambda: done >= len(work) // 2 or busy.done(), "half of the changes", 60)
        fleet.daemon.end(signal.SIGKILL)
        busy.result()
    fleet.say(f"killed after {done} of {len(work)} changes")
    assert done < len(work), "the daemon was killed too late for the test to say anything"


def _settle(fleet: Fleet, patched: Sequence[Member], released: Sequence[Member], created: Sequence[int]) -> None:
    """After a crash, takes over what may be one way or the other: what was asked for and not acknowledged."""
    found = fleet.listed("&state=all")
    doubtful = 0
    for member in patched:
        if found[member.id][1] == member.revision + 1 and member.second not in member.allowed:
            member.revision += 1
            member.allowed.add(member.second)
            doubtful += 1
    for member in released:
        if member.id in fleet.members and member.id not in found:
            del fleet.members[member.id]
            doubtful += 1
    with contextlib.closing(UnixConnection(fleet.daemon.socket, 60)) as connection:
        for id in (f"{number:05}" for number in created):
            if id in found and id not in fleet.members:
                connection.ask("DELETE", f"/v1/sandboxes/{id}")
                doubtful += 1
    assert doubtful <= CONNECTIONS, "more was done than was asked for"


@pytest.mark.slow
def test_many_sandboxes(internet: Internet, fleet: Fleet) -> None:
    """Every verdict is right at every moment, nothing acknowledged is lost, and nothing is left behind."""
    daemon = fleet.daemon
    most = _most_descriptors(daemon)
    needed = COUNT * DESCRIPTORS + COUNT // 20 * 5 + 500
    if needed > most:
        pytest.skip(f"{COUNT} sandboxes need {needed} descriptors, and a process may have {most}")
    seed = int(os.environ.get("SANDGATE_SEED", random.randrange(1 << 32)))
    random.seed(seed)
    machine, baseline = Snapshot.take(), daemon.descriptors
    fleet.say(f"{COUNT} sandboxes, SANDGATE_SEED={seed}")

    fleet.each(range(COUNT), fleet.create)
    fleet.say(f"made; the daemon has {daemon.descriptors} descriptors open")
    fleet.expect_list()
    everybody = random.sample([member for _, member in sorted(fleet.members.items())], COUNT)
    tenth = COUNT // 10
    driven, rest = everybody[:tenth], everybody[tenth:]
    fleet.drive(driven, "new")
    for member in driven[:5]:
        sandbox = Sandbox(daemon, member.id, member.namespace)
        assert sandbox.reaches(member.first) and not sandbox.reaches(member.second), member

    # Of those driven: 40% get another policy, 20% one more rule, 15% are paused, 10% end; the others stay as they are.
    replaced, extended, paused, ended = (driven[tenth * a // 100 : tenth * b // 100] for a, b in _SHARES)
    aside = rest[:tenth]
    fleet.each(replaced, fleet.replace_policy)
    fleet.each(extended + aside, fleet.add_rule)
    fleet.each(paused + aside[: tenth // 2], fleet.move("pause", "Paused"))
    fleet.each(ended, fleet.end_at(datetime.now(timezone.utc) + timedelta(seconds=2)))
    fleet.wait_for_ends()
    fleet.say("policies changed, some paused, some ended")
    fleet.drive(driven, "changed")

    patched, released, late = rest[tenth : 2 * tenth], rest[2 * tenth : 2 * tenth + 20], rest[-10:]
    created = range(COUNT, COUNT + 20)
    # They end while no daemon runs, or while the next one begins.
    fleet.each(late, fleet.end_at(datetime.now(timezone.utc) + timedelta(seconds=4)))
    _churn_until_killed(fleet, patched, released, created)
    fleet.drive(driven[: tenth // 2], "without-a-daemon", "absent")
    with ThreadPoolExecutor(1) as thread:
        before = time.monotonic()
        beginning = thread.submit(daemon.start)
        rounds = 0
        while not beginning.done():
            fleet.drive(driven, "coming", "coming")
            rounds += 1
        beginning.result()
    fleet.say(f"taken up again in {time.monotonic() - before:.1f} s, driven {rounds} times meanwhile")
    _settle(fleet, patched, released, created)
    fleet.wait_for_ends()
    assert _namespaces(daemon) == {*fleet.members, DEAD_END}
    fleet.drive([*driven, *random.sample(patched, tenth // 2), *rest[-tenth // 2 :]], "taken-up")

    fleet.each(paused, fleet.move("resume", "Running"))
    fleet.each(extended, fleet.replace_policy)
    fleet.drive(paused + extended, "changed-again")

    gone = [*fleet.members.values()]
    fleet.each(gone, fleet.release)
    fleet.say("released")
    # The trail's last moments before a kill may be missing from it.
    around_the_kill = {*(member.id for member in released), *(f"{number:05}" for number in created)}
    _expect_nothing_left(fleet, machine, baseline, gone)
    assert daemon.end() == 0
    _expect_complete_audit(daemon, around_the_kill)
    fleet.say("nothing is left")


_SHARES = ((0, 40), (40, 60), (60, 75), (75, 85))


def _namespaces(daemon: Daemon) -> set[str]:
    return {path.name for path in (daemon.directory / "run" / "netns").iterdir()}


def _expect_nothing_left(fleet: Fleet, machine: Snapshot, baseline: int, gone: Sequence[Member]) -> None:
    """Looks for everything that a sandbox is made of."""
    daemon = fleet.daemon
    assert fleet.listed("&state=all") == {}
    assert daemon.request("DELETE", gone[0].path).status == 204
    assert daemon.request("GET", gone[0].path).status == 404
    assert _namespaces(daemon) == {DEAD_END}
    assert [path.name for path in (daemon.directory / "state" / "sandboxes").iterdir()] == [".lock"]
    # The last to go: a link's far end stays until its namespace is really gone, and so nobody holds one open.
    dead_end = ["nsenter", f"--net={daemon.directory}/run/netns/{DEAD_END}", "ip", "-o", "link"]
    wait_until(lambda: len(check(*dead_end).splitlines()) == 1, "the namespaces to be gone", 60)
    wait_until(lambda: daemon.descriptors <= baseline, f"the descriptors to be {baseline} again")
    now = Snapshot.take()
    assert (now.links, now.ruleset, now.forwarding) == (machine.links, machine.ruleset, machine.forwarding)
    # The lab's own link gets its link-local address in its own time.
    assert {route for route in now.routes - machine.routes if f"dev {NODE_LINK}" not in route} == set()
    mounts = {mount for mount in now.mounts if mount.startswith(f"{daemon.directory}/")}
    assert mounts == {f"{daemon.directory}/run/netns/{DEAD_END}"}


def _expect_complete_audit(daemon: Daemon, besides: set[str]) -> None:
    """Finds an unbroken trail, nothing lost, and in it a beginning and an end of each sandbox."""
    verified = tool("audit", "--dir", daemon.audit, "--verify")
    assert verified.returncode == 0, verified
    events: dict[str, list[str]] = {}
    for file in sorted(daemon.audit.glob("*.jsonl")):
        for line in file.read_text().splitlines():
            record = json.loads(line)
            assert record["event"] != "audit.lost", record
            if record["event"].startswith("sandbox."):
                events.setdefault(record["sandbox"], []).append(record["event"].removeprefix("sandbox."))
    assert {f"{number:05}" for number in range(COUNT)} <= events.keys()
    ends = ("detached", "expired")
    wrong = {id: those for id, those in events.items() if those[0] != "attached" or those[-1] not in ends}
    assert wrong.keys() <= besides, wrong
