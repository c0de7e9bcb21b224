"""Asks the proxy of HTTPS_PROXY for a tunnel, and sends a text through it.

tunnel.py AUTHORITY TEXT
"""

from __future__ import annotations

import sys

import hello

connection = hello.connect_through_proxy(sys.argv[1])
connection.settimeout(hello.TIMEOUT)
connection.sendall(sys.argv[2].encode())
print(connection.recv(65536))
