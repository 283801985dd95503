"""An exchange, letter by letter: a test says who asks, who takes which letter and when, and what stands afterwards.

    s = Scenario()
    ask = s.alice.rekeys()
    (made,) = s.bob.takes(ask)
    (delete,) = s.alice.takes(made)

A letter that nobody takes is lost. `ends` lets everything else happen by itself, retransmissions too, and looks that
both sides agree. At every step until then both sides must have something to send on that the other can receive.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ike_worker.ikev2.child_sa import ChildSa
from ike_worker.ikev2.datagram import Datagram
from ike_worker.ikev2.errors import UnsupportedCriticalPayload
from ike_worker.ikev2.iana import ExchangeType, NotifyType, ProtocolId, name_of
from ike_worker.ikev2.ike_sa import IkeSa
from ike_worker.ikev2.states import ChildState, State
from ike_worker.ikev2.wire.delete import Delete
from ike_worker.ikev2.wire.message import Header, open_message, parse_header, parse_message
from ike_worker.ikev2.wire.notify import Notify
from ike_worker.ikev2.wire.payload import Payload
from ike_worker.ikev2.wire.sa import SecurityAssociation
from ipc.types import Direction
from tests.ike_worker.ikev2.two_sides import RULE_ID, Side, World, describe

QUIET_S = 200.0
"""After this long everything that was under way is done or given up."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Letter:
    """One message on its way. `says` tells in words what is in it."""

    sender: str
    datagram: Datagram
    header: Header
    payloads: tuple[Payload, ...]

    def __repr__(self) -> str:
        return f"{self.sender}: {self.says}"

    @property
    def says(self) -> str:
        """ "rekey child", "delete ike", "made", "deleted", "ok", or the name of an error."""
        if self.header.exchange_type in (ExchangeType.IKE_SA_INIT, ExchangeType.IKE_AUTH):
            return describe(self.datagram)
        notifies = [one for one in self.payloads if isinstance(one, Notify)]
        wrong = next((one for one in notifies if one.is_error), None)
        if wrong is not None:
            return name_of(NotifyType, wrong.type)
        if self.header.exchange_type == ExchangeType.INFORMATIONAL:
            return self._informational()
        if self.header.response:
            return "made"
        offered = next((one for one in self.payloads if isinstance(one, SecurityAssociation)), None)
        if offered is not None and offered.proposals[0].protocol == ProtocolId.IKE:
            return "rekey ike"
        return "rekey child" if any(one.type == NotifyType.REKEY_SA for one in notifies) else "create child"

    def _informational(self) -> str:
        deletes = [one for one in self.payloads if isinstance(one, Delete)]
        if self.header.response:
            return "deleted" if deletes else "ok"
        if not deletes:
            return "hello"
        return "delete ike" if deletes[0].protocol == ProtocolId.IKE else "delete child"

    @property
    def spi(self) -> int:
        """The new SPI that a request or response offers, or the one that is deleted."""
        for payload in self.payloads:
            if isinstance(payload, SecurityAssociation):
                return int.from_bytes(payload.proposals[0].spi, "big")
            if isinstance(payload, Delete) and payload.spis:
                return int.from_bytes(payload.spis[0], "big")
        return 0


