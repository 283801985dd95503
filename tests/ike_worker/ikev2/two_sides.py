"""Two engines in one process: a network that loses things, a clock, and what stands around an engine.

No sockets, no waiting: `run` carries datagrams, events and timers until nothing is left to do before a given time.
"""

import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from ike_worker.ikev2 import events as e
from ike_worker.ikev2.crypto.prf import prf
from ike_worker.ikev2.engine import Datagram, Endpoint, Engine
from ike_worker.ikev2.iana import ExchangeType, NotifyType, PayloadType, name_of
from ike_worker.ikev2.memory import Memory
from ike_worker.ikev2.snapshot import IkeSaState
from ike_worker.ikev2.wire.message import encode_message, parse_header, parse_message
from ike_worker.ikev2.wire.notify import Notify
from ipc import codec
from ipc.algorithms import (
    AES128GCM16,
    AES256GCM16,
    EsnId,
    EspProposal,
    IkeProposal,
    KeyExchangeId,
    PrfId,
)
from ipc.messages import NegotiationRule, Peer, Sa, SaName, Usage
from ipc.types import (
    AuthMethod,
    Direction,
    Identity,
    IdType,
    IpAddress,
    Mode,
    StartAction,
    TrafficSelector,
)
from tests.ike_worker.ikev2.workers import Engines

LATENCY_S = 0.01
RULE_ID = 7
PSK = b"correct horse battery staple"
ALICE = ip_address("192.0.2.1")
BOB = ip_address("198.51.100.2")

IKE = IkeProposal(
    encryption=(AES256GCM16,), integrity=(), prf=(PrfId.HMAC_SHA2_256,), key_exchange=(KeyExchangeId.X25519,)
)
ESP = EspProposal(encryption=(AES256GCM16, AES128GCM16), integrity=(), key_exchange=(), esn=(EsnId.ESN,))


def net(text: str, *, protocol: int = 0, port: int | None = None) -> TrafficSelector:
    """The selector of a range "first-last" or of one address."""
    first, _, last = text.partition("-")
    return TrafficSelector(
        protocol=protocol,
        start_address=ip_address(first),
        end_address=ip_address(last or first),
        start_port=0 if port is None else port,
        end_port=65535 if port is None else port,
    )


ALICE_NET = net("10.1.0.0-10.1.255.255")
BOB_NET = net("10.2.0.0-10.2.255.255")


def identity(name: str) -> Identity:
    return Identity(type=IdType.FQDN, data=name.encode())


def peer_of(me: str, **changes: object) -> Peer:
    """What `me` ("alice" or "bob") has in its policy about the other one."""
    other, address = ("bob", BOB) if me == "alice" else ("alice", ALICE)
    peer = Peer(
        name=other,
        address=address,
        local_address=ALICE if me == "alice" else BOB,
        local_id=identity(f"{me}.example"),
        remote_id=identity(f"{other}.example"),
        auth=AuthMethod.PSK,
        ike_proposals=(IKE,),
        force_encapsulation=False,
        liveness_s=0.0,
        rekey_s=0.0,
    )
    return replace(peer, **changes)  # type: ignore[arg-type]


def rule_of(me: str, **changes: object) -> NegotiationRule:
    """The rule of `me` for the traffic between the two networks."""
    rule = NegotiationRule(
        rule_id=RULE_ID,
        name="lan",
        position=0,
        peer="bob" if me == "alice" else "alice",
        mode=Mode.TUNNEL,
        local=(ALICE_NET,) if me == "alice" else (BOB_NET,),
        remote=(BOB_NET,) if me == "alice" else (ALICE_NET,),
        esp_proposals=(ESP,),
        start=StartAction.ON_DEMAND,
        rekey_s=0.0,
        life_s=0.0,
    )
    return replace(rule, **changes)  # type: ignore[arg-type]


MORE_ID = 8
"""A second rule, for other networks."""


def two_rules(**changes: object) -> dict[str, Any]:
    """Policies of both sides, with a second rule."""
    alice, bob = net("10.3.0.0-10.3.255.255"), net("10.4.0.0-10.4.255.255")
    more = {
        "alice": rule_of("alice", rule_id=MORE_ID, name="more", position=1, local=(alice,), remote=(bob,), **changes),
        "bob": rule_of("bob", rule_id=MORE_ID, name="more", position=1, local=(bob,), remote=(alice,), **changes),
    }
    return {me: {"rules": [rule_of(me, **changes), more[me]]} for me in ("alice", "bob")}


