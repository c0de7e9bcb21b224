"""The table: what is compared with what, and how it should come out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Goal:
    """One row: the ratio of ours to theirs, and the bound it should keep."""

    name: str
    what: str
    against: str
    bound: float
    better: Literal["higher", "lower"]
    unit: str

    def is_met(self, ratio: float) -> bool:
        """Whether a ratio keeps the bound."""
        return ratio >= self.bound if self.better == "higher" else ratio <= self.bound


NODE_SIZES = (1, 100, 1_000, 2_000, 5_000)
"""How many sandboxes the node daemon has."""

CROWD_SIZES = (10, 1_000, 9_000)
"""How many idle tunnels a sandbox has beside the connections that are measured: with two descriptors each, no more fit into
the 20,000 that a process often may open."""


def _crowd_goals() -> Iterator[Goal]:
    """What a connection costs beside idle ones."""
    for size in CROWD_SIZES:
        beside = f"short connections beside {size:,} idle tunnels"
        yield Goal(f"connections-cpu-{size}", f"{beside}: proxy CPU", "none idle", 1.2, "lower", "µs")
        yield Goal(f"connections-p50-{size}", f"{beside}: first byte, p50", "none idle", 1.2, "lower", "µs")


def _node_goals() -> Iterator[Goal]:
    """The rows of `sandgate serve`, at every size; what compares with few or with one begins with many."""
    by_hand = "ip, nft by hand"
    for size in NODE_SIZES:
        at = f"{size:,} sandboxes"
        yield Goal(f"node-attach-p50-{size}", f"node, {at}: one more attached, p50", by_hand, 1, "lower", "ms")
        yield Goal(f"node-attach-p99-{size}", f"node, {at}: one more attached, p99", by_hand, 1, "lower", "ms")
        if size > 1:
            yield Goal(f"node-memory-{size}", f"node, {at}: resident, each", "64 KiB", 1, "lower", "KiB")
        yield Goal(f"node-idle-{size}", f"node, {at}: CPU while nothing is done", "1 ms/s", 1, "lower", "ms/s")
        if size > 1:
            yield Goal(f"node-dns-{size}", f"node, {at}: a cached answer in one, p50", "alone", 1.2, "lower", "µs")
            yield Goal(f"node-connect-{size}", f"node, {at}: a connection in one, p50", "alone", 1.2, "lower", "µs")
        yield Goal(f"node-change-{size}", f"node, {at}: policy change to effect, p99", "10 ms", 1, "lower", "ms")
        yield Goal(f"node-restart-{size}", f"node, {at}: killed to all taken up", "attached anew", 0.5, "lower", "s")


GOALS = (
    Goal("bulk-throughput-1", "bulk download, 1 stream: throughput", "haproxy", 1.1, "higher", "MiB/s"),
    Goal("bulk-throughput-8", "bulk download, 8 streams: throughput", "haproxy", 1.1, "higher", "MiB/s"),
    Goal("bulk-cpu-1", "bulk download, 1 stream: proxy CPU", "haproxy", 0.8, "lower", "s/GiB"),
    Goal("bulk-cpu-8", "bulk download, 8 streams: proxy CPU", "haproxy", 0.8, "lower", "s/GiB"),
    Goal("bulk-direct-1", "bulk download, 1 stream: throughput", "no proxy", 0.85, "higher", "MiB/s"),
    Goal("short-rate", "short connections, 1,000 rules", "haproxy", 1.3, "higher", "1/s"),
    Goal("short-cpu", "short connections: proxy CPU", "haproxy", 0.8, "lower", "µs"),
    Goal("connect-rate", "short connections by CONNECT", "better of squid, tinyproxy", 3, "higher", "1/s"),
    Goal("latency-p50", "latency added to a connection, p50", "haproxy", 1, "lower", "µs"),
    Goal("latency-p99", "latency added to a connection, p99", "haproxy", 1, "lower", "µs"),
    *_crowd_goals(),
    Goal("tunnel-memory", "memory of an idle tunnel", "haproxy", 0.15, "lower", "bytes"),
    Goal("dns-cached-cpu", "DNS, cached, 20,000 q/s: CPU", "better of dnsdist, unbound", 0.9, "lower", "µs"),
    Goal("dns-denied-cpu", "DNS, denied, 20,000 q/s: CPU", "better of dnsdist, unbound", 0.9, "lower", "µs"),
    Goal("dns-uncached-rate", "DNS, uncached: answers", "better of dnsmasq, unbound", 1, "higher", "1/s"),
    Goal("pin-latency", "pinning before the answer, p50", "nft -f - an answer", 1 / 200, "lower", "µs"),
    Goal("policy-decision", "a decision among 100,000 rules", "among 10 rules", 1.5, "lower", "ns"),
    Goal("ruleset-apply", "4,096 CIDR rules compiled and applied", "nft -f of the same", 0.5, "lower", "ms"),
    Goal("policy-compile", "100,000 name rules compiled", "150 ms", 1, "lower", "ms"),
    Goal("resident-memory", "resident, one idle sandbox", "a Go program that sleeps", 2, "lower", "KiB"),
    Goal("start-up", "sandgate run -- true", "ip netns add, exec true, del", 1.5, "lower", "ms"),
    Goal("start-up-3000", "the same, 3,000 directories", "ip netns add, exec true, del", 1.5, "lower", "ms"),
    Goal("sidecar-ready", "a sidecar's container, from asked for to ready", "one that sleeps", 1.5, "lower", "ms"),
    Goal("sidecar-memory", "memory of a sidecar's container", "one that sleeps", 16, "lower", "MiB"),
    *_node_goals(),
)
"""In the order of the table."""

NAMES = tuple(goal.name for goal in GOALS)
NODE_ROWS = tuple(name for name in NAMES if name.startswith("node-"))
