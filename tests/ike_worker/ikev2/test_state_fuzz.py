"""An authentic peer that sends valid messages in any order, with any field changed: nothing is raised, nothing grows.

Alice's keys are the fuzzer's: each message it makes is sealed with them, under the message ID that Bob waits for, or
nearly so. Bob's own exchanges go on meanwhile, and the fuzzer answers them as it likes.
"""

import dataclasses
import enum
import random
import struct
from collections import Counter
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address
from typing import Any

import pytest

from ike_worker.ikev2.datagram import Datagram
from ike_worker.ikev2.errors import Ikev2Error
from ike_worker.ikev2.exchanges.create_child_sa import MAX_CHILDREN
from ike_worker.ikev2.features.handover import MAX_WITH_PEER
from ike_worker.ikev2.iana import FIRST_STATUS_NOTIFY, ExchangeType, NotifyType, ProtocolId
from ike_worker.ikev2.ike_sa import IkeSa
from ike_worker.ikev2.wire.delete import Delete
from ike_worker.ikev2.wire.message import encode_message, open_message, parse_header, parse_message
from ike_worker.ikev2.wire.notify import Notify
from ike_worker.ikev2.wire.payload import Payload
from ike_worker.ikev2.wire.sa import SecurityAssociation
from ipc.types import Direction
from tests.ike_worker.ikev2.two_sides import MORE_ID, RULE_ID, Side, World, peer_of, two_rules

SEEDS = 40
PER_TEST = 20
MESSAGES = 120
HANDSHAKES = 30
MADE = -1
NOT_TO_BE_WRITTEN = (struct.error, ValueError, OverflowError, AttributeError, TypeError)
"""What the encoders raise for a field that does not fit: then nothing is sent."""
EXCHANGES = (*ExchangeType, 0, 33, 255)
NUMBERS = (0, 1, 2, 3, 4, 7, 16, 35, 43, 44, 255, 256, 16384, 16393, 65535, 2**32 - 1)


DELETE = Delete(protocol=ProtocolId.IKE)


@dataclasses.dataclass(frozen=True, slots=True)
class Said:
    """What somebody said in an exchange."""

    exchange: int
    payloads: tuple[Payload, ...]


def spis_of(side: Side) -> list[bytes]:
    return [struct.pack(">I", sa.spi) for sa in side.kernel.values()]


class Changer:
    """Changes fields of payloads; each to another value of its type."""

    def __init__(self, chance: random.Random, spis: Callable[[], list[bytes]]) -> None:
        self.chance = chance
        self.spis = spis
        """Those of Bob's SAs, which are worth a try."""

    def payloads(self, payloads: Iterable[Payload]) -> list[Payload]:
        """The payloads, mostly with something changed in one of them, now and then in another order, or one twice."""
        chance, result = self.chance, list(payloads)
        if result and chance.random() < 0.7:
            place = chance.randrange(len(result))
            result[place] = self.changed(result[place])
        if chance.random() < 0.1:
            chance.shuffle(result)
        if result and chance.random() < 0.1:
            result.append(chance.choice(result))
        return result

    def changed(self, value: Any) -> Any:
        """`value`, perhaps with something in it changed."""
        if self.chance.random() < 0.5:
            return value
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in dataclasses.fields(value)]
            if not names:
                return value
            name = self.chance.choice(names)
            return dataclasses.replace(value, **{name: self.other(getattr(value, name))})
        return value

    def other(self, value: Any) -> Any:
        """Another value of the same type."""
        chance = self.chance
        match value:
            case bool():
                return not value
            case enum.IntEnum() | int():
                return chance.choice(NUMBERS)
            case bytes():
                cut = value[: chance.randrange(len(value) + 1)]
                return chance.choice([cut, value + b"\0", chance.randbytes(len(value)), *self.spis()])
            case IPv4Address():
                return IPv4Address(chance.choice(NUMBERS))
            case tuple():
                items = [self.changed(item) for item in value]
                return tuple(chance.choice([items, items[1:], items + items, items[::-1]]))
            case _:
                return self.changed(value)


