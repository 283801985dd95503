"""IKE messages in fragments between two engines. RFC 7383."""

import random
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ike_worker.ikev2.crypto.keymat import IkeKeys, IkeSuite
from ike_worker.ikev2.datagram import Endpoint, largest_message, packet_of
from ike_worker.ikev2.engine import Datagram
from ike_worker.ikev2.errors import IntegrityFailure, LocalError, MalformedMessage
from ike_worker.ikev2.features import fragmentation
from ike_worker.ikev2.features.fragmentation import FragmentStore
from ike_worker.ikev2.iana import ExchangeType, NotifyType, PayloadType
from ike_worker.ikev2.ike_sa import IkeSa, NatPath, Session
from ike_worker.ikev2.states import State
from ike_worker.ikev2.wire.message import (
    encode_message,
    open_fragment,
    parse_header,
    parse_message,
    parse_plaintext,
    split_message,
)
from ike_worker.ikev2.wire.notify import Notify
from ipc.algorithms import AES256CBC, AES256GCM16, Cipher, IntegrityId, KeyExchangeId, PrfId, cipher_sizes
from ipc.types import Secret, TrafficSelector
from tests.ike_worker.ikev2.two_sides import ALICE, BOB, RULE_ID, Side, World, net, peer_of, rule_of

IPV4_HEADERS = 20 + 8


def many_nets(start: str) -> tuple[TrafficSelector, ...]:
    """So many selectors that IKE_AUTH takes 2 kB and more."""
    return tuple(net(f"{start}.{number}.0-{start}.{number}.99") for number in range(60))


def long_world(**changes: object) -> World:
    """Alice and Bob with policies that make long messages."""
    alice, bob = many_nets("10.1"), many_nets("10.2")
    return World(
        alice={"rules": [rule_of("alice", local=alice, remote=bob)], "peer": peer_of("alice", **changes)},
        bob={"rules": [rule_of("bob", local=bob, remote=alice)]},
    )


def call(world: World, seconds: float = 0.5) -> None:
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run(seconds)


def keep(sent: list[Datagram]) -> Callable[[Side, Datagram], list[Datagram]]:
    """A network that remembers what went through it."""

    def remember(_sender: Side, datagram: Datagram) -> list[Datagram]:
        sent.append(datagram)
        return [datagram]

    return remember


def fragments_of(sent: list[Datagram]) -> list[Datagram]:
    return [one for one in sent if parse_header(one.data).next_payload == PayloadType.ENCRYPTED_FRAGMENT]


# ------------------------------------------------------------------ two engines


def test_a_long_message_goes_in_fragments_that_fit_the_packet() -> None:
    world, sent = long_world(), list[Datagram]()
    world.filter = keep(sent)
    call(world)
    world.agree(1)
    assert world.wire == [
        "alice: IKE_SA_INIT request 0",
        "bob: IKE_SA_INIT response 0",
        *["alice: IKE_AUTH request 1"] * 2,
        *["bob: IKE_AUTH response 1"] * 2,
    ]
    assert len(fragments_of(sent)) == 4
    assert max(len(one.data) for one in sent) + IPV4_HEADERS <= 1280


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_a_side_that_does_not_want_fragments_gets_whole_messages(who: str) -> None:
    world, sent = long_world(fragmentation=who != "alice"), list[Datagram]()
    if who == "bob":
        world.bob.peers = (peer_of("bob", fragmentation=False),)
        world.bob.engine.set_policy(world.bob.peers, world.bob.rules, world.now)
    world.filter = keep(sent)
    call(world)
    world.agree(1)
    assert not fragments_of(sent)


def test_the_responder_offers_it_only_to_who_offers_it() -> None:
    for offers in (True, False):
        world, sent = World(alice={"peer": peer_of("alice", fragmentation=offers)}), list[Datagram]()
        world.filter = keep(sent)
        call(world)
        notified = [
            any(isinstance(one, Notify) and one.type == 16430 for one in parse_message(datagram.data).payloads)
            for datagram in sent[:2]
        ]
        assert notified == [offers, offers]


