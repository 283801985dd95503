"""What the agent has found changed in the kernel behind its back, for status."""

import time
from collections.abc import Callable, Iterator

from ipc.messages import PolicyDrift
from ipc.status import Finding
from ipc.value import value

SHOWN_S = 600.0
"""So long status tells of it, or until a policy is enforced anew."""


@value
class _Seen:
    drift: PolicyDrift
    at: float
    times: int


class Drift:
    """The last one. `now` is monotonic seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._seen: _Seen | None = None

    def note(self, drift: PolicyDrift) -> None:
        """The agent has found it, and put it right or not."""
        times = self._seen.times + 1 if self._seen is not None else 1
        self._seen = _Seen(drift=drift, at=self._now(), times=times)

    def forget(self) -> None:
        """A policy has been enforced since."""
        self._seen = None

    def findings(self) -> Iterator[Finding]:
        """What there is to say; nothing if it is long past and was put right."""
        seen = self._seen
        if seen is None or (self._now() - seen.at > SHOWN_S and not seen.drift.failure):
            return
        often = f", for the {seen.times}th time" if seen.times > 3 else ""
        outcome = f"and could not be put right: {seen.drift.failure}" if seen.drift.failure else "and was put right"
        yield Finding(
            code="drift",
            sentence=f"policies in the kernel were not as installed{often}: {seen.drift.what}; "
            f"found {self._now() - seen.at:.0f} s ago, {outcome}",
        )
