"""`sandgate run`, as a user would type it, and what it left behind: output, status, audit."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from . import plan
from .internet import Internet
from .processes import is_alive, wait_until
from .user import User

REPOSITORY = Path(__file__).resolve().parents[3]

Policy = Mapping[str, Any] | str
"""A networkPolicy document, or the text of a policy file."""


def find_binary() -> Path | None:
    """The binary under test: $SANDGATE, or the newest build in the repository."""
    if "SANDGATE" in os.environ:
        named = Path(os.environ["SANDGATE"])
        return named if named.is_file() else None
    builds = [REPOSITORY / ".build" / kind / "sandgate" for kind in ("release", "debug")]
    built = sorted((path for path in builds if path.is_file()), key=lambda path: path.stat().st_mtime)
    return built[-1] if built else None


def attack(name: str, *arguments: str | int) -> list[str]:
    """The command that runs one of the programs in attacks/."""
    program = Path(__file__).resolve().parents[1] / "attacks" / f"{name}.py"
    return ["/usr/bin/python3", str(program), *map(str, arguments)]


def shell(script: str) -> list[str]:
    """The command that runs `script` in a POSIX shell."""
    return ["/bin/sh", "-c", script]


def after_resolving(*names: str, then: Sequence[str]) -> list[str]:
    """The command that first looks `names` up, so that their addresses are pinned, and then runs `then`."""
    lookups = " ".join(f"getent ahosts {name} >/dev/null;" for name in names)
    return shell(f"{lookups} exec {shlex.join(then)}")


def allowing(*targets: str | Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """A policy that denies all but `targets`; one that is no string holds more of the rule's fields."""
    rules = [{"target": target} if isinstance(target, str) else dict(target) for target in targets]
    return {"defaultAction": "deny", "egress": [{"action": "allow"} | rule for rule in rules]} | options


@dataclass
class Records:
    """The audit records of one run."""

    all: list[dict[str, Any]] = field(default_factory=list)

    @staticmethod
    def read(path: Path) -> Records:
        if not path.exists():
            return Records()
        return Records([json.loads(line) for line in path.read_text().splitlines()])

    def where(self, **fields: Any) -> list[dict[str, Any]]:
        """The records whose fields are as given."""
        return [record for record in self.all if all(record.get(key) == value for key, value in fields.items())]

    def denied(self, layer: str, **fields: Any) -> list[dict[str, Any]]:
        """The denials at a layer."""
        return self.where(verdict="deny", layer=layer, **fields)

    def allowed(self, layer: str, **fields: Any) -> list[dict[str, Any]]:
        """What was let through at a layer."""
        return self.where(verdict="allow", layer=layer, **fields)

    def __str__(self) -> str:
        keys = ("event", "layer", "verdict", "reason", "host", "ip", "port")
        return "\n".join(" ".join(f"{key}={record[key]}" for key in keys if key in record) for record in self.all)


@dataclass
class Finished:
    """What a run left."""

    returncode: int
    stdout: str
    stderr: str
    audit: Records

    def __str__(self) -> str:
        return f"exit {self.returncode}\n-- stdout\n{self.stdout}\n-- stderr\n{self.stderr}\n-- audit\n{self.audit}"


class Running:
    """A run that has not ended."""

    def __init__(self, process: subprocess.Popen[str], audit: Path) -> None:
        self.process = process
        self._audit = audit

    @property
    def pid(self) -> int:
        """The process id of `sandgate run` itself."""
        return self.process.pid

    def wait_for(self, text: str, timeout: float = 15) -> str:
        """Reads the command's output up to the line that contains `text`."""
        assert self.process.stdout is not None
        read = ""
        for line in self.process.stdout:
            read += line
            if text in line:
                return read
        raise AssertionError(f"ended without saying {text!r}: {read} {self.finish(timeout)}")

    def finish(self, timeout: float = 30) -> Finished:
        """Waits for its end."""
        stdout, stderr = self.process.communicate(timeout=timeout)
        return Finished(self.process.returncode, stdout, stderr, Records.read(self._audit))

    def stop(self) -> None:
        """For clean-up: ends it if it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


class Sandgate:
    """The program under test with the lab's Internet as its upstream."""

    def __init__(self, internet: Internet, directory: Path, user: User | None = None) -> None:
        self._internet, self.directory, self.user = internet, directory, user
        self._numbers = itertools.count()
        self._running: list[Running] = []

    @property
    def binary(self) -> Path:
        """The binary. Asked for only when it is run: tests of refusals first show that the attack works without it."""
        if os.environ.get("SANDGATE") == "none":
            pytest.skip("SANDGATE=none: the part without the program under test has passed")
        found = find_binary() or pytest.fail(f"no binary below {REPOSITORY}/.build: swift build -c release")
        return self.user.binary(found) if self.user else found

    def policy_file(self, policy: Policy) -> Path:
        """Writes `policy` to a file of its own."""
        text, suffix = (policy, "yaml") if isinstance(policy, str) else (json.dumps(policy, indent=2), "json")
        path = self.directory / f"policy-{next(self._numbers)}.{suffix}"
        path.write_text(text)
        return path

    def command(
        self,
        policy: Policy | None,
        command: Sequence[str],
        *,
        options: Sequence[str] = (),
        upstream_dns: str = plan.DNS4,
    ) -> tuple[list[str], Path]:
        """The command line, and the audit file it names."""
        audit = self.directory / f"audit-{next(self._numbers)}.jsonl"
        line = self.user.command(str(self.binary)) if self.user else [str(self.binary)]
        line.append("run")
        if policy is not None:
            line += ["--policy", str(self.policy_file(policy))]
        line += ["--upstream-dns", upstream_dns, "--audit", str(audit), *options, "--", *command]
        return line, audit

    def start(
        self,
        policy: Policy | None,
        command: Sequence[str],
        *,
        options: Sequence[str] = (),
        upstream_dns: str = plan.DNS4,
        environment: Mapping[str, str] | None = None,
        own_session: bool = False,
    ) -> Running:
        """Starts a run with pipes to all of its streams."""
        line, audit = self.command(policy, command, options=options, upstream_dns=upstream_dns)
        users = self.user.environment() if self.user else {}
        process = subprocess.Popen(
            line,
            env=self._internet.environment({**users, **(environment or {})}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=own_session,
        )
        running = Running(process, audit)
        self._running.append(running)
        return running

    def run(
        self,
        policy: Policy | None,
        *command: str,
        options: Sequence[str] = (),
        upstream_dns: str = plan.DNS4,
        environment: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> Finished:
        """Runs `command` under `policy` to its end."""
        running = self.start(policy, command, options=options, upstream_dns=upstream_dns, environment=environment)
        try:
            return running.finish(timeout)
        finally:
            running.stop()

    def tool(self, *arguments: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """Runs the binary with these arguments and nothing of the lab's."""
        command, environment = [str(self.binary), *arguments], None
        if self.user:
            command, environment = self.user.command(*command), {**os.environ, **self.user.environment()}
        return subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, env=environment
        )

    def stop_all(self) -> None:
        """For clean-up."""
        for running in self._running:
            running.stop()
        self._running.clear()


def wait_gone(pid: int, timeout: float = 10) -> None:
    """Waits until a process that need not be a child has ended."""
    wait_until(lambda: not is_alive(pid), f"process {pid} to end", timeout)
