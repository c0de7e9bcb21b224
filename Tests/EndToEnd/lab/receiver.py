"""A server that a daemon tells of refusals: it answers as it is told to, and keeps what it got."""

from __future__ import annotations

import hashlib
import hmac
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .certificates import Certificates
from .processes import wait_until


@dataclass
class Delivery:
    """A request, and what was answered."""

    path: str
    headers: dict[str, str]
    body: bytes
    status: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def is_signed_with(self, secret: bytes) -> bool:
        digest = hmac.new(secret, self.body, hashlib.sha256).hexdigest()
        return hmac.compare_digest(self.headers.get("x-sandgate-signature", ""), f"sha256={digest}")


class Receiver:
    """An HTTP server, over TLS if it has certificates; on loopback, unless it is given another address."""

    def __init__(self, port: int = 0, certificates: Certificates | None = None, address: str = "127.0.0.1") -> None:
        self.deliveries: list[Delivery] = []
        # What is answered to the next requests; 204 to those after them. A text is a redirection's target.
        self.answers: list[int | str] = []
        # Requests are answered while it is set.
        self.is_open = threading.Event()
        self.is_open.set()
        # How many requests were begun, answered or not.
        self.begun = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.begun += 1
                receiver.is_open.wait(30)
                answer = receiver.answers.pop(0) if receiver.answers else 204
                status = 307 if isinstance(answer, str) else answer
                fields = {name.lower(): value for name, value in self.headers.items()}
                receiver.deliveries.append(Delivery(self.path, fields, body, status))
                self.send_response(status)
                if isinstance(answer, str):
                    self.send_header("Location", answer)
                if status != 204:
                    self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer((address, port), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._scheme = "http" if certificates is None else "https"
        if certificates is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificates.certificate, certificates.key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{self._scheme}://localhost:{self.port}/denials?tenant=1"

    @property
    def taken(self) -> list[Delivery]:
        """What was answered with success."""
        return [delivery for delivery in self.deliveries if delivery.status < 300]

    @property
    def records(self) -> list[dict[str, Any]]:
        """The records that were taken, in the order in which they came."""
        return [record for delivery in self.taken for record in delivery.json["records"]]

    def wait_for(self, host: str, timeout: float = 10) -> None:
        """Waits until a record of this host was taken."""
        wait_until(lambda: any(record.get("host") == host for record in self.records), f"a record of {host}", timeout)

    def close(self) -> None:
        self.is_open.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def receiving(
    port: int = 0, certificates: Certificates | None = None, address: str = "127.0.0.1"
) -> Iterator[Receiver]:
    receiver = Receiver(port, certificates, address)
    try:
        yield receiver
    finally:
        receiver.close()
