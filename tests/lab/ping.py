"""Pings with counts and loss, sub-second intervals, in the foreground or while something else goes on."""

import re
import subprocess
from dataclasses import dataclass

from tests.lab.namespaces import LabError, Namespace

_SUMMARY = re.compile(r"(\d+) packets transmitted, (\d+) received")
_ROUND_TRIP = re.compile(r"rtt min/avg/max/mdev = [\d.]+/([\d.]+)/([\d.]+)/")


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
        self._longest_s = count * interval_s * 3 + wait_s + 10.0
        source_option = ["-I", source] if source else []
        self._process = namespace.start(
            *("ping", "-n", "-q", "-c", str(count), "-i", f"{interval_s:g}", "-W", f"{wait_s:g}", "-s", str(size)),
            *source_option,
            destination,
        )

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
        return parse_summary(output)


def parse_summary(output: str) -> PingResult:
    """The result in what ping printed; LabError if there is none."""
    counts = _SUMMARY.search(output)
    if counts is None:
        raise LabError(f"ping: {output.strip()}")
    times = _ROUND_TRIP.search(output)
    return PingResult(
        sent=int(counts[1]),
        received=int(counts[2]),
        average_s=float(times[1]) / 1000 if times else 0.0,
        longest_s=float(times[2]) / 1000 if times else 0.0,
    )


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
