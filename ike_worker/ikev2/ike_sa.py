"""An IKE SA: its SPIs, path, keys, message window, Child SAs and wishes. RFC 7296 section 2."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ike_worker.ikev2.child_sa import ChildSa
from ike_worker.ikev2.crypto.keymat import IkeKeys, IkeSuite
from ike_worker.ikev2.crypto.protection import MessageProtection
from ike_worker.ikev2.datagram import FIRST_PACKET_BYTES, Endpoint, largest_message
from ike_worker.ikev2.features.puzzles import Solver
from ike_worker.ikev2.features.retransmission import KeyExchangeSeed, Pending
from ike_worker.ikev2.states import State
from ike_worker.ikev2.wire.message import MAX_MESSAGE_BYTES, Message, open_message, seal_message, split_message
from ike_worker.ikev2.wire.payload import Payload
from ike_worker.ikev2.wish import Wish, WishKind
from ipc.algorithms import IntegrityId, KeyExchangeId, cipher_name
from ipc.messages import IkeSaStatus, Peer
from ipc.value import value

NO_SPI = bytes(8)
"""SPIr of a first message (RFC 7296 section 3.1)."""
TAIL_BYTES = 16
"""A retransmission is bitwise identical, so its end is: known again by that, before any cryptography."""


class NatPath:
    """Where the peer is, where we are, and whether a NAT stands between (RFC 7296 section 2.23)."""

    __slots__ = (
        "forced",
        "fragments",
        "keepalive_at",
        "local",
        "packet_bytes",
        "peer_behind_nat",
        "remote",
        "we_behind_nat",
    )

    def __init__(self, local: Endpoint, remote: Endpoint, *, forced: bool) -> None:
        self.local = local
        self.remote = remote
        self.forced = forced
        """We want ESP in UDP whatever is found, and make the peer find a NAT."""
        self.we_behind_nat = False
        self.peer_behind_nat = False
        self.keepalive_at = math.inf
        self.fragments = False
        """Both sides take messages in fragments (RFC 7383)."""
        self.packet_bytes = FIRST_PACKET_BYTES
        """How long the IP packets are that a longer message is cut into."""

    @property
    def encapsulated(self) -> bool:
        """Whether ESP goes in UDP."""
        return self.forced or self.we_behind_nat or self.peer_behind_nat

    @property
    def message_bytes(self) -> int:
        """The longest IKE message that is sent whole."""
        return largest_message(self.packet_bytes, self.local) if self.fragments else MAX_MESSAGE_BYTES

    def successor(self) -> "NatPath":
        """The path of an IKE SA that takes the place of this one's."""
        path = NatPath(self.local, self.remote, forced=self.forced)
        path.we_behind_nat, path.peer_behind_nat = self.we_behind_nat, self.peer_behind_nat
        path.fragments, path.packet_bytes = self.fragments, self.packet_bytes
        return path


class Session:
    """What protects the messages of an IKE SA."""

    __slots__ = ("keys", "protect_in", "protect_out", "suite")

    def __init__(self, suite: IkeSuite, keys: IkeKeys, *, initiator: bool) -> None:
        self.suite = suite
        self.keys = keys
        of_initiator = MessageProtection(suite.cipher, suite.integrity, keys.sk_ei, keys.sk_ai)
        of_responder = MessageProtection(suite.cipher, suite.integrity, keys.sk_er, keys.sk_ar)
        self.protect_out, self.protect_in = (of_initiator, of_responder) if initiator else (of_responder, of_initiator)


class Window:
    """Message IDs: a window of one request in each direction (RFC 7296 sections 2.2 and 2.3)."""

    __slots__ = ("expected_id", "last_response", "last_tail", "next_id", "pending", "preparing", "serving")

    def __init__(self) -> None:
        self.next_id = 0
        """Of our next request."""
        self.expected_id = 0
        """Of the peer's next request."""
        self.last_response: tuple[bytes, ...] = ()
        """Our response to the request before that, whole or in fragments, for when it comes again."""
        self.last_tail = b""
        """The end of that request, or of its first fragment."""
        self.pending: Pending | None = None
        self.preparing: Wish | None = None
        """What the request of ours is for that is being put together."""
        self.serving = False
        """The request `expected_id` of the peer is being worked on."""


