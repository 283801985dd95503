"""What happens, told live to those who listen (`ipsecctl monitor`).

A listener gets the next events when it has taken those before. Whoever is too slow loses events and is told how many;
nobody is waited for, and whoever is gone is found gone at the next event.
"""

import logging
import time
from collections import deque
from collections.abc import Callable

from ipc import wishes as w
from ipc.messages import RULES_PER_MESSAGE

log = logging.getLogger(__name__)

MAX_LISTENERS = 32
MAX_WAITING = 1000
"""Events that wait for one listener."""


class Listener:
    """One listener: what waits for it, and whether it has taken what it was sent."""

    __slots__ = ("lost", "sent", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[w.LiveEvent] = deque()
        self.lost = 0
        self.sent = False


class Monitor:
    """Tells. `send` takes whom to tell and says whether it is there; `watch` tells the worker if anybody listens."""

    def __init__(self, send: Callable[[bytes, object], bool], watch: Callable[[bool], object]) -> None:
        self._send = send
        self._watch = watch
        self._listeners: dict[bytes, Listener] = {}

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def on_listen(self, _message: w.MonitorCommand, peer: bytes) -> None:
        """Somebody wants to know. Of too many, the first goes."""
        if len(self._listeners) >= MAX_LISTENERS:
            self._listeners.pop(next(iter(self._listeners)))
        self._listeners[peer] = Listener()
        self._watch(True)
        self._tell(peer, w.LiveEvent(at=time.time(), kind="monitoring", text="listening"))

    def on_taken(self, _message: w.MonitorTaken, peer: bytes) -> None:
        """A listener wants more."""
        listener = self._listeners.get(peer)
        if listener is not None:
            listener.sent = False
            self._go_on(peer, listener)

    def worker_came(self) -> None:
        """A new worker does not know whether anybody listens."""
        if self._listeners:
            self._watch(True)

    def say(self, kind: str, text: str, *, reason: str = "") -> None:
        """This has happened now."""
        if self._listeners:
            self.tell((w.LiveEvent(at=time.time(), kind=kind, text=text, reason=reason),))

    def tell(self, events: tuple[w.LiveEvent, ...]) -> None:
        """These have happened."""
        for peer in list(self._listeners):
            for event in events:
                self._tell(peer, event)

    def _tell(self, peer: bytes, event: w.LiveEvent) -> None:
        listener = self._listeners.get(peer)
        if listener is None:
            return
        if len(listener.waiting) >= MAX_WAITING:
            listener.waiting.popleft()
            listener.lost += 1
        listener.waiting.append(event)
        self._go_on(peer, listener)

    def _go_on(self, peer: bytes, listener: Listener) -> None:
        if listener.sent or not listener.waiting:
            return
        count = min(len(listener.waiting), RULES_PER_MESSAGE)
        events = tuple(listener.waiting.popleft() for _ in range(count))
        lost, listener.lost, listener.sent = listener.lost, 0, True
        if not self._send(peer, w.MonitorEvents(events=events, lost=lost)):
            del self._listeners[peer]
            if not self._listeners:
                self._watch(False)