class Fuzzer:
    """Knows what Alice has sent, and sends the like of it to Bob."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        sides: dict[str, Any] = two_rules(rekey_s=30.0)
        for me in ("alice", "bob"):
            sides[me]["peer"] = peer_of(me, liveness_s=5.0, rekey_s=40.0)
        self.world = World(seed, **sides)
        self.changer = Changer(self.chance, lambda: spis_of(self.world.bob))
        self.world.filter = self.watch
        self.pool: list[Said] = [Said(ExchangeType.INFORMATIONAL, ()), Said(ExchangeType.INFORMATIONAL, (DELETE,))]
        self.keys: dict[bytes, IkeSa] = {}
        self.answers: Counter[int] = Counter()
        """Bob's, by the notifies in them."""
        self.loss = 0.0
        self.gather()
        self.loss = 0.3

    def gather(self) -> None:
        """Everything that two sides say to each other in a good life goes into the pool."""
        world = self.world
        world.alice.engine.initiate(RULE_ID, world.now)
        world.run(1)
        world.alice.engine.initiate(MORE_ID, world.now)
        world.run(1)
        for side in (world.alice, world.bob):
            side.engine.rekey_child(side.sas(Direction.IN)[0].spi, world.now)
            world.run(5)
            side.engine.rekey_ike_sa(side.ike_spis[0], world.now)
            world.run(5)
        world.alice.engine.delete_child(world.alice.sas(Direction.IN)[0].spi, world.now)
        world.run(1)

    def watch(self, sender: Side, datagram: Datagram) -> list[Datagram]:
        """Reads along."""
        for side in (self.world.alice, self.world.bob):
            self.keys.update(side.engine._context.ike_sas)
        header = parse_header(datagram.data) if len(datagram.data) >= 28 else None
        sa = self.keys.get(datagram.own_spi)
        if header is not None and sa is not None and sa.session is not None:
            message = parse_message(datagram.data)
            if message.encrypted is not None:
                payloads = open_message(datagram.data, message, sa.keyed.protect_out)
                ends = header.exchange_type == ExchangeType.IKE_AUTH or DELETE in payloads
                if len(self.pool) < 400 and not ends:
                    self.pool.append(Said(header.exchange_type, payloads))
                if sender is self.world.bob and header.response:
                    self.answers.update(one.type for one in payloads if isinstance(one, Notify))
                    self.answers.update(MADE for one in payloads if isinstance(one, SecurityAssociation))
        drops = sender is self.world.bob and self.chance.random() < self.loss
        return [] if drops else [datagram]

    # ------------------------------------------------------------------ what it sends

    def attack(self) -> None:
        """One message to Bob, as if from Alice."""
        bobs = [sa for sa in self.world.bob.engine._context.ike_sas.values() if sa.session is not None]
        if not bobs:
            self.call()
            return
        sa = self.chance.choice(bobs)
        pending = sa.window.pending
        response = pending is not None and self.chance.random() < 0.5
        number = pending.message_id if response and pending is not None else sa.window.expected_id
        data = self.seal(sa, response, max(0, number + self.chance.choice((0, 0, 0, 0, 0, 0, 1, -1))))
        if data:
            self.world.bob.engine.receive_datagram(data, local=sa.path.local, remote=sa.path.remote, now=self.world.now)

    def seal(self, sa: IkeSa, response: bool, message_id: int) -> bytes:
        """A message under the keys of Bob's peer; empty if what was made can't be written down."""
        refusals = [Said(0, (Notify(type=kind),)) for kind in NotifyType] if response else []
        said = self.chance.choice(self.chance.choice((self.pool, refusals or self.pool)))
        payloads = self.changer.payloads(said.payloads)
        pending = sa.window.pending
        exchange = said.exchange if self.chance.random() < 0.97 else self.chance.choice(EXCHANGES)
        if response and pending is not None:
            exchange = pending.exchange_type
        own, session = sa, sa.keyed
        protect = session.protect_out, session.protect_in
        try:
            session.protect_out, own.initiator = protect[1], not own.initiator
            own.own_spi, own.peer_spi = own.peer_spi, own.own_spi
            parts = own.seal(
                payloads,
                exchange_type=exchange,
                response=response,
                message_id=message_id,
                random_bytes=self.chance.randbytes,
            )
            return parts[0]
        except (*NOT_TO_BE_WRITTEN, Ikev2Error):
            return b""
        finally:
            own.own_spi, own.peer_spi = own.peer_spi, own.own_spi
            session.protect_out, own.initiator = protect[0], not own.initiator

    def call(self) -> None:
        """Bob has nothing left: Alice calls again."""
        world = self.world
        for spi in list(world.alice.ike_spis):
            world.alice.engine.delete_ike_sa(spi, world.now)
        world.run(1)
        world.alice.engine.initiate(RULE_ID, world.now)
        world.run(1)

    # ------------------------------------------------------------------ what holds

    def check(self) -> None:
        """Bob has not grown, and what he has fits together."""
        context = self.world.bob.engine._context
        assert len(context.ike_sas) <= 2 * MAX_WITH_PEER
        assert len(context._jobs) <= len(context.ike_sas)
        assert not context.awake
        assert not context.ended
        assert not context.again
        for sa in context.ike_sas.values():
            assert len(sa.children) <= 2 * MAX_CHILDREN
            assert len(sa.wishes) <= 8 + 2 * len(sa.children)
            assert sum(map(len, sa.window.last_response)) < 100_000
            assert all(context.child_owners[spi] is sa for spi in sa.children)
        assert len(context.child_owners) == sum(len(sa.children) for sa in context.ike_sas.values())
        self.world.bob.check_kernel()


