"""Lines for the auth log, spoken to syslog directly, as RFC 3164 section 4 and syslog(3) have it for a local socket.

Nothing here ever waits or raises: what syslog does not take is lost to it, and stands in the log of the instance.
"""

import os
import socket
import time

SOCKET = "/dev/log"
TAG = "ipsecd"
_AUTH, _INFO = 4, 6
_PRIORITY = _AUTH << 3 | _INFO


class AuthLog:
    """A connection to syslog, made when it is needed, and made again when syslog was started again."""

    def __init__(self, path: str = SOCKET) -> None:
        self._path = path
        self._socket: socket.socket | None = None

    def say(self, line: str) -> bool:
        """Logs one line under facility auth; whether syslog has taken it."""
        plain = "".join(character if character.isprintable() else "?" for character in line)
        stamp = time.strftime("%b %e %H:%M:%S")
        data = f"<{_PRIORITY}>{stamp} {TAG}[{os.getpid()}]: {plain}".encode()
        return self._send(data) or (self._connect() and self._send(data))

    def close(self) -> None:
        """Says no more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self) -> bool:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            made.connect(self._path)
        except OSError:
            made.close()
            return False
        self._socket = made
        return True

    def _send(self, data: bytes) -> bool:
        if self._socket is None:
            return False
        try:
            self._socket.send(data)
        except BlockingIOError:
            return True  # It is there and does not keep up; another connection would not help.
        except OSError:
            self.close()
            return False
        return True
