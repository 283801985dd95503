"""Our request under way: sent again, ever more rarely, until it is answered or given up. RFC 7296 section 2.1."""

import math
from collections.abc import Callable
from typing import Self

from ike_worker.ikev2.crypto.key_exchange import KeyExchange
from ike_worker.ikev2.wish import Wish
from ipc.algorithms import KeyExchangeId

FIRST_INTERVAL_S = 1.0
BACK_OFF = 1.8
"""Each interval is this many times the one before: sent at 0, 1, 2.8, 6, 11.9, 22.4 and 41.3 s ..."""
GIVE_UP_S = 60.0
"""... and given up."""


class KeyExchangeSeed:
    """A key exchange of ours with the randomness that it was made of, so that another process can go on with it."""

    __slots__ = ("drawn", "key_exchange")

    def __init__(self, key_exchange: KeyExchange, drawn: bytes) -> None:
        self.key_exchange = key_exchange
        self.drawn = drawn

    @classmethod
    def generate(cls, group: KeyExchangeId, random_bytes: Callable[[int], bytes]) -> Self:
        """A fresh one; LocalError for a group that we do not speak."""
        drawn: list[bytes] = []

        def draw(size: int) -> bytes:
            drawn.append(random_bytes(size))
            return drawn[-1]

        return cls(KeyExchange.generate(group, draw), b"".join(drawn))

    @classmethod
    def replay(cls, group: KeyExchangeId, drawn: bytes) -> Self:
        """The one that drew these bytes."""
        left = memoryview(drawn)

        def draw(size: int) -> bytes:
            nonlocal left
            taken, left = bytes(left[:size]), left[size:]
            return taken

        return cls(KeyExchange.generate(group, draw), drawn)


class Pending:
    """A request of ours that waits for its response, and all that is needed to act on the response."""

    __slots__ = (
        "answered",
        "candidate",
        "collided_nonces",
        "collided_spi_in",
        "data",
        "exchange_type",
        "give_up_at",
        "interval_s",
        "key_exchange",
        "message_id",
        "next_at",
        "nonce",
        "spi",
        "wish",
    )

    def __init__(
        self,
        *,
        wish: Wish,
        exchange_type: int,
        message_id: int,
        data: tuple[bytes, ...],
        now: float,
        nonce: bytes = b"",
        spi: bytes = b"",
        key_exchange: KeyExchangeSeed | None = None,
    ) -> None:
        self.wish = wish
        self.exchange_type = exchange_type
        self.message_id = message_id
        self.data = data
        """The message, whole or in fragments."""
        self.nonce = nonce
        self.spi = spi
        """The new SPI of ours that the request offers: 4 bytes for a Child SA, 8 for an IKE SA."""
        self.key_exchange = key_exchange
        self.interval_s = FIRST_INTERVAL_S
        self.next_at = now + FIRST_INTERVAL_S
        self.give_up_at = now + GIVE_UP_S
        self.answered = False
        """The response is here and being worked on: nothing is sent again."""
        self.collided_spi_in = 0
        """REKEY_CHILD: what the peer made of the same Child SA meanwhile (RFC 7296 section 2.8.1)."""
        self.candidate = b""
        """REKEY_IKE: our SPI of what the peer made of the same IKE SA meanwhile (RFC 7296 section 2.8.2)."""
        self.collided_nonces: tuple[bytes, ...] = ()
        """Those of the peer's exchange."""

    @property
    def next_due(self) -> float:
        """When it is to be sent again or given up."""
        return math.inf if self.answered else min(self.next_at, self.give_up_at)

    def back_off(self, now: float) -> None:
        """It was sent again."""
        self.interval_s *= BACK_OFF
        self.next_at = now + self.interval_s
