"""Holds our decoders to what other programs' decoders see in the same bytes.

    compare.py PROGRAM SEED [--corpus DIRECTORY] [--short]

A judgement is about what the other end will see. So wherever we accept and another reader accepts too, both must see the
same name and the same end of the message; what we refuse may mean anything to anybody. The inputs are the seeds, what the
fuzzers have found, and small accidents to both.
"""

from __future__ import annotations

import argparse
import ipaddress
import random
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dns.exception
import dns.message
import dns.name
import dns.rdatatype
import dns.rrset
import h11

import seeds

SPICE = {
    "dns": [b"\xc0\x0c", b"\x00", b"\x3f", b"\x40", b"\x80", b".", b"\x07example\x03com\x00", b"\x01.", b"\x00\x01"],
    "tls": [b"\x16\x03\x01\x00\x01", b"\x00\x00", b"\xff\xff", b"\x00\x0b", b".", b"\x00\x00\x00\x05\x00\x03\x00"],
    "http": [
        b"\r\n", b"\r", b"\n", b" ", b"\t", b":", b": ", b",", b";", b"0", b"5\r\n", b"@", b"[", b"]", b"://", b"\x0b",
        b"Host: evil.test\r\n", b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n",
        b"\r\n\r\n", b"chunked", b"GET / ", b"\0", b".", b"\x85", b"\xa0", b"+1", b"0x1", b"_", b"\r\n ", b"#", b"\\",
    ],
}  # fmt: skip


# What the program prints of what it refuses or has not enough of.
REFUSALS = ("refused", "more")


class Disagreement(Exception):
    """Two readers see different things."""


def mutations(generator: random.Random, inputs: list[bytes], spice: list[bytes], count: int) -> list[bytes]:
    """The inputs, and `count` of them after a few small accidents."""
    mutated = list(inputs)
    for _ in range(count):
        data = bytearray(generator.choice(inputs))
        for _ in range(generator.choice((1, 1, 1, 2, 3))):
            place = generator.randint(0, len(data))
            end = min(len(data), place + generator.randint(1, 8))
            accident = generator.randrange(6)
            if accident == 0 and place < len(data):
                data[place] = generator.randrange(256)
            elif accident == 1 and place < len(data):
                data[place] ^= 1 << generator.randrange(8)
            elif accident == 2:
                del data[place:end]
            elif accident == 3:
                data[place:place] = data[place:end]
            elif accident == 4:
                other = generator.choice(inputs)
                start = generator.randint(0, len(other))
                data[place:end] = other[start : start + generator.randint(1, 24)]
            else:
                data[place:place] = generator.choice(spice)
        mutated.append(bytes(data))
    return mutated


def decode(program: str, kind: str, inputs: list[bytes]) -> list[str]:
    """What we see in each input."""
    stream = b"".join(struct.pack("!I", len(data)) + data for data in inputs)
    done = subprocess.run([program, "decode", kind], input=stream, capture_output=True, check=True)
    lines = done.stdout.decode().splitlines()
    if len(lines) != len(inputs):
        raise RuntimeError(f"{len(lines)} answers to {len(inputs)} inputs")
    return lines


# MARK: DNS


def parsed(data: bytes) -> dns.message.Message | None:
    try:
        return dns.message.from_wire(data, one_rr_per_rrset=True)
    except (dns.exception.DNSException, ValueError, struct.error, UnicodeError):
        return None


def wire(name: dns.name.Name) -> str:
    return (name.to_wire() or b"").hex()


def compare_query(data: bytes, ours: str) -> bool:
    theirs = parsed(data)
    if ours == "refused" or theirs is None or len(theirs.question) != 1:
        return False
    asked = theirs.question[0]
    seen = f"{theirs.id} {wire(asked.name)} {int(asked.rdtype)}"
    if seen != ours:
        raise Disagreement(f"ours {ours}, dnspython's {seen}")
    return True


