"""Real clients, unmodified, inside the sandbox: what is allowed works as if nothing stood between."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from lab import content, plan
from lab.internet import Internet
from lab.sandgate import Sandgate, after_resolving, allowing, attack, shell

PROXY = pytest.mark.parametrize("options", [[], ["--proxy-env"]], ids=["transparent", "proxy-env"])


@pytest.mark.honest("curl over HTTP/1.1 and HTTP/2, transparently and through the proxy")
@PROXY
@pytest.mark.parametrize(("flag", "protocol"), [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2.0")])
def test_curl(internet: Internet, sandgate: Sandgate, flag: str, protocol: str, options: list[str]) -> None:
    command = ["curl", "-sS", flag, f"https://{plan.ALLOWED}/curl"]
    run = sandgate.run(allowing(plan.ALLOWED), *command, options=options)
    assert run.returncode == 0 and f"as {protocol}" in run.stdout, run
    assert [(request.path, request.protocol) for request in internet.web.requests()] == [("/curl", protocol)]


@pytest.mark.honest("curl in the clear, transparently and through the proxy")
@PROXY
def test_curl_cleartext(internet: Internet, sandgate: Sandgate, options: list[str]) -> None:
    run = sandgate.run(allowing(plan.ALLOWED), "curl", "-sS", f"http://{plan.ALLOWED}/", options=options)
    assert f"served {plan.ALLOWED}" in run.stdout, run


@pytest.mark.honest("curl over IPv4 alone and IPv6 alone")
@pytest.mark.parametrize(("flag", "address"), [("-4", plan.SHARED4), ("-6", plan.SHARED6)], ids=["ipv4", "ipv6"])
def test_curl_by_family(internet: Internet, sandgate: Sandgate, flag: str, address: str) -> None:
    run = sandgate.run(allowing(plan.ALLOWED), "curl", "-sS", flag, f"https://{plan.ALLOWED}/")
    assert f"on {address}" in run.stdout, run


@pytest.mark.honest("curl to a name that has one family alone")
@pytest.mark.parametrize("name", [plan.V4_ONLY, plan.V6_ONLY])
def test_name_with_one_family(internet: Internet, sandgate: Sandgate, name: str) -> None:
    run = sandgate.run(allowing(name), "curl", "-sS", f"https://{name}/")
    assert f"served {name}" in run.stdout, run


@pytest.mark.honest("curl to a name one of whose addresses is dead")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_name_with_a_dead_address(internet: Internet, sandgate: Sandgate, scheme: str) -> None:
    """A redirected client has its connection before the server is dialled: another address is not its to try."""
    url = f"{scheme}://{plan.HALF_DEAD}/"
    assert internet.unenforced(["curl", "-sS", "-4", url]).returncode != 0
    run = sandgate.run(allowing(plan.HALF_DEAD), "curl", "-sS", "-4", url)
    assert f"served {plan.HALF_DEAD}" in run.stdout and f"on {plan.SHARED6}" in run.stdout, run


@pytest.mark.honest("curl to an alias")
def test_name_with_an_alias(internet: Internet, sandgate: Sandgate) -> None:
    run = sandgate.run(allowing(plan.ALIAS), "curl", "-sS", f"https://{plan.ALIAS}/")
    assert f"served {plan.ALIAS}" in run.stdout, run


@pytest.mark.honest("curl to a name below an allowed wildcard")
def test_wildcard(internet: Internet, sandgate: Sandgate) -> None:
    name = f"deep.below.{plan.WILD}"
    run = sandgate.run(allowing(f"*.{plan.WILD}"), "curl", "-sS", f"http://{name}/")
    assert f"served {name}" in run.stdout, run


@pytest.mark.honest("git clone over HTTPS")
@PROXY
def test_git_clone(internet: Internet, sandgate: Sandgate, tmp_path: Path, options: list[str]) -> None:
    clone = tmp_path / "clone"
    command = ["git", "clone", f"https://{plan.GIT}/project.git", str(clone)]
    run = sandgate.run(allowing(plan.GIT), *command, options=options)
    assert run.returncode == 0, run
    assert (clone / content.GIT_FILE).read_text() == content.GIT_TEXT


@pytest.mark.honest("pip install from an index")
@PROXY
def test_pip_install(internet: Internet, sandgate: Sandgate, tmp_path: Path, options: list[str]) -> None:
    target = tmp_path / "packages"
    command = ["/usr/bin/python3", "-m", "pip", "install", "--no-cache-dir", "--no-deps", "--target", str(target)]
    command += ["--index-url", f"https://{plan.PYPI}/simple", f"{content.WHEEL_NAME}=={content.WHEEL_VERSION}"]
    run = sandgate.run(allowing(plan.PYPI), *command, options=options)
    assert run.returncode == 0, run
    assert "hello from the lab index" in next(target.glob("*.py")).read_text()


@pytest.mark.honest("wget")
def test_wget(internet: Internet, sandgate: Sandgate) -> None:
    command = ["wget", "-q", "-O", "-", f"--ca-certificate={internet.certificates.authority}"]
    run = sandgate.run(allowing(plan.ALLOWED), *command, f"https://{plan.ALLOWED}/wget")
    assert run.returncode == 0 and "served" in run.stdout, run


@pytest.mark.honest("Python's urllib")
def test_python_urllib(internet: Internet, sandgate: Sandgate) -> None:
    script = f"import urllib.request; print(urllib.request.urlopen('https://{plan.ALLOWED}/').read().decode())"
    run = sandgate.run(allowing(plan.ALLOWED), "/usr/bin/python3", "-c", script)
    assert f"served {plan.ALLOWED}" in run.stdout, run


@pytest.mark.honest("a TLS client whose ClientHello has 1,800 to 20,000 bytes, as with post-quantum keys")
@pytest.mark.parametrize("size", [1_800, 5_000, 20_000])
def test_big_client_hello(internet: Internet, sandgate: Sandgate, size: int) -> None:
    """Post-quantum key shares alone make 1.7 KiB; 20,000 bytes take more than one TLS record."""
    command = after_resolving(
        plan.ALLOWED, then=attack("hello", plan.SHARED4, 443, "--sni", plan.ALLOWED, "--pad", size)
    )
    assert "200 OK" in internet.unenforced(command).stdout
    run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert f"served {plan.ALLOWED}" in run.stdout, run
    sent = re.search(r"hello: (\d+)", run.stdout)
    assert sent and int(sent[1]) >= size, run


@pytest.mark.honest("SMTP and MySQL, whose servers speak first")
@pytest.mark.parametrize(
    ("name", "port", "greeting"),
    [(plan.MAIL, plan.SMTP_PORT, "220 mail.example"), (plan.DATABASE, plan.MYSQL_PORT, "8.0.36-lab")],
)
def test_server_speaks_first(internet: Internet, sandgate: Sandgate, name: str, port: int, greeting: str) -> None:
    script = (
        "import socket\n"
        f"connection = socket.create_connection(('{name}', {port}), 10)\n"
        "print(connection.recv(200))\n"
        "connection.sendall(b'EHLO client.example\\r\\n')\n"
        "print(connection.recv(200))\n"
    )
    command = ["/usr/bin/python3", "-c", script]
    assert greeting in internet.unenforced(command).stdout
    internet.forget()

    run = sandgate.run(allowing({"target": name, "ports": [port]}), *command)
    assert run.returncode == 0 and greeting in run.stdout, run
    assert "EHLO client.example" in internet.sinks.data()


@pytest.mark.honest("a download of a gibibyte over TLS")
@pytest.mark.slow
def test_gibibyte_arrives_whole(internet: Internet, sandgate: Sandgate) -> None:
    command = shell(f"curl -sS --fail https://{plan.FILES}/big.bin | sha256sum")
    run = sandgate.run(allowing(plan.FILES), *command, timeout=180)
    assert run.stdout.split()[:1] == [internet.content.big_file_digest], run
    closed = run.audit.where(event="connection.closed", host=plan.FILES)
    assert closed and closed[0]["bytesDown"] > content.GIBIBYTE, run


@pytest.mark.honest("a download of a gibibyte in the clear")
@pytest.mark.slow
def test_gibibyte_in_cleartext_arrives_whole(internet: Internet, sandgate: Sandgate) -> None:
    """The other road: HTTP, where every request is judged."""
    command = shell(f"curl -sS --fail http://{plan.FILES}/big.bin | sha256sum")
    run = sandgate.run(allowing(plan.FILES), *command, timeout=180)
    assert run.stdout.split()[:1] == [internet.content.big_file_digest], run


CONNECTIONS_AT_ONCE = """\
import asyncio, ssl

