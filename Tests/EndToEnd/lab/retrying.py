"""A TLS server that asks its clients for another ClientHello (HelloRetryRequest), and a client that names what it likes in it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

from . import plan
from .hello_server import HelloServer
from .internet import Internet
from .sandgate import attack

RETRYING = """\
import pathlib, socket, ssl, sys, threading
address, port, certificate, key, log = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
context.set_ecdh_curve("prime256v1")
context.sni_callback = lambda connection, name, _: print(name, file=names, flush=True)
names = pathlib.Path(log).open("a")

def serve(connection):
    try:
        with context.wrap_socket(connection, server_side=True) as tls:
            while request := tls.recv(65536).decode():
                host = next(line[6:] for line in request.split("\\r\\n") if line.lower().startswith("host: "))
                body = f"served {host}\\n"
                tls.sendall(f"HTTP/1.1 200 OK\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n{body}".encode())
    except OSError as error: print(error)

family = socket.AF_INET6 if ":" in address else socket.AF_INET
listener = socket.create_server((address, int(port)), family=family)
print("serving", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


class Retrying(HelloServer):
    """A server that asks for another hello, unless the client has guessed its curve."""

    PORT = 9443

    def __init__(self, internet: Internet, directory: Path) -> None:
        super().__init__(internet, directory, ["/usr/bin/python3", "-c", RETRYING, plan.SINK4, str(self.PORT)])

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Meanwhile its kernel takes connections and what is sent, and nobody answers."""
        self._child.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._child.process.send_signal(signal.SIGCONT)


def second_hello(second: str, *options: str) -> list[str]:
    """The command that names plan.SINK first, and `second` when it is asked again."""
    return attack("second_hello", plan.SINK4, Retrying.PORT, plan.SINK, second, *options)
