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


class Disagreement(Exception):
    """Two readers see different things."""


def mutations(generator: random.Random, inputs: list[bytes], spice: list[bytes], count: int) -> list[bytes]:
    """The inputs, and `count` of them after a few small accidents."""
    mutated = list(inputs)
    for _ in range(count):
        data = bytearray(generator.choice(inputs))
        for _ in range(generator.randint(1, 4)):
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
    if " ".join(words) != ours:
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
    seen = [word for word in ours.split(" ") if word and word != "refused"]
    accepted = 0
    for word, (method, host, content) in zip(seen, theirs):
        our_method, our_host, our_body = word.split("|")
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
        location / {{ return 200 "<$http_host|$host>"; }}
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


def nginx_reader(path: str) -> Callable[[bytes, str], bool]:
    """Compares with the hosts that nginx sees in what we send in a request's place, and a marker request behind it."""

    def ask(data: bytes) -> bytes:
        answer = b""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(path)
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            try:
                while part := connection.recv(65536):
                    answer += part
            except ConnectionResetError:
                pass
        return answer

    def compare(_: bytes, ours: str) -> bool:
        if ours == "refused":
            return False
        host, sent = ours.split(" ")
        answer = ask(bytes.fromhex(sent) + MARKER)
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
            ("HTTP requests, h11", "http-request", "http-request", "http", 100_000, compare_requests),
            ("HTTP as forwarded, h11", "http-request", "http-forwarded", "http", 100_000, forwarded_requests),
            ("HTTP as forwarded, nginx", "http-request", "http-forwarded", "http", 40_000, nginx_reader(path)),
        ]
        for title, target, kind, words, count, compare in comparisons:
            generator = random.Random(f"{options.seed} {title}")
            count = count // 40 if options.short else count
            data = mutations(generator, inputs_for(target, corpus), SPICE[words], count)
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