async def connect(context):
    return await asyncio.open_connection('{name}', 443, ssl=context, ssl_handshake_timeout=60)

async def ask(reader, writer):
    writer.write(b'GET /at-once HTTP/1.1\\r\\nHost: {name}\\r\\nConnection: close\\r\\n\\r\\n')
    return b'served' in await reader.read()

async def main():
    context = ssl.create_default_context()
    connections = await asyncio.gather(*(connect(context) for _ in range({count})))
    print('open', len(connections), flush=True)
    answers = await asyncio.gather(*(ask(*connection) for connection in connections))
    print('answered', sum(answers))

asyncio.run(main())
"""


@pytest.mark.honest("500 TLS connections at once")
@pytest.mark.slow
def test_500_connections_at_once(internet: Internet, sandgate: Sandgate) -> None:
    script = CONNECTIONS_AT_ONCE.format(name=plan.ALLOWED, count=500)
    run = sandgate.run(allowing(plan.ALLOWED), "/usr/bin/python3", "-c", script, timeout=120)
    assert "open 500" in run.stdout and "answered 500" in run.stdout, run
    assert len(internet.web.requests()) == 500
    assert len(run.audit.allowed("tls-sni", event="connection.allowed", host=plan.ALLOWED)) == 500


@pytest.mark.honest("a TLS connection that rests")
@pytest.mark.slow
def test_connection_that_rests(internet: Internet, sandgate: Sandgate) -> None:
    """The deadlines are for a client's first words: a tunnel that rests longer than any of them stays."""
    command = attack("hello", plan.ALLOWED, 443, "--sni", plan.ALLOWED, "--hold", 12)
    run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert f"served {plan.ALLOWED}" in run.stdout, run


