"""Packets that wait for an SA, so that the first one of a flow is not lost, and when to ask for that SA. Pure."""

from collections import deque
from collections.abc import Collection

from ipc.value import value

MAX_PER_RULE = 32
MAX_PACKETS = 4096
MAX_WAIT_S = 5.0
ACQUIRE_INTERVAL_S = 1.0


@value
class _Packet:
    since: float
    data: bytes


class WaitingRoom:
    """Queues by rule, bounded in number and age. Acquire ids count up from `first_acquire_id`, which is not 0."""

    def __init__(self, first_acquire_id: int) -> None:
        self._queues: dict[int, deque[_Packet]] = {}
        self._count = 0
        self._asked_at: dict[int, float] = {}
        self._next_acquire_id = first_acquire_id

    def enter(self, rule_id: int, packet: bytes, now: float) -> bool:
        """Lets a packet wait for the rule's SA; False if the queue is full."""
        queue = self._queues.setdefault(rule_id, deque())
        if len(queue) >= MAX_PER_RULE or self._count >= MAX_PACKETS:
            return False
        queue.append(_Packet(since=now, data=packet))
        self._count += 1
        return True

    def acquire_id(self, rule_id: int, now: float) -> int:
        """An id for an Acquire for this rule, or 0: it has been asked a moment ago."""
        asked = self._asked_at.get(rule_id)
        if asked is not None and now - asked < ACQUIRE_INTERVAL_S:
            return 0
        self._asked_at[rule_id] = now
        number = self._next_acquire_id
        self._next_acquire_id = number % 0xFFFFFFFF + 1
        return number

    def leave(self, rule_id: int) -> list[bytes]:
        """All packets that wait for this rule, oldest first."""
        self._asked_at.pop(rule_id, None)
        queue = self._queues.pop(rule_id, deque())
        self._count -= len(queue)
        return [packet.data for packet in queue]

    def expire(self, now: float) -> int:
        """Drops those that waited too long; how many."""
        before = self._count
        for rule_id in list(self._queues):
            queue = self._queues[rule_id]
            while queue and now - queue[0].since >= MAX_WAIT_S:
                queue.popleft()
                self._count -= 1
            if not queue:
                del self._queues[rule_id]
        self._asked_at = {rule: when for rule, when in self._asked_at.items() if now - when < ACQUIRE_INTERVAL_S}
        return before - self._count

    def keep_rules(self, rules: Collection[int]) -> int:
        """Drops what waits for other rules; how many packets."""
        return sum(len(self.leave(rule_id)) for rule_id in set(self._queues) - set(rules))
