"""Runs a command that may make no user namespace, as under a container engine's system call filter.

    forbid.py COMMAND…
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, MODE_FILTER = 38, 22, 2
SYS_UNSHARE = {"x86_64": 272, "aarch64": 97}[os.uname().machine]
EPERM = 0x00050000 | 1
ALLOW = 0x7FFF0000


def instruction(code: int, if_true: int, if_false: int, value: int) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


PROGRAM = b"".join(
    (
        instruction(0x20, 0, 0, 0),  # the system call's number
        instruction(0x15, 0, 1, SYS_UNSHARE),
        instruction(0x06, 0, 0, EPERM),
        instruction(0x06, 0, 0, ALLOW),
    )
)


class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


libc = ctypes.CDLL(None, use_errno=True)
program = Filter(len(PROGRAM) // 8, PROGRAM)
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(program)):
    raise OSError(ctypes.get_errno(), "cannot install a filter")
os.execvp(sys.argv[1], sys.argv[1:])