@pytest.mark.honest("a connection that its client half closes")
def test_half_closed_connection(internet: Internet, sandgate: Sandgate) -> None:
    """The client ends its sending; what the server still says arrives."""
    script = (
        "import socket\n"
        f"connection = socket.create_connection(('{plan.SINK}', 4444), 10)\n"
        "connection.sendall(b'x' * 100_000)\n"
        "connection.shutdown(socket.SHUT_WR)\n"
        "received = b''.join(iter(lambda: connection.recv(65536), b''))\n"
        "print('received', len(received))\n"
    )
    run = sandgate.run(allowing(plan.SINK), "/usr/bin/python3", "-c", script)
    assert "received 100000" in run.stdout, run


@pytest.mark.honest("an upload of 800,000 bytes with curl")
def test_upload(internet: Internet, sandgate: Sandgate, tmp_path: Path) -> None:
    payload = tmp_path / "upload"
    payload.write_bytes(b"0123456789abcdef" * 50_000)
    command = ["curl", "-sS", "--data-binary", f"@{payload}", f"http://{plan.ALLOWED}/upload"]
    run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert run.returncode == 0, run
    assert [(request.method, request.status) for request in internet.web.requests()] == [("POST", 200)]


@pytest.mark.honest("40 lookups at once")
def test_many_lookups_at_once(internet: Internet, sandgate: Sandgate) -> None:
    script = f"seq 1 40 | xargs -P 20 -I N getent hosts {shlex.quote(plan.ALLOWED)} | wc -l"
    run = sandgate.run(allowing(plan.ALLOWED), *shell(script))
    assert run.stdout.strip() == "40", run
    asked = [query for query in internet.dns.queries() if query.name == plan.ALLOWED]
    assert len(asked) <= 4, f"identical queries are asked once and then answered from the cache: {len(asked)}"


def test_report_mode_lets_pass_and_records(internet: Internet, sandgate: Sandgate) -> None:
    command = ["curl", "-sS", f"https://{plan.DENIED}/reported"]
    run = sandgate.run(allowing(plan.ALLOWED), *command, options=["--report"])
    assert run.returncode == 0, run
    assert internet.web.hosts() == {plan.DENIED}
    assert run.audit.where(host=plan.DENIED, reason="default"), run


def test_rules_on_the_command_line(internet: Internet, sandgate: Sandgate) -> None:
    command = shell(f"curl -sS https://{plan.ALLOWED}/; curl -sS https://{plan.OTHER}/; true")
    options = ["--deny", plan.OTHER, "--allow", "*.example"]
    run = sandgate.run(None, *command, options=options)
    assert f"served {plan.ALLOWED}" in run.stdout, run
    assert internet.web.hosts() == {plan.ALLOWED}