@dataclass(slots=True, kw_only=True)
class Handshake:
    """What only a half-open IKE SA holds, and no snapshot."""

    own_nonce: bytes
    peer_nonce: bytes = b""
    own_message: bytes = b""
    """Our IKE_SA_INIT message: what our AUTH is over (RFC 7296 section 2.15)."""
    peer_message: bytes = b""
    peer_hashes: tuple[int, ...] = ()
    """What the peer lists in SIGNATURE_HASH_ALGORITHMS."""
    requested_encodings: tuple[int, ...] = ()
    """What the peer's CERTREQ payloads ask for."""
    first_remote: Endpoint | None = None
    """HALF_OPEN: where the IKE_SA_INIT request came from."""
    peer_id: bytes = b""
    """Body of the ID payload by which the peer has authenticated itself."""
    key_exchange: KeyExchangeSeed | None = None
    group: KeyExchangeId = KeyExchangeId.NONE
    cookie: bytes = b""
    solver: Solver | None = None
    """CONNECTING, AUTHENTICATING: works on the responder's puzzle."""
    solution: bytes = b""
    """Of the puzzle that came with the cookie, then of the one for IKE_AUTH."""
    restarts: int = 0
    childless: bool = False
    """AUTHENTICATING: IKE_AUTH goes without a first Child SA (RFC 6023)."""
    offers_childless: bool = False
    """AUTHENTICATING: the responder could do that."""
    takes_over: bool = False
    """CONNECTING, AUTHENTICATING: what stands with the peer ends when this one is established."""
    deadline: float = math.inf
    """HALF_OPEN: when the initiator's time is up."""


@value
class Origin:
    """How an IKE SA came into being: the handshake, whatever has been rekeyed since."""

    ours: bool
    """Whether we called."""
    rank: bytes
    """The lower one of its first two SPIs, the same on both sides. Of two that stand by accident the lower one goes."""
    created_at: float
    authenticated_at: float
    takes_over: bool
    """It was made to take the place of what stood (RFC 7296 section 2.8.3)."""
    peer_id: bytes = b""
    """Body of the peer's ID payload: of peers by a pattern there may be many."""


@value
class Handover:
    """An IKE SA gives its Child SAs to another one with the same peer, and ends."""

    look_at: float
    """When to look again what is left to do, ..."""
    look_s: float
    """... and how long after that again."""
    ends_at: float
    """When it ends in any case."""


