"""What an operator asks of the SAs, carried to the worker and its answers back: no more is read of either than must be.

Each question has one end: the worker's answer, or that the worker does not answer, or that it died over it.
"""

import itertools
import logging
from collections.abc import Callable

from ipc import messages as m
from ipc import wishes as w
from ipc.channel import Handler
from ipc.loop import Loop, Timer
from ipc.value import value

log = logging.getLogger(__name__)

GRACE_S = 5.0
"""So much longer than it was told to take may the worker take to say that it did not succeed."""
LONGEST_S = 3600.0
MAX_OPEN = 256
NOT_READY = "the IKE worker is not ready: try again in a moment, or see ipsecctl status"

Answer = w.SasListed | w.FailureTold | w.CaptureKeys


@value
class Asked:
    """A question on its way."""

    peer: bytes
    """Who has asked, on the control link."""
    verb: w.OperatorVerb
    timer: Timer


class OperatorWishes:
    """Passes on. `to_worker` says whether the worker could be told, `to_ctl` takes whom to tell."""

    def __init__(
        self,
        loop: Loop,
        to_worker: Callable[[object], bool],
        to_ctl: Callable[[bytes, object], object],
        worker_ready: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._to_worker = to_worker
        self._to_ctl = to_ctl
        self._worker_ready = worker_ready
        self._ids = itertools.count(1)
        self._asked: dict[int, Asked] = {}

    def worker_handlers(self) -> dict[type, Handler]:
        """For the link to the worker."""
        return {
            w.WishEnded: lambda message, _peer: self._on_ended(message),
            w.SasListed: lambda message, _peer: self._on_answer(message, w.OperatorVerb.LIST, message.last),
            w.FailureTold: lambda message, _peer: self._on_answer(message, w.OperatorVerb.WHY, True),
            w.CaptureKeys: lambda message, _peer: self._on_answer(message, w.OperatorVerb.CAPTURE_KEYS, message.last),
        }

    def on_command(self, command: w.OperatorCommand, peer: bytes) -> None:
        """An operator asks."""
        if command.verb is w.OperatorVerb.CAPTURE_KEYS:
            log.warning("capture keys of %s are asked for by %s", command.target or "all peers", command.asker)
        if len(self._asked) >= MAX_OPEN:
            self._fail(peer, f"{MAX_OPEN} commands wait already")
            return
        timeout_s = min(command.timeout_s, LONGEST_S)
        request_id = next(self._ids)
        wish = w.OperatorWish(request_id=request_id, verb=command.verb, target=command.target, timeout_s=timeout_s)
        if not self._worker_ready() or not self._to_worker(wish):
            self._fail(peer, NOT_READY)
            return
        timer = self._loop.call_later(timeout_s + GRACE_S, lambda: self._on_silence(request_id))
        self._asked[request_id] = Asked(peer=peer, verb=command.verb, timer=timer)

    def worker_went(self) -> None:
        """The worker has died: what it was asked it does not know any more."""
        for request_id in list(self._asked):
            asked = self._take(request_id)
            if asked is not None:
                self._fail(asked.peer, "the IKE worker died over it; it is started again, and the SAs go on")

    def _on_ended(self, message: w.WishEnded) -> None:
        asked = self._take(message.request_id)
        if asked is not None:
            self._to_ctl(asked.peer, m.CommandDone(exit_code=0 if message.done else 1, lines=message.lines))

    def _on_answer(self, message: Answer, verb: w.OperatorVerb, last: bool) -> None:
        """Passed on only to whoever has asked for just that: a worker can't have keys shown to anybody else."""
        asked = self._asked.get(message.request_id)
        if asked is None or asked.verb is not verb:
            return
        self._to_ctl(asked.peer, message)
        if last:
            self._take(message.request_id)

    def _on_silence(self, request_id: int) -> None:
        asked = self._take(request_id)
        if asked is not None:
            self._fail(asked.peer, "the IKE worker does not answer")

    def _take(self, request_id: int) -> Asked | None:
        asked = self._asked.pop(request_id, None)
        if asked is not None:
            asked.timer.cancel()
        return asked

    def _fail(self, peer: bytes, reason: str) -> None:
        self._to_ctl(peer, m.CommandDone(exit_code=1, lines=(reason,)))
