"""The node daemon with 1, 100, 1,000 and more sandboxes: what each costs, and what all of them cost one."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from lab.namespaces import PREFIX, Namespace
from lab.processes import check, wait_until
from lab.visitor import query

from bench.goals import NODE_ROWS, NODE_SIZES
from bench.node import ALLOWED, DISTINCT, Node, PolicyRequest, node
from bench.processes import cpu_seconds, memory_bytes, milliseconds, on_one_processor
from bench.proxies import Contender
from bench.result import Measured, Outcome, Skipped, alternate
from bench.stage import NAMESERVER, ORIGIN, ORIGIN_NAME, QUERY_NAMES, Stage

NAMES = NODE_ROWS

ROUNDS = 3
"""Of what takes a hundred samples in itself, or seconds."""
WARM_UP = 16
"""Sandboxes made and released before memory is first looked at, so that what is made once is not counted."""
MEMORY_GOAL = 64.0
"""KiB of the daemon for a sandbox."""
IDLE_GOAL = 1.0
"""Milliseconds of CPU in a second: a thousandth of a processor."""
IDLE_SECONDS = 2.0
CHANGE_GOAL = 10.0
"""Milliseconds from asking for another policy to its effect."""
AAAA = 28


def measure(stage: Stage, wanted: frozenset[str]) -> Iterator[Outcome]:
    """All rows: one node that grows from size to size, and one with a single sandbox that it is compared with."""
    with node(stage) as crowded, node(stage) as alone:
        alone.grow(1)
        most = crowded.most_sandboxes()
        for size in NODE_SIZES:
            rows = {row for row in NODE_ROWS if row.endswith(f"-{size}")} & wanted
            if not rows:
                continue
            reason = ""
            if size > most:
                reason = f"the daemon may not have descriptors for more than {most} sandboxes"
            elif size > stage.effort.sandboxes:
                reason = f"--quick makes {stage.effort.sandboxes} sandboxes at most"
            if reason:
                yield from (Skipped(row, reason) for row in NODE_ROWS if row in rows)
                continue
            yield from _measure_at(stage, crowded, alone, size, rows)


def _measure_at(stage: Stage, crowded: Node, alone: Node, size: int, rows: set[str]) -> Iterator[Outcome]:
    """The rows at one size. What makes and releases sandboxes comes after memory has been looked at."""
    before, base = _kibibytes_when_warm(crowded), crowded.count
    seconds = crowded.grow(size)
    grown = memory_bytes(crowded.pid, "Rss") / 1024 - before
    if f"node-memory-{size}" in rows:
        yield Measured(f"node-memory-{size}", [(max(grown, 1) / (size - base), MEMORY_GOAL)])
    if f"node-idle-{size}" in rows:
        yield Measured(f"node-idle-{size}", [(_idle(crowded), IDLE_GOAL) for _ in range(ROUNDS)])
    if rows & {f"node-dns-{size}", f"node-connect-{size}"}:
        yield from _beside(stage, crowded, alone, size)
    if f"node-change-{size}" in rows:
        changes = [(_change_p99(crowded, stage.effort.changes), CHANGE_GOAL) for _ in range(ROUNDS)]
        yield Measured(f"node-change-{size}", changes)
    if rows & {f"node-attach-p50-{size}", f"node-attach-p99-{size}"}:
        yield from _attach(stage, crowded, size)
    if f"node-restart-{size}" in rows:
        # What one costs when a single one is made says nothing about many: those that were just made are the measure.
        yield Measured(f"node-restart-{size}", [(_restart_seconds(crowded), seconds * size) for _ in range(ROUNDS)])


def _kibibytes_when_warm(crowded: Node) -> float:
    """What is resident once sandboxes have been made and released."""
    with crowded.connection() as connection:
        for _ in range(WARM_UP):
            crowded.attach(connection, "warm-up")
            crowded.detach(connection, "warm-up")
    return memory_bytes(crowded.pid, "Rss") / 1024


def _idle(crowded: Node) -> float:
    """Milliseconds of CPU in a second in which nobody asks for anything."""

    def is_quiet() -> bool:
        before = cpu_seconds(crowded.pid)
        time.sleep(0.25)
        return cpu_seconds(crowded.pid) - before < 1e-3

    # The journal is written a moment after what it tells of.
    wait_until(is_quiet, "the daemon to be quiet", 30)
    before, begun = cpu_seconds(crowded.pid), time.perf_counter()
    time.sleep(IDLE_SECONDS)
    used = cpu_seconds(crowded.pid) - before
    # None at all cannot be divided by.
    return max(used * 1e3, 1e-3) / (time.perf_counter() - begun)


def _beside(stage: Stage, crowded: Node, alone: Node, size: int) -> Iterator[Outcome]:
    """A query and a connection, one after the other, in a sandbox with all the others beside it and in one alone."""
    with contextlib.ExitStack() as stack:
        ours, theirs = (stack.enter_context(which.client(stage)) for which in (crowded, alone))
        pids = [pid for contender in (ours, theirs) for pid in (contender.pid, contender.client.process.pid)]
        stack.enter_context(on_one_processor(pids))
        for name, sample in (("dns", _query_p50), ("connect", _connection_p50)):
            ways: dict[str, Callable[[], float]] = {
                "ours": partial(sample, stage, ours),
                "theirs": partial(sample, stage, theirs),
            }
            for way in ways.values():
                way()
            rounds = alternate(stage.effort.samples, ways)
            yield Measured(f"node-{name}-{size}", [(taken["ours"], taken["theirs"]) for taken in rounds])


def _query_p50(stage: Stage, contender: Contender) -> float:
    """Microseconds to an answer from the cache."""
    count = stage.effort.node_queries
    result = contender.client.ask("queries", *NAMESERVER, AAAA, QUERY_NAMES, 0, DISTINCT, count, 0, 1)
    if result["records"] < count:
        raise RuntimeError(f"of {count} queries only {result['records']:.0f} were answered: {result}")
    return result["p50"] / 1e3


def _connection_p50(stage: Stage, contender: Contender) -> float:
    """Microseconds from connect to the first byte of the answer."""
    count = stage.effort.node_connections
    result = contender.client.connections(ORIGIN, ORIGIN_NAME, reply=1024, concurrency=1, count=count)
    return result["p50"] / 1e3


def _change_p99(crowded: Node, count: int) -> float:
    """Milliseconds from asking for another policy until a program inside sees both of its effects.

    One policy allows a name and not the origin's address, the other the address and not the name: the resolver has to
    answer otherwise, and the kernel to refuse or let through a connection.
    """
    name = QUERY_NAMES % 0
    policies: dict[bool, tuple[str, ...]] = {True: ALLOWED, False: (ORIGIN[0],)}
    taken: list[float] = []
    with crowded.connection() as connection, crowded.socket_inside(socket.SOCK_DGRAM) as asking:
        asking.settimeout(5)
        asking.connect(NAMESERVER)
        for index in range(count):
            allows_name = index % 2 == 1
            begun = time.perf_counter()
            change = PolicyRequest(connection, policies[allows_name])
            while _is_answered(asking, name) != allows_name or _is_let_through(crowded) == allows_name:
                if time.perf_counter() - begun > 10:
                    raise RuntimeError("a change of policy had no effect")
            taken.append((time.perf_counter() - begun) * 1e3)
            change.finish()
        PolicyRequest(connection, ALLOWED).finish()
    return _quantile(taken, 0.99)


def _is_answered(asking: socket.socket, name: str) -> bool:
    """Whether the resolver says that there is such a name."""
    identifier = int.from_bytes(os.urandom(2), "big")
    asking.send(query(name, identifier))
    while True:
        answer = asking.recv(4096)
        if int.from_bytes(answer[:2], "big") == identifier:
            return answer[3] & 15 == 0


def _is_let_through(crowded: Node) -> bool:
    """Whether a connection to the origin is not refused by the kernel."""
    with crowded.socket_inside(socket.SOCK_STREAM) as connecting:
        connecting.settimeout(5)
        return connecting.connect_ex(ORIGIN) == 0


def _attach(stage: Stage, crowded: Node, size: int) -> Iterator[Outcome]:
    """One more sandbox, again and again, and the same network and table made with `ip` and `nft`."""
    dead_end = Namespace("bench-dead-end")
    table = stage.directory / "table.nft"
    listed = check("nsenter", f"--net={crowded.namespaces}/0", "nft", "list", "table", "inet", "sandgate")
    # An owned table would go with the nft that made it.
    table.write_text(listed.replace("flags owner", ""))
    ways: dict[str, Callable[[], list[float]]] = {
        "ours": partial(_attach_milliseconds, crowded, stage.effort.attachments),
        "theirs": partial(_by_hand_milliseconds, stage, dead_end, table, stage.effort.attachments),
    }
    try:
        rounds = alternate(ROUNDS, ways)
    finally:
        dead_end.remove()
    for row, fraction in (("p50", 0.5), ("p99", 0.99)):
        pairs = [(_quantile(taken["ours"], fraction), _quantile(taken["theirs"], fraction)) for taken in rounds]
        yield Measured(f"node-attach-{row}-{size}", pairs)


def _attach_milliseconds(crowded: Node, count: int) -> list[float]:
    taken: list[float] = []
    with crowded.connection() as connection:
        for _ in range(count):
            begun = time.perf_counter()
            crowded.attach(connection, "one-more")
            taken.append((time.perf_counter() - begun) * 1e3)
            crowded.detach(connection, "one-more")
    return taken


def _by_hand_milliseconds(stage: Stage, dead_end: Namespace, table: Path, count: int) -> list[float]:
    """With as few commands as possible: `ip` takes a whole file of them."""
    name = f"{PREFIX}hand-{os.getpid()}"
    network = stage.directory / "network.ip"
    network.write_text(
        f"""\
