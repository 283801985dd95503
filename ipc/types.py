"""Values that every role speaks of: secrets, addresses, selectors. RFC 4301 section 4.4, RFC 7296 section 3.13."""

import enum
import hmac
import ipaddress
from dataclasses import dataclass
from typing import Annotated

from ipc import distinguished_name
from ipc.value import value

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class MaxLength:
    """The most bytes, characters or items that a field may hold."""

    value: int


Name = Annotated[str, MaxLength(128)]
"""A name an operator gave: of a rule, a peer, an interface."""
Text = Annotated[str, MaxLength(8192)]
"""A sentence for people."""
Path = Annotated[str, MaxLength(4096)]


class Secret:
    """Bytes that no repr, log line or traceback shows. Compared in constant time."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """The bytes themselves; call it where they are used, and do not keep the result."""
        return self._value

    def __len__(self) -> int:
        return len(self._value)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Secret({len(self._value)} bytes)"


class Action(enum.IntEnum):
    """What is done with a packet (RFC 4301 section 4.4.1)."""

    DISCARD = 0
    BYPASS = 1
    PROTECT = 2


class Mode(enum.IntEnum):
    """IPsec mode (RFC 4301 section 3.2)."""

    TRANSPORT = 0
    TUNNEL = 1


class Direction(enum.IntEnum):
    """Of a packet or an SA, seen from this host; the numbers are XFRM's."""

    IN = 0
    OUT = 1
    FORWARD = 2


class StartAction(enum.IntEnum):
    """When a protect rule is negotiated."""

    ON_DEMAND = 0
    AT_START = 1
    RESPOND_ONLY = 2


class EndAction(enum.IntEnum):
    """What follows the end of a Child SA that we did not end ourselves: the peer closed it, or does not answer."""

    TRAP = 0
    """The next packet negotiates anew."""
    START = 1
    """Negotiate anew at once."""
    CLEAR = 2
    """Nothing, until an operator says so or the peer comes: packets of the rule are dropped."""


class DataPathKind(enum.IntEnum):
    """Who does ESP. AUTO is a wish only: the kernel where it can, user space where it can't."""

    AUTO = 0
    KERNEL = 1
    USERSPACE = 2


class Unmatched(enum.IntEnum):
    """What happens to a packet that no rule matches."""

    DISCARD = 0
    BYPASS = 1


class IpForward(enum.IntEnum):
    """What start does with net.ipv4.ip_forward; stop puts back what was there."""

    LEAVE = 0
    ON = 1
    OFF = 2


class AuthMethod(enum.IntEnum):
    """IKEv2 authentication methods (RFC 7296 section 3.8)."""

    RSA_SIGNATURE = 1
    PSK = 2
    ECDSA_P256 = 9
    ECDSA_P384 = 10
    ECDSA_P521 = 11
    DIGITAL_SIGNATURE = 14


class SignatureHash(enum.IntEnum):
    """What SIGNATURE_HASH_ALGORITHMS lists (RFC 7427 section 7)."""

    SHA1 = 1
    SHA2_256 = 2
    SHA2_384 = 3
    SHA2_512 = 4
    IDENTITY = 5  # RFC 8420: the signature algorithm hashes by itself


OFFERED_SIGNATURE_HASHES = (
    SignatureHash.SHA2_256,
    SignatureHash.SHA2_384,
    SignatureHash.SHA2_512,
    SignatureHash.IDENTITY,
)
"""What every peer is told that it may use."""


class CertificateEncoding(enum.IntEnum):
    """What a CERT or CERTREQ payload holds (RFC 7296 section 3.6)."""

    X509_SIGNATURE = 4
    CRL = 7
    HASH_AND_URL_X509 = 12
    HASH_AND_URL_BUNDLE = 13
    OCSP_CONTENT = 14  # RFC 4806
    RAW_PUBLIC_KEY = 15  # RFC 7670


class IdType(enum.IntEnum):
    """Identification types (RFC 7296 section 3.5)."""

    IPV4_ADDR = 1
    FQDN = 2
    RFC822_ADDR = 3
    IPV6_ADDR = 5
    DER_ASN1_DN = 9
    KEY_ID = 11


@value
class Identity:
    """An IKE identity: the type, and the octets as they stand in the ID payload."""

    type: IdType
    data: Annotated[bytes, MaxLength(1024)]

    def __str__(self) -> str:
        if self.type in (IdType.IPV4_ADDR, IdType.IPV6_ADDR):
            return str(ipaddress.ip_address(self.data))
        if self.type in (IdType.FQDN, IdType.RFC822_ADDR):
            return self.data.decode("ascii", "backslashreplace")
        if self.type is IdType.DER_ASN1_DN:
            return distinguished_name.text(self.data)
        return self.data.hex()


@value
class Prefix:
    """An address prefix; host bits are zero."""

    address: IpAddress
    length: int

    def __str__(self) -> str:
        return f"{self.address}/{self.length}"


@value
class PortRange:
    """Ports first..last, both included; 0..65535 is any. For ICMP: type * 256 + code (RFC 7296 section 3.13.1)."""

    first: int = 0
    last: int = 65535

    def __str__(self) -> str:
        if (self.first, self.last) == (0, 65535):
            return "any"
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


ANY_PORT = PortRange()


@value
class NextLayer:
    """What a rule says of the next layer: its protocol, 0 for any, and the ports (RFC 4301 section 4.4.1.1).

    For ICMP both ports are the type and code.
    """

    protocol: int = 0
    local_port: PortRange = ANY_PORT
    remote_port: PortRange = ANY_PORT


@value
class TrafficSelector:
    """One side of the traffic of a Child SA (RFC 7296 section 3.13.1). `protocol` 0 is any."""

    protocol: int
    start_address: IpAddress
    end_address: IpAddress
    start_port: int
    end_port: int

    def __str__(self) -> str:
        text = (
            str(self.start_address)
            if self.start_address == self.end_address
            else f"{self.start_address}-{self.end_address}"
        )
        if self.protocol:
            text += f" proto {self.protocol}"
        if (self.start_port, self.end_port) != (0, 65535):
            text += f" port {self.start_port}-{self.end_port}"
        return text


@value
class UdpEncapsulation:
    """ESP in UDP (RFC 3948): the ports as the packets carry them, source first."""

    source_port: int
    destination_port: int
