"""The API over TLS: whom it lets in, what it shows of itself, and what is said of files that will not do."""

from __future__ import annotations

import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.certificates import Certificates, issue, make_certificates
from lab.daemon import Daemon, running
from lab.internet import Internet
from lab.processes import wait_until
from lab.tool import tool

TOKEN = "a-token-of-the-lab"
PORT = 64_481
URL = f"https://localhost:{PORT}"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"), ["localhost"])


@pytest.fixture(scope="module")
def client(certificates: Certificates) -> tuple[Path, Path]:
    """A client's certificate of the lab's authority, and its key."""
    return issue(certificates.authority.parent, "client", "/CN=lifecycle", "extendedKeyUsage=clientAuth")


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(f"{TOKEN}\n")
    return path


def listening(tokens: Path) -> list[str]:
    return ["--listen", f"127.0.0.1:{PORT}", "--token-file", str(tokens)]


@pytest.fixture
def daemon(internet: Internet, tmp_path: Path, tokens: Path, certificates: Certificates) -> Iterator[Daemon]:
    options = ("--tls-certificate", str(certificates.certificate), "--tls-key", str(certificates.key))
    with running(internet, tmp_path, *listening(tokens), *options) as made:
        yield made


@pytest.fixture
def closed(internet: Internet, tmp_path: Path, tokens: Path, certificates: Certificates) -> Iterator[Daemon]:
    """A daemon that asks for clients' certificates."""
    options = ["--tls-certificate", str(certificates.certificate), "--tls-key", str(certificates.key)]
    options += ["--tls-client-ca", str(certificates.authority)]
    with running(internet, tmp_path, *listening(tokens), *options) as made:
        yield made