link set lo up
link add eth0 type veth peer name node0 netns {dead_end.name}
link set eth0 up
address add 192.0.0.2/32 dev eth0
address add fd73:616e:6467::2/128 dev eth0 nodad
route add 192.0.0.1 dev eth0
route add default via 192.0.0.1
route add default dev eth0 metric 1
"""
    )
    commands = (
        ["ip", "netns", "add", name],
        ["ip", "-n", name, "-batch", str(network)],
        ["ip", "netns", "exec", name, "nft", "-f", str(table)],
    )
    taken: list[float] = []
    for _ in range(count):
        try:
            taken.append(sum(milliseconds(command) for command in commands))
        finally:
            check("ip", "netns", "delete", name)
        # The far end goes with the near one, a moment later.
        wait_until(lambda: len(check("ip", "-n", dead_end.name, "-o", "link").splitlines()) == 1, "the link to go")
    return taken


def _restart_seconds(crowded: Node) -> float:
    """Seconds from the daemon's death to the next one's serving all sandboxes."""
    begun = time.perf_counter()
    crowded.kill()
    crowded.start()
    crowded.check_all_run()
    return time.perf_counter() - begun


def _quantile(values: list[float], fraction: float) -> float:
    return sorted(values)[min(int(fraction * len(values)), len(values) - 1)]