def compare_message(data: bytes, ours: str) -> bool:
    theirs = parsed(data)
    if ours == "refused" or theirs is None:
        return False
    words = [str(theirs.id), str(int(theirs.rcode()))]
    words += [f"{wire(asked.name)}/{int(asked.rdtype)}" for asked in theirs.question]
    for rrset in theirs.answer:
        if rrset.rdclass != 1:
            continue
        for entry in rrset:
            shown = ""
            if entry.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
                shown = ipaddress.ip_address(entry.address).packed.hex()
            elif entry.rdtype == dns.rdatatype.CNAME:
                shown = wire(entry.target.canonicalize())
            words.append(f"{wire(rrset.name.canonicalize())}/{int(rrset.rdtype)}/{shown}")
    if words != ours.split():
        raise Disagreement(f"ours {ours}, dnspython's {' '.join(words)}")
    return True


# MARK: TLS


def tls_reader() -> Callable[[bytes, str], bool]:
    """Compares with the name that an OpenSSL server sees."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("ALL:@SECLEVEL=0")
    seen: list[str | None] = []

    def note(_: ssl.SSLObject, name: str | None, __: ssl.SSLContext) -> int:
        seen.append(name)
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    context.sni_callback = note
    # Names that are not ASCII, which we refuse, reach Python as an error that it prints.
    sys.unraisablehook = lambda _: None

    def compare(data: bytes, ours: str) -> bool:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = context.wrap_bio(incoming, outgoing, server_side=True)
        incoming.write(data)
        seen.clear()
        try:
            server.do_handshake()
        except ssl.SSLError:
            pass
        if not seen or ours == "refused":
            return False
        theirs = "absent" if seen[0] is None else f"name {seen[0].lower()}"
        if theirs != ours:
            raise Disagreement(f"ours {ours}, OpenSSL's {theirs}")
        return True

    return compare


# MARK: HTTP


def canonical_host(text: str) -> str:
    """A host as we write it: lower case, no trailing dot, addresses in their short form."""
    host, port = text.lower(), ""
    if ":" in host.rpartition("]")[2]:
        host, _, port = host.rpartition(":")
    host = host.rstrip(".") if not host.startswith("[") else str_of_address(host)
    return f"{host}:{port}" if port else host


def str_of_address(host: str) -> str:
    address = ipaddress.IPv6Address(host.strip("[]"))
    mapped = address.ipv4_mapped
    return f"[::ffff:{mapped}]" if mapped else f"[{address}]"


def h11_requests(data: bytes) -> tuple[list[tuple[str, str, bytes]], bool]:
    """Every whole request that h11 sees, and whether it waits for more."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    whole: list[tuple[str, str, bytes]] = []
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                return whole, bool(connection.trailing_data[0]) or connection.their_state is not h11.IDLE
            if event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return whole, False
            if isinstance(event, h11.Request):
                host = dict(event.headers).get(b"host", b"").decode("latin-1")
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                whole.append((request.method.decode(), host, body))
                if connection.their_state is not h11.DONE:
                    return whole, False
                connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                connection.start_next_cycle()
    except h11.ProtocolError:
        return whole, False


def compare_requests(data: bytes, ours: str) -> bool:
    """Compares request by request, up to the first that one of the two refuses."""
    theirs, waits = h11_requests(data)
    if ours == "opaque" and theirs:
        raise Disagreement(f"ours is no HTTP, h11's {theirs}")
    seen = [word for word in ours.split(" ") if word not in ("", "refused", "opaque")]
    accepted = 0
    for word, (method, host, content) in zip(seen, theirs):
        our_method, our_host, our_body = word.rsplit("|", 2)
        if method == "CONNECT":
            break
        # A chunked body is compared by what follows it: ours is shown with its framing.
        if our_method != method or our_host != canonical_host(host):
            raise Disagreement(f"ours {word}, h11's {method} {host}")
        body = bytes.fromhex(our_body)
        if content != body and content not in unframed(body):
            raise Disagreement(f"ours {body!r}, h11's {content!r}")
        accepted += 1
    if waits and len(theirs) < len(seen):
        raise Disagreement(f"ours {len(seen)} requests, h11 waits for more after {len(theirs)}")
    return accepted > 0


def unframed(body: bytes) -> Iterator[bytes]:
    """The content of a chunked body, as the plainest of readers sees it."""
    content, rest = b"", body
    while b"\r\n" in rest:
        line, _, rest = rest.partition(b"\r\n")
        try:
            size = int(line, 16)
        except ValueError:
            return
        if size == 0:
            yield content
            return
        content, rest = content + rest[:size], rest[size + 2 :]