def curl(certificates: Certificates, path: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
    """Asks for the status; the output is empty where no answer came."""
    command = ["curl", "-sS", "-m", "10", "--cacert", certificates.authority, "-o", "/dev/null", "-w", "%{http_code}"]
    return subprocess.run([*map(str, [*command, *options]), URL + path], capture_output=True, text=True)


def bearing(token: str) -> tuple[str, str]:
    return "-H", f"Authorization: Bearer {token}"


def handshake(certificates: Certificates, *options: str | Path) -> str:
    """What openssl says of a handshake."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{PORT}", "-CAfile", certificates.authority, *options]
    done = subprocess.run([str(word) for word in command], input="", capture_output=True, text=True, timeout=20)
    return done.stdout + done.stderr


def test_tokens_are_needed_over_tls_too(daemon: Daemon, certificates: Certificates) -> None:
    assert curl(certificates, "/v1/sandboxes", *bearing(TOKEN)).stdout == "200"
    assert curl(certificates, "/v1/sandboxes").stdout == "401"
    assert curl(certificates, "/v1/sandboxes", *bearing("another-token-of-it")).stdout == "401"
    assert curl(certificates, "/healthz").stdout == "200"
    # The Unix socket stays as it was.
    assert daemon.request("GET", "/v1/sandboxes").status == 200


def test_nothing_is_served_in_the_clear(daemon: Daemon) -> None:
    plain = ["curl", "-sS", "-m", "10", *bearing(TOKEN), f"http://127.0.0.1:{PORT}/v1/sandboxes"]
    done = subprocess.run(plain, capture_output=True, text=True)
    assert done.returncode != 0 and done.stdout == "", done
    assert daemon.request("GET", "/healthz").status == 200


@pytest.mark.parametrize(
    ("version", "is_spoken"), [("-tls1", False), ("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)]
)
def test_versions(daemon: Daemon, certificates: Certificates, version: str, is_spoken: bool) -> None:
    # The lowest security level has openssl itself offer the old ones.
    said = handshake(certificates, version, "-cipher", "DEFAULT:@SECLEVEL=0")
    assert ("Verify return code: 0 (ok)" in said and "Cipher is (NONE)" not in said) == is_spoken, said
    if not is_spoken:
        assert "alert protocol version" in said, said


@pytest.mark.slow
def test_handshakes_that_do_not_end(daemon: Daemon, certificates: Certificates) -> None:
    """They are closed after a minute."""
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", PORT)) as silent, socket.create_connection(("127.0.0.1", PORT)) as half:
        # A record's head, and nothing of what it says that comes.
        half.sendall(bytes.fromhex("16030102000100"))
        waiting = {silent, half}
        while waiting:
            ended = select.select(list(waiting), [], [], 80)[0]
            assert ended and 55 < time.monotonic() - begun < 80 and all(end.recv(1) == b"" for end in ended)
            waiting -= set(ended)
    assert curl(certificates, "/healthz").stdout == "200"


def test_protocol_inside(daemon: Daemon, certificates: Certificates) -> None:
    assert "ALPN protocol: http/1.1" in handshake(certificates, "-alpn", "h2,http/1.1")


def test_clients_need_a_certificate(
    closed: Daemon, certificates: Certificates, client: tuple[Path, Path], tmp_path: Path
) -> None:
    certificate, key = client
    own = ("--cert", certificate, "--key", key)
    assert curl(certificates, "/v1/sandboxes", *own, *bearing(TOKEN)).stdout == "200"
    assert curl(certificates, "/v1/sandboxes", *own).stdout == "401"
    for version in ("1.2", "1.3"):
        # Not even what needs no token.
        without = curl(certificates, "/healthz", f"--tlsv{version}", "--tls-max", version)
        assert without.returncode != 0 and without.stdout == "000", without
    stranger = make_certificates(tmp_path / "strangers", ["localhost"]).authority.parent
    certificate, key = issue(stranger, "client", "/CN=lifecycle", "extendedKeyUsage=clientAuth")
    foreign = curl(certificates, "/healthz", "--cert", certificate, "--key", key)
    assert foreign.returncode != 0 and foreign.stdout == "000", foreign
    # One for servers is no client's.
    certificate, key = issue(certificates.authority.parent, "other", "/CN=other", "extendedKeyUsage=serverAuth")
    server = curl(certificates, "/healthz", "--cert", certificate, "--key", key)
    assert server.returncode != 0 and server.stdout == "000", server
    # Which authorities are asked for is said.
    assert "Sandgate lab authority" in handshake(certificates, "-tls1_2").partition("Acceptable client")[2]


def test_connections_that_say_nothing_keep_nobody_out(daemon: Daemon, certificates: Certificates) -> None:
    silent = [socket.create_connection(("127.0.0.1", PORT)) for _ in range(50)]
    try:
        assert curl(certificates, "/healthz").stdout == "200"
    finally:
        for connection in silent:
            connection.close()


def test_certificate_is_read_again(
    internet: Internet, tmp_path: Path, tokens: Path, certificates: Certificates
) -> None:
    place, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    place.write_bytes(certificates.certificate.read_bytes())
    key.write_bytes(certificates.key.read_bytes())
    options = ("--tls-certificate", str(place), "--tls-key", str(key))
    with running(internet, tmp_path, *listening(tokens), *options) as daemon:

        def hang_up(message: str) -> None:
            assert daemon.process is not None
            before = daemon.log.count(message)
            daemon.process.send_signal(signal.SIGHUP)
            wait_until(lambda: daemon.log.count(message) > before, message)

        key.write_text("no key\n")
        hang_up(f"the certificate stays as it was: {key}: expected a private key")
        assert curl(certificates, "/healthz").stdout == "200"
        renewed = make_certificates(tmp_path / "renewed", ["localhost"])
        place.write_bytes(renewed.certificate.read_bytes())
        hang_up("the certificate stays as it was")
        key.write_bytes(renewed.key.read_bytes())
        hang_up("certificate read again")
        assert curl(renewed, "/healthz").stdout == "200"
        assert handshake(renewed, "-showcerts").count("BEGIN CERTIFICATE") == 1
        # What stands behind the certificate is shown with it.
        with place.open("ab") as file:
            file.write(renewed.authority.read_bytes())
        hang_up("certificate read again")
        assert handshake(renewed, "-showcerts").count("BEGIN CERTIFICATE") == 2
        assert curl(certificates, "/healthz").returncode != 0


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"certificate": "server.pem"}, "--tls-certificate needs --tls-key"),
        ({"key": "server.key"}, "--tls-key needs --tls-certificate"),
        ({"client-ca": "authority.pem"}, "--tls-client-ca needs --tls-certificate and --tls-key"),
        ({"certificate": "absent", "key": "server.key"}, "cannot read {}/absent: No such file"),
        ({"certificate": "server.pem", "key": "absent"}, "cannot read {}/absent: No such file"),
        ({"certificate": "server.key", "key": "server.key"}, "{}/server.key: expected certificates in PEM form"),
        ({"certificate": "server.pem", "key": "server.pem"}, "{}/server.pem: expected a private key in PEM form"),
        (
            {"certificate": "server.pem", "key": "authority.key"},
            "{}/authority.key: not the key of the certificate in {}/server.pem",
        ),
        (
            {"certificate": "server.pem", "key": "server.key", "client-ca": "server.csr"},
            "{}/server.csr: expected certificates in PEM form",
        ),
    ],
    ids=str,
)
def test_files_that_will_not_do(
    tmp_path: Path, tokens: Path, certificates: Certificates, options: dict[str, str], problem: str
) -> None:
    directory = certificates.authority.parent
    places: list[str | Path] = ["--socket", tmp_path / "api.sock", "--state-dir", tmp_path / "s"]
    places += ["--runtime-dir", tmp_path / "r", "--audit-dir", tmp_path / "a", *listening(tokens)]
    for name, file in options.items():
        places += [f"--tls-{name}", directory / file]
    done = tool("serve", *places)
    assert done.returncode == 1 and problem.replace("{}", str(directory)) in done.stderr, done


def test_certificate_without_a_place(tmp_path: Path, certificates: Certificates) -> None:
    options: list[str | Path] = ["--socket", tmp_path / "api.sock", "--state-dir", tmp_path / "s"]
    options += ["--runtime-dir", tmp_path / "r", "--audit-dir", tmp_path / "a"]
    options += ["--tls-certificate", certificates.certificate, "--tls-key", certificates.key]
    done = tool("serve", *options)
    assert done.returncode == 1 and "--tls-certificate needs --listen" in done.stderr, done
