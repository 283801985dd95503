"""Why a negotiation failed, on both sides of two engines: the refuser knows both lists, the refused its own."""

from dataclasses import replace
from typing import Any

import pytest

from ike_worker.ikev2 import child_negotiation
from ike_worker.ikev2.datagram import Endpoint
from ike_worker.ikev2.errors import Refused
from ike_worker.ikev2.exchanges import ike_auth
from ike_worker.ikev2.features import reasons
from ike_worker.ikev2.features.failures import MAX_STRANGERS
from ike_worker.ikev2.features.reasons import Reasons
from ike_worker.ikev2.iana import NotifyType
from ike_worker.ikev2.selection import offer_ike
from ipc.algorithms import AES128GCM16, KeyExchangeId
from ipc.types import Mode
from ipc.wishes import Failure
from tests.ike_worker.ikev2.two_sides import (
    BOB,
    ESP,
    IKE,
    RULE_ID,
    Side,
    World,
    identity,
    net,
    peer_of,
    rule_of,
)

ECP = replace(IKE, key_exchange=(KeyExchangeId.ECP_256,))
OTHER_ESP = replace(ESP, encryption=(AES128GCM16,))
STRICT_ESP = replace(ESP, encryption=(ESP.encryption[0],))


def why(side: Side, name: str) -> Failure:
    return side.engine.view(side.world.now).failures(name)[0]


def failed(**sides: Any) -> World:
    """Alice has called Bob, and nothing came of it."""
    world = World(**sides)
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run()
    return world


def test_ike_proposals_that_do_not_meet() -> None:
    world = failed(alice={"peer": peer_of("alice", ike_proposals=(ECP,))})
    there = why(world.bob, "alice")
    assert (there.exchange, there.notify, there.by_peer) == ("IKE_SA_INIT", "NO_PROPOSAL_CHOSEN", False)
    assert (there.ours, there.theirs) == (("aes256gcm16-prfsha256-x25519",), ("aes256gcm16-prfsha256-ecp256",))
    assert there.difference == "key exchange: ours x25519, theirs ecp256"
    here = why(world.alice, "bob")
    assert (here.exchange, here.notify, here.by_peer) == ("IKE_SA_INIT", "NO_PROPOSAL_CHOSEN", True)
    assert (here.ours, here.theirs) == (("aes256gcm16-prfsha256-ecp256",), ())
    assert why(world.alice, "lan") == here, "a rule stands for its peer"


def test_the_log_has_it_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    world = failed(alice={"peer": peer_of("alice", ike_proposals=(ECP,))})
    (line,) = [record.getMessage() for record in caplog.records if "theirs [" in record.getMessage()]
    assert line == f"why: {why(world.bob, 'alice').sentence}"
    assert "ours [aes256gcm16-prfsha256-x25519]; theirs [aes256gcm16-prfsha256-ecp256]" in line
    assert "differs: key exchange" in line and 'remedy: here, write "' in line and "\n" not in line


@pytest.mark.parametrize("more", [False, True])
def test_esp_proposals_that_do_not_meet(more: bool) -> None:
    """In IKE_AUTH, and in CREATE_CHILD_SA of an IKE SA that stands."""
    lan = rule_of("alice", esp_proposals=(OTHER_ESP,))
    theirs = rule_of("bob", esp_proposals=(STRICT_ESP,))
    if more:
        world = World(alice={"peer": peer_of("alice", childless=True), "rules": [lan]}, bob={"rules": [theirs]})
        world.alice.engine.initiate(RULE_ID, world.now)
        world.run()
    else:
        world = failed(alice={"rules": [lan]}, bob={"rules": [theirs]})
    exchange = "CREATE_CHILD_SA" if more else "IKE_AUTH"
    there = why(world.bob, "alice")
    assert (there.exchange, there.notify, there.rule) == (exchange, "NO_PROPOSAL_CHOSEN", "lan")
    assert there.difference == "encryption: ours aes256gcm16, theirs aes128gcm16"
    here = why(world.alice, "bob")
    assert (here.exchange, here.by_peer, here.rule) == (exchange, True, "lan")
    assert here.ours == ("aes128gcm16-esn", "tunnel mode")


def test_another_mode() -> None:
    world = failed(bob={"rules": [rule_of("bob", mode=Mode.TRANSPORT)]})
    there = why(world.bob, "alice")
    assert (there.subject, there.difference) == ("mode", "mode: ours transport, theirs tunnel")


def test_selectors_that_do_not_meet() -> None:
    world = failed(alice={"rules": [rule_of("alice", local=(net("10.9.0.0-10.9.0.255"),))]})
    there = why(world.bob, "alice")
    assert (there.exchange, there.notify) == ("IKE_AUTH", "TS_UNACCEPTABLE")
    assert there.theirs == ("local 10.2.0.0/16", "remote 10.9.0.0/24")
    assert there.difference == "remote of rule lan: ours 10.1.0.0/16, theirs 10.9.0.0/24"
    here = why(world.alice, "bob")
    assert (here.notify, here.by_peer, here.ours) == (
        "TS_UNACCEPTABLE",
        True,
        ("local 10.9.0.0/24", "remote 10.2.0.0/16"),
    )


