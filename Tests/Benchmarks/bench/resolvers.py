"""The resolvers to compare with: each allows 1,000 names and everything below query.example, and denies the rest."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from .processes import Client, Server
from .proxies import Contender
from .stage import NAMESERVER, RULES, Stage

DNSDIST_PORT, UNBOUND_PORT, DNSMASQ_PORT = 5301, 5302, 5303
ZONE = "query.example"


@contextlib.contextmanager
def dnsdist(stage: Stage) -> Iterator[Contender]:
    """dnsdist with a packet cache; what is not in its set of names is answered with NXDOMAIN by itself."""
    names = "".join(f'allowed:add(newDNSName("{name}."))\n' for name in (*RULES, ZONE))
    configuration = f"""\
setLocal("127.0.0.1:{DNSDIST_PORT}")
setSecurityPollSuffix("")
newServer({{address="{NAMESERVER[0]}:{NAMESERVER[1]}", healthCheckMode="up"}})
getPool(""):setCache(newPacketCache(100000))
allowed = newSuffixMatchNode()
{names}addAction(NotRule(SuffixMatchNodeRule(allowed)), RCodeAction(DNSRCode.NXDOMAIN))
"""
    command = ["dnsdist", "--supervised", "--disable-syslog", "-C", "dnsdist.conf"]
    yield from _resolver(stage, command, DNSDIST_PORT, configuration)


@contextlib.contextmanager
def unbound(stage: Stage) -> Iterator[Contender]:
    """unbound with one thread and no validation; local zones allow and deny."""
    zones = "".join(f'    local-zone: "{name}." transparent\n' for name in (*RULES, ZONE))
    configuration = f"""\
server:
    num-threads: 1
    interface: 127.0.0.1@{UNBOUND_PORT}
    do-not-query-localhost: no
    do-daemonize: no
    use-syslog: no
    logfile: ""
    verbosity: 0
    username: ""
    chroot: ""
    directory: "{stage.directory}"
    pidfile: ""
    module-config: "iterator"
    msg-cache-size: 64m
    rrset-cache-size: 64m
    outgoing-range: 4096
    num-queries-per-thread: 2048
    so-rcvbuf: 4m
    local-zone: "." always_nxdomain
{zones}forward-zone:
    name: "."
    forward-addr: {NAMESERVER[0]}
remote-control:
    control-enable: no
"""
    yield from _resolver(stage, ["unbound", "-d", "-p", "-c", "unbound.conf"], UNBOUND_PORT, configuration)


@contextlib.contextmanager
def dnsmasq(stage: Stage) -> Iterator[Contender]:
    """dnsmasq with a large cache, forwarding what lies below query.example and nothing else."""
    configuration = f"""\
listen-address=127.0.0.1
port={DNSMASQ_PORT}
bind-interfaces
no-resolv
no-hosts
user=root
pid-file
cache-size=10000
dns-forward-max=2000
server=/{ZONE}/{NAMESERVER[0]}
local=/#/
"""
    yield from _resolver(stage, ["dnsmasq", "--keep-in-foreground", "-C", "dnsmasq.conf"], DNSMASQ_PORT, configuration)


def _resolver(stage: Stage, command: list[str], port: int, configuration: str) -> Iterator[Contender]:
    program, *options, file = command
    path = stage.directory / file
    path.write_text(configuration)
    with Server(stage.plain.command(program, *options, path)) as server:
        server.wait_for_port(stage.plain, "udp", port)
        with Client(stage.plain.command(*stage.client_command())) as client:
            yield Contender(client, server.pid)
