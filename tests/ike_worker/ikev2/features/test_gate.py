"""What comes past the first look at a datagram, under which load. RFC 7296 section 2.6, RFC 8019."""

import random
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ike_worker.ikev2 import events as e
from ike_worker.ikev2.datagram import Endpoint
from ike_worker.ikev2.features import gate
from ike_worker.ikev2.features.half_open import HALF_OPEN_S
from ike_worker.ikev2.iana import ExchangeType, NotifyType, PayloadType
from ike_worker.ikev2.wire.message import encode_message, parse_header, parse_message
from ike_worker.ikev2.wire.nonce import Nonce
from ike_worker.ikev2.wire.notify import Notify
from ike_worker.ikev2.wire.payload import Payload
from ipc.algorithms import KeyExchangeId, PrfId
from ipc.messages import HalfOpenLimits
from tests.ike_worker.ikev2.two_sides import ALICE, BOB, IKE, RULE_ID, Datagram, Side, World, peer_of

BOB_500 = Endpoint(address=BOB, port=500)
COOKIE_ASKED = ["alice: IKE_SA_INIT request 0", "bob: IKE_SA_INIT response 0"]
HANDSHAKE = [*COOKIE_ASKED, "alice: IKE_AUTH request 1", "bob: IKE_AUTH response 1"]


def world_with(**limits: int) -> World:
    """Bob has these limits."""
    world = World()
    world.bob.engine.set_half_open_limits(HalfOpenLimits(**limits))
    return world


def call(world: World, seconds: float = 0.5) -> None:
    world.alice.engine.initiate(RULE_ID, world.now)
    world.run(seconds)


def first_message() -> bytes:
    """Alice's IKE_SA_INIT request."""
    world = World()
    world.alice.engine.initiate(RULE_ID, world.now)
    (datagram,) = world.alice.engine.datagrams_to_send()
    return datagram.data


FIRST = first_message()


def from_spi(number: int, data: bytes = FIRST) -> bytes:
    return number.to_bytes(8) + data[8:]


def flood(world: World, count: int, *, address: str | None = None, start: int = 1, answer: bool = False) -> int:
    """So many first messages to Bob, each under an SPI of its own; how many were answered with more than a cookie.

    With `answer` each shows the cookie that it is given. All come from Alice's address, which Bob knows, or `address`.
    """
    remote = Endpoint(address=ip_address(address) if address else ALICE, port=500)
    made = 0
    for number in range(start, start + count):
        data = from_spi(number)
        for _ in range(2):
            world.bob.engine.receive_datagram(data, local=BOB_500, remote=remote, now=world.now)
            answers = [one.data for one in world.bob.engine.datagrams_to_send()]
            if not answers or not is_cookie(answers[0]) or not answer:
                break
            data = with_first(data, parse_message(answers[0]).payloads[0])
        made += bool(answers) and not is_cookie(answers[0])
    return made


def is_cookie(data: bytes) -> bool:
    first = next(iter(parse_message(data).payloads), None)
    return isinstance(first, Notify) and first.type == NotifyType.COOKIE


def with_first(data: bytes, *first: Payload) -> bytes:
    """`data` with payloads in front."""
    header = parse_header(data)
    return encode_message(
        spi_i=header.spi_i,
        spi_r=header.spi_r,
        exchange_type=header.exchange_type,
        initiator=True,
        response=False,
        message_id=0,
        payloads=[*first, *parse_message(data).payloads],
    )


def half_open(world: World) -> int:
    return len(world.bob.engine._context.half_open)


# ------------------------------------------------------------------ cookies


def test_without_load_nothing_is_asked() -> None:
    world = world_with()
    call(world)
    assert world.wire == HANDSHAKE


def test_from_the_configured_number_of_half_open_ike_sas_on_a_cookie_is_asked() -> None:
    world = world_with(cookies_from=3)
    assert flood(world, 10) == 3
    call(world)
    assert world.wire == [*COOKIE_ASKED, *HANDSHAKE]
    world.agree(1)


def test_one_address_is_asked_for_cookies_early() -> None:
    world = world_with()
    assert flood(world, 100) == gate.FREE_PER_ADDRESS
    call(world)
    assert world.wire == [*COOKIE_ASKED, *HANDSHAKE]


def test_a_64_of_ipv6_is_one_address() -> None:
    world = world_with()
    bob = peer_of("bob", address=ip_address("2001:db8::5"), local_address=None)
    world.bob.engine.set_policy((bob,), (), world.now)
    for number in range(1, 60):
        flood(world, 1, address=f"2001:db8::{number:x}", start=number)
    table = world.bob.engine._context.half_open
    assert table.free_of(ip_address("2001:db8::77").packed) == 1  # of the peer at ::5
    assert table.free_of(ip_address("2001:db8:0:1::5").packed) == 0


