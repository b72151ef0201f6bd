"""Run a program on a disk that can be full: `python full_disk.py FOLDER SWITCH PROGRAM…`.

As long as the file SWITCH exists, the kernel answers ENOSPC to whatever the program and its children write to files
below FOLDER; what is there can be read and removed. No mount and no privilege is needed: a seccomp filter hands each
write to a second process, which looks at the file. Linux from 5.5 on.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import socket
import struct
import sys
from pathlib import Path

_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER, _FLAG_NEW_LISTENER = 1, 8
_RET_ALLOW, _RET_USER_NOTIF = 0x7FFF0000, 0x7FC00000
_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV and _SEND
_CONTINUE = 1
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # classic BPF

# The number of `seccomp`, and of each call that stores bytes, with the place of its file among the arguments:
# write, writev, pwrite64, pwritev, fallocate, copy_file_range.
_CALLS: dict[str, tuple[int, dict[int, int]]] = {
    "x86_64": (317, {1: 0, 20: 0, 18: 0, 296: 0, 285: 0, 326: 2}),
    "aarch64": (277, {64: 0, 66: 0, 68: 0, 70: 0, 47: 0, 285: 2}),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def main(folder: str, switch: str, *program: str) -> None:
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        (listener,) = socket.recv_fds(theirs, 1, 1)[1]
        _decide(listener, Path(folder).resolve(), Path(switch))
        os._exit(0)
    theirs.close()
    listener = _filter_writes()
    socket.send_fds(ours, [b"x"], [listener])
    os.close(listener)
    ours.close()
    os.execvp(program[0], program)


def _filter_writes() -> int:
    """Let the kernel ask before each write of this process; the descriptor that it asks through."""
    seccomp, calls = _CALLS[platform.machine()]
    lines = [(_LOAD, 0, 0, 0)]
    lines += [(_JUMP_IF_EQUAL, len(calls) - place, 0, number) for place, number in enumerate(calls)]
    lines += [(_RETURN, 0, 0, _RET_ALLOW), (_RETURN, 0, 0, _RET_USER_NOTIF)]
    filter = _Program(len(lines), b"".join(struct.pack("HBBI", *line) for line in lines))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    listener: int = libc.syscall(seccomp, _SET_MODE_FILTER, _FLAG_NEW_LISTENER, ctypes.byref(filter))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return listener


def _decide(listener: int, folder: Path, switch: Path) -> None:
    """Answer until no process is left that could write."""
    _, calls = _CALLS[platform.machine()]
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while True:
        ((_, events),) = poll.poll()
        if events & select.POLLHUP:
            return
        question = bytearray(80)
        try:
            fcntl.ioctl(listener, _RECEIVE, question)
            key, pid, _, number = struct.unpack_from("QIIi", question)
            file = struct.unpack_from("Q", question, 32 + 8 * calls[number])[0]
            full = switch.exists() and _path_of(pid, file).is_relative_to(folder)
            answer = (key, 0, -errno.ENOSPC, 0) if full else (key, 0, 0, _CONTINUE)
            fcntl.ioctl(listener, _SEND, bytearray(struct.pack("QqiI", *answer)))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINTR):  # it has ended, or was interrupted and asks again
                raise


def _path_of(pid: int, file: int) -> Path:
    try:
        return Path(f"/proc/{pid}/fd/{file}").readlink()
    except OSError:
        return Path("gone")


if __name__ == "__main__":
    main(*sys.argv[1:])
