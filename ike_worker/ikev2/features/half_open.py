"""The half-open IKE SAs that others began: found by their first message, counted by address, and bounded. RFC 8019."""

from collections import Counter, OrderedDict

from ike_worker.ikev2.datagram import Endpoint
from ike_worker.ikev2.ike_sa import IkeSa
from ipc.messages import HalfOpenLimits

HALF_OPEN_S = 30.0
"""How long an initiator has from our IKE_SA_INIT response to its IKE_AUTH request."""
_NET_BYTES = 8


def net_of(address: bytes) -> bytes:
    """What counts as one address: of IPv4 all of it, of IPv6 its /64."""
    return address[:_NET_BYTES]


class HalfOpenTable:
    """Half-open IKE SAs, the oldest first; those whose initiator has shown that it receives at its address apart."""

    def __init__(self) -> None:
        self.limits = HalfOpenLimits()
        self._by_init: dict[tuple[bytes, bytes], IkeSa] = {}
        self._free: OrderedDict[bytes, IkeSa] = OrderedDict()
        self._proven: OrderedDict[bytes, IkeSa] = OrderedDict()
        self._free_by_net: Counter[bytes] = Counter()
        self._proven_by_net: Counter[bytes] = Counter()

    def __len__(self) -> int:
        return len(self._by_init)

    def find(self, spi_i: bytes, remote: Endpoint) -> IkeSa | None:
        """The one that an initiator began under this SPI from the address of `remote`, from whatever port.

        So a puzzle that was solved once opens one and not one for each port (RFC 8019 section 10).
        """
        return self._by_init.get((spi_i, remote.address.packed))

    def free_of(self, address: bytes) -> int:
        """How many were begun from this address, or its net, without a cookie."""
        return self._free_by_net[net_of(address)]

    def proven_of(self, address: bytes) -> int:
        """How many with one."""
        return self._proven_by_net[net_of(address)]

    def add(self, sa: IkeSa, *, proven: bool) -> IkeSa | None:
        """Takes `sa`; if it is one too many, which must go for it: the oldest without a cookie, or else the oldest."""
        self._by_init[_key(sa)] = sa
        (self._proven if proven else self._free)[sa.own_spi] = sa
        (self._proven_by_net if proven else self._free_by_net)[_net(sa)] += 1
        if len(self._by_init) <= self.limits.most:
            return None
        return next(iter((self._free or self._proven).values()))

    def remove(self, sa: IkeSa) -> None:
        """`sa` is half-open no more."""
        del self._by_init[_key(sa)]
        by_net = self._proven_by_net if self._proven.pop(sa.own_spi, None) else self._free_by_net
        self._free.pop(sa.own_spi, None)
        net = _net(sa)
        by_net[net] -= 1
        if not by_net[net]:
            del by_net[net]


def _key(sa: IkeSa) -> tuple[bytes, bytes]:
    return (sa.peer_spi, _address(sa))


def _net(sa: IkeSa) -> bytes:
    return net_of(_address(sa))


def _address(sa: IkeSa) -> bytes:
    first = sa.in_handshake.first_remote
    return first.address.packed if first is not None else b""
