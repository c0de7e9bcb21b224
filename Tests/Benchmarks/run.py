"""Runs the benchmarks and prints the table. Called by deploy/benchmark, which builds what is needed."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bench import plot, report
from bench.goals import GOALS, NAMES
from bench.machine import binary_facts, machine
from bench.result import NotMeasured, Outcome
from bench.stage import Effort, Programs, Stage, stage
from rows import connections, in_process, memory, node, resolver, sidecar, start_up, transfer


@dataclass(frozen=True)
class Experiment:
    """What fills some rows at once."""

    names: tuple[str, ...]
    run: Callable[[Stage, frozenset[str]], Iterable[Outcome]]


EXPERIMENTS = (
    Experiment(transfer.NAMES, transfer.measure),
    Experiment(connections.SHORT, lambda stage, _: connections.measure_short(stage)),
    Experiment(connections.CONNECT, lambda stage, _: connections.measure_connect(stage)),
    Experiment(connections.LATENCY, lambda stage, _: connections.measure_latency(stage)),
    Experiment(connections.CROWD, connections.measure_crowd),
    Experiment(memory.TUNNELS, lambda stage, _: memory.measure_tunnels(stage)),
    Experiment(resolver.CACHED, lambda stage, _: resolver.measure_cached(stage)),
    Experiment(resolver.DENIED, lambda stage, _: resolver.measure_denied(stage)),
    Experiment(resolver.UNCACHED, lambda stage, _: resolver.measure_uncached(stage)),
    Experiment(in_process.NAMES, in_process.measure),
    Experiment(memory.RESIDENT, lambda stage, _: memory.measure_resident(stage)),
    Experiment(start_up.NAMES, start_up.measure),
    Experiment(sidecar.NAMES, lambda stage, _: sidecar.measure(stage)),
    Experiment(node.NAMES, node.measure),
)


def measure(stage: Stage, wanted: frozenset[str]) -> dict[str, Outcome]:
    """Runs what fills `wanted`, and prints each row as it comes. What fails leaves its rows empty and says why."""
    goals = {goal.name: goal for goal in GOALS}
    outcomes: dict[str, Outcome] = {}

    def note(outcome: Outcome) -> None:
        outcomes[outcome.name] = outcome
        print(report.line(goals[outcome.name], outcome), flush=True)

    print(report.HEAD, flush=True)
    for experiment in EXPERIMENTS:
        missing = [name for name in experiment.names if name in wanted]
        if not missing:
            continue
        try:
            for outcome in experiment.run(stage, wanted):
                if outcome.name in missing:
                    missing.remove(outcome.name)
                    note(outcome)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            reason = " ".join(str(error).split())
            for name in missing:
                note(NotMeasured(name, reason))
    return outcomes


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="deploy/benchmark", description="Measures Sandgate beside its peers.")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the result to this file too")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="draw the result in this file too, as SVG")
    parser.add_argument("--only", metavar="NAME", action="append", choices=NAMES, help="this row only; may be repeated")
    parser.add_argument("--quick", action="store_true", help="see that everything works; the numbers mean nothing")
    parser.add_argument("--list", action="store_true", help="list the rows")
    parser.add_argument("--programs", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """0 if every row that was wanted could be measured; whether goals are met is for the reader."""
    arguments = parse()
    # Whoever ends us leaves nothing behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if arguments.list:
        for goal in GOALS:
            print(f"{goal.name:<20}  {goal.what}, against {goal.against}")
        return 0
    programs = Programs.built(arguments.programs)
    wanted = frozenset(arguments.only or NAMES)
    about = machine()
    print(report.heading(about))
    effort = Effort.quick() if arguments.quick else Effort()
    with tempfile.TemporaryDirectory(prefix="sandgate-benchmark-") as scratch:
        # Squid gives up its privileges before it reads its list of names.
        os.chmod(scratch, 0o755)
        with stage(Path(scratch), programs, effort) as made:
            outcomes = measure(made, wanted)
    binary = binary_facts(programs)
    print(f"\nbinary {binary['size']} MiB without symbols; sandgate --version takes {binary['start']} ms")
    if arguments.json is not None:
        report.write(arguments.json, about, outcomes, binary, quick=arguments.quick)
    if arguments.plot is not None:
        plot.write(arguments.plot, report.heading(about), outcomes)
    return 1 if any(isinstance(outcome, NotMeasured) for outcome in outcomes.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
