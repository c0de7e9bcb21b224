"""The proxies to compare with, each in the configuration that was found to be its fastest, and no proxy at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from .processes import Client, Server
from .stage import NAMESERVER, ORIGIN, ORIGIN_NAME, RULES, Stage

HAPROXY_PORT, SQUID_PORT, TINYPROXY_PORT = 8443, 3128, 3129


@dataclass(frozen=True)
class Contender:
    """A way to the origin: a client in front of it, and the process that makes it."""

    client: Client
    pid: int


def _haproxy_configuration(stage: Stage, splicing: str) -> str:
    """TCP mode; SNI looked up in a tree of 1,000 names; one thread, as Sandgate has one loop a sandbox."""
    names = stage.directory / "sni.map"
    names.write_text("".join(f"{name} allowed\n" for name in RULES))
    return f"""\
global
    nbthread 1
    maxconn 4096
    tune.pipesize 1048576
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    option {splicing}
listen sni
    bind 127.0.0.1:{HAPROXY_PORT} namespace {stage.inside.name} backlog 4096
    maxconn 4096
    tcp-request inspect-delay 5s
    tcp-request content accept if {{ req.ssl_sni,lower,map_str({names}) -m found }}
    tcp-request content reject if {{ req.ssl_hello_type 1 }}
    server origin {ORIGIN[0]}:{ORIGIN[1]}
"""


@contextlib.contextmanager
def haproxy(stage: Stage, splicing: str = "splice-auto") -> Iterator[Contender]:
    """HAProxy outside, listening inside a namespace whose connections to the origin are redirected to it.

    By itself ("splice-auto") it hardly ever splices what is measured here: downloads are twice as fast with
    "splice-response", and short connections a tenth cheaper without.
    """
    file = stage.directory / "haproxy.cfg"
    file.write_text(_haproxy_configuration(stage, splicing))
    chain = "type nat hook output priority -110;"
    redirect = f"ip daddr {ORIGIN[0]} tcp dport {ORIGIN[1]} redirect to :{HAPROXY_PORT}"
    stage.inside.check("nft", f"table inet peer {{ chain out {{ {chain} {redirect}; }}; }}")
    with contextlib.ExitStack() as stack:
        stack.callback(stage.inside.check, "nft", "delete table inet peer")
        server = stack.enter_context(Server(["haproxy", "-db", "-f", str(file)]))
        server.wait_for_port(stage.inside, "tcp", HAPROXY_PORT)
        client = stack.enter_context(Client(stage.inside.command(*stage.client_command())))
        yield Contender(client, server.pid)


@contextlib.contextmanager
def no_proxy(stage: Stage) -> Iterator[Contender]:
    """The client alone, on a link of the same kind. There is no process to measure."""
    with Client(stage.plain.command(*stage.client_command())) as client:
        yield Contender(client, 0)


@contextlib.contextmanager
def squid(stage: Stage) -> Iterator[Contender]:
    """Squid for CONNECT: no cache, no logs, the 1,000 names as a domain list."""
    (stage.directory / "domains").write_text("".join(f"{name}\n" for name in RULES))
    yield from _forward_proxy(
        stage,
        ["squid", "-N", "-f", "squid.conf"],
        SQUID_PORT,
        f"""\
http_port 127.0.0.1:{SQUID_PORT}
pid_filename none
visible_hostname benchmark
pinger_enable off
dns_nameservers {NAMESERVER[0]}
cache deny all
cache_mem 8 MB
access_log none
cache_log /dev/null
cache_store_log none
netdb_filename none
shutdown_lifetime 0 seconds
acl allowed dstdomain "{stage.directory}/domains"
http_access allow CONNECT allowed
http_access deny all
""",
    )


@contextlib.contextmanager
def tinyproxy(stage: Stage) -> Iterator[Contender]:
    """Tinyproxy for CONNECT, with the 1,000 names as its filter. It is the filter that keeps it busy."""
    (stage.directory / "filter").write_text("".join(f"^{name.replace('.', chr(92) + '.')}$\n" for name in RULES))
    yield from _forward_proxy(
        stage,
        ["tinyproxy", "-d", "-c", "tinyproxy.conf"],
        TINYPROXY_PORT,
        f"""\
Listen 127.0.0.1
Port {TINYPROXY_PORT}
Timeout 60
MaxClients 1000
LogLevel Critical
LogFile "/dev/null"
ConnectPort {ORIGIN[1]}
Filter "{stage.directory}/filter"
FilterExtended On
FilterDefaultDeny Yes
DisableViaHeader Yes
""",
    )


def _forward_proxy(stage: Stage, command: list[str], port: int, configuration: str) -> Iterator[Contender]:
    """A proxy that listens where it dials from: both in the namespace that has a link of its own."""
    program, *options, file = command
    (stage.directory / file).write_text(configuration)
    # So that nobody has to ask for the origin's address.
    stage.plain.use_hosts({"localhost": "127.0.0.1", ORIGIN_NAME: ORIGIN[0]})
    command = stage.plain.command(program, *options, stage.directory / file)
    with Server(command) as server:
        server.wait_for_port(stage.plain, "tcp", port)
        with Client(stage.plain.command(*stage.client_command())) as client:
            yield Contender(client, server.pid)
