#!/usr/bin/python3
"""A stand-in for OpenSandbox's execd, whose image cannot be had without a registry: what the server and the SDK ask of it
when a sandbox begins, and its way to the ports inside, by which the SDK reaches the policy API."""

from __future__ import annotations

import http.client
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Execd(BaseHTTPRequestHandler):
    """GET /ping, and everything below /proxy/PORT."""

    def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("connection", "content-length", "transfer-encoding", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle_one(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = self.path.split("/", 3)
        if self.path == "/ping":
            return self.answer(200, [], b"")
        if len(parts) < 3 or parts[1] != "proxy":
            return self.answer(404, [], b"")
        connection = http.client.HTTPConnection("127.0.0.1", int(parts[2]), timeout=20)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        try:
            connection.request(self.command, "/" + "".join(parts[3:]), body, headers)
            answer = connection.getresponse()
            self.answer(answer.status, answer.getheaders(), answer.read())
        except OSError as error:
            self.answer(502, [], str(error).encode())
        finally:
            connection.close()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one

    def log_message(self, format: str, *values: object) -> None:
        """Says nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", 44772), Execd).serve_forever()
