"""The status socket: who connects gets the status, as JSON, in a descriptor; nothing is asked and nothing is read.

It stands beside the links because `ipsecctl status` should be quick: to load ZeroMQ and all messages takes several
times as long as all else that it does. The supervisor never waits for a reader: the text is in a file of its own
(memfd_create(2)), whose descriptor goes out in one datagram of a few bytes.
"""

import os
import socket
import struct
import time

STATUS_SOCKET = "status"
BACKLOG = 16
_SO_PEERCRED_BYTES = struct.calcsize("3i")


class NoStatus(Exception):
    """There is nobody to say it, or not in time; the text says which."""


def status_socket_path(run_directory: str) -> str:
    """The socket file of an instance."""
    return f"{run_directory}/links/{STATUS_SOCKET}"


def listen(run_directory: str) -> socket.socket:
    """Makes the socket file, for root alone; OSError if it is there already."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    umask = os.umask(0o177)
    try:
        listener.bind(status_socket_path(run_directory))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(umask)
    return listener


def accept(listener: socket.socket) -> socket.socket | None:
    """The next reader; None if it is gone again, or is not root."""
    try:
        reader, _ = listener.accept()
    except (BlockingIOError, ConnectionError):
        return None
    _pid, uid, _gid = struct.unpack("3i", reader.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _SO_PEERCRED_BYTES))
    if uid != 0:
        reader.close()
        return None
    return reader


def say(reader: socket.socket, text: str) -> None:
    """Gives `text` to a reader and lets it go; never waits. OSError if it can't be."""
    with reader, os.fdopen(os.memfd_create("status", os.MFD_CLOEXEC), "w+", encoding="utf-8") as file:
        file.write(text)
        file.seek(0)
        reader.setblocking(False)
        socket.send_fds(reader, [b"status"], [file.fileno()])


def ask(run_directory: str, timeout_s: float) -> str:
    """The status of an instance, as JSON; NoStatus if it does not come within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as own:
        own.settimeout(timeout_s)
        try:
            own.connect(status_socket_path(run_directory))
            own.settimeout(max(0.001, deadline - time.monotonic()))
            _, descriptors, _, _ = socket.recv_fds(own, 16, 1)
        except OSError as error:
            raise NoStatus(str(error)) from error
    if not descriptors:
        raise NoStatus("the connection was closed without an answer")
    with os.fdopen(descriptors[0], encoding="utf-8") as file:
        return file.read()
