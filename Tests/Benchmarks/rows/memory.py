"""What stands still: the memory of idle tunnels and of an idle sandbox."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from functools import partial

from lab.processes import wait_until

from bench.processes import Server, memory_bytes, wait_for_ports
from bench.proxies import Contender, haproxy
from bench.result import Measured, Outcome, alternate
from bench.sandgate import resolve_origin, sandgate, sandgate_run
from bench.stage import ORIGIN, ORIGIN_NAME, Stage

TUNNELS = ("tunnel-memory",)
RESIDENT = ("resident-memory",)

WARM_UP = 16
"""Connections before memory is first looked at, so that what is made once is not counted."""


def measure_tunnels(stage: Stage) -> Iterator[Outcome]:
    """Growth of a fresh process by tunnels that have carried a hello and an answer and now wait."""
    rounds = alternate(
        max(3, stage.effort.samples // 2 + 2),
        {"ours": partial(_tunnel_bytes, stage, sandgate), "theirs": partial(_tunnel_bytes, stage, haproxy)},
    )
    yield Measured("tunnel-memory", [(taken["ours"], taken["theirs"]) for taken in rounds])


def _tunnel_bytes(
    stage: Stage, make: Callable[[Stage], contextlib.AbstractContextManager[Contender]]
) -> float:
    count = stage.effort.tunnels
    wait_for_ports(2 * count)
    with make(stage) as contender:
        if make is sandgate:
            resolve_origin(contender)
        open_tunnels = partial(contender.client.connections, ORIGIN, ORIGIN_NAME, reply=1024, concurrency=16, stay=True)
        open_tunnels(count=WARM_UP)
        # Not what is resident: pages of the program itself that are used for the first time would count.
        before = memory_bytes(contender.pid, "Anonymous")
        open_tunnels(count=count)
        grown = memory_bytes(contender.pid, "Anonymous") - before
        contender.client.ask("release")
    # A tunnel that costs less than can be seen still costs something.
    return max(grown, 4096) / count


def measure_resident(stage: Stage) -> Iterator[Outcome]:
    """The supervisor of a sandbox whose command sleeps, and a Go program that sleeps: resident set size."""
    rounds = alternate(
        stage.effort.samples,
        {"ours": partial(_supervisor_kibibytes, stage), "theirs": partial(_sleeper_kibibytes, stage)},
    )
    yield Measured("resident-memory", [(taken["ours"], taken["theirs"]) for taken in rounds])


def _supervisor_kibibytes(stage: Stage) -> float:
    command = [*sandgate_run(stage), "/bin/sh", "-c", "echo started; exec sleep 60"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        if process.stdout is None or process.stdout.readline() != b"started\n":
            raise RuntimeError("sandgate run did not start its command")
        return memory_bytes(process.pid, "Rss") / 1024
    finally:
        process.terminate()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


def _sleeper_kibibytes(stage: Stage) -> float:
    with Server([str(stage.programs.go_sleeper)]) as server:
        wait_until(lambda: memory_bytes(server.pid, "Rss") > 0 and _is_asleep(server.pid), "the Go program to sleep")
        return memory_bytes(server.pid, "Rss") / 1024


def _is_asleep(pid: int) -> bool:
    """Whether a process's main thread waits; a Go program does only when it is set up."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        lines = dict(line.split(":", 1) for line in status.read().splitlines() if ":" in line)
    return lines["State"].split()[0] == "S" and int(lines["Threads"]) > 1