def auth_of(psk: bytes, question: e.ComputeAuth | e.VerifyAuth) -> bytes:
    """RFC 7296 section 2.15: prf(prf(PSK, "Key Pad for IKEv2"), message | nonce | prf(SK_p, ID body))."""
    octets = question.message + question.nonce + prf(question.prf, question.sk_p.reveal(), question.id_payload)
    return prf(question.prf, prf(question.prf, psk, b"Key Pad for IKEv2"), octets)


class Side:
    """One host: an engine, a loader that makes AUTH, a kernel that holds SAs, a store that holds checkpoints."""

    def __init__(
        self,
        me: str,
        world: "World",
        *,
        psk: bytes = PSK,
        peer: Peer | None = None,
        rules: Iterable[NegotiationRule] = (),
        workers: int = 1,
    ) -> None:
        self.me = me
        self.world = world
        self.psk = psk
        self.workers = workers
        self.peers: tuple[Peer, ...] = (peer or peer_of(me),)
        self.rules = tuple(rules) or (rule_of(me),)
        self.spis = itertools.count(0x1000 if me == "alice" else 0x20000)
        self.kernel: dict[SaName, Sa] = {}
        self.kernel_log: list[str] = []
        self.log: list[e.Event] = []
        self.store: dict[bytes, bytes] = {}
        self.memory = b""
        self.installed_at: dict[SaName, float] = {}
        self.last_used: dict[SaName, float] = {}
        self.answers_usage = True
        self.refuse_installs = 0
        self.answer_events = True
        self.routed_source: IpAddress | None = None
        """What routing says our address towards the peer is."""
        self.requests_sent: dict[tuple[bytes, int, bytes], bytes] = {}
        self.restarts = 0
        self.engine = self._fresh_engine()
        self.engine.set_policy(self.peers, self.rules, world.now)

    def _fresh_engine(self) -> Engine:
        chance = random.Random(f"{self.world.seed} {self.me} {self.restarts}")
        surroundings: dict[str, Any] = {
            "random_bytes": chance.randbytes,
            "source_address": lambda _remote: self.routed_source,
        }
        return Engine(**surroundings) if self.workers == 1 else Engines(self.workers, **surroundings)  # type: ignore[return-value]

    def kill_and_restore(self) -> None:
        """A new process with what the store holds; SPIs, the kernel and the clock go on."""
        self.world.to_do = [item for item in self.world.to_do if item[2] is not self]
        self.restarts += 1
        self.engine = self._fresh_engine()
        if self.memory:
            self.engine.remember(codec.decode_value(Memory, self.memory), self.world.now)
        for data in self.store.values():
            self.engine.restore(codec.decode_value(IkeSaState, data), self.world.now)
        self.engine.set_policy(self.peers, self.rules, self.world.now)
        self.engine.start_rules(self.world.now)
        wanted = {SaName(spi=sa.spi, destination=sa.destination): sa for sa in self.engine.installed_sas()}
        self.kernel = wanted

    def settle(self) -> bool:
        """Carries events and datagrams out, as the worker does; True if there were any."""
        busy = False
        while self.answer_events and (event := self.engine.next_event()) is not None:
            busy = True
            self.log.append(event)
            self._handle(event)
        changes = self.engine.take_changes()
        for spi in changes.changed:
            self.store[spi] = codec.encode_value(self.engine.snapshot(spi))
        for spi in changes.gone:
            self.store.pop(spi, None)
        if changes.memory | self.engine.take_new_failures():
            self.memory = codec.encode_value(self.engine.memory())
        for datagram in self.engine.datagrams_to_send():
            busy = True
            self._check_message_id(datagram)
            self.world.send(self, datagram)
        return busy or (isinstance(self.engine, Engines) and self.engine.has_events)

    def _check_message_id(self, datagram: Datagram) -> None:
        """No message ID is ever used for two different requests."""
        if len(datagram.data) < 28:
            return
        header = parse_header(datagram.data)
        if header.response or header.exchange_type == ExchangeType.IKE_SA_INIT:
            return
        own = header.spi_i if header.initiator else header.spi_r
        fragment = datagram.data[32:36] if header.next_payload == PayloadType.ENCRYPTED_FRAGMENT else b""
        first = self.requests_sent.setdefault((own, header.message_id, fragment), datagram.data)
        assert first == datagram.data, f"{self.me}: message ID {header.message_id} was used twice"

    def _handle(self, event: e.Event) -> None:
        now, engine = self.world.now, self.engine
        match event:
            case e.AllocateSpi():
                engine.spi_allocated(event.token, next(self.spis), now)
            case e.ComputeAuth():
                engine.auth_computed(event.token, AuthMethod.PSK, auth_of(self.psk, event), now)
            case e.VerifyAuth():
                valid = event.method == AuthMethod.PSK and auth_of(self.psk, event) == event.data
                engine.auth_verified(event.token, valid, now)
            case e.InstallSas() if self.refuse_installs:
                self.refuse_installs -= 1
                engine.sas_refused(event.token, "the kernel said no", now)
            case e.InstallSas():
                for sa in event.sas:
                    name = SaName(spi=sa.spi, destination=sa.destination)
                    assert name not in self.kernel, f"{self.me}: {name} is installed twice"
                    self.kernel[name] = sa
                    self.installed_at[name] = now
                    self.kernel_log.append(f"+{sa.direction.name.lower()}")
                engine.sas_installed(event.token, now)
            case e.QueryUsage() if self.answers_usage:
                used = [(name, max(self.installed_at[name], self.last_used.get(name, 0.0))) for name in event.sas]
                usage = [
                    Usage(sa=name, packets=int(self._has_carried(name)), bytes=0, idle_s=now - then)
                    for name, then in used
                ]
                engine.sas_used(tuple(usage), now)
            case e.DeleteSas():
                for name in event.sas:
                    gone = self.kernel.pop(name, None)
                    if gone is not None:
                        self.kernel_log.append(f"-{gone.direction.name.lower()}")

    def _has_carried(self, name: SaName) -> bool:
        """Whether packets have come or gone; with `World.flows` each side uses whatever it can send on."""
        other = self.world.bob if self is self.world.alice else self.world.alice
        return name in self.last_used or (self.world.flows and (name in other.kernel or self._sends_on(name)))

    def _sends_on(self, name: SaName) -> bool:
        return name in self.kernel and self.kernel[name].direction is Direction.OUT

    def of(self, kind: type[e.Event]) -> list[e.Event]:
        """The events of this kind so far."""
        return [event for event in self.log if isinstance(event, kind)]

    def sas(self, direction: Direction) -> list[Sa]:
        """What is installed."""
        return [sa for sa in self.kernel.values() if sa.direction is direction]

    @property
    def ike_spis(self) -> list[bytes]:
        """Our SPIs of the IKE SAs that stand."""
        return list(self.store)

    def check_kernel(self) -> None:
        """The kernel has exactly what the engine says that it should have."""
        wanted = {SaName(spi=sa.spi, destination=sa.destination): sa for sa in self.engine.installed_sas()}
        assert self.kernel == wanted


