"""A TLS server that skips warnings in front of a ClientHello: that of Go's standard library."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from . import plan
from .hello_server import HelloServer
from .internet import Internet

SERVER = """\
package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
)

func main() {
	pair, err := tls.LoadX509KeyPair(os.Args[2], os.Args[3])
	if err != nil {
		panic(err)
	}
	names, err := os.OpenFile(os.Args[4], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	config := &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		fmt.Fprintln(names, hello.ServerName)
		return &pair, nil
	}}
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		panic(err)
	}
	fmt.Println("serving")
	for {
		connection, err := listener.Accept()
		if err != nil {
			panic(err)
		}
		go tls.Server(connection, config).Handshake()
	}
}
"""


class Lenient(HelloServer):
    """A server that skips warnings."""

    PORT = 9444

    def __init__(self, internet: Internet, directory: Path) -> None:
        source, program = directory / "main.go", directory / "server"
        source.write_text(SERVER)
        environment = {**os.environ, "GO111MODULE": "off", "GOCACHE": str(directory / "cache"), "GOFLAGS": ""}
        subprocess.run(["go", "build", "-o", program, source], env=environment, check=True, timeout=300)
        super().__init__(internet, directory, [program, f"{plan.SINK4}:{self.PORT}"])
