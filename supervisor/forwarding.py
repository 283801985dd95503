"""net.ipv4.ip_forward of this network namespace: set as the policy says, and put back at the stop.

Only the first setting remembers what was there. It is saved before anything is changed, so that a stop after any
accident puts it back as well.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from ipc.types import IpForward

log = logging.getLogger(__name__)

IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_VALUES = {IpForward.ON: "1", IpForward.OFF: "0"}


class Forwarding:
    """The setting and what it was before. `save` writes the saved information."""

    def __init__(self, save: Callable[[], None]) -> None:
        self.before = ""
        """What stood there before it was set, "0" or "1"; empty while it is as it was found."""
        self._save = save

    def want(self, wish: IpForward) -> None:
        """Makes it as the policy in force says; OSError if the kernel refuses."""
        value = _VALUES.get(wish)
        if value is None:
            self.put_back()
            return
        present = IP_FORWARD.read_text().strip()
        if present == value:
            return
        if not self.before:
            self.before = present
            self._save()
        IP_FORWARD.write_text(value)
        log.info("ip_forward is %s now, it was %s", value, present)

    def put_back(self) -> str:
        """Puts back what was there before; a line for people, empty if there was nothing to do."""
        before, self.before = self.before, ""
        if not before:
            return ""
        IP_FORWARD.write_text(before)
        self._save()
        return f"ip_forward is {before} again"
