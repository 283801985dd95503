"""Pings with counts and loss, in the foreground or while something else goes on; pinger.py sends them."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.lab.namespaces import LabError, Namespace

_PINGER = Path(__file__).with_name("pinger.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class PingResult:
    """What ping counted. Times are seconds; zero where nothing came back."""

    sent: int
    received: int
    average_s: float
    longest_s: float

    @property
    def lost(self) -> int:
        """How many were not answered."""
        return self.sent - self.received

    def __str__(self) -> str:
        return (
            f"{self.received} of {self.sent} answered, average {self.average_s * 1000:.1f} ms, "
            f"longest {self.longest_s * 1000:.0f} ms"
        )


class RunningPing:
    """`count` pings, `interval_s` apart, from now on; each may take `wait_s` to be answered."""

    def __init__(
        self,
        namespace: Namespace,
        destination: str,
        *,
        source: str | None = None,
        count: int = 1,
        interval_s: float = 0.2,
        wait_s: float = 2.0,
        size: int = 56,
    ) -> None:
        self._longest_s = count * interval_s * 3 + wait_s + 20.0
        numbers = (str(count), f"{interval_s:g}", f"{wait_s:g}", str(size))
        self._process = namespace.start(sys.executable, "-I", str(_PINGER), destination, source or "", *numbers)

    def running(self) -> bool:
        """Whether pings are still being sent."""
        return self._process.poll() is None

    def finish(self) -> PingResult:
        """Waits for the last one and counts; LabError where ping could not work at all."""
        try:
            output, _ = self._process.communicate(timeout=self._longest_s)
        except subprocess.TimeoutExpired as error:
            self._process.kill()
            raise LabError(f"ping was not finished after {self._longest_s:g} s") from error
        if self._process.returncode != 0:
            raise LabError(f"pinging does not work: {output.strip()[-500:]}")
        return PingResult(**json.loads(output))


def ping(
    namespace: Namespace,
    destination: str,
    *,
    source: str | None = None,
    count: int = 1,
    interval_s: float = 0.2,
    wait_s: float = 2.0,
    size: int = 56,
) -> PingResult:
    """Pings and counts; see RunningPing."""
    return RunningPing(
        namespace, destination, source=source, count=count, interval_s=interval_s, wait_s=wait_s, size=size
    ).finish()
