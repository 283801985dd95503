"""IKE_SA_INIT and IKE_AUTH between two engines. RFC 7296 sections 1.2, 2.6, 2.7, 2.9, 2.15."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from ike_worker.ikev2 import events as e
from ike_worker.ikev2.datagram import Datagram
from ike_worker.ikev2.iana import ExchangeType, NotifyType
from ike_worker.ikev2.ike_sa import IkeSa
from ike_worker.ikev2.wire.authentication import Authentication
from ike_worker.ikev2.wire.message import encode_message, parse_header, parse_message
from ike_worker.ikev2.wire.notify import Notify
from ike_worker.ikev2.wire.payload import Payload
from ipc.algorithms import (
    AES128GCM16,
    AES256CBC,
    CHACHA20POLY1305,
    EsnId,
    EspProposal,
    IntegrityId,
    KeyExchangeId,
    PrfId,
)
from ipc.messages import Acquire, HalfOpenLimits
from ipc.types import Direction, Mode
from tests.ike_worker.ikev2.two_sides import (
    ALICE,
    ALICE_NET,
    BOB,
    BOB_NET,
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

HANDSHAKE = [
    "alice: IKE_SA_INIT request 0",
    "bob: IKE_SA_INIT response 0",
    "alice: IKE_AUTH request 1",
    "bob: IKE_AUTH response 1",
]


def call(world: World) -> None:
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run()


def reasons(side: Side) -> list[str]:
    return [event.reason for event in side.log if isinstance(event, e.NegotiationFailed)]


def test_four_messages_make_an_ike_sa_and_a_child_sa() -> None:
    world = World()
    call(world)
    assert world.wire == HANDSHAKE
    world.agree(1)
    for side in (world.alice, world.bob):
        assert len(side.of(e.IkeSaEstablished)) == len(side.of(e.ChildSaEstablished)) == 1
        assert side.kernel_log == ["+in", "+out"]
        status = side.engine.status(side.ike_spis[0])
        assert (status.state, status.algorithms) == ("established", "aes256gcm16-hmac_sha2_256-x25519")
        assert [child.algorithms for child in status.children] == ["aes256gcm16-esn"]
    (inbound,) = world.alice.sas(Direction.IN)
    assert (inbound.source, inbound.destination, inbound.mode) == (BOB, ALICE, Mode.TUNNEL)
    assert (inbound.local, inbound.remote) == ((ALICE_NET,), (BOB_NET,))
    assert inbound.encapsulation is None


def test_transport_mode() -> None:
    hosts = {"local": (net(str(ALICE)),), "remote": (net(str(BOB)),)}
    alice = rule_of("alice", mode=Mode.TRANSPORT, **hosts)
    bob = rule_of("bob", mode=Mode.TRANSPORT, local=hosts["remote"], remote=hosts["local"])
    world = World(alice={"rules": [alice]}, bob={"rules": [bob]})
    call(world)
    world.agree(1)
    assert {sa.mode for sa in (*world.alice.kernel.values(), *world.bob.kernel.values())} == {Mode.TRANSPORT}


def test_a_responder_that_insists_on_transport_mode_refuses_a_tunnel() -> None:
    world = World(bob={"rules": [rule_of("bob", mode=Mode.TRANSPORT)]})
    call(world)
    world.agree(0)
    assert reasons(world.alice) == ["no Child SA: the peer answers NO_PROPOSAL_CHOSEN"]


def test_an_initiator_that_wanted_transport_mode_deletes_the_tunnel_it_got() -> None:
    world = World(alice={"rules": [rule_of("alice", mode=Mode.TRANSPORT)]})
    call(world)
    world.agree(0)
    assert reasons(world.alice) == ["no Child SA: the responder chose another mode than was offered"]
    assert len(world.bob.of(e.ChildSaClosed)) == 1


@pytest.mark.parametrize(
    ("ike", "esp", "words"),
    [
        (
            replace(IKE, encryption=(AES256CBC,), integrity=(IntegrityId.HMAC_SHA2_256_128,)),
            EspProposal(
                encryption=(AES256CBC,),
                integrity=(IntegrityId.HMAC_SHA2_512_256,),
                key_exchange=(),
                esn=(EsnId.NO_ESN,),
            ),
            "aes256-sha512",
        ),
        (
            replace(IKE, encryption=(CHACHA20POLY1305,), prf=(PrfId.HMAC_SHA2_512,)),
            replace(ESP, encryption=(CHACHA20POLY1305,)),
            "chacha20poly1305-esn",
        ),
        (replace(IKE, key_exchange=(KeyExchangeId.ECP_384,)), ESP, "aes256gcm16-esn"),
    ],
)
def test_suites(ike: object, esp: EspProposal, words: str) -> None:
    world = World(
        **{
            me: {"peer": peer_of(me, ike_proposals=(ike,)), "rules": [rule_of(me, esp_proposals=(esp,))]}
            for me in ("alice", "bob")
        }
    )
    call(world)
    world.agree(1)
    (child,) = world.bob.engine.status(world.bob.ike_spis[0]).children
    assert child.algorithms == words


def test_the_responder_prefers_what_it_likes_best() -> None:
    bob = rule_of("bob", esp_proposals=(replace(ESP, encryption=(AES128GCM16, *ESP.encryption)),))
    world = World(bob={"rules": [bob]})
    call(world)
    assert {sa.cipher for sa in world.alice.kernel.values()} == {AES128GCM16}


# ------------------------------------------------------------------ traffic selectors


def test_the_responder_narrows_to_its_rule() -> None:
    part = net("10.2.3.0-10.2.3.255", protocol=6)
    world = World(bob={"rules": [rule_of("bob", local=(part,))]})
    call(world)
    world.agree(1)
    (sa,) = world.alice.sas(Direction.OUT)
    assert (sa.local, sa.remote) == ((ALICE_NET,), (part,))


def test_the_packet_that_asked_picks_the_rule_of_the_responder() -> None:
    world = World(
        bob={
            "rules": [
                rule_of("bob", rule_id=1, position=0, name="low", local=(net("10.2.0.0-10.2.0.255"),)),
                rule_of("bob", rule_id=2, position=1, name="high", local=(net("10.2.9.0-10.2.9.255"),)),
            ]
        }
    )
    packet = Acquire(
        acquire_id=41,
        rule_id=RULE_ID,
        packet_local=net("10.1.0.1", protocol=17, port=53),
        packet_remote=net("10.2.9.9", protocol=17, port=53),
    )
    world.alice.engine.initiate(RULE_ID, world.now, acquire=packet)
    world.run()
    world.agree(1)
    (sa,) = world.alice.sas(Direction.OUT)
    assert sa.acquire_id == 41
    assert sa.remote == (net("10.2.9.0-10.2.9.255"),)
    assert [event.rule for event in world.bob.log if isinstance(event, e.ChildSaEstablished)] == ["high"]


def test_no_rule_for_the_traffic_leaves_an_ike_sa_without_a_child() -> None:
    world = World(bob={"rules": [rule_of("bob", local=(net("172.16.0.0-172.16.255.255"),))]})
    call(world)
    world.agree(0)
    assert reasons(world.alice) == ["no Child SA: the peer answers TS_UNACCEPTABLE"]
    assert len(world.alice.ike_spis) == len(world.bob.ike_spis) == 1


def test_no_common_esp_proposal() -> None:
    world = World(bob={"rules": [rule_of("bob", esp_proposals=(replace(ESP, encryption=(CHACHA20POLY1305,)),))]})
    call(world)
    world.agree(0)
    assert reasons(world.alice) == ["no Child SA: the peer answers NO_PROPOSAL_CHOSEN"]


# ------------------------------------------------------------------ refusals


def test_no_common_ike_proposal() -> None:
    world = World(bob={"peer": peer_of("bob", ike_proposals=(replace(IKE, encryption=(AES128GCM16,)),))})
    call(world)
    assert world.wire == HANDSHAKE[:2]
    assert reasons(world.alice) == ["the peer answers NO_PROPOSAL_CHOSEN to IKE_SA_INIT"]
    world.run(120)
    assert world.alice.engine.get_timer() is None


def test_a_stranger_is_refused_and_leaves_nothing_behind() -> None:
    world = World(bob={"peer": peer_of("bob", address=ip_address("203.0.113.9"))})
    call(world)
    assert reasons(world.alice) == ["the peer answers NO_PROPOSAL_CHOSEN to IKE_SA_INIT"]
    assert world.bob.engine.get_timer() is None


def test_the_wrong_psk_and_the_wrong_identity_sound_alike() -> None:
    answers = []
    for bob in (
        {"psk": b"another"},
        {"peer": peer_of("bob", remote_id=identity("mallory.example"))},
        {"peer": peer_of("bob", local_id=identity("not-bob.example"))},
    ):
        world = World(bob=bob)
        call(world)
        world.agree(0)
        assert not world.alice.ike_spis
        assert not world.bob.ike_spis
        answers.append((world.wire, reasons(world.alice)))
    assert answers[0] == answers[1] == answers[2]
    assert answers[0] == (HANDSHAKE, ["the peer answers AUTHENTICATION_FAILED to IKE_AUTH"])


def test_a_responder_that_is_not_who_it_should_be_is_told_to_forget_us() -> None:
    world = World()
    world.alice.psk = b"another"
    world.bob._handle = lambda event, handle=world.bob._handle: (  # type: ignore[method-assign, misc]
        world.bob.engine.auth_verified(event.token, True, world.now)
        if isinstance(event, e.VerifyAuth)
        else handle(event)
    )
    call(world)
    assert world.wire == [*HANDSHAKE, "alice: INFORMATIONAL request 2", "bob: INFORMATIONAL response 2"]
    assert reasons(world.alice) == ["the peer is not authenticated: its AUTH is wrong"]
    world.agree(0)
    assert not world.bob.ike_spis


def test_a_loader_that_refuses_ends_it() -> None:
    world = World()
    world.alice._handle = lambda event, handle=world.alice._handle: (  # type: ignore[method-assign, misc]
        world.alice.engine.auth_refused(event.token, "no such peer", world.now)
        if isinstance(event, e.ComputeAuth)
        else handle(event)
    )
    call(world)
    assert world.wire == HANDSHAKE[:2]
    assert reasons(world.alice) == ["IKE_AUTH can't be sent: no such peer"]


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_a_kernel_that_refuses_leaves_no_child_sa_on_either_side(who: str) -> None:
    world = World()
    getattr(world, who).refuse_installs = 1
    call(world)
    world.agree(0)
    assert len(world.alice.ike_spis) == len(world.bob.ike_spis) == 1
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run()
    world.agree(1)


def test_nobody_answers() -> None:
    world = World()
    world.loss = 1.0
    start = world.now
    call(world)
    world.run(100)
    assert world.wire == HANDSHAKE[:1] * 7
    assert reasons(world.alice) == [f"the peer at {BOB}:500 does not answer"]
    assert world.alice.log[-1].__class__ is e.NegotiationFailed
    assert world.now == start + 100.5


# ------------------------------------------------------------------ another group, cookies


def test_another_group_is_asked_for_and_used() -> None:
    alice = peer_of("alice", ike_proposals=(replace(IKE, key_exchange=(KeyExchangeId.X25519, KeyExchangeId.ECP_256)),))
    bob = peer_of("bob", ike_proposals=(replace(IKE, key_exchange=(KeyExchangeId.ECP_256,)),))
    world = World(alice={"peer": alice}, bob={"peer": bob})
    call(world)
    assert world.wire == HANDSHAKE[:2] + HANDSHAKE
    world.agree(1)


def test_a_group_that_was_not_offered_is_not_believed() -> None:
    world = World()

    def forge(sender: Side, datagram: Datagram) -> list[Datagram]:
        header = parse_header(datagram.data)
        if sender is world.alice or header.message_id:
            return [datagram]
        notify = Notify(type=NotifyType.INVALID_KE_PAYLOAD, data=(20).to_bytes(2, "big"))
        forged = encode_message(
            spi_i=header.spi_i,
            spi_r=bytes(8),
            exchange_type=header.exchange_type,
            initiator=False,
            response=True,
            message_id=0,
            payloads=[notify],
        )
        return [replace(datagram, data=forged), datagram]

    world.filter = forge
    call(world)
    world.agree(1)


def test_under_load_an_initiator_shows_a_cookie() -> None:
    world = World()
    world.bob.engine.set_half_open_limits(HalfOpenLimits(cookies_from=0))
    call(world)
    assert world.wire == HANDSHAKE[:2] + HANDSHAKE
    world.agree(1)


def test_a_responder_keeps_nothing_of_an_initiator_without_a_cookie() -> None:
    world = World()
    world.bob.engine.set_half_open_limits(HalfOpenLimits(cookies_from=0))
    answers: list[Datagram] = []

    def swallow(sender: Side, datagram: Datagram) -> list[Datagram]:
        if sender is world.bob:
            answers.append(datagram)
            return []
        return [datagram]

    world.filter = swallow
    call(world)
    assert world.bob.engine.get_timer() is None
    (notify,) = parse_message(answers[0].data).payloads
    assert isinstance(notify, Notify)
    assert notify.type == NotifyType.COOKIE


def test_a_half_open_ike_sa_is_forgotten() -> None:
    world = World()
    world.filter = lambda sender, datagram: [] if sender is world.bob else [datagram]
    call(world)
    assert world.bob.engine.get_timer() is not None
    world.filter = lambda sender, datagram: []
    world.run(200)
    assert world.bob.engine.get_timer() is None
    assert not world.bob.store


# ------------------------------------------------------------------ called twice


def test_a_second_wish_for_the_same_rule_is_none() -> None:
    world = World()
    for _ in range(3):
        world.alice.engine.initiate(RULE_ID, world.now)
    world.run()
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run()
    assert world.wire == HANDSHAKE
    world.agree(1)


def test_a_second_rule_uses_the_ike_sa_that_stands() -> None:
    more = {"rule_id": 8, "name": "voice", "position": 1}
    alice = rule_of("alice", local=(net("10.1.200.1"),), remote=(net("172.16.0.1"),), **more)
    bob = rule_of("bob", local=(net("172.16.0.1"),), remote=(net("10.1.200.1"),), **more)
    world = World(alice={"rules": [rule_of("alice"), alice]}, bob={"rules": [rule_of("bob"), bob]})
    world.alice.engine.initiate(RULE_ID, world.now)
    world.alice.engine.initiate(8, world.now)
    world.run()
    assert world.wire == [*HANDSHAKE, "alice: CREATE_CHILD_SA request 2", "bob: CREATE_CHILD_SA response 2"]
    world.agree(2)


def test_both_call_at_once_and_both_ike_sas_stand() -> None:
    world = World()
    world.alice.engine.initiate(RULE_ID, world.now)
    world.bob.engine.initiate(RULE_ID, world.now)
    world.run(5)
    world.agree(2)
    assert len(world.alice.ike_spis) == len(world.bob.ike_spis) == 2


def test_initial_contact_forgets_what_came_before() -> None:
    world = World()
    world.connect()
    world.alice.store.clear()
    world.alice.kill_and_restore()
    world.run(1)
    call(world)
    world.agree(1)
    assert len(world.bob.ike_spis) == 1
    assert [event.reason for event in world.bob.log if isinstance(event, e.IkeSaClosed)] == [
        "the peer has started anew"
    ]


# ------------------------------------------------------------------ what other peers may say in IKE_AUTH


def seals_otherwise(
    monkeypatch: pytest.MonkeyPatch, *, response: bool, change: Callable[[list[Payload]], list[Payload]]
) -> None:
    """From now on the payloads of IKE_AUTH requests or responses are others."""
    seal = IkeSa.seal

    def seal_otherwise(sa: IkeSa, payloads: Sequence[Payload], **rest: Any) -> tuple[bytes, ...]:
        wanted = rest["exchange_type"] == ExchangeType.IKE_AUTH and rest["response"] is response
        return seal(sa, change(list(payloads)) if wanted else payloads, **rest)

    monkeypatch.setattr(IkeSa, "seal", seal_otherwise)


def test_an_initiator_that_wants_eap_is_told_authentication_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 7296 section 2.16: it leaves AUTH out."""
    seals_otherwise(
        monkeypatch, response=False, change=lambda said: [one for one in said if not isinstance(one, Authentication)]
    )
    world = World()
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run()
    world.agree(0)
    (failed,) = (one for one in world.alice.log if isinstance(one, e.NegotiationFailed))
    assert "AUTHENTICATION_FAILED" in failed.reason
    assert any("EAP" in one.reason for one in world.bob.log if isinstance(one, e.NegotiationFailed))


def test_a_responder_s_auth_lifetime_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 4478: AUTH is to be done again before it is over, by the initiator, or else the responder ends it all."""
    lifetime = Notify(type=NotifyType.AUTH_LIFETIME, data=(600).to_bytes(4, "big"))
    seals_otherwise(monkeypatch, response=True, change=lambda said: [*said, lifetime])
    world = World()
    world.connect()
    first = world.alice.ike_spis
    world.run(480)
    assert world.alice.ike_spis == first
    world.run(120)
    assert world.alice.ike_spis != first
    world.agree(1)
