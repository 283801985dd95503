"""UDP datagrams and their ends, as the engine sees them: without the non-ESP marker of RFC 3948."""

from dataclasses import dataclass

from ipc.types import IpAddress

IKE_PORT = 500
NAT_TRAVERSAL_PORT = 4500
"""RFC 3948: IKE behind a marker, and ESP, on one port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An address and a UDP port."""

    address: IpAddress
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Datagram:
    """A datagram to send. An unspecified `local` address leaves the source address to routing."""

    local: Endpoint
    remote: Endpoint
    data: bytes
    own_spi: bytes
    """The IKE SA whose checkpoint must be held before this leaves; empty where none matters."""
