"""Health: every role is asked every two seconds, and one that is silent for ten is killed and started again."""

from collections.abc import Callable
from dataclasses import dataclass

from ipc.patience import patient

INTERVAL_S = 2.0
SILENCE_S = patient(10.0)
"""A large policy adds to it: while a role works on one it can't answer."""
UNRESPONSIVE_S = patient(3.0)
"""From here on status names a role that owes an answer: well above the time that a busy one takes."""


@dataclass(slots=True)
class _Watched:
    unanswered_since: float | None = None
    refused_messages: int = 0


class Watchdog:
    """Who owes an answer, and since when; a role is meant by its process's name.

    `ask(role, sequence)` sends a HealthQuestion, and says whether it went.
    """

    def __init__(self, ask: Callable[[str, int], bool]) -> None:
        self._ask = ask
        self._sequence = 0
        self._last_tick: float | None = None
        self._watched: dict[str, _Watched] = {}

    def watch(self, role: str) -> None:
        """A process of `role` has come up; what an earlier one owed is forgotten."""
        self._watched[role] = _Watched()

    def forget(self, role: str) -> None:
        """There is no process of `role` now."""
        self._watched.pop(role, None)

    def answered(self, role: str, sequence: int, refused_messages: int) -> None:
        """`role` has answered a question."""
        watched = self._watched.get(role)
        if watched is not None and sequence <= self._sequence:
            watched.unanswered_since = None
            watched.refused_messages = refused_messages

    def refused_messages(self, role: str) -> int:
        """How many messages the present process of `role` says it has refused."""
        watched = self._watched.get(role)
        return watched.refused_messages if watched is not None else 0

    def silent_s(self, role: str, now: float) -> float:
        """For how long `role` has owed an answer; 0 if it owes none, or if nobody has had time to hear it."""
        watched = self._watched.get(role)
        if watched is None or watched.unanswered_since is None or self._stood_still(now):
            return 0.0
        return now - watched.unanswered_since

    def tick(self, now: float, more_s: float = 0.0) -> tuple[str, ...]:
        """Asks everybody; the roles that have been silent for too long, which is `more_s` longer than usual."""
        late = self._stood_still(now)
        self._last_tick = now
        self._sequence += 1
        silent = []
        for role, watched in self._watched.items():
            if late and watched.unanswered_since is not None:
                # Answers may wait unread.
                watched.unanswered_since = now
            if watched.unanswered_since is not None and now - watched.unanswered_since >= SILENCE_S + more_s:
                silent.append(role)
                continue
            self._ask(role, self._sequence)
            if watched.unanswered_since is None:
                watched.unanswered_since = now
        return tuple(silent)

    def _stood_still(self, now: float) -> bool:
        """Whether it is the supervisor that has been silent (SIGSTOP, a frozen machine)."""
        return self._last_tick is not None and now - self._last_tick > 2 * INTERVAL_S
