"""What an operator asks of the SAs goes to the worker, and each question has one end."""

from typing import Any

import pytest

from ipc import messages as m
from ipc import wishes as w
from ipc.loop import Loop
from ipc.types import Secret
from supervisor import operator_wishes
from supervisor.operator_wishes import MAX_OPEN, NOT_READY, OperatorWishes
from tests.lab.waiting import wait_until

FAILURE = w.Failure(
    peer="branch", rule="", remote="192.0.2.1:500", at=1.0, exchange="", notify="", by_peer=False, sentence="so"
)


class Desk:
    """Wishes between a worker and a control link that are lists."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.to_worker: list[w.OperatorWish] = []
        self.told: list[tuple[bytes, Any]] = []
        self.worker_ready = True
        self.wishes = OperatorWishes(
            self.loop, self._wish, self._tell, lambda: ("ike_worker",) if self.worker_ready else ()
        )

    def _wish(self, _worker: str, message: object) -> bool:
        assert isinstance(message, w.OperatorWish)
        self.to_worker.append(message)
        return True

    def _tell(self, peer: bytes, message: object) -> None:
        self.told.append((peer, message))

    def ask(self, verb: w.OperatorVerb, target: str = "x", peer: bytes = b"ctl", timeout_s: float = 30.0) -> int:
        command = w.OperatorCommand(verb=verb, target=target, timeout_s=timeout_s, asker="alice (login uid 1000)")
        self.wishes.on_command(command, peer)
        return self.to_worker[-1].request_id if self.to_worker else 0

    def answer(self, message: object) -> None:
        self.wishes.worker_handlers()[type(message)](message, b"ike_worker")

    def done(self, peer: bytes = b"ctl") -> m.CommandDone:
        (message,) = [message for to, message in self.told if to == peer]
        assert isinstance(message, m.CommandDone)
        return message


def test_a_wish_goes_to_the_worker_and_its_end_to_who_asked() -> None:
    desk = Desk()
    first, second = desk.ask(w.OperatorVerb.UP, "lan", b"one"), desk.ask(w.OperatorVerb.DOWN, "lan", b"two")
    assert [(wish.verb, wish.target) for wish in desk.to_worker] == [
        (w.OperatorVerb.UP, "lan"),
        (w.OperatorVerb.DOWN, "lan"),
    ]
    desk.answer(w.WishEnded(request_id=second, done=True, lines=("lan is down",)))
    desk.answer(w.WishEnded(request_id=first, done=False, lines=("no",)))
    assert (desk.done(b"two").exit_code, desk.done(b"two").lines) == (0, ("lan is down",))
    assert (desk.done(b"one").exit_code, desk.done(b"one").lines) == (1, ("no",))
    desk.answer(w.WishEnded(request_id=first, done=True, lines=()))
    assert len(desk.told) == 2


def test_a_list_goes_on_until_its_last_part() -> None:
    desk = Desk()
    number = desk.ask(w.OperatorVerb.LIST)
    parts = [w.SasListed(request_id=number, ike_sas=(), last=last) for last in (False, True, True)]
    for part in parts:
        desk.answer(part)
    assert [message for _peer, message in desk.told] == parts[:2]


def test_keys_go_to_nobody_who_has_not_asked_for_them() -> None:
    desk = Desk()
    number = desk.ask(w.OperatorVerb.WHY)
    keys = w.CaptureKeys(request_id=number, ike_sas=(), esp_sas=(), last=True)
    desk.answer(keys)
    assert desk.told == []
    desk.answer(w.FailureTold(request_id=number, failure=FAILURE, age_s=1.0))
    assert len(desk.told) == 1


def test_who_asks_for_keys_is_logged_and_they_are_not(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    number = desk.ask(w.OperatorVerb.CAPTURE_KEYS, "branch")
    assert "capture keys of branch are asked for by alice (login uid 1000)" in caplog.text
    secret = Secret(b"0123456789abcdef")
    ike_sa = w.IkeSaKeys(
        peer="branch",
        spi_i=bytes(8),
        spi_r=bytes(8),
        cipher=m.Cipher(id=20, key_bits=256),  # type: ignore[arg-type]
        integrity=m.IntegrityId.NONE,
        sk_ei=secret,
        sk_er=secret,
        sk_ai=secret,
        sk_ar=secret,
    )
    answer = w.CaptureKeys(request_id=number, ike_sas=(ike_sa,), esp_sas=(), last=True)
    desk.answer(answer)
    assert desk.told == [(b"ctl", answer)]
    assert "0123456789abcdef" not in caplog.text + repr(answer)


def test_a_worker_that_dies_over_it_or_is_not_there() -> None:
    desk = Desk()
    desk.ask(w.OperatorVerb.UP)
    desk.wishes.worker_went("ike_worker")
    assert (desk.done().exit_code, "died" in desk.done().lines[0]) == (1, True)
    desk.worker_ready = False
    desk.ask(w.OperatorVerb.UP, peer=b"next")
    assert desk.done(b"next").lines == (NOT_READY,)


def test_a_worker_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_wishes, "GRACE_S", 0.01)
    desk = Desk()
    desk.ask(w.OperatorVerb.UP, timeout_s=0.01)

    def is_told() -> bool:
        desk.loop.run_once(0.1)
        return bool(desk.told)

    wait_until("the operator is told", is_told)
    assert desk.done().lines == ("the IKE worker does not answer",)


def test_so_many_wait_and_no_more() -> None:
    desk = Desk()
    for _ in range(MAX_OPEN + 1):
        desk.ask(w.OperatorVerb.UP)
    assert len(desk.to_worker) == MAX_OPEN
    assert desk.done().exit_code == 1


class Desks(Desk):
    """The same with two workers."""

    def __init__(self) -> None:
        super().__init__()
        workers = ("ike_worker", "ike_worker-1")
        self.wishes = OperatorWishes(self.loop, self._wish, self._tell, lambda: workers)

    def say(self, worker: int, message: object) -> None:
        self.wishes.worker_handlers()[type(message)](message, b"ike_worker-1" if worker else b"ike_worker")


def test_all_workers_are_asked_and_one_that_has_nothing_says_nothing() -> None:
    desk = Desks()
    number = desk.ask(w.OperatorVerb.REKEY, "lan")
    assert len(desk.to_worker) == 2
    desk.say(0, w.WishEnded(request_id=number, done=False, lines=("lan has no SA",), nothing=True))
    assert desk.told == []
    desk.say(0, w.WishEnded(request_id=number, done=True, lines=("said twice",)))
    assert desk.told == []
    desk.say(1, w.WishEnded(request_id=number, done=True, lines=("1 Child SAs are rekeyed",)))
    assert (desk.done().exit_code, desk.done().lines) == (0, ("1 Child SAs are rekeyed",))


def test_a_failure_in_one_worker_is_the_end_of_all_of_it() -> None:
    desk = Desks()
    number = desk.ask(w.OperatorVerb.DOWN, "lan")
    desk.say(0, w.WishEnded(request_id=number, done=True, lines=("lan is down",)))
    desk.say(1, w.WishEnded(request_id=number, done=False, lines=("not done within 1 s",)))
    assert (desk.done().exit_code, desk.done().lines) == (1, ("not done within 1 s",))


def test_nothing_anywhere_is_said_once() -> None:
    desk = Desks()
    number = desk.ask(w.OperatorVerb.REKEY, "lan")
    for worker in (0, 1):
        desk.say(worker, w.WishEnded(request_id=number, done=False, lines=("lan has no SA",), nothing=True))
    assert (desk.done().exit_code, desk.done().lines) == (1, ("lan has no SA",))


def test_lists_of_all_workers_are_one() -> None:
    desk = Desks()
    number = desk.ask(w.OperatorVerb.LIST)
    for worker, last in ((0, False), (1, True), (1, True), (0, True)):
        desk.say(worker, w.SasListed(request_id=number, ike_sas=(), last=last))
    assert [message.last for _, message in desk.told] == [False, False, True]


def test_the_newest_failure_of_all_workers_comes_first() -> None:
    desk = Desks()
    number = desk.ask(w.OperatorVerb.WHY)
    past = w.PastFailure(failure=FAILURE, age_s=9.0)
    desk.say(0, w.FailureTold(request_id=number, failure=FAILURE, age_s=5.0, earlier=(past,)))
    desk.say(1, w.FailureTold(request_id=number, failure=FAILURE, age_s=3.0))
    ((_, message),) = desk.told
    assert (message.age_s, [one.age_s for one in message.earlier]) == (3.0, [5.0, 9.0])
    number = desk.ask(w.OperatorVerb.WHY)
    desk.say(0, w.WishEnded(request_id=number, done=True, lines=("nothing has failed",)))
    desk.say(1, w.FailureTold(request_id=number, failure=FAILURE, age_s=3.0))
    assert isinstance(desk.told[-1][1], w.FailureTold)


def test_a_worker_that_dies_ends_only_what_it_has_not_answered() -> None:
    desk = Desks()
    number = desk.ask(w.OperatorVerb.DOWN, "lan")
    desk.say(0, w.WishEnded(request_id=number, done=True, lines=("lan is down",)))
    desk.wishes.worker_went("ike_worker")
    assert desk.told == []
    desk.wishes.worker_went("ike_worker-1")
    assert desk.done().exit_code == 1
