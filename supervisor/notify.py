"""What the service manager that started ipsecd is told: sd_notify(3), a datagram to the socket in $NOTIFY_SOCKET.

Where nobody listens (no such variable) nothing is said. Nothing here waits: a manager that does not read must not
hold up the one that it watches.
"""

import logging
import os
import socket
import time

from ipc.loop import Loop

log = logging.getLogger(__name__)

SOCKET_VARIABLE = "NOTIFY_SOCKET"
WATCHDOG_VARIABLE = "WATCHDOG_USEC"
WATCHDOG_PID_VARIABLE = "WATCHDOG_PID"


def ready() -> None:
    """The start, or a reload, is complete."""
    _say("READY=1")


def reloading() -> None:
    """A reload begins; `ready` ends it, whatever came of it."""
    _say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping() -> None:
    """The stop begins."""
    _say("STOPPING=1")


def keep_watchdog(loop: Loop) -> None:
    """Says from `loop` that it still goes round, at half the time allowed, if the manager wants to hear that."""
    half_s = watchdog_s() / 2
    if not half_s:
        return

    def tick() -> None:
        loop.call_later(half_s, tick)
        _say("WATCHDOG=1")

    tick()


def watchdog_s() -> float:
    """How long the manager stands silence of this process, in seconds; 0 if for ever (sd_watchdog_enabled(3))."""
    wanted, pid = os.environ.get(WATCHDOG_VARIABLE, ""), os.environ.get(WATCHDOG_PID_VARIABLE, "")
    if not (wanted.isascii() and wanted.isdigit()) or pid not in ("", str(os.getpid())):
        return 0.0
    return int(wanted) / 1_000_000


def _say(*assignments: str) -> None:
    address = os.environ.get(SOCKET_VARIABLE, "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        # The kernel's spelling of a name in the abstract namespace (unix(7)).
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.sendto("\n".join(assignments).encode(), address)
        except OSError as error:
            log.warning("the service manager could not be told %s: %s", assignments[0], error.strerror)
