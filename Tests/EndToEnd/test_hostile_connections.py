"""Connections that misbehave on either side: what is allowed arrives whole, what breaks is seen to break, and nobody can
make the proxy grow, stop or let through more than was judged."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator

import pytest

from lab import plan
from lab.internet import Internet
from lab.processes import Child, kibibytes
from lab.sandgate import Sandgate, allowing

SERVER = """\
import socket, struct, sys, threading, time

def read_head(connection):
    head = b""
    while b"\\r\\n\\r\\n" not in head:
        piece = connection.recv(65536)
        if not piece:
            return head
        head += piece
    return head

def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()

{serve}

listener = socket.create_server(({address!r}, {port}), backlog=128)
print("serving", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""

CLIENT = """\
import http.client, os, socket, struct, sys, threading, time

def connect(port, name={name!r}):
    return socket.create_connection((name, port), 10)

def read_all(connection):
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
        return received, "ended"
    except ConnectionResetError:
        return received, "reset"

"""

Serve = Callable[..., None]


@pytest.fixture
def serve(internet: Internet) -> Iterator[Serve]:
    """Starts a server that treats each connection as the function `serve(connection)` in its source says."""
    children: list[Child] = []

    def start(source: str, port: int, address: str = plan.SINK4) -> None:
        program = SERVER.format(serve=textwrap.dedent(source), address=address, port=port)
        children.append(Child(internet.namespace.command("/usr/bin/python3", "-c", program), "serving"))

    yield start
    for child in children:
        child.stop()


def client(source: str, name: str = plan.SINK) -> list[str]:
    """A program inside the sandbox."""
    return ["/usr/bin/python3", "-c", CLIENT.format(name=name) + textwrap.dedent(source)]


# MARK: - What is said arrives


@pytest.mark.honest("a client that reuses a connection just when its server closes it")
def test_answer_to_a_reused_connection_that_the_server_closes(
    internet: Internet, sandgate: Sandgate, serve: Serve
) -> None:
    """A server may close a resting connection just when the next request comes. A program that talks to it directly sees
    the close and asks again; so must one behind the proxy, which cannot know whether it may ask again by itself."""
    serve(
        """
        def serve(connection):
            read_head(connection)
            connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
            read_head(connection)
            connection.close()
        """,
        8080,
    )
    script = """
        connection = connect(8080)
        request = b"GET / HTTP/1.1\\r\\nHost: sink.example:8080\\r\\n\\r\\n"
        connection.sendall(request)
        first = b""
        while not first.endswith(b"ok"):
            first += connection.recv(1000)
        connection.sendall(request)
        print("second:", *read_all(connection))
    """
    run = sandgate.run(allowing(plan.SINK), *client(script))
    assert "second: b'' ended" in run.stdout, run


@pytest.mark.honest("a client of a server that breaks off, which must not look whole")
def test_break_of_a_server_that_speaks_first(internet: Internet, sandgate: Sandgate, serve: Serve) -> None:
    """A stream that was cut off must not look whole."""
    serve(
        """
        def serve(connection):
            connection.sendall(b"half of it")
            time.sleep(1)
            reset(connection)
        """,
        4000,
    )
    run = sandgate.run(allowing(plan.SINK), *client("print(*read_all(connect(4000)))"))
    assert "b'half of it' reset" in run.stdout, run


@pytest.mark.honest("a client that is slow between CONNECT and its first words")
def test_client_that_is_slow_after_connect(internet: Internet, sandgate: Sandgate, serve: Serve) -> None:
    """The deadline for the first words counts from when the client may speak, not from before a slow CONNECT."""
    script = """
        connection = socket.create_connection(("127.0.0.1", 64128), 10)
        time.sleep(2.5)
        connection.sendall(b"CONNECT allowed.example:80 HTTP/1.1\\r\\nHost: allowed.example:80\\r\\n\\r\\n")
        connection.recv(1000)
        request = b"GET / HTTP/1.1\\r\\nHost: allowed.example\\r\\n\\r\\n"
        connection.sendall(request[:10])
        time.sleep(1.5)
        connection.sendall(request[10:])
        print("got", connection.recv(1000)[:20])
    """
    deadline = ["--limit", "firstBytesMilliseconds=3500"]
    run = sandgate.run(allowing(plan.ALLOWED), *client(script), options=deadline)
    assert "got b'HTTP/1.1 200 OK" in run.stdout, run


@pytest.mark.attack("P7", "has a server hang up before its tunnel is looked at, to end the proxy", stopped_by="limits")
@pytest.mark.parametrize("end", ["connection.close()", "reset(connection)"])
def test_server_that_is_gone_before_it_is_listened_to(
    internet: Internet, sandgate: Sandgate, serve: Serve, end: str
) -> None:
    """The tunnel is open, its client silent, and the server hangs up before anybody looks at it."""
    serve(
        f"""
        def serve(connection):
            {end}
        """,
        4000,
    )
    script = r"""
        for _ in range(3):
            connection = socket.create_connection(("127.0.0.1", 64128), 10)
            connection.sendall(b"CONNECT sink.example:4000 HTTP/1.1\r\nHost: sink.example:4000\r\n\r\n")
            print(read_all(connection))
            print(read_all(connect(4000)))
        print("survived")
    """
    run = sandgate.run(allowing(plan.SINK), *client(script))
    assert "survived" in run.stdout, run


@pytest.mark.honest("an upload that its server refuses in the middle")
def test_early_answer_to_an_upload(internet: Internet, sandgate: Sandgate, serve: Serve) -> None:
    """The server refuses in the middle of an upload and closes with unread input, which resets the connection."""
    serve(
        r"""
        def serve(connection):
            read_head(connection)
            connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n")
            time.sleep(0.01)
            connection.close()
        """,
        8080,
    )
    script = r"""
        answers = []
        for _ in range(100):
            connection = connect(8080)
            connection.sendall(b"POST / HTTP/1.1\r\nHost: sink.example:8080\r\nContent-Length: 50000000\r\n\r\n")
            try:
                for _ in range(600):
                    connection.sendall(bytes(80_000))
            except OSError:
                pass
            answers.append(read_all(connection)[0][9:12])
        print(*sorted(set(answers)), len(answers))
    """
    run = sandgate.run(allowing(plan.SINK), *client(script))
    assert run.stdout.strip() == "b'413' 100", run


def test_expiry_of_another_rule_while_a_server_is_dialled(internet: Internet, sandgate: Sandgate) -> None:
    """The expiry of one rule is no reason to end what others still allow: here the address has no host, and it is the
    network that says so, some seconds later."""
    script = """
        start = time.monotonic()
        connection = connect(443, "198.51.100.99")
        connection.sendall(b"GET / HTTP/1.1\\r\\nHost: 198.51.100.99:443\\r\\n\\r\\n")
        print(read_all(connection)[1], time.monotonic() - start > 2)
    """
    policy = allowing("198.51.100.99", {"target": plan.OTHER, "ttl": "2s"})
    run = sandgate.run(policy, *client(script))
    assert run.stdout.endswith(" True\n"), run


# MARK: - Memory and turns


@pytest.mark.attack("P7 B3", "reads a large file in small segments, to make the proxy hoard it", stopped_by="limits")
@pytest.mark.slow
def test_slow_reader_costs_no_memory(internet: Internet, sandgate: Sandgate) -> None:
    """One that always leaves something to be sent: small segments keep the kernel's own buffer small."""
    script = """
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 500)
        connection.connect(("files.example", 80))
        connection.sendall(b"GET /big.bin HTTP/1.1\\r\\nHost: files.example\\r\\n\\r\\n")
        received = 0
        while received < 200_000_000:
            received += len(connection.recv(65536))
        print("received", flush=True)
        sys.stdin.readline()
    """
    running = sandgate.start(allowing(plan.FILES), client(script))
    running.wait_for("received", timeout=60)
    used = kibibytes(running.pid, "VmHWM")
    run = running.finish()
    assert used < 100_000, f"{used} KiB {run}"


# MARK: - Judged and nothing else


@pytest.mark.attack(
    "N4 N2",
    "connects to another port of a guarded address that a rule opens in part, in report mode",
    stopped_by="kernel, connect",
)
def test_report_mode_keeps_guarded_ports_closed(internet: Internet, sandgate: Sandgate) -> None:
    """A rule opens one port of a guarded address; the others stay closed, in report mode as well."""
    script = f"""
        for port in ({plan.CANARY_PORT},):
            connection = socket.create_connection(("10.99.0.1", port), 10)
            connection.sendall(b"a secret\\0")
            print(*read_all(connection))
    """
    policy = allowing({"target": "10.99.0.1", "ports": [80]}, mode="report")
    run = sandgate.run(policy, *client(script))
    assert internet.sinks.arrivals() == [], run
    assert run.audit.where(reason="guard-range", verdict="deny"), run


@pytest.mark.attack("P6 T3", "asks the proxy for a tunnel to port 53, past the resolver", stopped_by="connect")
@pytest.mark.parametrize("authority", [f"{plan.SINK}:53", f"{plan.SINK4}:53"])
def test_dns_through_the_proxy(internet: Internet, sandgate: Sandgate, serve: Serve, authority: str) -> None:
    """Port 53 is our resolver's, whatever the rule: a CONNECT must not get where a connection would not."""
    serve(
        """
        def serve(connection):
            connection.sendall(connection.recv(1000))
        """,
        53,
    )
    script = f"""
        connection = socket.create_connection(("127.0.0.1", 64128), 10)
        connection.sendall(b"CONNECT {authority} HTTP/1.1\\r\\nHost: {authority}\\r\\n\\r\\n")
        print(connection.recv(1000)[:12])
        try:
            connection.sendall(b"\\0\\x1e a query by its own way")
            print(connection.recv(1000))
        except OSError as error:
            print(error)
    """
    run = sandgate.run(allowing(plan.SINK, plan.SINK4), *client(script))
    assert "HTTP/1.1 403" in run.stdout and "its own way" not in run.stdout, run


@pytest.mark.attack(
    "P5",
    "leaves a request without an end, so that what names its host would be passed on unjudged",
    stopped_by="http-host",
)
def test_request_that_stops_before_its_end(internet: Internet, sandgate: Sandgate) -> None:
    """Text that may yet become a request is passed on while its client waits, but nothing from the end of the request
    line on: what is behind it names a host."""
    script = """
        connection = connect(4444)
        connection.sendall(b"GET /unjudged HTTP/1.1\\r\\nHost: other.example\\r\\nX: a secret\\r\\n\\r")
        time.sleep(2)
    """
    run = sandgate.run(allowing(plan.SINK), *client(script))
    assert "secret" not in internet.sinks.data(), run
