"""Bulk downloads: a hello, then opaque bytes, discarded as they come. One transfer gives both throughput and CPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from bench.processes import cpu_seconds
from bench.proxies import Contender, haproxy, no_proxy
from bench.result import Measured, Outcome, alternate
from bench.sandgate import resolve_origin, sandgate
from bench.stage import ORIGIN, ORIGIN_NAME, Stage

NAMES = ("bulk-throughput-1", "bulk-cpu-1", "bulk-direct-1", "bulk-throughput-8", "bulk-cpu-8")


@dataclass(frozen=True)
class Transfer:
    """One sample."""

    throughput: float
    """MiB/s."""
    cpu: float
    """Seconds of the proxy for a GiB; 0 without a proxy."""


def _transfer(contender: Contender, streams: int, size: int) -> Transfer:
    before = cpu_seconds(contender.pid) if contender.pid else 0.0
    result = contender.client.connections(
        ORIGIN, ORIGIN_NAME, reply=size // streams, concurrency=streams, count=streams
    )
    used = cpu_seconds(contender.pid) - before if contender.pid else 0.0
    return Transfer(result["bytes"] / result["seconds"] / (1 << 20), used / (result["bytes"] / (1 << 30)))


def measure(stage: Stage, wanted: frozenset[str]) -> Iterator[Outcome]:
    """All rows of bulk transfer."""
    size = stage.effort.bulk_bytes
    with sandgate(stage) as ours, haproxy(stage, "splice-response") as theirs, no_proxy(stage) as nobody:
        resolve_origin(ours)
        for streams in (1, 8):
            contenders = {"sandgate": ours, "haproxy": theirs} | ({"nobody": nobody} if streams == 1 else {})
            if not wanted & {f"bulk-throughput-{streams}", f"bulk-cpu-{streams}", f"bulk-direct-{streams}"}:
                continue
            for contender in contenders.values():
                _transfer(contender, streams, size // 8)
            rounds = alternate(
                stage.effort.samples,
                {name: partial(_transfer, contender, streams, size) for name, contender in contenders.items()},
            )
            ours_and = {peer: [(taken["sandgate"], taken[peer]) for taken in rounds] for peer in contenders}
            pairs = ours_and["haproxy"]
            yield Measured(f"bulk-throughput-{streams}", [(our.throughput, their.throughput) for our, their in pairs])
            yield Measured(f"bulk-cpu-{streams}", [(our.cpu, their.cpu) for our, their in pairs])
            if streams == 1:
                direct = [(our.throughput, their.throughput) for our, their in ours_and["nobody"]]
                yield Measured("bulk-direct-1", direct)
