"""What the worker does when an operator asks, with two engines: each wish has one end, in time."""

import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ike_worker import operator
from ike_worker.ikev2 import events as e
from ike_worker.kernel_client import KernelClient
from ike_worker.operator import Operator
from ipc import messages as m
from ipc import wishes as w
from ipc.loop import Loop
from ipc.types import StartAction
from tests.ike_worker.ikev2.two_sides import World, peer_of, rule_of

VERB = w.OperatorVerb


class FakeTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop:
    """Timers that are run by hand."""

    def __init__(self) -> None:
        self.timers: list[FakeTimer] = []

    def call_later(self, _delay_s: float, callback: Callable[[], None]) -> FakeTimer:
        self.timers.append(FakeTimer(callback))
        return self.timers[-1]

    def expire(self) -> None:
        for timer in self.timers:
            if not timer.cancelled:
                timer.callback()


class FakeKernel:
    """Says at once what all SAs have carried."""

    def count(self, sas: tuple[m.SaName, ...], answer: Callable[[Any], None], _within_s: float) -> None:
        answer({sa: m.Usage(sa=sa, packets=3, bytes=300, idle_s=1.0) for sa in sas})


class Office:
    """Alice's operator."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **sides: Any) -> None:
        self.world = World(**sides)
        self.loop = FakeLoop()
        self.said: list[Any] = []
        self._seen = 0
        engine = self.world.alice.engine
        kernel = cast(KernelClient, FakeKernel())
        self.operator = Operator(engine, kernel, cast(Loop, self.loop), self.said.append)
        monkeypatch.setattr(operator, "time", SimpleNamespace(monotonic=lambda: self.world.now))

    def wish(self, verb: VERB, target: str = "") -> list[Any]:
        """What has been said when all has happened that happens."""
        self.said.clear()
        self.operator.on_wish(w.OperatorWish(request_id=5, verb=verb, target=target, timeout_s=30.0), b"")
        self.go_on()
        return list(self.said)

    def go_on(self) -> None:
        self.world.run(1.0)
        for event in self.world.alice.log[self._seen :]:
            if isinstance(event, e.OrderEnded):
                self.operator.on_order_ended(event)
        self._seen = len(self.world.alice.log)

    def end(self, verb: VERB, target: str) -> w.WishEnded:
        (said,) = self.wish(verb, target)
        assert isinstance(said, w.WishEnded) and said.request_id == 5
        return said


def test_up_rekey_and_down_of_a_rule_and_its_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    office = Office(monkeypatch)
    assert office.end(VERB.UP, "lan") == w.WishEnded(request_id=5, done=True, lines=("lan is up",))
    office.world.agree(1)
    assert office.end(VERB.UP, "lan").done, "it is up already"
    before = {sa.spi for sa in office.world.alice.kernel.values()}
    assert office.end(VERB.REKEY, "lan").lines == ("1 Child SAs are rekeyed",)
    office.world.run(30.0)
    assert not before & {sa.spi for sa in office.world.alice.kernel.values()}
    spis = office.world.alice.ike_spis
    assert office.end(VERB.REKEY, "bob").lines == ("1 IKE SAs are rekeyed",)
    office.world.run(30.0)
    assert not set(spis) & set(office.world.alice.ike_spis)
    assert office.end(VERB.DOWN, "lan").lines == (
        "lan is down; the next packet that it is about may bring it up again",
    )
    office.world.run(10.0)
    office.world.agree(0)
    assert office.end(VERB.DOWN, "bob").done
    assert office.world.alice.ike_spis == office.world.bob.ike_spis == []


def test_one_sa_is_rekeyed_by_any_of_its_spis(monkeypatch: pytest.MonkeyPatch) -> None:
    office = Office(monkeypatch)
    office.end(VERB.UP, "lan")
    for direction in (0, 1):
        office.world.run(30.0)
        sa = next(sa for sa in office.world.alice.kernel.values() if sa.direction == direction)
        assert office.end(VERB.REKEY, f"{sa.spi:08x}").lines == ("1 Child SAs are rekeyed",)
        office.world.run(30.0)
        assert sa.spi not in [other.spi for other in office.world.alice.kernel.values()]
    for side in (office.world.alice, office.world.bob):
        office.world.run(30.0)
        assert office.end(VERB.REKEY, side.ike_spis[0].hex()).lines == ("1 IKE SAs are rekeyed",)


@pytest.mark.parametrize(
    ("verb", "target", "why"),
    [
        (VERB.UP, "nowhere", 'there is no protect rule "nowhere"'),
        (VERB.DOWN, "nowhere", "there is no protect rule and no peer"),
        (VERB.REKEY, "nowhere", "no SPI of 8 or 16 hex digits"),
        (VERB.REKEY, "00000099", "has no SA that could be rekeyed"),
        (VERB.REKEY, "lan", "has no SA that could be rekeyed"),
        (VERB.WHY, "nowhere", "is no protect rule, no peer"),
        (VERB.CAPTURE_KEYS, "nowhere", 'there is no peer "nowhere"'),
    ],
)
def test_what_can_t_be_done_is_said_at_once(monkeypatch: pytest.MonkeyPatch, verb: VERB, target: str, why: str) -> None:
    office = Office(monkeypatch)
    ended = office.end(verb, target)
    assert not ended.done and why in ended.lines[0]


def test_a_peer_without_an_address_can_t_be_called(monkeypatch: pytest.MonkeyPatch) -> None:
    office = Office(monkeypatch, alice={"peer": peer_of("alice", address=None)})
    assert "it must call us" in office.end(VERB.UP, "lan").lines[0]


def test_a_failure_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    office = Office(monkeypatch, alice={"psk": b"wrong"})
    ended = office.end(VERB.UP, "lan")
    assert not ended.done and "AUTHENTICATION_FAILED" in ended.lines[0]
    (told,) = office.wish(VERB.WHY, "lan")
    assert isinstance(told, w.FailureTold) and told.failure.notify == "AUTHENTICATION_FAILED" and told.age_s > 0
    assert told.since_s >= told.age_s


def test_nothing_failed_is_an_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    office = Office(monkeypatch)
    assert office.end(VERB.WHY, "bob").done


def test_a_dead_peer_is_not_waited_for_and_what_is_awaited_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    office = Office(monkeypatch)
    office.world.loss = 1.0
    assert office.wish(VERB.UP, "lan") == []
    office.loop.expire()
    (ended,) = office.said
    assert ended.lines == ("not done within 30 s, and goes on: 198.51.100.2:500 has not answered IKE_SA_INIT yet",)
    office.world.loss = 0.0
    office.world.run(60.0)
    office.go_on()
    assert len(office.said) == 1
    office.world.agree(1)


def test_down_of_a_rule_that_only_the_peer_brings_up(monkeypatch: pytest.MonkeyPatch) -> None:
    office = Office(monkeypatch, alice={"rules": [rule_of("alice", start=StartAction.RESPOND_ONLY)]})
    assert office.end(VERB.DOWN, "lan").lines == ("lan is down; the peer may bring it up again",)


def test_the_list_has_what_status_has_and_the_traffic(monkeypatch: pytest.MonkeyPatch) -> None:
    office = Office(
        monkeypatch,
        alice={"peer": peer_of("alice", rekey_s=1000.0), "rules": [rule_of("alice", rekey_s=500.0, life_s=600.0)]},
    )
    office.end(VERB.UP, "lan")
    (listed,) = office.wish(VERB.LIST)
    (sa,) = listed.ike_sas
    (child,) = sa.children
    assert (listed.last, sa.status.peer, sa.status.children, sa.reauth_in_s) == (True, "bob", (), None)
    assert 800 < sa.rekey_in_s < 1000 and 400 < child.rekey_in_s < 500 and 590 < child.expires_in_s <= 600
    assert (child.state, child.inbound, child.outbound) == (
        "installed",
        *[w.Traffic(packets=3, bytes=300, idle_s=1.0)] * 2,
    )
    assert not math.isinf(child.age_s)


def test_an_empty_list_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Office(monkeypatch).wish(VERB.LIST) == [w.SasListed(request_id=5, ike_sas=(), last=True)]


def test_the_keys_are_those_in_use(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    office = Office(monkeypatch)
    office.end(VERB.UP, "lan")
    (keys,) = office.wish(VERB.CAPTURE_KEYS, "bob")
    assert {(one.spi, one.encryption_key.reveal()) for one in keys.esp_sas} == {
        (sa.spi, sa.encryption_key.reveal()) for sa in office.world.alice.kernel.values()
    }
    (ike_sa,) = keys.ike_sas
    assert ike_sa.sk_ei != ike_sa.sk_er and len(ike_sa.sk_ei) == 36
    assert "are handed out" in caplog.text and ike_sa.sk_ei.reveal().hex() not in caplog.text + repr(keys)
    assert office.wish(VERB.CAPTURE_KEYS) == [replace(keys)]
