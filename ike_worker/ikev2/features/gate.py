"""The first look at a datagram, by its bytes alone: what is rubbish, and who must show a cookie before we work for it.

RFC 7296 section 2.6 and RFC 8019 section 4. Under attack this is all that most datagrams get, so nothing is built
here: a look at fixed places, one HMAC, one short answer, never longer than what it answers.
"""

import enum
import struct
from collections.abc import Callable

from ike_worker.ikev2.features import puzzles
from ike_worker.ikev2.features.cookies import COOKIE_BYTES, CookieJar
from ike_worker.ikev2.features.half_open import HalfOpenTable
from ike_worker.ikev2.features.puzzles import Puzzle
from ike_worker.ikev2.iana import ExchangeType, NotifyType, PayloadType
from ike_worker.ikev2.wire.message import encode_message
from ike_worker.ikev2.wire.notify import Notify
from ipc.algorithms import PrfId

FREE_PER_SECOND = 1000
"""So many initiators a second are let in without a cookie, whatever becomes of them."""
FREE_PER_ADDRESS = 16
"""From so many half-open IKE SAs of one address on it must show cookies, whatever the load."""
UNSOLVED_PER_SECOND = 20
"""How many initiators that can't solve puzzles are let in while puzzles are asked for."""
STRANGERS_PER_SECOND = 10
"""How many messages that belong to no IKE SA are answered with a NOTIFY."""
REFUSALS_LOGGED_PER_SECOND = 10
"""How many refused first messages the log tells of: a flood does not fill the disk."""
DIFFICULTIES = (14, 18)
"""Zero bits that a puzzle asks for: when the first is asked, and when the table of half-open IKE SAs is full."""

# Plain numbers, and places in the header of RFC 7296 section 3.1: here every fraction of a microsecond counts.
_HEADER_BYTES = 28
_GENERIC_BYTES = 4
_NEXT_PAYLOAD, _VERSION, _EXCHANGE, _FLAGS, _MESSAGE_ID, _LENGTH = 16, 17, 18, 19, 20, 24
_IKE_SA_INIT = int(ExchangeType.IKE_SA_INIT)
_MAJOR_2 = 0x20
_FLAG_INITIATOR = 0x08
_FLAG_RESPONSE = 0x20
_NO_SPI = bytes(8)
_NOTIFY = int(PayloadType.NOTIFY)
_NONCE = int(PayloadType.NONCE)
_SOLUTION = int(PayloadType.PUZZLE_SOLUTION)
_SHORTEST_NONCE, _LONGEST_NONCE = 16, 256  # RFC 7296 section 3.9
_MOST_PAYLOADS = 32
_GENERIC = struct.Struct("!BxH").unpack_from
_COOKIE = Notify(type=NotifyType.COOKIE).encode_body()
_ANSWER_HEAD = _NO_SPI + bytes((_NOTIFY, _MAJOR_2, _IKE_SA_INIT, _FLAG_RESPONSE)) + bytes(4)
_COOKIE_ANSWER = (
    _ANSWER_HEAD
    + (_HEADER_BYTES + _GENERIC_BYTES + len(_COOKIE) + COOKIE_BYTES).to_bytes(4)
    + bytes(2)
    + (_GENERIC_BYTES + len(_COOKIE) + COOKIE_BYTES).to_bytes(2)
    + _COOKIE
)
"""Between SPIi and the cookie of an answer that asks for a cookie alone."""
_PRFS = (PrfId.HMAC_SHA2_256, PrfId.HMAC_SHA2_384, PrfId.HMAC_SHA2_512, PrfId.HMAC_SHA1, PrfId.HMAC_MD5)


class Admission(enum.Enum):
    """How an initiator came in."""

    FREE = enum.auto()
    PROVEN = enum.auto()
    """It has shown that it receives at its address, and solved a puzzle if that was asked."""