Filter = Callable[[Side, Datagram], list[Datagram]]


class World:
    """Alice, Bob, the network between them and the time."""

    def __init__(self, seed: Any = 1, **sides: Any) -> None:
        self.seed = seed
        self.now = 1000.0
        self.chance = random.Random(seed)
        self.loss = self.duplication = self.corruption = 0.0
        self.spread_s = 0.0
        self.flows = False
        """There are packets all the time, both ways."""
        self.filter: Filter | None = None
        self.wire: list[str] = []
        self.to_do: list[tuple[float, int, Side, Datagram]] = []
        self._order = itertools.count()
        self.nat: Callable[[Endpoint], Endpoint] | None = None
        """Rewrites Alice's endpoint, as a NAT in front of her does."""
        self.alice = Side("alice", self, **sides.get("alice", {}))
        self.bob = Side("bob", self, **sides.get("bob", {}))

    # ------------------------------------------------------------------ network

    def send(self, sender: Side, datagram: Datagram) -> None:
        self.wire.append(f"{sender.me}: {describe(datagram)}")
        datagrams = [datagram] if self.filter is None else self.filter(sender, datagram)
        for one in datagrams:
            for _ in range(1 + (self.chance.random() < self.duplication)):
                if self.chance.random() < self.loss:
                    continue
                arrival = self.now + LATENCY_S + self.chance.random() * self.spread_s
                receiver = self.bob if sender is self.alice else self.alice
                self.to_do.append((arrival, next(self._order), receiver, self._damaged(one)))

    def _damaged(self, datagram: Datagram) -> Datagram:
        if self.chance.random() >= self.corruption:
            return datagram
        place = self.chance.randrange(len(datagram.data))
        data = bytearray(datagram.data)
        data[place] ^= 1 << self.chance.randrange(8)
        return replace(datagram, data=bytes(data))

    def deliver(self, receiver: Side, datagram: Datagram) -> None:
        local, remote = datagram.remote, datagram.local
        if self.nat is not None and receiver is self.bob:
            remote = self.nat(remote)
        if self.nat is not None and receiver is self.alice:
            local = Endpoint(address=ALICE, port=4500 if local.port not in (500, 4500) else local.port)
        receiver.engine.receive_datagram(datagram.data, local=local, remote=remote, now=self.now)

    # ------------------------------------------------------------------ time

    def step(self, limit: float) -> bool:
        """The next thing that happens, if it is not after `limit`."""
        while self.alice.settle() | self.bob.settle():
            pass
        due = [item[0] for item in self.to_do]
        due += [t for side in (self.alice, self.bob) if (t := side.engine.get_timer()) is not None]
        if not due or min(due) > limit:
            return False
        self.now = max(self.now, min(due))
        for side in (self.alice, self.bob):
            side.engine.handle_timer(self.now)
        arrived = sorted(item for item in self.to_do if item[0] <= self.now)
        if arrived:
            self.to_do.remove(arrived[0])
            self.deliver(arrived[0][2], arrived[0][3])
        return True

    def run(self, seconds: float = 0.5) -> None:
        """Lets everything happen that happens within `seconds`."""
        limit = self.now + seconds
        for _ in range(100_000):
            if not self.step(limit):
                self.now = limit
                return
        raise AssertionError("the two never come to rest")

    def connect(self) -> None:
        """Alice calls Bob, and both have an IKE SA and a Child SA."""
        self.alice.engine.initiate(RULE_ID, self.now)
        self.run()
        self.agree(1)
        self.wire.clear()
        self.alice.log.clear()
        self.bob.log.clear()

    # ------------------------------------------------------------------ what holds

    def agree(self, children: int | None = None) -> None:
        """Both kernels hold matching SAs: each outbound one of a side is an inbound one of the other, same keys."""
        for side in (self.alice, self.bob):
            side.check_kernel()
        for one, other in ((self.alice, self.bob), (self.bob, self.alice)):
            inbound = {sa.spi: sa for sa in other.sas(Direction.IN)}
            if children is not None:
                assert len(one.sas(Direction.OUT)) == children
            for sa in one.sas(Direction.OUT):
                mate = inbound[sa.spi]
                assert (sa.encryption_key, sa.integrity_key, sa.cipher, sa.esn) == (
                    mate.encryption_key,
                    mate.integrity_key,
                    mate.cipher,
                    mate.esn,
                )
                assert (sa.local, sa.remote, sa.mode) == (mate.remote, mate.local, mate.mode)


def describe(datagram: Datagram) -> str:
    """A datagram in a few words: "IKE_AUTH request 1"."""
    if len(datagram.data) < 28:
        return "keepalive"
    header = parse_header(datagram.data)
    kind = "response" if header.response else "request"
    return f"{name_of(ExchangeType, header.exchange_type)} {kind} {header.message_id}"


def without_notify(data: bytes, left_out: NotifyType) -> bytes:
    """A message in clear as it would be if it had not this notify."""
    header, message = parse_header(data), parse_message(data)
    return encode_message(
        spi_i=header.spi_i,
        spi_r=header.spi_r,
        exchange_type=header.exchange_type,
        initiator=header.initiator,
        response=header.response,
        message_id=header.message_id,
        payloads=[one for one in message.payloads if not (isinstance(one, Notify) and one.type == left_out)],
    )


def behind_nat(address: IpAddress, offset: int = 10_000) -> Callable[[Endpoint], Endpoint]:
    """A NAT that shows Alice at `address`, on other ports."""
    return lambda endpoint: Endpoint(address=address, port=endpoint.port + offset)
