"""First works under deny-all: a tool fails, what the run says is typed, and the tool works under the least policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import registries
from .internet import Internet
from .sandgate import Finished, Sandgate, shell
from .suggestions import lines_of, named_arguments, rule
from .tool import tool


@dataclass(frozen=True)
class FirstWork:
    """A tool at its first work.

    `script` begins anew each time, and prints `greeting` when it worked; `names` are what it needs, in the order it asks.
    With `once` in its environment it does not try again.
    """

    script: str
    environment: Mapping[str, str]
    names: tuple[str, ...]
    greeting: str = registries.GREETING
    once: Mapping[str, str] = field(default_factory=dict)

    @property
    def command(self) -> Sequence[str]:
        """The script as a command."""
        return shell(self.script)

    @property
    def impatient(self) -> Mapping[str, str]:
        """The environment in which it does not try again."""
        return {**self.environment, **self.once}


def what_to_type(run: Finished) -> list[str]:
    """The arguments of the command that a run which failed says is to be typed."""
    assert run.returncode not in (0, 125), run
    return ["policy", "suggest", *named_arguments(run.stderr)]


def from_denials_to_the_least_policy(internet: Internet, sandgate: Sandgate, work: FirstWork, policy: Path) -> None:
    """Goes from the first failure to the policy name by name, and asserts that it is the least one."""
    plain = internet.unenforced(work.command, work.impatient)
    assert plain.returncode == 0 and work.greeting in plain.stdout, plain

    internet.forget()
    run = sandgate.run(None, *work.command, environment=work.impatient)
    for number, name in enumerate(work.names, start=1):
        assert work.greeting not in run.stdout and f"sandgate: denied {name} (dns, default)" in run.stderr, run
        assert name not in internet.web.hosts()
        done = tool(*what_to_type(run), "-o", policy)
        assert done.returncode == 0, done
        assert lines_of(policy.read_text()) == [rule(name) for name in work.names[:number]]
        run = sandgate.run(None, *work.command, options=["--policy", str(policy)], environment=work.impatient)
    assert run.returncode == 0 and work.greeting in run.stdout, run
    assert internet.web.hosts() == set(work.names)
    assert not run.audit.where(verdict="deny"), run
    each_line_is_needed(sandgate, work, policy.read_text())


def learned_policy_is_the_least_one(sandgate: Sandgate, work: FirstWork, policy: Path) -> None:
    """Asserts that one run with `--learn` writes the least policy."""
    options = ["--learn", "--suggest", str(policy)]
    learned = sandgate.run(None, *work.command, options=options, environment=work.impatient)
    assert learned.returncode == 0 and work.greeting in learned.stdout, learned
    assert sorted(lines_of(policy.read_text())) == sorted(rule(name) for name in work.names)
    enforced = sandgate.run(policy.read_text(), *work.command, environment=work.impatient)
    assert enforced.returncode == 0 and work.greeting in enforced.stdout, enforced
    assert not enforced.audit.where(verdict="deny"), enforced
    each_line_is_needed(sandgate, work, policy.read_text())


def each_line_is_needed(sandgate: Sandgate, work: FirstWork, policy: str) -> None:
    """Asserts that the work fails at a denial without any one line."""
    for line in lines_of(policy):
        lacking = sandgate.run(policy.replace(line + "\n", ""), *work.command, environment=work.impatient)
        assert lacking.returncode not in (0, 125), f"works without {line}: {lacking}"
        assert work.greeting not in lacking.stdout and lacking.audit.denied("dns"), lacking
