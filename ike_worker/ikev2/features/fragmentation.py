"""Messages in fragments: those that came are put together, those that get no answer are cut smaller. RFC 7383.

A fragment is authenticated before it is kept, and everything that is kept is bounded: for one message, for all of
them, and in time. Nothing of it is in a snapshot: a peer that gets no answer sends all its fragments again.
"""

from collections import OrderedDict
from collections.abc import Callable

from ike_worker.ikev2.datagram import packet_of
from ike_worker.ikev2.errors import IntegrityFailure, MalformedMessage
from ike_worker.ikev2.exchange_rules import Contents
from ike_worker.ikev2.features.retransmission import FIRST_INTERVAL_S, Pending
from ike_worker.ikev2.iana import NotifyType
from ike_worker.ikev2.ike_sa import TAIL_BYTES, IkeSa
from ike_worker.ikev2.wire.encrypted_fragment import EncryptedFragment
from ike_worker.ikev2.wire.message import MAX_MESSAGE_BYTES, Message, open_fragment, split_message
from ike_worker.ikev2.wire.notify import Notify

PACKET_STEPS = {4: (1280, 576), 6: (1280,)}
"""IP packet lengths to try by IP version, the longest first: RFC 7383 section 2.5.1; RFC 8200 section 5 for IPv6."""
MAX_FRAGMENTS = 256
"""Of one message: one of 64 kB in packets of 576 bytes has fewer."""
MAX_STORE_BYTES = 4 * 1024 * 1024
"""Of all messages that are not whole yet, in one store."""
REASSEMBLY_S = 30.0
"""How long the other fragments of a message may take."""
_FRAGMENT_COST_BYTES = 200
"""What it takes to keep a fragment, besides what is in it."""

SUPPORTED = Notify(type=NotifyType.IKEV2_FRAGMENTATION_SUPPORTED)


class Whole:
    """A message that has been put together."""

    __slots__ = ("first_payload", "packet_bytes", "plaintext", "tail")

    def __init__(self, first_payload: int, plaintext: bytes, tail: bytes, packet_bytes: int) -> None:
        self.first_payload = first_payload
        self.plaintext = plaintext
        self.tail = tail
        """The end of its first fragment."""
        self.packet_bytes = packet_bytes
        """How long its longest IP packet was."""


class _Parts:
    """The fragments of one message so far."""

    __slots__ = ("cost", "first_payload", "longest", "message_id", "plaintexts", "tail", "total", "until")

    def __init__(self, message_id: int, total: int, until: float) -> None:
        self.message_id = message_id
        self.total = total
        self.until = until
        self.plaintexts: dict[int, bytes] = {}
        self.first_payload = 0
        self.tail = b""
        self.longest = 0
        self.cost = 0

    def has(self, fragment: EncryptedFragment) -> bool:
        """Whether it is of no use any more.

        RFC 7383 section 2.6: a sender that cuts smaller counts more of them; what comes late of its first try is
        dropped.
        """
        return fragment.total < self.total or (fragment.total == self.total and fragment.number in self.plaintexts)


class FragmentStore:
    """The messages of many IKE SAs that are not whole yet: at most one request and one response of each."""

    def __init__(self, max_bytes: int = MAX_STORE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._parts: OrderedDict[tuple[bytes, bool], _Parts] = OrderedDict()
        self.bytes = 0
        """What is kept, with what that costs."""

    def __len__(self) -> int:
        return len(self._parts)

    def take(self, sa: IkeSa, message: Message, data: bytes, now: float) -> Whole | None:
        """Keeps an authentic fragment of a message that is expected; the whole message with the last one.

        IntegrityFailure if it is not authentic; MalformedMessage if it is, and the whole is longer than a message.
        """
        fragment, header = message.fragment, message.header
        if fragment is None or fragment.total > MAX_FRAGMENTS:
            raise IntegrityFailure("more fragments than a message can have")
        self._expire(now)
        key = (sa.own_spi, header.response)
        parts = self._parts.get(key)
        same = parts is not None and parts.message_id == header.message_id
        if parts is not None and same and parts.has(fragment):
            return None
        plaintext = open_fragment(data, fragment, sa.keyed.protect_in)
        if parts is None or not same or fragment.total > parts.total:
            self._forget(key)
            parts = self._parts[key] = _Parts(header.message_id, fragment.total, now + REASSEMBLY_S)
        parts.plaintexts[fragment.number] = plaintext
        parts.longest = max(parts.longest, len(data))
        if fragment.number == 1:
            parts.first_payload, parts.tail = fragment.first_payload, data[-TAIL_BYTES:]
        cost = len(plaintext) + _FRAGMENT_COST_BYTES
        parts.cost += cost
        self.bytes += cost
        if len(parts.plaintexts) == parts.total:
            return self._whole(key, parts, sa)
        if sum(map(len, parts.plaintexts.values())) > MAX_MESSAGE_BYTES:
            self._forget(key)
            raise MalformedMessage("fragments of more than a message")
        while self.bytes > self._max_bytes:
            self._forget(next(iter(self._parts)))
        return None

    def forget(self, own_spi: bytes) -> None:
        """The IKE SA is no more."""
        for response in (False, True):
            self._forget((own_spi, response))

    def _whole(self, key: tuple[bytes, bool], parts: _Parts, sa: IkeSa) -> Whole:
        self._forget(key)
        plaintext = b"".join([parts.plaintexts[number] for number in range(1, parts.total + 1)])
        return Whole(parts.first_payload, plaintext, parts.tail, packet_of(parts.longest, sa.path.local))

    def _forget(self, key: tuple[bytes, bool]) -> None:
        parts = self._parts.pop(key, None)
        if parts is not None:
            self.bytes -= parts.cost

    def _expire(self, now: float) -> None:
        while self._parts and (oldest := next(iter(self._parts.items())))[1].until <= now:
            self._forget(oldest[0])


def offered(contents: Contents) -> bool:
    """Whether the peer takes fragments."""
    return contents.notify(NotifyType.IKEV2_FRAGMENTATION_SUPPORTED) is not None


def notice_size(sa: IkeSa, whole: Whole) -> None:
    """The peer knows the path too: if it cuts smaller than we would, so do we (RFC 7383 section 2.5.1)."""
    smallest = PACKET_STEPS[sa.path.local.address.version][-1]
    if whole.packet_bytes <= smallest:
        sa.path.packet_bytes = smallest


def cut_smaller(sa: IkeSa, pending: Pending, random_bytes: Callable[[int], bytes]) -> bool:
    """A request that went out twice in vain is cut into smaller fragments; True if it was."""
    path = sa.path
    if not path.fragments or pending.interval_s <= FIRST_INTERVAL_S or sa.session is None:
        return False
    steps = PACKET_STEPS[path.local.address.version]
    smaller = next((step for step in steps if step < path.packet_bytes), None)
    longest = packet_of(max(map(len, pending.data)), path.local)
    if smaller is None or longest <= smaller:
        return False
    path.packet_bytes = smaller
    pending.data = split_message(pending.data, path.message_bytes, sa.session.protect_out, random_bytes)
    return True


def is_repeated(sa: IkeSa, message: Message, data: bytes) -> bool:
    """Whether this is the first fragment, cut anew, of the request that was answered last (RFC 7383 section 2.6.1)."""
    fragment = message.fragment
    if fragment is None or fragment.number != 1 or not sa.path.fragments:
        return False
    try:
        open_fragment(data, fragment, sa.keyed.protect_in)
    except (IntegrityFailure, MalformedMessage):
        return False
    return True
