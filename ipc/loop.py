"""One event loop for every process: descriptors, ZeroMQ sockets and timers, in one thread."""

import contextlib
import heapq
import itertools
import logging
import select
import time
from collections.abc import Callable

import zmq

log = logging.getLogger(__name__)

Callback = Callable[[], None]
LONGEST_WAIT_S = 60.0


class Timer:
    """A callback that is due once at `when` (monotonic seconds)."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callback) -> None:
        self.when = when
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        """Never call it; harmless if it has been called already."""
        self.callback = None


class Loop:
    """Calls back what is readable and what is due, until `stop`.

    An exception in a callback is logged and ends that callback only: one datagram, one message. Every wait is bounded.
    """

    def __init__(self) -> None:
        self._poller = zmq.Poller()
        self._descriptors = select.epoll()
        """Plain descriptors, as one among the ZeroMQ sockets: each that those are polled with takes as long as this."""
        self._poller.register(self._descriptors.fileno(), zmq.POLLIN)
        self._readers: dict[zmq.Socket[bytes] | int, Callback] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._before_wait: list[Callback] = []
        self._stopping = False
        self.failures = 0

    def add_reader(self, source: "zmq.Socket[bytes] | int", callback: Callback) -> None:
        """Calls `callback` while `source` (a ZeroMQ socket or a descriptor) can be read."""
        self._readers[source] = callback
        if isinstance(source, int):
            self._descriptors.register(source, select.EPOLLIN)
        else:
            self._poller.register(source, zmq.POLLIN)

    def remove_reader(self, source: "zmq.Socket[bytes] | int") -> None:
        """Forgets `source`; harmless if it is not known."""
        if self._readers.pop(source, None) is None:
            return
        if isinstance(source, int):
            with contextlib.suppress(OSError):  # one that has been closed is out of it
                self._descriptors.unregister(source)
        else:
            self._poller.unregister(source)

    def before_wait(self, callback: Callback) -> None:
        """Calls `callback` once each time round, before waiting: for work that gathers over a round."""
        self._before_wait.append(callback)

    def call_later(self, delay_s: float, callback: Callback) -> Timer:
        """Calls `callback` once, `delay_s` from now."""
        return self.call_at(time.monotonic() + delay_s, callback)

    def call_at(self, when: float, callback: Callback) -> Timer:
        """Calls `callback` once, at `when` (monotonic seconds)."""
        timer = Timer(when, callback)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def stop(self) -> None:
        """`run` returns after the present round."""
        self._stopping = True

    def close(self) -> None:
        """Gives its own descriptor back; it can't be run any more."""
        self._descriptors.close()

    def run(self) -> None:
        """Goes round until `stop`."""
        self._stopping = False
        while not self._stopping:
            self.run_once()

    def run_once(self, longest_wait_s: float = LONGEST_WAIT_S) -> None:
        """One round: what is due, what gathers, one bounded wait, what is readable."""
        self._call_due_timers()
        for callback in self._before_wait:
            self._call(callback)
        for source, _ in self._poller.poll(self._wait_ms(longest_wait_s)):
            if source == self._descriptors.fileno():
                for descriptor, _ in self._descriptors.poll(0):
                    self._call_reader(descriptor)
            else:
                self._call_reader(source)

    def _call_reader(self, source: "zmq.Socket[bytes] | int") -> None:
        reader = self._readers.get(source)
        if reader is not None:
            self._call(reader)

    def _wait_ms(self, longest_wait_s: float) -> int:
        if self._stopping:
            return 0
        wait_s = longest_wait_s
        if self._timers:
            wait_s = min(wait_s, self._timers[0][0] - time.monotonic())
        # Rounded up: a timer must not spin the loop in its last millisecond.
        return max(0, int(wait_s * 1000) + 1)

    def _call_due_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            callback, timer.callback = timer.callback, None
            if callback is not None:
                self._call(callback)

    def _call(self, callback: Callback) -> None:
        try:
            callback()
        except Exception:
            self.failures += 1
            log.exception("a callback failed; the process goes on")