def test_an_address_has_so_many_half_open_ike_sas_and_no_more() -> None:
    world = world_with(per_address=40)
    assert flood(world, 200, answer=True) == gate.FREE_PER_ADDRESS + 40
    assert half_open(world) == gate.FREE_PER_ADDRESS + 40
    world.run(40)
    assert half_open(world) == 0
    call(world)
    world.agree(1)


def test_a_finished_handshake_makes_room() -> None:
    world = world_with()
    call(world)
    assert half_open(world) == 0
    table = world.bob.engine._context.half_open
    assert table.free_of(ALICE.packed) == table.proven_of(ALICE.packed) == 0


def test_a_full_table_lets_the_oldest_without_a_cookie_go_first() -> None:
    world = world_with(most=20, cookies_from=10, puzzles_from=1000)
    assert flood(world, 10) == 10
    assert flood(world, 30, start=100, answer=True) == 30
    sas = world.bob.engine._context.ike_sas.values()
    assert sorted(int.from_bytes(sa.peer_spi) for sa in sas) == list(range(110, 130))
    call(world)
    world.agree(1)


def test_the_same_message_again_is_answered_again_and_another_under_its_spi_is_not() -> None:
    world = world_with()
    remote = Endpoint(address=ALICE, port=500)

    def send(data: bytes) -> list[bytes]:
        world.bob.engine.receive_datagram(data, local=BOB_500, remote=remote, now=world.now)
        return [one.data for one in world.bob.engine.datagrams_to_send()]

    first = send(FIRST)
    assert send(FIRST) == first != []
    # The end alone does not make it the same: nobody gets a long answer for a short message.
    short = FIRST[:16] + b"\x29" + FIRST[17:24] + (28 + 24).to_bytes(4) + bytes.fromhex("00000018") + FIRST[-20:]
    assert send(short) == []


def test_where_anybody_may_call_a_flood_brings_cookies_however_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    """First messages that are refused leave nothing half-open, but are work all the same."""
    anybody = replace(peer_of("bob"), address=None, ike_proposals=(replace(IKE, prf=(PrfId.HMAC_SHA2_512,)),))
    world = World(bob={"peer": anybody})
    caplog.set_level("INFO")
    answers = []
    for number in range(1, gate.FREE_PER_SECOND + 50):
        remote = Endpoint(address=ip_address(number), port=500)
        world.bob.engine.receive_datagram(from_spi(number), local=BOB_500, remote=remote, now=world.now)
        answers += [is_cookie(one.data) for one in world.bob.engine.datagrams_to_send()]
    assert answers == [False] * gate.FREE_PER_SECOND + [True] * 49
    assert half_open(world) == 0
    assert sum("refused in IKE_SA_INIT" in line for line in caplog.messages) == gate.REFUSALS_LOGGED_PER_SECOND


# ------------------------------------------------------------------ puzzles


def test_under_more_load_a_puzzle_is_asked_and_solved() -> None:
    world = world_with(cookies_from=0, puzzles_from=0)
    asked: list[Datagram] = []

    def watch(sender: Side, datagram: Datagram) -> list[Datagram]:
        if sender is world.bob and not asked:
            asked.append(datagram)
        return [datagram]

    world.filter = watch
    call(world)
    assert world.wire == [*COOKIE_ASKED, *HANDSHAKE]
    cookie, puzzle = parse_message(asked[0].data).payloads
    assert isinstance(cookie, Notify)
    assert isinstance(puzzle, Notify)
    assert (cookie.type, puzzle.type, puzzle.data) == (NotifyType.COOKIE, 16434, bytes.fromhex("00050e"))
    world.agree(1)


def test_the_puzzle_is_of_a_prf_that_the_initiator_offers() -> None:
    changes = {"ike_proposals": (replace(IKE, prf=(PrfId.HMAC_SHA2_384,)),)}
    world = World(alice={"peer": peer_of("alice", **changes)}, bob={"peer": peer_of("bob", **changes)})
    world.bob.engine.set_half_open_limits(HalfOpenLimits(cookies_from=0, puzzles_from=0))
    call(world)
    assert world.wire == [*COOKIE_ASKED, *HANDSHAKE]


def test_a_few_that_can_not_solve_puzzles_are_served() -> None:
    world = world_with(cookies_from=0, puzzles_from=0, per_address=1000)
    assert flood(world, 100, answer=True) == gate.UNSOLVED_PER_SECOND
    world.now += 1.0
    # By lot, and not those who come first in each second.
    served = [flood(world, 50, start=start, answer=True) for start in (1000, 2000)]
    assert min(served) >= 2
    assert 8 <= sum(served) <= gate.UNSOLVED_PER_SECOND