def compare_response(data: bytes, ours: str) -> bool:
    """Compares with the response to a GET that h11 sees."""
    if ours == "refused":
        return False
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a.example")]))
    connection.send(h11.EndOfMessage())
    status, content, whole = 0, b"", False
    try:
        connection.receive_data(data)
        connection.receive_data(b"")
        while not whole:
            event = connection.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                content += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                whole = True
            elif event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return False
    except h11.ProtocolError:
        return False
    our_status, extent, left, shown = (ours + " ").split(" ")[:4]
    body = bytes.fromhex(shown)
    after = len(connection.trailing_data[0])
    if int(our_status) != status or extent != "whole" or content != body and content not in unframed(body):
        raise Disagreement(f"ours {our_status} {extent} {body!r}, h11's {status} {content!r}")
    if int(left) != after:
        raise Disagreement(f"ours leaves {left} bytes, h11 {after}")
    return True


# MARK: Messages put together


def answers(generator: random.Random, count: int) -> list[bytes]:
    """Answers as dnspython writes them, with names compressed, and pointers moved."""
    names = ["www.example.com.", "example.com.", "cdn.example.com.", "a.b.c.example.com.", "evil.test.", "WWW.Example.COM.", "."]
    data = {"A": ["192.0.2.1", "127.0.0.1"], "AAAA": ["2001:db8::1", "::ffff:192.0.2.1"], "TXT": ['"x"', '"a" "b"']}
    data |= {kind: names for kind in ("CNAME", "NS", "PTR", "DNAME")} | {"MX": [f"10 {name}" for name in names]}
    data |= {"SOA": [f"{name} {name} 1 2 3 4 5" for name in names], "SRV": [f"1 2 3 {name}" for name in names]}
    made = []
    for _ in range(count):
        query = dns.message.make_query(generator.choice(names[:3]), generator.choice(["A", "AAAA", "CNAME", "MX"]))
        answer = dns.message.make_response(query)
        for section in (answer.answer, answer.answer, answer.authority):
            for _ in range(generator.choice((0, 1, 1, 2))):
                kind = generator.choice(list(data))
                owner, ttl = generator.choice(names), generator.choice((0, 300, 0x7FFFFFFF))
                section.append(dns.rrset.from_text(owner, ttl, "IN", kind, generator.choice(data[kind])))
        message = bytearray(answer.to_wire())
        pointers = [place for place in range(12, len(message) - 1) if message[place] == 0xC0]
        if pointers and generator.random() < 0.5:
            message[generator.choice(pointers) + 1] = generator.randrange(len(message)) & 0xFF
        message[0:2] = bytes(2)
        made.append(bytes(message))
    return made


def hellos(generator: random.Random, count: int) -> list[bytes]:
    """ClientHellos whose server names and lists of extensions readers may differ about."""
    vector = seeds.vector

    def entry(name: bytes, kind: int = 0) -> bytes:
        return bytes([kind]) + vector(2, name)

    named = [b"a.example", b"A.EXAMPLE", b"b.example.", b"192.0.2.1", b"::1", b"", b"a\0b.example", b"-_.x", b"a" * 64 + b".x"]
    extensions = [
        (43, vector(1, b"\3\4\3\3")), (43, vector(1, b"\3\3")), (51, vector(2, b"\0\x1d" + vector(2, b"K" * 32))), (23, b""),
        (16, vector(2, vector(1, b"h2"))), (16, vector(2, b"")), (35, b""), (0xFF01, b"\0"), (21, bytes(9)), (17513, b"x"),
        (0xFE0D, b"\0\0\1\0\1\x09" + vector(2, b"E" * 32) + vector(2, b"P" * 64)), (45, vector(1, b"\1")), (42, b""),
    ]  # fmt: skip
    made = []
    for _ in range(count):
        lists = [vector(2, entry(generator.choice(named))) for _ in range(3)]
        lists += [vector(2, entry(b"a.example") + entry(b"b.example")), vector(2, entry(b"a.example", 1)), vector(2, b""), b""]
        lists += [vector(2, entry(b"x", 7) + entry(b"b.example")), vector(2, entry(b"a.example")) + b"\0"]
        chosen = generator.choices(extensions, k=generator.randint(0, 5))
        for _ in range(generator.choice((0, 1, 1, 1, 1, 2))):
            chosen.insert(generator.randint(0, len(chosen)), (0, generator.choice(lists)))
        message = seeds.client_hello(None, *chosen, suites=generator.randint(0, 4))
        if generator.random() < 0.1:
            message += bytes([generator.choice((0, 1, 20))]) + vector(3, b"x" * 4)
        data = seeds.records(message, generator.choice((16384, 16384, 200, 64, 7, 3)))
        if generator.random() < 0.1:
            data = generator.choice((b"\x15\3\1\0\2\1\0", b"\x14\3\1\0\1\1", b"\x16\3\1\0\0")) + data
        made.append(data)
    return made


