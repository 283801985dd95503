"""UDP datagrams and their ends, as the engine sees them: without the non-ESP marker of RFC 3948."""

from ipc.types import IpAddress
from ipc.value import value

IKE_PORT = 500
NAT_TRAVERSAL_PORT = 4500
"""RFC 3948: IKE behind a marker, and ESP, on one port."""
FIRST_PACKET_BYTES = 1280
"""IP packets of this length pass nearly everywhere: RFC 8200 section 5 promises it for IPv6."""
_IP_BYTES = {4: 20, 6: 40}
_UDP_BYTES = 8
_MARKER_BYTES = 4


@value
class Endpoint:
    """An address and a UDP port."""

    address: IpAddress
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


@value
class Datagram:
    """A datagram to send. An unspecified `local` address leaves the source address to routing."""

    local: Endpoint
    remote: Endpoint
    data: bytes
    own_spi: bytes
    """The IKE SA whose checkpoint must be held before this leaves; empty where none matters."""


def largest_message(packet_bytes: int, local: Endpoint) -> int:
    """How long an IKE message between `local` and a peer may be that fits into an IP packet of this length."""
    return packet_bytes - _around(local)


def packet_of(message_bytes: int, local: Endpoint) -> int:
    """How long the IP packet is around an IKE message of this length."""
    return message_bytes + _around(local)


def _around(local: Endpoint) -> int:
    marker = _MARKER_BYTES if local.port == NAT_TRAVERSAL_PORT else 0
    return _IP_BYTES[local.address.version] + _UDP_BYTES + marker
