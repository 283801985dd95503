"""What an operator asks of the SAs, carried to the workers and their answers back: no more is read than must be.

Every worker is asked, since each knows but its own SAs, and the answers are made one. Each question has one end: that
answer, or that a worker does not answer, or that it died over it.
"""

import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ipc import messages as m
from ipc import wishes as w
from ipc.channel import Handler
from ipc.loop import Loop, Timer
from ipc.roles import name_of

log = logging.getLogger(__name__)

GRACE_S = 5.0
"""So much longer than it was told to take may the worker take to say that it did not succeed."""
LONGEST_S = 3600.0
MAX_OPEN = 256
NOT_READY = "the IKE worker is not ready: try again in a moment, or see ipsecctl status"

Part = w.SasListed | w.CaptureKeys


@dataclass(slots=True, kw_only=True)
class Asked:
    """A question on its way."""

    peer: bytes
    """Who has asked, on the control link."""
    verb: w.OperatorVerb
    timer: Timer
    waits_for: set[str]
    """The workers that have not answered to the end."""
    ended: list[w.WishEnded] = field(default_factory=list)
    failures: list[w.FailureTold] = field(default_factory=list)


class OperatorWishes:
    """Passes on. `to_worker` says whether the worker of that name could be told, `to_ctl` takes whom to tell.

    `workers` has the names of all workers; empty while not all are ready.
    """

    def __init__(
        self,
        loop: Loop,
        to_worker: Callable[[str, object], bool],
        to_ctl: Callable[[bytes, object], object],
        workers: Callable[[], tuple[str, ...]],
    ) -> None:
        self._loop = loop
        self._to_worker = to_worker
        self._to_ctl = to_ctl
        self._workers = workers
        self._ids = itertools.count(1)
        self._asked: dict[int, Asked] = {}

    def worker_handlers(self) -> dict[type, Handler]:
        """For the link to the workers."""
        return {
            w.WishEnded: lambda message, peer: self._on_ended(message, name_of(peer)),
            w.SasListed: lambda message, peer: self._on_part(message, w.OperatorVerb.LIST, name_of(peer)),
            w.FailureTold: lambda message, peer: self._on_failure(message, name_of(peer)),
            w.CaptureKeys: lambda message, peer: self._on_part(message, w.OperatorVerb.CAPTURE_KEYS, name_of(peer)),
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
        workers = self._workers()
        if not workers or not all(self._to_worker(worker, wish) for worker in workers):
            self._fail(peer, NOT_READY)
            return
        timer = self._loop.call_later(timeout_s + GRACE_S, lambda: self._on_silence(request_id))
        self._asked[request_id] = Asked(peer=peer, verb=command.verb, timer=timer, waits_for=set(workers))

    def worker_went(self, worker: str) -> None:
        """A worker has died: what it was asked it does not know any more."""
        for request_id in [number for number, asked in self._asked.items() if worker in asked.waits_for]:
            asked = self._take(request_id)
            if asked is not None:
                self._fail(asked.peer, "the IKE worker died over it; it is started again, and the SAs go on")

    def _on_ended(self, message: w.WishEnded, worker: str) -> None:
        asked = self._asked.get(message.request_id)
        if asked is not None and worker in asked.waits_for:
            asked.ended.append(message)
            self._heard(message.request_id, asked, worker)

    def _on_failure(self, message: w.FailureTold, worker: str) -> None:
        asked = self._asked.get(message.request_id)
        if asked is not None and asked.verb is w.OperatorVerb.WHY and worker in asked.waits_for:
            asked.failures.append(message)
            self._heard(message.request_id, asked, worker)

    def _on_part(self, message: Part, verb: w.OperatorVerb, worker: str) -> None:
        """Passed on only to whoever has asked for just that: a worker can't have keys shown to anybody else."""
        asked = self._asked.get(message.request_id)
        if asked is None or asked.verb is not verb or worker not in asked.waits_for:
            return
        is_end = message.last and asked.waits_for == {worker} and not asked.ended
        self._to_ctl(asked.peer, replace(message, last=is_end))
        if is_end:
            self._take(message.request_id)
        elif message.last:
            self._heard(message.request_id, asked, worker)

    def _heard(self, request_id: int, asked: Asked, worker: str) -> None:
        """`worker` has said all that it has to say."""
        asked.waits_for.discard(worker)
        if asked.waits_for:
            return
        self._take(request_id)
        if asked.failures:
            self._to_ctl(asked.peer, _newest_first(asked.failures))
        else:
            self._to_ctl(asked.peer, _one_end(asked))

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


def _one_end(asked: Asked) -> m.CommandDone:
    """What all workers together say: a worker that has nothing of what was asked about says nothing."""
    ended = [one for one in asked.ended if not one.nothing] or asked.ended[:1]
    failed = [one for one in ended if not one.done]
    lines = [line for one in failed or ended for line in one.lines]
    if asked.verb is not w.OperatorVerb.REKEY:  # which counts what each worker has done
        lines = list(dict.fromkeys(lines))
    return m.CommandDone(exit_code=1 if failed else 0, lines=tuple(lines))


def _newest_first(told: list[w.FailureTold]) -> w.FailureTold:
    """What each worker knows of failures, as one."""
    newest = min(told, key=lambda one: one.age_s)
    others = [w.PastFailure(failure=one.failure, age_s=one.age_s) for one in told if one is not newest]
    others += [past for one in told for past in one.earlier]
    return replace(newest, earlier=tuple(sorted(others, key=lambda past: past.age_s)[: w.MAX_EARLIER]))
