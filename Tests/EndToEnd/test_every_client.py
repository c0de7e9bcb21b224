"""Programs that people really use, unmodified and untold: each does its work under a policy that allows one name.

What cannot be had from Debian is taken from the machine, and skipped with a word where it is not there.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import content, everyday, plan, registries
from lab.internet import Internet
from lab.processes import check
from lab.sandgate import Finished, Sandgate, allowing, shell

PYTHON = "/usr/bin/python3"


def needs(program: str) -> pytest.MarkDecorator:
    """For a program that deploy/setup does not install."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not on this machine")


@pytest.fixture(scope="module")
def registry(net: Internet) -> Path:
    """The directory that https://registry.example/ serves, for the tests to fill."""
    return net.content.directory


@pytest.fixture(scope="module")
def open_directory() -> Iterator[Path]:
    """A directory that every user of the machine may enter."""
    directory = Path(tempfile.mkdtemp(prefix="sandgate-lab-", dir="/var/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def java_trust(net: Internet, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What makes a Java machine trust the lab's authority."""
    store = tmp_path_factory.mktemp("java") / "trust.p12"
    check(
        *("keytool", "-importcert", "-noprompt", "-alias", "lab", "-storetype", "PKCS12", "-storepass", "changeit"),
        *("-file", net.certificates.authority, "-keystore", store),
    )
    return f"-Djavax.net.ssl.trustStore={store} -Djavax.net.ssl.trustStorePassword=changeit"


def fetched(run: Finished, internet: Internet, name: str = plan.ALLOWED) -> None:
    """Asserts that a page of `name` was served, and nothing else asked for."""
    assert run.returncode == 0 and f"served {name}" in run.stdout, run
    assert internet.web.hosts() == {name}


# Downloads


@pytest.mark.honest("wget, with its own page checked")
def test_wget(internet: Internet, sandgate: Sandgate) -> None:
    command = ["wget", "-q", "-O", "-", f"--ca-certificate={internet.certificates.authority}"]
    fetched(sandgate.run(allowing(plan.ALLOWED), *command, f"https://{plan.ALLOWED}/"), internet)


@pytest.mark.honest("aria2 in parts")
def test_aria2_in_parts(internet: Internet, sandgate: Sandgate, registry: Path, tmp_path: Path) -> None:
    digest = registries.make_blob(registry)
    command = ["aria2c", "-q", "-x", "4", "-s", "4", "-k", "1M", "-d", str(tmp_path), "-o", "blob"]
    command += [f"--ca-certificate={internet.certificates.authority}", f"https://{plan.REGISTRY}/blob.bin"]
    run = sandgate.run(allowing(plan.REGISTRY), *command)
    assert run.returncode == 0, run
    assert hashlib.sha256((tmp_path / "blob").read_bytes()).hexdigest() == digest
    assert len(run.audit.allowed("tls-sni", event="connection.allowed")) >= 2, run


@pytest.mark.honest("openssl s_client")
def test_openssl_s_client(internet: Internet, sandgate: Sandgate) -> None:
    request = f"printf 'GET / HTTP/1.1\\r\\nHost: {plan.ALLOWED}\\r\\nConnection: close\\r\\n\\r\\n'"
    client = f"openssl s_client -quiet -ign_eof -verify_return_error -connect {plan.ALLOWED}:443"
    fetched(sandgate.run(allowing(plan.ALLOWED), *shell(f"{request} | {client}")), internet)


@pytest.mark.honest("rsync's daemon protocol")
def test_rsync(internet: Internet, sandgate: Sandgate, tmp_path: Path) -> None:
    with everyday.rsync_server(internet, tmp_path / "server"):
        command = ["rsync", "-a", f"rsync://{plan.RSYNC}/lab/greeting", str(tmp_path / "greeting")]
        run = sandgate.run(allowing({"target": plan.RSYNC, "ports": [873]}), *command)
        assert run.returncode == 0 and "rsync" in (tmp_path / "greeting").read_text(), run

        run = sandgate.run(allowing({"target": plan.RSYNC, "ports": [443]}), *command)
        assert run.returncode != 0, run
        assert run.audit.denied("ip", port=873, host=plan.RSYNC), run


# Python's clients, each with pooled connections

PYTHON_CLIENTS = {
    "requests": "import requests\nwith requests.Session() as s:\n    for _ in range(3): print(s.get(URL).text)\n",
    "httpx": "import httpx\nwith httpx.Client(http2=True) as c:\n    for _ in range(3): print(c.get(URL).text)\n",
    "aiohttp": """\
import aiohttp, asyncio
async def main():
    async with aiohttp.ClientSession() as session:
        async def fetch():
            async with session.get(URL) as answer: print(await answer.text())
        await asyncio.gather(*(fetch() for _ in range(3)))
asyncio.run(main())
""",
}


@pytest.mark.honest("Python's requests, httpx over HTTP/2 and aiohttp, transparently and through the proxy")
@pytest.mark.parametrize("client", PYTHON_CLIENTS)
@pytest.mark.parametrize("options", [[], ["--proxy-env"]], ids=["transparent", "proxy-env"])
def test_python(internet: Internet, sandgate: Sandgate, client: str, options: list[str]) -> None:
    script = f"URL = 'https://{plan.ALLOWED}/'\n{PYTHON_CLIENTS[client]}"
    run = sandgate.run(allowing(plan.ALLOWED), PYTHON, "-c", script, options=options)
    assert run.stdout.count(f"served {plan.ALLOWED}") == 3, run


@pytest.mark.honest("Python's requests over SOCKS")
def test_python_requests_with_socks(internet: Internet, sandgate: Sandgate) -> None:
    script = f"URL = 'https://{plan.ALLOWED}/'\n{PYTHON_CLIENTS['requests']}"
    run = sandgate.run(allowing(plan.ALLOWED), PYTHON, "-c", script, options=["--socks-env"])
    assert run.stdout.count(f"served {plan.ALLOWED}") == 3, run


# Package managers


@pytest.mark.honest("apt over https and http")
@pytest.mark.parametrize("scheme", ["https", "http"])
def test_apt(internet: Internet, sandgate: Sandgate, registry: Path, open_directory: Path, scheme: str) -> None:
    """Updates and installs, into a root of its own; apt fetches as a user of its own."""
    if not (registry / "apt").exists():
        registries.make_apt(registry / "apt")
    root = open_directory / scheme
    for name in ("etc/apt/apt.conf.d", "etc/apt/preferences.d", "state/lists/partial", "cache/archives/partial"):
        (root / name).mkdir(parents=True)
    for name in ("info", "updates", "triggers"):
        (root / "admin" / name).mkdir(parents=True)
    (root / "admin" / "status").touch()
    authority = root / "authority.pem"
    authority.write_bytes(internet.certificates.authority.read_bytes())
    source = f"deb [trusted=yes] {scheme}://{plan.REGISTRY}/apt ./\n"
    (root / "etc/apt/sources.list").write_text(source)
    settings = {
        "Dir::Etc": root / "etc/apt",
        "Dir::Etc::Parts": root / "etc/apt/apt.conf.d",
        "Dir::State": root / "state",
        "Dir::State::status": root / "admin/status",
        "Dir::Cache": root / "cache",
        "Dir::Log": root,
        "Acquire::https::CaInfo": authority,
        "DPkg::Options::": f"--admindir={root}/admin",
        "APT::Architecture": "amd64",
    }
    options = " ".join(shlex.quote(f"-o{name}={value}") for name, value in settings.items())
    script = f"apt-get {options} -y update && apt-get {options} -y install -oDPkg::Options::=--instdir={root} "
    run = sandgate.run(allowing(plan.REGISTRY), *shell(script + registries.NAME))
    assert run.returncode == 0, run
    assert registries.GREETING in (root / "usr/share" / registries.NAME / "greeting").read_text()


@pytest.mark.honest("npm")
@needs("npm")
def test_npm(internet: Internet, sandgate: Sandgate, registry: Path, tmp_path: Path) -> None:
    registries.make_npm(registry / "npm")
    environment = {
        "npm_config_registry": f"https://{plan.REGISTRY}/npm/",
        "npm_config_cafile": str(internet.certificates.authority),
        "npm_config_cache": str(tmp_path / "cache"),
        "npm_config_fetch_retries": "0",
        "npm_config_update_notifier": "false",
    }
    (tmp_path / "package.json").write_text("{}")
    install = f"cd {tmp_path} && npm install --no-audit --no-fund {registries.NAME}"
    script = f"{install} && node -p 'require(\"{registries.NAME}\")'"
    run = sandgate.run(allowing(plan.REGISTRY), *shell(script), environment=environment)
    assert run.returncode == 0 and registries.GREETING in run.stdout, run


@pytest.mark.honest("node's fetch")
@needs("node")
def test_node_fetch(internet: Internet, sandgate: Sandgate) -> None:
    script = f"fetch('https://{plan.ALLOWED}/').then(answer => answer.text()).then(console.log)"
    environment = {"NODE_EXTRA_CA_CERTS": str(internet.certificates.authority)}
    fetched(sandgate.run(allowing(plan.ALLOWED), "node", "-e", script, environment=environment), internet)


@pytest.mark.honest("cargo")
@pytest.mark.skipif(not registries.has_sparse_cargo(), reason="no cargo 1.68 or newer on this machine")
def test_cargo(internet: Internet, sandgate: Sandgate, registry: Path, tmp_path: Path) -> None:
    registries.make_cargo(registry / "cargo")
    project = tmp_path / "project"
    (project / "src").mkdir(parents=True)
    (project / "src" / "lib.rs").touch()
    (project / "Cargo.toml").write_text(
        '[package]\nname = "project"\nversion = "0.1.0"\nedition = "2021"\n'
        f'[dependencies]\n{registries.NAME} = {{ version = "1", registry = "lab" }}\n'
    )
    cargo_home = tmp_path / "cargo"
    environment = {
        "CARGO_HOME": str(cargo_home),
        "RUSTUP_HOME": os.environ.get("RUSTUP_HOME", str(Path.home() / ".rustup")),
        "CARGO_REGISTRIES_LAB_INDEX": f"sparse+https://{plan.REGISTRY}/cargo/",
        "CARGO_HTTP_CAINFO": str(internet.certificates.authority),
        "CARGO_NET_RETRY": "0",
    }
    command = ["cargo", "fetch", "--manifest-path", str(project / "Cargo.toml")]
    run = sandgate.run(allowing(plan.REGISTRY), *command, environment=environment)
    assert run.returncode == 0, run
    assert list(cargo_home.glob(f"registry/src/*/{registries.NAME}-1.0.0/src/lib.rs")), run


@pytest.mark.honest("go get")
def test_go_get(internet: Internet, sandgate: Sandgate, registry: Path, tmp_path: Path) -> None:
    registries.make_go(registry / "go")
    (tmp_path / "go.mod").write_text("module project\n\ngo 1.19\n")
    environment = {
        "GOPROXY": f"https://{plan.REGISTRY}/go",
        "GONOSUMDB": "*",
        "GOPATH": str(tmp_path / "path"),
        "GOCACHE": str(tmp_path / "cache"),
        "GOFLAGS": "-modcacherw",
        "GOTOOLCHAIN": "local",
    }
    script = f"cd {tmp_path} && go get {plan.REGISTRY}/lab@v{registries.VERSION}"
    run = sandgate.run(allowing(plan.REGISTRY), *shell(script), environment=environment)
    assert run.returncode == 0, run
    assert f"{plan.REGISTRY}/lab v{registries.VERSION}" in (tmp_path / "go.mod").read_text()


@pytest.mark.honest("gem")
def test_gem(internet: Internet, sandgate: Sandgate, registry: Path, tmp_path: Path) -> None:
    registries.make_gem(registry / "gem", tmp_path / "work")
    command = ["gem", "install", "--no-document", "--clear-sources", "--source", f"https://{plan.REGISTRY}/gem/"]
    command += ["--install-dir", str(tmp_path / "gems"), registries.NAME]
    run = sandgate.run(allowing(plan.REGISTRY), *command, environment={"HOME": str(tmp_path)})
    assert run.returncode == 0, run
    assert list(tmp_path.glob(f"gems/gems/{registries.NAME}-*/lib/greeting.rb")), run


@pytest.mark.honest("maven")
@needs("mvn")
def test_maven(internet: Internet, sandgate: Sandgate, registry: Path, tmp_path: Path, java_trust: str) -> None:
    """A parent and an extension, which come from the repository before any plugin would."""
    registries.make_maven(registry / "maven")
    settings = tmp_path / "settings.xml"
    settings.write_text(
        f"<settings><localRepository>{tmp_path}/repository</localRepository><mirrors><mirror><id>lab</id>"
        f"<mirrorOf>*</mirrorOf><url>https://{plan.REGISTRY}/maven</url></mirror></mirrors></settings>"
    )
    coordinates = f"<groupId>example.lab</groupId><artifactId>{{}}</artifactId><version>{registries.VERSION}</version>"
    (tmp_path / "pom.xml").write_text(
        f"<project><modelVersion>4.0.0</modelVersion><parent>{coordinates.format('parent')}</parent>"
        "<artifactId>project</artifactId><packaging>pom</packaging><build><extensions>"
        f"<extension>{coordinates.format('extension')}</extension></extensions></build></project>"
    )
    command = ["mvn", "-B", "-q", "-s", str(settings), "-f", str(tmp_path / "pom.xml"), "validate"]
    run = sandgate.run(allowing(plan.REGISTRY), *command, environment={"MAVEN_OPTS": java_trust})
    assert run.returncode == 0, run
    assert list((tmp_path / "repository" / "example" / "lab" / "extension").rglob("*.jar")), run


@pytest.mark.honest("Java's HttpClient")
@needs("javac")
def test_java_http_client(internet: Internet, sandgate: Sandgate, tmp_path: Path, java_trust: str) -> None:
    source = tmp_path / "Fetch.java"
    source.write_text(
        "import java.net.URI; import java.net.http.*;\n"
        "public class Fetch { public static void main(String[] a) throws Exception {\n"
        "  var request = HttpRequest.newBuilder(URI.create(a[0])).build();\n"
        "  var client = HttpClient.newHttpClient();\n"
        "  for (int i = 0; i < 2; i++)\n"
        "    System.out.print(client.send(request, HttpResponse.BodyHandlers.ofString()).body());\n"
        "} }\n"
    )
    command = ["java", *java_trust.split(), str(source)]
    run = sandgate.run(allowing(plan.ALLOWED), *command, f"https://{plan.ALLOWED}/")
    assert run.stdout.count(f"served {plan.ALLOWED}") == 2 and "HTTP/2.0" in run.stdout, run

    # In the clear it asks for an upgrade to h2c, which stays here.
    run = sandgate.run(allowing(plan.ALLOWED), *command, f"http://{plan.ALLOWED}/")
    assert run.stdout.count(f"served {plan.ALLOWED}") == 2 and "HTTP/1.1" in run.stdout, run


# Logging in


@pytest.fixture(scope="module")
def ssh_options(net: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    with everyday.ssh_server(net, tmp_path_factory.mktemp("ssh") / "server") as options:
        yield options


@pytest.mark.honest("ssh")
def test_ssh(internet: Internet, sandgate: Sandgate, ssh_options: list[str]) -> None:
    command = ["ssh", *ssh_options, f"root@{plan.SSH}", "echo hello from $0; cat"]
    script = f"echo over standard input | {shlex.join(command)}"
    run = sandgate.run(allowing({"target": plan.SSH, "ports": [22]}), *shell(script))
    assert "hello from" in run.stdout and "over standard input" in run.stdout, run

    run = sandgate.run(allowing({"target": plan.SSH, "ports": [443]}), *shell(script))
    assert "hello from" not in run.stdout, run
    assert run.audit.denied("ip", port=22, host=plan.SSH), run


@pytest.mark.honest("git over ssh")
def test_git_over_ssh(internet: Internet, sandgate: Sandgate, ssh_options: list[str], tmp_path: Path) -> None:
    repository = f"ssh://root@{plan.SSH}{internet.content.directory}/project.git"
    environment = {"GIT_SSH_COMMAND": shlex.join(["ssh", *ssh_options])}
    clone = tmp_path / "clone"
    policy = allowing({"target": plan.SSH, "ports": [22]})
    run = sandgate.run(policy, "git", "clone", repository, str(clone), environment=environment)
    assert run.returncode == 0, run
    assert (clone / content.GIT_FILE).read_text() == content.GIT_TEXT


# WebSocket, gRPC, HTTP/2


@pytest.fixture(scope="module")
def web_sockets_and_grpc(net: Internet) -> Iterator[None]:
    with everyday.web_sockets_and_grpc(net):
        yield


@pytest.mark.honest("WebSockets, with TLS and in the clear")
@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_websocket(internet: Internet, sandgate: Sandgate, web_sockets_and_grpc: None, scheme: str) -> None:
    script = (
        "import asyncio, websockets\n"
        "async def main():\n"
        f"    async with websockets.connect('{scheme}://{plan.WEBSOCKET}/') as socket:\n"
        "        for size in (5, 70_000, 1_000):\n"
        "            await socket.send('x' * size)\n"
        "            print('echoed', len(await socket.recv()))\n"
        "        await asyncio.sleep(1)\n"
        "        await (await socket.ping())\n"
        "        print('awake')\n"
        "asyncio.run(main())\n"
    )
    run = sandgate.run(allowing(plan.WEBSOCKET), PYTHON, "-c", script)
    assert "echoed 70000" in run.stdout and "echoed 1000" in run.stdout and "awake" in run.stdout, run


@pytest.mark.honest("gRPC, with TLS and in the clear")
@pytest.mark.parametrize("port", [50051, 50052], ids=["tls", "clear"])
def test_grpc(internet: Internet, sandgate: Sandgate, web_sockets_and_grpc: None, port: int) -> None:
    script = (
        "import grpc, sys\n"
        f"roots = open({str(internet.certificates.authority)!r}, 'rb').read()\n"
        f"where = '{plan.GRPC}:{port}'\n"
        f"credentials = grpc.ssl_channel_credentials(roots) if {port} == 50051 else None\n"
        "channel = grpc.secure_channel(where, credentials) if credentials else grpc.insecure_channel(where)\n"
        "print(channel.unary_unary('/lab.Greeter/Greet')(b'sandbox', timeout=10))\n"
        "print(len(list(channel.unary_stream('/lab.Greeter/Count')(b'500', timeout=10))))\n"
    )
    run = sandgate.run(allowing({"target": plan.GRPC, "ports": [port]}), PYTHON, "-c", script)
    assert "hello sandbox" in run.stdout and "500" in run.stdout, run


@pytest.mark.honest("h2load: HTTP/2 with many streams")
def test_http2_with_many_streams(internet: Internet, sandgate: Sandgate) -> None:
    command = ["h2load", "-n", "3000", "-c", "4", "-m", "100", f"https://{plan.ALLOWED}/h2load"]
    run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert "3000 succeeded" in run.stdout, run
    assert len(internet.web.requests()) == 3000


# A broker and a database


@pytest.mark.honest("MQTT over TLS")
def test_mqtt_over_tls(internet: Internet, sandgate: Sandgate, tmp_path: Path) -> None:
    common = f"-h {plan.MQTT} -p 8883 --cafile {internet.certificates.authority} -t lab/greeting"
    script = f"mosquitto_pub {common} -q 1 -r -m 'hello by mqtt' && mosquitto_sub {common} -C 1 -W 10"
    with everyday.mqtt_broker(internet, tmp_path / "broker"):
        run = sandgate.run(allowing({"target": plan.MQTT, "ports": [8883]}), *shell(script))
    assert run.returncode == 0 and "hello by mqtt" in run.stdout, run


@pytest.mark.honest("PostgreSQL over TLS")
def test_postgres_over_tls(internet: Internet, sandgate: Sandgate) -> None:
    """Its client asks for TLS in its own words first, so the hello comes later: judged by the name it resolved."""
    where = f"host={plan.POSTGRES} user=postgres sslmode=verify-full sslrootcert={internet.certificates.authority}"
    command = ["psql", "-X", "-At", "-c", "select version(), ssl from pg_stat_ssl where pid = pg_backend_pid()", where]
    with everyday.postgres_server(internet):
        run = sandgate.run(allowing({"target": plan.POSTGRES, "ports": [5432]}), *command)
        assert run.returncode == 0 and "PostgreSQL" in run.stdout and "|t" in run.stdout, run

        run = sandgate.run(allowing(plan.ALLOWED), *command)
        assert run.returncode != 0, run


# A browser


@pytest.fixture(scope="module")
def profile(net: Internet, open_directory: Path) -> Path:
    """A home that trusts the lab's authority, for Chromium."""
    home = open_directory / "home"
    store = home / ".pki" / "nssdb"
    store.mkdir(parents=True)
    check("certutil", "-d", f"sql:{store}", "-N", "--empty-password")
    check("certutil", "-d", f"sql:{store}", "-A", "-n", "lab", "-t", "C,,", "-i", net.certificates.authority)
    check("chown", "-R", "nobody:nogroup", home)
    return home


@pytest.mark.honest("Chromium, with its own sandbox and without")
@pytest.mark.slow
@pytest.mark.parametrize("own_sandbox", [False, True], ids=["no-sandbox", "own-sandbox"])
def test_chromium(internet: Internet, sandgate: Sandgate, profile: Path, own_sandbox: bool) -> None:
    """Loads a page and what it refers to. Chromium's own sandbox works inside, as it does for a user outside."""
    command = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "chromium", "--headless"]
    command += ["--disable-gpu", "--disable-dev-shm-usage", "--dump-dom", f"https://{plan.ALLOWED}/"]
    if not own_sandbox:
        command.insert(-1, "--no-sandbox")
    run = sandgate.run(allowing(plan.ALLOWED), *command, environment={"HOME": str(profile)}, timeout=90)
    assert f"served {plan.ALLOWED}" in run.stdout, run
    assert internet.web.hosts() == {plan.ALLOWED}