class Budget:
    """So many of a thing in a second."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._second = 0
        self._spent = 0

    def has(self, now: float) -> bool:
        """Whether one is left."""
        return int(now) != self._second or self._spent < self._per_second

    def take(self, now: float) -> bool:
        """Takes one, if one is left."""
        if int(now) != self._second:
            self._second, self._spent = int(now), 0
        if self._spent >= self._per_second:
            return False
        self._spent += 1
        return True


class Lottery(Budget):
    """So many of a thing in a second, by lot where more ask: to be the first helps nobody (RFC 8019 section 7.1)."""

    def __init__(self, per_second: int, random_bytes: Callable[[int], bytes]) -> None:
        super().__init__(per_second)
        self._random_bytes = random_bytes
        self._asking = 0
        self._asked_before = 0
        """How many asked in the second before: so many will ask in this one."""

    def take(self, now: float) -> bool:
        """Takes one with the luck that it needs."""
        if int(now) != self._second:
            self._asked_before = self._asking if int(now) == self._second + 1 else 0
            self._second, self._spent, self._asking = int(now), 0, 0
        self._asking += 1
        drawn = int.from_bytes(self._random_bytes(2)) * self._asked_before >> 16
        return drawn < self._per_second and super().take(now)


class Gate:
    """Who gets past, by the load that the table of half-open IKE SAs shows."""

    def __init__(self, random_bytes: Callable[[int], bytes], half_open: HalfOpenTable) -> None:
        self._jar = CookieJar(random_bytes)
        self._half_open = half_open
        self._free = Budget(FREE_PER_SECOND)
        self._unsolved = Lottery(UNSOLVED_PER_SECOND, random_bytes)
        self.strangers = Budget(STRANGERS_PER_SECOND)
        self.log_lines = Budget(REFUSALS_LOGGED_PER_SECOND)
        self.expects: Callable[[bytes], bool] = lambda _address: False
        """Whether the policy has a peer who may speak from there."""

    def examine(self, data: bytes, address: bytes, now: float, *, lets_in: bool = True) -> Admission | bytes:
        """An IKE_SA_INIT request from `address` (4 or 16 bytes): let in, or the answer that it gets, perhaps none.

        Without `lets_in` it is only looked whether it would be.
        """
        half_open, limits = self._half_open, self._half_open.limits
        if not is_init_request(data):
            return b""
        if not self.expects(address):
            return Admission.FREE if _spend(self.strangers, now, lets_in) else b""
        calm = len(half_open) < limits.cookies_from and half_open.free_of(address) < FREE_PER_ADDRESS
        if calm and _spend(self._free, now, lets_in):
            return Admission.FREE
        found = _find(data)
        if not _SHORTEST_NONCE <= len(found.nonce) <= _LONGEST_NONCE:
            return b""
        spi_i, difficulty = data[:8], self._difficulty()
        if found.cookie:
            asked = self._jar.difficulty_of(found.cookie, found.nonce, address, spi_i, now)
            if asked is not None and half_open.proven_of(address) >= limits.per_address:
                return b""
            if asked is not None and self._has_paid(data, found, asked, difficulty):
                return Admission.PROVEN
            # RFC 8019 section 7.1: some of those who can't solve puzzles are served, if they have a cookie.
            if asked and _spend(self._unsolved, now, lets_in):
                return Admission.PROVEN
        cookie = self._jar.bake(found.nonce, address, spi_i, now, difficulty)
        answer = spi_i + _COOKIE_ANSWER + cookie if not difficulty else _ask(spi_i, cookie, _prf_of(data), difficulty)
        return answer if len(answer) <= len(data) else b""

    def _difficulty(self) -> int:
        """Of the puzzle that is asked for now; 0 for none."""
        limits, count = self._half_open.limits, len(self._half_open)
        if count < limits.puzzles_from:
            return 0
        easy, hard = DIFFICULTIES
        return easy + (hard - easy) * (count - limits.puzzles_from) // max(1, limits.most - limits.puzzles_from)

    def _has_paid(self, data: bytes, found: "_Found", asked: int, wanted: int) -> bool:
        if not wanted:
            return True
        puzzle = Puzzle(string=found.cookie, prf=_prf_of(data), difficulty=asked)
        return bool(asked) and puzzles.is_solved(found.solution, puzzle)


def _spend(budget: Budget, now: float, for_good: bool) -> bool:
    return budget.take(now) if for_good else budget.has(now)


def is_init_request(data: bytes) -> bool:
    """Whether this may be a first message: header whole and plausible (RFC 7296 section 3.1)."""
    return (
        len(data) > _HEADER_BYTES
        and data[_EXCHANGE] == _IKE_SA_INIT
        and data[8:16] == _NO_SPI != data[:8]
        and data[_FLAGS] & (_FLAG_INITIATOR | _FLAG_RESPONSE) == _FLAG_INITIATOR
        and data[_VERSION] & 0xF0 == _MAJOR_2
        and data[_MESSAGE_ID:_LENGTH] == b"\0\0\0\0"
        and int.from_bytes(data[_LENGTH:_HEADER_BYTES]) == len(data)
    )


class _Found:
    """What an IKE_SA_INIT request has that a cookie is about."""

    __slots__ = ("cookie", "nonce", "solution")

    def __init__(self) -> None:
        self.cookie = b""
        self.nonce = b""
        self.solution = b""


def _find(data: bytes) -> _Found:
    """Nonce, cookie and solution, as far as the chain of payloads makes sense."""
    found = _Found()
    kind, offset, end = data[_NEXT_PAYLOAD], _HEADER_BYTES, len(data)
    for _ in range(_MOST_PAYLOADS):
        if not kind or offset + _GENERIC_BYTES > end:
            break
        following, length = _GENERIC(data, offset)
        if length < _GENERIC_BYTES:
            break
        if kind == _NONCE:
            found.nonce = data[offset + _GENERIC_BYTES : offset + length]
            break  # a cookie and a solution stand ahead of it (RFC 7296 section 2.6, RFC 8019 section 7.1.2)
        if kind == _NOTIFY and data[offset + 5 : offset + 8] == _COOKIE[1:]:
            found.cookie = data[offset + 8 : offset + length]
        elif kind == _SOLUTION:
            found.solution = data[offset + _GENERIC_BYTES : offset + length]
        kind, offset = following, offset + length
    return found


def _prf_of(data: bytes) -> PrfId:
    """A prf that the message offers (RFC 8019 section 7.1.1.2), by how such a transform is written."""
    return next((prf for prf in _PRFS if b"\0\x08\x02\0" + int(prf).to_bytes(2) in data), PrfId.HMAC_SHA2_256)


def _ask(spi_i: bytes, cookie: bytes, prf: PrfId, difficulty: int) -> bytes:
    """The response that asks for a cookie and the solution of a puzzle."""
    return encode_message(
        spi_i=spi_i,
        spi_r=_NO_SPI,
        exchange_type=_IKE_SA_INIT,
        initiator=False,
        response=True,
        message_id=0,
        payloads=[Notify(type=NotifyType.COOKIE, data=cookie), puzzles.ask(prf, difficulty)],
    )