@pytest.mark.parametrize("first", range(0, SEEDS, PER_TEST))
def test_an_authentic_peer_can_say_what_it_likes(first: int) -> None:
    for seed in range(first, first + PER_TEST):
        fuzzer = Fuzzer(seed)
        try:
            for _ in range(MESSAGES):
                fuzzer.attack()
                fuzzer.world.run(fuzzer.chance.choice((0.0, 0.01, 0.1, 1.5)))
                fuzzer.check()
            fuzzer.world.run(300)
            fuzzer.check()
            assert len(fuzzer.world.bob.engine._context.ike_sas) <= 2
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise


def test_the_fuzzer_reaches_what_it_is_for() -> None:
    """Its messages are authentic: Bob does what many of them ask for, and refuses others for all kinds of reasons."""
    fuzzer = Fuzzer(1)
    fuzzer.answers.clear()
    for _ in range(300):
        fuzzer.attack()
        fuzzer.world.run(fuzzer.chance.choice((0.0, 0.01, 0.1)))
    refused = {notify for notify in fuzzer.answers if notify < FIRST_STATUS_NOTIFY}
    assert {NotifyType.TEMPORARY_FAILURE, NotifyType.INVALID_SYNTAX, NotifyType.CHILD_SA_NOT_FOUND} <= refused
    assert fuzzer.answers[MADE] > 3


# ------------------------------------------------------------------ the first two exchanges


class Handshake:
    """Two sides that connect, and in each message of either something is changed on the way, under its true keys."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.world = World(seed, **two_rules())
        self.changer = Changer(self.chance, lambda: spis_of(self.world.bob))
        self.world.filter = self.change
        self.answers: Counter[int] = Counter()
        """Bob's, by the notifies in them."""
        self.sas: dict[str, dict[bytes, IkeSa]] = {"alice": {}, "bob": {}}
        """All that there were, also those that ended with what is being sent."""

    def change(self, sender: Side, datagram: Datagram) -> list[Datagram]:
        data = datagram.data.removeprefix(bytes(4))
        message = parse_message(data)
        self.sas[sender.me].update(sender.engine._context.ike_sas)
        header, sa = message.header, self.sas[sender.me].get(datagram.own_spi)
        if message.encrypted is None:
            self.note(sender, message.payloads)
            # AUTH is over these: whoever gets another one refuses what comes next.
            spared = self.chance.random() < 0.7
            return [datagram if spared else self.with_data(datagram, self.in_clear(data, message.payloads))]
        if sa is None or sa.session is None:
            return [datagram]
        payloads = open_message(data, message, sa.keyed.protect_out)
        self.note(sender, payloads)
        try:
            (sealed,) = sa.seal(
                self.changer.payloads(payloads),
                exchange_type=header.exchange_type,
                response=header.response,
                message_id=header.message_id,
                random_bytes=self.chance.randbytes,
            )
        except (*NOT_TO_BE_WRITTEN, Ikev2Error):
            return [datagram]
        return [self.with_data(datagram, sealed)]

    def in_clear(self, data: bytes, payloads: tuple[Payload, ...]) -> bytes:
        header = parse_header(data)
        try:
            return encode_message(
                spi_i=header.spi_i,
                spi_r=header.spi_r,
                exchange_type=header.exchange_type,
                initiator=header.initiator,
                response=header.response,
                message_id=header.message_id,
                payloads=self.changer.payloads(payloads),
            )
        except (*NOT_TO_BE_WRITTEN, Ikev2Error):
            return data

    @staticmethod
    def with_data(datagram: Datagram, data: bytes) -> Datagram:
        marker = datagram.data[: len(datagram.data) - len(datagram.data.removeprefix(bytes(4)))]
        return dataclasses.replace(datagram, data=marker + data)

    def note(self, sender: Side, payloads: Iterable[Payload]) -> None:
        if sender is self.world.bob:
            self.answers.update(one.type for one in payloads if isinstance(one, Notify))

    def run(self) -> int:
        """Alice tries ten times; how often both have a Child SA then."""
        world, stood = self.world, 0
        for _ in range(10):
            world.alice.engine.initiate(RULE_ID, world.now)
            world.run(0.5)
            stood += bool(world.alice.kernel and world.bob.kernel)
            world.run(20)
            for side in (world.alice, world.bob):
                for spi in list(side.ike_spis):
                    side.engine.delete_ike_sa(spi, world.now)
            world.run(1)
        for side in (world.alice, world.bob):
            context = side.engine._context
            assert len(context.ike_sas) <= 2 * MAX_WITH_PEER
            assert len(context._jobs) <= len(context.ike_sas)
            assert len(context.half_open) <= 10
            side.check_kernel()
        return stood


def test_a_handshake_in_which_anything_is_changed() -> None:
    answers, stood = Counter[int](), 0
    for seed in range(HANDSHAKES):
        handshake = Handshake(seed)
        try:
            stood += handshake.run()
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
        answers += handshake.answers
    assert stood > HANDSHAKES
    assert {NotifyType.AUTHENTICATION_FAILED, NotifyType.NO_PROPOSAL_CHOSEN, NotifyType.INVALID_SYNTAX} <= set(answers)
