"""Writes down where each path's time goes, ours and a peer's, as text: Tests/Benchmarks/profiles/NAME.txt.

    PYTHONPATH=Tests/EndToEnd /usr/bin/python3 Tests/Benchmarks/profiles.py --programs .build/benchmark [NAME…]

with SANDGATE and SANDGATE_BENCHMARK as deploy/benchmark sets them, after it has built the programs. Needs perf.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.proxies import Contender, haproxy
from bench.resolvers import DNSDIST_PORT, DNSMASQ_PORT, dnsdist, dnsmasq
from bench.sandgate import EXPLICIT_PROXY, resolve_origin, sandgate
from bench.stage import ORIGIN, ORIGIN_NAME, QUERY_NAMES, Effort, Programs, Stage, stage

DIRECTORY = Path(__file__).with_name("profiles")
LINES = 30
ENTRIES = 12
Work = Callable[[Contender], object]
Made = contextlib.AbstractContextManager[Contender]
AAAA, DISTINCT = 28, 100


def _connections(reply: int, concurrency: int, count: int, via: tuple[str, int] | None = None) -> Work:
    return lambda way: way.client.connections(
        ORIGIN, ORIGIN_NAME, reply=reply, concurrency=concurrency, count=count, via=via
    )


def _queries(port: int, distinct: int, count: int, rate: int) -> Work:
    words = ("queries", "127.0.0.1", port, AAAA, QUERY_NAMES, 0, distinct, count, rate, 64)
    return lambda way: way.client.ask(*words)


@contextlib.contextmanager
def _ours(of: Stage) -> Iterator[Contender]:
    """Sandgate, which knows the origin and the names that are asked for."""
    with sandgate(of, (ORIGIN_NAME, *(QUERY_NAMES % number for number in range(20_000)))) as way:
        resolve_origin(way)
        yield way


def paths(of: Stage) -> dict[str, tuple[Made, Work]]:
    """What is profiled."""
    bulk1, bulk8 = _connections(4 << 30, 1, 1), _connections(512 << 20, 8, 8)
    short = _connections(1024, 32, 12_000)
    return {
        "bulk-1-sandgate": (_ours(of), bulk1),
        "bulk-1-haproxy": (haproxy(of, "splice-response"), bulk1),
        "bulk-8-sandgate": (_ours(of), bulk8),
        "bulk-8-haproxy": (haproxy(of, "splice-response"), bulk8),
        "short-sandgate": (_ours(of), short),
        "short-haproxy": (haproxy(of), short),
        "connect-sandgate": (_ours(of), _connections(1024, 32, 8_000, EXPLICIT_PROXY)),
        "dns-cached-sandgate": (_ours(of), _queries(53, DISTINCT, 60_000, 20_000)),
        "dns-cached-dnsdist": (dnsdist(of), _queries(DNSDIST_PORT, DISTINCT, 60_000, 20_000)),
        "dns-uncached-sandgate": (_ours(of), _queries(53, 16_000, 16_000, 0)),
        "dns-uncached-dnsmasq": (dnsmasq(of), _queries(DNSMASQ_PORT, 8_000, 8_000, 0)),
    }


def _record(pid: int, work: Callable[[], object], file: Path) -> None:
    """Samples a process 4,000 times a second of its CPU time while `work` is done."""
    commands, command = os.pipe()
    acknowledgement, acknowledgements = os.pipe()
    options = ("-q", "-e", "cpu-clock", "-F", "4000", "-g", "-p", str(pid), "-o", str(file))
    control = ("--delay=-1", f"--control=fd:{commands},{acknowledgements}")
    recorder = subprocess.Popen(
        ["perf", "record", *options, *control], stdout=subprocess.DEVNULL, pass_fds=(commands, acknowledgements)
    )
    try:
        os.close(commands)
        os.close(acknowledgements)
        os.write(command, b"enable\n")
        # What is done before perf has begun would be missing.
        if not os.read(acknowledgement, 16):
            raise RuntimeError("perf ended")
        work()
    finally:
        recorder.send_signal(signal.SIGINT)
        recorder.wait(60)
        os.close(command)
        os.close(acknowledgement)


def _samples(file: Path) -> list[list[str]]:
    """The stacks, innermost first: symbols, and in brackets where those of the kernel are from."""
    listed = subprocess.run(
        ["perf", "script", "-F", "ip,sym,dso", "-i", str(file)], check=True, capture_output=True, text=True
    ).stdout
    readable = subprocess.run(
        ["swift", "demangle", "--compact", "--simplified"], input=listed, check=True, capture_output=True, text=True
    ).stdout
    stacks = (block.splitlines() for block in readable.split("\n\n"))
    return [[line.strip().partition(" ")[2] for line in stack if line.strip()] for stack in stacks if stack]


def summary(stacks: list[list[str]]) -> str:
    """Shares of the samples: the kernel's, by what was called, and by where they were taken."""
    leaves: collections.Counter[str] = collections.Counter()
    entries: collections.Counter[str] = collections.Counter()
    kernel = 0

    def name(frame: str) -> str:
        symbol, _, image = frame.rpartition(" (")
        where = "kernel" if "kernel" in image else Path(image.rstrip(")")).name
        return f"{symbol[:90]} [{where}]"

    for stack in stacks:
        leaves[name(stack[0])] += 1
        kernel += "kernel" in stack[0]
        calls = [frame for frame in stack if frame.startswith("__x64_sys_")]
        if calls:
            entries[calls[-1].partition(" ")[0].removeprefix("__x64_sys_")] += 1
    total = len(stacks)

    def table(counts: collections.Counter[str], limit: int) -> str:
        return "".join(f"{100 * count / total:6.2f} %  {what}\n" for what, count in counts.most_common(limit))

    return (
        f"{total} samples, {100 * kernel / total:.1f} % in the kernel\n"
        f"\nby system call, with everything below it\n{table(entries, ENTRIES)}"
        f"\nby function, without what it calls\n{table(leaves, LINES)}"
    )


def main() -> int:
    """Writes the files, and says which."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=Path, required=True)
    parser.add_argument("names", metavar="NAME", nargs="*")
    arguments = parser.parse_args()
    programs = Programs.built(arguments.programs)
    DIRECTORY.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sandgate-profiles-") as scratch:
        os.chmod(scratch, 0o755)
        with stage(Path(scratch), programs, Effort()) as made:
            known = paths(made)
            for name in arguments.names or known:
                way, work = known[name]
                file = Path(scratch) / name
                with way as contender:
                    _record(contender.pid, lambda: work(contender), file)
                about = f"{name}: perf record -e cpu-clock -F 4000 -g, Linux {platform.release()}\n"
                (DIRECTORY / f"{name}.txt").write_text(about + summary(_samples(file)))
                print(DIRECTORY / f"{name}.txt", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
