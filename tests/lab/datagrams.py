"""A flood of datagrams from one namespace to another, counted to the last; flooder.py sends and receives it."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.lab.namespaces import LabError, Namespace

_FLOODER = str(Path(__file__).with_name("flooder.py"))
_PORT, _RATE, _AT_MOST = "7007", "10000", "1000000"
_FINISHED_WITHIN_S = 60.0


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
    """Datagrams, 10,000 a second at most, from now until `finish`."""

    def __init__(
        self, source: Namespace, source_address: str, destination: Namespace, destination_address: str
    ) -> None:
        self._receiver = destination.start(
            *(sys.executable, "-I", _FLOODER, "receive", destination_address, _PORT),
        )
        if self._receiver.stdout is None or self._receiver.stdout.readline().strip() != "ready":
            raise LabError("the receiver of a flood does not start")
        numbers = (_PORT, _AT_MOST, _RATE)
        self._sender = source.start(
            *(sys.executable, "-I", _FLOODER, "send", source_address, destination_address, *numbers)
        )

    def running(self) -> bool:
        """Whether it is still being sent."""
        return self._sender.poll() is None

    def finish(self) -> FloodResult:
        """Ends it and counts; LabError if that does not work."""
        try:
            sent, received = (json.loads(_last_words(one)) for one in (self._sender, self._receiver))
        except (subprocess.TimeoutExpired, ValueError) as error:
            raise LabError(f"a flood went wrong: {error}") from error
        return FloodResult(
            sent=sent["sent"],
            refused=sent["refused"],
            received=received["received"],
            twice=received["twice"],
            took_s=sent["took_s"],
        )


def _last_words(process: "subprocess.Popen[str]") -> str:
    process.terminate()
    return process.communicate(timeout=_FINISHED_WITHIN_S)[0]