def test_every_fragment_lost_once_is_made_good_by_a_retransmission() -> None:
    world, seen = long_world(), set[bytes]()

    def lose_once(_sender: Side, datagram: Datagram) -> list[Datagram]:
        if datagram.data in seen or parse_header(datagram.data).next_payload != PayloadType.ENCRYPTED_FRAGMENT:
            return [datagram]
        seen.add(datagram.data)
        return []

    world.filter = lose_once
    call(world, 20.0)
    world.agree(1)
    assert len(seen) >= 4


@pytest.mark.parametrize("seed", range(20))
def test_a_network_that_loses_doubles_and_reorders(seed: int) -> None:
    world = long_world()
    world.chance = random.Random(seed)
    world.loss, world.duplication, world.spread_s = 0.2, 0.3, 0.4
    call(world, 60.0)
    world.agree(1)


def test_a_request_that_went_twice_in_vain_is_cut_smaller_and_the_responder_follows() -> None:
    world, sent = long_world(), list[Datagram]()

    def narrow(sender: Side, datagram: Datagram) -> list[Datagram]:
        sent.append(datagram)
        return [datagram] if len(datagram.data) + IPV4_HEADERS <= 576 else []

    world.filter = narrow
    call(world, 10.0)
    world.agree(1)
    requests = [one for one in fragments_of(sent) if not parse_header(one.data).response]
    totals = [message.fragment.total for one in requests if (message := parse_message(one.data)).fragment is not None]
    assert sorted(set(totals)) == [2, 5]
    answers = [one for one in fragments_of(sent) if parse_header(one.data).response]
    assert max(len(one.data) for one in answers) + IPV4_HEADERS <= 576
    assert parse_header(answers[0].data).message_id == 1


def test_fragments_cut_anew_of_an_answered_request_bring_the_answer_again_once() -> None:
    """RFC 7383 section 2.6.1: fragment 1 alone does."""
    world, lost = long_world(), list[Datagram]()

    def no_answers(sender: Side, datagram: Datagram) -> list[Datagram]:
        response = parse_header(datagram.data).response and parse_header(datagram.data).message_id == 1
        if response and len(datagram.data) > 600:
            lost.append(datagram)
            return []
        return [datagram] if not response or world.now > 1004 else []

    world.filter = no_answers
    call(world, 3.5)
    answers = world.wire.count("bob: IKE_AUTH response 1")
    # Sent, sent again after 1 s, and cut anew at 2.8 s: three times fragment 1, so three answers of two datagrams.
    assert answers == 3 * 2
    (sa,) = world.bob.engine._context.ike_sas.values()
    assert sa.window.expected_id == 2


def test_a_rekeyed_ike_sa_goes_on_with_fragments() -> None:
    world = long_world()
    call(world)
    world.alice.engine.rekey_ike_sa(world.alice.ike_spis[0], world.now)
    world.run(1)
    sent: list[Datagram] = []
    world.filter = keep(sent)
    world.alice.engine.rekey_child(next(iter(world.alice.engine.installed_sas())).spi, world.now)
    world.run(1)
    assert len(fragments_of(sent)) == 4
    world.agree(1)


def test_a_worker_that_is_killed_in_the_middle_goes_on() -> None:
    world = long_world()
    call(world)
    world.alice.engine.rekey_child(next(iter(world.alice.engine.installed_sas())).spi, world.now)
    world.filter = lambda _sender, datagram: [datagram] if world.chance.random() < 0.5 else []
    for side in (world.alice, world.bob, world.alice):
        world.run(1.0)
        side.kill_and_restore()
        state = side.engine.snapshot(side.ike_spis[0])
        assert (state.fragments, state.packet_bytes) == (True, 1280) or state.packet_bytes == 576
    world.run(50.0)
    world.agree(1)