def test_no_selectors_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """strongSwan offers none where its configuration wants transport mode between nets; the IKE SA stands."""
    monkeypatch.setattr(child_negotiation, "offered_selectors", lambda rule, _wish: ((), rule.remote))
    world = failed()
    assert len(world.bob.store) == 1
    there = why(world.bob, "alice")
    assert (there.notify, there.by_peer) == ("TS_UNACCEPTABLE", False)


@pytest.mark.parametrize(
    ("kind", "subject"),
    [
        (NotifyType.NO_PROPOSAL_CHOSEN, "ESP proposals"),
        (NotifyType.TS_UNACCEPTABLE, "traffic selectors"),
        (NotifyType.AUTHENTICATION_FAILED, "identities"),
    ],
)
def test_a_peer_that_refuses_the_ike_sa_for_its_child_sa(
    kind: NotifyType, subject: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As OpenIKED does; RFC 7296 section 1.2 has the IKE SA made all the same."""

    def refuse(*_: object) -> None:
        raise Refused(kind, "")

    monkeypatch.setattr(ike_auth, "_identify", refuse)
    here = why(failed().alice, "bob")
    assert (here.exchange, here.notify, here.by_peer, here.subject) == ("IKE_AUTH", kind.name, True, subject)


def test_another_pre_shared_key_shows_no_key() -> None:
    world = failed(alice={"psk": b"wrong horse battery staple"})
    there, here = why(world.bob, "alice"), why(world.alice, "bob")
    assert (there.notify, there.by_peer, here.notify, here.by_peer) == (
        "AUTHENTICATION_FAILED",
        False,
        "AUTHENTICATION_FAILED",
        True,
    )
    assert "pre-shared key" in there.remedy and "horse" not in repr((there, here))
    assert there.ours == ("we are bob.example, by PSK", "peer alice must be alice.example, by PSK")
    assert there.theirs == ("its identity alice.example", "authenticates by PSK")


def test_another_identity_of_either_side() -> None:
    world = failed(alice={"peer": peer_of("alice", local_id=identity("eve.example"))})
    there = why(world.bob, "alice")
    assert there.theirs == ("its identity eve.example", "wants us to be bob.example")
    assert there.difference == "alice: eve.example is not alice.example"
    assert 'remote_id = "eve.example"' in there.remedy
    world = failed(bob={"peer": peer_of("bob", local_id=identity("eve.example"))}, alice={})
    assert "bob.example is not eve.example" in why(world.bob, "alice").difference


def test_a_responder_who_is_somebody_else() -> None:
    world = failed(
        alice={"peer": peer_of("alice", remote_id=identity("*.example.org"))},
    )
    here = why(world.alice, "bob")
    assert (here.notify, here.by_peer) == ("AUTHENTICATION_FAILED", False)
    assert here.difference == "bob.example is not *.example.org"


def test_an_identity_is_shown_without_what_a_terminal_would_take_for_something_else() -> None:
    bad = replace(identity("x"), data=b"e\x1b[31mve\n.example")
    world = failed(alice={"peer": peer_of("alice", local_id=bad)})
    there = why(world.bob, "alice")
    assert all(text.isprintable() for text in (there.sentence, there.difference, there.remedy, *there.theirs))


def test_silence_is_told_too() -> None:
    world = World()
    world.loss = 1.0
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run(1000.0)
    assert "does not answer" in why(world.alice, "bob").sentence


def test_a_peer_that_has_gone_from_the_policy_is_forgotten() -> None:
    world = failed(alice={"peer": peer_of("alice", ike_proposals=(ECP,))})
    world.alice.engine.set_policy((), (), world.now)
    assert world.alice.engine.view(world.now).failures("bob") == ()


def test_strangers_are_known_by_address_and_so_many_of_them() -> None:
    known = Reasons()
    offered = offer_ike((IKE,))
    for number in range(MAX_STRANGERS + 5):
        remote = Endpoint(address=BOB + number, port=500)
        known.init_refused(float(number), remote, [], offered)
    assert known.failures.of(str(BOB)) == ()
    (last,) = known.failures.of(str(BOB + MAX_STRANGERS + 4))
    assert last.theirs == ("aes256gcm16-prfsha256-x25519",)
    assert last.difference.startswith("no peer of the policy may speak from")
    assert len(list(known.failures)) == MAX_STRANGERS


def test_a_flood_of_strangers_is_not_compared() -> None:
    known = Reasons()
    for number in range(100):
        known.init_refused(7.0, Endpoint(address=BOB + number, port=500), [], offer_ike((IKE,)))
    assert len(list(known.failures)) == reasons.STRANGERS_PER_SECOND
