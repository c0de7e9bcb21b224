"""A real web server (nginx): many TLS names on shared addresses, HTTP/2, cleartext, and a log of every request."""

from __future__ import annotations

import json
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

from . import plan
from .certificates import Certificates
from .growing_file import GrowingFile
from .namespaces import Namespace
from .processes import Daemon


TLS = "ssl http2"


def model_socket(laboratory: Path) -> Path:
    """Where the language model listens, if there is one in the laboratory with this directory."""
    return laboratory / "model"


@dataclass(frozen=True)
class Request:
    """One request as the web server logged it."""

    host: str
    sni: str
    path: str
    method: str
    protocol: str
    server: str
    port: int
    status: int
    client: str
    """The address that it came from."""


class Webserver:
    """nginx in the lab's Internet; `content` is the tree that the content names serve."""

    def __init__(self, namespace: Namespace, directory: Path, content: Path, certificates: Certificates) -> None:
        directory.mkdir(parents=True)
        self._namespace = namespace
        log = directory / "access.log"
        self._log = GrowingFile(log, "the web server's log")
        configuration, pid_file = directory / "nginx.conf", directory / "nginx.pid"
        configuration.write_text(_configuration(directory, content, certificates, pid_file, log))
        self._daemon = Daemon(
            namespace.command("nginx", "-e", directory / "error.log", "-c", configuration, "-p", directory), pid_file
        )

    def stop(self) -> None:
        self._daemon.stop()

    def requests(self) -> list[Request]:
        """What was requested since the last call; everything answered before this call is in it."""
        marker = f"/marker-{uuid.uuid4().hex}"
        subprocess.run(
            self._namespace.command("curl", "-s", "--max-time", "5", f"http://{plan.SHARED4}{marker}"),
            check=True,
            capture_output=True,
        )
        found = (Request(**json.loads(line)) for line in self._log.lines_until(marker).splitlines())
        return [request for request in found if not request.path.startswith("/marker-")]

    def hosts(self) -> set[str]:
        """The hosts asked for since the last call."""
        return {request.host for request in self.requests()}


def _configuration(directory: Path, content: Path, certificates: Certificates, pid_file: Path, log: Path) -> str:
    temporary = "\n".join(
        f"    {kind}_temp_path {directory}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""\
user root;
worker_processes 1;
worker_rlimit_nofile 8192;
pid {pid_file};
events {{ worker_connections 4096; }}
http {{
    types {{ text/html html; application/octet-stream whl bin; }}
{temporary}
    log_format lab escape=json '{{"host":"$http_host","sni":"$ssl_server_name","path":"$request_uri",'
        '"method":"$request_method","protocol":"$server_protocol","server":"$server_addr","port":$server_port,'
        '"status":$status,"client":"$remote_addr"}}';
    access_log {log} lab;
    sendfile on;
    keepalive_timeout 75s;
    ssl_certificate {certificates.certificate};
    ssl_certificate_key {certificates.key};
    server {{
        {_listen((plan.SHARED4, plan.SHARED6, plan.DENIED4, plan.DENIED6), {80: "", 443: TLS, 8443: TLS})}
        server_name {" ".join(plan.WEB_NAMES)} _;
        location / {{ return 200 "served $host on $server_addr as $server_protocol\\n"; }}
    }}
    server {{
        {_listen((plan.CONTENT4, plan.CONTENT6), {80: "", 443: TLS})}
        server_name {plan.GIT} {plan.PYPI} {plan.FILES} {plan.REGISTRY};
        root {content};
        index index.html;
    }}
    server {{
        {_listen((plan.CONTENT4, plan.CONTENT6), {443: TLS})}
        server_name {plan.MODEL};
        location / {{ proxy_pass http://unix:{model_socket(directory.parent)}; }}
    }}
    server {{
        {_listen((plan.ODD4, plan.ODD6), {80: "ssl", 443: ""})}
        server_name {plan.TLS_ON_80} {plan.HTTP_ON_443};
        location / {{ return 200 "served $host on $server_addr as $server_protocol\\n"; }}
    }}
}}
"""


def _listen(addresses: tuple[str, ...], ports: dict[int, str]) -> str:
    """nginx's `listen` lines for every address and port."""
    bracketed = [f"[{address}]" if ":" in address else address for address in addresses]
    sockets = ((address, port, options) for address in bracketed for port, options in ports.items())
    return "\n        ".join(f"listen {address}:{port} {options};" for address, port, options in sockets)