LINES = [
    b"GET / HTTP/1.1", b"POST /a HTTP/1.1", b"PUT http://a.example/x HTTP/1.1", b"GET http://A.example:80?q HTTP/1.1",
    b"POST / HTTP/1.0", b"OPTIONS * HTTP/1.1", b"HEAD /%00 HTTP/1.1", b"GET //b.example/ HTTP/1.1", b"|X-_ / HTTP/1.1",
    b"GET http://b.example HTTP/1.0", b"GET /?http://b.example/ HTTP/1.1", b"DELETE /\\b.example HTTP/1.1",
]  # fmt: skip
FIELDS = [
    b"Host: a.example", b"host:A.EXAMPLE.", b"HOST : a.example", b"Host:\ta.example \t", b"Host: a.example:80", b"Host:",
    b"Host: b.example", b"Host: a.example, b.example", b"Host: [::1]", b"Host: [::ffff:1.2.3.4]:80", b"Host: 1.2.3.4",
    b"Content-Length: 5", b"Content-Length: 05", b"Content-Length: +5", b"Content-Length: 5, 5", b"Content-Length: 0",
    b"Content-Length:5 ", b"Content-Length: 5\t", b"Content_Length: 7", b"Content-Length: 5;", b"Content-Length: \xb5",
    b"Transfer-Encoding: chunked", b"transfer-encoding:CHUNKED", b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: identity", b"Transfer-Encoding: x, chunked", b"Transfer-Encoding:\x0bchunked",
    b"Transfer-Encoding: chunked;a=b", b"Connection: close", b"Connection: keep-alive, X-Y", b"Connection: Host",
    b"Connection: content-length", b"X-Y: z", b" folded", b"\tHost: b.example", b"X: a\x00b", b"X: a\rHost: b.example",
    b"X: \xff\x85\xa0", b": empty", b"no colon", b"Expect: 100-continue", b"Upgrade: h2c", b"Upgrade: websocket",
    b"Connection: upgrade", b"Sec-WebSocket-Key: k", b"TE: trailers", b"Trailer: Host", b"Proxy-Connection: keep-alive",
]  # fmt: skip
CONTENTS = [
    b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"0\r\n\r\n", b"5;x=y\r\nhello\r\n0\r\n\r\n", b"05\r\nhello\r\n0\r\n\r\n",
    b"5 \r\nhello\r\n0\r\n\r\n", b"5\nhello\n0\n\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\nHost: b.example\r\n\r\n",
    b"5\r\nhello\r\n00\r\nX: y\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n", b"A\r\n0123456789\r\n0\r\n\r\n",
]  # fmt: skip


def requests(generator: random.Random, count: int) -> list[bytes]:
    """Requests put together of parts that readers are known to differ about, one or two on a connection."""
    made = []
    for _ in range(count):
        data = b""
        for _ in range(generator.choice((1, 1, 2))):
            end = generator.choice([b"\r\n"] * 20 + [b"\n", b"\r\r\n"])
            fields = [FIELDS[0]] if generator.random() < 0.7 else []
            fields += generator.choices(FIELDS, k=generator.choice((0, 1, 1, 2, 2, 3)))
            generator.shuffle(fields)
            data += end.join([generator.choice(LINES), *fields, b"", b""]) + generator.choice(CONTENTS)
        made.append(data)
    return made