class IkeSa:
    """The mutable state of one IKE SA. Times are monotonic seconds; `math.inf` is never."""

    __slots__ = (
        "children",
        "created_at",
        "established_at",
        "handover",
        "handshake",
        "initiator",
        "last_heard",
        "origin",
        "own_spi",
        "path",
        "peer",
        "peer_spi",
        "reauth_at",
        "rekey_at",
        "reported",
        "scheduled_at",
        "session",
        "state",
        "window",
        "wishes",
    )

    def __init__(
        self, *, own_spi: bytes, peer_spi: bytes, initiator: bool, peer: Peer, path: NatPath, state: State, now: float
    ) -> None:
        self.own_spi = own_spi
        self.peer_spi = peer_spi
        self.initiator = initiator
        """Whether we are its original initiator."""
        self.peer = peer
        self.path = path
        self.state = state
        self.session: Session | None = None
        self.handshake: Handshake | None = None
        self.window = Window()
        self.children: dict[int, ChildSa] = {}
        """By our inbound SPI."""
        self.wishes: deque[Wish] = deque()
        self.created_at = now
        self.established_at = 0.0
        self.last_heard = now
        self.rekey_at = math.inf
        self.reauth_at = math.inf
        self.origin: Origin | None = None
        """None while it is half-open."""
        self.handover: Handover | None = None
        self.scheduled_at = math.inf
        """When the engine's timer looks at it next."""
        self.reported = False
        """Some checkpoint may hold it."""

    def __str__(self) -> str:
        return f"ike {self.own_spi.hex()}/{self.peer_spi.hex()} {self.peer.name}"

    @property
    def spi_i(self) -> bytes:
        """The original initiator's SPI."""
        return self.own_spi if self.initiator else self.peer_spi

    @property
    def spi_r(self) -> bytes:
        """The original responder's SPI."""
        return self.peer_spi if self.initiator else self.own_spi

    @property
    def keyed(self) -> Session:
        """The session of an IKE SA that is past IKE_SA_INIT."""
        if self.session is None:
            raise AssertionError(f"{self} has no keys yet")
        return self.session

    @property
    def in_handshake(self) -> Handshake:
        """The handshake of an IKE SA that is not established yet."""
        if self.handshake is None:
            raise AssertionError(f"{self} is in no handshake")
        return self.handshake

    def child_by_outbound(self, spi: bytes) -> ChildSa | None:
        """The Child SA that the peer calls by its own inbound SPI."""
        number = int.from_bytes(spi, "big")
        return next((child for child in self.children.values() if child.outbound.spi == number), None)

    def wants(self, kind: WishKind, spi_in: int = 0) -> bool:
        """Whether such a request is wanted, being prepared or under way."""
        return any(wish.kind is kind and wish.spi_in == spi_in for wish in self.all_wishes)

    @property
    def all_wishes(self) -> list[Wish]:
        """What is wanted of the peer, the requests that are being prepared or under way first."""
        window = self.window
        wishes = list(self.wishes)
        if window.preparing is not None and window.preparing not in wishes:
            wishes.insert(0, window.preparing)
        if window.pending is not None and window.pending.wish not in wishes:
            wishes.insert(0, window.pending.wish)
        return wishes

    def seal(
        self,
        payloads: Sequence[Payload],
        *,
        exchange_type: int,
        response: bool,
        message_id: int,
        random_bytes: Callable[[int], bytes],
        in_clear: Sequence[Payload] = (),
    ) -> tuple[bytes, ...]:
        """A protected message of ours, in fragments if it is too long for the path; `in_clear` as `seal_message`."""
        protection = self.keyed.protect_out
        data = seal_message(
            spi_i=self.spi_i,
            spi_r=self.spi_r,
            exchange_type=exchange_type,
            initiator=self.initiator,
            response=response,
            message_id=message_id,
            payloads=payloads,
            protection=protection,
            iv=random_bytes(protection.iv_bytes),
            in_clear=in_clear,
        )
        most = self.path.message_bytes
        return (data,) if len(data) <= most else split_message((data,), most, protection, random_bytes)

    def open(self, data: bytes, message: Message) -> tuple[Payload, ...]:
        """The payloads of a protected message of the peer; errors as `open_message`."""
        return open_message(data, message, self.keyed.protect_in)

    def status(self) -> IkeSaStatus:
        """For people."""
        words = []
        if self.session is not None:
            suite = self.session.suite
            words = [cipher_name(suite.cipher), suite.prf.name.lower(), suite.key_exchange.name.lower()]
            if suite.integrity is not IntegrityId.NONE:
                words.insert(1, suite.integrity.name.lower())
        return IkeSaStatus(
            peer=self.peer.name,
            state=self.state.value,
            initiator=self.initiator,
            spi_i=self.spi_i,
            spi_r=self.spi_r,
            local=str(self.path.local),
            remote=str(self.path.remote),
            algorithms="-".join(words),
            established_at=self.established_at,
            children=tuple(child.status() for child in self.children.values()),
        )