def test_an_unfinished_message_is_no_hint_and_no_sign_of_life() -> None:
    world = long_world()
    call(world)
    world.filter = lambda _sender, datagram: (
        [datagram] if len(datagram.data) < 1240 or parse_header(datagram.data).message_id < 2 else []
    )
    heard = next(iter(world.bob.engine._context.ike_sas.values())).last_heard
    world.alice.engine.rekey_child(next(iter(world.alice.engine.installed_sas())).spi, world.now)
    world.run(1.5)
    (sa,) = world.bob.engine._context.ike_sas.values()
    assert sa.last_heard == heard
    assert not sa.wishes
    assert len(world.bob.engine._context.fragments) == 1


def test_a_closed_ike_sa_leaves_no_fragments() -> None:
    world = long_world()
    world.filter = lambda _sender, datagram: [datagram] if datagram.data[32:34] != b"\0\1" else []
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run(2.0)
    store = world.bob.engine._context.strangers_fragments
    assert len(world.bob.engine._context.fragments) == 0
    assert len(store) == 1
    assert store.bytes > 0
    world.run(40.0)
    assert not world.bob.engine._context.ike_sas
    assert (len(store), store.bytes) == (0, 0)


# ------------------------------------------------------------------ the store


def sa_of(cipher: Cipher = AES256GCM16, integrity: IntegrityId = IntegrityId.NONE, spi: bytes = b"R" * 8) -> IkeSa:
    """An IKE SA that opens what it seals."""
    sizes = cipher_sizes(cipher)
    encryption = Secret(bytes(range(sizes.key + sizes.salt)))
    mac = Secret(b"" if integrity is IntegrityId.NONE else bytes(32))
    keys = IkeKeys(
        sk_d=mac, sk_ai=mac, sk_ar=mac, sk_ei=encryption, sk_er=encryption, sk_pi=encryption, sk_pr=encryption
    )
    path = NatPath(Endpoint(address=BOB, port=500), Endpoint(address=ALICE, port=500), forced=False)
    path.fragments = True
    sa = IkeSa(
        own_spi=spi,
        peer_spi=b"I" * 8,
        initiator=False,
        peer=peer_of("bob"),
        path=path,
        state=State.ESTABLISHED,
        now=0.0,
    )
    suite = IkeSuite(cipher=cipher, integrity=integrity, prf=PrfId.HMAC_SHA2_256, key_exchange=KeyExchangeId.X25519)
    sa.session = Session(suite, keys, initiator=False)
    return sa


def sealed(sa: IkeSa, payload: bytes, most: int, message_id: int = 5, seed: int = 1) -> tuple[bytes, ...]:
    chance = random.Random(seed)
    whole = sa.seal(
        [Notify(type=40_000, data=payload)],
        exchange_type=ExchangeType.INFORMATIONAL,
        response=False,
        message_id=message_id,
        random_bytes=chance.randbytes,
    )
    return split_message(whole, most, sa.keyed.protect_out, chance.randbytes)


def take(store: FragmentStore, sa: IkeSa, data: bytes, now: float = 0.0) -> fragmentation.Whole | None:
    return store.take(sa, parse_message(data), data, now)


def notify_in(whole: fragmentation.Whole) -> bytes:
    (notify,) = parse_plaintext(whole.first_payload, whole.plaintext)
    assert isinstance(notify, Notify)
    return notify.data


SUITES = [(AES256GCM16, IntegrityId.NONE), (AES256CBC, IntegrityId.HMAC_SHA2_256_128)]