def first_lines(generator: random.Random, count: int) -> list[bytes]:
    """Requests that only some readers take for such."""
    spaces = [b" "] * 6 + [b"\t", b"  ", b"\x0b", b"\x0c", b"\r", b"", b"\xa0", b"\0"]
    befores = [b""] * 6 + [b"\r\n", b"\n", b" ", b"\t", b"\r\n\r\n", b"\0", b"\x16", b"\xef\xbb\xbf"]
    methods = [b"GET", b"get", b"Get", b"POST", b"M-SEARCH", b"FOO", b"A_B", b"G\xcbT", b"GE\0T", b'"GET"', b"GET:", b"PRI", b"X" * 70]
    targets = [b"/", b"*", b"http://b.example/", b"HTTPS://b.example/", b"b.example:80", b"?x", b"a", b"", b"\\", b"ftp://b/", b"//x"]
    versions = [b"HTTP/1.1"] * 4 + [b"HTTP/1.0", b"http/1.1", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.10", b"HTTP/01.1", b"HTP/1.1", b""]
    made = []
    for _ in range(count):
        line = generator.choice(methods) + generator.choice(spaces) + generator.choice(targets)
        line += generator.choice(spaces) + generator.choice(versions) + generator.choice((b"", b"", b"", b" "))
        end = generator.choice((b"\r\n", b"\r\n", b"\n"))
        made.append(generator.choice(befores) + end.join((line, b"Host: a.example", b"", b"")))
    return made


def responses(generator: random.Random, count: int) -> list[bytes]:
    """The same of responses."""
    lines = [b"HTTP/1.1 200 OK", b"HTTP/1.1 204 N", b"HTTP/1.0 200 OK", b"HTTP/1.1 304 N", b"HTTP/1.1 200", b"HTTP/1.1 100 C"]
    made = []
    for _ in range(count):
        end = generator.choice([b"\r\n"] * 5 + [b"\n"])
        fields = generator.choices(FIELDS, k=generator.choice((0, 1, 1, 2, 2)))
        data = end.join([generator.choice(lines), *fields, b"", b""])
        made.append(data + generator.choice(CONTENTS) + generator.choice((b"", b"", b"HTTP/1.1 200 OK\r\n")))
    return made


NGINX = """
daemon off;
pid {directory}/pid;
error_log {directory}/error.log;
worker_processes 1;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_requests 1000000;
    server {{
        listen unix:{directory}/socket;
        # In a field, since the answer to HEAD has no content.
        add_header Seen "<$http_host|$host>" always;
        location / {{ return 200 "served"; }}
    }}
}}
"""


@contextmanager
def nginx() -> Iterator[str]:
    """An nginx of our own; the path of its socket."""
    with tempfile.TemporaryDirectory(prefix="sandgate-compare-") as directory:
        configuration = Path(directory) / "nginx.conf"
        configuration.write_text(NGINX.format(directory=directory))
        command = [shutil.which("nginx") or "/usr/sbin/nginx", "-c", str(configuration), "-p", directory]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
            try:
                path = f"{directory}/socket"
                for _ in range(100):
                    if Path(path).exists():
                        break
                    time.sleep(0.05)
                yield path
            finally:
                server.terminate()


MARKER = b"GET /marker HTTP/1.1\r\nHost: marker.example\r\nConnection: close\r\n\r\n"


def ask(path: str, data: bytes) -> bytes:
    """What the server at `path` answers."""
    answer = b""
    with socket.socket(socket.AF_UNIX) as connection:
        # Who waits for more has not served anything.
        connection.settimeout(1)
        connection.connect(path)
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        try:
            while part := connection.recv(65536):
                answer += part
        except (ConnectionResetError, TimeoutError):
            pass
    return answer


def opaque_reader(path: str) -> Callable[[bytes, str], bool]:
    """Asks nginx about what we take for no HTTP: it must not serve it. What it serves we must have recognised."""

    def compare(data: bytes, ours: str) -> bool:
        answer = ask(path, data)
        # The answer to a request of HTTP/0.9 is the content alone.
        is_served = answer.startswith(b"HTTP/1.1 200") or answer == b"served"
        if is_served and ours == "opaque":
            raise Disagreement(f"ours is no HTTP, nginx's is: {answer!r}")
        return is_served

    return compare


def nginx_reader(path: str) -> Callable[[bytes, str], bool]:
    """Compares with the hosts that nginx sees in what we send in a request's place, and a marker request behind it."""

    def compare(_: bytes, ours: str) -> bool:
        if ours == "refused":
            return False
        host, sent = ours.split(" ")
        answer = ask(path, bytes.fromhex(sent) + MARKER)
        seen = [part.split(b">")[0].decode("latin-1") for part in answer.split(b"<")[1:] if b"|" in part.split(b">")[0]]
        if not seen or not answer.startswith(b"HTTP/1.1 200"):
            return False
        last = seen.pop() if seen[-1].startswith("marker.example|") else None
        if [canonical_host(one.split("|")[0]) for one in seen] != [host]:
            raise Disagreement(f"ours {host}, nginx's {seen}, then {last}: {bytes.fromhex(sent)!r}")
        return True

    return compare


# MARK: All of it


def inputs_for(target: str, corpus: Path | None) -> list[bytes]:
    found = sorted((corpus / target).glob("*")) if corpus else []
    return seeds.seeds()[target] + [path.read_bytes() for path in found if path.stat().st_size <= 4096]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("seed", type=int)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--short", action="store_true", help="few inputs, and none but the seeds' own")
    options = parser.parse_args()
    corpus = None if options.short else options.corpus
    failures = 0
    with nginx() as path:
        comparisons: list[tuple[str, str, str, str, int, Callable[[bytes, str], bool]]] = [
            ("DNS queries, dnspython", "dns-query", "dns-query", "dns", 100_000, compare_query),
            ("DNS answers, dnspython", "dns-answer", "dns-message", "dns", 100_000, compare_message),
            ("server names, OpenSSL", "client-hello", "client-hello", "tls", 100_000, tls_reader()),
            ("HTTP responses, h11", "http-response", "http-response", "http", 100_000, compare_response),
            ("HTTP requests, h11", "http-request", "http-request", "http", 100_000, compare_requests),
            ("what is no HTTP, nginx", "http-request", "http-request", "http", 40_000, opaque_reader(path)),
            ("HTTP as forwarded, h11", "http-request", "http-forwarded", "http", 100_000, forwarded_requests),
            ("HTTP as forwarded, nginx", "http-request", "http-forwarded", "http", 40_000, nginx_reader(path)),
        ]
        for title, target, kind, words, count, compare in comparisons:
            generator = random.Random(f"{options.seed} {title}")
            count, made = (count // 40, 500) if options.short else (count, 20_000)
            origins = inputs_for(target, corpus)
            if target == "dns-answer":
                origins += answers(generator, made)
            elif target == "client-hello":
                origins += hellos(generator, made)
            elif target == "http-request":
                origins += requests(generator, made) + first_lines(generator, made)
            elif target == "http-response":
                # The fuzz target's first byte chooses the method.
                origins = [one[1:] for one in origins] + responses(generator, made)
            # What we refuse is compared with nothing; most of what was once refused still is after an accident.
            accepted = zip(origins, decode(options.program, kind, origins))
            origins = [one for one, line in accepted if line not in REFUSALS]
            data = mutations(generator, origins, SPICE[words], count)
            agreed = 0
            shown = 0
            for one, line in zip(data, decode(options.program, kind, data)):
                try:
                    agreed += compare(one, line)
                except Disagreement as problem:
                    failures += 1
                    shown += 1
                    if shown <= 5:
                        print(f"{title}: {problem}\n    {one!r}")
            print(f"{title}: {len(data)} inputs, {agreed} accepted by both, {shown} disagreements", flush=True)
            if agreed == 0:
                failures += 1
                print(f"{title}: nothing was accepted by both, so nothing was compared")
    return 1 if failures else 0


def forwarded_requests(_: bytes, ours: str) -> bool:
    """As :func:`compare_requests`, of what we send in a request's place."""
    if ours == "refused":
        return False
    host, sent = ours.split(" ")
    theirs, waits = h11_requests(bytes.fromhex(sent))
    if waits or len(theirs) > 1 or theirs and theirs[0][0] != "CONNECT" and canonical_host(theirs[0][1]) != host:
        raise Disagreement(f"ours {host}, h11's {theirs}{' and more' if waits else ''}")
    return bool(theirs)


if __name__ == "__main__":
    sys.exit(main())
