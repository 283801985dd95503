"""Rules that are to have a Child SA always, and those that are to have none: start actions and end actions.

RFC 7296 leaves to the policy what follows when a peer closes an SA or is silent (sections 1.4.1 and 2.4): the next
packet negotiates anew, or we do at once, or nobody does until an operator or the peer says so.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ipc.types import EndAction

FIRST_RETRY_S = 5.0
LAST_RETRY_S = 300.0


@dataclass(slots=True)
class _Try:
    """When to try next, and how long to wait after that."""

    at: float
    delay_s: float


class Upkeep:
    """By rule; kept over policies that have the same rule. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._tries: dict[int, _Try] = {}
        self._next_due = math.inf
        """The earliest of them."""
        self.cleared: set[int] = set()
        """Those for which packets do not make us negotiate."""
        self.left: set[int] = set()
        """Those that were ended, by whomever, and are not brought up again by a start."""
        self.changed = False
        """One of these two, or `wanted`, since somebody set it to False."""
        self.settled = False
        """Only that `wanted` has become less, by rules that stand now. That need not be known at once: they stand."""

    @property
    def wanted(self) -> set[int]:
        """Those that are tried until they have a Child SA."""
        return set(self._tries)

    def want(self, rule_id: int) -> None:
        """It is to have a Child SA: whoever calls tries now; this tries again until there is one."""
        self._revive(rule_id)
        self.changed = self.changed or rule_id not in self._tries
        self._tries[rule_id] = _Try(math.inf, FIRST_RETRY_S)

    def failed(self, rule_id: int, now: float) -> None:
        """A try came to nothing."""
        one = self._tries.get(rule_id)
        if one is not None:
            one.at, one.delay_s = now + one.delay_s, min(2 * one.delay_s, LAST_RETRY_S)
            self._next_due = min(self._next_due, one.at)

    def stands(self, rule_id: int) -> None:
        """It has one, whoever asked for it."""
        self.settled = self._forget_tries(rule_id) or self.settled
        self._revive(rule_id)

    def _forget_tries(self, rule_id: int) -> bool:
        one = self._tries.pop(rule_id, None)
        if one is not None and not math.isinf(one.at):
            self._look_when()
        return one is not None

    def _revive(self, rule_id: int) -> None:
        self.changed = self.changed or rule_id in self.left
        self.cleared.discard(rule_id)
        self.left.discard(rule_id)

    def _leave(self, rule_id: int) -> None:
        self.left.add(rule_id)
        self.changed = True

    def end(self, rule_id: int, action: EndAction) -> bool:
        """It has lost its Child SA against our will; whether to negotiate at once."""
        if action is EndAction.START:
            return True
        if action is EndAction.CLEAR:
            self.cleared.add(rule_id)
        self._leave(rule_id)
        return False

    def give_up(self, rule_id: int) -> None:
        """An operator wants none."""
        self._forget_tries(rule_id)
        self._leave(rule_id)

    def keep_only(self, rule_ids: Iterable[int]) -> None:
        """There is a new policy."""
        kept = set(rule_ids)
        self._tries = {rule_id: one for rule_id, one in self._tries.items() if rule_id in kept}
        self._look_when()
        self.cleared &= kept
        self.left &= kept

    @property
    def next_due(self) -> float:
        """When the next one is to be tried again."""
        return self._next_due

    def take_due(self, now: float) -> list[int]:
        """Those whose time has come; they are being tried."""
        if now < self._next_due:
            return []
        due = [rule_id for rule_id, one in self._tries.items() if one.at <= now]
        for rule_id in due:
            self._tries[rule_id].at = math.inf
        self._look_when()
        return due

    def _look_when(self) -> None:
        self._next_due = min((one.at for one in self._tries.values()), default=math.inf)