def test_a_puzzle_solved_once_opens_one_half_open_sa() -> None:
    """RFC 8019 section 10: neither from another port, nor when the first one's time is up."""
    world, sent = world_with(cookies_from=0, puzzles_from=0, per_address=1000), list[bytes]()

    def watch(sender: Side, datagram: Datagram) -> list[Datagram]:
        if sender is world.alice and parse_header(datagram.data).message_id == 0:
            sent.append(datagram.data)
        return [] if parse_header(datagram.data).exchange_type == ExchangeType.IKE_AUTH else [datagram]

    world.filter = watch
    call(world)
    solved = sent[-1]
    assert any(one.TYPE == PayloadType.PUZZLE_SOLUTION for one in parse_message(solved).payloads)
    assert half_open(world) == 1
    for port in (500, 501, 4500):
        remote = Endpoint(address=ALICE, port=port)
        world.bob.engine.receive_datagram(solved, local=BOB_500, remote=remote, now=world.now)
        assert half_open(world) == 1
    world.alice.engine.end_rule(RULE_ID, world.now)
    world.run(HALF_OPEN_S + 1)
    assert half_open(world) == 0
    world.bob.engine.receive_datagram(solved, local=BOB_500, remote=Endpoint(address=ALICE, port=500), now=world.now)
    assert half_open(world) == 0


def test_puzzles_become_harder_with_the_load() -> None:
    limits = {"cookies_from": 0, "puzzles_from": 10, "most": 50, "per_address": 1000}
    world = world_with(**limits)
    difficulties = []
    for start in range(0, 50, 10):
        world.now += 1.0
        flood(world, 10, start=1 + start, answer=True)
        difficulties.append(world.bob.engine._context.gate._difficulty())
    assert difficulties == sorted(difficulties)
    assert difficulties[-1] == 18


def test_while_we_solve_we_do_not_ask_again_and_a_lost_solution_is_sent_again() -> None:
    world = world_with(cookies_from=0, puzzles_from=0)
    lost: list[bytes] = []

    def lose_one(sender: Side, datagram: Datagram) -> list[Datagram]:
        if sender is world.alice and datagram.data[16] == 41 and not lost:
            lost.append(datagram.data)
            return []
        return [datagram]

    world.filter = lose_one
    call(world, 5.0)
    assert world.wire == [*COOKIE_ASKED, COOKIE_ASKED[0], *HANDSHAKE]
    world.agree(1)


def test_a_true_answer_ends_the_work_on_a_false_puzzle() -> None:
    world = World()

    def forge(sender: Side, datagram: Datagram) -> list[Datagram]:
        header = parse_header(datagram.data)
        if sender is world.alice or header.message_id:
            return [datagram]
        false = encode_message(
            spi_i=header.spi_i,
            spi_r=bytes(8),
            exchange_type=ExchangeType.IKE_SA_INIT,
            initiator=False,
            response=True,
            message_id=0,
            payloads=[
                Notify(type=NotifyType.COOKIE, data=b"c" * 20),
                Notify(type=NotifyType.PUZZLE, data=bytes.fromhex("000514")),
            ],
        )
        return [replace(datagram, data=false), datagram]

    world.filter = forge
    call(world)
    assert world.wire == HANDSHAKE
    world.agree(1)


def test_a_cookie_and_another_group_may_both_be_asked_for() -> None:
    """RFC 7296 section 2.6.1: the cookie goes along with the second key exchange."""
    both = replace(IKE, key_exchange=(KeyExchangeId.X25519, KeyExchangeId.ECP_256))
    one = replace(IKE, key_exchange=(KeyExchangeId.ECP_256,))
    for puzzles_from in (0, 100):
        world = World(
            alice={"peer": peer_of("alice", ike_proposals=(both,))}, bob={"peer": peer_of("bob", ike_proposals=(one,))}
        )
        world.bob.engine.set_half_open_limits(HalfOpenLimits(cookies_from=0, puzzles_from=puzzles_from))
        call(world)
        assert world.wire == [*COOKIE_ASKED, *COOKIE_ASKED, *HANDSHAKE]
        world.agree(1)


def test_a_puzzle_beyond_our_means_is_not_tried() -> None:
    world = world_with(cookies_from=0)

    def make_harder(sender: Side, datagram: Datagram) -> list[Datagram]:
        header = parse_header(datagram.data)
        if sender is world.alice or not is_cookie(datagram.data):
            return [datagram]
        harder = encode_message(
            spi_i=header.spi_i,
            spi_r=header.spi_r,
            exchange_type=header.exchange_type,
            initiator=False,
            response=True,
            message_id=0,
            payloads=[
                *parse_message(datagram.data).payloads,
                Notify(type=NotifyType.PUZZLE, data=bytes.fromhex("00051e")),
            ],
        )
        return [replace(datagram, data=harder)]

    world.filter = make_harder
    call(world)
    assert world.wire == [*COOKIE_ASKED, *HANDSHAKE]


