"""What start and stop say: to stdout and to syslog, a record a line; some detail to syslog only.

Spoken to syslog directly, as RFC 3164 section 4 and syslog(3) have it for a local socket. Without a syslog daemon, or
with one that does not read, everything still stands on stdout, and no more than SYSLOG_WAIT_S is lost over it.
"""

import contextlib
import os
import socket
import time

SYSLOG_SOCKET = "/dev/log"
SYSLOG_WAIT_S = 0.2
TAG = "ipsec_setup"
_DAEMON, _INFO = 3, 6
_PRIORITY = _DAEMON << 3 | _INFO
_MAX_LINE_BYTES = 900
"""RFC 3164 section 4.1: a packet has at most 1024 bytes."""


class Record:
    """The record of one command."""

    def __init__(self) -> None:
        self._syslog: socket.socket | None = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._syslog.settimeout(SYSLOG_WAIT_S)
        try:
            self._syslog.connect(SYSLOG_SOCKET)
        except OSError:
            self.close()

    def __enter__(self) -> "Record":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def say(self, *lines: str) -> None:
        """To stdout and to syslog."""
        for line in lines:
            # Whoever read our stdout may be gone: the command is carried out all the same.
            with contextlib.suppress(BrokenPipeError):
                print(line, flush=True)
            self.detail(line)

    def detail(self, line: str) -> None:
        """To syslog only."""
        if self._syslog is None:
            return
        plain = "".join(character if character.isprintable() else "?" for character in line).strip()
        stamp = time.strftime("%b %e %H:%M:%S")
        text = plain.encode(errors="replace")[:_MAX_LINE_BYTES].decode(errors="ignore")
        try:
            self._syslog.send(f"<{_PRIORITY}>{stamp} {TAG}[{os.getpid()}]: {text}".encode())
        except OSError:
            # It stands on stdout, and in the log of the instance. Whoever does not read is not waited for again.
            self.close()

    def close(self) -> None:
        """Says no more to syslog."""
        if self._syslog is not None:
            self._syslog.close()
            self._syslog = None
