"""What a new user does first: a tool fails under deny-all, what the run says is typed, and the tool works.

Told to the tools is where the lab's registry and authority are, and mostly not to try again: npm waits more than a minute,
cargo eleven seconds. FromDenialToPolicy.md tells of the same ways.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import content, plan, registries
from lab.first_work import (
    FirstWork,
    from_denials_to_the_least_policy,
    learned_policy_is_the_least_one,
    what_to_type,
)
from lab.internet import Internet
from lab.sandgate import Sandgate
from lab.suggestions import lines_of, rule
from lab.tool import tool


def git(internet: Internet, directory: Path) -> FirstWork:
    """A clone."""
    clone = directory / "clone"
    return FirstWork(
        f"rm -rf {clone}; git clone -q https://{plan.GIT}/project.git {clone} && cat {clone}/{content.GIT_FILE}",
        {},
        (plan.GIT,),
        content.GIT_TEXT,
    )


def npm(internet: Internet, directory: Path) -> FirstWork:
    """An install of one package."""
    for program in ("npm", "node"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not on this machine")
    registries.make_npm(internet.content.directory / "npm")
    project = directory / "project"
    return FirstWork(
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


def cargo(internet: Internet, directory: Path) -> FirstWork:
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
    return FirstWork(
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


TOOLS = pytest.mark.parametrize("make", [git, npm, cargo])


@TOOLS
def test_from_denials_to_the_least_policy(
    internet: Internet, sandgate: Sandgate, tmp_path: Path, make: Callable[[Internet, Path], FirstWork]
) -> None:
    """A tool stops at the first name that it does not get: as many failures as names, each with one command after it."""
    from_denials_to_the_least_policy(internet, sandgate, make(internet, tmp_path), tmp_path / "policy.yaml")


@TOOLS
def test_learned_policy_is_the_least_one_at_once(
    internet: Internet, sandgate: Sandgate, tmp_path: Path, make: Callable[[Internet, Path], FirstWork]
) -> None:
    learned_policy_is_the_least_one(sandgate, make(internet, tmp_path), tmp_path / "policy.yaml")


def test_tool_that_knows_where_it_goes_needs_no_policy(internet: Internet, sandgate: Sandgate, tmp_path: Path) -> None:
    """What the run says is added to its options, and the tool works: one step."""
    hint = "To allow the hosts that git is configured for: add --detect to this run's options\n"
    clone = ("git", "clone", "-q", f"https://{plan.GIT}/project.git", str(tmp_path / "clone"))
    run = sandgate.run(None, *clone)
    assert run.returncode != 0 and hint in run.stderr, run
    run = sandgate.run(None, *clone, options=["--detect"])
    assert run.returncode == 0 and (tmp_path / "clone" / content.GIT_FILE).read_text() == content.GIT_TEXT, run
    assert not run.audit.where(verdict="deny"), run
    # Who has said it is not told to, nor is who runs what has no such configuration.
    run = sandgate.run(None, *clone[:-1], str(tmp_path / "again"), options=["--detect", "--deny", plan.GIT])
    assert run.returncode != 0 and "--detect to" not in run.stderr, run
    assert "--detect" not in sandgate.run(None, "curl", "-sS", f"https://{plan.GIT}/").stderr


def test_no_way_on_is_told_where_none_leads_on(internet: Internet, sandgate: Sandgate) -> None:
    """Learning opens no guard range."""
    run = sandgate.run(None, "curl", "-sS", "http://169.254.169.254/")
    assert run.returncode != 0 and "No line is suggested for:" in run.stderr, run
    assert "To have a policy written" not in run.stderr, run


@pytest.mark.parametrize("make", [npm, cargo])
def test_who_interrupts_at_the_first_denial_is_told_as_much(
    internet: Internet, sandgate: Sandgate, tmp_path: Path, make: Callable[[Internet, Path], FirstWork]
) -> None:
    """Tools that try again need not be waited for."""
    work = make(internet, tmp_path)
    running = sandgate.start(None, work.command, environment=work.environment, own_session=True)
    assert running.process.stderr is not None
    denied = f"sandgate: denied {work.names[0]} (dns, default)\n"
    assert any(line == denied for line in running.process.stderr)
    os.killpg(running.pid, signal.SIGINT)  # As a terminal does.
    run = running.finish()
    assert run.returncode == 130, run
    policy = tmp_path / "policy.yaml"
    assert tool(*what_to_type(run), "-o", policy).returncode == 0
    assert lines_of(policy.read_text()) == [rule(work.names[0])]
