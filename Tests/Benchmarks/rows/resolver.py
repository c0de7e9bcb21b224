"""DNS: what a query costs at a steady rate, and how many answers a second come from upstream."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

from bench.processes import cpu_seconds
from bench.proxies import Contender
from bench.resolvers import DNSDIST_PORT, DNSMASQ_PORT, UNBOUND_PORT, dnsdist, dnsmasq, unbound
from bench.result import Outcome, against_better, alternate
from bench.sandgate import sandgate
from bench.stage import QUERY_NAMES, RULES, Stage

CACHED = ("dns-cached-cpu",)
DENIED = ("dns-denied-cpu",)
UNCACHED = ("dns-uncached-rate",)

RATE = 20_000
DISTINCT = 100
"""Names that are asked for in turn."""

AAAA = 28
WINDOW = 64
"""Queries under way at once while nothing is cached."""

ONE_PORT = 53
"""Where Sandgate's resolver is met: a sandbox asks any server."""


def measure_cached(stage: Stage) -> Iterator[Outcome]:
    """CPU of a query at 20,000 q/s for names that are answered from the cache."""
    yield _paced(stage, "dns-cached-cpu", QUERY_NAMES)


def measure_denied(stage: Stage) -> Iterator[Outcome]:
    """CPU of a query at 20,000 q/s for names that are denied."""
    yield _paced(stage, "dns-denied-cpu", "q%d.denied.test")


def _paced(stage: Stage, name: str, pattern: str) -> Outcome:
    allowed = [QUERY_NAMES % number for number in range(DISTINCT)]
    with sandgate(stage, (*RULES, *allowed)) as ours, dnsdist(stage) as one, unbound(stage) as other:
        ways = {"sandgate": (ours, ONE_PORT), "dnsdist": (one, DNSDIST_PORT), "unbound": (other, UNBOUND_PORT)}
        samples = {who: partial(_query_cpu, *way, pattern, stage.effort.queries) for who, way in ways.items()}
        for contender, port in ways.values():
            contender.client.ask("queries", "127.0.0.1", port, AAAA, pattern, 0, DISTINCT, 10 * DISTINCT, 0, 8)
        return against_better(name, alternate(stage.effort.samples, samples), ("dnsdist", "unbound"), lower=True)


def _query_cpu(contender: Contender, port: int, pattern: str, count: int) -> float:
    """Microseconds of the resolver for a query."""
    before = cpu_seconds(contender.pid)
    result = contender.client.ask("queries", "127.0.0.1", port, AAAA, pattern, 0, DISTINCT, count, RATE, 0)
    used = cpu_seconds(contender.pid) - before
    right = result["nameErrors"] if "denied" in pattern else result["records"]
    # Datagrams are lost while the machine is busy with something else; what was answered still has its cost.
    if right < 0.5 * count:
        raise RuntimeError(f"of {count} queries at port {port} only {right:.0f} were answered rightly: {result}")
    return used / right * 1e6


def measure_uncached(stage: Stage) -> Iterator[Outcome]:
    """Answers a second, every name a new one, each allowed by its exact name; Sandgate's are pinned before they go."""
    count = stage.effort.uncached_queries
    total = count * (stage.effort.samples + 1)
    allowed = [QUERY_NAMES % number for number in range(total)]
    with sandgate(stage, allowed) as ours, dnsmasq(stage) as one, unbound(stage) as other:
        ways = {"sandgate": (ours, ONE_PORT), "dnsmasq": (one, DNSMASQ_PORT), "unbound": (other, UNBOUND_PORT)}
        samples = {
            who: partial(_answer_rate, *way, itertools.count(0, count), count) for who, way in ways.items()
        }
        for sample in samples.values():
            sample()
        rounds = alternate(stage.effort.samples, samples)
        yield against_better("dns-uncached-rate", rounds, ("dnsmasq", "unbound"), lower=False)


def _answer_rate(contender: Contender, port: int, first: Iterator[int], count: int) -> float:
    result = contender.client.ask("queries", "127.0.0.1", port, AAAA, QUERY_NAMES, next(first), count, count, 0, WINDOW)
    if result["records"] < count:
        raise RuntimeError(f"of {count} new names at port {port} only {result['records']:.0f} were answered: {result}")
    return count / result["seconds"]
