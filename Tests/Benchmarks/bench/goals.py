"""The table: what is compared with what, and how it should come out."""

from __future__ import annotations

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
)
"""In the order of the table."""

NAMES = tuple(goal.name for goal in GOALS)
