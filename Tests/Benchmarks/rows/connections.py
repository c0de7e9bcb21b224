"""Connections in numbers: a hello, an answer of 1 KiB, the end. How many a second, at what cost, with what delay."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from bench.goals import CROWD_SIZES
from bench.processes import cpu_seconds, wait_for_ports
from bench.proxies import SQUID_PORT, TINYPROXY_PORT, Contender, haproxy, no_proxy, squid, tinyproxy
from bench.result import Measured, Outcome, against_better, alternate
from bench.sandgate import EXPLICIT_PROXY, resolve_origin, sandgate
from bench.stage import ORIGIN, ORIGIN_NAME, Stage

SHORT = ("short-rate", "short-cpu")
CONNECT = ("connect-rate",)
LATENCY = ("latency-p50", "latency-p99")
CROWD = tuple(f"connections-{what}-{size}" for size in CROWD_SIZES for what in ("cpu", "p50"))

REPLY = 1024
CONCURRENCY = 32


@dataclass(frozen=True)
class Sample:
    """What a number of connections came to."""

    rate: float
    """Connections a second."""
    cpu: float
    """Microseconds of the proxy for each."""
    p50: float
    """Microseconds from connect to the answer's first byte."""
    p99: float


def _connect(contender: Contender, count: int, concurrency: int, via: tuple[str, int] | None = None) -> Sample:
    before = cpu_seconds(contender.pid) if contender.pid else 0.0
    result = contender.client.connections(
        ORIGIN, ORIGIN_NAME, reply=REPLY, concurrency=concurrency, count=count, via=via
    )
    used = cpu_seconds(contender.pid) - before if contender.pid else 0.0
    return Sample(count / result["seconds"], used / count * 1e6, result["p50"] / 1e3, result["p99"] / 1e3)


def measure_short(stage: Stage) -> Iterator[Outcome]:
    """Many connections at once through the transparent proxy."""
    count = stage.effort.short_connections
    with sandgate(stage) as ours, haproxy(stage) as theirs:
        resolve_origin(ours)
        for contender in (ours, theirs):
            _connect(contender, count // 4, CONCURRENCY)
        rounds = alternate(
            stage.effort.samples,
            {
                "ours": partial(_connect, ours, count, CONCURRENCY),
                "theirs": partial(_connect, theirs, count, CONCURRENCY),
            },
        )
    yield Measured("short-rate", [(taken["ours"].rate, taken["theirs"].rate) for taken in rounds])
    yield Measured("short-cpu", [(taken["ours"].cpu, taken["theirs"].cpu) for taken in rounds])


def measure_connect(stage: Stage) -> Iterator[Outcome]:
    """The same through explicit proxies."""
    count = stage.effort.connect_connections
    with sandgate(stage) as ours, squid(stage) as one, tinyproxy(stage) as other:
        resolve_origin(ours)
        ways = {
            "sandgate": (ours, EXPLICIT_PROXY),
            "squid": (one, ("127.0.0.1", SQUID_PORT)),
            "tinyproxy": (other, ("127.0.0.1", TINYPROXY_PORT)),
        }
        for contender, via in ways.values():
            _connect(contender, count // 4, CONCURRENCY, via)
        taken = alternate(
            stage.effort.samples,
            {name: partial(_connect, contender, count, CONCURRENCY, via) for name, (contender, via) in ways.items()},
        )
    rates = [{name: sample.rate for name, sample in of.items()} for of in taken]
    yield against_better("connect-rate", rates, ("squid", "tinyproxy"), lower=False)


def measure_latency(stage: Stage) -> Iterator[Outcome]:
    """One connection after the other. What a way adds is what it takes longer than no proxy, by the same quantile."""
    count = stage.effort.latency_connections
    with sandgate(stage) as ours, haproxy(stage) as theirs, no_proxy(stage) as nobody:
        resolve_origin(ours)
        contenders = {"ours": ours, "theirs": theirs, "nobody": nobody}
        for contender in contenders.values():
            _connect(contender, count // 4, 1)
        rounds = alternate(
            stage.effort.samples,
            {name: partial(_connect, contender, count, 1) for name, contender in contenders.items()},
        )
    # One base for all rounds: a base that swings would drown the difference.
    base50 = statistics.median(taken["nobody"].p50 for taken in rounds)
    base99 = statistics.median(taken["nobody"].p99 for taken in rounds)
    yield Measured("latency-p50", [(taken["ours"].p50 - base50, taken["theirs"].p50 - base50) for taken in rounds])
    yield Measured("latency-p99", [(taken["ours"].p99 - base99, taken["theirs"].p99 - base99) for taken in rounds])


def measure_crowd(stage: Stage, wanted: frozenset[str]) -> Iterator[Outcome]:
    """Connections beside idle tunnels, and beside none: in sandboxes of their own, which take turns."""
    count = stage.effort.crowd_connections
    options = ("--limit", f"maximumConnections={2 * max(CROWD_SIZES)}")
    with contextlib.ExitStack() as stack:
        alone = stack.enter_context(sandgate(stage, options=options))
        sizes = [size for size in CROWD_SIZES if wanted & {f"connections-cpu-{size}", f"connections-p50-{size}"}]
        crowds = {size: stack.enter_context(sandgate(stage, options=options)) for size in sizes}
        for contender in (alone, *crowds.values()):
            resolve_origin(contender)
        for size, contender in crowds.items():
            wait_for_ports(2 * size)
            contender.client.connections(ORIGIN, ORIGIN_NAME, reply=REPLY, concurrency=16, count=size, stay=True)
        for contender in (alone, *crowds.values()):
            _connect(contender, count // 4, CONCURRENCY)
        costs, delays = (
            alternate(
                stage.effort.samples,
                {size: partial(_connect, of, samples, at_once) for size, of in {0: alone, **crowds}.items()},
            )
            for at_once, samples in ((CONCURRENCY, count), (1, count // 4))
        )
        for size in sizes:
            yield Measured(f"connections-cpu-{size}", [(taken[size].cpu, taken[0].cpu) for taken in costs])
            yield Measured(f"connections-p50-{size}", [(taken[size].p50, taken[0].p50) for taken in delays])