@pytest.mark.parametrize("cipher, integrity", SUITES)
@settings(max_examples=60, deadline=None)
@given(data=st.data(), payload=st.binary(max_size=900), most=st.integers(110, 400))
def test_fragments_in_any_order_with_doubles_give_the_message_once(
    cipher: Cipher, integrity: IntegrityId, data: st.DataObject, payload: bytes, most: int
) -> None:
    sa, store = sa_of(cipher, integrity), FragmentStore()
    parts = sealed(sa, payload, most)
    assert all(len(part) <= most for part in parts)
    order = data.draw(st.permutations(range(len(parts))))
    doubles = data.draw(st.lists(st.sampled_from(order[:-1]), max_size=4)) if len(order) > 1 else []
    for number in [*order[:-1], *doubles]:
        assert take(store, sa, parts[number]) is None
    whole = take(store, sa, parts[order[-1]])
    assert whole is not None
    assert notify_in(whole) == payload
    assert whole.tail == parts[0][-16:]
    assert whole.packet_bytes == packet_of(max(map(len, parts)), sa.path.local)
    assert (len(store), store.bytes) == (0, 0)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_old_and_smaller_fragments_mixed_give_the_message_of_the_smaller_ones(data: st.DataObject) -> None:
    """RFC 7383 section 2.6: more fragments win, whatever came of fewer."""
    sa, store, payload = sa_of(), FragmentStore(), bytes(range(250)) * 3
    large, small = sealed(sa, payload, 300), sealed(sa, payload, 150, seed=2)
    assert len(large) < len(small)
    arrivals = data.draw(st.permutations([*large[:-1], *small]))
    done = [whole for part in arrivals if (whole := take(store, sa, part)) is not None]
    assert [notify_in(whole) for whole in done] == [payload]


def test_every_fragment_is_authentic_before_it_is_kept() -> None:
    sa, store = sa_of(), FragmentStore()
    parts = sealed(sa, bytes(500), 200)
    for part in parts:
        for place in (8, 20, 28, 32, 33, 34, 35, 40, len(part) - 1):
            damaged = bytearray(part)
            damaged[place] ^= 1
            try:
                message = parse_message(bytes(damaged))
            except MalformedMessage:
                continue
            with pytest.raises(IntegrityFailure):
                store.take(sa, message, bytes(damaged), 0.0)
    assert (len(store), store.bytes) == (0, 0)


def test_the_type_of_the_first_payload_stands_in_fragment_one_only() -> None:
    parts = sealed(sa_of(), bytes(500), 200)
    fragments = [parse_message(part).fragment for part in parts]
    assert [one.first_payload for one in fragments if one is not None] == [41] + [0] * (len(parts) - 1)


def test_fragments_of_another_message_id_begin_anew() -> None:
    sa, store = sa_of(), FragmentStore()
    old, new = sealed(sa, b"old" * 100, 200, 5), sealed(sa, b"new" * 100, 200, 6)
    assert take(store, sa, old[0]) is None
    results = [take(store, sa, part) for part in new]
    assert results[-1] is not None
    assert notify_in(results[-1]) == b"new" * 100


def test_what_does_not_become_whole_in_time_is_forgotten() -> None:
    sa, store = sa_of(), FragmentStore()
    parts = sealed(sa, bytes(200), 200)
    assert len(parts) == 2
    take(store, sa, parts[0], now=0.0)
    other = sa_of(spi=b"O" * 8)
    take(store, other, sealed(other, bytes(200), 200)[0], now=fragmentation.REASSEMBLY_S + 1)
    assert len(store) == 1
    assert take(store, sa, parts[1], now=fragmentation.REASSEMBLY_S + 2) is None


def test_all_that_is_kept_is_bounded_and_the_oldest_goes_first() -> None:
    store = FragmentStore(max_bytes=20_000)
    sas = [sa_of(spi=number.to_bytes(8)) for number in range(100)]
    messages = [sealed(sa, bytes(1500), 1000) for sa in sas]
    for sa, parts in zip(sas, messages, strict=True):
        assert take(store, sa, parts[0]) is None
        assert store.bytes <= 20_000
    assert 10 < len(store) < 25
    assert take(store, sas[0], messages[0][1]) is None
    assert take(store, sas[-1], messages[-1][1]) is not None


def test_a_message_of_too_many_fragments_is_dropped_before_any_cryptography() -> None:
    sa, store = sa_of(), FragmentStore()
    parts = sealed(sa, bytes(30_000), 110)
    assert len(parts) > fragmentation.MAX_FRAGMENTS
    with pytest.raises(IntegrityFailure, match="more fragments"):
        take(store, sa, parts[0])