class Party:
    """One side of a scenario. What it does returns the letters that it sends by that."""

    def __init__(self, side: Side, scenario: "Scenario") -> None:
        self.side = side
        self.scenario = scenario
        self.nonces: list[bytes] = []
        """What it draws next; random when there are none left."""
        context = side.engine._context
        drawn = context.new_nonce
        context.new_nonce = lambda: self.nonces.pop(0) if self.nonces else drawn()  # type: ignore[method-assign]

    @property
    def sa(self) -> IkeSa:
        """The IKE SA that it would use."""
        (sa,) = (sa for sa in self.ike_sas if sa.state is State.ESTABLISHED)
        return sa

    @property
    def ike_sas(self) -> list[IkeSa]:
        """All that it has."""
        return list(self.side.engine._context.ike_sas.values())

    # ------------------------------------------------------------------ what it does

    def rekeys(self, spi_in: int = 0) -> Letter:
        """Asks for another Child SA in the place of the first one, or of this one."""
        return self._sends_one(lambda: self.side.engine.rekey_child(spi_in or self.first.spi_in, self.now))

    def rekeys_ike(self) -> Letter:
        """Asks for another IKE SA."""
        return self._sends_one(lambda: self.side.engine.rekey_ike_sa(self.sa.own_spi, self.now))

    def deletes(self, spi_in: int = 0) -> Letter:
        """Deletes the first Child SA, or this one."""
        return self._sends_one(lambda: self.side.engine.delete_child(spi_in or self.first.spi_in, self.now))

    def deletes_ike(self) -> Letter:
        """Deletes the IKE SA."""
        return self._sends_one(lambda: self.side.engine.delete_ike_sa(self.sa.own_spi, self.now))

    def creates(self, rule_id: int = RULE_ID) -> Letter:
        """Asks for a Child SA of a rule."""
        return self._sends_one(lambda: self.side.engine.initiate(rule_id, self.now))

    def wants(self, action: str, *arguments: Any) -> None:
        """Begins what can't be sent yet."""
        assert self.does(lambda: getattr(self.side.engine, action)(*arguments, self.now)) == []

    def asks(self, exchange_type: ExchangeType, payloads: Sequence[Payload]) -> Letter:
        """Sends a request of any content, authentic and of the right message ID; its answer will mean nothing to it."""
        sa = self.sa
        (data,) = sa.seal(
            payloads, exchange_type=exchange_type, response=False, message_id=sa.window.next_id, random_bytes=bytes
        )
        sa.window.next_id += 1
        own = Datagram(local=sa.path.local, remote=sa.path.remote, data=data, own_spi=sa.own_spi)
        return self.scenario.letter(self, own)

    def takes(self, letter: Letter) -> list[Letter]:
        """Receives a letter of the other side."""
        assert letter.sender != self.side.me, f"{letter} is its own"
        return self.does(lambda: self.scenario.world.deliver(self.side, letter.datagram))

    def waits(self, seconds: float) -> list[Letter]:
        """Time passes for both; only what this side sends is returned, and what the other sends is lost."""
        sent: list[Letter] = []
        limit = self.now + seconds
        while (due := self.side.engine.get_timer()) is not None and due <= limit:
            self.scenario.world.now = max(self.now, due)
            sent += self.does(lambda: self.side.engine.handle_timer(self.now))
        self.scenario.world.now = limit
        return sent

    # ------------------------------------------------------------------ what it has

    @property
    def now(self) -> float:
        return self.scenario.world.now

    @property
    def first(self) -> ChildSa:
        """Its oldest Child SA."""
        return next(child for sa in self.ike_sas for child in sa.children.values())

    def child(self, letter: Letter | int) -> ChildState | None:
        """The state of the Child SA that one of the two calls by the SPI in this letter; None if there is none."""
        spi = letter if isinstance(letter, int) else letter.spi
        for sa in self.ike_sas:
            for child in sa.children.values():
                if spi in (child.spi_in, child.outbound.spi):
                    return child.state
        return None

    @property
    def sends_on(self) -> set[int]:
        """The SPIs of its outbound SAs."""
        return {sa.spi for sa in self.side.sas(Direction.OUT)}

    @property
    def receives_on(self) -> set[int]:
        """The SPIs of its inbound SAs."""
        return {sa.spi for sa in self.side.sas(Direction.IN)}

    # ------------------------------------------------------------------ inside

    def _sends_one(self, action: Callable[[], object]) -> Letter:
        (letter,) = self.does(action)
        return letter

    def does(self, action: Callable[[], object]) -> list[Letter]:
        """Whatever it does, and what it sends by that."""
        self.scenario.know()
        action()
        while self.side.settle():
            pass
        self.scenario.know()
        self.scenario.check_flow()
        return self.scenario.post(self)


class _ByHand(World):
    """Two sides, and a network that delivers nothing by itself once they are connected."""

    def __init__(self, seed: int, **sides: Any) -> None:
        self.by_hand = False
        self.posted: list[tuple[Side, Datagram]] = []
        super().__init__(seed, **sides)

    def send(self, sender: Side, datagram: Datagram) -> None:
        if self.by_hand:
            self.posted.append((sender, datagram))
        else:
            super().send(sender, datagram)