# ------------------------------------------------------------------ rubbish, and how much is sent for it


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * 27,
        FIRST[:-1],
        FIRST + b"x",
        bytes(8) + FIRST[8:],
        FIRST[:8] + b"8 bytes." + FIRST[16:],
        FIRST[:19] + b"\x00" + FIRST[20:],
        FIRST[:23] + b"\x01" + FIRST[24:],
        FIRST[:16] + b"\x00" + FIRST[17:],
        FIRST[:28] + b"\x28\x00\x00\x00" + FIRST[32:],
    ],
)
def test_rubbish_gets_no_answer_and_leaves_nothing(data: bytes) -> None:
    world = world_with(cookies_from=0)
    engine = world.bob.engine
    engine.receive_datagram(data, local=BOB_500, remote=Endpoint(address=ALICE, port=500), now=world.now)
    assert engine.datagrams_to_send() == []
    assert engine.next_event() is None
    assert not engine._context.ike_sas


def test_screen_says_what_receive_datagram_would_do() -> None:
    world = world_with(cookies_from=1)
    engine, address = world.bob.engine, ALICE.packed
    assert engine.screen(FIRST, address, world.now) is None
    flood(world, 1)
    answer = engine.screen(FIRST, address, world.now)
    assert answer is not None
    assert is_cookie(answer)
    remote = Endpoint(address=ALICE, port=500)
    engine.receive_datagram(FIRST, local=BOB_500, remote=remote, now=world.now)
    assert [one.data for one in engine.datagrams_to_send()] == [answer]
    shown = with_first(FIRST, parse_message(answer).payloads[0])
    assert engine.screen(shown, address, world.now) is None
    assert engine.screen(b"", address, world.now) == b""


def test_messages_for_nobody_are_screened_once_enough_of_them_were_answered() -> None:
    world = World()
    call(world)
    engine, address = world.bob.engine, ALICE.packed
    stranger = b"I" * 8 + b"R" * 8 + FIRST[16:18] + b"\x25\x08" + FIRST[20:]
    (sa,) = engine._context.ike_sas.values()
    known = sa.peer_spi + sa.own_spi + stranger[16:]
    answers = 0
    for _ in range(30):
        verdict = engine.screen(stranger, address, world.now)
        if verdict is None:
            remote = Endpoint(address=ALICE, port=500)
            engine.receive_datagram(stranger, local=BOB_500, remote=remote, now=world.now)
            answers += len(engine.datagrams_to_send())
        assert engine.screen(known, address, world.now) is None
    assert answers == gate.STRANGERS_PER_SECOND
    assert engine.screen(stranger, address, world.now) == b""
    assert engine.screen(stranger, address, world.now + 1) is None


@settings(max_examples=300, deadline=None)
@given(data=st.data(), puzzles=st.booleans())
def test_no_answer_to_a_stranger_is_longer_than_its_message(data: st.DataObject, puzzles: bool) -> None:
    world = world_with(cookies_from=0, puzzles_from=0 if puzzles else 9999)
    nonce = Nonce(data=data.draw(st.binary(min_size=16, max_size=40)))
    more = data.draw(st.lists(st.just(Notify(type=40_000, data=b"more")), max_size=3))
    message = encode_message(
        spi_i=b"initiatr",
        spi_r=bytes(8),
        exchange_type=ExchangeType.IKE_SA_INIT,
        initiator=True,
        response=False,
        message_id=0,
        payloads=[*more, nonce],
    )
    damaged = bytearray(message)
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    for packet in (message, bytes(damaged)):
        answer = world.bob.engine.screen(packet, ALICE.packed, world.now)
        assert answer is None or len(answer) <= len(packet)


def test_a_flood_of_spoofed_first_messages_costs_no_memory_and_lets_an_honest_peer_in() -> None:
    world = world_with()
    chance, answers = random.Random(5), 0
    for _ in range(3000):
        # Nobody knows these: they get nothing, and make no load.
        stranger = Endpoint(address=ip_address(chance.getrandbits(32)), port=500)
        data = from_spi(chance.getrandbits(60) + 1)
        world.bob.engine.receive_datagram(data, local=BOB_500, remote=stranger, now=world.now)
        remote = Endpoint(address=ALICE, port=chance.randrange(1, 65536))
        data = from_spi(chance.getrandbits(60) + 1)
        world.bob.engine.receive_datagram(data, local=BOB_500, remote=remote, now=world.now)
        answers += len(world.bob.engine.datagrams_to_send())
    assert half_open(world) == gate.FREE_PER_ADDRESS
    assert answers == 3000 + gate.STRANGERS_PER_SECOND  # each from Alice's address a cookie, or more
    call(world)
    world.agree(1)
    assert not world.bob.of(e.NegotiationFailed)