def test_fragments_that_are_more_than_a_message_are_refused() -> None:
    sa, store = sa_of(), FragmentStore()
    inner = [Notify(type=40_000, data=bytes(60_000))]
    whole = sa.seal(inner, exchange_type=37, response=False, message_id=1, random_bytes=random.Random(1).randbytes)
    (one,) = split_message(whole, 65_000, sa.keyed.protect_out, bytes)
    message = parse_message(one)
    assert message.fragment is not None
    forged = _forge(sa, one, number=1), _forge(sa, one, number=2)
    assert take(store, sa, forged[0]) is None
    with pytest.raises(MalformedMessage, match="more than a message"):
        take(store, sa, forged[1])
    assert (len(store), store.bytes) == (0, 0)


def _forge(sa: IkeSa, data: bytes, *, number: int) -> bytes:
    """What an authentic but hostile peer makes: the same fragment under another number of three."""
    message = parse_message(data)
    assert message.fragment is not None
    plaintext = open_fragment(data, message.fragment, sa.keyed.protect_in)
    head = data[:32] + number.to_bytes(2) + (3).to_bytes(2)
    return head + sa.keyed.protect_out.seal(head, plaintext, bytes(8))


@pytest.mark.parametrize("numbers", ["00000001", "00020001", "00000000"])
def test_a_fragment_number_out_of_range_is_malformed(numbers: str) -> None:
    sa = sa_of()
    (part,) = sealed(sa, b"", 200)
    with pytest.raises(MalformedMessage, match="number"):
        parse_message(part[:32] + bytes.fromhex(numbers) + part[36:])


def test_a_fragment_inside_an_encrypted_payload_is_malformed() -> None:
    body = bytes.fromhex("0001 0001") + b"body"
    with pytest.raises(MalformedMessage):
        parse_plaintext(53, bytes.fromhex("0000000c") + body)


def test_a_message_that_can_not_be_cut_so_small_is_our_own_error() -> None:
    with pytest.raises(LocalError):
        sealed(sa_of(), b"payload", 60)


def test_fragments_in_clear_or_in_ike_sa_init_are_dropped() -> None:
    world = World()
    call(world)
    (sa,) = world.bob.engine._context.ike_sas.values()
    stranger = encode_message(
        spi_i=sa.spi_i,
        spi_r=sa.spi_r,
        exchange_type=ExchangeType.INFORMATIONAL,
        initiator=True,
        response=False,
        message_id=sa.window.expected_id,
        payloads=[Notify(type=NotifyType.COOKIE)],
    )
    fragment = (
        stranger[:16] + b"\x35" + stranger[17:24] + (44).to_bytes(4) + bytes.fromhex("00000010 0001 0001") + bytes(8)
    )
    for data in (fragment, fragment[:18] + b"\x22" + fragment[19:]):
        world.bob.engine.receive_datagram(data, local=sa.path.local, remote=sa.path.remote, now=world.now)
        assert world.bob.engine.datagrams_to_send() == []
    assert sa.window.expected_id == 2


# ------------------------------------------------------------------ sizes


@pytest.mark.parametrize(
    ("address", "port", "bytes_of_1280"),
    [("192.0.2.1", 500, 1252), ("192.0.2.1", 4500, 1248), ("2001:db8::1", 500, 1232), ("2001:db8::1", 4500, 1228)],
)
def test_the_headers_around_a_message_are_counted(address: str, port: int, bytes_of_1280: int) -> None:
    local = Endpoint(address=ip_address(address), port=port)
    assert largest_message(1280, local) == bytes_of_1280
    assert packet_of(bytes_of_1280, local) == 1280


def test_ipv6_is_never_cut_below_what_every_link_carries() -> None:
    sa = sa_of()
    sa.path = replace_path(sa.path, "2001:db8::1")
    whole = fragmentation.Whole(0, b"", b"", 600)
    fragmentation.notice_size(sa, whole)
    assert sa.path.packet_bytes == 1280


def replace_path(path: NatPath, address: str) -> NatPath:
    made = NatPath(
        replace(path.local, address=ip_address(address)),
        replace(path.remote, address=ip_address(address)),
        forced=False,
    )
    made.fragments = True
    return made