class Scenario:
    """Two sides with an IKE SA and a Child SA, and a network that only delivers what a test hands over."""

    def __init__(
        self, *, flows: bool = True, connected: bool = True, child: bool = True, seed: int = 1, **sides: Any
    ) -> None:
        self.flows = flows
        self.world = _ByHand(seed, **sides)
        if connected:
            self.world.connect()
        if connected and not child:
            self.world.alice.engine.delete_child(self.world.alice.sas(Direction.IN)[0].spi, self.world.now)
            self.world.run(1)
        self._known: dict[bytes, IkeSa] = {}
        self.alice, self.bob = Party(self.world.alice, self), Party(self.world.bob, self)
        self.world.by_hand = True
        self.know()

    @property
    def parties(self) -> tuple[Party, Party]:
        """Both sides."""
        return self.alice, self.bob

    def lowest_nonce(self, whose: str) -> None:
        """Who draws it when both rekey at once: "alice asks", "bob answers" and so on."""
        for party in self.parties:
            name = party.side.me
            party.nonces = [
                (b"\x01" if whose == f"{name} {deed}" else b"\x10") * 31 + name[:1].encode()
                for deed in ("asks", "answers")
            ]

    def know(self) -> None:
        """Remembers the keys of all IKE SAs, for letters of those that are closed."""
        for party in self.parties:
            self._known.update(party.side.engine._context.ike_sas)

    def post(self, party: Party) -> list[Letter]:
        """What `party` has sent since the last time; what the other one sent is lost."""
        posted, self.world.posted = self.world.posted, []
        return [self.letter(party, datagram) for sender, datagram in posted if sender is party.side]

    def letter(self, party: Party, datagram: Datagram) -> Letter:
        """A datagram of `party`, opened."""
        header = parse_header(datagram.data)
        message = parse_message(datagram.data)
        payloads = message.payloads
        if message.encrypted is not None:
            own = header.spi_i if header.initiator else header.spi_r
            protection = self._known[own].keyed.protect_out
            try:
                payloads = open_message(datagram.data, message, protection)
            except UnsupportedCriticalPayload:
                payloads = ()
        return Letter(sender=party.side.me, datagram=datagram, header=header, payloads=payloads)

    def check_flow(self) -> None:
        """Whatever one side sends the other can receive, and each has something to send on."""
        if not self.flows:
            return
        for one, other in ((self.alice, self.bob), (self.bob, self.alice)):
            assert one.sends_on, f"{one.side.me} has nothing to send on"
            assert one.sends_on <= other.receives_on, f"{other.side.me} can't receive what {one.side.me} sends"

    def ends(self, *, children: int = 1, ike_sas: int = 1) -> None:
        """Everything that is under way comes to its end; this much is left, on both sides alike."""
        self.world.by_hand = False
        self.world.run(QUIET_S)
        self.world.by_hand = True
        self.world.agree(children)
        for party in self.parties:
            assert len(party.ike_sas) == len(party.side.store) == ike_sas, [sa.state for sa in party.ike_sas]
            assert not party.side.engine._context._jobs
            for sa in party.ike_sas:
                assert sa.state is State.ESTABLISHED
                assert [child.state for child in sa.children.values()] == [ChildState.INSTALLED] * len(sa.children)
                assert not sa.all_wishes


def answer_to(s: Scenario, ask: Letter, *payloads: Payload) -> list[Letter]:
    """Bob answers what no ipsecd would; what Alice sends then."""
    sa = s.bob.sa
    (data,) = sa.seal(
        payloads,
        exchange_type=ask.header.exchange_type,
        response=True,
        message_id=ask.header.message_id,
        random_bytes=bytes,
    )
    sa.window.expected_id += 1
    answer = Datagram(local=sa.path.local, remote=sa.path.remote, data=data, own_spi=sa.own_spi)
    return s.alice.takes(s.letter(s.bob, answer))
