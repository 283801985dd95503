"""What we want of a peer: the requests that an IKE SA still has to make, one at a time (RFC 7296 section 2.3)."""

import enum

from ipc.types import TrafficSelector
from ipc.value import value


class WishKind(enum.IntEnum):
    """Kinds of request on an established IKE SA."""

    CREATE_CHILD = 1
    REKEY_CHILD = 2
    DELETE_CHILD = 3
    REKEY_IKE = 4
    DELETE_IKE = 5
    LIVENESS = 6


INHERITED_WISHES = frozenset({WishKind.CREATE_CHILD, WishKind.REKEY_CHILD, WishKind.DELETE_CHILD, WishKind.DELETE_IKE})
"""Those that a rekey of the IKE SA hands on: whoever wanted the old one deleted wants no new one."""


@value
class Wish:
    """One request to be made. Fields that a kind has no use for keep their defaults."""

    kind: WishKind
    rule_id: int = 0
    """CREATE_CHILD: the rule."""
    acquire_id: int = 0
    packet_local: TrafficSelector | None = None
    """CREATE_CHILD: the packet that asked for it, from our side (RFC 7296 section 2.9)."""
    packet_remote: TrafficSelector | None = None
    spi_in: int = 0
    """REKEY_CHILD, DELETE_CHILD: the Child SA."""
    not_before: float = 0.0
    """Monotonic seconds."""
    attempts: int = 0
    """How often it was asked for before."""
    group: int = 0
    """CREATE_CHILD, REKEY_CHILD: the key exchange group that the peer wants (INVALID_KE_PAYLOAD); 0 leaves it to us."""
    single_pair: bool = False
    """CREATE_CHILD: just the packet, nothing else of the rule (SINGLE_PAIR_REQUIRED)."""
    failed: bool = False
    """DELETE_IKE: the peer could not be authenticated, and is told so."""
    fresh: bool = False
    """CREATE_CHILD, REKEY_CHILD: with a key exchange, though the rule names none, since the peer insists on one."""
