"""On what, and against which versions, something was measured."""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
from pathlib import Path

from .processes import milliseconds
from .stage import Programs

PEERS = {
    "haproxy": ["haproxy", "-v"],
    "squid": ["squid", "-v"],
    "tinyproxy": ["tinyproxy", "-v"],
    "dnsdist": ["dnsdist", "--version"],
    "unbound": ["unbound", "-V"],
    "dnsmasq": ["dnsmasq", "--version"],
    "nft": ["nft", "--version"],
    "go": ["go", "version"],
}


def machine() -> dict[str, object]:
    """The processor, the kernel, the peers' versions."""
    model = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "processor": model.group(1) if model else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "load": round(os.getloadavg()[0], 2),
        "peers": {name: _version(command) for name, command in PEERS.items()},
    }


def _version(command: list[str]) -> str:
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "missing"
    found = re.search(r"\d+(\.\d+)+", said.stdout + said.stderr)
    return found.group() if found else "unknown"


def binary_facts(programs: Programs) -> dict[str, float]:
    """The size of the binary without its symbols in MiB, and how long it takes to say its version in ms."""
    stripped = programs.in_process.with_name("sandgate.stripped")
    subprocess.run(["strip", "-o", str(stripped), str(programs.sandgate)], check=True)
    try:
        size = stripped.stat().st_size / (1 << 20)
    finally:
        stripped.unlink()
    start = statistics.median(milliseconds([str(programs.sandgate), "--version"]) for _ in range(11))
    return {"size": round(size, 1), "start": round(start, 1)}
