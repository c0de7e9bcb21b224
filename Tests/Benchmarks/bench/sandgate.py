"""Sandgate as a contender: `sandgate run` with a load client as its command."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from .processes import Client
from .proxies import Contender
from .stage import NAMESERVER, ORIGIN_NAME, RULES, Stage

EXPLICIT_PROXY = ("127.0.0.1", 64128)
"""Where Sandgate's own proxy listens inside a sandbox."""


def sandgate_run(stage: Stage, *options: str) -> list[str]:
    """A command line that lacks only the command to run."""
    return [str(stage.programs.sandgate), "run", "--quiet", "--upstream-dns", NAMESERVER[0], *options, "--"]


@contextlib.contextmanager
def sandgate(stage: Stage, names: Sequence[str] = RULES, options: Sequence[str] = ()) -> Iterator[Contender]:
    """One sandbox and the client in it. Without an audit file, as the peers are without logs."""
    command = sandgate_run(stage, "--policy", str(stage.policy(names)), *options)
    with Client([*command, *stage.client_command()]) as client:
        yield Contender(client, client.process.pid)


def resolve_origin(contender: Contender) -> None:
    """Has the origin's address pinned, as a program does before it connects."""
    contender.client.ask("resolve", ORIGIN_NAME)
