"""What a new user does first: a tool fails under deny-all, what the run says is typed, and the tool works.

Told to the tools is where the lab's registry and authority are, and mostly not to try again: npm waits more than a minute,
cargo eleven seconds. FromDenialToPolicy.md tells of the same ways.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab import content, plan, registries
from lab.internet import Internet
from lab.sandgate import Finished, Sandgate, shell
from lab.suggestions import lines_of, named_arguments, rule
from lab.tool import tool


@dataclass(frozen=True)
class Tool:
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
    def impatient(self) -> Mapping[str, str]:
        """The environment in which it does not try again."""
        return {**self.environment, **self.once}


def git(internet: Internet, directory: Path) -> Tool:
    """A clone."""
    clone = directory / "clone"
    return Tool(
        f"rm -rf {clone}; git clone -q https://{plan.GIT}/project.git {clone} && cat {clone}/{content.GIT_FILE}",
        {},
        (plan.GIT,),
        content.GIT_TEXT,
    )


def npm(internet: Internet, directory: Path) -> Tool:
    """An install of one package."""
    for program in ("npm", "node"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not on this machine")
    registries.make_npm(internet.content.directory / "npm")
    project = directory / "project"
    return Tool(
        f"rm -rf {project} {directory}/cache; mkdir {project}; cd {project}; echo '{{}}' >package.json; "
        f"npm install {registries.NAME} && node -p 'require(\"{registries.NAME}\")'",
        {
            "npm_config_registry": f"https://{plan.REGISTRY}/npm/",
            "npm_config_cafile": str(internet.certificates.authority),
            "npm_config_cache": str(directory / "cache"),
            "npm_config_update_notifier": "false",
        },
        (plan.REGISTRY,),
        once={"npm_config_fetch_retries": "0"},
    )


def cargo(internet: Internet, directory: Path) -> Tool:
    """A build with one dependency; the index is at one name and the packages at another, as Rust's own registry has it."""
    if not registries.has_sparse_cargo():
        pytest.skip("no cargo 1.68 or newer on this machine")
    registries.make_cargo(internet.content.directory / "crates", plan.FILES)
    project, home = directory / "project", directory / "cargo"
    (project / "src").mkdir(parents=True)
    (project / "src" / "lib.rs").write_text("pub use sandgate_lab::GREETING;\n")
    (project / "Cargo.toml").write_text(
        '[package]\nname = "project"\nversion = "0.1.0"\nedition = "2021"\n'
        f'[dependencies]\n{registries.NAME} = {{ version = "1", registry = "lab" }}\n'
    )
    return Tool(
        f"cd {project}; rm -rf target Cargo.lock {home}; cargo build && cat {home}/registry/src/*/*/src/lib.rs",
        {
            "CARGO_HOME": str(home),
            "RUSTUP_HOME": os.environ.get("RUSTUP_HOME", str(Path.home() / ".rustup")),
            "CARGO_REGISTRIES_LAB_INDEX": f"sparse+https://{plan.REGISTRY}/crates/",
            "CARGO_HTTP_CAINFO": str(internet.certificates.authority),
        },
        (plan.REGISTRY, plan.FILES),
        once={"CARGO_NET_RETRY": "0"},
    )


def what_to_type(run: Finished) -> list[str]:
    """The arguments of the command that a run which failed says is to be typed."""
    assert run.returncode not in (0, 125), run
    return ["policy", "suggest", *named_arguments(run.stderr)]


TOOLS = pytest.mark.parametrize("make", [git, npm, cargo])


@TOOLS
def test_from_denials_to_the_least_policy(
    internet: Internet, sandgate: Sandgate, tmp_path: Path, make: Callable[[Internet, Path], Tool]
) -> None:
    """A tool stops at the first name that it does not get: as many failures as names, each with one command after it."""
    work = make(internet, tmp_path)
    command, policy = shell(work.script), tmp_path / "policy.yaml"
    plain = internet.unenforced(command, work.impatient)
    assert plain.returncode == 0 and work.greeting in plain.stdout, plain

    internet.forget()
    run = sandgate.run(None, *command, environment=work.impatient)
    for number, name in enumerate(work.names, start=1):
        assert work.greeting not in run.stdout and f"sandgate: denied {name} (dns, default)" in run.stderr, run
        assert name not in internet.web.hosts()
        done = tool(*what_to_type(run), "-o", policy)
        assert done.returncode == 0, done
        assert lines_of(policy.read_text()) == [rule(name) for name in work.names[:number]]
        run = sandgate.run(None, *command, options=["--policy", str(policy)], environment=work.impatient)
    assert run.returncode == 0 and work.greeting in run.stdout, run
    assert internet.web.hosts() == set(work.names)
    assert not run.audit.where(verdict="deny"), run
    each_line_is_needed(sandgate, work, policy.read_text())


@TOOLS
def test_learned_policy_is_the_least_one_at_once(
    internet: Internet, sandgate: Sandgate, tmp_path: Path, make: Callable[[Internet, Path], Tool]
) -> None:
    work = make(internet, tmp_path)
    command, policy = shell(work.script), tmp_path / "policy.yaml"
    options = ["--learn", "--suggest", str(policy)]
    learned = sandgate.run(None, *command, options=options, environment=work.impatient)
    assert learned.returncode == 0 and work.greeting in learned.stdout, learned
    assert sorted(lines_of(policy.read_text())) == sorted(rule(name) for name in work.names)
    enforced = sandgate.run(policy.read_text(), *command, environment=work.impatient)
    assert enforced.returncode == 0 and work.greeting in enforced.stdout, enforced
    assert not enforced.audit.where(verdict="deny"), enforced
    each_line_is_needed(sandgate, work, policy.read_text())


@pytest.mark.parametrize("make", [npm, cargo])
def test_who_interrupts_at_the_first_denial_is_told_as_much(
    internet: Internet, sandgate: Sandgate, tmp_path: Path, make: Callable[[Internet, Path], Tool]
) -> None:
    """Tools that try again need not be waited for."""
    work = make(internet, tmp_path)
    running = sandgate.start(None, shell(work.script), environment=work.environment, own_session=True)
    assert running.process.stderr is not None
    denied = f"sandgate: denied {work.names[0]} (dns, default)\n"
    assert any(line == denied for line in running.process.stderr)
    os.killpg(running.pid, signal.SIGINT)  # As a terminal does.
    run = running.finish()
    assert run.returncode == 130, run
    policy = tmp_path / "policy.yaml"
    assert tool(*what_to_type(run), "-o", policy).returncode == 0
    assert lines_of(policy.read_text()) == [rule(work.names[0])]


def each_line_is_needed(sandgate: Sandgate, work: Tool, policy: str) -> None:
    """Asserts that the work fails at a denial without any one line."""
    for line in lines_of(policy):
        lacking = sandgate.run(policy.replace(line + "\n", ""), *shell(work.script), environment=work.impatient)
        assert lacking.returncode not in (0, 125), f"works without {line}: {lacking}"
        assert work.greeting not in lacking.stdout and lacking.audit.denied("dns"), lacking
