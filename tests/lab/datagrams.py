"""A flood of datagrams from one namespace to another, counted to the last; flooder.py sends and receives it."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.lab.namespaces import LabError, Namespace

_FLOODER = str(Path(__file__).with_name("flooder.py"))
_SILENCE_S = 20.0
"""Only then is it clear that what has not come does not come."""
_FINISHED_WITHIN_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FloodResult:
    """What was counted."""

    sent: int
    refused: int
    """By the sender's own kernel."""
    received: int
    twice: int
    took_s: float

    def __str__(self) -> str:
        rate = self.sent / self.took_s if self.took_s else 0.0
        return f"{self.received} of {self.sent} arrived, {self.refused} refused, {rate:.0f} a second"


class RunningFlood:
    """`count` datagrams, `rate` a second at most, from now on."""

    def __init__(
        self, source: Namespace, source_address: str, destination: Namespace, destination_address: str, *, count: int
    ) -> None:
        port, rate = "7007", "10000"
        self._receiver = destination.start(
            *(sys.executable, "-I", _FLOODER, "receive", destination_address, port, str(count), f"{_SILENCE_S:g}")
        )
        if self._receiver.stdout is None or self._receiver.stdout.readline().strip() != "ready":
            raise LabError("the receiver of a flood does not start")
        self._sender = source.start(
            *(sys.executable, "-I", _FLOODER, "send", source_address, destination_address, port, str(count), rate)
        )

    def running(self) -> bool:
        """Whether it is still being sent."""
        return self._sender.poll() is None

    def finish(self) -> FloodResult:
        """Waits for its end and counts; LabError if that does not come."""
        try:
            sent = json.loads(self._sender.communicate(timeout=_FINISHED_WITHIN_S)[0])
            received = json.loads(self._receiver.communicate(timeout=_FINISHED_WITHIN_S)[0])
        except (subprocess.TimeoutExpired, ValueError) as error:
            raise LabError(f"a flood went wrong: {error}") from error
        return FloodResult(
            sent=sent["sent"],
            refused=sent["refused"],
            received=received["received"],
            twice=received["twice"],
            took_s=sent["took_s"],
        )
